"""The files with the rows of a snapshot, for a DuckDB connection of the user's own.

Its views name all files when they are made, and stay valid for the life of the connection, its
cursors and relations. Most connections are asked about runs only, so of a far lake nothing is
fetched before a row-level view is read: DuckDB then opens these files through a filesystem of
ours, which brings them all at once, and reads them as local files. The same filesystem tells
when the connection has ended, because DuckDB forgets it only then.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from runlake._lazy import lazy
from runlake.storage import segments
from runlake.storage.table_files import TABLES, arrow_schema
from runlake.storage.tables import PointFile

if TYPE_CHECKING:
    import fsspec
    import pyarrow.parquet as pq

    from runlake.storage.pinfs import PinnedFilesystem
    from runlake.storage.points import PointFiles
    from runlake.storage.rowobject import RowObject
else:
    fsspec = lazy("fsspec")
    pq = lazy("pyarrow.parquet")

_SCHEME: Final = "runlake"
_EMPTY: Final = "empty.parquet"


@dataclass(frozen=True, slots=True)
class LateFiles:
    """Files for one connection.

    Attributes:
        points: the files, as local paths or as names that `filesystem` opens.
        filesystem: fsspec's kind of filesystem, to be registered with the connection; the
            objects of the snapshot stay as long as somebody holds it.
    """

    points: tuple[PointFile, ...]
    filesystem: Any


def late_files(pinned: PinnedFilesystem, rows: PointFiles) -> LateFiles:
    """Name the files with the rows of a snapshot.

    Args:
        pinned: the lake's storage, in which the snapshot's objects stay.
        rows: the rows, over this storage.

    Returns:
        The files. Of a far lake those that are not kept are fetched when one is first opened.

    Raises:
        FileNotFoundError: an object is gone.
        OSError: the folder of what is kept cannot be written.
    """
    late = _Late(pinned, rows)
    filesystem = _filesystem_class()(late, skip_instance_cache=True)
    if pinned.is_local:
        return LateFiles(rows.files(rows.objects), filesystem)
    points = []
    for number, of in enumerate(rows.objects):
        kept = pinned.kept(of.key)
        points.append(of.file_at(f"{_SCHEME}://{number}.parquet" if kept is None else kept))
    # To learn the columns of a view, DuckDB opens the first file when the view is made.
    late_tables = {point.table for point in points if point.path.startswith(_SCHEME)}
    for table in sorted(late_tables):
        columns = arrow_schema(TABLES[table]) if table else segments.segment_schema()
        pinned.folder.mkdir(parents=True, exist_ok=True)
        empty = pinned.folder / f"{table}{_EMPTY}"
        pq.write_table(columns.empty_table(), empty, store_schema=False)
        points.insert(0, PointFile(str(empty), "", "", 0, 0, table))
    return LateFiles(tuple(points), filesystem)


@final
class _Late:
    """Fetches the rows of a snapshot, table by table, when a file of it is first opened."""

    def __init__(self, pinned: PinnedFilesystem, rows: PointFiles) -> None:
        self._pinned = pinned
        self._rows = rows
        self._lock = threading.Lock()
        self._tables_there: set[str] = set()

    def object(self, name: str) -> RowObject:
        number = int(name.rpartition("/")[2].partition(".")[0])
        return self._rows.objects[number]

    def file(self, name: str) -> Path:
        wanted = self.object(name)
        with self._lock:
            if wanted.table not in self._tables_there:
                alike = [of for of in self._rows.objects if of.table == wanted.table]
                for of, point in zip(alike, self._rows.files(alike), strict=True):
                    # The cache may drop its own name for it at any time.
                    self._pinned.keep(of.key, Path(point.path))
                self._tables_there.add(wanted.table)
        return self._pinned.local_file(wanted.key)


@final
class _Opened:
    """A file that DuckDB's threads read at once, each from where it went last."""

    closed = True

    def __init__(self, file: Path) -> None:
        self._handle = os.open(file, os.O_RDONLY)
        self.closed = False
        self._size = os.fstat(self._handle).st_size
        self._places = threading.local()

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        self._places.now = begin + place
        return begin + place

    def tell(self) -> int:
        place: int = getattr(self._places, "now", 0)
        return place

    def read(self, length: int = -1) -> bytes:
        place = self.tell()
        data = os.pread(self._handle, self._size - place if length < 0 else length, place)
        self._places.now = place + len(data)
        return data

    def flush(self) -> None:
        """Do nothing: it is for reading."""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._handle)

    def __del__(self) -> None:
        self.close()


@cache
def _filesystem_class() -> Any:  # noqa: ANN401 - fsspec has no types
    """Return the filesystem that DuckDB opens our names with."""

    class LateFilesystem(fsspec.AbstractFileSystem):  # type: ignore[misc] # it has no types
        protocol = _SCHEME
        cachable = False

        def __init__(self, late: _Late, **options: object) -> None:
            super().__init__(**options)
            self._late = late

        def open(self, path: str, mode: str = "rb", **_: object) -> _Opened:
            if mode != "rb":
                raise PermissionError(f"{path} is for reading only")
            return _Opened(self._late.file(path))

        def info(self, path: str, **_: object) -> dict[str, Any]:
            return {"name": path, "size": self._late.object(path).size_bytes, "type": "file"}

        def glob(self, path: str, **_: object) -> list[str]:
            return [path]

        def modified(self, path: str) -> datetime:
            return datetime.fromtimestamp(self._late.object(path).entry.time_us / 1e6, UTC)

    return LateFilesystem
