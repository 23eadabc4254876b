"""Registered models: read from where MLflow keeps them, and made in a lake with their numbers.

A model that the lake has already is left as it is, but for versions above its greatest. Numbers
that MLflow gave out and deleted are given out and deleted here too, so that every number means what
it meant.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy, need
from runlake.errors import NotFoundError, RunlakeError
from runlake.importers.facts import ids_of
from runlake.importers.mlflow_logged import FOLDER
from runlake.importers.source import Note
from runlake.questions import ask
from runlake.registry import uris

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from runlake.importers.report import Report
    from runlake.lake import Lake
    from runlake.query import logged as query_logged
    from runlake.query.logged import LoggedModel
else:
    query_logged = lazy("runlake.query.logged")

_PAGE: Final = 1000
_VERSION: Final = re.compile(r"version-(\d+)")
_REASON: Final = "imported from MLflow"
_PLACEHOLDER: Final = "deleted in MLflow"
_LOGGED: Final = re.compile(r"m-[0-9a-f]{32}(?![0-9a-f])")
_ARTIFACTS: Final = re.compile(r"(?:^|/)(?P<run>[0-9a-f]{32})/artifacts(?:/(?P<path>.*))?$")


class SourceVersion(NamedTuple):
    """One version of a registered model.

    Attributes:
        number: of the version.
        source: where its files come from, as MLflow has it.
        run_id: the run that made it.
        run_link: a link to it.
        model_id: the logged model that it is.
        description: what it is.
        stage: as MLflow writes it.
        tags: texts by key.
        created_ms: milliseconds since 1970.
        location: where its files lie, as MLflow found out.
    """

    number: int
    source: str
    run_id: str | None
    run_link: str | None
    model_id: str | None
    description: str | None
    stage: str
    tags: Mapping[str, str]
    created_ms: int | None
    location: str | None = None


class SourceModel(NamedTuple):
    """One registered model.

    Attributes:
        name: of the model.
        description: what it is.
        tags: texts by key.
        aliases: versions by alias.
        created_ms: milliseconds since 1970.
        versions: all there are, by number.
    """

    name: str
    description: str | None
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    created_ms: int | None
    versions: list[SourceVersion]


def client_models(client: Any) -> Iterator[SourceModel]:  # noqa: ANN401 - MLflow's
    """Yield the registered models of MLflow's client."""
    token = None
    while True:
        page = client.search_registered_models(max_results=_PAGE, page_token=token)
        for each in page:
            versions = sorted(_versions(client, each.name), key=lambda version: version.number)
            yield SourceModel(
                name=each.name,
                description=each.description or None,
                tags=dict(each.tags),
                aliases={alias: int(number) for alias, number in each.aliases.items()},
                created_ms=each.creation_timestamp,
                versions=versions,
            )
        token = page.token
        if not token:
            return


def folder_models(root: Path) -> Iterator[SourceModel]:
    """Yield the registered models of a folder `models` of MLflow's file store."""
    folder_words = need("runlake.importers.mlflow_folder")
    read, texts = folder_words.read_yaml, folder_words.texts_below
    if not root.is_dir():
        return
    for folder in sorted(root.iterdir()):
        if not (folder / "meta.yaml").is_file():
            continue
        meta = read(folder / "meta.yaml")
        versions = []
        for each in folder.iterdir():
            match = _VERSION.fullmatch(each.name)
            if match is None or not (each / "meta.yaml").is_file():
                continue
            about = read(each / "meta.yaml")
            if about.get("current_stage") == "Deleted_Internal":
                continue
            versions.append(
                SourceVersion(
                    number=int(match[1]),
                    source=str(about.get("source") or ""),
                    run_id=about.get("run_id") or None,
                    run_link=about.get("run_link") or None,
                    model_id=about.get("model_id") or None,
                    description=about.get("description") or None,
                    stage=about.get("current_stage") or schema.STAGE_NONE,
                    tags=dict(texts(each / "tags")),
                    created_ms=about.get("creation_timestamp"),
                    location=about.get("storage_location") or None,
                )
            )
        yield SourceModel(
            name=str(meta.get("name") or folder.name),
            description=meta.get("description") or None,
            tags=dict(texts(folder / "tags")),
            aliases={alias: int(text) for alias, text in texts(folder / "aliases")},
            created_ms=meta.get("creation_timestamp"),
            versions=sorted(versions, key=lambda version: version.number),
        )


def bring_models(models: Iterable[SourceModel], lake: Lake, report: Report) -> None:
    """Make registered models with their versions in a lake, and check what is there then.

    Args:
        models: as MLflow has them.
        lake: where they go.
        report: takes what is done.
    """
    lake.flush()
    lake.refresh()
    logged = ask(lake, query_logged.read_models)
    for model in models:
        try:
            _bring(model, lake, report, logged)
        except RunlakeError as error:
            if error.kind == "storage":
                raise
            report.fail(f"registered model {model.name!r} did not come: {error}")


def _versions(client: Any, name: str) -> Iterator[SourceVersion]:  # noqa: ANN401 - MLflow's
    token = None
    quoted = f'name="{name}"' if "'" in name else f"name='{name}'"
    while True:
        page = client.search_model_versions(quoted, max_results=_PAGE, page_token=token)
        for each in page:
            yield SourceVersion(
                number=int(each.version),
                source=each.source or "",
                run_id=each.run_id or None,
                run_link=each.run_link or None,
                model_id=getattr(each, "model_id", None) or None,
                description=each.description or None,
                stage=each.current_stage or schema.STAGE_NONE,
                tags=dict(each.tags),
                created_ms=each.creation_timestamp,
                location=_download_uri(client, name, each.version),
            )
        token = page.token
        if not token:
            return


def _download_uri(client: Any, name: str, version: str) -> str | None:  # noqa: ANN401 - MLflow's
    try:
        found: str = client.get_model_version_download_uri(name, version)
    except need("mlflow.exceptions").MlflowException:
        return None
    return found


def _bring(
    model: SourceModel, lake: Lake, report: Report, logged: Mapping[str, LoggedModel]
) -> None:
    registry = lake.registry
    try:
        there = registry.get_registered_model(model.name)
    except NotFoundError:
        there = None
        registry.create_registered_model(
            model.name,
            model.tags,
            description=model.description,
            creation_time=model.created_ms,
            reason=_REASON,
        )
        report.add(models=1)
    made = 0
    if there is not None:
        made = _greatest(lake, model.name)
        _go_on(model, made, lake)
    for version in model.versions:
        if version.number <= made:
            continue
        while made + 1 < version.number:
            made += 1
            registry.create_model_version(model.name, _PLACEHOLDER, reason=_PLACEHOLDER)
            registry.delete_model_version(model.name, made, reason=_PLACEHOLDER)
        _make(model.name, version, lake, logged)
        made = version.number
        report.add(versions=1)
    for alias, number in model.aliases.items():
        known = {} if there is None else there.aliases
        if known.get(alias) != number and (alias not in known or number > known[alias]):
            registry.set_registered_model_alias(model.name, alias, number, reason=_REASON)
    _check(model, lake, report)


def _go_on(model: SourceModel, made: int, lake: Lake) -> None:
    """Do what an import that was ended in between has left undone."""
    registry = lake.registry
    wanted = {version.number: version for version in model.versions}
    for number in range(1, made + 1):
        try:
            found = registry.get_model_version(model.name, number)
        except NotFoundError:
            continue
        is_untouched = found.last_updated_timestamp == found.creation_timestamp
        if number not in wanted and found.source == _PLACEHOLDER:
            registry.delete_model_version(model.name, number, reason=_PLACEHOLDER)
        elif number in wanted and is_untouched and wanted[number].stage != found.current_stage:
            stage = wanted[number].stage
            registry.transition_model_version_stage(model.name, number, stage, reason=_REASON)


def _make(name: str, version: SourceVersion, lake: Lake, logged: Mapping[str, LoggedModel]) -> None:
    run_id = None if version.run_id is None else ids_of("mlflow", version.run_id)
    made = lake.registry.create_model_version(
        name,
        version.source or "unknown",
        run_id=run_id,
        tags=version.tags,
        run_link=version.run_link,
        description=version.description,
        location=_location(version, lake, logged),
        logged_model_id=version.model_id or _logged(version.source),
        creation_time=version.created_ms,
        reason=_REASON,
    )
    if version.stage != schema.STAGE_NONE:
        lake.registry.transition_model_version_stage(
            name, made.version, version.stage, reason=_REASON
        )


def _logged(said: str | None) -> str | None:
    """Return the logged model that an id or an address names, if any."""
    found = _LOGGED.search(said or "")
    return None if found is None else found[0]


def _location(version: SourceVersion, lake: Lake, logged: Mapping[str, LoggedModel]) -> str:
    """Return where the files of a version lie now: with its run or model, if they came so."""
    for said in (version.model_id, version.location, version.source):
        model = logged.get(_logged(said) or "")
        if model is not None and model.source_run_id is None:
            return lake.artifacts.uri(model.experiment_id, model.model_id)
        if model is not None:
            return uris.run_uri(model.home, f"{FOLDER}/{model.model_id}")
    for said in (version.location, version.source):
        if said and uris.is_run_uri(said):
            return said
        found = _ARTIFACTS.search(said or "")
        if found is not None:
            return uris.run_uri(found["run"], found["path"] or "")
    return version.location or version.source or "unknown"


def _greatest(lake: Lake, name: str) -> int:
    """Return the greatest number that a model of the lake has given out."""
    model = lake.registry.standing(name).by_name[name]
    return max(model.versions, default=0)


def _check(model: SourceModel, lake: Lake, report: Report) -> None:
    """Compare a model with what the lake says of it."""
    registry = lake.registry
    for version in model.versions:
        try:
            found = registry.get_model_version(model.name, version.number)
        except NotFoundError:
            report.lose("", [Note("version of a model that was deleted here", model.name)])
            continue
        said = found.description or None, dict(found.tags), found.current_stage
        wanted = version.description, dict(version.tags), version.stage
        if said != wanted:
            report.lose("", [Note("version of a model that was changed here", model.name)])
    there = registry.get_registered_model(model.name)
    for alias, number in model.aliases.items():
        if there.aliases.get(alias) != number:
            report.lose("", [Note("alias of a model that was moved here", f"{model.name}@{alias}")])
