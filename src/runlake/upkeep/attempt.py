"""One attempt at a commit: its files, written to the store under names of their own.

Every name carries the number of the manifest that the attempt aims at and a nonce, and is never
used again. So what a crash leaves behind is told from what is in use by its number alone.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, final

from runlake import ids
from runlake._version import __version__
from runlake.errors import StorageError
from runlake.storage import layout, manifest
from runlake.storage.manifest import TableFile
from runlake.storage.table_files import TableHeader, read_header
from runlake.upkeep.table_writer import TableWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pyarrow as pa

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import Manifest
    from runlake.storage.table_files import Table
    from runlake.upkeep.table_writer import Written


@final
class Attempt:
    """The files of one attempt.

    Attributes:
        added: for each table the files that are in the store.
        folder: of this host, where files lie meanwhile.
    """

    def __init__(
        self,
        fs: Filesystem,
        base: Manifest,
        *,
        experiment_id: str,
        folder: Path,
        inputs: Mapping[str, tuple[int, int]] | None = None,
        replaces: Iterable[str] = (),
        terms: str | None = None,
    ) -> None:
        """Start without files.

        Args:
            fs: the lake's storage.
            base: the manifest that the attempt begins from.
            experiment_id: the partition.
            folder: of this host, where each file is made before it is uploaded; it is the caller's.
            inputs: for each writer the first and last row that go in from segments.
            replaces: keys of the table files whose rows go in.
            terms: `manifest.terms` of the manifest that the commit makes; None for as at `base`.
        """
        self.added: dict[str, tuple[TableFile, ...]] = {}
        self.folder = folder
        self._fs = fs
        self._header = TableHeader(
            lake=base.lake,
            table="",
            experiment_id=experiment_id,
            n=base.number + 1,
            commit=ids.new_nonce(),
            inputs=dict(inputs or {}),
            replaces=tuple(replaces),
            terms=manifest.terms(base.purged, base.copied) if terms is None else terms,
            version=__version__,
        )

    @property
    def size_bytes(self) -> int:
        """The length of all files so far."""
        return sum(file.size_bytes for files in self.added.values() for file in files)

    def write(self, table: Table, pieces: Iterable[pa.Table]) -> int:
        """Write the rows of one table.

        Args:
            table: which.
            pieces: all its rows, in order.

        Returns:
            How many rows there were.

        Raises:
            StorageError: the store cannot be written.
            FormatError: a file does not hold what was written to it.
        """
        writer = TableWriter(
            table,
            replace(self._header, table=table.name),
            self.folder,
            finished=lambda written: self._upload(table, written),
        )
        for piece in pieces:
            writer.write(piece)
        writer.close()
        return writer.rows

    def discard(self) -> None:
        """Delete the files; no manifest names them, because none was tried."""
        files = [file.path for files in self.added.values() for file in files]
        with suppress(StorageError):  # vacuum finds them by their number
            self._fs.delete_many(files)

    def _upload(self, table: Table, written: Written) -> None:
        header = self._header
        name = layout.TableName(table.name, header.experiment_id, header.n, ids.new_nonce())
        read_header(written.path, key=name.key)
        self._fs.upload(name.key, written.path)
        written.path.unlink()
        file = TableFile(
            path=name.key,
            size_bytes=written.size_bytes,
            rows=written.rows,
            experiment_id=header.experiment_id,
            min_run=written.least,
            max_run=written.greatest,
        )
        self.added[table.name] = (*self.added.get(table.name, ()), file)


@contextmanager
def attempted(
    fs: Filesystem,
    base: Manifest,
    *,
    experiment_id: str,
    inputs: Mapping[str, tuple[int, int]] | None = None,
    replaces: Iterable[str] = (),
    terms: str | None = None,
) -> Iterator[Attempt]:
    """Lend an attempt with a folder of its own; its files are deleted if it fails.

    Args:
        fs: the lake's storage.
        base: the manifest that the attempt begins from.
        experiment_id: the partition.
        inputs: as `Attempt` takes them.
        replaces: likewise.
        terms: likewise.

    Yields:
        The attempt.
    """
    with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
        attempt = Attempt(
            fs,
            base,
            experiment_id=experiment_id,
            folder=Path(folder),
            inputs=inputs,
            replaces=replaces,
            terms=terms,
        )
        try:
            yield attempt
        except Exception:
            attempt.discard()
            raise
