"""What stands about registered models: a fold over the rows of the reserved partition.

The rows are taken in the order of (clock, writer, sequence number), whatever order they came
in, so every reader of the same rows ends in the same state. A row that speaks of a model or
version that is not there, or that is deleted, changes nothing; deletions are for ever. A claim
may be traced by several (its maker, and whoever found it without a trace): the first counts. A
rename counts only where the model still goes by the name that it was renamed from.
Nothing here does I/O. The normative text is `docs/spec/v1.md`, "Fold".
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from runlake import schema
from runlake._lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.storage.tables import SnapshotTables
else:
    pc = lazy("pyarrow.compute")

READY: Final = "READY"
_PREFIX: Final = "registry_"
_NUMBERS: Final = 10**9  # a claim's key has nine digits


@dataclass(slots=True)
class Version:
    """One version of a model. The JSON of rows is read when it is asked for.

    Attributes:
        number: from 1.
        text: JSON of its claim.
        clock_us: of the claim's trace.
        touched_us: when its stage, description or name changed last; 0: never.
        stage: one of `schema.STAGES`.
        told: JSON of the row that described it last.
        said: of each tag the JSON of the row that spoke of it last.
        is_deleted: for ever.
    """

    number: int
    text: str | None
    clock_us: int
    touched_us: int = 0
    stage: str = schema.STAGE_NONE
    told: str | None = None
    said: dict[str, str | None] = field(default_factory=dict)
    is_deleted: bool = False
    _about: dict[str, Any] | None = None

    @property
    def about(self) -> dict[str, Any]:
        """What its claim says."""
        if self._about is None:
            self._about = _read(self.text)
        return self._about

    @property
    def created_us(self) -> int:
        """When it was claimed, microseconds since 1970."""
        return _time(self.about, self.clock_us)

    @property
    def updated_us(self) -> int:
        """When its stage, description or name changed last, microseconds since 1970."""
        return self.touched_us or self.created_us

    @property
    def description(self) -> str | None:
        """What it is; None where nobody said."""
        return _description(self.about, self.told)

    @property
    def tags(self) -> dict[str, str]:
        """Text by key."""
        return _tags(self.about, self.said)

    def fact(self, name: str) -> str | None:
        """Return a text of its claim."""
        return _fact(self.about, name)


@dataclass(slots=True)
class Model:
    """One registered model. The JSON of rows is read when it is asked for.

    Attributes:
        model_id: stays when the name changes.
        claimed: the name, as it was claimed last.
        claim: the number of that claim.
        about: what the claim says that made it.
        clock_us: of that claim's trace.
        updated_us: when it, its name, or a version of it changed last.
        told: JSON of the row that described it last.
        said: of each tag the JSON of the row that spoke of it last.
        aliases: versions by alias.
        versions: by number, deleted ones too.
        staged: the numbers in each stage, of versions that were ever moved.
        is_deleted: for ever.
        name: what it is found by: `claimed`, or see `Registered.by_name`.
    """

    model_id: str
    claimed: str
    claim: int
    about: dict[str, Any]
    clock_us: int
    updated_us: int
    told: str | None = None
    said: dict[str, str | None] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    versions: dict[int, Version] = field(default_factory=dict)
    staged: dict[str, set[int]] = field(default_factory=dict)
    is_deleted: bool = False
    name: str = ""

    @property
    def home(self) -> str:
        """`<name hash>/<k>` of the claim that made it."""
        return str(self.about.get("home"))

    @property
    def user(self) -> str:
        """Who made it."""
        return _fact(self.about, "user") or ""

    @property
    def created_us(self) -> int:
        """When it was claimed, microseconds since 1970."""
        return _time(self.about, self.clock_us)

    @property
    def description(self) -> str | None:
        """What it is; None where nobody said."""
        return _description(self.about, self.told)

    @property
    def tags(self) -> dict[str, str]:
        """Text by key."""
        return _tags(self.about, self.said)

    @property
    def shown(self) -> Iterator[Version]:
        """The versions that are not deleted, by number."""
        versions = self.versions
        return (versions[n] for n in sorted(versions) if not versions[n].is_deleted)

    @property
    def latest(self) -> dict[str, Version]:
        """The greatest version of each stage that any is in, in the order of stages."""
        found = {version.stage: version for version in self.shown}
        return {stage: found[stage] for stage in (*schema.STAGES, *found) if stage in found}

    def put(self, version: Version, stage: str, clock_us: int) -> None:
        """Put a version of it into a stage.

        Args:
            version: one of its versions.
            stage: one of `schema.STAGES`.
            clock_us: when, microseconds since 1970.
        """
        staged, number = self.staged, version.number
        if version.stage in staged:
            staged[version.stage].discard(number)
        if stage not in staged:
            staged[stage] = set()
        staged[stage].add(number)
        version.stage, version.touched_us = stage, clock_us


@final
class Registered:
    """All models that some rows tell of.

    Attributes:
        models: by id, deleted ones too.
        by_name: those that are not deleted, by the name that they are found by.
        claims: the greatest claim of each name that was traced: its number, and whose it is.
        traced: the nonces of all claims of names that were traced.
        repeats: writer and sequence number of rows that say again what another has said.
        last_us: the greatest clock of all rows, of other kinds too.
    """

    def __init__(self, events: pa.Table) -> None:
        """Fold.

        Args:
            events: rows of the reserved partition, as `lake_events_schema()`, in any order.
        """
        self.models: dict[str, Model] = {}
        self.claims: dict[str, tuple[int, str]] = {}
        self.traced: set[str] = set()
        self.repeats: list[tuple[str, int]] = []
        self.last_us: int = pc.max(events["clock"]).as_py() or 0
        models = self.models
        for model_id, kind, key, clock, num, text, writer, seq in _ordered(events):
            model = models.get(model_id)
            if kind in _OF_VERSIONS:
                version = None if model is None else model.versions.get(_number(num))
                if model is not None and version is not None and not version.is_deleted:
                    _OF_VERSIONS[kind](model, version, key, clock, text)
            elif kind in _OF_MODELS:
                if model is not None:
                    _OF_MODELS[kind](model, key, clock, num, text)
            elif kind in _CLAIMS:
                claim = _Claim(model_id, key, clock, _number(num), text)
                if not _CLAIMS[kind](self, claim):
                    self.repeats.append((writer, seq))
        self.by_name = self._named()

    # What traces of claims say; False of what was said before.

    def _is_new(self, claim: _Claim, about: Mapping[str, Any]) -> bool:
        """Tell whether a claim of a name was not traced before; remember that it now is."""
        nonce = str(about.get("nonce"))
        if nonce in self.traced:
            return False
        self.traced.add(nonce)
        known = self.claims.get(claim.key, (0, ""))
        self.claims[claim.key] = max(known, (_claim_number(about), claim.model_id))
        return True

    def create(self, claim: _Claim) -> bool:
        """Add a model."""
        about = _read(claim.text)
        if not self._is_new(claim, about):
            return False
        if claim.model_id not in self.models:
            self.models[claim.model_id] = Model(
                model_id=claim.model_id,
                claimed=claim.key,
                claim=_claim_number(about),
                about=about,
                clock_us=claim.clock,
                updated_us=_time(about, claim.clock),
            )
        return True

    def rename(self, claim: _Claim) -> bool:
        """Give a model another name."""
        about = _read(claim.text)
        if not self._is_new(claim, about):
            return False
        model = self.models.get(claim.model_id)
        before = about.get("renamed_from"), about.get("renamed_claim")
        if model is not None and before == (model.claimed, model.claim) and not model.is_deleted:
            model.claimed, model.claim = claim.key, _claim_number(about)
            model.updated_us = claim.clock
            for version in model.versions.values():
                version.touched_us = claim.clock
        return True

    def add_version(self, claim: _Claim) -> bool:
        """Add a version to a model."""
        model = self.models.get(claim.model_id)
        if model is None or not claim.version:
            return True
        if claim.version in model.versions:
            return False
        model.versions[claim.version] = Version(claim.version, claim.text, claim.clock)
        model.updated_us = max(model.updated_us, claim.clock)
        return True

    def _named(self) -> dict[str, Model]:
        """Give each model the name that it is found by.

        Of two that claim one name (that takes a rename which became known long after) the
        greater claim rules; the other goes by its name and the claim's number until somebody
        renames it.
        """
        living = [model for model in self.models.values() if not model.is_deleted]
        living.sort(key=lambda model: (-model.claim, model.model_id))
        found: dict[str, Model] = {}
        taken = [model for model in living if found.setdefault(model.claimed, model) is not model]
        for model in taken:
            name = f"{model.claimed} ({model.claim})"
            while name in found:
                name = f"{name}'"
            found[name] = model
        for name, model in found.items():
            model.name = name
        for model in self.models.values():
            model.name = model.name or model.claimed
        return {name: found[name] for name in sorted(found)}


class FoldedModels:
    """What a snapshot says of registered models, folded when it is asked for."""

    _tables: SnapshotTables

    @cached_property
    def registered(self) -> Registered:
        """What stands about them."""
        return Registered(self._tables.lake_events)


class _Claim(NamedTuple):
    """The trace of a claim: of the name `key`, or of a version."""

    model_id: str
    key: str
    clock: int
    version: int
    text: str | None


def _ordered(events: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Yield the rows about models, each once, in their order."""
    is_meant: Any = pc.starts_with(events["kind"], _PREFIX)
    rows = events.filter(is_meant)
    rows = rows.sort_by([(name, "ascending") for name in ("clock", "writer", "seq")])
    names = ("run_id", "kind", "key", "clock", "num", "str", "writer", "seq")
    columns = [rows[name].to_pylist() for name in names]
    if rows.group_by(["writer", "seq"]).aggregate([]).num_rows == rows.num_rows:
        return zip(*columns, strict=True)
    # A listing may have shown one row in two segments.
    return iter({row[-2:]: row for row in zip(*columns, strict=True)}.values())


# What other rows say: of a model, with key, clock, number and text; of a version, without number.


def _describe(model: Model, _: str, clock: int, __: float | None, text: str | None) -> None:
    model.told, model.updated_us = text, clock


def _tag(model: Model, key: str, _: int, __: float | None, text: str | None) -> None:
    model.said[key] = text


def _delete(model: Model, _: str, clock: int, __: float | None, ___: str | None) -> None:
    model.is_deleted, model.updated_us = True, clock


def _alias(model: Model, key: str, _: int, num: float | None, __: str | None) -> None:
    if num is None:
        model.aliases.pop(key, None)
        return
    version = model.versions.get(_number(num))
    if version is not None and not version.is_deleted:
        model.aliases[key] = version.number


def _describe_version(_: Model, version: Version, __: str, clock: int, text: str | None) -> None:
    version.told, version.touched_us = text, clock


def _tag_version(_: Model, version: Version, key: str, __: int, text: str | None) -> None:
    version.said[key] = text


def _move(  # noqa: PLR0917 - as all of these
    model: Model, version: Version, key: str, clock: int, text: str | None
) -> None:
    if text is not None and "archive_existing" in text and _read(text).get("archive_existing"):
        for number in model.staged.get(key, set()) - {version.number}:
            other = model.versions[number]
            if not other.is_deleted:
                model.put(other, schema.STAGE_ARCHIVED, clock)
    model.put(version, key, clock)
    model.updated_us = clock


def _delete_version(model: Model, version: Version, _: str, clock: int, __: str | None) -> None:
    version.is_deleted, version.touched_us, model.updated_us = True, clock, clock
    for alias in [each for each, of in model.aliases.items() if of == version.number]:
        del model.aliases[alias]


_OF_MODELS: Final[dict[str, Callable[[Model, str, int, float | None, str | None], None]]] = {
    schema.REGISTRY_MODEL_UPDATE: _describe,
    schema.REGISTRY_MODEL_TAG: _tag,
    schema.REGISTRY_MODEL_DELETE: _delete,
    schema.REGISTRY_ALIAS: _alias,
}
_CLAIMS: Final[dict[str, Callable[[Registered, _Claim], bool]]] = {
    schema.REGISTRY_MODEL_CREATE: Registered.create,
    schema.REGISTRY_MODEL_RENAME: Registered.rename,
    schema.REGISTRY_VERSION_CREATE: Registered.add_version,
}
_OF_VERSIONS: Final[dict[str, Callable[[Model, Version, str, int, str | None], None]]] = {
    schema.REGISTRY_VERSION_UPDATE: _describe_version,
    schema.REGISTRY_VERSION_TAG: _tag_version,
    schema.REGISTRY_VERSION_STAGE: _move,
    schema.REGISTRY_VERSION_DELETE: _delete_version,
}


def _read(text: str | None) -> dict[str, Any]:
    """Return the JSON of a row; nothing where it cannot be read."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _fact(about: Mapping[str, Any], name: str) -> str | None:
    found = about.get(name)
    return None if found is None else str(found)


def _time(about: Mapping[str, Any], clock_us: int) -> int:
    found = about.get("time_us")
    return found if isinstance(found, int) else clock_us


def _claim_number(about: Mapping[str, Any]) -> int:
    found = about.get("number")
    return found if isinstance(found, int) else 1


def _description(about: Mapping[str, Any], told: str | None) -> str | None:
    return _fact(about, "description") if told is None else _fact(_read(told), "value")


def _tags(about: Mapping[str, Any], said: Mapping[str, str | None]) -> dict[str, str]:
    first = about.get("tags")
    found = dict(first) if isinstance(first, dict) else {}
    found |= {key: _fact(_read(text), "value") for key, text in said.items()}
    return {str(key): str(value) for key, value in sorted(found.items()) if value is not None}


def _number(num: float | None) -> int:
    """Return the number of a version, 0 where it is none."""
    return int(num) if num is not None and 1 <= num < _NUMBERS else 0
