"""Vacuum: take away what no reader can need any more, and nothing else.

What is in use is decided by numbers and names: a compacted file by the manifests that name it,
a segment by watermarks or by a whole segment that covers it. Clocks only add a grace for those
who began to read before; they are the store's. The normative text is `docs/spec/v1.md`,
"Vacuum".
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, final

from runlake.errors import FormatError
from runlake.storage import layout, manifests, segments
from runlake.storage.filesystem import Range
from runlake.storage.watermarks import Watermarks
from runlake.upkeep import GRACE_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runlake.storage.filesystem import Entry, Filesystem, Leftovers
    from runlake.storage.layout import SegmentName
    from runlake.storage.manifest import Manifest

KEPT_MANIFESTS: Final = 100
"""So many of the newest manifests stay, whatever their age."""

# Why something goes.
CONSUMED: Final = "consumed"
SUPERSEDED: Final = "superseded"
DROPPED: Final = "dropped"
OLD: Final = "old"
UPLOAD: Final = "upload"

# So long an upload that was interrupted may be gone on with.
_UPLOAD_GRACE_S: Final = 24 * 3600.0
_END_OF_TIME_US: Final = 2**63 - 1
_LAST_BYTES: Final = 8
_BATCH: Final = 1000


@dataclass(frozen=True, slots=True)
class Removed:
    """One object that goes, or would.

    Attributes:
        key: below the lake's root.
        size_bytes: its length.
        reason: `consumed` (a segment whose rows are compacted), `superseded` (a segment that
            another covers), `dropped` (a compacted file that no manifest in force names),
            `old` (a manifest) or `upload` (what an interrupted upload has left).
    """

    key: str
    size_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What a vacuum took away, or would take away.

    Attributes:
        removed: by key.
        is_dry_run: nothing was deleted.
    """

    removed: tuple[Removed, ...]
    is_dry_run: bool

    @property
    def size_bytes(self) -> int:
        """Bytes that are free now, or would be."""
        return sum(removed.size_bytes for removed in self.removed)


def vacuum(
    fs: Filesystem,
    *,
    lake: str,
    experiment_id: str | None = None,
    grace_s: float = GRACE_S,
    is_dry_run: bool = True,
) -> Vacuumed:
    """Take away what no reader needs any more, and what interrupted uploads have left.

    Any number of these may work at once, beside writers, compactors and readers. A reader that
    has held a snapshot for longer than the grace may find an object gone, and says so.

    Args:
        fs: the lake's storage.
        lake: its id.
        experiment_id: one experiment and the manifests only; None for all.
        grace_s: how long what was replaced stays, in seconds of the store's clock; 0 for not
            at all, which is safe for the lake and may stop readers in the middle of an answer.
            What an upload has left stays for a day in any case: the upload may be under way.
        is_dry_run: say only what would go.

    Returns:
        What went, or would go.

    Raises:
        StorageError: the store cannot be read or written.
        FormatError: a file that the newest manifest names is missing, or a manifest is damaged,
            another lake's, or newer. Nothing was deleted.
    """
    found = _Vacuum(fs, lake, experiment_id, int(grace_s * 1e6)).find()
    left = _leftovers(fs, grace_s) if experiment_id is None else []
    if not is_dry_run:
        fs.sweep(left)
        keys = [removed.key for removed in found]
        for start in range(0, len(keys), _BATCH):
            fs.delete_many(keys[start : start + _BATCH])
    found += [Removed(each.key, each.size_bytes, UPLOAD) for each in left]
    return Vacuumed(tuple(sorted(found, key=lambda removed: removed.key)), is_dry_run)


def _leftovers(fs: Filesystem, grace_s: float) -> Leftovers:
    """Return what uploads have left that nobody went on with for the grace, or for a day.

    Without a grace too: what looks left may be a file that somebody writes at this moment.
    """
    left = fs.leftovers()
    if not left:
        return []
    old_us = fs.now_us() - int(max(grace_s, _UPLOAD_GRACE_S) * 1e6)
    return [each for each in left if each.time_us <= old_us]


@final
class _Vacuum:
    """One look at a lake."""

    def __init__(self, fs: Filesystem, lake: str, experiment_id: str | None, grace_us: int) -> None:
        self._fs, self._lake, self._experiment_id = fs, lake, experiment_id
        # Listed before the newest manifest is found: what is named later has a greater number.
        self._log = fs.list(
            layout.LOG if experiment_id is None else layout.partition(experiment_id)
        )
        self._tables = fs.list(layout.TABLES)
        self._newest, self._manifests = manifests.newest_of(fs, lake=lake)
        # Without a grace no clock is asked: those of some stores have whole seconds.
        self._old_us = fs.now_us() - grace_us if grace_us > 0 else _END_OF_TIME_US

    def find(self) -> list[Removed]:
        """Return what may go."""
        self._refuse_gaps()
        found = self._superseded_segments()
        if self._newest.number:
            found += self._consumed_segments()
            found += self._dropped_files()
            found += self._old_manifests()
        return list({removed.key: removed for removed in found}.values())

    def _refuse_gaps(self) -> None:
        """Refuse to delete anything where the newest manifest names what is not there."""
        there = {entry.key for entry in self._tables}
        for path in sorted(self._newest.paths() - there):
            try:  # it may have come since the listing
                self._fs.get_ranges([Range(path, 0, _LAST_BYTES)])
            except FileNotFoundError as error:
                if path not in manifests.newest(self._fs, lake=self._lake).paths():
                    continue  # dropped and vacuumed since
                message = (
                    f"ALARM: {self._fs.url}/{path} is missing, though manifest "
                    f"{self._newest.number} names it: rows are lost unless it is brought back. "
                    "Nothing was deleted. `runlake verify` tells what else is wrong."
                )
                raise FormatError(message, url=self._fs.url) from error

    def _superseded_at(self) -> dict[int, int]:
        """Return for each manifest but the last when the next one came."""
        return {one.number: following.time_us for one, following in pairwise(self._manifests)}

    def _in_force(self) -> Iterable[Manifest]:
        """Yield the newest manifest, and those that were superseded within the grace."""
        yield self._newest
        for number, time_us in self._superseded_at().items():
            if time_us > self._old_us and number != self._newest.number:
                try:
                    yield manifests.read(self._fs, number, lake=self._lake)
                except FileNotFoundError:  # another vacuum saw that its grace is over
                    continue

    def _dropped_files(self) -> list[Removed]:
        """Return compacted files that no manifest in force names, and none ever will."""
        named = {path for manifest in self._in_force() for path in manifest.paths()}
        found = []
        for entry in self._tables:
            name = layout.parse_table_file(entry.key)
            if name is None or self._experiment_id not in {None, name.experiment_id}:
                continue
            # A greater number belongs to a compactor that may still commit it.
            if name.number <= self._newest.number and entry.key not in named:
                found.append(Removed(entry.key, entry.size_bytes, DROPPED))
        return found

    def _old_manifests(self) -> list[Removed]:
        superseded, kept = self._superseded_at(), self._manifests[-KEPT_MANIFESTS:]
        first = min((each.number for each in kept), default=0)
        return [
            Removed(layout.manifest(each.number), each.size_bytes, OLD)
            for each in self._manifests
            if each.number < min(first, self._newest.number)
            and superseded[each.number] <= self._old_us
        ]

    def _consumed_segments(self) -> list[Removed]:
        """Return segments whose rows the newest manifest and one beyond the grace hold."""
        before = self._manifest_beyond_grace()
        if before is None:
            return []
        try:
            return self._consumed_in(before)
        except FileNotFoundError:  # a cold file of it: another vacuum, with less grace
            return []

    def _consumed_in(self, before: Manifest) -> list[Removed]:
        found = []
        for experiment_id, of in _by_experiment(self._log).items():
            writers = {name.writer for name in of}
            marks = [
                Watermarks(self._fs, manifest).of(experiment_id, writers)
                for manifest in (self._newest, before)
            ]
            for name, entry in of.items():
                if name.last <= min(mark[name.writer] for mark in marks):
                    found.append(Removed(entry.key, entry.size_bytes, CONSUMED))
        return found

    def _manifest_beyond_grace(self) -> Manifest | None:
        """Return the newest manifest that is older than the grace."""
        old = [each for each in self._manifests if each.time_us <= self._old_us]
        if not old:
            return None
        if old[-1].number == self._newest.number:
            return self._newest
        try:
            return manifests.read(self._fs, old[-1].number, lake=self._lake)
        except FileNotFoundError:  # another vacuum, with less grace
            return None

    def _superseded_segments(self) -> list[Removed]:
        """Return segments that a whole one covers which is there for longer than the grace."""
        found = []
        for of in _by_experiment(self._log).values():
            by_writer: dict[str, list[SegmentName]] = defaultdict(list)
            for name in of:
                by_writer[name.writer].append(name)
            for names in by_writer.values():
                for cover, covered in _covers(names).items():
                    if of[cover].time_us <= self._old_us and self._is_whole(cover, of[cover]):
                        found += [
                            Removed(name.key, of[name].size_bytes, SUPERSEDED) for name in covered
                        ]
        return found

    def _is_whole(self, name: SegmentName, entry: Entry) -> bool:
        """Tell whether a segment can be read and is what its name says."""
        try:
            rows, footer = segments.decode(self._fs.get(entry.key), key=entry.key)
        except (FileNotFoundError, FormatError):
            return False
        header = footer.header
        return (header.writer, header.last, rows.num_rows) == (name.writer, name.last, name.count)


def _by_experiment(entries: Iterable[Entry]) -> dict[str, dict[SegmentName, Entry]]:
    found: dict[str, dict[SegmentName, Entry]] = defaultdict(dict)
    for entry in entries:
        name = layout.parse_segment(entry.key)
        if name is not None:
            found[name.experiment_id][name] = entry
    return found


def _covers(names: Sequence[SegmentName]) -> Mapping[SegmentName, list[SegmentName]]:
    """Return for each segment of a writer that covers others, and is covered by none, those."""
    # In this order whatever covers a segment stands before it.
    ordered = sorted(names, key=lambda name: (-name.last, name.first, not name.merged))
    found: dict[SegmentName, list[SegmentName]] = {}
    top: list[SegmentName] = []
    for name in ordered:
        cover = next((one for one in top if one.covers(name)), None)
        if cover is None:
            top.append(name)
        else:
            found.setdefault(cover, []).append(name)
    return found
