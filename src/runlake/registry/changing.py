"""How the registry is changed: find what is meant, say what becomes of it, read it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runlake.errors import AlreadyExistsError, ConflictError, NotFoundError
from runlake.registry import book
from runlake.registry.entities import (
    ModelVersion,
    RegisteredModel,
    model_entity,
    version_entity,
)
from runlake.registry.reading import version_number
from runlake.registry.trail import Trail

if TYPE_CHECKING:
    from runlake.query import registered
    from runlake.query.registered import Registered
    from runlake.writing.events import Row


class Changing(Trail):
    """What all changes of the registry have in common. Threads may share it."""

    _book: book.Book

    def _read(self, name: str) -> tuple[Registered, registered.Model]:
        """Return what stands now, and one model; a claim without a trace gets one."""
        try:
            return super()._read(name)
        except NotFoundError:
            if self._house.is_read_only():
                raise
            return self._book.find(name)

    def _version(self, model: registered.Model, version: int | str) -> registered.Version:
        """Return a version that is not deleted; a claim without a trace gets one."""
        try:
            return super()._version(model, version)
        except NotFoundError:
            number = version_number(version)
            if number in model.versions or self._house.is_read_only():
                raise
            if not self._book.trace(model, number):
                raise
        return super()._version(self._again(model), number)

    def _model(self, name: str) -> tuple[Registered, registered.Model]:
        """Return what stands now, and the model that is to be changed."""
        self._house.check_writable()
        return self._read(name)

    def _again(self, model: registered.Model) -> registered.Model:
        return self._book.read().models[model.model_id]

    def _renamed(self, before: registered.Model, name: str) -> RegisteredModel:
        """Return a model that was renamed, if it was."""
        model = self._again(before)
        if model.is_deleted:
            raise NotFoundError(f"registered model {before.name!r} was deleted meanwhile.")
        if model.name != name:
            message = (
                f"registered model {before.name!r} was renamed to {model.name!r} by somebody else "
                f"at the same time, and not to {name!r}."
            )
            raise ConflictError(message, url=self._book.url)
        return model_entity(model)

    def _say(
        self,
        known: Registered,
        model: registered.Model,
        kind: str,
        key: str = "",
        *,
        number: int | None = None,
        about: dict[str, Any],
    ) -> None:
        """Write one event."""
        num = None if number is None else float(number)
        row: Row = (model.model_id, kind, key, num, book.text(about))
        self._book.say([row], known)

    def _change(
        self, name: str, version: int | str, kind: str, key: str, *, about: dict[str, Any]
    ) -> ModelVersion:
        """Write one event about a version, and return what it is then."""
        known, model = self._model(name)
        number = self._version(model, version).number
        self._say(known, model, kind, key, number=number, about=about)
        again = self._again(model)
        return version_entity(again, again.versions[number])

    def _check_artifact(self, run_id: str, path: str) -> None:
        """Refuse a source that is not there."""
        self._house.get_run(run_id)
        artifacts = self._house.artifacts
        if artifacts.list(run_id, path):
            return
        parent, _, _ = path.rpartition("/")
        beside = [file.path for file in artifacts.list(run_id, parent)] if path else []
        if path not in beside:
            raise NotFoundError.of(
                "artifact", path or "/", url=f"{self._book.url} run {run_id}", known=beside
            )

    def _taken(self, name: str) -> AlreadyExistsError:
        message = f"registered model {name!r} exists already in lake {self._book.url}."
        return AlreadyExistsError(message, url=self._book.url)
