"""The lake: a folder or bucket prefix, and everything one can do with it.

`Lake` composes storage, writing and queries; it holds no logic of its own beyond when to take
a new snapshot and what to do when a file of the old one is gone.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runlake import clock, ids, schema, settings
from runlake.artifacts.store import Artifacts
from runlake.errors import InvalidInputError, NotFoundError, RunlakeWarning, StateError, StorageError
from runlake.experiments import Experiments
from runlake.maintain import Maintain
from runlake.query import entities, export, leaderboard, search
from runlake.query.engine import Query
from runlake.run import Run, RunPlan, new_run_id
from runlake.storage.engine import Storage
from runlake.storage.fs import open_filesystem
from runlake.storage.nullfs import NullFilesystem
from runlake.writing import values
from runlake.writing.disabled import DisabledDrain
from runlake.writing.drain import Drain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import duckdb
    import polars as pl

    from runlake.query.entities import Experiment, RunRecord
    from runlake.settings import Settings
    from runlake.storage.snapshot import Snapshot

_Answer = TypeVar("_Answer")
_ASK_TRIES: Final = 5
_REFRESH_LOCAL_S: Final = 1.0
_REFRESH_FAR_S: Final = 10.0
_NOTE_TAG: Final = "mlflow.note.content"


def open_lake(
    url: str | os.PathLike[str] | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    read_only: bool = False,
    refresh: float | None = None,
) -> Lake:
    """Open a lake; nothing is read before it is needed, and the first writer makes it.

    Args:
        url: any fsspec URL or path; None takes `RUNLAKE_URL`, else `./lake`.
        storage_options: for fsspec; None takes `RUNLAKE_STORAGE_OPTIONS` (JSON).
        read_only: refuse to write, and to open where there is no lake.
        refresh: age in seconds at which a query takes a new snapshot; None means 1 s for a
            local lake, 10 s for a far one.

    Returns:
        The lake.

    Raises:
        InvalidInputError: the scheme is unknown, or the address is a server's.
        MissingDependencyError: the filesystem's package is not installed.
        NotFoundError: `read_only`, and there is no lake.
    """
    resolved, origin = settings.resolve(
        url=None if url is None else os.fspath(url),
        storage_options=storage_options,
        refresh_s=refresh,
    )
    lake = Lake(resolved, origin=origin, read_only=read_only)
    if read_only:
        lake.refresh()
    return lake


class Lake:
    """Everything of all experiments below one folder or bucket prefix.

    Threads may share a lake. Close it, or use it as a context manager, to wait until all rows
    are in the store; the end of the process does the same.

    Attributes:
        settings: what it was told.
        origin: where each setting came from.
        artifacts: the files of runs.
        maintain: keeping house.
    """

    def __init__(
        self, resolved: Settings, *, origin: Mapping[str, str] | None = None, read_only: bool = False
    ) -> None:
        """Open a lake with settled settings; `runlake.open` settles them."""
        self.settings = resolved
        self.origin = dict(origin or {})
        self._read_only = read_only
        self._storage = _open_storage(resolved)
        self._drain = DisabledDrain() if resolved.is_disabled else Drain(self._storage, resolved)
        hasty = dataclasses.replace(resolved, request_timeout_s=resolved.name_timeout_s)
        self._naming = _open_storage(hasty)
        self._experiments = Experiments(
            self._naming, self._drain, self._find_experiment, resolved.close_timeout_s
        )
        self.artifacts = Artifacts(self._storage)
        self.maintain = Maintain(self._storage, self._drain, self._check_writable)
        self._lock = threading.RLock()
        self._query: Query | None = None
        self._snapshot: Snapshot | None = None
        self._taken_s = 0.0
        self._rows_seen = 0

    @property
    def url(self) -> str:
        """Where the lake is, without credentials."""
        return self._storage.url

    def __repr__(self) -> str:
        """Name the lake."""
        return f"<Lake {self.url}>"

    def __enter__(self) -> Lake:
        """Return the lake."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    # Writing.

    def start_run(
        self,
        run_name: str | None = None,
        *,
        experiment: str | None = None,
        experiment_id: str | None = None,
        run_id: str | None = None,
        parent_run_id: str | None = None,
        tags: Mapping[str, object] | None = None,
        description: str | None = None,
    ) -> Run:
        """Begin a run, resume one, or join one that other processes write.

        Args:
            run_name: chosen by a person; None derives one from the id.
            experiment: name of its experiment, made where there is none; else `experiment_id`.
            experiment_id: its experiment by id; neither means `Default`.
            run_id: an existing run to go on with; an unknown id makes the run.
            parent_run_id: the run that it is nested in.
            tags: its first tags.
            description: kept as the tag `mlflow.note.content`.

        Returns:
            The run, open for writing.

        Raises:
            InvalidInputError: a name, id or tag is wrong; nothing was written.
            StateError: the lake is read-only, or the experiment is deleted.
        """
        self._check_writable()
        if experiment is not None and experiment_id is not None:
            message = "give start_run an experiment's name or its id, not both."
            raise InvalidInputError(message)
        if run_name is not None:
            values.text("run", "name", run_name)
        for what in (run_id, parent_run_id):
            if what is not None:
                _check_run_id(what)
        experiment_id, name = self._place(experiment, experiment_id, run_id)
        plan = RunPlan(
            run_id=run_id or new_run_id(),
            experiment_id=experiment_id,
            experiment_name=name,
            run_name=run_name,
            parent_run_id=parent_run_id,
            start_us=clock.now_us(),
        )
        first = dict(tags or {})
        if description is not None:
            first[_NOTE_TAG] = description
        return Run(
            plan, self._drain, self.artifacts, self.settings, read=self.get_run, tags=first
        )

    def create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> str:
        """Make an experiment and return its id; it is in the store when this returns.

        Args:
            name: 1 to 250 printable characters.
            artifact_location: where its artifacts lie if not in the lake.
            tags: its first tags.

        Raises:
            AlreadyExistsError: the name is taken.
            InvalidInputError: the name or a tag is wrong.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        self._check_writable()
        return self._experiments.create(name, artifact_location, tags)

    def ensure_experiment(self, name: str) -> str:
        """Return the id of an experiment; make it where there is none.

        Where the store is away, the id is the one that follows from the name.

        Args:
            name: 1 to 250 printable characters.

        Raises:
            InvalidInputError: the name is none.
            StateError: the experiment is deleted, or the lake is read-only.
        """
        self._check_writable()
        return self._experiments.resolve(name)

    def rename_experiment(self, experiment_id: str, name: str) -> None:
        """Give an experiment another name; the old one becomes free.

        Args:
            experiment_id: the experiment.
            name: the new name.

        Raises:
            NotFoundError: there is no such experiment.
            AlreadyExistsError: the name is taken.
            StorageError: the store refused.
        """
        self._check_writable()
        self._experiments.rename(experiment_id, name)

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, object]) -> None:
        """Set tags of an experiment; they are in the store when this returns.

        Args:
            experiment_id: the experiment.
            tags: values by key.

        Raises:
            NotFoundError: there is no such experiment.
            InvalidInputError: a tag is wrong; none is set.
            StorageError: the store refused.
        """
        self._check_writable()
        self._experiments.set_tags(experiment_id, tags)

    def delete_experiment(self, experiment_id: str) -> None:
        """Hide an experiment and keep everything in it; `restore_experiment` shows it again.

        Args:
            experiment_id: the experiment.

        Raises:
            NotFoundError: there is no such experiment.
            StorageError: the store refused.
        """
        self._check_writable()
        self._experiments.delete(experiment_id)

    def restore_experiment(self, experiment_id: str) -> None:
        """Show a deleted experiment again; runs deleted one by one stay deleted.

        Args:
            experiment_id: the experiment.

        Raises:
            NotFoundError: there is no such experiment.
            StorageError: the store refused.
        """
        self._check_writable()
        self._experiments.restore(experiment_id)

    def delete_run(self, run_id: str) -> None:
        """Hide a run and keep everything in it; in the store when this returns.

        Args:
            run_id: the run.

        Raises:
            NotFoundError: there is no such run.
            StorageError: the store refused.
        """
        self._mark(run_id, schema.DELETE)

    def restore_run(self, run_id: str) -> None:
        """Show a deleted run again; in the store when this returns.

        Args:
            run_id: the run.

        Raises:
            NotFoundError: there is no such run.
            StorageError: the store refused.
        """
        self._mark(run_id, schema.RESTORE)

    def flush(self, timeout_s: float | None = None) -> None:
        """Return when every row that this process logged before is in the store.

        Args:
            timeout_s: seconds to wait; None takes the setting `close_timeout_s`.

        Raises:
            StorageError: the store refused or did not answer; the rows stay in the journal.
        """
        self._drain.flush(self.settings.close_timeout_s if timeout_s is None else timeout_s)

    def close(self) -> None:
        """Bring all rows to the store and let go; bounded by the setting `close_timeout_s`.

        What could not be sent stays in the journal, is said, and goes out at the next opening.
        The lake may be used again after.
        """
        self._drain.close(self.settings.close_timeout_s)
        with self._lock:
            if self._query is not None:
                self._query.close()
            self._query = self._snapshot = None

    # Asking.

    def sql(
        self, query: str, params: Sequence[object] | Mapping[str, object] | None = None
    ) -> pl.DataFrame:
        """Run one SQL statement that reads, over the views of one snapshot.

        The views are experiments, runs, params, tags, metrics, metric_summary, artifacts and
        events; `DESCRIBE runs` shows columns.

        Args:
            query: DuckDB's SQL.
            params: values for `?` (a sequence) or `$name` (a mapping).

        Returns:
            The result; times are UTC.

        Raises:
            InvalidInputError: DuckDB refuses the query, or it would do more than read.
            StorageError: the store cannot be read.
        """
        return export.to_polars(self._ask(lambda query_: query_.sql(query, params)))

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection of your own with all views, over one snapshot.

        A thread that shares it takes a `cursor()` of it first.

        Raises:
            StorageError: the store cannot be read.
        """
        return self._ask(lambda query: query.connect())

    def scan(self, view: str) -> pl.LazyFrame:
        """Return a view as a Polars lazy frame; row-level views push filters to the files.

        Args:
            view: the name of a view, as `metrics`.

        Raises:
            InvalidInputError: there is no such view.
            StorageError: the store cannot be read.
        """
        return self._ask(lambda query: export.scan(query, view))

    def search_runs(
        self,
        filter_string: str = "",
        *,
        experiment_names: Sequence[str] | None = None,
        experiment_ids: Sequence[str] | None = None,
        order_by: Sequence[str] | None = None,
        limit: int | None = None,
        run_view_type: str = "ACTIVE_ONLY",
    ) -> pl.DataFrame:
        """Find runs: one row each, with columns `metrics.*`, `params.*` and `tags.*`.

        Args:
            filter_string: like `metrics.acc > 0.9 and params.lr = '0.1'`.
            experiment_names: only in these experiments; None and no ids means all.
            experiment_ids: only in these experiments.
            order_by: like `["metrics.acc DESC"]`; None means the newest first.
            limit: greatest number of rows; None means all.
            run_view_type: ACTIVE_ONLY, DELETED_ONLY or ALL.

        Raises:
            InvalidInputError: the filter or order cannot be read; says line and column.
            NotFoundError: an experiment's name is unknown.
            StorageError: the store cannot be read.
        """

        def answer(query: Query) -> pl.DataFrame:
            return search.search_runs(
                query,
                experiment_ids=self._only(query, experiment_names, experiment_ids),
                filter_string=filter_string,
                order_by=order_by,
                limit=limit,
                run_view_type=run_view_type,
            )

        return self._ask(answer)

    def search_experiments(self, view_type: str = "ACTIVE_ONLY") -> list[Experiment]:
        """Return experiments, the newest first.

        Args:
            view_type: ACTIVE_ONLY, DELETED_ONLY or ALL.

        Raises:
            InvalidInputError: there is no such view type.
            StorageError: the store cannot be read.
        """
        return self._ask(lambda query: search.search_experiments(query, view_type=view_type))

    def leaderboard(
        self,
        metric: str,
        *,
        goal: str = "max",
        value: str = "best",
        top: int | None = 10,
        experiment_names: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """Rank runs by one metric; ties share a rank, runs without the metric are left out.

        Args:
            metric: its key.
            goal: `max` or `min`.
            value: `best`, `last`, `min`, `max` or `mean` of each run's points.
            top: greatest number of rows; None means all.
            experiment_names: only in these experiments; None means all.

        Raises:
            InvalidInputError: goal or value is none of these.
            NotFoundError: no run has this metric.
            StorageError: the store cannot be read.
        """

        def answer(query: Query) -> pl.DataFrame:
            return leaderboard.leaderboard(
                query,
                metric,
                goal=goal,
                value=value,
                top=top,
                experiment_ids=self._only(query, experiment_names, None),
            )

        return self._ask(answer)

    def get_run(self, run_id: str) -> RunRecord:
        """Return a run: info, params, last metrics and tags.

        Args:
            run_id: the run.

        Raises:
            NotFoundError: there is no such run; names the nearest.
            StorageError: the store cannot be read.
        """
        return self._ask(lambda query: entities.get_run(query, run_id))

    def get_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment by id.

        Args:
            experiment_id: the experiment.

        Raises:
            NotFoundError: there is no such experiment.
            StorageError: the store cannot be read.
        """
        return self._ask(lambda query: entities.get_experiment(query, experiment_id))

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """Return an experiment by name, None if there is none, as MLflow does.

        Args:
            name: of the experiment.

        Raises:
            StorageError: the store cannot be read.
        """
        return self._ask(lambda query: entities.find_experiment_by_name(query, name))

    def refresh(self) -> None:
        """Take a new snapshot now; later answers come from it.

        Raises:
            NotFoundError: the lake is read-only, and nothing is there.
            StorageError: the store cannot be read.
        """
        with self._lock:
            self._take()

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot that the last answer came from, None before the first."""
        return self._snapshot

    # Inside.

    def _check_writable(self) -> None:
        if self._read_only:
            message = f"the lake {self.url} was opened read-only."
            raise StateError(message, url=self.url)

    def _place(
        self, experiment: str | None, experiment_id: str | None, run_id: str | None
    ) -> tuple[str, str]:
        """Return the id and name of the experiment that a run goes to."""
        if experiment is None and experiment_id is None and run_id is not None:
            known = self._known_place(run_id)
            if known is not None:
                return known
        if experiment_id is not None:
            return experiment_id, self._experiments.name_of(experiment_id)
        name = experiment or self.settings.experiment
        if name is None:
            return ids.DEFAULT_EXPERIMENT_ID, ids.DEFAULT_EXPERIMENT_NAME
        return self._experiments.resolve(name), name

    def _known_place(self, run_id: str) -> tuple[str, str] | None:
        """Look an existing run up, so that it goes on where it began."""
        try:
            found = self.get_run(run_id).info.experiment_id
        except (NotFoundError, StorageError):
            return None
        return found, self._experiments.name_of(found)

    def _mark(self, run_id: str, kind: str) -> None:
        self._check_writable()
        info = self.get_run(run_id).info
        name = self._experiments.name_of(info.experiment_id)
        row = (run_id, kind, "", None, None)
        while not self._drain.writer(info.experiment_id, name).journal.events([row]):
            pass
        self.flush()

    def _find_experiment(self, experiment_id: str) -> Experiment | None:
        """Read one experiment from what the store holds now, at the cost of its partition."""
        try:
            _, tables = self._naming.read([schema.RESERVED_PARTITION, experiment_id])
        except NotFoundError:
            return None
        query = Query(tables)
        try:
            return entities.find_experiment(query, experiment_id)
        finally:
            query.close()

    @staticmethod
    def _only(
        query: Query, names: Sequence[str] | None, ids: Sequence[str] | None
    ) -> list[str] | None:
        if names is None:
            return None if ids is None else list(ids)
        found = [entities.get_experiment_by_name(query, name).experiment_id for name in names]
        return [*found, *(ids or ())]

    def _ask(self, answer: Callable[[Query], _Answer]) -> _Answer:
        """Answer from a snapshot that is new enough; take a new one when a file is gone."""
        for _ in range(_ASK_TRIES - 1):
            try:
                return answer(self._fresh())
            except FileNotFoundError:
                # The snapshot's tail was replaced or compacted while it was read.
                self.refresh()
        return answer(self._fresh())

    def _fresh(self) -> Query:
        """Return a query over a snapshot that holds all that this process has logged."""
        limit = self.settings.refresh_s
        if limit is None:
            limit = _REFRESH_LOCAL_S if self._storage.fs.is_local else _REFRESH_FAR_S
        with self._lock:
            own = self._flush_own()
            if self._query is None or own or clock.monotonic_s() - self._taken_s > limit:
                self._take()
            assert self._query is not None
            return self._query

    def _flush_own(self) -> bool:
        """Bring own rows to the store, so that a process reads what it wrote."""
        written = self._drain.rows_logged
        if self._drain.pending:
            try:
                self.flush()
            except StorageError as error:
                warnings.warn(f"the answer lacks own rows: {error}", RunlakeWarning, stacklevel=5)
        changed = written != self._rows_seen
        self._rows_seen = written
        return changed

    def _take(self) -> None:
        try:
            snapshot, tables = self._storage.read()
        except NotFoundError:
            if self._read_only:
                raise
            # Nothing was logged yet: a new lake is empty, not an error.
            snapshot, tables = self._storage.empty()
        if self._query is None or self._query.tables is not tables:
            self._query = Query(tables)
        self._snapshot = snapshot
        self._taken_s = clock.monotonic_s()


def _open_storage(resolved: Settings) -> Storage:
    if resolved.is_disabled:
        return Storage(NullFilesystem(resolved.url), resolved)
    options = dict(resolved.storage_options)
    filesystem = open_filesystem(resolved.url, storage_options=options, settings=resolved)
    return Storage(filesystem, resolved)


def _check_run_id(run_id: str) -> None:
    if not isinstance(run_id, str) or not values.RUN_ID.fullmatch(run_id):
        message = (
            "a run id is up to 64 letters, digits, '_' and '-' (MLflow's are 32 hex digits), got "
            f"{run_id!r}."
        )
        raise InvalidInputError(message)

