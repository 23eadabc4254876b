"""Which bytes of a far Parquet file hold the points wanted, and those points read from them.

A file's footer says where each row group lies, and what its least and greatest run and key
are. So a curve out of a large file costs the row groups that may hold it, and no more. The
texts of a group (run, kind and key) take a hundredth of its bytes, lie before the numbers, and
tell which rows are wanted: they may be fetched first. Nothing here does I/O.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import arrays
from runlake.storage.filesystem import Range
from runlake.storage.table_files import statistics_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pq = lazy("pyarrow.parquet")

_TEXTS: Final = frozenset({"run_id", "kind", "key", "writer"})
# Bytes between two stretches that are cheaper to fetch than to leave out.
_GAP_BYTES: Final = 256 << 10
# A longer stretch is fetched in pieces, because one connection is slower than the line.
PIECE_BYTES: Final = 8 << 20


class Shape(NamedTuple):
    """Where the points of a kind of file are.

    Attributes:
        texts: the columns that tell which rows are wanted; they lie side by side.
        numbers: the columns of a point, step, time and value first; they lie behind, side by
            side.
    """

    texts: tuple[str, ...]
    numbers: tuple[str, ...]


SEGMENT: Final = Shape(("run_id", "kind", "key"), ("step", "timestamp", "num"))
COMPACTED: Final = Shape(("run_id", "key"), ("step", "timestamp", "value", "writer"))


@dataclass(frozen=True, slots=True)
class Group:
    """A row group that may hold points wanted.

    Attributes:
        place: in the file.
        first_row: rows of the file before it.
        row_count: its rows.
        texts: where the bytes of its texts begin and end.
        numbers: where the bytes of its numbers begin and end.
    """

    place: int
    first_row: int
    row_count: int
    texts: tuple[int, int]
    numbers: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The rows wanted of some row groups.

    Attributes:
        groups: those that hold any.
        rows: shape (n,), their places in the file, ascending.
        texts: shape (n, 2), columns `run_id` and `key` as numbered texts.
    """

    groups: tuple[Group, ...]
    rows: NDArray[np.int64]
    texts: pa.Table


@final
class Wanted:
    """The runs and keys of one question; None means all."""

    def __init__(self, run_ids: Collection[str] | None, keys: Collection[str] | None) -> None:
        """Keep them in order, so that a row group's bounds are looked up quickly."""
        self.values: dict[str, list[str] | None] = {
            "run_id": None if run_ids is None else sorted(run_ids),
            "kind": [schema.METRIC],
            "key": None if keys is None else sorted(keys),
        }

    def may_hold(self, name: str, statistics: Any) -> bool:  # noqa: ANN401 - pyarrow's own
        """Tell whether a column chunk may hold a value wanted.

        Args:
            name: the column.
            statistics: what the footer says of the chunk; None if it says nothing.
        """
        values = self.values[name]
        if values is None or statistics is None or not statistics.has_min_max:
            return True
        at = bisect_left(values, statistics.min)
        return at < len(values) and values[at] <= statistics.max


def plan(footer: pq.FileMetaData, wanted: Wanted, shape: Shape = SEGMENT) -> list[Group]:
    """Choose the row groups of a file that may hold points wanted.

    Args:
        footer: the file's.
        wanted: the runs and keys.
        shape: the file's.

    Returns:
        The groups in the order of the file.
    """
    places = {footer.schema.column(place).name: place for place in range(footer.num_columns)}
    groups: list[Group] = []
    first_row = 0
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        texts, numbers = ({name: group.column(places[name]) for name in names} for names in shape)
        told = ((name, _statistics(footer, number, places[name])) for name in texts)
        if all(wanted.may_hold(name, statistics) for name, statistics in told):
            spans = _span(texts.values()), _span(numbers.values())
            groups.append(Group(number, first_row, group.num_rows, *spans))
        first_row += group.num_rows
    return groups


def _statistics(footer: pq.FileMetaData, group: int, place: int) -> Any:  # noqa: ANN401 - pyarrow's own
    """Return what a footer says of a column's values; of a damaged one, which fails when read."""
    try:
        return statistics_of(footer, group, place)
    except ValueError:
        return None


def stretches(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans of bytes that lie near each other: (start, end), ascending."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] <= _GAP_BYTES:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def pieces(key: str, start: int, end: int) -> list[Range]:
    """Cut a stretch of an object into ranges that are fetched in parallel.

    Args:
        key: the object.
        start: where the stretch begins.
        end: where it ends, not included.

    Returns:
        Ranges of up to `PIECE_BYTES`, in order.
    """
    return [Range(key, at, min(at + PIECE_BYTES, end)) for at in range(start, end, PIECE_BYTES)]


def find_rows(
    footer: pq.FileMetaData,
    groups: Sequence[Group],
    fetched: Mapping[int, bytes],
    wanted: Wanted,
    *,
    shape: Shape = SEGMENT,
    key: str,
) -> Hits:
    """Find the rows wanted from the texts of some row groups.

    Args:
        footer: the file's.
        groups: where to look.
        fetched: bytes of the file by where they begin, apart from each other; the texts of
            each group lie in one of them.
        wanted: the runs and keys.
        shape: the file's.
        key: the file's key, for messages.

    Returns:
        The rows, and the groups that hold any.

    Raises:
        FormatError: the bytes are damaged.
    """
    texts = _decode(footer, groups, fetched, shape.texts, key=key)
    kept = np.flatnonzero(_mask(texts, wanted))
    places = np.concatenate([np.arange(of.first_row, of.first_row + of.row_count) for of in groups])
    rows = places[kept]
    return Hits(
        groups=tuple(
            group
            for group in groups
            if np.searchsorted(rows, group.first_row)
            < np.searchsorted(rows, group.first_row + group.row_count)
        ),
        rows=rows,
        texts=_taken(texts.select(["run_id", "key"]), kept),
    )


def read_points(
    footer: pq.FileMetaData,
    hits: Hits,
    fetched: Mapping[int, bytes],
    *,
    shape: Shape = SEGMENT,
    key: str,
) -> pa.Table:
    """Decode the points wanted from the numbers of their row groups.

    Args:
        footer: the file's.
        hits: which rows, of which groups.
        fetched: as in `find_rows`, with the numbers of each group.
        shape: the file's.
        key: the file's key, for messages.

    Returns:
        shape (n, 6) or (n, 7): `run_id`, `key`, `step`, `timestamp`, `value`, `row`, the place
        in the file, and where the file says it `writer`.

    Raises:
        FormatError: the bytes are damaged.
    """
    numbers = _decode(footer, hits.groups, fetched, shape.numbers, key=key)
    counts = np.array([group.row_count for group in hits.groups])
    starts = np.array([group.first_row for group in hits.groups])
    owners = np.searchsorted(starts, hits.rows, side="right") - 1
    found = _taken(numbers, hits.rows - starts[owners] + (np.cumsum(counts) - counts)[owners])
    columns: list[Any] = [*hits.texts.columns, *found.columns, arrays.numbers(hits.rows)]
    names = ["run_id", "key", "step", "timestamp", "value", *shape.numbers[3:], "row"]
    return pa.Table.from_arrays(columns, names=names)


@final
class _Sparse(io.RawIOBase):
    """A file of which only some bytes are here; asking for any other raises."""

    def __init__(self, fetched: Mapping[int, bytes]) -> None:
        self._fetched = sorted(fetched.items())
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:  # only to learn the size, which the footer has told
            start, data = self._fetched[-1]
            self._at = start + len(data) + offset
        else:
            self._at = offset + (self._at if whence == io.SEEK_CUR else 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        place = bisect_left(self._fetched, self._at + 1, key=lambda item: item[0]) - 1
        if place >= 0:
            start, data = self._fetched[place]
            found = data[self._at - start : self._at - start + size]
            if 0 <= size == len(found):
                self._at += size
                return found
        message = f"bytes {self._at} to {self._at + size} were not fetched"
        raise OSError(message)


def _span(chunks: Iterable[Any]) -> tuple[int, int]:
    """Return where the bytes of column chunks begin and end, which lie side by side."""
    starts, ends = [], []
    for chunk in chunks:
        start = chunk.data_page_offset
        if chunk.has_dictionary_page:
            start = min(start, chunk.dictionary_page_offset)
        starts.append(start)
        ends.append(start + chunk.total_compressed_size)
    return min(starts), max(ends)


def _decode(
    footer: pq.FileMetaData,
    groups: Sequence[Group],
    fetched: Mapping[int, bytes],
    columns: Sequence[str],
    *,
    key: str,
) -> pa.Table:
    """Decode columns of row groups from bytes of the file."""
    try:
        file = pq.ParquetFile(
            pa.PythonFile(_Sparse(fetched), mode="r"),
            metadata=footer,
            pre_buffer=False,
            page_checksum_verification=True,
            read_dictionary=[name for name in columns if name in _TEXTS],
        )
        return file.read_row_groups([group.place for group in groups], columns=list(columns))
    except (pa.ArrowException, OSError, ValueError) as error:
        message = f"{key}: the rows cannot be read: {error}. `runlake verify` checks the lake."
        raise FormatError(message) from error


def _mask(texts: pa.Table, wanted: Wanted) -> NDArray[np.bool_]:
    """Tell of each row whether all its texts are wanted."""
    keep = np.ones(texts.num_rows, bool)
    for name, values in wanted.values.items():
        if values is None or name not in texts.column_names:
            continue
        known = arrays.strings(values)
        chunks: Any = texts[name].chunks
        start = 0
        for chunk in chunks:
            is_in: Any = pc.is_in(chunk.dictionary, value_set=known)
            flags = np.zeros(len(is_in), bool)
            flags[arrays.values(pc.indices_nonzero(is_in))] = True
            if not flags.all():
                keep[start : start + len(chunk)] &= flags[arrays.values(chunk.indices)]
            start += len(chunk)
    return keep


def _taken(table: pa.Table, places: NDArray[np.int64]) -> pa.Table:
    """Return the rows at ascending places; not copied where they lie in one piece."""
    if len(places) and places[-1] - places[0] + 1 == len(places):
        return table.slice(int(places[0]), len(places))
    return table.take(arrays.numbers(places))
