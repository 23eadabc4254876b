"""Writing compacted files: rows that come in order leave as row groups and files of good size.

A row group holds whole runs where they are short, and a long curve begins one of its own, so
that a curve is read without its neighbours; facts of one kind are read without the others. A
file ends between two runs where it can. What is held in memory is one row group and a little
more, however many rows there are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from runlake import schema
from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.standing import begins, coded
from runlake.storage.table_files import METRICS, arrow_schema, parquet_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

    from runlake.storage.table_files import Table, TableHeader
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pq = lazy("pyarrow.parquet")

FILE_BYTES: Final = 64 << 20
"""A file of this size ends at the next run."""
MOST_FILE_BYTES: Final = 120 << 20
"""A file of this size ends, also within a run."""
GROUP_TEXT_BYTES: Final = 4 << 20
"""A row group of so much text in `str` ends."""
FEW_ROWS: Final = 512
"""Facts of several kinds share a row group if there are fewer than these of each."""
LONG_SHARE: Final = 8
"""A curve, or a run, of this part of a row group begins one of its own."""


class Written(NamedTuple):
    """A finished file.

    Attributes:
        path: where it lies; whoever is told takes it away.
        rows: how many it holds.
        size_bytes: its length.
        least: the least owner of a row, empty ones aside.
        greatest: the greatest.
    """

    path: Path
    rows: int
    size_bytes: int
    least: str
    greatest: str


@final
class TableWriter:
    """Writes the rows of one table, which come in order, as local files."""

    def __init__(
        self,
        table: Table,
        header: TableHeader,
        folder: Path,
        *,
        finished: Callable[[Written], None],
        file_bytes: tuple[int, int] = (FILE_BYTES, MOST_FILE_BYTES),
    ) -> None:
        """Start with nothing; no file is made before there are rows for it.

        Args:
            table: which table.
            header: what each file says of itself; rows are counted here.
            folder: where files are made, one at a time.
            finished: called with each file that is whole.
            file_bytes: sizes at which a file ends between runs, and anywhere.
        """
        self.rows = 0
        self._table, self._header, self._folder = table, header, folder
        self._finished, self._file_bytes = finished, file_bytes
        self._pending: list[pa.Table] = []
        self._pending_rows = self._pending_text = 0
        self._file: _File | None = None
        self._file_count = 0

    def write(self, rows: pa.Table) -> None:
        """Take rows that follow those before, with the columns of `arrow_schema`."""
        self.rows += rows.num_rows
        self._pending.append(rows)
        self._pending_rows += rows.num_rows
        self._pending_text += _text_bytes(rows)
        if self._is_enough(self._pending_rows, self._pending_text):
            self._write_groups(is_end=False)

    def close(self) -> None:
        """Write what is left, and finish the last file."""
        if self._pending_rows:
            self._write_groups(is_end=True)
        if self._file is not None:
            self._finish(self._file)

    def _is_enough(self, rows: int, text_bytes: int) -> bool:
        """Tell whether it can be said where the next row group ends."""
        most = self._table.group_rows
        return rows >= most + most // LONG_SHARE or text_bytes >= 2 * GROUP_TEXT_BYTES

    def _write_groups(self, *, is_end: bool) -> None:
        rows = pa.concat_tables(self._pending)
        blocks = _Blocks(rows, self._table)
        start, count = 0, rows.num_rows
        while start < count and (
            is_end or self._is_enough(count - start, blocks.text_between(start, count))
        ):
            end = blocks.end_of_group(start)
            self._write_group(rows.slice(start, end - start))
            start = end
        self._pending = [rows.slice(start)]
        self._pending_rows = count - start
        self._pending_text = blocks.text_between(start, count)

    def _write_group(self, rows: pa.Table) -> None:
        """Write one row group, to a new file if the one before has its size."""
        columns: list[Any] = [
            _trimmed(column) if pa.types.is_dictionary(column.type) else column
            for column in rows.columns
        ]
        owners = columns[rows.column_names.index(self._table.owner)]
        first, last = str(owners[0].as_py()), str(owners[-1].as_py())
        least, greatest = _bounds(owners)
        file, (enough, most) = self._file, self._file_bytes
        if file is not None:
            size = file.sink.tell()
            if size >= most or (size >= enough and first != file.last):
                self._finish(file)
                file = None
        if file is None:
            path = self._folder / f"{self._table.name}-{self._file_count}.parquet"
            self._file_count += 1
            file = self._file = _File(path, self._table)
        file.write(pa.Table.from_arrays(columns, schema=arrow_schema(self._table)))
        file.least = min(filter(None, (file.least, least)), default="")
        file.greatest = max(file.greatest, greatest)
        file.last = last

    def _finish(self, file: _File) -> None:
        header = replace(self._header, rows=file.rows)
        size = file.close(header)
        self._file = None
        self._finished(Written(file.path, file.rows, size, file.least, file.greatest))


@final
class _File:
    """A file that is being written."""

    def __init__(self, path: Path, table: Table) -> None:
        self.path = path
        self.sink = pa.OSFile(str(path), "wb")
        self.rows = 0
        self.least = self.greatest = self.last = ""
        self._writer = pq.ParquetWriter(self.sink, arrow_schema(table), **parquet_options(table))

    def write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows, row_group_size=rows.num_rows)
        self.rows += rows.num_rows

    def close(self, header: TableHeader) -> int:
        """Write the footer; return the length of the file."""
        metadata: Any = {schema.FOOTER_KEY: header.encode()}
        self._writer.add_key_value_metadata(metadata)
        self._writer.close()
        size: int = self.sink.tell()
        self.sink.close()
        return size


@final
class _Blocks:
    """Where runs and curves begin in rows that are in order."""

    def __init__(self, rows: pa.Table, table: Table) -> None:
        self._most, self._count = table.group_rows, rows.num_rows
        starts = _Starts(rows)
        self._kinds = None if table.is_by_owner else starts.of(table.order[:1])
        self._owners = starts.of(table.order[: 1 if table.is_by_owner else 2])
        has_curves = table.name == METRICS.name
        self._curves = starts.of(["run_id", "key"]) if has_curves else self._owners
        self._text = np.cumsum(np.append(0, _text_sizes(rows)))

    def text_between(self, start: int, end: int) -> int:
        return int(self._text[end] - self._text[start])

    def end_of_group(self, start: int) -> int:
        """Return where the row group ends that begins at `start`."""
        fitting = np.searchsorted(self._text, self._text[start] + GROUP_TEXT_BYTES, "right") - 1
        end = min(self._count, start + self._most, max(start + 1, int(fitting)))
        if self._kinds is not None:
            end = self._end_of_kind(self._kinds, start, end)
        long = min((self._long(of, start, end) for of in (self._owners, self._curves)), default=end)
        if long < end or end == self._count:
            return long
        for starts in (self._owners, self._curves):
            last = int(starts[np.searchsorted(starts, end, "right") - 1])
            if last > start:
                return last
        return end

    def _end_of_kind(self, kinds: NDArray[np.int64], start: int, end: int) -> int:
        """Return where the first kind begins that is not few rows, or ends those, else `end`."""
        first, last = np.searchsorted(kinds, start, "right"), np.searchsorted(kinds, end)
        edges = kinds[first:last]
        behind = np.append(kinds, self._count)[first + 1 : last + 1] - edges
        is_many = (behind >= FEW_ROWS) | (np.diff(edges, prepend=start) >= FEW_ROWS)
        found = np.flatnonzero(is_many)
        return int(edges[found[0]]) if len(found) else end

    def _long(self, starts: NDArray[np.int64], start: int, end: int) -> int:
        """Return where the first long block begins behind `start` and before `end`, else `end`."""
        first, last = np.searchsorted(starts, start, "right"), np.searchsorted(starts, end)
        sizes = np.append(starts, self._count)[first + 1 : last + 1] - starts[first:last]
        found = np.flatnonzero(sizes >= self._most // LONG_SHARE)
        return int(starts[first + found[0]]) if len(found) else end


@final
class _Starts:
    """The places of the rows with which a new value of some columns begins."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self._known: dict[str, NDArray[np.bool_]] = {}

    def of(self, names: Sequence[str]) -> NDArray[np.int64]:
        is_start = self._of(names[0])
        for name in names[1:]:
            is_start = is_start | self._of(name)
        return np.flatnonzero(is_start)

    def _of(self, name: str) -> NDArray[np.bool_]:
        if name not in self._known:
            self._known[name] = begins(coded(self._rows[name]).codes)
        return self._known[name]


def _trimmed(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    """Return numbered texts without those that do not occur, which a file would keep."""
    found = coded(column)
    return pa.DictionaryArray.from_arrays(arrays.numbers(found.codes), found.values)


def _bounds(owners: Any) -> tuple[str, str]:  # noqa: ANN401 - a column or a trimmed one
    """Return the least text that is not empty, "" if all are, and the greatest."""
    is_trimmed = isinstance(owners, pa.DictionaryArray)
    distinct = owners.dictionary if is_trimmed else coded(owners).values
    texts: list[str] = [str(text) for text in distinct.to_pylist()]
    return min(filter(None, texts), default=""), max(texts)


def _text_sizes(rows: pa.Table) -> NDArray[np.int64]:
    """Return the bytes of `str` in each row."""
    if "str" not in rows.column_names or not rows.num_rows:
        return np.zeros(rows.num_rows, np.int64)
    sizes: Any = pc.binary_length(rows["str"]).combine_chunks()
    return np.where(arrays.is_valid(sizes), arrays.values(sizes), 0).astype(np.int64)


def _text_bytes(rows: pa.Table) -> int:
    return int(_text_sizes(rows).sum())
