"""What can be asked of a lake, and from which snapshot it is answered.

Every answer comes from exactly one snapshot. A question takes a newer one when the last is too
old, or when this process has logged since; so a process reads what it wrote. When a file of the
snapshot is gone, because its writer replaced it, the question is asked again of a new one.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from typing import IO, TYPE_CHECKING, Final, Literal, TypeVar, overload

from runlake import arguments, clock
from runlake._lazy import lazy
from runlake.errors import InvalidInputError, NotFoundError
from runlake.query import card, entities, export, search
from runlake.query.confine import Limits, Watch
from runlake.query.curves import Curves
from runlake.query.engine import Query
from runlake.storage.tables import empty_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import duckdb
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from runlake.query import compare, history, leaderboard, outlet, scan, takeout, united
    from runlake.query.curves import Points
    from runlake.query.entities import Experiment, Page, RunRecord
    from runlake.query.leaderboard import Board
    from runlake.query.takeout import Export
    from runlake.settings import Settings
    from runlake.storage.engine import Storage
    from runlake.storage.snapshot import Snapshot
else:
    # To load these takes a tenth of what a short-lived process has; few ask all of them.
    compare = lazy("runlake.query.compare")
    history = lazy("runlake.query.history")
    leaderboard = lazy("runlake.query.leaderboard")
    outlet = lazy("runlake.query.outlet")
    scan = lazy("runlake.query.scan")
    takeout = lazy("runlake.query.takeout")
    united = lazy("runlake.query.united")

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
        self._curves = Curves()
        self._snapshot: Snapshot | None = None
        self._taken_s = 0.0

    def sql(
        self,
        query: str,
        params: Sequence[object] | Mapping[str, object] | None = None,
        *,
        timeout_s: float | None = None,
        max_rows: int | None = None,
    ) -> pl.DataFrame:
        """Run one SQL statement that reads, over the views of one snapshot.

        The views are experiments, runs, params, tags, metrics, metric_summary, inputs,
        artifacts, media, histograms, console, alerts, provenance, the registry's and events;
        `DESCRIBE runs` shows columns. Files, the network, settings and
        the variables of the program are out of reach; `connect` gives a connection that may do
        anything. The memory it may take is a setting, `query_memory_bytes`.

        Args:
            query: DuckDB's SQL.
            params: values for `?` (a sequence) or `$name` (a mapping).
            timeout_s: seconds that DuckDB may work on it; None: no limit.
            max_rows: greatest number of rows, beyond which it is refused; None: no limit.

        Returns:
            The result; times are UTC. Its `to_arrow()` keeps all types; in its `to_pandas()`
            maps are lists of pairs, and null and NaN are one.

        Raises:
            InvalidInputError: DuckDB refuses the query, it would do more than read, or a column
                is of a type that frames cannot hold, as a union; the message says what to write.
            LimitExceededError: it needs more time, memory or rows than it may take.
            StorageError: the store cannot be read.
        """
        timeout_s = arguments.seconds("timeout_s", timeout_s)
        max_rows = arguments.count("max_rows", max_rows)

        def answer(query_: Query) -> pa.Table:
            return query_.sql(query, params, watch=Watch(timeout_s, max_rows))

        return export.to_polars(self._ask(answer))

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection of your own, with all views over one snapshot.

        It may do all that DuckDB can, and sees the frames of your program. What it shows never
        changes: its files stay for the life of the connection, its cursors and its relations,
        although writers go on, runs are deleted, and the lake is closed. Of a far lake the rows
        are fetched when they are first asked for.

        A connection does one thing at a time: a thread that shares it takes a `cursor()` of
        its own first. A forked child makes its own connection; it must not use its parent's.

        Returns:
            The connection; keep it as long as you use its cursors.

        Raises:
            StorageError: the store cannot be read, or the cache cannot be written.
        """
        return self._ask(lambda query: query.connect(self._storage.late_files(query.tables)))

    def scan(self, view: str) -> pl.LazyFrame:
        """Return a view as a lazy Polars frame, over one snapshot.

        `metrics`, `events` and `artifacts` read nothing before the frame is collected, and then
        only the columns and rows that the plan asks for, down to the row groups of files; of a
        far lake a filter of `metrics` by run_id or key fetches only what can hold such points.
        The files stay as long as the frame does, or one made from it.

        Args:
            view: the name of a view, as `metrics`.

        Returns:
            The frame; its columns are the view's.

        Raises:
            InvalidInputError: there is no such view.
            StorageError: the store cannot be read.
        """
        return self._ask(lambda query: scan.scan(query, view, pin=self._storage.pin))

    def export(
        self,
        target: str | os.PathLike[str] | IO[bytes],
        *,
        what: str | None = None,
        format: str | None = None,  # noqa: A002 - the word that everybody tries first
        run_id: str | None = None,
        artifacts: bool | None = None,
        storage_options: Mapping[str, object] | None = None,
    ) -> Export:
        """Write a table, a run or the whole lake to files; the memory needed stays small.

        With `what`, one table goes into one file: CSV, JSON lines, Parquet or Arrow. Without
        it everything goes into a new folder, or into one file with the suffix `.zip`: of one
        run `run.json`, metrics, events and artifacts; of a lake every view, and a `README.md`
        that explains the columns. A file appears whole or not at all.

        Args:
            target: a path or fsspec URL; a file that is there is replaced. Or a stream, open
                for writing bytes, for one table.
            what: a view, as `metrics`, or a SELECT.
            format: `csv`, `jsonl`, `parquet` or `arrow`; None goes by the suffix, and in a
                folder is Parquet. CSV and JSON lines may end in `.gz` or `.zst` too.
            run_id: only this run.
            artifacts: whether files of runs are copied; None means of one run, not of all.
            storage_options: for fsspec; None takes the lake's where the scheme is the same.

        Returns:
            The files written, the number of rows, and the bytes.

        Raises:
            AlreadyExistsError: the folder is there and not empty.
            InvalidInputError: there is no such view or format, or the query is refused.
            NotFoundError: there is no such run.
            StorageError: the target cannot be written, or the store cannot be read.
        """
        if isinstance(target, (str, os.PathLike)):
            target = arguments.path("target", target)
        place = (
            outlet.Outlet(
                target,
                lake=self._storage.fs,
                settings=self.settings,
                storage_options=storage_options,
            )
            if isinstance(target, (str, os.PathLike))
            else target
        )
        wanted = takeout.Takeout(place, what=what, form=format, run_id=run_id, artifacts=artifacts)
        return self._ask(lambda query: wanted.write(query, self._storage.fs))

    @overload
    def search_runs(
        self,
        filter_string: str | None = "",
        *,
        experiment_names: Sequence[str] | None = None,
        experiment_ids: Sequence[str] | None = None,
        order_by: Sequence[str] | None = None,
        limit: int | None = None,
        page_token: str | None = None,
        run_view_type: str | int = "ACTIVE_ONLY",
        output_format: Literal["polars"] = "polars",
    ) -> pl.DataFrame: ...
    @overload
    def search_runs(
        self,
        filter_string: str | None = "",
        *,
        experiment_names: Sequence[str] | None = None,
        experiment_ids: Sequence[str] | None = None,
        order_by: Sequence[str] | None = None,
        limit: int | None = None,
        page_token: str | None = None,
        run_view_type: str | int = "ACTIVE_ONLY",
        output_format: Literal["pandas"],
    ) -> pd.DataFrame: ...
    @overload
    def search_runs(
        self,
        filter_string: str | None = "",
        *,
        experiment_names: Sequence[str] | None = None,
        experiment_ids: Sequence[str] | None = None,
        order_by: Sequence[str] | None = None,
        limit: int | None = None,
        page_token: str | None = None,
        run_view_type: str | int = "ACTIVE_ONLY",
        output_format: Literal["list"],
    ) -> Page[RunRecord]: ...
    def search_runs(
        self,
        filter_string: str | None = "",
        *,
        experiment_names: Sequence[str] | None = None,
        experiment_ids: Sequence[str] | None = None,
        order_by: Sequence[str] | None = None,
        limit: int | None = None,
        page_token: str | None = None,
        run_view_type: str | int = "ACTIVE_ONLY",
        output_format: str = "polars",
    ) -> pl.DataFrame | pd.DataFrame | Page[RunRecord]:
        """Find runs: one row each, with columns `metrics.*`, `params.*` and `tags.*`.

        A list has a `token`, which leads to its next page. A page neither repeats nor leaves
        out a run that was there, whatever runs have come since.

        Args:
            filter_string: like `metrics.acc > 0.9 and params.lr = '0.1'`.
            experiment_names: only in these experiments; None and no ids means all.
            experiment_ids: only in these experiments.
            order_by: like `["metrics.acc DESC"]`; None means the newest first.
            limit: greatest number of runs; None means all.
            page_token: the token of the page before, everything else as there.
            run_view_type: ACTIVE_ONLY, DELETED_ONLY or ALL.
            output_format: `polars` or `pandas` (a frame), or `list` (of run records).

        Returns:
            The runs, in this order; frames have MLflow's column names.

        Raises:
            InvalidInputError: the filter or order cannot be read; says line and column.
            NotFoundError: an experiment's name is unknown.
            StorageError: the store cannot be read.
        """

        def answer(query: Query) -> pl.DataFrame | pd.DataFrame | Page[RunRecord]:
            wanted = search.RunSearch(
                filter_string=filter_string,
                experiment_ids=self._only(query, experiment_names, experiment_ids),
                order_by=order_by,
                run_view_type=run_view_type,
                limit=limit,
                page_token=page_token,
            )
            return search.search_runs(query, wanted, output_format=output_format)

        return self._ask(answer)

    def search_experiments(
        self,
        filter_string: str | None = "",
        *,
        order_by: Sequence[str] | None = None,
        max_results: int | None = None,
        page_token: str | None = None,
        view_type: str | int = "ACTIVE_ONLY",
    ) -> Page[Experiment]:
        """Find experiments.

        Args:
            filter_string: like `name LIKE 'digits%' and tags.team = 'vision'`.
            order_by: like `["name"]`; None means the newest first.
            max_results: greatest number of experiments; None means all.
            page_token: the `token` of the page before, everything else as there.
            view_type: ACTIVE_ONLY, DELETED_ONLY or ALL.

        Returns:
            The experiments, in this order, and the token of the next page.

        Raises:
            InvalidInputError: the filter or order cannot be read; says line and column.
            StorageError: the store cannot be read.
        """
        return self._ask(
            lambda query: search.search_experiments(
                query,
                filter_string,
                order_by=order_by,
                max_results=max_results,
                page_token=page_token,
                view_type=view_type,
            )
        )

    def leaderboard(
        self,
        metric: str,
        *,
        goal: str = "max",
        value: str | int = "best",
        by: str | Sequence[str] | None = None,
        filter_string: str | None = "",
        top: int | None = 10,
        experiment_names: Sequence[str] | None = None,
    ) -> Board:
        """Rank runs by one metric, or groups of runs by their best.

        Ties share a rank (1, 1, 3), and a NaN ranks behind all numbers. Runs without the metric
        are left out; the frame's attribute `left_out` counts them.

        Args:
            metric: its key.
            goal: `max` or `min`.
            value: `best`, `last`, `min`, `max` or `mean` of each run's points; or a step: the
                value logged at exactly that step, of several the latest.
            by: a field as in a filter, like `params.kernel.name`, or several: one row, the best
                run, for each group of runs that are equal in them. Runs that lack a field are
                equal in that.
            filter_string: only runs that match.
            top: greatest number of rows; None means all.
            experiment_names: only in these experiments; None means all.

        Returns:
            rank, the fields of `by`, run_id, run_name, experiment_name, value, its step; with
            `by` the number of runs `n`, their `mean` and sample deviation `std` (null for one
            run, NaN where a value is); status; and up to 50 params that differ between these
            runs.

        Raises:
            InvalidInputError: an argument is none of these; of a filter, says line and column.
            NotFoundError: no run has this metric, or the param or tag to group by.
            StorageError: the store cannot be read.
        """

        def answer(query: Query) -> Board:
            return leaderboard.leaderboard(
                query,
                metric,
                goal=goal,
                value=value,
                by=by,
                filter_string=filter_string,
                top=top,
                experiment_ids=self._only(query, experiment_names, None),
            )

        return self._ask(answer)

    def compare(self, runs: object, *, show: str = "differing") -> pl.DataFrame:
        """Set runs side by side: what they are, and their params, metrics, data sets and tags.

        Every cell is text, exactly as logged; numbers read back as the same numbers.

        Args:
            runs: two or more: ids, runs, or a frame with a column `run_id`.
            show: `differing`: only what is not the same in all of them; `same`; or `all`.

        Returns:
            `kind`, `key`, and one column for each run, named by the run's name; where runs
            share a name, by the name and the beginning of the id. Null is what a run lacks.

        Raises:
            InvalidInputError: there are fewer than two runs, or an argument is none of these.
            NotFoundError: there is no such run; names the nearest.
            StorageError: the store cannot be read.
        """
        run_ids = compare.read_run_ids(runs)
        return self._ask(lambda query: compare.compare(query, run_ids, show=show))

    def history(
        self,
        keys: str | Iterable[str],
        *,
        runs: object = None,
        x: str = "step",
        max_points: int | None = None,
        start: object = None,
        stop: object = None,
        experiment_names: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """Return curves: what runs logged of some metrics, one row for each point.

        Many runs and many metrics are one question. With `max_points` each curve is thinned so
        that it looks the same and keeps every spike: the range of x is cut into equal buckets,
        and each keeps its first, last, lowest and highest point, and its first NaN where the
        curve has any. Without it no point is left out, also not of several at one step.

        Args:
            keys: a metric, a pattern as `val/*` (`*` stands for any text, `?` for one letter,
                `[ab]` for one of these), or a list of such; a metric whose key is exactly that
                goes before a pattern.
            runs: ids, runs, or a frame with a column `run_id`, as the other questions return;
                deleted runs too. None means all active runs, the newest first.
            x: `step`; `time`; `relative`, the seconds since the run began; or another metric:
                then x is what that was at the step, or at the last step before, and points
                before its first value are left out; NaN and infinity are no values here.
            max_points: greatest number of points of each curve, at least 4; None means all.
            start: least x wanted, None for no bound: a step, an aware datetime or milliseconds
                since 1970, seconds, or a value of the metric that x is.
            stop: greatest x wanted; a point exactly there is in.
            experiment_names: without `runs`: only runs of these experiments.

        Returns:
            `run_id`, `run_name`, `key`, `x`, `step`, `timestamp` and `value`; by run as asked
            for, then by key, then by x, step and time.

        Raises:
            InvalidInputError: an argument is none of what it may be.
            NotFoundError: there is no such run, metric or experiment; names the nearest.
            StorageError: the store cannot be read.
        """
        if runs is not None and experiment_names is not None:
            raise InvalidInputError("history takes either runs or experiment_names, not both.")
        if runs is not None:
            runs = compare.read_run_ids(runs)
        asked = history.read_keys(keys)

        def answer(query: Query) -> pl.DataFrame:
            wanted = history.CurveSearch(
                keys=asked,
                runs=runs,
                x=x,
                max_points=max_points,
                start=start,
                stop=stop,
                experiment_ids=self._only(query, experiment_names, None),
            )
            return history.history(query, self._curves, wanted)

        return self._ask(answer)

    def load_table(
        self,
        artifact_file: str,
        *,
        run_ids: Sequence[str] | None = None,
        extra_columns: Sequence[str] | None = None,
        experiment_names: Sequence[str] | None = None,
        experiment_ids: Sequence[str] | None = None,
    ) -> pl.DataFrame:
        """Return a table that runs logged with `log_table`, of many runs, as one frame.

        All parts are fetched, one request each and many at once; nothing is listed.

        Args:
            artifact_file: the table, as it was logged.
            run_ids: of these runs, deleted ones too; None means of all active runs.
            extra_columns: columns of `search_runs`, as `run_id`, `start_time` or `params.lr`, put
                beside the rows; where the table has such a column, the name is numbered.
            experiment_names: without `run_ids`: only of runs of these experiments.
            experiment_ids: without `run_ids`: only of runs of these experiments.

        Returns:
            The columns of all parts, null where a part lacks one; a column `step` where one was
            logged with a step; then the extra columns. Rows by run, as asked for or the newest
            first, then by step, then as they were logged.

        Raises:
            NotFoundError: there is no such run or experiment, or no run has this table.
            InvalidInputError: the types of a column do not go together, or an argument is none
                of what it may be.
            FormatError: a part is not what was logged.
            StorageError: the store cannot be read.
        """
        artifact_file = arguments.text("artifact_file", artifact_file)
        beside = arguments.texts("extra_columns", extra_columns)
        if run_ids is not None:
            run_ids = arguments.texts("run_ids", run_ids)
        if run_ids is not None and not (experiment_names is None and experiment_ids is None):
            raise InvalidInputError("load_table takes either runs or experiments, not both.")

        def answer(query: Query) -> pl.DataFrame:
            wanted = united.TableSearch(
                artifact_file=artifact_file,
                run_ids=run_ids,
                extra_columns=beside,
                experiment_ids=self._only(query, experiment_names, experiment_ids),
            )
            return united.load_table(query, self._storage.fs, wanted)

        try:
            return self._ask(answer)
        except FileNotFoundError as error:
            message = f"a part of table {artifact_file!r} was logged and is gone: {error}"
            raise NotFoundError(message, url=self._storage.url) from error

    def get_run(self, run_id: str) -> RunRecord:
        """Return a run: info, params, last metrics and tags.

        Args:
            run_id: the run.

        Raises:
            NotFoundError: there is no such run; names the nearest.
            StorageError: the store cannot be read.
        """
        record = self._ask(lambda query: entities.get_run(query, run_id))
        return dataclasses.replace(record, curves=self._sketch)

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
        given = arguments.several("experiment_ids", ids)
        if names is None:
            return None if ids is None else given
        wanted = arguments.texts("experiment_names", names)
        found = [entities.get_experiment_by_name(query, name).experiment_id for name in wanted]
        return [*found, *given]

    def _sketch(self, run_id: str, keys: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
        """Return curves of a run, thin enough for a sparkline."""
        found: dict[str, list[tuple[int, float]]] = {}
        curves = self.history(keys, runs=[run_id], max_points=card.POINTS)
        for key, step, value in curves.select("key", "step", "value").iter_rows():
            found.setdefault(key, []).append((step, value))
        return found

    def _ask(self, answer: Callable[[Query], _Answer]) -> _Answer:
        """Answer from a snapshot that is new enough; take a new one when a file is gone."""
        for _ in range(_TRIES - 1):
            query = self._fresh()
            try:
                return answer(query)
            except FileNotFoundError:
                # The snapshot's tail was replaced or compacted while it was read.
                self._replace(query)
        return answer(self._fresh())

    def _replace(self, query: Query) -> None:
        """Take a new snapshot, if no other thread has done so since."""
        with self._snapshot_lock:
            if self._query is query:
                self.refresh()

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

    def _limits(self) -> Limits:
        """Return what the queries of one snapshot may take."""
        return Limits(self.settings.query_memory_bytes, self.settings.query_threads)

    def _bring_own(self) -> bool:
        """Bring what this process logged to the store; tell whether there was anything."""
        return False

    def _check_fork(self) -> None:
        """Begin anew in a forked child: neither DuckDB nor a held lock survives a fork."""
        if self._pid != os.getpid():
            self._snapshot_lock = threading.RLock()
            self._curves = Curves()
            self._query = self._snapshot = None
            self._pid = os.getpid()

    def _forget(self) -> None:
        """Free the memory of the last snapshot."""
        self._check_fork()
        with self._snapshot_lock:
            if self._query is not None:
                self._query.close()
            self._curves.clear()
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
            self._query = Query(tables, limits=self._limits())
        self._taken_s = clock.monotonic_s()
        return self._query


def ask(lake: Questions, answer: Callable[[Query], _Answer]) -> _Answer:
    """Answer a question of the house's own, of several parts perhaps, from one snapshot.

    Args:
        lake: who is asked.
        answer: is called with the snapshot; again with another one, if a file is gone.

    Returns:
        The answer.
    """
    return lake._ask(answer)  # noqa: SLF001 - commands ask what is no part of the public face


def read_points(lake: Questions, query: Query, *, run_ids: Sequence[str], key: str) -> Points:
    """Return the points of one metric of some runs, as columns.

    Args:
        lake: whose memory of points is used.
        query: the snapshot, see `ask`.
        run_ids: the runs, each once; unknown ones have no points.
        key: the metric.

    Returns:
        The points; the curve of `run_ids[n]` is n.

    Raises:
        FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
        StorageError: a file of the snapshot cannot be read.
    """
    numbers = {run_id: number for number, run_id in enumerate(run_ids)}
    return lake._curves.read(query.tables, numbers, [key])  # noqa: SLF001 - as above
