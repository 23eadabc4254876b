"""One in-memory DuckDB database over one snapshot, its views made as they are needed."""

from __future__ import annotations

import ctypes
import os
import re
import threading
import weakref
from collections import defaultdict
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake._lazy import lazy
from runlake.query import confine
from runlake.query.confine import UNHURRIED
from runlake.query.held import COLUMNS, STEPPED
from runlake.query.homes import homes_table
from runlake.query.logged import logged_table
from runlake.query.registered_tables import SOURCES
from runlake.query.results import refuse_strange
from runlake.query.views import NEEDS, VIEWS, build_sql
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.query.confine import Limits, Watch
    from runlake.query.folded import Folded
    from runlake.query.held import Holding
    from runlake.storage.tables import PointFile, SnapshotTables
else:
    duckdb = lazy("duckdb")
    np = lazy("numpy")
    pa = lazy("pyarrow")

_SOURCE: Final = re.compile(r"\b(?:FROM|JOIN) source_(\w+)")


class KeyColumn(NamedTuple):
    """One key of all runs, to filter and order by.

    Attributes:
        entity: `metric`, `param` or `tag`.
        key: the key.
        statistic: of a metric, a column of `metric_summary`; else `last`.
    """

    entity: str
    key: str
    statistic: str


class Database:
    """Views of one snapshot; safe for threads, which each get their own cursor.

    Attributes:
        tables: the snapshot.
        points: the files that row-level views read.
    """

    def __init__(
        self,
        tables: SnapshotTables,
        folded: Folded,
        points: Sequence[PointFile],
        *,
        limits: Limits,
        confined: bool = True,
    ) -> None:
        """Open an empty database.

        Args:
            tables: the snapshot.
            folded: what it says of runs.
            points: the files that row-level views read.
            limits: what its queries may take together.
            confined: DuckDB may open no file but these, and no network.
        """
        self.tables = tables
        self.points = points
        self._folded = folded
        self._lock = threading.RLock()
        self._made: set[str] = set()
        self._columns: dict[KeyColumn, str] = {}
        self._root = duckdb.connect(config=confine.config(limits, confined=confined))
        self._root.execute("SET GLOBAL TimeZone = 'UTC'; CREATE SCHEMA inside")
        if confined:
            confine.lock(self._root, [point.path for point in points])
        _databases.add(self)

    def make(self, names: Iterable[str]) -> None:
        """Make views and tables, and before each what it needs.

        Args:
            names: keys of `NEEDS`.
        """
        for name in names:
            if name in self._made:
                continue
            with self._lock:
                if name in self._made:
                    continue
                self.make(NEEDS[name])
                self._build(name)
                self._made.add(name)

    def columns(self, wanted: Sequence[KeyColumn]) -> list[str]:
        """Make tables of one column that lie row by row beside `inside.run_facts`.

        A POSITIONAL JOIN with them costs DuckDB a quarter of what joining by run id costs,
        most of which is planning; and only keys that somebody names are ever set out so.

        Args:
            wanted: which.

        Returns:
            The name of each one's table; its columns are `value`, of a metric `step` (null for a
            mean or count), and of a param `number`.
        """
        with self._lock:
            for column in wanted:
                if column not in self._columns:
                    self.make(("run_facts",))
                    name = f"inside.key_{len(self._columns)}"
                    self._set_out(column, name)
                    self._columns[column] = name
            return [self._columns[column] for column in wanted]

    def read(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        watch: Watch = UNHURRIED,
    ) -> pa.Table:
        """Run one statement that only reads; what it names must have been made.

        Args:
            query: the statement.
            params: values for `?` (a sequence) or `$name` (a mapping).
            watch: bounds time and rows.

        Returns:
            The result; times are `timestamp[us, tz=UTC]`.

        Raises:
            LimitExceededError: it needs more time or rows than it may take.
        """
        cursor = self._root.cursor()
        try:
            # A WITH may hold a DELETE; only the transaction knows for sure.
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            with watch.over(cursor):
                relation = cursor.sql(query, params=params)
                if watch is UNHURRIED:  # ours, and short
                    own: pa.Table = relation.to_arrow_table()
                    return own
                refuse_strange(relation)
                return watch.fetch(relation, cursor)
        finally:
            cursor.close()

    def numbers(self, query: str, params: Mapping[str, Any]) -> NDArray[np.int64]:
        """Run one statement of our own, and return its only column, of whole numbers.

        Of a short answer that costs DuckDB half of what Arrow does, which plans twice.

        Args:
            query: the statement; what it names must have been made.
            params: values for `$name`.

        Returns:
            shape (n,), the column.
        """
        cursor = self._root.cursor()
        try:
            with UNHURRIED.over(cursor):
                columns: dict[str, Any] = cursor.execute(query, params or None).fetchnumpy()
        finally:
            cursor.close()
        (found,) = columns.values()
        numbers: NDArray[np.int64] = found
        return numbers

    @contextmanager
    def stream(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        watch: Watch = UNHURRIED,
        batch_rows: int,
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Run one statement that only reads, as `read` does, and give its rows as they come.

        Args:
            query: the statement.
            params: values for `?` (a sequence) or `$name` (a mapping).
            watch: bounds the time.
            batch_rows: greatest number of rows of a batch.

        Yields:
            The columns, and the batches, which must be taken before the block ends.

        Raises:
            LimitExceededError: it needs more time than it may take.
        """
        cursor = self._root.cursor()
        try:
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            with watch.over(cursor):
                relation = cursor.sql(query, params=params)
                refuse_strange(relation)
                yield confine.read_batches(relation, cursor, rows=batch_rows)
        finally:
            cursor.close()

    def hand_over(self, filesystem: Any = None) -> duckdb.DuckDBPyConnection:  # noqa: ANN401 - fsspec has no types
        """Make all public views, and return the connection.

        Args:
            filesystem: opens the files; DuckDB forgets it with the last connection.

        Returns:
            The connection, for the caller to keep.
        """
        if filesystem is not None:
            self._root.register_filesystem(filesystem)
        self.make(VIEWS)
        _handed_over.add(self._root)
        return self._root

    def close(self) -> None:
        """Free the memory."""
        self._root.close()

    def abandon_in_child(self) -> None:
        """Keep the connection for ever in a forked child, also when the interpreter ends.

        To destroy it there is to wait for threads that only the parent has.
        """
        _abandon(self._root)

    def _build(self, name: str) -> None:
        for statement in build_sql(name, self.points, purged=self.tables.purged):
            params = {"root": self.tables.root_url} if "$root" in statement else {}
            sources = {found: self._source(found) for found in _SOURCE.findall(statement)}
            self._over(sources, statement, params)

    def _over(
        self, sources: Mapping[str, pa.Table], statement: str, params: Mapping[str, Any]
    ) -> None:
        """Run a statement over Arrow tables that it names `source_*`, and let go of them."""
        for source, table in sources.items():
            self._root.register(f"source_{source}", table)
        self._root.execute(statement, params or None)
        for source in sources:
            self._root.unregister(f"source_{source}")

    def _set_out(self, column: KeyColumn, name: str) -> None:
        """Make the table of one key."""
        held, statistic = self._holding(f"{column.entity}s"), column.statistic
        if column.entity == "metric":
            step = [f"{statistic}_step"] if statistic in STEPPED else []
            rows = held.column(column.key, [statistic, *step])
            rows = rows.rename_columns(["value", *("step" for _ in step)])
            if not step:
                rows = rows.append_column("step", pa.nulls(len(rows), pa.int64()))
        else:
            rows = held.column(column.key, COLUMNS[f"{column.entity}s"])
        self._over({"key": rows}, f"CREATE TABLE {name} AS FROM source_key", {})

    def _holding(self, name: str) -> Holding:
        holding: Holding = getattr(self._folded, name)
        return holding

    def _source(self, name: str) -> pa.Table:
        """Return what a fold's statement calls `source_<name>`."""
        if name in SOURCES:
            return SOURCES[name](self._folded.registered)
        known: dict[str, Callable[[], pa.Table]] = {
            "experiments": lambda: homes_table(self._folded.homes),
            "run_facts": lambda: self._folded.run_facts,
            "maps": self._maps,
            "lake_events": lambda: self.tables.lake_events,
            "logged_models": lambda: logged_table(self._folded.logged),
            "point_files": lambda: _point_table(self.points),
        }
        if name in known:
            return known[name]()
        return self._holding(name).whole.table(COLUMNS[name])

    def _maps(self) -> pa.Table:
        """Return what runs hold, one map a run of each kind."""
        columns = {"params": "value", "metrics": "last", "tags": "value"}
        return pa.table({held: self._holding(held).whole.maps(of) for held, of in columns.items()})


def _point_table(points: Sequence[PointFile]) -> pa.Table:
    places: dict[str, count[int]] = defaultdict(count)
    return pa.table(
        {
            "table_name": arrays.strings([point.table for point in points]),
            "file_index": arrays.numbers(
                np.array([next(places[point.table]) for point in points], np.int64)
            ),
            "writer": arrays.strings([point.writer for point in points]),
            "experiment_id": arrays.strings([point.experiment_id for point in points]),
            "first": arrays.numbers(np.array([point.first for point in points], np.int64)),
            "skip_rows": arrays.numbers(np.array([point.skip_rows for point in points], np.int64)),
        }
    )


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_handed_over: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()


def _abandon(connection: duckdb.DuckDBPyConnection) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _after_fork_in_child() -> None:
    for database in list(_databases):
        database.abandon_in_child()
    for connection in list(_handed_over):
        _abandon(connection)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
