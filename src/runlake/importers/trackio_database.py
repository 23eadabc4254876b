"""A database of Trackio, read without a trace.

It is never written to, not even by SQLite itself: without a log beside it, it is opened as
immutable; with one (a run is logging, or was killed) database and log are copied aside and the
copy is read.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake.importers.source import Note, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MADE: Final = """
    SELECT a.name, v.version, a.type, a.description, v.metadata, v.manifest, v.manifest_digest,
        (SELECT json_group_array(alias) FROM artifact_aliases WHERE artifact_version_id = v.id)
    FROM artifact_versions v JOIN artifacts a ON a.id = v.artifact_id
    WHERE v.producer_run_id = ? ORDER BY v.id
"""
"""What a run made."""
USED: Final = """
    SELECT a.name, v.version, a.type, a.description, v.metadata, v.manifest, v.manifest_digest,
        (SELECT json_group_array(alias) FROM artifact_aliases WHERE artifact_version_id = v.id)
    FROM run_artifact_links l
    JOIN artifact_versions v ON v.id = l.artifact_version_id
    JOIN artifacts a ON a.id = v.artifact_id
    WHERE l.run_id = ? AND l.direction = 'input' ORDER BY l.id
"""
"""What a run read."""
_UNMADE: Final = "SELECT count(*) FROM artifact_versions WHERE producer_run_id IS NULL"
_NO_MAKER: Final = "versions of artifacts that no run made are left out"
_ROWS_AT_ONCE: Final = 1000
_COPIES: Final = 5
_COUNTED: Final = {
    "traces": "traces of language models are left out",
    "pending_uploads": "uploads that wait for a Space are left out",
}
_SHARED: Final = "files of the project that belong to no run are left out"


class DatabaseRun(NamedTuple):
    """One run: by id, or by name in a database from before there were ids."""

    run_id: str
    name: str
    column: str


class Database:
    """One database, read without a trace.

    Attributes:
        file: the database.
        media: the folder of all projects' media.
        tables: the names of its tables.
    """

    def __init__(self, file: Path) -> None:
        """Open a database, or a copy of it where it has a log; close it.

        Raises:
            SourceError: it is damaged, or changes too fast.
        """
        self.file = file
        self.media = file.parent / "media"
        self._folder: Path | None = None
        self._connection: sqlite3.Connection | None = None
        beside = [file.with_name(file.name + ending) for ending in ("-wal", "-journal")]
        logs = [log for log in beside if stamp(log)[0]]
        try:
            read, how = file, "mode=ro&immutable=1"
            if logs:
                # SQLite puts a log into the database that it opens: here into the copy.
                read, how = self._copied(logs), "mode=rw"
            self._connection = sqlite3.connect(f"{read.absolute().as_uri()}?{how}", uri=True)
            tables = self.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
            self.tables = {name for (name,) in tables}
            self._columns = {
                table: {row[1] for row in self.rows(f"PRAGMA table_info({table})")}
                for table in self.tables & {"metrics", "configs", "system_metrics", "alerts"}
            }
        except (OSError, SourceError):
            self.close()
            raise

    def _copied(self, logs: Sequence[Path]) -> Path:
        """Return a copy of a database and its logs that were the same before and after."""
        self._folder = Path(tempfile.mkdtemp(prefix="runlake-trackio-"))
        files = (self.file, *logs)
        for _ in range(_COPIES):
            before = [stamp(file) for file in files]
            for file in files:
                with suppress(FileNotFoundError):
                    shutil.copy2(file, self._folder / file.name)
            if before == [stamp(file) for file in files]:
                return self._folder / self.file.name
        message = f"{self.file} changes faster than it can be copied; import it when no run logs."
        raise SourceError(message)

    def close(self) -> None:
        """Close the database and delete the copy of it."""
        if self._connection is not None:
            self._connection.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def rows(self, query: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query, some at a time.

        Raises:
            SourceError: the database is damaged.
        """
        if self._connection is None:
            return
        try:
            cursor = self._connection.execute(query, values)
            while found := cursor.fetchmany(_ROWS_AT_ONCE):
                yield from found
        except sqlite3.DatabaseError as error:
            raise SourceError(f"{self.file} cannot be read as a database: {error}.") from error

    def runs(self) -> Iterator[DatabaseRun]:
        """Yield the runs, by their first row."""
        column = "run_id" if "run_id" in self._columns["metrics"] else "run_name"
        parts = [
            f"SELECT {column} AS run, run_name, {moment} AS moment FROM {table}"  # noqa: S608 - names of ours
            for table, moment in (
                ("metrics", "timestamp"),
                ("configs", "created_at"),
                ("system_metrics", "timestamp"),
            )
            if column in self._columns.get(table, ())
        ]
        query = (
            "SELECT run, max(run_name) FROM (" + " UNION ALL ".join(parts) + ") "  # noqa: S608 - names of ours
            "WHERE run IS NOT NULL GROUP BY run ORDER BY min(moment), run"
        )
        for run_id, name in list(self.rows(query)):
            yield DatabaseRun(str(run_id), str(name), column)

    def of_run(self, table: str, columns: str, run: DatabaseRun) -> Iterator[tuple[Any, ...]]:
        """Yield some columns of a run's rows, in the order in which they were logged.

        Args:
            table: its name; one that is not there has no rows.
            columns: as SQL.
            run: whose rows.

        Raises:
            SourceError: the database is damaged.
        """
        if run.column not in self._columns.get(table, ()):
            return
        query = f"SELECT {columns} FROM {table} WHERE {run.column} = ? ORDER BY id"  # noqa: S608 - names of ours
        yield from self.rows(query, (run.run_id,))

    def versions(self, query: str, run: DatabaseRun) -> list[ArtifactVersion]:
        """Return versions of artifacts that a run made or read."""
        if "artifact_versions" not in self.tables:
            return []
        return [ArtifactVersion(*row) for row in self.rows(query, (run.run_id,))]

    def blob(self, digest: str) -> Path:
        """Return where a file of an artifact lies."""
        blobs = self.file.parent / "artifacts" / self.file.stem / "blobs" / "sha256"
        return blobs / digest[:2] / digest

    def notes(self) -> Iterator[Note]:
        """Yield what belongs to the project alone."""
        if "artifact_versions" in self.tables:
            count = next(self.rows(_UNMADE))[0]
            if count:
                yield Note(_NO_MAKER, self.file.stem, count)
        for table, what in _COUNTED.items():
            if table in self.tables:
                count = next(self.rows(f"SELECT count(*) FROM {table}"))[0]  # noqa: S608 - as above
                if count:
                    yield Note(what, self.file.stem, count)
        shared = self.media / self.file.stem / "files"
        count = sum(path.is_file() for path in shared.rglob("*"))
        if count:
            yield Note(_SHARED, self.file.stem, count)


def stamp(file: Path) -> tuple[int, int]:
    """Return a file's size and time of change, zeros without one."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


class ArtifactVersion(NamedTuple):
    """One version of an artifact."""

    name: str
    version: int
    type: str
    description: str | None
    metadata: str | None
    manifest: str
    digest: str
    aliases: str
