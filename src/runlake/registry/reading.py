"""What can be asked of the registry."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runlake import arguments
from runlake._lazy import lazy
from runlake.errors import InvalidInputError, NotFoundError
from runlake.query.entities import Page
from runlake.registry import uris
from runlake.registry.book import missing
from runlake.registry.entities import (
    ModelVersion,
    RegisteredModel,
    model_entity,
    version_entity,
)
from runlake.storage.fs import open_filesystem

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from runlake.artifacts.store import Artifacts
    from runlake.query import model_search, registered
    from runlake.query.engine import Query
    from runlake.query.entities import RunRecord
    from runlake.query.registered import Registered
    from runlake.registry.standing import Standing
    from runlake.settings import Settings
else:
    model_search = lazy("runlake.query.model_search")


class Source(NamedTuple):
    """Where the files of a version lie.

    Attributes:
        run_id: the run whose artifacts they are; None where they lie elsewhere.
        path: below that run; empty means all its files. Elsewhere empty.
        url: the same as a URL or path that other programs understand.
    """

    run_id: str | None
    path: str
    url: str


@dataclass(frozen=True, slots=True)
class House:
    """What the registry needs of its lake.

    Attributes:
        ask: answers a question from a snapshot of the lake.
        get_run: reads a run.
        artifacts: the files of runs.
        check_writable: raises if the lake is read-only.
        is_read_only: tells whether it is.
        settings: of the lake.
        refresh: has the next question see all that the store holds now.
    """

    ask: Callable[[Callable[[Query], Any]], Any]
    get_run: Callable[[str], RunRecord]
    artifacts: Artifacts
    check_writable: Callable[[], None]
    is_read_only: Callable[[], bool]
    settings: Settings
    refresh: Callable[[], None] = lambda: None


class Reading:
    """The reading half of the registry. Threads may share it.

    What names one model or version is answered from the reserved partition as the store holds
    it at the call; searches come from the lake's snapshot, as SQL does. Of a pinned lake all
    comes from its snapshot.
    """

    def __init__(self, house: House, book: Standing) -> None:
        """Read nothing yet.

        Args:
            house: of the lake.
            book: what stands.
        """
        self._house = house
        self._book = book

    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a model.

        Args:
            name: of the model.

        Raises:
            NotFoundError: there is no such model; names the nearest.
            StorageError: the store cannot be read.
        """
        return model_entity(self._find(name))

    def get_model_version(self, name: str, version: int | str) -> ModelVersion:
        """Return a version of a model.

        Args:
            name: of the model.
            version: its number.

        Raises:
            InvalidInputError: the version is no number.
            NotFoundError: there is no such model or version, or it is deleted.
            StorageError: the store cannot be read.
        """
        model = self._find(name)
        return version_entity(model, self._version(model, version))

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """Return the version that an alias means.

        Args:
            name: of the model.
            alias: of the version.

        Raises:
            NotFoundError: there is no such model, or it has no such alias.
            StorageError: the store cannot be read.
        """
        model = self._find(name)
        return version_entity(model, self._aliased(model, alias))

    def get_latest_versions(
        self, name: str, stages: Sequence[str] | None = None
    ) -> list[ModelVersion]:
        """Return the greatest version of each stage that any is in.

        Args:
            name: of the model.
            stages: only of these; None means all.

        Raises:
            InvalidInputError: a stage is none.
            NotFoundError: there is no such model.
            StorageError: the store cannot be read.
        """
        named = arguments.several("stages", stages)
        wanted = {uris.stage(each) for each in named} if named else None
        model = self._find(name)
        return [
            version_entity(model, version)
            for stage, version in model.latest.items()
            if wanted is None or stage in wanted
        ]

    def get_model_version_download_uri(self, name: str, version: int | str) -> str:
        """Return where the files of a version lie, as a URL or path.

        Args:
            name: of the model.
            version: its number.

        Raises:
            NotFoundError: there is no such version, or the run that made it is gone.
            StorageError: the store cannot be read.
        """
        return self._source(self.get_model_version(name, version)).url

    def resolve(self, uri: str) -> ModelVersion:
        """Return the version that an address means.

        Args:
            uri: `models:/<name>/<version>`, `models:/<name>@<alias>`, `models:/<name>/<stage>`
                (the greatest version in that stage) or `models:/<name>/latest`.

        Raises:
            InvalidInputError: it is no such address.
            NotFoundError: there is no such model, version or alias, or no version in that stage.
            StorageError: the store cannot be read.
        """
        wanted = uris.parse_model_uri(uri)
        model = self._find(wanted.name)
        if wanted.version is not None:
            return version_entity(model, self._version(model, wanted.version))
        if wanted.alias is not None:
            return version_entity(model, self._aliased(model, wanted.alias))
        latest = model.latest
        if wanted.stage is not None:
            found = latest.get(wanted.stage)
        else:
            found = max(latest.values(), key=lambda version: version.number, default=None)
        if found is None:
            stage = f" in stage {wanted.stage}" if wanted.stage else ""
            raise NotFoundError(
                f"registered model {wanted.name!r} has no version{stage}.", url=self._book.url
            )
        return version_entity(model, found)

    def locate(self, uri: str) -> Source:
        """Return where the files of an address lie.

        Args:
            uri: of a version, as for `resolve`, or `runs:/<run id>/<path>`.

        Raises:
            InvalidInputError: it is no such address.
            NotFoundError: there is no such version, or the run that made it is gone.
            StorageError: the store cannot be read.
        """
        if uris.is_run_uri(uri):
            return self._place(uri)
        return self._source(self.resolve(uri))

    def download(self, uri: str, *, target: str | os.PathLike[str] | None = None) -> Path:
        """Fetch the files of a version.

        Args:
            uri: as for `locate`.
            target: the local folder to put them in; None makes a temporary one.

        Returns:
            Where the file or folder now lies.

        Raises:
            InvalidInputError: it is no such address.
            NotFoundError: there is no such version, or its files are gone.
            StateError: a file and others lie below one path of its run; nothing was fetched.
            StorageError: a store cannot be read.
        """
        source = self.locate(uri)
        if source.run_id is not None:
            return self._house.artifacts.download(source.run_id, source.path, target=target)
        return self._fetch(source.url, target)

    def search_registered_models(
        self,
        filter_string: str | None = "",
        *,
        max_results: int | None = 100,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> Page[RegisteredModel]:
        """Find models.

        Args:
            filter_string: like `name LIKE 'digits%' and tags.team = 'vision'`; over `name`,
                `description`, `user_id`, `alias`, `latest_version`, `creation_time`,
                `last_update_time` and `tags.<key>`.
            max_results: greatest number of models; None means all.
            order_by: like `["last_updated_timestamp DESC"]`; None means by name.
            page_token: the `token` of the page before, everything else as there.

        Returns:
            The models, in this order, and the token of the next page.

        Raises:
            InvalidInputError: the filter or order cannot be read; says line and column.
            StorageError: the store cannot be read.
        """

        def answer(query: Query) -> Page[RegisteredModel]:
            found = model_search.search_models(
                query,
                filter_string,
                order_by=order_by,
                max_results=max_results,
                page_token=page_token,
            )
            return Page(map(model_entity, found), token=found.token)

        page: Page[RegisteredModel] = self._house.ask(answer)
        return page

    def search_model_versions(
        self,
        filter_string: str | None = "",
        *,
        max_results: int | None = 10_000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> Page[ModelVersion]:
        """Find versions of models.

        Args:
            filter_string: like `name = 'digits' and tags.validated = 'yes'`; over `name`,
                `version_number`, `run_id`, `source_path`, `stage`, `alias`, `description`,
                `user_id`, `run_link`, `creation_time`, `last_update_time` and `tags.<key>`.
            max_results: greatest number of versions; None means all.
            order_by: like `["version_number DESC"]`; None means the last changed first.
            page_token: the `token` of the page before, everything else as there.

        Returns:
            The versions, in this order, and the token of the next page.

        Raises:
            InvalidInputError: the filter or order cannot be read; says line and column.
            StorageError: the store cannot be read.
        """

        def answer(query: Query) -> Page[ModelVersion]:
            found = model_search.search_versions(
                query,
                filter_string,
                order_by=order_by,
                max_results=max_results,
                page_token=page_token,
            )
            return Page((version_entity(*each) for each in found), token=found.token)

        page: Page[ModelVersion] = self._house.ask(answer)
        return page

    def standing(self, name: str | None = None) -> Registered:
        """Return all that stands now, as the fold has it, for faces that say it otherwise.

        Args:
            name: of a model that is asked for; what only its claim says is then among it.

        Raises:
            NotFoundError: there is no such model; names the nearest.
            StorageError: the store cannot be read.
        """
        return self._book.read() if name is None else self._read(name)[0]

    def changed(self) -> Registered:
        """Return what stood when this thread last read it, which a change does at its end.

        Right after a change has returned what it made, that is among it, and the store need
        not be read once more.

        Raises:
            StorageError: the store cannot be read.
        """
        return self._book.last()

    # Inside.

    def _read(self, name: str) -> tuple[Registered, registered.Model]:
        """Return what stands now, and one model."""
        name = arguments.text("the name of a registered model", name)
        known = self._book.read()
        model = known.by_name.get(name)
        if model is None:
            raise missing("registered model", name, url=self._book.url, known=known)
        return known, model

    def _find(self, name: str) -> registered.Model:
        return self._read(name)[1]

    def _version(self, model: registered.Model, version: int | str) -> registered.Version:
        """Return a version that is not deleted."""
        number = version_number(version)
        found = model.versions.get(number)
        if found is None or found.is_deleted:
            what = "is deleted" if found is not None else "does not exist"
            held = [each.number for each in model.shown]
            shown = f"its versions are {_ranges(held)}" if held else "it has no versions"
            raise NotFoundError(
                f"version {number} of registered model {model.name!r} {what}; {shown}.",
                url=self._book.url,
            )
        return found

    def _aliased(self, model: registered.Model, alias: str) -> registered.Version:
        number = model.aliases.get(arguments.text("alias", alias))
        if number is None:
            known = ", ".join(map(repr, sorted(model.aliases))) or "none"
            raise NotFoundError(
                f"registered model {model.name!r} has no alias {alias!r}; it has {known}.",
                url=self._book.url,
            )
        return model.versions[number]

    def _source(self, version: ModelVersion) -> Source:
        try:
            return self._place(version.location)
        except NotFoundError as error:
            message = (
                f"version {version.version} of registered model {version.name!r} was made from "
                f"{version.source}, and that is gone: {error}"
            )
            raise NotFoundError(message, url=self._book.url) from error

    def _place(self, location: str) -> Source:
        """Return where a location is."""
        if not uris.is_run_uri(location):
            return Source(None, "", location)
        run_id, path = uris.parse_run_uri(location)
        folder = self._house.get_run(run_id).info.artifact_uri
        return Source(run_id, path, f"{folder}/{path}" if path else folder)

    def _fetch(self, url: str, target: str | os.PathLike[str] | None) -> Path:
        """Fetch a file or folder that lies outside of the lake."""
        parent, _, name = url.rstrip("/").rpartition("/")
        settings = self._house.settings
        options = dict(settings.storage_options)
        fs = open_filesystem(parent or ".", storage_options=options, settings=settings)
        keys = [
            entry.key
            for entry in fs.list(name)
            if entry.key == name or entry.key.startswith(f"{name}/")
        ]
        if not keys:
            raise NotFoundError(f"there is nothing at {url}.", url=url)
        folder = Path(target or tempfile.mkdtemp(prefix="runlake-"))
        for key in keys:
            fs.download(key, folder / key)
        return folder / name


def version_number(version: object) -> int:
    """Return the number of a version, which may come as text.

    Raises:
        InvalidInputError: it is none.
    """
    text = str(version)
    if isinstance(version, bool) or not (text.isascii() and text.isdigit()):
        raise InvalidInputError(f"a version is a whole number from 1, got {version!r}.")
    return int(text)


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers in short: 1, 3 to 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join(" to ".join(map(str, part)) for part in parts)
