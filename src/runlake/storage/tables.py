"""What a snapshot hands to queries: Arrow tables of facts, and the files with the rows.

Nothing here is folded. A fact may occur many times (every footer of a writer repeats what
stands), and facts of several writers lie side by side; folding them into current state is
`runlake.query`'s work. The four schemas below are the contract between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.index import PointIndex
from runlake.storage.states import StateRows

if TYPE_CHECKING:
    from collections.abc import Collection

    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")


# Columns of facts and summaries that come as numbered texts (`dictionary<int32, string>`).
NUMBERED: Final = frozenset({"writer", "experiment_id", "run_id", "kind", "key"})


@dataclass(frozen=True, slots=True)
class PointFile:
    """One local Parquet file with rows (of a far lake: a cached copy).

    Attributes:
        path: the local file, absolute.
        writer: of a segment, the writer of all its rows.
        experiment_id: the partition that it lies in.
        first: of a segment, sequence number of its first row; row k has `first + k`.
        skip_rows: of a segment, rows at its beginning that a manifest already holds.
        table: "" for a segment; for a compacted file `metrics` or `events`, whose columns it
            has (`runlake.storage.table_files`).
        runs: of a compacted file, the least and the greatest run in it.
    """

    path: str
    writer: str
    experiment_id: str
    first: int
    skip_rows: int
    table: str = ""
    runs: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True, eq=False)
class PointRows:
    """Where the points of some runs and keys are; files and rows share no point.

    Attributes:
        files: to be scanned; segments by writer and sequence number. They may hold other rows
            too: filter by `run_id`, `key` and in segments `kind`, and pass over `skip_rows`.
        rows: points that were read already, as `point_rows_schema()`, of these runs and keys
            only; None where every point is in a file.
    """

    files: tuple[PointFile, ...]
    rows: pa.Table | None = None


class Points(Protocol):
    """Finds the rows of a snapshot when they are asked for."""

    def __call__(self, table: str) -> tuple[PointFile, ...]:
        """Return the files of one compacted table, then all live segments.

        Each writer's segments come in the order of their sequence numbers.
        """

    def select(
        self,
        summaries: StateRows,
        run_ids: Collection[str] | None,
        keys: Collection[str] | None,
    ) -> PointRows:
        """Return where the points of some runs and keys are.

        Args:
            summaries: of the snapshot.
            run_ids: the runs wanted; None means all.
            keys: the metrics wanted; None means all.

        Returns:
            Files that may hold such points, and points that were read already.
        """

    def events(self, writers: Collection[str], run_ids: Collection[str]) -> tuple[PointFile, ...]:
        """Return the files that may hold what some writers say of some runs, but for points.

        Args:
            writers: of the rows wanted.
            run_ids: the runs that these are about.
        """


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a snapshot had to leave out.

    Attributes:
        key: the object, or the prefix where one is missing.
        reason: a sentence for people.
    """

    key: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotTables:
    """Everything that one snapshot knows; every answer of a query comes from one of these.

    Attributes:
        facts: what stands about runs, as `facts_schema()`: all kinds but metric and artifact.
        summaries: each metric's state per writer, as `summaries_schema()`.
        writers: the writers seen, as `writers_schema()`.
        lake_events: the rows of the reserved partition, as `lake_events_schema()`.
        points: all files with rows, each writer's segments in the order of their sequence
            numbers; or what gives them, because only row-level views need them (`row_files`).
        now_us: the store's clock when the snapshot was taken, microseconds since 1970.
        stale_s: seconds without an object after which an open run is stale.
        root_url: the lake, without credentials and without a slash at its end.
        problems: what could not be read and is left out.
        purged: runs whose rows may still lie in files and must not show.
    """

    facts: StateRows
    summaries: StateRows
    writers: pa.Table
    lake_events: pa.Table
    points: tuple[PointFile, ...] | Points
    now_us: int
    stale_s: float
    root_url: str
    problems: tuple[Problem, ...] = ()
    purged: tuple[str, ...] = ()

    def row_files(self, table: str) -> tuple[PointFile, ...]:
        """Return the files with the rows of one kind; of a far lake they are fetched.

        Args:
            table: `metrics` for points, `events` for all other rows.

        Returns:
            The files of this compacted table, and the live segments, which hold rows of both.
        """
        if callable(self.points):
            return self.points(table)
        return tuple(file for file in self.points if file.table in {"", table})

    def event_files(
        self, writers: Collection[str], run_ids: Collection[str]
    ) -> tuple[PointFile, ...]:
        """Return the files that may hold what some writers say of some runs, but for points.

        Args:
            writers: of the rows wanted, as facts name them.
            run_ids: the runs that these are about.

        Returns:
            Segments of these writers, and files of table `events`; they hold other rows too.

        Raises:
            SnapshotExpiredError: an object is gone; take another snapshot.
            StorageError: the store cannot be read, or the cache cannot be written.
        """
        if callable(self.points):
            return self.points.events(writers, run_ids)
        return tuple(
            file
            for file in self.row_files("events")
            if (any(file.runs[0] <= each <= file.runs[1] for each in run_ids))
            or (not file.table and file.writer in writers)
        )

    def select_points(
        self, run_ids: Collection[str] | None, keys: Collection[str] | None
    ) -> PointRows:
        """Return where the points of some runs and keys are, and leave all other files alone.

        Args:
            run_ids: the runs wanted; None means all.
            keys: the metrics wanted; None means all.

        Returns:
            Files that may hold such points, and of a far lake those that were read by range.

        Raises:
            SnapshotExpiredError: an object is gone; take another snapshot.
            StorageError: the store cannot be read, or the cache cannot be written.
        """
        if callable(self.points):
            found = self.points.select(self.summaries, run_ids, keys)
            if found.rows is None or not self.purged:
                return found
            hidden = pc.is_in(found.rows["run_id"], value_set=arrays.strings(self.purged))
            return PointRows(found.files, found.rows.filter(pc.invert(hidden)))
        index = PointIndex(self.summaries)
        writers = index.writers(index.rows(run_ids, keys))
        return PointRows(
            tuple(
                file for file in self.row_files("metrics") if file.table or file.writer in writers
            )
        )


def facts_schema() -> pa.Schema:
    """Return the columns of `SnapshotTables.facts`.

    Returns:
        `writer`, `experiment_id`, `run_id`, `kind`, `key`: numbered texts; `clock`:
        microseconds since 1970; `seq`: sequence number in the writer; `num`: float64 or null;
        `str`: text or null. One row may occur many times; (writer, seq) tells facts apart.
    """
    columns: list[tuple[str, pa.DataType]] = [
        ("writer", pa.string()),
        ("experiment_id", pa.string()),
        ("run_id", pa.string()),
        ("kind", pa.string()),
        ("key", pa.string()),
        ("clock", pa.int64()),
        ("seq", pa.int64()),
        ("num", pa.float64()),
        ("str", pa.string()),
    ]
    return _numbered(columns)


def summaries_schema() -> pa.Schema:
    """Return the columns of `SnapshotTables.summaries`.

    Returns:
        `writer`, `experiment_id`, `run_id`, `key`: numbered texts; `n`: points so far, NaN
        included; `sum`: of the points that are not NaN; `nan_count`; then value, step and time
        (microseconds since 1970) of the `last`, `first`, `min` and `max` point. States of one
        writer are cumulative: of several rows for (run, key, writer) the largest `n` holds.
    """
    columns: list[tuple[str, pa.DataType]] = [
        ("writer", pa.string()),
        ("experiment_id", pa.string()),
        ("run_id", pa.string()),
        ("key", pa.string()),
        ("n", pa.int64()),
        ("sum", pa.float64()),
        ("nan_count", pa.int64()),
    ]
    for point in ("last", "first", "min", "max"):
        columns += [
            (point, pa.float64()),
            (f"{point}_step", pa.int64()),
            (f"{point}_time", pa.int64()),
        ]
    return _numbered(columns)


def _numbered(columns: list[tuple[str, pa.DataType]]) -> pa.Schema:
    coded = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([(name, coded if name in NUMBERED else kind) for name, kind in columns])


def writers_schema() -> pa.Schema:
    """Return the columns of `SnapshotTables.writers`.

    Returns:
        `writer`, `experiment_id`, `experiment_name`: text; `last`: greatest sequence number;
        `object_time_us`: store time of the newest object, microseconds since 1970; `host`;
        `pid`.
    """
    columns: list[tuple[str, pa.DataType]] = [
        ("writer", pa.string()),
        ("experiment_id", pa.string()),
        ("experiment_name", pa.string()),
        ("last", pa.int64()),
        ("object_time_us", pa.int64()),
        ("host", pa.string()),
        ("pid", pa.int64()),
    ]
    return pa.schema(columns)


def lake_events_schema() -> pa.Schema:
    """Return the columns of `SnapshotTables.lake_events`.

    Returns:
        `run_id`: the experiment's id; `kind`, `key`: text; `clock`: microseconds since 1970;
        `num`, `str`: the value; `writer`, `seq`: where the row comes from.
    """
    columns: list[tuple[str, pa.DataType]] = [
        ("run_id", pa.string()),
        ("kind", pa.string()),
        ("key", pa.string()),
        ("clock", pa.int64()),
        ("num", pa.float64()),
        ("str", pa.string()),
        ("writer", pa.string()),
        ("seq", pa.int64()),
    ]
    return pa.schema(columns)


def point_rows_schema() -> pa.Schema:
    """Return the columns of `PointRows.rows`.

    Returns:
        `run_id`, `experiment_id`, `key`, `writer`: numbered texts; `step`; `timestamp`:
        `timestamp[us, tz=UTC]`; `value`: float64.
    """
    columns: list[tuple[str, pa.DataType]] = [
        ("run_id", pa.string()),
        ("experiment_id", pa.string()),
        ("key", pa.string()),
        ("step", pa.int64()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("value", pa.float64()),
        ("writer", pa.string()),
    ]
    return _numbered(columns)


def empty_tables(*, root_url: str, now_us: int, stale_s: float) -> SnapshotTables:
    """Return what a lake knows in which nothing was ever logged.

    Args:
        root_url: the lake.
        now_us: the time to answer with, microseconds since 1970.
        stale_s: as in `SnapshotTables`.
    """
    return SnapshotTables(
        facts=StateRows(facts_schema().empty_table()),
        summaries=StateRows(summaries_schema().empty_table()),
        writers=writers_schema().empty_table(),
        lake_events=lake_events_schema().empty_table(),
        points=(),
        now_us=now_us,
        stale_s=stale_s,
        root_url=root_url,
    )
