"""Two of MLflow's clients, one on its own SQLite store and one on a lake, told the same.

Ids are MLflow's to give, so a script names things itself: `Id("run", 3)` is the fourth run that
it makes. What a client answers is told in these names again, with what each store keeps in
places of its own left out, so that two answers can be held against each other as they are.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient

BEGAN_MS: Final = 1_750_000_000_000
# Fields that a lake fills otherwise on purpose; docs/guides/mlflow-differences.md says why.
DIFFERENT: Final = frozenset({("ModelVersion", "user_id"), ("ModelVersion", "aliases")})
_LONG_ID: Final = re.compile(r"\b(?:m-)?[0-9a-f]{32}\b")
_MISSING: Final = {"experiment": "987654", "run": "f" * 32, "model": "m-" + "f" * 32}


class Id(NamedTuple):
    """What a script calls an experiment, a run or a logged model; below zero: never made."""

    kind: str
    number: int


class Made(NamedTuple):
    """One of MLflow's entities that a call is given: its class, and what that is made of."""

    name: str
    fields: tuple[Any, ...]


class Text(NamedTuple):
    """A text with ids in it, where `{}` stands."""

    form: str
    ids: tuple[Id, ...]


class Call(NamedTuple):
    """One call of a client, or of its store where the name begins with `store.`."""

    method: str
    given: Mapping[str, Any]
    makes: Id | None = None


class Clock:
    """What time it is for both; it goes on when a script says so."""

    def __init__(self) -> None:
        """Begin."""
        self.now_ms = BEGAN_MS

    def time(self) -> float:
        """Return what MLflow asks the system for, in seconds."""
        return self.now_ms / 1000

    def now_us(self) -> int:
        """Return what a lake asks the system for."""
        return self.now_ms * 1000


class Side:
    """One client, and what its ids are called."""

    def __init__(self, client: MlflowClient, home: str) -> None:
        """Begin with an empty store.

        Args:
            client: on the store.
            home: how the addresses of artifacts begin that the store chooses by itself.
        """
        self.client = client
        self.home = home
        self.ids: dict[Id, str] = {Id("experiment", 0): "0"}
        self.names: dict[str, Id] = {"0": Id("experiment", 0)}

    def do(self, call: Call) -> Any:  # noqa: ANN401 - any of MLflow's entities, told plainly
        """Do it, and return what came of it; of an error, its code."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415 - takes seconds

        subject: Any = self.client
        name = call.method
        if name.startswith("store."):
            subject, name = self.client._tracking_client.store, name.removeprefix("store.")
        try:
            found = getattr(subject, name)(**self._filled(call.given))
        except MlflowException as error:
            return Refused(error.error_code, self.plain(str(error)))
        if call.makes is not None:
            self._keep(call.makes, found)
            if isinstance(found, str):
                return call.makes
        told = self.plain(found)
        if isinstance(told, dict) and told.get("is") == "ModelVersion":
            # Searches of MLflow's leave aliases out, and a lake's do not.
            told["aliases"] = sorted(found.aliases)
        return told

    def pages(self, call: Call) -> list[Any]:
        """Return all pages of a search, one after the other."""
        found = []
        token = None
        while True:
            page = self.do(Call(call.method, {**call.given, "page_token": token}))
            if call.method == "search_runs" and not isinstance(page, Refused):
                for run in page:
                    # MLflow tells of them only where one run is asked for.
                    del run["inputs"]["model_inputs"]
            found.append(page)
            if isinstance(page, Refused) or page.token is None:
                return found
            token = page.token

    def _keep(self, name: Id, found: Any) -> None:  # noqa: ANN401 - an id, a run or a model
        if hasattr(found, "info"):
            made = found.info.run_id
        else:
            made = found if isinstance(found, str) else found.model_id
        self.ids[name] = made
        self.names[made] = name

    def _filled(self, given: Any) -> Any:  # noqa: ANN401 - any argument
        """Put ids in place of their names, and make what is to be made."""
        match given:
            case Id():
                return self.ids.get(given, _MISSING[given.kind])
            case Text():
                return given.form.format(*map(self._filled, given.ids))
            case Made():
                from mlflow import entities  # noqa: PLC0415 - takes seconds

                return getattr(entities, given.name)(*map(self._filled, given.fields))
            case dict():
                return {self._filled(key): self._filled(value) for key, value in given.items()}
            case list():
                return [self._filled(each) for each in given]
        return given

    def plain(self, found: Any) -> Any:  # noqa: ANN401 - of any of MLflow's entities
        """Tell an answer in the script's names."""
        match found:
            case str():
                return self._plain_text(found)
            case float() if math.isnan(found):
                return "NaN"
            case list() | tuple():
                return Page([self.plain(each) for each in found], getattr(found, "token", None))
            case dict():
                return {self.plain(key): self.plain(value) for key, value in found.items()}
        return self._plain_entity(found)

    def _plain_entity(self, found: Any) -> Any:  # noqa: ANN401 - as above
        kind = type(found).__name__
        if kind in {"_DatasetSummary", "MetricWithRunId"}:  # these do not tell all their fields
            return {key: self._plain_field(key, value) for key, value in found.to_dict().items()}
        if hasattr(found, "_properties"):
            return {"is": kind, **dict(self._fields(found))}
        return found

    def _fields(self, found: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - as above
        for name, value in found:
            if (type(found).__name__, name) in DIFFERENT:
                continue
            yield name, self._plain_field(name, value)

    def _plain_field(self, name: str, value: Any) -> Any:  # noqa: ANN401 - as above
        """Tell one field; ids of experiments may be short, so only the name tells them."""
        if name == "experiment_id":
            return self.names.get(value, value)
        if name == "latest_versions":
            value = sorted(value, key=lambda version: str(version.current_stage))
        return self.plain(value)

    def _plain_text(self, text: str) -> Any:  # noqa: ANN401 - an id stands for itself
        if text.startswith(self.home):
            return "a place of the store's"
        if text in self.names and len(text) >= len("0" * 32):
            return self.names[text]
        return _LONG_ID.sub(lambda found: str(self.names.get(found[0], found[0])), text)


@dataclass(frozen=True, slots=True)
class Refused:
    """An error: its code counts, not its words."""

    code: str
    words: str = field(compare=False)


class Page(list[Any]):
    """A list, and where it goes on; pages are equal where both or neither goes on."""

    def __init__(self, items: list[Any], token: str | None) -> None:
        """Keep both."""
        super().__init__(items)
        self.token = token

    def __eq__(self, other: object) -> bool:
        """Say whether the same stands in both."""
        return (
            isinstance(other, Page)
            and list(self) == list(other)
            and (self.token is None) == (other.token is None)
        )

    __hash__ = None
