"""The points of one run on their way: few in memory, many in a local file, counted as they pass."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.importers import tally
from runlake.importers.source import Note, SourceError, point_schema
from runlake.writing import values

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from runlake.importers.tally import Tally
else:
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pq = lazy("pyarrow.parquet")

HELD_ROWS: Final = 1 << 19
"""More points of one run than this go to a local file."""


class Spool:
    """All points of one run, to be read as often as one likes.

    Attributes:
        tallies: what was counted, by key.
        row_count: how many points there are.
        first_us: time of the earliest, microseconds since 1970, UTC; None without points.
        last_us: of the latest.
        notes: what does not fit into a lake.
    """

    def __init__(self, given: Iterable[pa.Table], folder: Path) -> None:
        """Read the points.

        Args:
            given: as a source gives them.
            folder: for the file, if there are many; it is the caller's to delete.

        Raises:
            SourceError: the columns are not what they should be.
            OSError: the disk is full.
        """
        self.tallies: dict[str, Tally] = {}
        self.row_count = 0
        self.first_us: int | None = None
        self.last_us: int | None = None
        self.notes: list[Note] = []
        self._held: list[pa.Table] = []
        self._file = folder / "points.parquet"
        self._writer: pq.ParquetWriter | None = None
        self._refused: Counter[str] = Counter()
        self._checked: dict[str, str | None] = {}
        try:
            for table in given:
                self._take(table)
        finally:
            self._close()
        for key, count in self._refused.items():
            self.notes.append(Note(f"metric left out: {self._checked[key]}", key[:80], count))

    def pieces(self, rows: int) -> Iterator[pa.Table]:
        """Yield the points in the order of the source.

        Args:
            rows: of each table but the last.
        """
        waiting: list[pa.Table] = []
        count = 0
        for table in self._tables():
            start = 0
            while count + table.num_rows - start >= rows:
                taken = rows - count
                yield pa.concat_tables([*waiting, table.slice(start, taken)])
                waiting, count, start = [], 0, start + taken
            if start < table.num_rows:
                waiting.append(table.slice(start))
                count += table.num_rows - start
        if count:
            yield pa.concat_tables(waiting)

    def all(self) -> pa.Table:
        """Return all points; only of a run that has few."""
        tables = list(self._tables())
        return pa.concat_tables(tables) if tables else point_schema().empty_table()

    def drop(self) -> None:
        """Delete the file."""
        self._held = []
        self._file.unlink(missing_ok=True)

    def _tables(self) -> Iterator[pa.Table]:
        yield from self._held
        if not self._file.exists():
            return
        with pq.ParquetFile(self._file) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group).cast(point_schema())

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _take(self, given: pa.Table) -> None:
        table = self._named(_checked(given))
        if not table.num_rows:
            return
        self.tallies = tally.joined((self.tallies, tally.tallies(table)))
        self.row_count += table.num_rows
        self._date(table)
        if self._writer is None and self.row_count <= HELD_ROWS:
            self._held.append(table)
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, point_schema(), compression="zstd")
            for each in self._held:
                self._writer.write_table(each)
            self._held = []
        self._writer.write_table(table)

    def _date(self, table: pa.Table) -> None:
        """Take in when points were."""
        times: Any = pc.min_max(table["timestamp"].cast(pa.int64()))
        first, last = times["min"].as_py(), times["max"].as_py()
        self.first_us = first if self.first_us is None else min(first, self.first_us)
        self.last_us = last if self.last_us is None else max(last, self.last_us)

    def _named(self, table: pa.Table) -> pa.Table:
        """Leave out points under keys that no lake takes, and remember how many."""
        counts: Any = pc.value_counts(table["key"])
        bad = []
        for each in counts.to_pylist():
            key = each["values"]
            if key not in self._checked:
                self._checked[key] = _refusal(key)
            if self._checked[key] is not None:
                self._refused[key] += each["counts"]
                bad.append(key)
        if not bad:
            return table
        return table.filter(pc.invert(pc.is_in(table["key"], value_set=pa.array(bad))))


def _refusal(key: str) -> str | None:
    """Tell why a lake does not take a metric's key, None if it does."""
    try:
        values.name("metric", key)
    except InvalidInputError as error:
        return str(error).partition(":")[0]
    return None


def _checked(table: pa.Table) -> pa.Table:
    """Return a table with exactly the columns of points.

    Raises:
        SourceError: it has others, or nulls.
    """
    shape = point_schema()
    try:
        found = table.select(shape.names).cast(shape)
    except (KeyError, pa.ArrowException) as error:
        raise SourceError(f"points have the columns {shape.names}: {error}") from error
    for name in shape.names:
        if found[name].null_count:
            message = f"{found[name].null_count} points have no {name}."
            raise SourceError(message)
    return found
