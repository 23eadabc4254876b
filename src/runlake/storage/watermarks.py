"""How far each writer is compacted: from the manifest, and for old writers from cold files.

A manifest names the watermarks of some writers only, so that it stays small; those of all
writers stand in the files of table `writers`. A watermark is kept for ever, because a segment
that a recovery uploads weeks later must not be counted twice.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, final

from runlake._lazy import lazy
from runlake.errors import FormatError, NewerFormatError
from runlake.storage import arrays
from runlake.storage.manifest import NOTHING_CONSUMED
from runlake.storage.table_files import WRITERS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import Manifest, TableFile
else:
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pq = lazy("pyarrow.parquet")


@final
class Watermarks:
    """The watermarks of one manifest; a cold file is read once for those who are asked for."""

    def __init__(self, fs: Filesystem, manifest: Manifest) -> None:
        """Start with what the manifest says itself.

        Args:
            fs: the lake's storage.
            manifest: whose watermarks.
        """
        self.manifest = manifest
        self._fs = fs
        self._known: dict[str, int] = {}

    def of(self, experiment_id: str, writers: Collection[str]) -> dict[str, int]:
        """Return the watermark of each of some writers.

        Requests: none while all stand in the manifest or are younger than every cold writer,
        else one GET for each cold file of the experiment that may hold them.

        Args:
            experiment_id: their partition.
            writers: whose.

        Returns:
            For each writer its last row that tables hold, -1 where they hold none.

        Raises:
            FileNotFoundError: a cold file is gone; there is a newer manifest.
            StorageError: the store cannot be read.
            FormatError: a cold file is damaged.
            NewerFormatError: a cold file is none that this version knows.
        """
        cold = [writer for writer in writers if self._is_cold(writer)]
        if cold:
            self._read(experiment_id, cold)
        consumed = self.manifest.consumed
        return {
            writer: consumed.get(writer, self._known.get(writer, NOTHING_CONSUMED))
            for writer in writers
        }

    def _is_cold(self, writer: str) -> bool:
        """Tell whether only a cold file knows a writer, and was not asked yet."""
        return self.manifest.may_be_cold(writer) and writer not in self._known

    def _read(self, experiment_id: str, writers: Collection[str]) -> None:
        cold = set(self.manifest.consumed_cold)
        strange = cold - {file.path for file in self.manifest.files(WRITERS.name)}
        if strange:
            message = (
                f"manifest {self.manifest.number} of {self._fs.url} keeps watermarks in a cold "
                f"file, {min(strange)}, that is none of its table {WRITERS.name}; to guess them "
                "would count rows twice. Upgrade: pip install --upgrade runlake"
            )
            raise NewerFormatError(message, url=self._fs.url)
        found = dict.fromkeys(writers, NOTHING_CONSUMED)
        for file in self.manifest.files(WRITERS.name, experiment_id):
            if file.path in cold and _may_hold(file, writers):
                for writer, last in self._lasts(file, writers):
                    found[writer] = max(found[writer], last)
        self._known |= found

    def _lasts(self, file: TableFile, writers: Iterable[str]) -> Iterable[tuple[str, int]]:
        data = self._fs.get(file.path)
        wanted: Any = arrays.strings(sorted(writers))
        try:
            with pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True) as opened:
                rows = opened.read(["writer", "last"])
            rows = rows.filter(pc.is_in(rows["writer"], value_set=wanted))
            names: list[Any] = rows["writer"].to_pylist()
            lasts: list[Any] = rows["last"].to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            message = f"{file.path}: the watermarks cannot be read: {error}"
            raise FormatError(message) from error
        return zip(names, lasts, strict=True)


def _may_hold(file: TableFile, writers: Iterable[str]) -> bool:
    return any(file.min_run <= writer <= file.max_run for writer in writers)
