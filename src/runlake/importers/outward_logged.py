"""Logged models on their way into MLflow: with params, tags, measures, files and links to runs.

MLflow gives them ids of its own, so each has its id of the lake as the tag `runlake.model_id`, and
`runlake.exported` once all of it is there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy, need
from runlake.importers.facts import digest
from runlake.importers.mlflow_client import told
from runlake.importers.mlflow_logged import FOLDER
from runlake.importers.outward_files import marks_at, send_files, wrong_files
from runlake.importers.outward_run import EXPORTED, lacking
from runlake.importers.source import Note, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from runlake.importers.report import Report
    from runlake.lake import Lake
    from runlake.query import imported, logged
    from runlake.query.engine import Query
    from runlake.query.logged import LoggedModel, Measured
else:
    imported = lazy("runlake.query.imported")
    logged = lazy("runlake.query.logged")

MODEL_ID: Final = "runlake.model_id"
_PAGE: Final = 50
_BATCH: Final = 1000


class Scope(NamedTuple):
    """Which logged models go, and where to.

    Attributes:
        runs: MLflow's ids of the runs that it has, by those in the lake.
        experiment: gives MLflow's id of an experiment of the lake, by its id; None: it stays.
        takes_orphans: whether models go that no run made.
    """

    runs: Mapping[str, str]
    experiment: Callable[[str], str | None]
    takes_orphans: bool


class _Going(NamedTuple):
    """One model with all that goes with it: MLflow's experiment, points, and files by path."""

    model: LoggedModel
    home: str
    points: list[Measured]
    files: dict[str, tuple[int, str]]

    @property
    def mark(self) -> str:
        """Return a digest of all of it."""
        each = self.model
        about = (each.name, each.model_type, each.status, each.params, each.tags)
        return digest([about, sorted(map(repr, self.points)), sorted(self.files.items())])


class LoggedOut:
    """The logged models of a snapshot, and where each went.

    Attributes:
        gone: MLflow's id, and where it keeps the files, by the id in the lake.
    """

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - MLflow's
        lake: Lake,
        report: Report,
        *,
        artifacts: bool,
    ) -> None:
        """Read nothing yet.

        Args:
            client: MLflow's.
            lake: where the models are.
            report: takes what is done.
            artifacts: whether their files go too.
        """
        self._client, self._lake, self._report = client, lake, report
        self._artifacts = artifacts
        self._there: dict[str, Any] = {}
        self._looked: set[str] = set()
        self.gone: dict[str, tuple[str, str]] = {}

    def send(self, query: Query, scope: Scope) -> None:
        """Bring all models whose run has gone, or whose experiment goes, and the links of runs.

        Args:
            query: the snapshot.
            scope: which go, and where to.
        """
        models = logged.read_models(query)
        if not models or not hasattr(self._client, "create_logged_model"):
            self._stay("logged models stay in the lake: this MLflow has none", len(models))
            return
        chosen: dict[str, tuple[LoggedModel, str]] = {}
        for each in models.values():
            home = None if each.is_deleted else self._home(each, scope)
            if home is not None:
                chosen[each.model_id] = each, home
        self._stay("logged models stay in the lake", len(models) - len(chosen))
        measured = logged.read_measured(query, list(chosen))
        files = self._files(query, [each for each, _ in chosen.values()])
        for model_id, (each, home) in chosen.items():
            points = [one for one in measured.get(model_id, ()) if one.run_id in scope.runs]
            going = _Going(each, home, points, files.get(model_id, {}))
            try:
                with told(self._report.target):
                    self._one(going, scope.runs)
            except SourceError as error:
                self._report.fail(f"logged model {model_id} did not go: {error}")
        self._link(query, scope)

    def _stay(self, what: str, count: int) -> None:
        if count:
            self._report.lose("", [Note(what, "", count)])

    def _home(self, each: LoggedModel, scope: Scope) -> str | None:
        """Return MLflow's id of the experiment that a model goes to; None: it stays."""
        is_orphan = each.home == each.model_id
        if not (scope.takes_orphans if is_orphan else each.home in scope.runs):
            return None
        return scope.experiment(each.experiment_id)

    def _files(
        self, query: Query, models: list[LoggedModel]
    ) -> dict[str, dict[str, tuple[int, str]]]:
        """Return size and digest of each file, by model and path below it."""
        found: dict[str, dict[str, tuple[int, str]]] = {each.model_id: {} for each in models}
        if not self._artifacts or not models:
            return found
        told_of = imported.artifacts(query, list({each.home for each in models}))
        of_runs = {each.model_id for each in models if each.home != each.model_id}
        for (home, path), mark in told_of.items():
            folder, _, rest = path.partition("/")
            model_id, _, below = rest.partition("/")
            if folder == FOLDER and model_id in of_runs:
                found[model_id][below] = mark
            elif home in found:
                found[home][path] = mark
        return found

    def _look(self, experiment_id: str) -> None:
        """Find out which models are there already."""
        if experiment_id in self._looked:
            return
        self._looked.add(experiment_id)
        token = None
        while True:
            page = self._client.search_logged_models(
                [experiment_id], max_results=_PAGE, page_token=token
            )
            for each in page:
                if MODEL_ID in each.tags:
                    self._there[each.tags[MODEL_ID]] = each
            token = page.token
            if not token:
                return

    def _one(self, going: _Going, runs: Mapping[str, str]) -> None:
        client, report, each = self._client, self._report, going.model
        self._look(going.home)
        there = self._there.get(each.model_id)
        if there is not None and there.tags.get(EXPORTED) == going.mark:
            self.gone[each.model_id] = there.model_id, there.artifact_location
            return
        is_new = there is None
        if there is None:
            there = client.create_logged_model(
                going.home,
                name=each.name,
                source_run_id=runs.get(each.home),
                tags={**each.tags, MODEL_ID: each.model_id},
                params=each.params,
                model_type=each.model_type,
            )
            report.lose("", [Note("times of logged models are those of the export")])
        model_id = there.model_id
        self.gone[each.model_id] = model_id, there.artifact_location
        tags = lacking(each.tags, there.tags)
        if tags:
            client.set_logged_model_tags(model_id, dict(tags))
        params = {key: text for key, text in each.params.items() if key not in there.params}
        if params:
            client.log_model_params(model_id, params)
        sent = self._send_files(going, there)
        self._measure(going, there, runs)
        if each.status not in {schema.MODEL_PENDING, _status(there)}:
            client.finalize_logged_model(model_id, each.status)
        problems = list(self._differences(going, model_id))
        if not problems:
            client.set_logged_model_tags(model_id, {EXPORTED: going.mark})
        for problem in problems[:3]:
            report.fail(f"logged model {each.model_id}: {problem}")
        report.add(
            logged_models=int(is_new),
            artifacts=len(sent),
            artifact_bytes=sum(sent.values()),
        )
        if each.status_message:
            report.lose("", [Note("why a logged model failed stays in the lake", each.model_id)])

    def _send_files(self, going: _Going, there: Any) -> dict[str, int]:  # noqa: ANN401 - MLflow's
        """Send the files that are not there with the same content; return them with sizes."""
        each = going.model
        artifacts = self._lake.artifacts.of(each.experiment_id)
        prefix = "" if each.home == each.model_id else f"{FOLDER}/{each.model_id}/"

        def fetch(path: str, file: Path) -> None:
            artifacts.download_as(
                each.home, f"{prefix}{path}", target=file, progress=lambda _: None
            )

        def put(file: str, folder: str | None) -> None:
            self._client.log_model_artifact(there.model_id, file, folder)

        known = partial(marks_at, self._client, there.artifact_location)
        return send_files(going.files, known, fetch=fetch, put=put)

    def _measure(self, going: _Going, there: Any, runs: Mapping[str, str]) -> None:  # noqa: ANN401 - MLflow's
        """Say of points of runs that they were measured of a model; the points are there."""
        metric = need("mlflow.entities").Metric
        known = set(_measures(there))
        absent: dict[str, list[Any]] = {}
        for point in going.points:
            run_id = runs[point.run_id]
            if (run_id, *_said(point)) not in known:
                name, mark = point.dataset or (None, None)
                said = metric(
                    point.key,
                    point.value,
                    point.time_us // 1000,
                    point.step,
                    model_id=there.model_id,
                    dataset_name=name,
                    dataset_digest=mark,
                    run_id=run_id,
                )
                absent.setdefault(run_id, []).append(said)
        for run_id, some in absent.items():
            for start in range(0, len(some), _BATCH):
                self._client.log_batch(run_id, metrics=some[start : start + _BATCH])

    def _differences(self, going: _Going, model_id: str) -> Iterator[str]:
        each = going.model
        there = self._client.get_logged_model(model_id)
        for what, wanted, found in (
            ("name", each.name, there.name),
            ("type", each.model_type or "", there.model_type or ""),
            ("status", each.status, _status(there)),
            ("params", each.params, dict(there.params)),
            ("tags", each.tags, {key: there.tags.get(key) for key in each.tags}),
        ):
            if wanted != found:
                yield f"{what}: {str(wanted)[:80]!r} in the lake, {str(found)[:80]!r} there."
        measured = {said[1:] for said in _measures(there)}
        missing = [point for point in going.points if _said(point) not in measured]
        if missing:
            yield f"{len(missing)} points that were measured of it are not there."
        known = partial(marks_at, self._client, there.artifact_location)
        yield from wrong_files(going.files, known)

    def _link(self, query: Query, scope: Scope) -> None:
        """Say which models runs made and read."""
        for run_id, links in logged.read_linked(query, list(scope.runs)).items():
            try:
                with told(self._report.target):
                    self._link_run(scope.runs[run_id], links)
            except SourceError as error:
                self._report.fail(f"run {run_id} is not linked to its models there: {error}")

    def _link_run(self, mlflow_id: str, links: logged.Linked) -> None:
        entities = need("mlflow.entities")
        run = self._client.get_run(mlflow_id)
        made = {each.model_id for each in getattr(run.outputs, "model_outputs", None) or ()}
        read = {each.model_id for each in getattr(run.inputs, "model_inputs", None) or ()}
        outputs = [
            entities.LoggedModelOutput(self.gone[model_id][0], step)
            for model_id, step in links.outputs
            if model_id in self.gone and self.gone[model_id][0] not in made
        ]
        inputs = [
            entities.LoggedModelInput(self.gone[model_id][0])
            for model_id in links.inputs
            if model_id in self.gone and self.gone[model_id][0] not in read
        ]
        if outputs:
            self._client.log_outputs(mlflow_id, outputs)
        if inputs:
            self._client.log_inputs(mlflow_id, models=inputs)


def _status(there: Any) -> str:  # noqa: ANN401 - MLflow's
    return str(getattr(there.status, "value", there.status))


def _said(point: Measured) -> tuple[Any, ...]:
    """Return what tells a point that MLflow has from another; its infinities are floats."""
    value = repr(float(point.value)) if abs(point.value) != float("inf") else "inf"
    return point.key, value, point.time_us // 1000, point.step


def _measures(there: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 - MLflow's
    for each in there.metrics or ():
        is_far = abs(each.value) >= 1.7976931348623157e308  # noqa: PLR2004 - the greatest float
        value = "inf" if is_far else repr(float(each.value))
        yield each.run_id, each.key, value, each.timestamp, each.step
