"""The way out: runs of a lake written into an MLflow store, through MLflow's own client.

MLflow gives runs ids of its own, so each has its id of the lake as the tag `runlake.run_id`, and
`runlake.exported` once all of it is there. Whoever is interrupted calls again: of a run that is
half there only the rest goes. Logged models go with their runs, and registered models when
everything goes. What MLflow cannot hold (times below a millisecond, long texts, some
characters in keys) is named in the report.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from runlake import clock, schema
from runlake._lazy import lazy, need
from runlake.errors import InvalidInputError, NotFoundError
from runlake.importers.mlflow_client import client_of, told, without_password
from runlake.importers.outward_logged import LoggedOut, Scope
from runlake.importers.outward_models import RegistryOut
from runlake.importers.outward_run import EXPORTED, RUN_ID, Exported, send
from runlake.importers.report import Report
from runlake.importers.source import Note, SourceError
from runlake.questions import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from runlake.importers.bring import Progress
    from runlake.lake import Lake
    from runlake.pinned import PinnedLake
    from runlake.query import imported
    from runlake.query.engine import Query
else:
    imported = lazy("runlake.query.imported")

TARGETS: Final = ("mlflow",)
_PAGE: Final = 1000
_ALL: Final = 3  # ViewType.ALL


def export_to(
    kind: str,
    uri: str,
    lake: Lake,
    *,
    run_ids: Collection[str] | None = None,
    experiments: Collection[str] | None = None,
    artifacts: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Write runs of a lake into another tracker, and compare what is there then.

    Args:
        kind: `mlflow`.
        uri: what MLflow calls a tracking URI: `sqlite:///mlflow.db`, `http://...`.
        lake: where the runs are.
        run_ids: only these, by their full ids.
        experiments: only the runs of these, by name. Neither: all.
        artifacts: whether their files go too.
        progress: called after each run with how far it is.

    Returns:
        What was done, what is not as it was, and what went wrong.

    Raises:
        InvalidInputError: there is no such kind, or runs and experiments were given.
        NotFoundError: there is no such run or experiment.
        SourceError: MLflow cannot reach the store.
        MissingDependencyError: MLflow is not installed.
        StorageError: the lake cannot be read.
    """
    if kind not in TARGETS:
        raise InvalidInputError(f"runs go out to {', '.join(TARGETS)}, got {kind!r}.")
    if run_ids is not None and experiments is not None:
        message = "give export runs or experiments, not both."
        raise InvalidInputError(message)
    began_s = clock.monotonic_s()
    report = Report(kind, lake.url, without_password(uri))
    work = _Outward(client_of(uri), lake, report, artifacts=artifacts)
    work.run(run_ids, experiments, progress or (lambda _: None))
    report.seconds = clock.monotonic_s() - began_s
    return report


class _Outward:
    """One way out at work."""

    def __init__(self, client: Any, lake: Lake, report: Report, *, artifacts: bool) -> None:  # noqa: ANN401 - MLflow's
        self._client, self._lake, self._report = client, lake, report
        self._artifacts = artifacts
        self._homes: dict[str, str] = {}
        self._there: dict[str, Exported] = {}
        self._delete: list[str] = []

    def run(
        self,
        run_ids: Collection[str] | None,
        experiments: Collection[str] | None,
        progress: Callable[[Progress], None],
    ) -> None:
        made = need("runlake.importers.bring").Progress
        self._lake.refresh()
        with self._lake.at() as then:
            wanted = ask(then, lambda query: _wanted(query, run_ids, experiments))
            self._delete = [each["run_id"] for each in wanted if _is_deleted(each)]
            for number, about in enumerate(wanted):
                self._report.add(runs=1)
                try:
                    ask(then, partial(self._one, about))
                except SourceError as error:
                    self._report.add(failed=1)
                    self._report.fail(f"run {about['run_id']} did not go: {error}")
                done = self._report
                progress(made(number + 1, len(wanted), done.points, done.artifact_bytes))
            with told(self._report.target):
                self._send_models(then, run_ids, experiments)
            left = ask(then, imported.left_behind) if wanted else {}
        self._delete_runs()
        self._delete_experiments()
        for what, count in left.items():
            self._report.lose("", [Note(f"{what} stay in the lake", "", count)])

    def _one(self, about: dict[str, Any], query: Query) -> None:
        home = self._home(about["experiment_name"])
        run_id = about["run_id"]
        found = self._there.get(run_id)
        parent = about["parent_run_id"]
        parents = self._there.get(parent) if parent is not None else None
        done = send(
            self._client,
            query,
            about,
            home=home,
            there=found,
            parent_id=None if parents is None else parents.mlflow_id,
            files=self._lake.artifacts if self._artifacts else None,
            report=self._report,
        )
        self._there[run_id] = done

    def _home(self, name: str) -> str:
        """Return MLflow's id of an experiment; make it where there is none, with its tags."""
        if name in self._homes:
            return self._homes[name]
        given = self._lake.get_experiment_by_name(name)
        tags = {} if given is None else given.tags
        with told(self._report.target):
            found = self._client.get_experiment_by_name(name)
            if found is not None and found.lifecycle_stage == schema.DELETED:
                self._client.restore_experiment(found.experiment_id)
            if found is None:
                experiment_id = self._client.create_experiment(name, tags=tags)
            else:
                experiment_id = found.experiment_id
            self._look(experiment_id)
        self._homes[name] = experiment_id
        self._report.experiments.append(name)
        return str(experiment_id)

    def _look(self, experiment_id: str) -> None:
        """Find out which runs are there already."""
        token = None
        while True:
            page = self._client.search_runs(
                [experiment_id], run_view_type=_ALL, max_results=_PAGE, page_token=token
            )
            for run in page:
                ours = run.data.tags.get(RUN_ID)
                if ours is not None:
                    mark = run.data.tags.get(EXPORTED, "")
                    self._there[ours] = Exported(run.info.run_id, mark, run)
            token = page.token
            if not token:
                return

    def _send_models(
        self, then: PinnedLake, run_ids: Collection[str] | None, experiments: Collection[str] | None
    ) -> None:
        """Bring logged models, and the registered ones if everything goes."""

        def home(experiment_id: str) -> str | None:
            name = then.get_experiment(experiment_id).name
            return self._home(name) if experiments is None or name in experiments else None

        runs = {run_id: there.mlflow_id for run_id, there in self._there.items()}
        scope = Scope(runs, home, takes_orphans=run_ids is None)
        logged = LoggedOut(self._client, self._lake, self._report, artifacts=self._artifacts)
        ask(then, partial(logged.send, scope=scope))
        standing = self._lake.registry.standing()
        if run_ids is None and experiments is None:
            out = RegistryOut(self._client, self._report, runs=runs, logged=logged.gone)
            out.send(standing)
        elif standing.by_name:
            what = "registered models stay in the lake: they go when everything goes"
            self._report.lose("", [Note(what, "", len(standing.by_name))])

    def _delete_runs(self) -> None:
        """Delete those that the lake has deleted; last, because nothing more goes to them then."""
        for run_id in self._delete:
            there = self._there.get(run_id)
            if there is None or there.is_deleted:
                continue
            with told(self._report.target):
                self._client.delete_run(there.mlflow_id)

    def _delete_experiments(self) -> None:
        for name, experiment_id in self._homes.items():
            given = self._lake.get_experiment_by_name(name)
            if given is not None and given.lifecycle_stage == schema.DELETED:
                with told(self._report.target):
                    self._client.delete_experiment(experiment_id)


def _is_deleted(about: dict[str, Any]) -> bool:
    return bool(about["lifecycle_stage"] == schema.DELETED)


def _wanted(
    query: Query, run_ids: Collection[str] | None, experiments: Collection[str] | None
) -> list[dict[str, Any]]:
    """Return the runs that go, parents before their children."""
    everything = imported.listed(query)
    found = everything
    if run_ids is not None:
        found = [each for each in everything if each["run_id"] in set(run_ids)]
        missing = set(run_ids) - {each["run_id"] for each in found}
        if missing:
            raise NotFoundError(f"no run {', '.join(sorted(missing))}; nothing was exported.")
    if experiments is not None:
        found = [each for each in everything if each["experiment_name"] in set(experiments)]
        missing = set(experiments) - {each["experiment_name"] for each in found}
        if missing:
            names = ", ".join(map(repr, sorted(missing)))
            raise NotFoundError(f"no experiment {names} with runs; nothing was exported.")
    ranks: dict[str, int] = {}
    parents = {each["run_id"]: each["parent_run_id"] for each in found}
    for run_id in parents:
        ranks[run_id] = _depth(run_id, parents)
    return sorted(found, key=lambda each: (ranks[each["run_id"]], each["start_us"]))


def _depth(run_id: str, parents: dict[str, str | None]) -> int:
    depth, seen = 0, {run_id}
    parent = parents.get(run_id)
    while parent is not None and parent in parents and parent not in seen:
        seen.add(parent)
        depth += 1
        parent = parents.get(parent)
    return depth
