"""Taking whole segments in, to give their rows and states out as tables.

A batch takes the segments of a snapshot one after another until it holds as much as memory may
hold, and then gives for each table the rows that go into it, unsorted. It takes of each writer
a contiguous run of rows that begins behind its watermark, and nothing of a segment but all of
it, so that the state in the footer is the state at the new watermark.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import arrays, segments
from runlake.storage.standing import coded
from runlake.storage.table_files import (
    EVENTS,
    FACTS,
    METRICS,
    SUMMARIES,
    TABLES,
    WRITERS,
    arrow_schema,
)
from runlake.upkeep.fold import folded

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    from runlake.storage.segments import Footer
    from runlake.storage.snapshot import LiveSegment
    from runlake.storage.table_files import Table
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

# What a row costs from its decoding to the end of its sorting, at the peak.
_ROW_BYTES: Final = 96
# States that are folded together now and then, because each repeats the one before.
_STATE_ROWS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Decoded:
    """A segment that was read whole.

    Attributes:
        segment: which.
        rows: those behind the watermark.
        footer: what it says of itself.
    """

    segment: LiveSegment
    rows: pa.Table
    footer: Footer

    @property
    def is_closed(self) -> bool:
        """Whether the writer has said that it ends."""
        return schema.CLOSE in self.footer.state.facts["kind"].unique().to_pylist()

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory until it is written."""
        state = self.footer.state
        texts: int = self.rows["str"].nbytes
        return self.rows.num_rows * _ROW_BYTES + 3 * texts + 3 * state.facts.nbytes


def decode(segment: LiveSegment, data: bytes) -> Decoded:
    """Read a segment.

    Args:
        segment: which; its first rows may be below the watermark.
        data: the whole file.

    Returns:
        The rows behind the watermark.

    Raises:
        FormatError: it is damaged, or not what its name says.
        NewerFormatError: a newer runlake wrote it.
    """
    name, key = segment.name, segment.entry.key
    rows, footer = segments.decode(data, key=key)
    header = footer.header
    said = (header.experiment_id, header.writer, header.first, header.last, rows.num_rows)
    named = (name.experiment_id, name.writer, name.first, name.last, name.count)
    if said != named:
        message = f"{key}: the footer says {said}, the name says {named}"
        raise FormatError(message)
    return Decoded(segment, rows.slice(segment.skip_rows), footer)


@final
class Batch:
    """Segments taken in, until their rows are written."""

    def __init__(
        self, purged: Collection[str] = (), *, only: Mapping[str, Collection[str]] | None = None
    ) -> None:
        """Start with nothing.

        Args:
            purged: runs whose rows are left out.
            only: for each writer the runs whose rows go in, and segments may be left out; None
                takes all that is not purged. What belongs to no run then stays out, but for
                the word that a writer has ended.
        """
        self._only = None if only is None else {of: frozenset(runs) for of, runs in only.items()}
        self.segments: list[LiveSegment] = []
        self.row_count = 0
        self.size_bytes = 0
        self.inputs: dict[str, tuple[int, int]] = {}
        self._purged = arrays.strings(sorted(purged)) if purged else None
        self._parts = {name: _Parts(table) for name, table in TABLES.items()}
        self._writers: dict[str, tuple[Any, ...]] = {}

    def add(self, found: Decoded) -> None:
        """Take a segment in; it begins where the one before of its writer ended.

        Args:
            found: the segment, its rows behind the watermark.

        Raises:
            FormatError: rows are missing before it.
        """
        segment, name = found.segment, found.segment.name
        self.segments.append(segment)
        self.size_bytes += found.size_bytes
        begin = name.first + segment.skip_rows
        first, last = self.inputs.get(name.writer, (begin, begin - 1))
        if begin != last + 1 and self._only is None:
            message = f"{name.key} begins at row {begin}, but row {last + 1} is to come"
            raise FormatError(message)
        self.inputs[name.writer] = first, name.last
        self._add_rows(found, begin)
        self._add_state(found)

    def rows_of(self, table: Table) -> pa.Table:
        """Return the rows that go into a table, and let go of them.

        Args:
            table: which; rows come unsorted, but for a table that is folded.
        """
        if table.name == WRITERS.name:
            return self._writer_rows()
        rows = self._parts.pop(table.name).joined()
        return folded(table, rows) if table.is_folded else rows

    def _add_rows(self, found: Decoded, begin: int) -> None:
        rows, writer = found.rows, found.segment.name.writer
        numbers = np.arange(begin, begin + rows.num_rows)
        kept = self._kept(rows, writer)
        if kept is not None:
            rows, numbers = rows.filter(arrays.flags(kept)), numbers[kept]
        self.row_count += rows.num_rows
        is_point = _are_points(rows)
        points = rows if is_point.all() else rows.filter(arrays.flags(is_point))
        self._parts[METRICS.name].add(points.rename_columns({"num": "value"}), writer)
        if points.num_rows < rows.num_rows:
            events = rows.filter(arrays.flags(~is_point))
            events = events.append_column("seq", arrays.numbers(numbers[~is_point]))
            self._parts[EVENTS.name].add(events, writer)

    def _add_state(self, found: Decoded) -> None:
        segment, header = found.segment, found.footer.header
        for table, rows in (
            (FACTS, found.footer.state.facts),
            (SUMMARIES, found.footer.state.summaries),
        ):
            kept = self._kept(rows, header.writer)
            if kept is not None and self._only is not None and table.name == FACTS.name:
                kinds = coded(rows["kind"])
                kept |= kinds.codes == kinds.code_of(schema.CLOSE)
            parts = self._parts[table.name]
            parts.add(rows if kept is None else rows.filter(arrays.flags(kept)), header.writer)
            if parts.new_rows > _STATE_ROWS:
                parts.put_back(folded(table, parts.joined()))
        self._writers[header.writer] = (
            header.writer,
            header.last,
            found.is_closed,
            header.experiment_name,
            header.host,
            header.pid,
            segment.entry.time_us,
        )

    def _kept(self, rows: pa.Table, writer: str) -> NDArray[np.bool_] | None:
        """Tell of each row whether it may stay; None if all may."""
        if not rows.num_rows:
            return None
        if self._only is not None:
            runs = coded(rows["run_id"])
            only = self._only[writer]
            return np.array([run in only for run in runs.values.to_pylist()], bool)[runs.codes]
        if self._purged is None:
            return None
        runs = coded(rows["run_id"])
        is_gone = pc.is_in(runs.values, value_set=self._purged).to_pylist()
        return ~np.array(is_gone, bool)[runs.codes] if any(is_gone) else None

    def _writer_rows(self) -> pa.Table:
        listed = [self._writers[writer] for writer in sorted(self._writers)]
        wanted = arrow_schema(WRITERS)
        columns = zip(*listed, strict=True) if listed else [()] * len(wanted)
        made = [
            arrays.numbers(np.array(column, np.int64))
            if field.type == pa.int64()
            else arrays.flags(np.array(column, bool))
            if field.type == pa.bool_()
            else arrays.strings(list(column)).cast(field.type)
            for column, field in zip(columns, wanted, strict=True)
        ]
        return pa.Table.from_arrays(made, schema=wanted)


def _are_points(rows: pa.Table) -> NDArray[np.bool_]:
    """Tell of each row whether it is a metric point as the table of points holds them."""
    if not rows.num_rows:
        return np.zeros(0, bool)
    is_point = _are_metrics(rows["kind"])
    for name, is_there in (("step", True), ("num", True), ("str", False)):
        column: Any = rows[name]
        if column.null_count == (0 if is_there else len(column)):
            continue
        is_point &= arrays.is_valid(column.combine_chunks()) == is_there
    return is_point


def _are_metrics(kinds: pa.ChunkedArray[Any]) -> NDArray[np.bool_]:
    chunks: Any = kinds.chunks
    if all(chunk.dictionary.to_pylist() == [schema.METRIC] for chunk in chunks):
        return np.ones(len(kinds), bool)  # as in most segments, and much sooner
    found = coded(kinds)
    is_metric: NDArray[np.bool_] = found.codes == found.code_of(schema.METRIC)
    return is_metric


@final
class _Parts:
    """Rows for one table, as they come from segments.

    Attributes:
        new_rows: rows that came since `put_back`.
    """

    def __init__(self, table: Table) -> None:
        self.new_rows = 0
        self._schema = arrow_schema(table)
        self._columns: dict[str, list[Any]] = {name: [] for name in self._schema.names}
        self._writers: list[str] = []
        self._counts: list[int] = []

    def add(self, rows: pa.Table, writer: str) -> None:
        """Take rows of one writer: the columns of the table but for the writer's."""
        if not rows.num_rows:
            return
        self.new_rows += rows.num_rows
        self._writers.append(writer)
        self._counts.append(rows.num_rows)
        for name, chunks in self._columns.items():
            if name != "writer":
                chunks.extend(rows[name].chunks)

    def put_back(self, rows: pa.Table) -> None:
        """Take rows of any writers, which were given out before."""
        for name, chunks in self._columns.items():
            chunks.extend(rows[name].chunks)
        self.new_rows = 0

    def joined(self) -> pa.Table:
        """Give all rows out, in whole columns, letting go of each column's parts."""
        if self._counts:
            writers = coded(pa.chunked_array([arrays.strings(self._writers)]))
            owners = arrays.numbers(np.repeat(writers.codes, self._counts))
            of = pa.DictionaryArray.from_arrays(owners, writers.values)
            self._columns["writer"].append(of)
        if not self._columns["writer"]:
            return self._schema.empty_table()
        made = []
        for field in self._schema:
            made.append(_whole(self._columns[field.name], field.type))
            self._columns[field.name] = []
        self._writers, self._counts = [], []
        return pa.Table.from_arrays(made, schema=self._schema)


def _whole(chunks: list[Any], kind: pa.DataType) -> Any:  # noqa: ANN401 - an array of any type
    """Return the parts of a column as one array."""
    if len({chunk.type for chunk in chunks}) > 1:  # some were given out before
        chunks = [chunk.cast(kind) for chunk in chunks]
    return pa.chunked_array(chunks).cast(kind).unify_dictionaries().combine_chunks()
