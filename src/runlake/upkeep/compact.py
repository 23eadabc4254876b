"""Compaction: the rows and states of many segments become a few files of tables.

Any number of compactors may work on one lake at once, and any of them may die at any instant:
what is compacted is what the newest manifest says, and nothing else changes an answer. Memory
is bounded by a budget whatever the size of the lake: segments go in in batches, each a commit
of its own, and tables are merged row group by row group. The normative text is
`docs/spec/v1.md`, "Compact".
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Final, NamedTuple, final

from runlake.errors import InvalidInputError
from runlake.storage.snapshot import Snapshots
from runlake.upkeep import ripe
from runlake.upkeep.changes import commit_all, refuse_unsafe_store
from runlake.upkeep.commit import Committer
from runlake.upkeep.holders import is_stated
from runlake.upkeep.work import Compacted, Limits, Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.storage.filesystem import Filesystem

DUE_SEGMENTS: Final = 128
"""An experiment with more ripe segments is worth a compaction that nobody asked for."""


class Look(NamedTuple):
    """What a look at an experiment has shown.

    Attributes:
        live: its live segments, those of open writers too.
        is_due: it should be compacted.
    """

    live: int
    is_due: bool


def shard_of(experiment_id: str, count: int) -> int:
    """Return which of `count` machines compacts an experiment: 0 to `count - 1`."""
    digest = hashlib.blake2b(experiment_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) % count


@final
class Compactor:
    """Compacts the experiments of one lake."""

    def __init__(
        self,
        fs: Filesystem,
        *,
        lake: str,
        limits: Limits | None = None,
        is_alone: bool = False,
        progress: Callable[[Compacted], None] = lambda _: None,
        pause: Callable[[], None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Start without memory; no request is made.

        Args:
            fs: the lake's storage.
            lake: its id.
            limits: how much may be taken; None for the default.
            is_alone: nobody else compacts this lake, so that a store will do that cannot
                create conditionally.
            progress: called with what was done so far, after each commit.
            pause: called every few milliseconds of work, so that others may come first; what
                it raises ends the work.
            sleep: what waits, so that a test need not.
        """
        self._fs = fs
        self._limits = limits or Limits()
        self._is_alone = is_alone
        self._progress, self._pause, self._sleep = progress, pause, sleep
        self._snapshots = Snapshots(fs, lake=lake)
        self._committer = Committer(fs, lake=lake)

    def experiments(self, *, shard: tuple[int, int] | None = None) -> list[str]:
        """Return the partitions that hold segments or tables, the reserved one among them.

        Args:
            shard: (i, n), i from 1: only those that the i-th of n machines compacts.

        Raises:
            InvalidInputError: there is no such shard.
            StorageError: the store cannot be read.
            FormatError: the newest manifest is damaged, another lake's, or newer.
        """
        if shard is not None and not 1 <= shard[0] <= shard[1]:
            message = f"shard {shard[0]}/{shard[1]} is none; write i/n with i from 1 to n."
            raise InvalidInputError(message)
        snapshot = self._snapshots.take()
        tables = snapshot.manifest.tables.values()
        found = {segment.name.experiment_id for segment in snapshot.segments}
        found |= {file.experiment_id for files in tables for file in files}
        return sorted(
            each for each in found if shard is None or shard_of(each, shard[1]) == shard[0] - 1
        )

    def look(self, experiment_id: str, *, is_thorough: bool = True) -> Look:
        """Tell whether so many segments of an experiment are ripe that it should be compacted.

        The newest segment of a writer at work is not, however many writers there are. One that
        speaks of a purged run is enough: its bytes are to go.

        Args:
            experiment_id: the partition.
            is_thorough: look for purged runs too; in a lake of which a run was purged this reads
                the footer of each live segment.

        Returns:
            What was seen.

        Raises:
            StorageError: the store cannot be read.
            FormatError: the newest manifest is damaged, another lake's, or newer.
        """
        snapshot = self._snapshots.take([experiment_id], is_bare=True)
        live, purged = snapshot.segments, snapshot.manifest.purged
        if ripe.count(self._fs, snapshot, experiment_id, most=DUE_SEGMENTS) > DUE_SEGMENTS:
            return Look(len(live), is_due=True)
        if not is_thorough or not purged:
            return Look(len(live), is_due=False)
        return Look(len(live), is_stated(self._fs, live, purged, now_us=snapshot.taken_us))

    def compact(self, experiment_id: str) -> Compacted:
        """Compact one experiment as far as its writers allow.

        Every commit stands by itself, so this may be ended at any instant.

        Args:
            experiment_id: the partition; the reserved one is as good as any.

        Returns:
            What was done.

        Raises:
            StateError: the store cannot create conditionally, and we may not be alone.
            ConflictError: others were first, time and again.
            StorageError: the store cannot be read or written.
            FormatError: a manifest or a table file is damaged, another lake's, or newer.
        """
        refuse_unsafe_store(self._fs, is_alone=self._is_alone)
        work = Work(self._fs, experiment_id, self._limits, pause=self._pause)
        commit_all(
            work,
            experiment_id,
            snapshots=self._snapshots,
            committer=self._committer,
            settled=lambda: self._progress(work.done),
            sleep=self._sleep,
            url=self._fs.url,
        )
        return work.done
