"""One segment's footer as a reader keeps it: what it says of runs, and of itself.

Of the reserved partition the rows are kept too, because its facts stand in no footer.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import arrays, segments, tables
from runlake.storage.filed import are_among

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.storage.segments import Header
    from runlake.storage.snapshot import LiveSegment
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

# So many segments tell how long the footers of the others will be.
_SCOUTS: Final = 16
# As many bytes come over one connection while another request would wait for its answer.
_ROUND_TRIP_BYTES: Final = 512 << 10
# Fewer footers are read sooner than threads have begun.
_FEW: Final = 16
_THREADS: Final = 4
# Of what readers know of facts and summaries, the first columns: the writer and the experiment.
_OWNER: Final = 2


@dataclass(frozen=True, slots=True)
class Part:
    """What is kept of one segment.

    Attributes:
        header: what the segment says of itself.
        facts: as `State.facts`, ids and keys numbered.
        summaries: as `State.summaries`, ids and keys numbered.
        rows: of the reserved partition, all rows; else None.
    """

    header: Header
    facts: pa.Table
    summaries: pa.Table
    rows: pa.Table | None


def is_reserved(segment: LiveSegment) -> bool:
    """Tell whether a segment lies in the reserved partition."""
    return segment.name.experiment_id == schema.RESERVED_PARTITION


def first_asks(
    wanted: Sequence[LiveSegment], *, whole_bytes: int
) -> tuple[list[tuple[LiveSegment, int]], list[LiveSegment]]:
    """Choose how many last bytes to ask for of some segments first.

    Args:
        wanted: the segments whose footers are to be read.
        whole_bytes: a segment up to this size comes whole: its rows are then at hand, for the
            same round trip. Those of the reserved partition always do.

    Returns:
        Segments with the number of bytes; and those that wait until these have told, by
        `reach_of`, how long footers are.
    """
    asked, tailed = [], []
    for segment in wanted:
        if is_reserved(segment) or segment.entry.size_bytes <= whole_bytes:
            asked.append((segment, segment.entry.size_bytes))
        else:
            tailed.append(segment)
    apart = max(1, len(tailed) // _SCOUTS)
    asked += [(segment, segments.TAIL_BYTES) for segment in tailed[::apart]]
    return asked, [segment for place, segment in enumerate(tailed) if place % apart]


def reach_of(longer: Sequence[int], asked: int) -> int:
    """Choose how many last bytes of a segment to ask for.

    Args:
        longer: the lengths of the footers, in bytes, that a first request did not hold.
        asked: how many segments were asked for `TAIL_BYTES`.

    Returns:
        The length by which those asked would have cost least, where a second request costs as
        much as `_ROUND_TRIP_BYTES`; a little more, where that is longer than the first one.
    """

    def cost(reach: int) -> int:
        again = sum(_ROUND_TRIP_BYTES + size for size in longer if size > reach)
        return asked * reach + again

    best = min({segments.TAIL_BYTES, *longer}, key=cost)
    # Of the others, some are longer than any that was asked.
    return best if best == segments.TAIL_BYTES else best + best // 32


@contextmanager
def parse_all(
    batch: Sequence[LiveSegment], chunks: Sequence[bytes]
) -> Iterator[Iterable[Part | FormatError | int]]:
    """Read the footers of many segments, by several threads.

    Args:
        batch: the segments.
        chunks: the last bytes of each; of the reserved partition, all of them.

    Returns:
        For each segment what is kept of it; or why its footer cannot be read; or the length
        of the footer, where more bytes are needed.
    """
    if len(batch) < _FEW:
        yield map(_try_parse, batch, chunks)
        return
    # Most of the work is inflating, which other threads need not wait for.
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        yield pool.map(_try_parse, batch, chunks)


def _try_parse(segment: LiveSegment, data: bytes) -> Part | FormatError | int:
    """Read a footer; return why it cannot be read, or its length where more of it is needed."""
    try:
        needed = segments.footer_size(data, key=segment.entry.key)
        if len(data) < needed <= segment.entry.size_bytes:
            return needed
        return _parse(segment, data)
    except FormatError as error:
        return error


def _parse(segment: LiveSegment, data: bytes) -> Part:
    """Read a footer, and of the reserved partition the rows; check it against the name."""
    key, name = segment.entry.key, segment.name
    rows = None
    try:
        if is_reserved(segment):
            rows, footer = segments.decode(data, key=key)
        else:
            footer = segments.read_footer(data, key=key)
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        message = f"{key}: the footer cannot be read: {error}"
        raise FormatError(message) from error
    header = footer.header
    said = (header.experiment_id, header.writer, header.first, header.last, footer.row_count)
    named = (name.experiment_id, name.writer, name.first, name.last, name.count)
    if said != named:
        message = f"{key}: the footer says {said}, the name says {named}"
        raise FormatError(message)
    facts, summaries = footer.state.facts, footer.state.summaries
    return Part(
        header,
        _fitting(facts, _schemas()[0], key),
        _fitting(summaries, _schemas()[1], key),
        rows,
    )


@cache
def _schemas() -> tuple[pa.Schema, pa.Schema]:
    """Return what footers say of facts and summaries: not whose, which the names say."""
    facts, summaries = list(tables.facts_schema()), list(tables.summaries_schema())
    return pa.schema(facts[_OWNER:]), pa.schema(summaries[_OWNER:])


def _fitting(table: pa.Table, wanted: pa.Schema, key: str) -> pa.Table:
    """Return a table with exactly the columns that this version knows."""
    if table.schema.equals(wanted):
        return table
    try:
        return table.select(wanted.names).cast(wanted)
    except (KeyError, pa.ArrowException) as error:
        message = f"{key}: the state in the footer has other columns: {error}"
        raise FormatError(message) from error


def stacked(
    parts: Sequence[tuple[LiveSegment, pa.Table]], wanted: pa.Schema, purged: frozenset[str]
) -> tuple[pa.Table, list[int]]:
    """Put what many segments say one below the other.

    Args:
        parts: the segments, each with a table of what its footer says.
        wanted: the columns of the whole, writer and experiment first.
        purged: runs that are left out.

    Returns:
        All rows but those of purged runs; and how many of them are of each segment.
    """
    if not parts:
        return pa.Table.from_batches([], wanted), []
    counts = [table.num_rows for _, table in parts]
    # Texts with one numbering, in one piece: else each question asks each segment's anew.
    body = pa.concat_tables([table for _, table in parts]).unify_dictionaries()
    columns: list[Any] = [
        arrays.whole(column) if name in tables.NUMBERED else column
        for name, column in zip(body.schema.names, body.columns, strict=True)
    ]
    owner = np.repeat(np.arange(len(parts)), counts)
    names = [segment.name for segment, _ in parts]
    writers = _owned([name.writer for name in names], owner)
    homes = _owned([name.experiment_id for name in names], owner)
    table = pa.Table.from_arrays([writers, homes, *columns], schema=wanted)
    if purged:
        keep = ~are_among(table["run_id"], arrays.strings(sorted(purged)))
        if not keep.all():
            counts = np.bincount(owner[keep], minlength=len(counts)).tolist()
            table = table.filter(arrays.flags(keep))
    return table, counts


def _owned(texts: Sequence[str], owner: NDArray[np.int64]) -> pa.DictionaryArray[Any, Any]:
    """Return for each row the text of the segment that it came from."""
    values = list(dict.fromkeys(texts))
    places = {text: place for place, text in enumerate(values)}
    codes = np.array([places[text] for text in texts], np.int32)[owner]
    return pa.DictionaryArray.from_arrays(arrays.numbers(codes), arrays.strings(values))
