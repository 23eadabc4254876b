"""DuckDB over one snapshot: SQL in, Arrow out.

A `Query` belongs to one `SnapshotTables` and never changes what it answers. Views are made at
their first use and kept, so that a question about runs opens no point file, and one about
points folds no state. Threads may share a `Query`: making a view holds a lock, and each call
runs on its own cursor, which is what DuckDB asks of threads that share a database.

What `sql` runs can only read: no other statement, no file but the snapshot's own, no network,
no setting, and no variable of the calling program.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

from runlake._lazy import ahead, lazy, need
from runlake.errors import InvalidInputError, StorageError
from runlake.query.confine import BATCH_ROWS, UNHURRIED, Limits, Watch, out_of_memory
from runlake.query.database import Database
from runlake.query.folded import Folded
from runlake.query.statement import read_statement
from runlake.query.views import ROW_TABLES, VIEWS
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import duckdb
    import pyarrow as pa

    from runlake.query.database import KeyColumn
    from runlake.storage.latefs import LateFiles
    from runlake.storage.tables import PointFile, SnapshotTables
else:
    duckdb = lazy("duckdb")
    pa = lazy("pyarrow")

_Kept = TypeVar("_Kept")


class Query:
    """Answers from one snapshot.

    Attributes:
        tables: the snapshot that every answer comes from.
        folded: what it says of runs.
    """

    def __init__(self, tables: SnapshotTables, *, limits: Limits | None = None) -> None:
        """Keep the snapshot; nothing is opened before the first question.

        Args:
            tables: the snapshot.
            limits: what its queries may take together.
        """
        self.tables = tables
        self.folded = Folded(tables)
        self._limits = limits or Limits()
        self._lock = threading.Lock()
        self._files: dict[str, tuple[PointFile, ...]] = {}
        # The files that a database may open are fixed when it opens, and of a far lake they
        # are fetched only for row-level views: so those have a database of their own.
        self._databases: dict[frozenset[str], Database] = {}
        self._kept: dict[str, Any] = {}

    def sql(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        watch: Watch = UNHURRIED,
    ) -> pa.Table:
        """Run one reading statement over the public views.

        Args:
            query: DuckDB's SQL; the views are `runlake.query.views.VIEWS`.
            params: values for `?` (a sequence) or `$name` (a mapping).
            watch: bounds time and rows.

        Returns:
            The result; times are `timestamp[us, tz=UTC]`.

        Raises:
            InvalidInputError: DuckDB refuses the query, or it would do more than read.
            LimitExceededError: it needs more time, memory or rows than it may take.
            FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
            StorageError: a file of the snapshot cannot be read.
        """
        with self._explained():
            statement = read_statement(query, watch)
            values = statement.bind(params)
        return self.read(statement.text, values, needs=statement.views, watch=watch)

    def read(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        needs: Iterable[str],
        watch: Watch = UNHURRIED,
    ) -> pa.Table:
        """Run a statement of our own: as `sql`, where the caller knows which tables it names.

        Args:
            query: a statement that only reads.
            params: as in `sql`.
            needs: the keys of `runlake.query.views.NEEDS` that it names.
            watch: bounds time and rows.

        Returns:
            The result, as `sql` gives it.

        Raises:
            LimitExceededError: it needs more time, memory or rows than it may take.
            FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
            StorageError: a file of the snapshot cannot be read.
        """
        needs = frozenset(needs)
        database = self._database(needs)
        with self._explained():
            database.make(needs)
            return database.read(query, params, watch=watch)

    def numbers(
        self, query: str, params: Mapping[str, Any], *, needs: Iterable[str]
    ) -> pa.ChunkedArray[Any]:
        """Run a statement of our own as `read` does, and return its only column.

        Args:
            query: a statement that only reads, and gives one column of whole numbers.
            params: values for `$name`.
            needs: the keys of `runlake.query.views.NEEDS` that it names.

        Returns:
            The column, as int64.

        Raises:
            LimitExceededError: it needs more memory than it may take.
        """
        needs = frozenset(needs)
        database = self._database(needs)
        with self._explained():
            database.make(needs)
            return pa.chunked_array([arrays.numbers(database.numbers(query, params))])

    @contextmanager
    def stream(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        watch: Watch = UNHURRIED,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
        """Run one reading statement as `sql` does, and give its rows as they come.

        Args:
            query: as in `sql`.
            params: as in `sql`.
            watch: bounds the time; rows are not counted.
            batch_rows: greatest number of rows of a batch.

        Yields:
            The columns, and the batches, which must be taken before the block ends.

        Raises:
            InvalidInputError: DuckDB refuses the query, or it would do more than read.
            LimitExceededError: it needs more time or memory than it may take.
            FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
            StorageError: a file of the snapshot cannot be read.
        """
        with self._explained():
            statement = read_statement(query, watch)
            values = statement.bind(params)
            database = self._database(statement.views)
            database.make(statement.views)
            with database.stream(
                statement.text, values, watch=watch, batch_rows=batch_rows
            ) as answer:
                yield answer

    def columns(self, wanted: Sequence[KeyColumn]) -> list[str]:
        """Set keys out beside the runs: see `Database.columns`."""
        database = self._database(())
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

    def connect(self, late: LateFiles | None = None) -> duckdb.DuckDBPyConnection:
        """Return a DuckDB connection of the caller's own, with all views made.

        It holds its own copy of the folded tables, may do all that DuckDB can, and lives as
        long as the caller keeps it. A thread that shares it takes a `cursor()` of it first.

        Args:
            late: the files with the rows, and what they stay for; None takes them as they are.

        Raises:
            FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
        """
        points = self._row_files(ROW_TABLES.values()) if late is None else late.points
        with self._explained():
            database = Database(
                self.tables, self.folded, points, limits=self._limits, confined=False
            )
            return database.hand_over(None if late is None else late.filesystem)

    def _row_files(self, wanted: Iterable[str]) -> tuple[PointFile, ...]:
        """Return the files with some of the snapshot's rows; of a far lake fetched once."""
        found: dict[PointFile, None] = {}
        with self._lock:
            for table in sorted(set(wanted)):
                if table not in self._files:
                    self._files[table] = self.tables.row_files(table)
                found |= dict.fromkeys(self._files[table])
        return tuple(found)

    def begin(self) -> None:
        """Fold the runs, and load meanwhile what answers take: as long as half of the folding."""
        need("pyarrow.compute")  # which folding takes, and which would wait for the others
        ahead("duckdb", "polars")
        self.folded.runs  # noqa: B018 - folded once, when it is first asked for

    def close(self) -> None:
        """Free the memory; the next question takes it again."""
        with self._lock:
            for database in self._databases.values():
                database.close()
            self._databases.clear()
            self._kept.clear()

    def _database(self, views: Iterable[str]) -> Database:
        """Return a database that may open the files that some views read."""
        wanted = frozenset(ROW_TABLES[view] for view in views if view in ROW_TABLES)
        points = self._row_files(wanted)
        with self._lock:
            if wanted not in self._databases:
                self._databases[wanted] = Database(
                    self.tables, self.folded, points, limits=self._limits
                )
            return self._databases[wanted]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn DuckDB's errors into ours."""
        try:
            yield
        except duckdb.InterruptException:
            raise
        except duckdb.Error as error:
            # DuckDB takes the name of a missing file for a pattern, and then may not look.
            for point in chain.from_iterable(self._files.values()):
                if not os.path.exists(point.path):  # noqa: PTH110 - thousands of files, no objects
                    message = f"{point.path} of this snapshot is gone; take a new snapshot."
                    raise FileNotFoundError(message) from error
            if isinstance(error, duckdb.OutOfMemoryException):
                raise out_of_memory(self._limits, error) from error
            if isinstance(error, duckdb.IOException):
                message = f"DuckDB cannot read a file of this snapshot: {error}"
                raise StorageError(message, url=self.tables.root_url) from error
            message = f"DuckDB refuses the query: {error}"
            if isinstance(error, (duckdb.BinderException, duckdb.CatalogException)):
                message += f"\nThe views are {', '.join(VIEWS)}; DESCRIBE <view> shows columns."
            raise InvalidInputError(message) from error
