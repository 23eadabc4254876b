"""DuckDB over one snapshot: SQL in, Arrow out.

A `Query` belongs to one `SnapshotTables` and never changes what it answers. Views are made at
their first use and kept, so that a question about runs opens no point file, and one about
points folds no state. Threads may share a `Query`: making a view holds a lock, and each call
runs on its own cursor, which is what DuckDB asks of threads that share a database.

What `sql` runs can only read: no other statement, no file but the snapshot's own, no network,
no setting, and no variable of the calling program.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runlake._lazy import lazy
from runlake.errors import InvalidInputError, StorageError
from runlake.query.database import Database, NameLookup
from runlake.query.views import NEEDS, ROW_VIEWS, VIEWS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import duckdb
    import pyarrow as pa

    from runlake.query.database import KeyColumn
    from runlake.storage.tables import PointFile, SnapshotTables
else:
    duckdb = lazy("duckdb")

_Kept = TypeVar("_Kept")
_PLACEHOLDER = re.compile(r"\$\w+|\?")
_CATALOG = re.compile(r"\b(show|information_schema|duckdb_\w+|pragma_\w+)\b", re.IGNORECASE)
_EXPLAIN = re.compile(r"\s*explain\s+(analyze\s+)?", re.IGNORECASE)
_READING: Final = "SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN"


class Query:
    """Answers from one snapshot.

    Attributes:
        tables: the snapshot that every answer comes from.
    """

    def __init__(self, tables: SnapshotTables) -> None:
        """Keep the snapshot; nothing is opened before the first question."""
        self.tables = tables
        self._lock = threading.Lock()
        self._points: tuple[PointFile, ...] | None = None
        # The files that a database may open are fixed when it opens, and of a far lake they
        # are fetched only for row-level views: so those have a database of their own.
        self._databases: dict[bool, Database] = {}
        self._kept: dict[str, Any] = {}

    def sql(self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> pa.Table:
        """Run one reading statement over the public views.

        Args:
            query: DuckDB's SQL; the views are `runlake.query.views.VIEWS`.
            params: values for `?` (a sequence) or `$name` (a mapping).

        Returns:
            The result; times are `timestamp[us, tz=UTC]`.

        Raises:
            InvalidInputError: DuckDB refuses the query, or it would do more than read.
            FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
            StorageError: a file of the snapshot cannot be read.
        """
        with self._explained():
            needs = _names_in(query)
        return self.read(query, params, needs=needs)

    def read(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        needs: Iterable[str],
        lean: bool = False,
    ) -> pa.Table:
        """Run a statement of our own: as `sql`, where the caller knows which tables it names.

        Args:
            query: a statement that only reads.
            params: as in `sql`.
            needs: the keys of `runlake.query.views.NEEDS` that it names.
            lean: the view `runs` has no maps here, and so costs little; needs `lean_runs`.

        Returns:
            The result, as `sql` gives it.

        Raises:
            FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
            StorageError: a file of the snapshot cannot be read.
        """
        needs = frozenset(needs)
        database = self._database(with_rows=not ROW_VIEWS.isdisjoint(needs))
        with self._explained():
            database.make(needs)
            return database.read(query, params, lean=lean)

    def columns(self, wanted: Sequence[KeyColumn]) -> list[str]:
        """Set keys out beside the runs: see `Database.columns`."""
        database = self._database(with_rows=False)
        with self._explained():
            return database.columns(wanted)

    def once(self, name: str, make: Callable[[], _Kept]) -> _Kept:
        """Return what `make` returned the first time; a snapshot's answers never change.

        Args:
            name: says what it is.
            make: makes it; two threads may both make it.
        """
        if name not in self._kept:
            self._kept[name] = make()
        kept: _Kept = self._kept[name]
        return kept

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection of the caller's own, with all views made.

        It holds its own copy of the folded tables, may do all that DuckDB can, and lives as
        long as the caller keeps it. A thread that shares it takes a `cursor()` of it first.

        Raises:
            FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
        """
        points = self.point_files()
        with self._explained():
            return Database(self.tables, points, confined=False).hand_over()

    def point_files(self) -> tuple[PointFile, ...]:
        """Return the files with the snapshot's rows; of a far lake they are fetched once."""
        with self._lock:
            if self._points is None:
                self._points = self.tables.point_files()
            return self._points

    def close(self) -> None:
        """Free the memory; the next question takes it again."""
        with self._lock:
            for database in self._databases.values():
                database.close()
            self._databases.clear()
            self._kept.clear()

    def _database(self, *, with_rows: bool) -> Database:
        points = self.point_files() if with_rows else ()
        with self._lock:
            if with_rows not in self._databases:
                self._databases[with_rows] = Database(self.tables, points)
            return self._databases[with_rows]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn DuckDB's errors into ours."""
        try:
            yield
        except duckdb.InterruptException:
            raise
        except duckdb.Error as error:
            # DuckDB takes the name of a missing file for a pattern, and then may not look.
            for point in self._points or ():
                if not os.path.exists(point.path):  # noqa: PTH110 - thousands of files, no objects
                    message = f"{point.path} of this snapshot is gone; take a new snapshot."
                    raise FileNotFoundError(message) from error
            if isinstance(error, duckdb.IOException):
                message = f"DuckDB cannot read a file of this snapshot: {error}"
                raise StorageError(message, url=self.tables.root_url) from error
            message = f"DuckDB refuses the query: {error}"
            if isinstance(error, (duckdb.BinderException, duckdb.CatalogException)):
                message += f"\nThe views are {', '.join(VIEWS)}; DESCRIBE <view> shows columns."
            raise InvalidInputError(message) from error


@functools.cache
def _lookup() -> NameLookup:
    return NameLookup()


@functools.lru_cache(maxsize=512)
def _names_in(query: str) -> frozenset[str]:
    """Find which views a query names, through DuckDB's own parser where it can tell.

    Raises:
        InvalidInputError: it is not one statement that only reads.
        duckdb.Error: it is no SQL.
    """
    kinds = _lookup().statement_kinds(query)
    if kinds == ["EXPLAIN"]:
        return _names_in(_EXPLAIN.sub("", query, count=1)) if _EXPLAIN.match(query) else frozenset()
    if kinds != ["SELECT"]:
        what = kinds[0] if len(kinds) == 1 else f"{len(kinds)} statements"
        message = (
            f"sql() runs one statement that reads: {_READING}; this is {what}. "
            "lake.connect() gives a DuckDB connection of your own, which may do anything."
        )
        raise InvalidInputError(message)
    try:
        found = _lookup().tables_in(_PLACEHOLDER.sub("NULL", query))
    except duckdb.Error:
        # Either the query is wrong, which running it explains best, or of a shape that the
        # look-up cannot read: then every word may be a view.
        found = set(re.findall(r"\w+", query))
    names = {name.lower() for name in found} & NEEDS.keys()
    if _CATALOG.search(query):
        names |= VIEWS.keys()
    return frozenset(names)
