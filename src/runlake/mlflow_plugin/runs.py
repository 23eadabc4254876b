"""Runs of a lake, made, found and ended as MLflow does."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mlflow.entities import Run, RunData, RunInfo, RunInputs, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from mlflow.utils.name_utils import _generate_random_name
from mlflow.utils.search_utils import SearchUtils

from runlake import clock, schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.lake_parts import rows_of, storage_of
from runlake.mlflow_plugin.base import LakeStore
from runlake.mlflow_plugin.entities import deleted_runs, find_place, read_entities
from runlake.mlflow_plugin.errors import refusal, translated
from runlake.mlflow_plugin.known import KnownRun, KnownRuns, known_runs
from runlake.query.narrow import narrow
from runlake.query.search import RunSearch, find_runs
from runlake.query.subjects import RUNS
from runlake.questions import ask
from runlake.run_plan import new_run_id
from runlake.storage import arrays
from runlake.writing import values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from mlflow.entities import Experiment

    from runlake.query.engine import Query
    from runlake.writing.events import Row
else:
    np = lazy("numpy")

# MLflow's clients have arguments for what is left out; filters that name it are refused.
_SEARCHED: Final = replace(
    RUNS,
    attributes={
        name: holds
        for name, holds in RUNS.attributes.items()
        if name not in {"experiment_id", "lifecycle_stage"}
    },
    absences=frozenset({"param", "tag"}),
)
# Stands for the id of any run of an experiment.
_RUN_MARK: Final = "\0"


class RunStore(LakeStore):
    """The part of MLflow's tracking store that is about runs."""

    if TYPE_CHECKING:
        # Of `runlake.mlflow_plugin.experiments.ExperimentStore`.
        def _experiment(self, experiment_id: str) -> Experiment: ...
        def _experiment_ids(self, given: Iterable[object]) -> list[str]: ...
        def _active_experiment(self, experiment_id: str) -> Experiment: ...
        def _settle_place(self, experiment: Experiment) -> Experiment: ...
        def _run_artifact_uri(self, experiment: Experiment, run_id: str) -> str: ...
        def _locations(self, query: Query) -> Callable[[str, str], str]: ...

    @translated
    def create_run(  # noqa: PLR0917 - MLflow's
        self,
        experiment_id: str,
        user_id: str | None,
        start_time: int | None,
        tags: Sequence[RunTag] | None,
        run_name: str | None,
    ) -> Run:
        """Make a run; it is in the store when this returns.

        Args:
            experiment_id: where it lies.
            user_id: who starts it.
            start_time: milliseconds since 1970; None: now.
            tags: its first tags.
            run_name: None: as the tag `mlflow.runName` says, else a random one.

        Returns:
            The run, its status RUNNING.

        Raises:
            MlflowException: there is no such experiment, or it is deleted; a tag is wrong, or
                the name contradicts its tag; the store refused.
        """
        experiment = self._settle_place(self._active_experiment(experiment_id))
        texts = {
            values.name("tag", tag.key): values.text("tag", tag.key, tag.value)
            for tag in tags or ()
        }
        tagged_name = texts.get(MLFLOW_RUN_NAME)
        if run_name and tagged_name and run_name != tagged_name:
            message = (
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with "
                f"different values (run_name='{run_name}', mlflow.runName='{tagged_name}')."
            )
            raise MlflowException(message, codes.INVALID_PARAMETER_VALUE)
        name = values.text("run", "name", run_name or tagged_name or _generate_random_name())
        texts[MLFLOW_RUN_NAME] = tagged_name or name
        run_id = new_run_id()
        home = str(experiment.experiment_id)
        start_us = clock.now_us() if start_time is None else values.time_us(start_time)
        known = KnownRun(
            run_id=run_id,
            experiment_id=home,
            run_name=name,
            user_id=values.text("run", "user", user_id or ""),
            start_time=start_us // 1000,
            artifact_uri=self._run_artifact_uri(experiment, run_id),
            rows=rows_of(self.lake, run_id, experiment_id=home, experiment_name=experiment.name),
            status=schema.RUNNING,
            end_time=None,
            lifecycle_stage=schema.ACTIVE,
            params={},
            seen_s=clock.monotonic_s(),
            is_own=True,
        )
        rows: list[Row] = [
            (run_id, schema.RUN, schema.RUN_START, float(start_us), None),
            (run_id, schema.RUN, schema.RUN_USER, None, known.user_id),
            (run_id, schema.RUN, schema.RUN_NAME, None, name),
            (run_id, schema.STATUS, schema.STATUS_SET, None, schema.RUNNING),
        ]
        for key, value in texts.items():
            rows += tag_rows(run_id, key, value)
        known.events(rows)
        self.lake.flush()
        self._known_runs.put(known)
        data = RunData(tags=[RunTag(key, value) for key, value in texts.items()])
        return Run(_info(known), data, RunInputs([]))  # as MLflow, outputs left out

    @translated
    def get_run(self, run_id: str) -> Run:
        """Return a run, deleted or not.

        Args:
            run_id: the run.

        Raises:
            MlflowException: there is no such run, or the store cannot be read.
        """
        return self._read_run(run_id)

    @translated
    def update_run_info(
        self,
        run_id: str,
        run_status: int | None,
        end_time: int | None,
        run_name: str | None,
    ) -> RunInfo:
        """Say how a run stands, and what it is called; in the store when this returns.

        Args:
            run_id: the run.
            run_status: MLflow's number of a status; None: as before.
            end_time: milliseconds since 1970; None: as before.
            run_name: None or empty: as before.

        Returns:
            What is known of the run now.

        Raises:
            MlflowException: there is no such run, or it is deleted; the store refused.
        """
        known = self._writable(run_id, is_fresh=True)
        rows: list[Row] = []
        status = known.status if run_status is None else _status_text(run_status)
        ends = known.end_time if end_time is None else int(end_time)
        if run_status is not None or end_time is not None:
            end_us = None if ends is None else float(values.time_us(ends))
            rows.append((run_id, schema.STATUS, schema.STATUS_SET, end_us, status))
        if run_name:
            run_name = values.text("run", "name", run_name)
            rows += tag_rows(run_id, MLFLOW_RUN_NAME, run_name)
            rows += name_rows(run_id, run_name)
        known.events(rows)
        self.lake.flush()
        known.status, known.end_time = status, ends
        known.run_name = run_name or known.run_name
        known.staged_s = clock.monotonic_s()
        return _info(known)

    @translated
    def delete_run(self, run_id: str) -> None:
        """Hide a run and keep everything in it; in the store when this returns.

        Args:
            run_id: the run; one that is deleted may be deleted again.

        Raises:
            MlflowException: there is no such run; the store refused.
        """
        self._mark(run_id, schema.DELETE, schema.DELETED)

    @translated
    def restore_run(self, run_id: str) -> None:
        """Show a deleted run again; in the store when this returns.

        Args:
            run_id: the run; one that is not deleted may be restored too.

        Raises:
            MlflowException: there is no such run; its experiment is deleted, and with it all of
                its runs; the store refused.
        """
        known = self._known_runs.get(run_id) or self._read_known(run_id)
        self._active_experiment(known.experiment_id)
        self._mark(run_id, schema.RESTORE, schema.ACTIVE)

    @translated
    def _search_runs(  # noqa: PLR0917 - MLflow's
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None,
        run_view_type: int,
        max_results: int | None,
        order_by: Sequence[str] | None,
        page_token: str | None,
    ) -> tuple[list[Run], str | None]:
        """Return one page of the runs that match, and the token of the next.

        Args:
            experiment_ids: only runs of these.
            filter_string: as in `Lake.search_runs`, which takes all that MLflow takes; but not
                over `experiment_id` and `lifecycle_stage`.
            run_view_type: MLflow's number of a view.
            max_results: greatest number of runs, at most 50,000; None: all.
            order_by: as in `Lake.search_runs`.
            page_token: of the page before, everything else as there.

        Raises:
            MlflowException: an argument is wrong; the store cannot be read.
        """
        check_max_results(max_results)
        homes, keys = self._experiment_ids(experiment_ids), list(order_by or ())
        wanted = RunSearch(
            filter_string=filter_string,
            experiment_ids=homes,
            order_by=keys,
            run_view_type=run_view_type,
            limit=max_results,
            page_token=page_token or None,
            subject=_SEARCHED,
        )
        is_placed = any("artifact_uri" in each.lower() for each in (filter_string, *keys) if each)

        def answer(query: Query) -> tuple[list[Run], str | None]:
            query.begin()
            locate = self._locations(query)
            asked = wanted
            if is_placed:
                asked = replace(wanted, artifact_uris=_around_runs(homes, locate))
            found = find_runs(query, asked, with_token=True)
            places: Any = found.names.combine_chunks()
            places = arrays.values(places).astype(np.int64)
            return read_entities(query, places, locate=locate), found.token

        try:
            return ask(self.lake, answer)
        except InvalidInputError as error:
            raise refusal(
                error,
                partial(SearchUtils.parse_search_filter, filter_string),
                *(partial(SearchUtils.parse_order_by_for_search_runs, key) for key in keys),
                partial(SearchUtils.parse_start_offset_from_page_token, page_token),
            ) from error

    # What `mlflow gc` calls.

    @translated
    def _hard_delete_run(self, run_id: str) -> None:
        """Take a run out of the lake for good, with all rows and files.

        Args:
            run_id: the run.

        Raises:
            MlflowException: there is no such run; the store refused.
        """
        self._read_known(run_id)
        self.lake.maintain.purge([run_id])
        self._known_runs.forget(run_id)

    @translated
    def _get_deleted_runs(self, older_than: int = 0) -> list[str]:
        """Return the ids of runs that have been deleted for some time.

        Args:
            older_than: milliseconds.

        Raises:
            MlflowException: the store cannot be read.
        """
        before_us = clock.now_us() - int(older_than) * 1000

        def answer(query: Query) -> list[str]:
            hidden = {
                home.experiment_id: home.changed_us or 0
                for home in query.folded.homes.values()
                if home.lifecycle_stage == schema.DELETED
            }
            said = query.folded.deletions.to_pydict()
            deleted = dict(zip(said["run_id"], said["clock"], strict=True))
            runs = query.folded.runs.select(["run_id", "experiment_id"]).to_pydict()
            for run_id, home in zip(runs["run_id"], runs["experiment_id"], strict=True):
                if home in hidden:
                    deleted.setdefault(run_id, hidden[home])
            return [run_id for run_id, at_us in deleted.items() if at_us <= before_us]

        return ask(self.lake, answer)

    # Inside.

    @property
    def _known_runs(self) -> KnownRuns:
        return known_runs(self.lake)

    def _writable(self, run_id: str, *, is_fresh: bool = False) -> KnownRun:
        """Return a run that takes rows.

        Args:
            run_id: the run.
            is_fresh: its params and its status must have been seen lately.

        Raises:
            MlflowException: there is no such run, or it is deleted.
        """
        known = self._known_runs.get(run_id, is_fresh=is_fresh)
        if known is None:
            known = self._read_known(run_id)
        else:
            self._known_runs.stage(self._find_deleted)
        if known.lifecycle_stage != schema.ACTIVE:
            message = (
                f"The run {run_id} must be in the 'active' state. "
                f"Current state is {known.lifecycle_stage}."
            )
            raise MlflowException(message, codes.INVALID_PARAMETER_VALUE)
        return known

    def _find_deleted(self, known: list[KnownRun]) -> set[str]:
        """Return which of some runs are deleted, as the store has it now."""
        _, tables = storage_of(self.lake).read({each.experiment_id for each in known})
        return deleted_runs(tables, {each.run_id: each.experiment_id for each in known})

    def _read_run(self, run_id: str) -> Run:
        if not isinstance(run_id, str):
            raise _is_missing(run_id)

        def answer(query: Query) -> Run:
            locate = self._locations(query)
            query = query.once(f"run {run_id}", partial(narrow, query, [run_id]))
            place = find_place(query, run_id)
            if place is None:
                raise _is_missing(run_id)
            return read_entities(query, np.array([place], np.int64), locate=locate)[0]

        return ask(self.lake, answer)

    def _read_known(self, run_id: str) -> KnownRun:
        """Look a run up, so that rows can be logged to it."""
        seen_s = clock.monotonic_s()
        info, data = (run := self._read_run(run_id)).info, run.data
        known = KnownRun(
            run_id=run_id,
            experiment_id=info.experiment_id,
            run_name=info.run_name,
            user_id=info.user_id,
            start_time=info.start_time,
            artifact_uri=info.artifact_uri or "",
            rows=rows_of(
                self.lake,
                run_id,
                experiment_id=info.experiment_id,
                experiment_name=self._experiment_name(info.experiment_id),
            ),
            status=info.status,
            end_time=info.end_time,
            lifecycle_stage=info.lifecycle_stage,
            params=dict(data.params),
            seen_s=seen_s,
        )
        return self._known_runs.put(known)

    def _experiment_name(self, experiment_id: str) -> str:
        try:
            return str(self._experiment(experiment_id).name)
        except MlflowException:
            return experiment_id

    def _mark(self, run_id: str, kind: str, stage: str) -> None:
        known = self._known_runs.get(run_id) or self._read_known(run_id)
        known.events([(run_id, kind, "", None, None)])
        self.lake.flush()
        known.lifecycle_stage, known.staged_s = stage, clock.monotonic_s()


def tag_rows(run_id: str, key: str, value: str) -> list[Row]:
    """Return the rows of a tag that a run gets.

    Args:
        run_id: the run.
        key: checked.
        value: checked.
    """
    rows: list[Row] = [(run_id, schema.TAG, key, None, value)]
    if key == MLFLOW_PARENT_RUN_ID:
        rows.append((run_id, schema.RUN, schema.RUN_PARENT, None, value))
    return rows


def name_rows(run_id: str, name: str) -> list[Row]:
    """Return the rows of another name for a run, but for its tag.

    Args:
        run_id: the run.
        name: the name.

    Raises:
        InvalidInputError: it is too long.
    """
    return [(run_id, schema.RUN, schema.RUN_NAME, None, values.text("run", "name", name))]


def _status_text(status: int) -> str:
    """Return the word for a status.

    Raises:
        MlflowException: there is no such number.
    """
    if status not in RunStatus.all_status():
        message = f"Could not get string corresponding to run status {status}"
        raise MlflowException(message, codes.INVALID_PARAMETER_VALUE)
    return str(RunStatus.to_string(status))


def _is_missing(run_id: object) -> MlflowException:
    return MlflowException(f"Run with id={run_id} not found", codes.RESOURCE_DOES_NOT_EXIST)


def _around_runs(
    homes: Iterable[str], locate: Callable[[str, str], str]
) -> dict[str, tuple[str, str]]:
    """Return, by experiment, what stands around a run's id where its artifacts lie."""
    places = {home: locate(home, _RUN_MARK).partition(_RUN_MARK) for home in homes}
    return {home: (head, tail) for home, (head, _, tail) in places.items()}


def check_max_results(max_results: int | None) -> None:
    """Refuse a page that MLflow would refuse.

    Args:
        max_results: None for no limit.

    Raises:
        MlflowException: it is below 1 or above 50,000.
    """
    if max_results is None or 1 <= max_results <= SEARCH_MAX_RESULTS_THRESHOLD:
        return
    asked = "a positive integer"
    if max_results > SEARCH_MAX_RESULTS_THRESHOLD:
        asked = f"at most {SEARCH_MAX_RESULTS_THRESHOLD}"
    message = (
        f"Invalid value {max_results} for parameter 'max_results' supplied. It must be {asked}"
    )
    raise MlflowException(message, codes.INVALID_PARAMETER_VALUE)


def _info(known: KnownRun) -> RunInfo:
    return RunInfo(
        run_id=known.run_id,
        experiment_id=known.experiment_id,
        user_id=known.user_id,
        status=known.status,
        start_time=known.start_time,
        end_time=known.end_time,
        lifecycle_stage=known.lifecycle_stage,
        artifact_uri=known.artifact_uri,
        run_name=known.run_name,
    )
