"""Whether the segments of a lake are whole, and hold of each writer all that they must."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError, NewerFormatError
from runlake.storage import arrays, layout, segments
from runlake.storage.filesystem import Range
from runlake.storage.snapshot import Stream, choose
from runlake.upkeep.checks.chunks import distrusted, strange_columns, untrue_statistics
from runlake.upkeep.checks.findings import CONSUMED, DAMAGED, HOLE, NEWER, SUPERSEDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from runlake.storage.filesystem import Entry, Filesystem
    from runlake.storage.layout import SegmentName
    from runlake.upkeep.checks.findings import Notebook
    from runlake.upkeep.checks.state_check import ArtifactBook
else:
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pq = lazy("pyarrow.parquet")

_BATCH_BYTES: Final = 64 << 20


class Segment(NamedTuple):
    """A segment in a listing."""

    name: SegmentName
    entry: Entry


def listed(entries: Iterable[Entry]) -> list[Segment]:
    """Return the segments of a listing."""
    return [Segment(name, entry) for entry in entries if (name := layout.parse_segment(entry.key))]


def check_segments(
    fs: Filesystem, found: Sequence[Segment], book: Notebook, artifacts: ArtifactBook
) -> int:
    """Read every segment whole.

    Args:
        fs: the lake's storage.
        found: all of them.
        book: where findings go.
        artifacts: where words on artifacts go.

    Returns:
        How many rows they have.

    Raises:
        StorageError: the store cannot be read.
    """
    row_count = 0
    for batch in _batches(found):
        for segment, data in _read(fs, batch):
            if data is None:
                continue
            rows = _whole(segment.name, data, book)
            book.count(segment.entry.size_bytes)
            if rows is not None:
                row_count += rows.num_rows
                _note_artifacts(segment.name, rows, artifacts)
    return row_count


def _whole(name: SegmentName, data: bytes, book: Notebook) -> pa.Table | None:
    """Return the rows of a segment; None, and why, if it is not whole."""
    rows: pa.Table | None = None
    try:
        with distrusted():
            rows, footer = segments.decode(data, key=name.key)
            problem = _problem(name, rows, footer.header) or _untrue_footer(data, rows)
    except NewerFormatError as error:
        book.say(name.key, NEWER, str(error))
        return None
    except FormatError as error:
        problem = str(error)
    if problem:
        book.say(name.key, DAMAGED, problem)
        return None
    return rows


def _problem(name: SegmentName, rows: pa.Table, header: segments.Header) -> str | None:
    """Tell why a segment is not what its name and its header say."""
    said = (header.experiment_id, header.writer, header.first, header.last, rows.num_rows)
    named = (name.experiment_id, name.writer, name.first, name.last, name.count)
    if said != named:
        return f"the footer says {said}, the name says {named}"
    if segments.digest(rows) != header.digest:
        return "the rows are not those that the footer's digest was made of"
    return None


def _untrue_footer(data: bytes, rows: pa.Table) -> str | None:
    found = pq.read_metadata(pa.BufferReader(data))
    problem = strange_columns(found, segments.segment_schema())
    start = 0
    for group in range(found.num_row_groups):
        count = found.row_group(group).num_rows
        problem = problem or untrue_statistics(found, group, rows.slice(start, count))
        start += count
    return problem


def _note_artifacts(name: SegmentName, rows: pa.Table, artifacts: ArtifactBook) -> None:
    is_one = pc.equal(rows["kind"].cast(pa.string()), arrays.text(schema.ARTIFACT))
    places: list[Any] = pc.indices_nonzero(is_one).to_pylist()
    if places:
        seqs = [name.first + place for place in places]
        writers = [name.writer] * len(seqs)
        artifacts.add(name.experiment_id, rows.take(places), writers, seqs)


def check_streams(
    found: Iterable[Segment], watermark: Callable[[Stream], int | None], book: Notebook
) -> None:
    """Check from names alone that no row is missing, and say what is superfluous.

    Args:
        found: all segments.
        watermark: tells how far a stream is compacted; None where that is not known.
        book: where findings go.
    """
    for stream, names in streams(segment.name for segment in found).items():
        last = watermark(stream)
        if last is None:
            continue
        chosen, hole = choose(names, last)
        if hole is not None:
            prefix = f"{layout.partition(stream.experiment_id)}{stream.writer}"
            detail = f"row {hole} is in no segment, though later rows are; readers stop before it"
            book.say(prefix, HOLE, detail)
        live = {name for name, _ in chosen}
        for name in names:
            if name.last <= last:
                book.say(name.key, CONSUMED, f"its rows up to {last} are compacted")
            elif name not in live and any(other.covers(name) for other in live):
                book.say(name.key, SUPERSEDED, "another segment holds the same rows")


def streams(names: Iterable[SegmentName]) -> Mapping[Stream, list[SegmentName]]:
    """Return the segments of each writer in each partition."""
    found: dict[Stream, list[SegmentName]] = {}
    for name in names:
        found.setdefault(Stream(name.experiment_id, name.writer), []).append(name)
    return found


def _read(fs: Filesystem, batch: Sequence[Segment]) -> Iterator[tuple[Segment, bytes | None]]:
    """Read segments whole, at once; None for those that are gone."""
    try:
        ranges = [Range(each.entry.key, 0, each.entry.size_bytes) for each in batch]
        yield from zip(batch, fs.get_ranges(ranges), strict=True)
    except FileNotFoundError:  # replaced since it was listed: one by one, to find which
        for each in batch:
            try:
                yield each, fs.get(each.entry.key)
            except FileNotFoundError:
                yield each, None


def _batches(found: Iterable[Segment]) -> Iterator[list[Segment]]:
    """Cut into batches that fit into memory."""
    batch: list[Segment] = []
    size = 0
    for each in found:
        if batch and size + each.entry.size_bytes > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += each.entry.size_bytes
    if batch:
        yield batch
