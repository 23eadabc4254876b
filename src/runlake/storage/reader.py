"""From a snapshot to Arrow tables: the footers of all live segments, read in parallel.

Footers are kept in memory by key, so a newer snapshot costs reads of new segments only. Of a
far lake small objects and the tails of large ones are also kept in the local cache. A segment
that cannot be read is left out and reported; the rest is read all the same.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError, NewerFormatError, RunlakeWarning
from runlake.storage import segments, tables
from runlake.storage.filesystem import Range
from runlake.storage.points import PointFiles, expired
from runlake.storage.state import fact_schema, summary_schema
from runlake.storage.tables import Problem, SnapshotTables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.storage.cache import Cache
    from runlake.storage.filesystem import Filesystem
    from runlake.storage.segments import Header
    from runlake.storage.snapshot import LiveSegment, Snapshot
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

# A far object up to this size comes whole: its rows are then at hand, for the same round trip.
_WHOLE_BYTES: Final = 256 << 10
# Ranges of one gather: enough to fill every connection, few enough to keep what has come if
# one object is gone.
_GATHER: Final = 512

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Part:
    """What is kept of one segment."""

    header: Header
    facts: pa.Table
    summaries: pa.Table
    rows: pa.Table | None  # of the reserved partition only


@final
class Reader:
    """Reads snapshots of one lake, and remembers what it has read."""

    def __init__(self, fs: Filesystem, cache: Cache | None, *, stale_s: float) -> None:
        """Start without memory.

        Args:
            fs: the lake's storage.
            cache: where far objects are kept; None for a local lake, whose files are used as
                they lie.
            stale_s: handed on to queries.
        """
        self._fs = fs
        self._cache = cache
        self._stale_s = stale_s
        self._parts: dict[str, _Part | Problem] = {}
        self._latest: tuple[Snapshot, SnapshotTables] | None = None
        self._lock = threading.Lock()

    def load(self, snapshot: Snapshot) -> SnapshotTables:
        """Read what a snapshot knows of its runs.

        Args:
            snapshot: what to read.

        Returns:
            The tables; the files with the rows are fetched when they are asked for.

        Raises:
            SnapshotExpiredError: an object is gone; take another snapshot.
            StorageError: the store cannot be read.
            NewerFormatError: a newer runlake wrote something that must be understood.
        """
        self._refuse_compacted(snapshot)
        with self._lock:
            known = self._latest
            if known is not None and _same_objects(known[0], snapshot):
                return replace(known[1], now_us=snapshot.taken_us)
            self._read(snapshot.segments)
            loaded = self._assemble(snapshot)
            self._forget(snapshot)
            self._latest = snapshot, loaded
        return loaded

    def _refuse_compacted(self, snapshot: Snapshot) -> None:
        """Refuse what this version cannot read, because an answer without it would be wrong."""
        wanted = snapshot.experiment_ids
        for files in snapshot.manifest.tables.values():
            for file in files:
                if wanted is None or file.experiment_id in wanted | {schema.RESERVED_PARTITION}:
                    message = (
                        f"{self._fs.url} holds compacted tables ({file.path}), which this runlake "
                        "does not read. Upgrade: pip install --upgrade runlake"
                    )
                    raise NewerFormatError(message, url=self._fs.url)

    def _read(self, wanted: Iterable[LiveSegment]) -> None:
        """Read the footers that are not in memory yet."""
        far = [
            segment
            for segment in wanted
            if segment.entry.key not in self._parts and not self._read_cached(segment)
        ]
        longer: list[tuple[LiveSegment, int]] = []
        for batch in _batched(far, _GATHER):
            for segment, data in self._gather(batch, [self._first_range(of) for of in batch]):
                missing = self._settle(segment, data)
                if missing is not None:
                    longer.append((segment, missing))
        for pairs in _batched(longer, _GATHER):
            ranges = [_last(segment, size) for segment, size in pairs]
            for segment, data in self._gather([segment for segment, _ in pairs], ranges):
                self._settle(segment, data)

    def _first_range(self, segment: LiveSegment) -> Range:
        """Return the bytes to ask for first: the tail, or all of it where that is as quick."""
        size = segment.entry.size_bytes
        is_small = self._cache is not None and size <= _WHOLE_BYTES
        return _last(segment, size if is_small or _is_reserved(segment) else segments.TAIL_BYTES)

    def _gather(
        self, wanted: Sequence[LiveSegment], ranges: Sequence[Range]
    ) -> Iterator[tuple[LiveSegment, bytes]]:
        """Fetch one range of each segment, all at once."""
        try:
            chunks = self._fs.get_ranges(ranges)
        except FileNotFoundError as error:
            raise expired(self._fs.url, error) from error
        return zip(wanted, chunks, strict=True)

    def _read_cached(self, segment: LiveSegment) -> bool:
        """Read a footer from the local cache; False if it is not there."""
        if self._cache is None:
            return False
        key = segment.entry.key
        data = self._cache.read(key, segment.entry.size_bytes)
        if data is None and not _is_reserved(segment):
            data = self._cache.read_tail(key)
        if data is None:
            return False
        try:
            self._parts[key] = _parse(segment, data)
        except NewerFormatError:
            raise
        except FormatError:  # the disk of the cache is at fault before the store is
            self._cache.drop(key)
            return False
        return True

    def _settle(self, segment: LiveSegment, data: bytes) -> int | None:
        """Keep a segment's footer, or why there is none; return its length if it is longer."""
        key, size = segment.entry.key, segment.entry.size_bytes
        try:
            needed = segments.footer_size(data, key=key)
            if len(data) < needed <= size:
                return needed
            self._parts[key] = _parse(segment, data)
        except NewerFormatError:
            raise
        except FormatError as error:
            self._parts[key] = Problem(key, str(error))
            warnings.warn(
                f"{self._fs.url}: {error}. The segment is left out of every answer; "
                "`runlake verify` checks the rest.",
                RunlakeWarning,
                stacklevel=6,
            )
            return None
        if self._cache is not None:
            if len(data) == size:
                self._cache.put(key, data)
            else:
                self._cache.put_tail(key, data)
        return None

    def _assemble(self, snapshot: Snapshot) -> SnapshotTables:
        """Put what is in memory side by side."""
        runs: list[tuple[LiveSegment, _Part]] = []
        reserved: list[tuple[LiveSegment, _Part]] = []
        problems = [
            Problem(
                f"log/experiment_id={hole.experiment_id}/{hole.writer}",
                f"row {hole.sequence} is missing; later rows of this writer are left out",
            )
            for hole in snapshot.holes
        ]
        for segment in snapshot.segments:
            part = self._parts[segment.entry.key]
            if isinstance(part, Problem):
                problems.append(part)
            else:
                (reserved if _is_reserved(segment) else runs).append((segment, part))
        purged = snapshot.manifest.purged
        return SnapshotTables(
            facts=_stack(runs, lambda part: part.facts, tables.facts_schema(), purged),
            summaries=_stack(runs, lambda part: part.summaries, tables.summaries_schema(), purged),
            writers=_writers(runs),
            lake_events=_lake_events(reserved),
            points=PointFiles(self._fs, self._cache, tuple(segment for segment, _ in runs)),
            now_us=snapshot.taken_us,
            stale_s=self._stale_s,
            root_url=self._fs.url,
            problems=tuple(problems),
            purged=tuple(sorted(purged)),
        )

    def _forget(self, snapshot: Snapshot) -> None:
        """Drop from memory what the experiments of a snapshot no longer hold."""
        wanted = snapshot.experiment_ids
        if wanted is not None:
            wanted |= {schema.RESERVED_PARTITION}
        live = {segment.entry.key for segment in snapshot.segments}
        for key in [key for key in self._parts if key not in live]:
            if wanted is None or key.split("/")[1].removeprefix("experiment_id=") in wanted:
                del self._parts[key]


def _same_objects(one: Snapshot, other: Snapshot) -> bool:
    """Tell whether two snapshots say the same, but for their time."""
    return (
        one.segments == other.segments
        and one.manifest.number == other.manifest.number
        and one.holes == other.holes
        and one.experiment_ids == other.experiment_ids
    )


def _is_reserved(segment: LiveSegment) -> bool:
    return segment.name.experiment_id == schema.RESERVED_PARTITION


def _last(segment: LiveSegment, size: int) -> Range:
    """Return the range of the last `size` bytes of a segment."""
    end = segment.entry.size_bytes
    return Range(segment.entry.key, max(0, end - size), end)


def _parse(segment: LiveSegment, data: bytes) -> _Part:
    """Read a footer, and of the reserved partition the rows; check it against the name."""
    key, name = segment.entry.key, segment.name
    rows = None
    try:
        if _is_reserved(segment):
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
    facts = _fitting(footer.state.facts, _schemas()[0], key)
    return _Part(header, facts, _fitting(footer.state.summaries, _schemas()[1], key), rows)


@cache
def _schemas() -> tuple[pa.Schema, pa.Schema]:
    return fact_schema(), summary_schema()


def _fitting(table: pa.Table, wanted: pa.Schema, key: str) -> pa.Table:
    """Return a table with exactly the columns that this version knows."""
    if table.schema.equals(wanted):
        return table
    try:
        return table.select(wanted.names).cast(wanted)
    except (KeyError, pa.ArrowException) as error:
        message = f"{key}: the state in the footer has other columns: {error}"
        raise FormatError(message) from error


def _stack(
    parts: Sequence[tuple[LiveSegment, _Part]],
    table_of: Callable[[_Part], pa.Table],
    wanted: pa.Schema,
    purged: frozenset[str],
) -> pa.Table:
    """Put the tables of many segments one below the other, with writer and experiment."""
    if not parts:
        return wanted.empty_table()
    stacked = [table_of(part) for _, part in parts]
    body = pa.concat_tables(stacked).combine_chunks()
    lengths = np.array([table.num_rows for table in stacked])
    owner = pa.array(np.repeat(np.arange(len(parts)), lengths), pa.int64())
    names = [segment.name for segment, _ in parts]
    columns: list[Any] = [
        pa.array([name.writer for name in names], pa.string()).take(owner),
        pa.array([name.experiment_id for name in names], pa.string()).take(owner),
        *body.columns,
    ]
    table = pa.Table.from_arrays(columns, schema=wanted)
    if purged:
        runs = pa.array(sorted(purged), pa.string())
        table = table.filter(pc.invert(pc.is_in(table["run_id"], value_set=runs)))
    return table


def _writers(parts: Sequence[tuple[LiveSegment, _Part]]) -> pa.Table:
    """Say of each writer who it is, from its newest segment."""
    newest = {segment.name.writer: (segment, part.header) for segment, part in parts}
    rows = [
        (
            writer,
            segment.name.experiment_id,
            header.experiment_name,
            segment.name.last,
            segment.entry.time_us,
            header.host,
            header.pid,
        )
        for writer, (segment, header) in newest.items()
    ]
    wanted = tables.writers_schema()
    columns = zip(*rows, strict=True) if rows else [()] * len(wanted)
    arrays = [pa.array(column, of.type) for column, of in zip(columns, wanted, strict=True)]
    return pa.Table.from_arrays(arrays, schema=wanted)


def _lake_events(parts: Sequence[tuple[LiveSegment, _Part]]) -> pa.Table:
    """Return the rows of the reserved partition, each once."""
    wanted = tables.lake_events_schema()
    stacked = [wanted.empty_table()]
    for segment, part in parts:
        rows = part.rows
        if rows is None:
            continue
        name = segment.name
        columns: dict[str, Any] = {
            "run_id": rows["run_id"],
            "kind": rows["kind"],
            "key": rows["key"],
            "clock": rows["timestamp"].cast(pa.int64()),
            "num": rows["num"],
            "str": rows["str"],
            "writer": pa.array([name.writer] * rows.num_rows, pa.string()),
            "seq": pa.array(np.arange(name.first, name.last + 1)),
        }
        stacked.append(pa.table(columns).cast(wanted).slice(segment.skip_rows))
    return pa.concat_tables(stacked).combine_chunks()


def _batched(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
