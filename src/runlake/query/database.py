"""One in-memory DuckDB database over one snapshot, its views made as they are needed."""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy
from runlake.query.split import split
from runlake.query.views import NEEDS, VIEWS, build_sql, empty_sql, text_literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import duckdb
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.storage.tables import PointFile, SnapshotTables
else:
    duckdb = lazy("duckdb")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

_SOURCES: Final = ("facts", "summaries", "writers", "lake_events")
# Arrow tables that are split before they are folded: source, kinds that matter, key.
_PARTS: Final[dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    "fact_parts": ("facts", (schema.PARAM, schema.TAG), ("run_id", "kind", "key")),
    "summary_parts": ("summaries", (), ("run_id", "key")),
}


_KEY_SOURCES: Final = {
    "metric": ("metric_summary", "metric_rows", 's."{statistic}" AS value'),
    "param": ("params", "param_rows", "s.value, s.number"),
    "tag": ("tags", "tag_rows", "s.value"),
}


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
        self, tables: SnapshotTables, points: Sequence[PointFile], *, confined: bool = True
    ) -> None:
        """Open an empty database and hand it the snapshot's Arrow tables.

        Args:
            tables: the snapshot.
            points: the files that row-level views read.
            confined: DuckDB may open no file but these, and no network.
        """
        self.tables = tables
        self.points = points
        self._lock = threading.RLock()
        self._made: set[str] = set()
        self._columns: dict[KeyColumn, str] = {}
        # DuckDB's own choice for what does not fit into memory is the working directory.
        spill = os.path.join(tempfile.gettempdir(), f"runlake-{os.getpid()}")  # noqa: PTH118 - a text
        self._root = duckdb.connect(
            config={"python_enable_replacements": False, "temp_directory": spill}
        )
        self._root.execute("SET GLOBAL TimeZone = 'UTC'; CREATE SCHEMA inside")
        if confined:
            paths = ", ".join(text_literal(point.path) for point in points)
            self._root.execute(f"SET allowed_paths = [{paths}]; SET enable_external_access = false")
        for source in _SOURCES:
            self._root.register(f"source_{source}", getattr(tables, source))
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
            The name of each one's table; its columns are `value`, and of a param `number`.
        """
        with self._lock:
            for column in wanted:
                if column in self._columns:
                    continue
                view, rows, values = _KEY_SOURCES[column.entity]
                self.make(("run_facts", view))
                name = f"inside.key_{len(self._columns)}"
                self._root.execute(
                    f"CREATE TABLE {name} AS "
                    f"SELECT {values.format(statistic=column.statistic)} "
                    "FROM inside.run_facts AS r "
                    f"LEFT JOIN (FROM inside.{rows} WHERE key = $key) AS s "
                    "ON s.place = r.rowid "
                    "ORDER BY r.rowid",
                    {"key": column.key},
                )
                self._columns[column] = name
            return [self._columns[column] for column in wanted]

    def read(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        lean: bool = False,
    ) -> pa.Table:
        """Run one statement that only reads; what it names must have been made.

        Args:
            query: the statement.
            params: values for `?` (a sequence) or `$name` (a mapping).
            lean: the name `runs` means the view without maps, `lean_runs`.

        Returns:
            The result; times are `timestamp[us, tz=UTC]`.
        """
        cursor = self._root.cursor()
        try:
            if lean:
                cursor.execute("SET search_path = 'inside,main'")
            # A WITH may hold a DELETE; only the transaction knows for sure.
            cursor.execute("BEGIN TRANSACTION READ ONLY")
            result: pa.Table = cursor.sql(query, params=params).to_arrow_table()
            return result
        finally:
            cursor.close()

    def hand_over(self) -> duckdb.DuckDBPyConnection:
        """Make all public views, drop the rest, and return the connection."""
        self.make(VIEWS)
        for source in _SOURCES:
            self._root.unregister(f"source_{source}")
        for source, _, _ in _PARTS.values():
            self._root.unregister(f"once_{source}")
            self._root.unregister(f"again_{source}")
        return self._root

    def close(self) -> None:
        """Free the memory."""
        self._root.close()

    def abandon_in_child(self) -> None:
        """Keep the connection for ever in a forked child, also when the interpreter ends.

        To destroy it there is to wait for threads that only the parent has.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._root))

    def _build(self, name: str) -> None:
        if name in _PARTS:
            source, kinds, by = _PARTS[name]
            table = getattr(self.tables, source)
            if kinds:
                table = table.filter(pc.is_in(table["kind"], pa.array(kinds)))
            once, again = split(table, by)
            self._root.register(f"once_{source}", once)
            self._root.register(f"again_{source}", again)
            return
        statement = build_sql(name, self.points, purged=self.tables.purged)
        values = {
            "root": self.tables.root_url,
            "fresh_us": self.tables.now_us - int(self.tables.stale_s * 1e6),
        }
        used = {key: value for key, value in values.items() if f"${key}" in statement}
        self._root.execute(statement, used or None)
        if name == "point_files":
            self._root.register("source_point_files", _point_table(self.points))
            self._root.execute("INSERT INTO inside.point_files FROM source_point_files")
            self._root.unregister("source_point_files")


class NameLookup:
    """Empty tables with the views' names and columns, to ask which of them a query names."""

    def __init__(self) -> None:
        """Make the empty tables."""
        self._root = duckdb.connect(
            config={"python_enable_replacements": False, "enable_external_access": False}
        )
        self._root.execute(";".join(empty_sql(view) for view in VIEWS))
        self._lock = threading.Lock()

    def tables_in(self, query: str) -> set[str]:
        """Return the names of tables in one statement.

        Raises:
            duckdb.Error: the statement is wrong, or of a shape that DuckDB cannot look up.
        """
        with self._lock:
            return self._root.get_table_names(query)

    def statement_kinds(self, query: str) -> list[str]:
        """Return the kind of each statement of a text, as DuckDB names it.

        Raises:
            duckdb.Error: the text is no SQL.
        """
        with self._lock:
            return [statement.type.name for statement in self._root.extract_statements(query)]


def _point_table(points: Sequence[PointFile]) -> pa.Table:
    return pa.table(
        {
            "file_index": pa.array(range(len(points)), pa.uint64()),
            "writer": pa.array([point.writer for point in points], pa.string()),
            "experiment_id": pa.array([point.experiment_id for point in points], pa.string()),
            "first": pa.array([point.first for point in points], pa.int64()),
            "skip_rows": pa.array([point.skip_rows for point in points], pa.int64()),
        }
    )


_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for database in list(_databases):
        database.abandon_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
