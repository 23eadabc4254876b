"""The rows of live segments as local Parquet files, found when they are first asked for.

Most questions are answered from footers; only row-level views need files. Of a local lake
these are the objects themselves, of a far one copies in the local cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from runlake.errors import StorageError
from runlake.storage.filesystem import Range
from runlake.storage.snapshot import SnapshotExpiredError
from runlake.storage.tables import PointFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from runlake.storage.cache import Cache
    from runlake.storage.filesystem import Filesystem
    from runlake.storage.snapshot import LiveSegment

# Objects that are fetched at once and held in memory meanwhile; a larger one is streamed.
_GATHER_BYTES: Final = 64 << 20
_GATHER_OBJECTS: Final = 512


@final
class PointFiles:
    """The files with the rows of one snapshot."""

    def __init__(
        self, fs: Filesystem, cache: Cache | None, wanted: tuple[LiveSegment, ...]
    ) -> None:
        """Remember what to find.

        Args:
            fs: the lake's storage.
            cache: where far objects are kept; None for a local lake.
            wanted: segments of one snapshot.
        """
        self._fs = fs
        self._cache = cache
        self._wanted = wanted

    def __call__(self) -> tuple[PointFile, ...]:
        """Return the local files; far ones that the cache does not hold are fetched.

        Raises:
            SnapshotExpiredError: an object is gone; take another snapshot.
            StorageError: the store cannot be read, or the cache cannot be written.
        """
        keys = [segment.entry.key for segment in self._wanted]
        try:
            paths = self._local(keys) if self._cache is None else self._fetched(self._cache)
        except FileNotFoundError as error:
            raise expired(self._fs.url, error) from error
        return tuple(
            PointFile(
                path=str(paths[segment.entry.key]),
                writer=segment.name.writer,
                experiment_id=segment.name.experiment_id,
                first=segment.name.first,
                skip_rows=segment.skip_rows,
            )
            for segment in self._wanted
        )

    def _local(self, keys: Iterable[str]) -> dict[str, Path]:
        paths = {key: self._fs.local_file(key) for key in keys}
        for path in paths.values():
            path.stat()
        return paths

    def _fetched(self, cache: Cache) -> dict[str, Path]:
        paths: dict[str, Path] = {}
        missing: list[LiveSegment] = []
        for segment in self._wanted:
            key = segment.entry.key
            path = cache.file(key, segment.entry.size_bytes)
            if path is None:
                missing.append(segment)
            else:
                paths[key] = path
        for batch in _batches(missing):
            paths |= self._fetch(cache, batch)
        return paths

    def _fetch(self, cache: Cache, batch: Sequence[LiveSegment]) -> dict[str, Path]:
        """Fetch some objects at once into the cache."""
        sizes = {segment.entry.key: segment.entry.size_bytes for segment in batch}
        paths: dict[str, Path | None] = {}
        if sum(sizes.values()) > _GATHER_BYTES:
            for key, size in sizes.items():
                with cache.filling(key) as file:
                    self._fs.download(key, file)
                paths[key] = cache.file(key, size)
        else:
            ranges = [Range(key, 0, size) for key, size in sizes.items()]
            for key, data in zip(sizes, self._fs.get_ranges(ranges), strict=True):
                paths[key] = cache.put(key, data)
        kept = {key: path for key, path in paths.items() if path is not None}
        if len(kept) < len(paths):
            message = (
                f"the rows of {self._fs.url} are needed as local files, and the cache in "
                f"{cache.folder} cannot keep them. Name another folder: RUNLAKE_CACHE=…"
            )
            raise StorageError(message, url=self._fs.url)
        return kept


def expired(url: str, error: FileNotFoundError) -> SnapshotExpiredError:
    """Return the error that says that an object of a snapshot is gone."""
    message = (
        f"{error.filename or error} is gone: its writer has replaced it, or it was vacuumed after "
        "the grace period. Ask again; a new snapshot holds its rows elsewhere."
    )
    return SnapshotExpiredError(message, url=url)


def _batches(wanted: Iterable[LiveSegment]) -> Iterator[list[LiveSegment]]:
    """Cut into batches that fit into memory; one that does not fit stands alone."""
    batch: list[LiveSegment] = []
    size = 0
    for segment in wanted:
        size += segment.entry.size_bytes
        if batch and (size > _GATHER_BYTES or len(batch) >= _GATHER_OBJECTS):
            yield batch
            batch, size = [], segment.entry.size_bytes
        batch.append(segment)
    if batch:
        yield batch
