"""One far object in a question about points: as a file in the cache, or its row groups.

Each says which bytes it still needs, and takes them when they have come; who fetches them does
so for all objects of a question at once.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, final

from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import arrays, ranges, segments
from runlake.storage.ranges import COMPACTED, SEGMENT
from runlake.storage.tables import point_rows_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from runlake.storage.cache import Cache
    from runlake.storage.filesystem import Range
    from runlake.storage.ranges import Hits, Wanted
    from runlake.storage.rowobject import RowObject
    from runlake.storage.tables import PointFile
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pq = lazy("pyarrow.parquet")


class Job(NamedTuple):
    """Bytes that are needed, and what is done with them.

    Attributes:
        ranges: what to fetch.
        take: gets the bytes of each range, in their order.
    """

    ranges: list[Range]
    take: Callable[[Iterator[bytes]], None]


@final
class Whole:
    """An object that is to be a local file.

    Attributes:
        of: the object.
        file: where it lies; None while it is not in the cache.
        data: its bytes, where they came at once and the cache did not keep them.
    """

    def __init__(self, of: RowObject, cache: Cache) -> None:
        """Look into the cache."""
        self.of = of
        self.data: bytes | None = None
        self._cache = cache
        path = cache.file(of.key, of.size_bytes)
        self.file: PointFile | None = None if path is None else of.file_at(path)

    def job(self) -> Job:
        """Ask for all bytes, and keep them in the cache; without it, `file` stays None."""
        return Job(ranges.pieces(self.of.key, 0, self.of.size_bytes), self._take)

    def _take(self, chunks: Iterator[bytes]) -> None:
        first = next(chunks)
        if len(first) == self.of.size_bytes:
            self.data = first
            path = self._cache.put(self.of.key, first)
        else:
            with self._cache.filling(self.of.key) as filling:
                filling.write(first)
                for data in chunks:
                    filling.write(data)
            path = filling.path
        if path is not None:
            self.file, self.data = self.of.file_at(path), None


@final
class Parts:
    """The row groups of an object that may hold points wanted.

    Attributes:
        rows: the points, as `point_rows_schema()`, once they have been read.
    """

    def __init__(
        self, of: RowObject, cache: Cache, footer: pq.FileMetaData, wanted: Wanted
    ) -> None:
        """Plan, and find the rows where the cache holds the texts already."""
        self.rows = point_rows_schema().empty_table()
        self._of, self._cache, self._footer, self._wanted = of, cache, footer, wanted
        self._key = of.key
        self._shape = COMPACTED if of.table else SEGMENT
        self._groups = tuple(ranges.plan(footer, wanted, self._shape))
        self._bytes: dict[int, bytes] = {}
        self._fetched: list[int] = []
        self._hits: Hits | None = None
        if not self._missing(group.texts for group in self._groups):
            self._find()

    @property
    def is_found(self) -> bool:
        """Whether it is known which rows are wanted."""
        return self._hits is not None or not self._groups

    @property
    def size_bytes(self) -> int:
        """The bytes of the row groups that hold, or may hold, points wanted."""
        groups = self._groups if self._hits is None else self._hits.groups
        return sum(group.numbers[1] - group.texts[0] for group in groups)

    def texts(self) -> Job:
        """Ask for what tells which rows are wanted."""
        return self._job([group.texts for group in self._groups], self._find_and_keep)

    def points(self) -> Job:
        """Ask for all that is needed to set `rows`."""
        groups = self._groups if self._hits is None else self._hits.groups
        spans = [group.numbers for group in groups]
        if self._hits is None:
            spans += [group.texts for group in groups]
        return self._job(spans, self._read)

    def read_from(self, data: bytes) -> None:
        """Set `rows` from the whole object.

        Raises:
            FormatError: it is damaged.
        """
        if self._groups:
            self._set_rows(self._found({0: data}), {0: data})

    def _missing(self, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Take what the cache holds; return the rest."""
        missing = []
        for start, end in spans:
            if start not in self._bytes:
                data = self._cache.read_part(self._key, start, end)
                if data is None:
                    missing.append((start, end))
                else:
                    self._bytes[start] = data
        return missing

    def _job(self, spans: Iterable[tuple[int, int]], then: Callable[[], None]) -> Job:
        missing = self._missing(spans)
        stretches = [
            (start, ranges.pieces(self._key, start, end))
            for start, end in ranges.stretches(missing)
        ]

        def take(chunks: Iterator[bytes]) -> None:
            joined = [(start, b"".join(islice(chunks, len(parts)))) for start, parts in stretches]
            for first, last in missing:
                at = bisect_right(joined, first, key=lambda each: each[0]) - 1
                start, data = joined[at]
                self._bytes[first] = data[first - start : last - start]
                self._fetched.append(first)
            then()

        return Job([piece for _, parts in stretches for piece in parts], take)

    def _find(self) -> None:
        if self._groups:
            self._hits = self._found(self._bytes)

    def _find_and_keep(self) -> None:
        self._find()
        self._keep()

    def _read(self) -> None:
        if self._hits is None:
            self._find()
        if self._hits is not None:
            self._set_rows(self._hits, self._bytes)
        self._keep()
        self._bytes.clear()

    def _set_rows(self, hits: Hits, data: Mapping[int, bytes]) -> None:
        if not hits.groups:
            return
        found = ranges.read_points(self._footer, hits, data, shape=self._shape, key=self._key)
        if self._of.skip_rows:
            found = found.slice(int(np.searchsorted(hits.rows, self._of.skip_rows)))
        zeros: Any = arrays.numbers(np.zeros(found.num_rows, np.int32))
        columns: dict[str, Any] = {
            name: pa.DictionaryArray.from_arrays(zeros, arrays.strings([text]))
            for name, text in (
                ("writer", self._of.writer),
                ("experiment_id", self._of.experiment_id),
            )
        } | {column: found[column] for column in found.column_names}
        known = point_rows_schema()
        arranged = [columns[column] for column in known.names]
        self.rows = pa.Table.from_arrays(arranged, names=known.names).cast(known)

    def _found(self, data: Mapping[int, bytes]) -> Hits:
        return ranges.find_rows(
            self._footer, self._groups, data, self._wanted, shape=self._shape, key=self._key
        )

    def _keep(self) -> None:
        """Give the cache what was fetched, now that it is known to be sound."""
        for start in self._fetched:
            self._cache.put_part(self._key, start, self._bytes[start])
        self._fetched.clear()


def read_footer(tail: bytes, key: str) -> pq.FileMetaData:
    """Read where a Parquet file's row groups lie.

    Args:
        tail: its last bytes.
        key: the file's key, for messages.

    Returns:
        The footer.

    Raises:
        FormatError: it is damaged, or the footer is longer than these bytes.
    """
    if segments.footer_size(tail, key=key) > len(tail):
        raise FormatError(f"{key}: the footer is longer than {len(tail)} bytes")
    try:
        return pq.read_metadata(pa.BufferReader(tail))
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{key}: the footer cannot be read: {error}") from error
