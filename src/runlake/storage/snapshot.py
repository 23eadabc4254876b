"""A snapshot: the fixed set of objects that one reader sees.

For each writer a snapshot holds a contiguous prefix of its rows, each exactly once. It is
found from names alone: list the log, *then* find the newest manifest, and from its watermark
on take the segment that holds the next row and reaches farthest. Snapshots of one `Snapshots`
never go back. The normative text is `docs/spec/v1.md`, "Take a snapshot".
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

from runlake import schema
from runlake.errors import DataLossWarning, RunlakeWarning, StateError, StorageError
from runlake.storage import layout, manifest
from runlake.storage.manifest import Manifest
from runlake.storage.watermarks import Watermarks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from runlake.storage.filesystem import Entry, Filesystem
    from runlake.storage.layout import SegmentName

LISTINGS_AGAIN: Final = 3  # a hole that three more listings show is no accident of listing
_MANIFEST_TRIES: Final = 5
# One request a partition up to here, the reserved one among them; beyond it one listing of the
# whole log is cheaper.
_PARTITION_LISTINGS: Final = 9
_LAST_BYTES: Final = 8


class SnapshotExpiredError(StateError, FileNotFoundError):
    """An object of this snapshot is gone: replaced by its writer, or vacuumed. Take another."""

    kind = "snapshot-expired"


class Stream(NamedTuple):
    """The rows of one writer in one partition."""

    experiment_id: str
    writer: str


@dataclass(frozen=True, slots=True)
class LiveSegment:
    """A segment of a snapshot.

    Attributes:
        entry: the object, as listed.
        name: what its key says.
        skip_rows: rows at its beginning that a manifest or an earlier segment already holds.
    """

    entry: Entry
    name: SegmentName
    skip_rows: int


@dataclass(frozen=True, slots=True)
class Hole:
    """A row that is not there although later rows of its writer are.

    Attributes:
        experiment_id: the partition.
        writer: whose row it is.
        sequence: its sequence number.
    """

    experiment_id: str
    writer: str
    sequence: int


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The set of objects that one reader sees, fixed when it was taken.

    Attributes:
        experiment_ids: the experiments asked for, None for all.
        segments: the live segments by partition, writer and sequence number; those of the
            reserved partition are always among them.
        manifest: the newest manifest; number 0 stands for none.
        lasts: for each writer with a live segment its last row that is seen.
        holes: where a row is missing; the rows of that writer behind it are not seen.
        taken_us: the store's clock, microseconds since 1970, UTC.
    """

    experiment_ids: frozenset[str] | None
    segments: tuple[LiveSegment, ...]
    manifest: Manifest
    lasts: Mapping[str, int]
    holes: tuple[Hole, ...]
    taken_us: int

    @property
    def is_complete(self) -> bool:
        """Whether every object that was listed is seen."""
        return not self.holes

    def holds(self, experiment_id: str) -> bool:
        """Tell whether a partition is part of it."""
        return (
            self.experiment_ids is None
            or experiment_id in self.experiment_ids
            or experiment_id == schema.RESERVED_PARTITION
        )


@dataclass(frozen=True, slots=True)
class _Cover:
    """What is taken of one stream."""

    chosen: tuple[LiveSegment, ...]
    last: int
    hole: int | None


_Listing = dict[Stream, dict["SegmentName", "Entry"]]


def choose(
    names: Iterable[SegmentName], watermark: int = manifest.NOTHING_CONSUMED
) -> tuple[list[tuple[SegmentName, int]], int | None]:
    """Choose the segments that hold each row of one writer behind its watermark exactly once.

    Args:
        names: segments of one writer and one partition, in any order.
        watermark: sequence number of the last row that is read elsewhere.

    Returns:
        The names chosen, ascending, each with the number of rows to skip at its beginning; and
        the first row that is missing although a later one is there, None if none is missing.
    """
    waiting = sorted(names, key=lambda name: name.first)
    chosen: list[tuple[SegmentName, int]] = []
    following = watermark + 1
    best: SegmentName | None = None
    position = 0
    while True:
        while position < len(waiting) and waiting[position].first <= following:
            best = _better(best, waiting[position])
            position += 1
        if best is None or best.last < following:
            return chosen, following if position < len(waiting) else None
        chosen.append((best, following - best.first))
        following = best.last + 1


def _better(one: SegmentName | None, other: SegmentName) -> SegmentName:
    """Return the segment that reaches farther; among equals the one that covers the other."""
    if one is None:
        return other
    return max(one, other, key=lambda name: (name.last, name.count, name.merged))


@final
class Snapshots:
    """Takes the snapshots of one reader, and sees to it that they never go back."""

    def __init__(self, fs: Filesystem, *, lake: str) -> None:
        """Start without memory.

        Args:
            fs: the lake's storage.
            lake: its id.
        """
        self._fs = fs
        self._manifest = Manifest(lake=lake)
        self._watermarks = Watermarks(fs, self._manifest)
        self._seen: dict[Stream, _Cover] = {}
        self._holes: dict[Stream, int] = {}
        self._lock = threading.Lock()

    def take(
        self, experiment_ids: Collection[str] | None = None, *, is_bare: bool = False
    ) -> Snapshot:
        """Take a snapshot: two listings, and a read of the newest manifest if it is new.

        A writer that was compacted long ago and has a segment nevertheless (it runs for long,
        or was recovered late) costs one read of each cold file that may know it.

        Args:
            experiment_ids: the experiments wanted, None for all. The reserved partition is
                always read.
            is_bare: leave the reserved partition out: a listing less, for those who count
                objects and answer no question.

        Returns:
            The newest state that the store shows.

        Raises:
            StorageError: the store cannot be read.
            FormatError: the newest manifest is damaged or another lake's.
            NewerFormatError: a newer runlake wrote something that must be understood.
        """
        wanted = None if experiment_ids is None else frozenset(experiment_ids)
        for _ in range(_MANIFEST_TRIES):
            try:
                return self._take(wanted, is_bare=is_bare)
            except FileNotFoundError:  # a cold file: a newer manifest has come, without it
                continue
        message = (
            f"the watermarks of {self._fs.url} are named but cannot be found, {_MANIFEST_TRIES} "
            "times. Try again; `runlake verify` tells more."
        )
        raise StorageError(message, url=self._fs.url)

    def _take(self, wanted: frozenset[str] | None, *, is_bare: bool) -> Snapshot:
        listed = wanted if wanted is None or is_bare else wanted | {schema.RESERVED_PARTITION}
        # Listed before the manifest is read: a segment that is consumed and vacuumed in between
        # is then in the manifest; the other way round it would be in neither.
        listing = self._list_log(listed)
        found = self._newest_manifest()
        covers = self._cover(listing, found, listed)
        for _ in range(LISTINGS_AGAIN):
            doubtful = {stream.experiment_id for stream in self._doubtful(covers)}
            if not doubtful:
                break
            fresh = self._list_partitions(doubtful)
            kept = {stream: of for stream, of in listing.items() if stream[0] not in doubtful}
            listing = kept | fresh
            found = self._newest_manifest()
            covers = self._cover(listing, found, listed)
        doubtful_streams = self._doubtful(covers)
        watermarks = self._watermarks_of(found, doubtful_streams)
        for stream in doubtful_streams:
            covers[stream] = self._settle(stream, listing.get(stream, {}), watermarks[stream])
        self._remember(covers)
        return self._snapshot(covers, found, wanted)

    def _list_log(self, wanted: frozenset[str] | None) -> _Listing:
        """List the log of partitions, of all where `wanted` is None."""
        if wanted is None or len(wanted) > _PARTITION_LISTINGS:
            listing = _sort_out(self._fs.list(layout.LOG))
            return {stream: of for stream, of in listing.items() if _is_wanted(stream, wanted)}
        return self._list_partitions(wanted)

    def _list_partitions(self, experiment_ids: Collection[str]) -> _Listing:
        listing: _Listing = {}
        for experiment_id in sorted(experiment_ids):
            listing |= _sort_out(self._fs.list(layout.partition(experiment_id)))
        return listing

    def _newest_manifest(self) -> Manifest:
        """Find the newest manifest; an older one than was seen before is never taken."""
        for _ in range(_MANIFEST_TRIES):
            entries = self._fs.list(layout.MANIFESTS)
            numbers = [layout.parse_manifest(entry.key) for entry in entries]
            number = max((number for number in numbers if number is not None), default=0)
            if number == self._manifest.number:
                return self._manifest
            if number < self._manifest.number:  # a torn listing, or a network disk that lags
                continue
            key = layout.manifest(number)
            try:
                data = self._fs.get(key)
            except FileNotFoundError:  # a newer one has come, and this one was vacuumed
                continue
            read = manifest.decode(
                data, number=number, key=key, lake=self._manifest.lake, url=self._fs.url
            )
            with self._lock:
                if read.number > self._manifest.number:
                    self._manifest = read
                return self._manifest
        if self._manifest.number:
            return self._manifest
        message = (
            f"the manifests of {self._fs.url} are listed but cannot be found, "
            f"{_MANIFEST_TRIES} times. Try again; `runlake verify` tells more."
        )
        raise StorageError(message, url=self._fs.url)

    def _cover(
        self, listing: _Listing, found: Manifest, wanted: frozenset[str] | None
    ) -> dict[Stream, _Cover]:
        """Choose segments for every stream that is listed or was seen before."""
        seen = [stream for stream in list(self._seen) if _is_wanted(stream, wanted)]
        streams = dict.fromkeys([*listing, *seen])
        watermarks = self._watermarks_of(found, streams)
        return {stream: _cover(listing.get(stream, {}), watermarks[stream]) for stream in streams}

    def _watermarks_of(self, found: Manifest, streams: Iterable[Stream]) -> dict[Stream, int]:
        """Return how far each stream is compacted."""
        with self._lock:
            if self._watermarks.manifest is not found:
                self._watermarks = Watermarks(self._fs, found)
            known = self._watermarks
        by_experiment: dict[str, list[str]] = {}
        for stream in streams:
            by_experiment.setdefault(stream.experiment_id, []).append(stream.writer)
        return {
            Stream(experiment_id, writer): last
            for experiment_id, writers in by_experiment.items()
            for writer, last in known.of(experiment_id, writers).items()
        }

    def _doubtful(self, covers: Mapping[Stream, _Cover]) -> list[Stream]:
        """Return the streams that have a hole not known yet, or show less than before."""
        return [
            stream
            for stream, cover in covers.items()
            if (cover.hole is not None and cover.hole != self._holes.get(stream))
            or (stream in self._seen and cover.last < self._seen[stream].last)
        ]

    def _settle(self, stream: Stream, listed: dict[SegmentName, Entry], watermark: int) -> _Cover:
        """Decide about a stream that more listings did not mend."""
        cover, before = _cover(listed, watermark), self._seen.get(stream)
        if before is not None and cover.last < before.last:
            remembered = {segment.name: segment.entry for segment in before.chosen}
            if self._is_there(remembered.values()):
                return _cover(remembered | listed, watermark)
            warnings.warn(
                f"writer {stream.writer} of experiment {stream.experiment_id} had "
                f"{before.last + 1} rows in {self._fs.url} when last read, and now shows "
                f"{cover.last + 1}: objects were taken away. Was the lake restored or edited?",
                DataLossWarning,
                stacklevel=4,
            )
            with self._lock:
                self._seen.pop(stream, None)
        if cover.hole is not None and cover.hole != self._holes.get(stream):
            warnings.warn(
                f"row {cover.hole} of writer {stream.writer} of experiment "
                f"{stream.experiment_id} is not in {self._fs.url}, though later rows are; these "
                "are left out until it comes. `runlake recover` on its host may bring it.",
                RunlakeWarning,
                stacklevel=4,
            )
        return cover

    def _is_there(self, entries: Iterable[Entry]) -> bool:
        """Tell whether all objects can still be read."""
        try:
            self._fs.get_ranges([entry.tail(_LAST_BYTES) for entry in entries])
        except FileNotFoundError:
            return False
        return True

    def _remember(self, covers: Mapping[Stream, _Cover]) -> None:
        with self._lock:
            for stream, cover in covers.items():
                seen = self._seen.get(stream)
                if not cover.chosen:  # all consumed: the manifest's watermark remembers it
                    self._seen.pop(stream, None)
                elif seen is None or cover.last >= seen.last:
                    self._seen[stream] = cover
                if cover.hole is None:
                    self._holes.pop(stream, None)
                else:
                    self._holes[stream] = cover.hole

    def _snapshot(
        self, covers: Mapping[Stream, _Cover], found: Manifest, wanted: frozenset[str] | None
    ) -> Snapshot:
        ordered = sorted(covers.items())
        return Snapshot(
            experiment_ids=wanted,
            segments=tuple(segment for _, cover in ordered for segment in cover.chosen),
            manifest=found,
            lasts={stream.writer: cover.last for stream, cover in ordered if cover.chosen},
            holes=tuple(
                Hole(*stream, cover.hole) for stream, cover in ordered if cover.hole is not None
            ),
            taken_us=self._fs.now_us(),
        )


def _sort_out(entries: Iterable[Entry]) -> _Listing:
    """Group a listing by stream; what is no segment is passed over (`verify` reports it)."""
    listing: _Listing = {}
    for entry in entries:
        name = layout.parse_segment(entry.key)
        if name is not None:
            listing.setdefault(Stream(name.experiment_id, name.writer), {})[name] = entry
    return listing


def _is_wanted(stream: Stream, wanted: frozenset[str] | None) -> bool:
    return wanted is None or stream.experiment_id in wanted


def _cover(listed: Mapping[SegmentName, Entry], watermark: int) -> _Cover:
    """Choose the segments of one stream, with their entries."""
    chosen, hole = choose(listed, watermark)
    return _Cover(
        chosen=tuple(LiveSegment(listed[name], name, skip) for name, skip in chosen),
        last=chosen[-1][0].last if chosen else watermark,
        hole=hole,
    )
