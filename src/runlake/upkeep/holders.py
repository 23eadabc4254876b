"""Where the rows of runs lie: which objects of a lake hold bytes of them, exactly.

All that is listed is looked at, not only what a snapshot shows: what was replaced and is not
deleted yet holds bytes as well. Bounds and footers say which objects need not be read. What is
held in memory is a few objects at a time, and what was found.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import layout, segments
from runlake.storage.table_files import WRITERS, statistics_of, values_among
from runlake.upkeep.ripe import has_ended, is_settled
from runlake.upkeep.sources import local

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq

    from runlake.storage.filesystem import Entry, Filesystem, Range
    from runlake.storage.layout import SegmentName
    from runlake.storage.manifest import Manifest, TableFile
    from runlake.storage.segments import Footer
    from runlake.storage.snapshot import LiveSegment
else:
    pa = lazy("pyarrow")
    pq = lazy("pyarrow.parquet")

_GATHER: Final = 256
_TRIES: Final = 5


class Tail(NamedTuple):
    """The end of a segment.

    Attributes:
        name: the segment.
        entry: its object.
        footer: what it says of itself.
        runs: the run ids of its rows lie between these two; None where it has none.
    """

    name: SegmentName
    entry: Entry
    footer: Footer
    runs: tuple[str, str] | None

    def stated(self) -> set[str]:
        """Return the runs of which its state speaks."""
        state = self.footer.state
        found: set[str] = set()
        for rows in (state.facts, state.summaries):
            found |= texts(rows["run_id"])
        return found - {""}


class HeldSegment(NamedTuple):
    """A segment that holds some of the runs.

    Attributes:
        name: which.
        run_ids: which of them.
        host: of its writer.
        pid: likewise.
        has_ended: whether the writer has said that it ends.
    """

    name: SegmentName
    run_ids: frozenset[str]
    host: str
    pid: int
    has_ended: bool


@dataclass(slots=True)
class Holders:
    """What holds some runs.

    Attributes:
        segments: of the log, read by anybody or not.
        files: keys of compacted files, named by the newest manifest or not, with the runs in
            each.
        unread: keys of objects that cannot be read, with the reason.
        partitions: all that were looked at, whether they hold anything or not.
    """

    segments: list[HeldSegment] = field(default_factory=list)
    files: dict[str, set[str]] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    partitions: set[str] = field(default_factory=set)

    def by_partition(self) -> dict[str, set[str]]:
        """Return for each partition that holds any of the runs which."""
        found: dict[str, set[str]] = {}
        for segment in self.segments:
            found.setdefault(segment.name.experiment_id, set()).update(segment.run_ids)
        for key, run_ids in self.files.items():
            name = layout.parse_table_file(key)
            if name is not None:
                found.setdefault(name.experiment_id, set()).update(run_ids)
        return found

    @property
    def run_ids(self) -> set[str]:
        """The runs that are held by anything."""
        return set().union(*self.by_partition().values())


@final
class Search:
    """Looks for runs in the objects of a lake."""

    def __init__(self, fs: Filesystem, run_ids: Collection[str]) -> None:
        """Ask for some runs; nothing is read yet.

        Args:
            fs: the lake's storage.
            run_ids: the runs.
        """
        self._fs = fs
        self._wanted = sorted(run_ids)
        self._known: dict[str, set[str]] = {}

    def everywhere(self, newest: Manifest) -> Holders:
        """Look at all objects.

        Args:
            newest: the newest manifest; its bounds spare the reading of most files.

        Returns:
            What holds the runs.

        Raises:
            StorageError: the store cannot be read.
            NewerFormatError: a newer runlake wrote something that must be understood.
        """
        found = Holders()
        for _ in range(_TRIES):
            # The log first: what is compacted and vacuumed in between then stands in tables.
            is_whole = self._look_at_log(found)
            if self._look_at_tables(found, newest) and is_whole:
                return found
            found = Holders()
        self._look_at_log(found)
        self._look_at_tables(found, newest)
        return found

    def _look_at_log(self, found: Holders) -> bool:
        """Look at segments; tell whether all that were listed were there."""
        entries = [
            (name, entry)
            for entry in self._fs.list(layout.LOG)
            if (name := layout.parse_segment(entry.key)) is not None
        ]
        found.partitions |= {name.experiment_id for name, _ in entries}
        seen = 0
        for tail in tails(self._fs, entries, unread=found.unread):
            seen += 1
            run_ids = self._in_segment(tail, found.unread)
            if run_ids:
                header, ended = tail.footer.header, has_ended(tail.footer)
                held = frozenset(run_ids)
                found.segments.append(HeldSegment(tail.name, held, header.host, header.pid, ended))
        return seen + len(found.unread) >= len(entries)

    def _look_at_tables(self, found: Holders, newest: Manifest) -> bool:
        """Look at compacted files; tell whether all that were listed were there."""
        named = {file.path: file for files in newest.tables.values() for file in files}
        is_whole = True
        for entry in self._fs.list(layout.TABLES):
            file = layout.parse_table_file(entry.key)
            if file is None:
                continue
            found.partitions.add(file.experiment_id)
            try:
                run_ids = self.in_file(entry.key, named.get(entry.key))
            except FileNotFoundError:  # vacuumed since it was listed: others hold its rows
                is_whole = False
                continue
            except FormatError as error:
                found.unread[entry.key] = str(error)
                continue
            if run_ids:
                found.files[entry.key] = run_ids
        return is_whole

    def in_file(self, key: str, said: TableFile | None) -> set[str]:
        """Return which of the runs a compacted file holds.

        Args:
            key: the file.
            said: what a manifest says of it.

        Raises:
            FileNotFoundError: it is gone.
            StorageError: the store cannot be read.
            FormatError: it is damaged.
        """
        name = layout.parse_table_file(key)
        if name is None or name.table == WRITERS.name:
            return set()
        if key not in self._known:
            asked = self._wanted if said is None else self._between(said.min_run, said.max_run)
            self._known[key] = self._read(key, asked) if asked else set()
        return self._known[key]

    def _read(self, key: str, asked: Sequence[str]) -> set[str]:
        with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
            path = local(self._fs, key, Path(folder) / "file.parquet")
            return values_among(path, "run_id", asked, key=key)

    def _in_segment(self, tail: Tail, unread: dict[str, str]) -> set[str]:
        found = tail.stated() & set(self._wanted)
        if tail.runs is None or found.issuperset(asked := self._between(*tail.runs)):
            return found
        key = tail.entry.key
        try:
            rows, _ = segments.decode(self._fs.get(key), key=key)
        except FileNotFoundError:  # replaced: what replaced it is looked at, now or next time
            return found
        except FormatError as error:
            unread[key] = str(error)
            return found
        return found | (texts(rows["run_id"]) & set(asked))

    def _between(self, least: str, greatest: str) -> Sequence[str]:
        """Return the runs wanted from one to another."""
        start = bisect_left(self._wanted, least)
        end = bisect_left(self._wanted, greatest + "\0", start)
        return self._wanted[start:end]


def tails(
    fs: Filesystem,
    entries: Iterable[tuple[SegmentName, Entry]],
    *,
    unread: dict[str, str],
) -> Iterator[Tail]:
    """Read the ends of segments, many at once; those that are gone are passed over.

    Args:
        fs: the lake's storage.
        entries: the segments.
        unread: gets those that cannot be read, with the reason.

    Yields:
        One each, in order.

    Raises:
        StorageError: the store cannot be read.
        NewerFormatError: a newer runlake wrote one.
    """
    listed = list(entries)
    for start in range(0, len(listed), _GATHER):
        batch = listed[start : start + _GATHER]
        chunks = fetched(fs, [entry.tail(segments.TAIL_BYTES) for _, entry in batch])
        for (name, entry), data in zip(batch, chunks, strict=True):
            if data is None:
                continue
            try:
                tail = _tail(fs, name, entry, data)
            except FileNotFoundError:
                continue
            except FormatError as error:
                unread[entry.key] = str(error)
                continue
            yield tail


def is_stated(
    fs: Filesystem, live: Sequence[LiveSegment], run_ids: Collection[str], *, now_us: int
) -> bool:
    """Tell whether a segment that its writer will not replace speaks of some runs.

    Args:
        fs: the lake's storage.
        live: segments, of each writer in their order.
        run_ids: the runs.
        now_us: the store's clock.

    Raises:
        StorageError: the store cannot be read.
    """
    newest = {each.name.writer: each for each in live}
    entries = [(each.name, each.entry) for each in live]
    settled = {
        each.name
        for each in live
        if newest[each.name.writer] is not each or is_settled(each, now_us=now_us)
    }
    return any(
        (tail.name in settled or has_ended(tail.footer)) and not tail.stated().isdisjoint(run_ids)
        for tail in tails(fs, entries, unread={})
    )


def fetched(fs: Filesystem, ranges: Sequence[Range]) -> list[bytes | None]:
    """Return the bytes of ranges; None for those of objects that are gone.

    Args:
        fs: the lake's storage.
        ranges: what is wanted.

    Raises:
        StorageError: the store cannot be read.
    """
    try:
        return list(fs.get_ranges(ranges))
    except FileNotFoundError:  # one by one, to find which
        found: list[bytes | None] = []
        for wanted in ranges:
            try:
                found += fs.get_ranges([wanted])
            except FileNotFoundError:
                found.append(None)
        return found


def texts(column: pa.ChunkedArray[Any]) -> set[str]:
    """Return the distinct texts of a column without nulls."""
    found: list[Any] = column.unique().to_pylist()
    return set(found)


def _tail(fs: Filesystem, name: SegmentName, entry: Entry, data: bytes) -> Tail:
    size = segments.footer_size(data, key=entry.key)
    if size > len(data):
        (data,) = fs.get_ranges([entry.tail(size)])
    footer = segments.read_footer(data, key=entry.key)
    return Tail(name, entry, footer, _bounds(data, key=entry.key))


def _bounds(data: bytes, *, key: str) -> tuple[str, str] | None:
    """Return the least and greatest run id of a segment's rows; None where it has none."""
    found = pq.read_metadata(pa.BufferReader(data))
    names = [found.schema.column(place).name for place in range(found.num_columns)]
    place = names.index(schema.SEGMENT_COLUMNS[0][0])
    try:
        said = [statistics_of(found, group, place) for group in range(found.num_row_groups)]
    except ValueError as error:
        message = f"{key}: the footer cannot be read: {error}"
        raise FormatError(message) from error
    if any(each is None or not each.has_min_max for each in said):
        return "", "\U0010ffff"
    if not said:
        return None
    return min(each.min for each in said), max(each.max for each in said)
