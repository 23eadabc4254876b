"""What can be asked of a lake, and from which snapshot it is answered.

Every answer comes from exactly one snapshot. A question takes a newer one when the last is too
old, or when this process has logged since; so a process reads what it wrote. When a file of the
snapshot is gone, because its writer replaced it, the question is asked again of a new one.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final, TypeVar

from runlake import clock
from runlake.errors import NotFoundError
from runlake.query import entities, export, leaderboard, search
from runlake.query.engine import Query
from runlake.storage.tables import empty_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import duckdb
    import polars as pl

    from runlake.query.entities import Experiment, RunRecord
    from runlake.settings import Settings
    from runlake.storage.engine import Storage
    from runlake.storage.snapshot import Snapshot

_Answer = TypeVar("_Answer")
_TRIES: Final = 5
_REFRESH_LOCAL_S: Final = 1.0
_REFRESH_FAR_S: Final = 10.0


class Questions:
    """The reading half of a lake. Threads may share it."""

    def __init__(self, storage: Storage, settings: Settings, *, read_only: bool) -> None:
        """Nothing is read before the first question."""
        self.settings = settings
        self._storage = storage
        self._read_only = read_only
        self._snapshot_lock = threading.RLock()
        self._pid = os.getpid()
        self._query: Query | None = None
        self._snapshot: Snapshot | None = None
        self._taken_s = 0.0

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

        Returns:
            The runs, in this order, with MLflow's column names.

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

        Returns:
            rank, run_id, run_name, experiment_name, value, its step, status, and the params
            that differ between these runs.

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
        """Take a new snapshot now, own rows included; later answers come from it.

        Raises:
            NotFoundError: the lake is read-only, and nothing is there.
            StorageError: the store cannot be read.
        """
        self._check_fork()
        with self._snapshot_lock:
            self._bring_own()
            self._take()

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot that the last answer came from, None before the first."""
        return self._snapshot

    # Inside.

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
        for _ in range(_TRIES - 1):
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
        self._check_fork()
        with self._snapshot_lock:
            own = self._bring_own()
            if self._query is None or own or clock.monotonic_s() - self._taken_s > limit:
                return self._take()
            return self._query

    def _bring_own(self) -> bool:
        """Bring what this process logged to the store; tell whether there was anything."""
        return False

    def _check_fork(self) -> None:
        """Begin anew in a forked child: neither DuckDB nor a held lock survives a fork."""
        if self._pid != os.getpid():
            self._snapshot_lock = threading.RLock()
            self._query = self._snapshot = None
            self._pid = os.getpid()

    def _forget(self) -> None:
        """Free the memory of the last snapshot."""
        self._check_fork()
        with self._snapshot_lock:
            if self._query is not None:
                self._query.close()
            self._query = self._snapshot = None

    def _take(self) -> Query:
        """Take a snapshot and return the query over it."""
        try:
            self._snapshot, tables = self._storage.read()
        except NotFoundError:
            if self._read_only or self._storage.holds_others():
                raise
            # Nothing was logged yet: a new lake is empty, not an error.
            tables = empty_tables(
                root_url=self._storage.url, now_us=clock.now_us(), stale_s=self.settings.stale_s
            )
        if self._query is None or self._query.tables is not tables:
            self._query = Query(tables)
        self._taken_s = clock.monotonic_s()
        return self._query
