"""Merging sorted rows from several places, however many, a piece from each in memory.

Of all pieces at hand, what is not above the least of their last rows can be given out, because
nothing that is still to come is below it. So each step uses up one piece at least, and takes of
the others what belongs before its end.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, final

from runlake._lazy import lazy
from runlake.upkeep.fold import folded
from runlake.upkeep.order import in_order, ranks_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.storage.table_files import Table
else:
    pa = lazy("pyarrow")


def merged(table: Table, sources: Iterable[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """Merge rows that are in order into rows that are in order.

    Args:
        table: what they are rows of.
        sources: each gives rows in the table's order, in pieces; of a table that is folded,
            no two of one source agree in it.

    Yields:
        All rows in order, folded where the table is; never more at once than each source's
        pieces.
    """
    heads = [head for source in sources if (head := Head(table, source)).is_there]
    while len(heads) > 1:
        bound = min(head.last for head in heads)
        taken = [part for head in heads if (part := head.take(bound)).num_rows]
        yield from _joined(table, taken)
        heads = [head for head in heads if head.is_there]
    for head in heads:
        yield head.rest
        yield from head.source


def _joined(table: Table, parts: Sequence[pa.Table]) -> Iterator[pa.Table]:
    if len(parts) == 1:
        yield parts[0]
        return
    rows = pa.concat_tables(parts)
    if table.is_folded:
        yield folded(table, rows)
    else:
        # Taking rows of columns in many chunks is slow.
        rows = rows.unify_dictionaries().combine_chunks()
        yield from in_order(rows, table.order, size=table.group_rows)


@final
class Head:
    """What is at hand of one source: rows in order, taken away up to a place in it."""

    def __init__(self, table: Table, source: Iterator[pa.Table]) -> None:
        """Get the first piece.

        Args:
            table: what the rows are of.
            source: gives rows in the table's order, in pieces.
        """
        self.source = source
        self.rest = pa.Table.from_batches([], pa.schema([]))
        self._table = table
        self._columns: list[_Keys] = []
        self._at = 0
        self._fill()

    @property
    def is_there(self) -> bool:
        """Whether there are rows."""
        return bool(self.rest.num_rows)

    @property
    def last(self) -> tuple[Any, ...]:
        """The place in the order of the last row at hand."""
        return self._key(self._at + self.rest.num_rows - 1)

    def take(self, bound: tuple[Any, ...]) -> pa.Table:
        """Return the rows that are not above a place in the order, and take them away."""
        end = self._at + self.rest.num_rows
        count = bisect_right(range(self._at, end), bound, key=self._key)
        taken, self.rest = self.rest.slice(0, count), self.rest.slice(count)
        self._at += count
        if not self.rest.num_rows:
            self._fill()
        return taken

    def _fill(self) -> None:
        """Get the next piece that has rows."""
        for piece in self.source:
            if piece.num_rows:
                self.rest, self._at = piece, 0
                self._columns = [_Keys(piece[name]) for name in self._table.order]
                return

    def _key(self, row: int) -> tuple[Any, ...]:
        return tuple(column[row] for column in self._columns)


@final
class _Keys:
    """The values of one column as Python compares them."""

    def __init__(self, column: pa.ChunkedArray[Any]) -> None:
        self._column = column
        self._numbers: NDArray[Any] | None = None
        if pa.types.is_dictionary(column.type) or pa.types.is_string(column.type):
            return
        self._numbers = ranks_of(column)

    def __getitem__(self, row: int) -> Any:  # noqa: ANN401 - text or number
        if self._numbers is not None:
            return int(self._numbers[row])
        return self._column[row].as_py()
