"""The rows of compacted files as they go into new ones, row group by row group."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, final

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.table_files import WRITERS, read_groups

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import TableFile
    from runlake.storage.table_files import Table
    from runlake.upkeep.tiers import SortedRun
else:
    pc = lazy("pyarrow.compute")

_PARALLEL: Final = 8


@final
class Source:
    """The rows of one sorted run, those of purged runs left out.

    Attributes:
        purged_rows: rows that were left out so far.
    """

    def __init__(
        self,
        fs: Filesystem,
        table: Table,
        run: SortedRun,
        folder: Path,
        *,
        purged: Collection[str],
    ) -> None:
        """Start before the first row.

        Args:
            fs: the lake's storage.
            table: which table the files are of.
            run: the files.
            folder: where a file of a far lake lies meanwhile; it is the caller's.
            purged: the runs that are left out.
        """
        self.purged_rows = 0
        self._fs, self._table, self._run = fs, table, run
        self._copy = folder / run.files[0].path.replace("/", "-")
        self._purged = arrays.strings(sorted(purged)) if purged else None

    def pieces(self) -> Iterator[pa.Table]:
        """Yield the rows in order."""
        for file in self._run.files:
            path = local(self._fs, file.path, self._copy)
            for rows in read_groups(path, self._table, key=file.path):
                yield self._unpurged(rows)

    def _unpurged(self, rows: pa.Table) -> pa.Table:
        if self._purged is None or self._table.name == WRITERS.name:
            return rows
        kept = rows.filter(pc.invert(pc.is_in(rows["run_id"], value_set=self._purged)))
        self.purged_rows += rows.num_rows - kept.num_rows
        return kept


def local(fs: Filesystem, key: str, copy: Path) -> Path:
    """Return a local file of an object: of a far lake a copy of it.

    Args:
        fs: the lake's storage.
        key: the object.
        copy: where it is put if the lake is far; what is there is replaced.

    Returns:
        The file.

    Raises:
        FileNotFoundError: there is no such object.
        StorageError: the store cannot be read.
    """
    if fs.is_local:
        path = fs.local_file(key)
        path.stat()
        return path
    fs.download(key, copy)
    return copy


@final
class Files:
    """Local files of compacted ones; of a far lake copies, which stay while they are of use."""

    def __init__(self, fs: Filesystem, folder: Path) -> None:
        """Start with no copies.

        Args:
            fs: the lake's storage.
            folder: where copies are put; it is the caller's.
        """
        self._fs, self._folder = fs, folder
        self._copies: dict[str, tuple[TableFile, Path]] = {}

    def path(self, file: TableFile) -> Path:
        """Return the local file of one.

        Raises:
            FileNotFoundError: it is gone.
            StorageError: the store cannot be read.
        """
        if file.path in self._copies:
            return self._copies[file.path][1]
        found = local(self._fs, file.path, self._folder / file.path.replace("/", "-"))
        if not self._fs.is_local:
            self._copies[file.path] = file, found
        return found

    def fetch(self, files: Iterable[TableFile]) -> None:
        """Copy what is not there yet, several at once.

        Raises:
            FileNotFoundError: one is gone.
            StorageError: the store cannot be read.
        """
        missing = [file for file in files if file.path not in self._copies]
        if not self._fs.is_local and missing:
            with ThreadPoolExecutor(min(_PARALLEL, len(missing))) as pool:
                list(pool.map(self.path, missing))

    def forget_below(self, run_id: str) -> None:
        """Delete copies that hold nothing from a run on."""
        for key, (file, path) in list(self._copies.items()):
            if file.max_run < run_id:
                path.unlink(missing_ok=True)
                del self._copies[key]
