"""Logged models that no run made, brought into a lake: they stand there by themselves.

Their rows lie in their experiment under their own ids, and their files likewise. A model that the
lake has already is left as it is, but for what it lacks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from runlake import logged_models, schema
from runlake._lazy import lazy
from runlake.errors import RunlakeError
from runlake.importers.files import bring_files
from runlake.importers.homes import Homes
from runlake.importers.source import Note, SourceError
from runlake.lake_parts import rows_of
from runlake.questions import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runlake.importers.report import Report
    from runlake.importers.source import SourceExperiment, SourceFile, SourceLogged
    from runlake.lake import Lake
    from runlake.query import imported, logged
    from runlake.writing.events import Row
else:
    imported = lazy("runlake.query.imported")
    logged = lazy("runlake.query.logged")


class Orphan(NamedTuple):
    """A logged model without a run.

    Attributes:
        experiment: where it lies.
        logged: the model; its source run is none.
        files: gives its files.
    """

    experiment: SourceExperiment
    logged: SourceLogged
    files: Callable[[], Iterable[SourceFile]]


def bring_orphans(
    orphans: Sequence[Orphan], lake: Lake, report: Report, *, artifacts: bool
) -> None:
    """Make logged models that no run made, and check what is there then.

    Args:
        orphans: the models; their experiments are made where there are none.
        lake: where they go.
        report: takes what is done.
        artifacts: whether their files come too.
    """
    if not orphans:
        return
    lake.flush()
    lake.refresh()
    there = ask(lake, logged.read_models)
    wanted = [each.logged.model.model_id for each in orphans]
    files = ask(lake, lambda query: imported.artifacts(query, wanted))
    homes = Homes(lake, report)
    digests: dict[str, dict[str, tuple[int, str]]] = {}
    for each in orphans:
        model_id = each.logged.model.model_id
        known = {path: about for (home, path), about in files.items() if home == model_id}
        try:
            digests[model_id] = _bring(
                each,
                lake,
                report,
                homes=homes,
                there=there.get(model_id),
                known=known if artifacts else None,
            )
        except (RunlakeError, OSError) as error:
            if not isinstance(error, (SourceError, ValueError)) and hasattr(error, "kind"):
                raise
            report.fail(f"logged model {model_id} did not come: {error}")
    lake.flush()
    lake.refresh()
    _check(orphans, lake, report, digests)


def _bring(
    each: Orphan,
    lake: Lake,
    report: Report,
    *,
    homes: Homes,
    there: logged.LoggedModel | None,
    known: dict[str, tuple[int, str]] | None,
) -> dict[str, tuple[int, str]]:
    """Bring one; return its files by path."""
    experiment_id = homes.of(each.experiment) if there is None else there.experiment_id
    model = each.logged.model
    home = model.model_id if there is None else there.home
    rows: list[Row] = list(_rows(each.logged, there))
    digests: dict[str, tuple[int, str]] = {}
    if known is not None and home == model.model_id:
        brought = bring_files(each.files(), lake.artifacts, (experiment_id, home), known)
        rows += brought.rows
        digests = brought.digests
        report.add(artifacts=len(brought.rows), artifact_bytes=brought.size_bytes)
        report.lose(model.model_id, brought.notes)
    if rows:
        name = each.experiment.name
        rows_of(lake, home, experiment_id=experiment_id, experiment_name=name).log(rows)
    report.add(logged_models=int(there is None))
    return digests


def _rows(given: SourceLogged, there: logged.LoggedModel | None) -> Iterable[Row]:
    """Yield what the lake lacks of a model."""
    model = given.model
    model_id = model.model_id
    if there is None:
        yield from logged_models.creation_rows(replace(model, status=schema.MODEL_PENDING))
    elif there.is_deleted:
        return
    else:
        params = {key: text for key, text in model.params.items() if key not in there.params}
        tags = {key: text for key, text in model.tags.items() if key not in there.tags}
        yield from logged_models.param_rows(there.home, model_id, params)
        yield from logged_models.tag_rows(there.home, model_id, tags)
    if model.status != schema.MODEL_PENDING and (
        there is None or there.status == schema.MODEL_PENDING
    ):
        yield from logged_models.status_rows(
            model_id if there is None else there.home,
            model_id,
            model.status,
            message=given.message,
            at_us=given.updated_us if given.updated_us is not None else model.time_us,
        )


def _check(
    orphans: Sequence[Orphan],
    lake: Lake,
    report: Report,
    digests: dict[str, dict[str, tuple[int, str]]],
) -> None:
    """Compare models with what the lake says of them."""
    there = ask(lake, logged.read_models)
    files = ask(lake, lambda query: imported.artifacts(query, list(digests)))
    for each in orphans:
        model = each.logged.model
        if model.model_id not in digests:
            continue
        found = there.get(model.model_id)
        if found is None:
            report.lose("", [Note("logged model that was deleted here", model.model_id)])
            continue
        said = (found.name, found.model_type, found.status, found.params, found.tags)
        wanted = (
            model.name,
            model.model_type,
            model.status,
            dict(model.params),
            dict(model.tags),
        )
        if found.is_deleted or said != wanted:
            report.lose("", [Note("logged model that was changed here", model.model_id)])
        for path, about in digests[model.model_id].items():
            if files.get((model.model_id, path)) != about:
                report.fail(
                    f"file {path!r} of logged model {model.model_id} is not here as it is in "
                    "the source."
                )
