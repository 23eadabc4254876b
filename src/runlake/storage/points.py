"""The rows of live segments and compacted files, found when they are first asked for.

Most questions are answered from footers; only row-level views and curves need rows. Of a local
lake these are the objects themselves, as they lie. Of a far one they come in one parallel
gather over all objects that may hold them: a small object whole, and a large one too where
most of its bytes are wanted, as a file in the local cache; of any other large object only the
row groups that may hold what is wanted. What was fetched once costs no request again.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import islice
from typing import TYPE_CHECKING, Final, final

from runlake._lazy import lazy
from runlake.errors import FormatError, StorageError
from runlake.storage import ranges, segments
from runlake.storage.index import PointIndex
from runlake.storage.parts import Parts, Whole, read_footer
from runlake.storage.snapshot import SnapshotExpiredError
from runlake.storage.table_files import EVENTS, METRICS
from runlake.storage.tables import PointFile, PointRows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

    from runlake.storage.cache import Cache
    from runlake.storage.filesystem import Filesystem, Range
    from runlake.storage.parts import Job
    from runlake.storage.ranges import Wanted
    from runlake.storage.rowobject import RowObject
    from runlake.storage.states import StateRows
else:
    pa = lazy("pyarrow")

# A far object up to this size always comes whole: a part of it would take as long.
_WHOLE_BYTES: Final = 256 << 10
# More bytes than this take longer than to ask first which row groups they are needed of.
_VAGUE_BYTES: Final = 4 << 20
# What is fetched at once, and held in memory meanwhile.
_GATHER_BYTES: Final = 64 << 20
_GATHER_RANGES: Final = 512


@final
class PointFiles:
    """The rows of one snapshot: as local files, or read by range."""

    def __init__(
        self,
        fs: Filesystem,
        cache: Cache | None,
        segments: tuple[RowObject, ...],
        *,
        compacted: tuple[RowObject, ...],
        counts: Sequence[int],
    ) -> None:
        """Remember what to find.

        Args:
            fs: the lake's storage.
            cache: where far objects are kept; None for a local lake.
            segments: the live segments of one snapshot.
            compacted: its compacted files that hold rows of runs.
            counts: rows of each segment in the summaries that `select` gets, behind those that
                are compacted.
        """
        self._fs = fs
        self._cache = cache
        self._segments = segments
        self._compacted = compacted
        self._counts = counts
        self._index: tuple[StateRows, PointIndex] | None = None
        self._footers: dict[str, pq.FileMetaData] = {}

    @property
    def fs(self) -> Filesystem:
        """The storage that the rows are read from."""
        return self._fs

    @property
    def objects(self) -> tuple[RowObject, ...]:
        """All objects that hold the rows."""
        return self._compacted + self._segments

    def on(self, fs: Filesystem) -> PointFiles:
        """Return the same rows, read from another storage that holds the same objects."""
        return PointFiles(
            fs,
            self._cache,
            self._segments,
            compacted=self._compacted,
            counts=self._counts,
        )

    def __call__(self, table: str) -> tuple[PointFile, ...]:
        """Return the local files of a compacted table, and of all segments.

        Requests of a far lake: one GET for each object that the cache does not hold, of a
        large one for each 8 MiB of it, up to 512 of them or 64 MiB at once.

        Args:
            table: `metrics` or `events`.

        Raises:
            SnapshotExpiredError: an object is gone; take another snapshot.
            StorageError: the store cannot be read, or the cache cannot be written or is too
                small.
        """
        return self.files([of for of in self.objects if of.table in {"", table}])

    def files(self, wanted: Sequence[RowObject]) -> tuple[PointFile, ...]:
        """Return the local files of some of the objects, fetched as `__call__` does."""
        try:
            if self._cache is None:
                return tuple(map(self._local, wanted))
            return self._fetch_files(self._cache, wanted)
        except FileNotFoundError as error:
            raise expired(self._fs.url, error) from error

    def select(
        self,
        summaries: StateRows,
        run_ids: Collection[str] | None,
        keys: Collection[str] | None,
    ) -> PointRows:
        """Return where the points of some runs and keys are.

        Requests of a far lake, for what the cache does not hold of the segments that may have
        such points: one GET for each object up to 256 KiB (a search has fetched these), and
        for each stretch of row groups of a larger one, in pieces of 8 MiB, all at once as for
        files. Where that is more than 4 MiB, one GET for each stretch of texts goes before,
        and then only row groups with points wanted are fetched. Where the cache keeps nothing,
        the footers of larger objects cost one GET each before.

        Args:
            summaries: of the snapshot.
            run_ids: the runs wanted; None means all.
            keys: the metrics wanted; None means all.

        Returns:
            Files that may hold such points, and points that were read already.

        Raises:
            SnapshotExpiredError: an object is gone; take another snapshot.
            StorageError: the store cannot be read.
            FormatError: an object is damaged.
        """
        if self._index is None or self._index[0] is not summaries:
            self._index = (
                summaries,
                PointIndex(summaries, [summaries.filed.num_rows, *self._counts]),
            )
        index = self._index[1]
        rows = index.rows(run_ids, keys)
        places = index.places(rows)
        found = [self._segments[place - 1] for place in places if place]
        if 0 in places:
            found = [*self._compacted_with(index, rows, run_ids), *found]
        try:
            if self._cache is None:
                return PointRows(tuple(map(self._local, found)))
            return self._far(self._cache, found, ranges.Wanted(run_ids, keys))
        except FileNotFoundError as error:
            raise expired(self._fs.url, error) from error

    def events(self, writers: Collection[str], run_ids: Collection[str]) -> tuple[PointFile, ...]:
        """Return the files that may hold what some writers say of some runs, but for points.

        Requests of a far lake as of `files`.

        Args:
            writers: of the rows wanted.
            run_ids: the runs that these are about.

        Raises:
            SnapshotExpiredError: an object is gone; take another snapshot.
            StorageError: the store cannot be read, or the cache cannot be written.
        """
        rising = sorted(run_ids)
        filed = [of for of in self._compacted if of.table == EVENTS.name]
        starts = [bisect_left(rising, of.runs[0]) for of in filed]
        found = [
            of
            for of, start in zip(filed, starts, strict=True)
            if start < len(rising) and rising[start] <= of.runs[1]
        ]
        return self.files([*found, *(of for of in self._segments if of.writer in writers)])

    def _compacted_with(
        self, index: PointIndex, rows: NDArray[np.int64], run_ids: Collection[str] | None
    ) -> list[RowObject]:
        """Return the compacted files that may hold points of what some summaries are about."""
        files = [of for of in self._compacted if of.table == METRICS.name]
        experiments = index.experiments(rows)
        found = [of for of in files if of.experiment_id in experiments]
        if run_ids is None:
            return found
        rising = sorted(run_ids)
        starts = [bisect_left(rising, of.runs[0]) for of in found]
        return [
            of
            for of, start in zip(found, starts, strict=True)
            if start < len(rising) and rising[start] <= of.runs[1]
        ]

    def _local(self, of: RowObject) -> PointFile:
        path = self._fs.local_file(of.key)
        path.stat()
        return of.file_at(path)

    def _fetch_files(self, cache: Cache, wanted: Sequence[RowObject]) -> tuple[PointFile, ...]:
        total = sum(of.size_bytes for of in wanted)
        if total > cache.limit_bytes:
            message = (
                f"the rows of {self._fs.url} are needed as local files of {total:,} bytes, and "
                f"the cache may hold {cache.limit_bytes:,}. Ask about fewer experiments, or let "
                f"it grow: RUNLAKE_CACHE_LIMIT_BYTES={2 * total}"
            )
            raise StorageError(message, url=self._fs.url)
        wholes = [Whole(of, cache) for of in wanted]
        self._fetch([whole.job() for whole in wholes if whole.file is None])
        files = tuple(whole.file for whole in wholes if whole.file is not None)
        if len(files) < len(wholes):
            message = (
                f"the rows of {self._fs.url} are needed as local files, and the cache in "
                f"{cache.folder} cannot keep them. Name another folder: RUNLAKE_CACHE=…"
            )
            raise StorageError(message, url=self._fs.url)
        return files

    def _far(self, cache: Cache, found: Sequence[RowObject], wanted: Wanted) -> PointRows:
        """Fetch what may hold the points, and decode what does not become a file."""
        wholes = [Whole(of, cache) for of in found]
        missing = [whole for whole in wholes if whole.file is None]
        large = [whole.of for whole in missing if whole.of.size_bytes > _WHOLE_BYTES]
        self._read_footers(cache, large)
        parts = {
            of.key: Parts(of, cache, self._footers[of.key], wanted)
            for of in (whole.of for whole in missing)
            if of.key in self._footers
        }
        vague = [part for part in parts.values() if not part.is_found]
        if sum(part.size_bytes for part in vague) > _VAGUE_BYTES:
            self._fetch([part.texts() for part in vague])
        room = cache.limit_bytes - sum(whole.of.size_bytes for whole in wholes if whole.file)
        jobs: list[Job] = []
        for whole in missing:
            of = whole.of
            part = parts.pop(of.key, None)
            if part is not None:
                job = part.points()
                is_cheap = not job.ranges or 2 * part.size_bytes < of.size_bytes
                if is_cheap or of.size_bytes > room:
                    parts[of.key] = part
                    jobs.append(job)
                    continue
            room -= of.size_bytes
            jobs.append(whole.job())
        self._fetch(jobs)
        for whole in missing:
            if whole.file is None and whole.of.key not in parts:
                parts[whole.of.key] = self._instead(whole, cache, wanted)
        rows = [parts[whole.of.key].rows for whole in wholes if whole.of.key in parts]
        return PointRows(
            tuple(whole.file for whole in wholes if whole.file is not None),
            pa.concat_tables(rows) if rows else None,
        )

    def _instead(self, whole: Whole, cache: Cache, wanted: Wanted) -> Parts:
        """Read the rows of an object that the cache did not keep as a file."""
        of = whole.of
        if whole.data is not None:
            parts = Parts(of, cache, read_footer(whole.data, of.key), wanted)
            parts.read_from(whole.data)
        else:
            parts = Parts(of, cache, self._footers[of.key], wanted)
            self._fetch([parts.points()])
        return parts

    def _read_footers(self, cache: Cache, wanted: Iterable[RowObject]) -> None:
        """Bring footers into memory: from the cache, where a search has left them."""
        pending: dict[str, tuple[RowObject, int]] = {}
        for of in wanted:
            if of.key in self._footers:
                continue
            tail = cache.read_tail(of.key)
            try:
                self._footers[of.key] = read_footer(tail or b"", of.key)
            except FormatError:
                pending[of.key] = of, segments.TAIL_BYTES
        while pending:
            asked = [of.entry.tail(size) for of, size in pending.values()]
            tails = list(self._gather(asked))
            for (of, size), tail in zip(list(pending.values()), tails, strict=True):
                key = of.key
                needed = segments.footer_size(tail, key=key)
                if size < needed <= of.size_bytes:
                    pending[key] = of, needed
                else:
                    self._footers[key] = read_footer(tail, key)
                    cache.put_tail(key, tail)
                    del pending[key]

    def _fetch(self, jobs: Sequence[Job]) -> None:
        """Fetch the ranges of all jobs at once, and hand each its bytes."""
        chunks = self._gather([wanted for job in jobs for wanted in job.ranges])
        for job in jobs:
            job.take(islice(chunks, len(job.ranges)))

    def _gather(self, wanted: Sequence[Range]) -> Iterator[bytes]:
        """Yield the bytes of ranges, fetched as many at once as fit into memory."""
        for batch in batches(wanted):
            for (key, start, end), data in zip(batch, self._fs.get_ranges(batch), strict=True):
                if len(data) != end - start:
                    message = (
                        f"{self._fs.url}/{key} gave {len(data):,} bytes of {end - start:,} asked "
                        f"for at {start:,}; it is cut short, or was overwritten."
                    )
                    raise StorageError(message, url=self._fs.url)
                yield data


def expired(url: str, error: FileNotFoundError) -> SnapshotExpiredError:
    """Return the error that says that an object of a snapshot is gone."""
    message = (
        f"{error.filename or error} is gone: its writer has replaced it, or it was vacuumed after "
        "the grace period. Ask again; a new snapshot holds its rows elsewhere."
    )
    return SnapshotExpiredError(message, url=url)


def batches(wanted: Iterable[Range]) -> Iterator[list[Range]]:
    """Cut ranges into batches that fit into memory; one that does not fit stands alone."""
    batch: list[Range] = []
    size = 0
    for each in wanted:
        size += each.end - each.start
        if batch and (size > _GATHER_BYTES or len(batch) >= _GATHER_RANGES):
            yield batch
            batch, size = [], each.end - each.start
        batch.append(each)
    if batch:
        yield batch
