"""From a snapshot to Arrow tables: footers of live segments and compacted states, in parallel.

What was read is kept in memory by key, so a newer snapshot costs reads of new objects only. Of
a far lake small objects, compacted states and the tails of large segments are also kept in the
local cache. What cannot be read is left out and reported; the rest is read all the same.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError, NewerFormatError, RunlakeWarning
from runlake.storage import arrays, ranges, rowobject, tables
from runlake.storage.compacted import CompactedState, read_state
from runlake.storage.filed import Filed
from runlake.storage.footers import Part, first_asks, is_reserved, parse_all, reach_of, stacked
from runlake.storage.points import PointFiles, batches, expired
from runlake.storage.standing import coded, standing
from runlake.storage.states import StateRows
from runlake.storage.table_files import EVENTS, FACTS, SUMMARIES, TABLES, WRITERS
from runlake.storage.tables import Problem, SnapshotTables

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.storage.cache import Cache
    from runlake.storage.filesystem import Filesystem, Range
    from runlake.storage.rowobject import RowObject
    from runlake.storage.snapshot import LiveSegment, Snapshot
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

# A far object up to this size comes whole: its rows are then at hand, for the same round trip.
_WHOLE_BYTES: Final = 256 << 10
# Most files of states that are held open.
_MAPPED_FILES: Final = 64
# Ranges of one gather: enough to fill every connection, few enough to keep what has come if
# one object is gone.
_GATHER: Final = 512

_T = TypeVar("_T")


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
        self._parts: dict[str, Part | Problem] = {}
        self._states: dict[str, pa.Table | CompactedState | Problem] = {}
        self._filed: dict[str, tuple[Any, Filed]] = {}
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
        self._refuse_unknown(snapshot)
        with self._lock:
            known = self._latest
            if known is not None and _same_objects(known[0], snapshot):
                loaded = _later(known[1], snapshot.taken_us)
                self._latest = snapshot, loaded
                return loaded
            self._read(snapshot.segments)
            self._read_states(rowobject.compacted_states(snapshot))
            loaded = self._assemble(snapshot)
            self._forget(snapshot)
            self._latest = snapshot, loaded
        return loaded

    def _refuse_unknown(self, snapshot: Snapshot) -> None:
        """Refuse tables of a kind unknown here, because an answer without them may be wrong."""
        unknown = sorted(snapshot.manifest.tables.keys() - TABLES.keys())
        if unknown:
            message = (
                f"{self._fs.url} holds compacted tables that this runlake does not know "
                f"({', '.join(unknown)}). Upgrade: pip install --upgrade runlake"
            )
            raise NewerFormatError(message, url=self._fs.url)

    def _read(self, wanted: Iterable[LiveSegment]) -> None:
        """Read the footers that are not in memory yet."""
        far = [segment for segment in wanted if segment.entry.key not in self._parts]
        if self._cache is not None:
            cache = self._cache
            far = [
                segment
                for batch in _batched(far, _GATHER)
                for segment in self._read_cached(cache, batch)
            ]
        asked, rest = first_asks(far, whole_bytes=_WHOLE_BYTES if self._cache is not None else 0)
        longer = self._read_tails(asked)
        # Footers of one lake are much alike: what some needed, the others are asked for at once.
        told = sum(size < segment.entry.size_bytes for segment, size in asked)
        reach = reach_of([size for _, size in longer], told)
        longer += self._read_tails([(segment, reach) for segment in rest])
        self._read_tails(longer)

    def _read_tails(
        self, wanted: Sequence[tuple[LiveSegment, int]]
    ) -> list[tuple[LiveSegment, int]]:
        """Read so many last bytes of each segment; return those that are longer, as needed."""
        longer: list[tuple[LiveSegment, int]] = []
        for pairs in _batched(wanted, _GATHER):
            batch = [segment for segment, _ in pairs]
            chunks = self._gather([segment.entry.tail(size) for segment, size in pairs])
            longer += self._settle_all(batch, chunks)
        return longer

    def _read_states(self, wanted: Iterable[RowObject]) -> None:
        """Read compacted states that are not in memory yet."""
        missing = [of for of in wanted if of.key not in self._states]
        if self._cache is None:
            for of in missing:
                self._keep_state(of, self._fs.local_file(of.key))
            return
        far = []
        for of in missing:
            path = self._cache.file(of.key, of.size_bytes)
            if path is None:
                far.append(of)
            else:
                self._keep_state(of, path)
        asked = [ranges.pieces(of.key, 0, of.size_bytes) for of in far]
        chunks = chain.from_iterable(map(self._gather, batches(chain.from_iterable(asked))))
        for of, pieces in zip(far, asked, strict=True):
            data = b"".join(next(chunks) for _ in pieces)
            self._keep_state(of, data)
            if not isinstance(self._states[of.key], Problem):
                self._cache.put(of.key, data)

    def _keep_state(self, of: RowObject, source: Path | bytes) -> None:
        """Keep a compacted state, or why there is none."""
        try:
            if of.table in {FACTS.name, SUMMARIES.name}:
                held = sum(getattr(state, "is_mapped", False) for state in self._states.values())
                may_map = held < _MAPPED_FILES
                self._states[of.key] = CompactedState(of, source, may_map=may_map)
            else:
                self._states[of.key] = read_state(of, source)
        except FileNotFoundError as error:
            raise expired(self._fs.url, error) from error
        except FormatError as error:
            self._states[of.key] = Problem(of.key, str(error))
            warnings.warn(
                f"{self._fs.url}: {error}. What this compacted file says of runs is left out of "
                "every answer; `runlake verify` checks the rest.",
                RunlakeWarning,
                stacklevel=6,
            )

    def _gather(self, ranges: Sequence[Range]) -> list[bytes]:
        """Fetch one range of each of many segments, all at once."""
        try:
            return self._fs.get_ranges(ranges)
        except FileNotFoundError as error:
            raise expired(self._fs.url, error) from error

    def _settle_all(
        self, batch: Sequence[LiveSegment], chunks: Sequence[bytes]
    ) -> list[tuple[LiveSegment, int]]:
        """Keep the footers of a batch; return those that are longer, with their length."""
        with parse_all(batch, chunks) as found:
            return self._keep(batch, chunks, found)

    def _read_cached(self, cache: Cache, batch: Sequence[LiveSegment]) -> list[LiveSegment]:
        """Read footers from the local cache; return the segments whose footer is not there."""
        missing, held, chunks = [], [], []
        for segment in batch:
            data = cache.read(segment.entry.key, segment.entry.size_bytes)
            if data is None and not is_reserved(segment):
                data = cache.read_tail(segment.entry.key)
            if data is None:
                missing.append(segment)
            else:
                held.append(segment)
                chunks.append(data)
        with parse_all(held, chunks) as parsed:
            for segment, found in zip(held, parsed, strict=True):
                if isinstance(found, NewerFormatError):
                    raise found
                if isinstance(found, Part):
                    self._parts[segment.entry.key] = found
                else:  # the disk of the cache is at fault before the store is
                    cache.drop(segment.entry.key)
                    missing.append(segment)
        return missing

    def _keep(
        self,
        batch: Sequence[LiveSegment],
        chunks: Sequence[bytes],
        parsed: Iterable[Part | FormatError | int],
    ) -> list[tuple[LiveSegment, int]]:
        """Keep footers, or why there is none; return those that are longer, with their length."""
        longer = []
        for segment, data, found in zip(batch, chunks, parsed, strict=True):
            key = segment.entry.key
            if isinstance(found, int):
                longer.append((segment, found))
            elif isinstance(found, NewerFormatError):
                raise found
            elif isinstance(found, FormatError):
                self._parts[key] = Problem(key, str(found))
                warnings.warn(
                    f"{self._fs.url}: {found}. The segment is left out of every answer; "
                    "`runlake verify` checks the rest.",
                    RunlakeWarning,
                    stacklevel=7,
                )
            else:
                self._parts[key] = found
                self._cache_footer(segment, data)
        return longer

    def _cache_footer(self, segment: LiveSegment, data: bytes) -> None:
        """Keep what was read of a far segment."""
        if self._cache is None:
            return
        if len(data) == segment.entry.size_bytes:
            self._cache.put(segment.entry.key, data)
        else:
            self._cache.put_tail(segment.entry.key, data)

    def _assemble(self, snapshot: Snapshot) -> SnapshotTables:
        """Put what is in memory side by side."""
        runs: list[tuple[LiveSegment, Part]] = []
        reserved: list[tuple[LiveSegment, Part]] = []
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
                (reserved if is_reserved(segment) else runs).append((segment, part))
        whole: dict[str, list[pa.Table]] = {}
        files: dict[str, list[CompactedState]] = {}
        for of in rowobject.compacted_states(snapshot):
            state = self._states[of.key]
            if isinstance(state, Problem):
                problems.append(state)
            elif isinstance(state, CompactedState):
                files.setdefault(of.table, []).append(state)
            else:
                whole.setdefault(of.table, []).append(state)
        purged = snapshot.manifest.purged
        facts, _ = stacked(
            [(segment, part.facts) for segment, part in runs], tables.facts_schema(), purged
        )
        live, counts = stacked(
            [(segment, part.summaries) for segment, part in runs],
            tables.summaries_schema(),
            purged,
        )
        return SnapshotTables(
            facts=StateRows(facts, self._filed_of(FACTS.name, files, snapshot)),
            summaries=StateRows(live, self._filed_of(SUMMARIES.name, files, snapshot)),
            writers=_writers(whole.get(WRITERS.name, []), runs),
            lake_events=_lake_events(whole.get(EVENTS.name, []), reserved, purged),
            points=PointFiles(
                self._fs,
                self._cache,
                tuple(rowobject.of_segment(segment) for segment, _ in runs),
                compacted=rowobject.compacted_rows(snapshot),
                counts=counts,
            ),
            now_us=snapshot.taken_us,
            stale_s=self._stale_s,
            root_url=self._fs.url,
            problems=tuple(problems),
            purged=tuple(sorted(purged)),
        )

    def _filed_of(
        self, table: str, files: Mapping[str, Sequence[CompactedState]], snapshot: Snapshot
    ) -> Filed:
        """Return the rows of compacted files: the same object until other files or runs count."""
        wanted = files.get(table, ()), snapshot.manifest.purged
        known = self._filed.get(table)
        if known is None or known[0] != wanted:
            schema_ = tables.facts_schema() if table == FACTS.name else tables.summaries_schema()
            known = wanted, Filed(schema_, wanted[0], hidden=wanted[1])
            self._filed[table] = known
        return known[1]

    def _forget(self, snapshot: Snapshot) -> None:
        """Drop from memory what the experiments of a snapshot no longer hold."""
        wanted = snapshot.experiment_ids
        if wanted is not None:
            wanted |= {schema.RESERVED_PARTITION}
        live = {segment.entry.key for segment in snapshot.segments}
        for key in [key for key in self._parts if key not in live]:
            if wanted is None or key.split("/")[1].removeprefix("experiment_id=") in wanted:
                del self._parts[key]
        for key in self._states.keys() - snapshot.manifest.paths():
            del self._states[key]


def _same_objects(one: Snapshot, other: Snapshot) -> bool:
    """Tell whether two snapshots say the same, but for their time."""
    return (
        one.segments == other.segments
        and one.manifest.number == other.manifest.number
        and one.holes == other.holes
        and one.experiment_ids == other.experiment_ids
    )


def _later(known: SnapshotTables, now_us: int) -> SnapshotTables:
    """Return what was loaded before as of now: the same object, unless a writer became stale."""
    times = arrays.values(known.writers["object_time_us"].combine_chunks())
    stale_us = int(known.stale_s * 1e6)
    if ((times >= known.now_us - stale_us) == (times >= now_us - stale_us)).all():
        return known
    return replace(known, now_us=now_us)


def _writers(compacted: Sequence[pa.Table], parts: Sequence[tuple[LiveSegment, Part]]) -> pa.Table:
    """Say of each writer who it is, from its newest segment or what was compacted last."""
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
    columns: Iterable[Sequence[Any]] = zip(*rows, strict=True) if rows else [()] * len(wanted)
    made = [
        arrays.strings(column)
        if pa.types.is_string(of.type)
        else arrays.numbers(np.array(column, np.int64))
        for column, of in zip(columns, wanted, strict=True)
    ]
    live = pa.Table.from_arrays(made, schema=wanted)
    if not compacted:
        return live
    known = pa.concat_tables(compacted)
    codes = coded(known["writer"]).codes.astype(np.int64)
    lasts = arrays.values(known["last"].combine_chunks())
    known = known.take(arrays.numbers(standing(codes, [lasts], latest=True)))
    is_live: Any = pc.is_in(known["writer"], value_set=live["writer"].combine_chunks())
    return pa.concat_tables([known.filter(pc.invert(is_live)), live])


def _lake_events(
    compacted: Sequence[pa.Table],
    parts: Sequence[tuple[LiveSegment, Part]],
    purged: frozenset[str],
) -> pa.Table:
    """Return the rows of the reserved partition, each once; of purged experiments none."""
    wanted = tables.lake_events_schema()
    stacked = [pa.Table.from_batches([], wanted), *compacted]
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
            "writer": arrays.strings([name.writer] * rows.num_rows),
            "seq": arrays.numbers(np.arange(name.first, name.last + 1)),
        }
        stacked.append(pa.table(columns).cast(wanted).slice(segment.skip_rows))
    rows = pa.concat_tables(stacked).combine_chunks()
    if not purged:
        return rows
    gone: Any = pc.is_in(rows["run_id"], value_set=arrays.strings(sorted(purged)))
    return rows.filter(pc.invert(gone))


def _batched(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
