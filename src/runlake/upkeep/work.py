"""The work of one compaction: what is to be changed next, and its files written.

It takes a snapshot and returns a change that is ready to be committed, or None where there is
nothing to do: first segments, as many as memory may hold, and when there are none left, table
files that have become too many.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, final

from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage.filesystem import Range
from runlake.storage.table_files import TABLES
from runlake.upkeep import intake, tiers
from runlake.upkeep.attempt import attempted
from runlake.upkeep.commit import Change
from runlake.upkeep.intake import Batch
from runlake.upkeep.merge import merged
from runlake.upkeep.order import in_order
from runlake.upkeep.ripe import has_ended, is_settled
from runlake.upkeep.sources import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    import pyarrow as pa

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import Manifest
    from runlake.storage.snapshot import LiveSegment, Snapshot
    from runlake.storage.table_files import Table
    from runlake.upkeep.attempt import Attempt
    from runlake.upkeep.tiers import SortedRun
else:
    pa = lazy("pyarrow")

BUDGET_BYTES: Final = 256 << 20
"""What a compaction may hold in memory, unless the caller says otherwise."""
_LEAST_BATCH_BYTES: Final = 16 << 20
_GATHER_BYTES: Final = 8 << 20
_GATHER: Final = 256
# What one source of a merge holds: a row group, decoded, joined with others and sorted.
_SOURCE_BYTES: Final = 24 << 20


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction of one experiment has done so far.

    Attributes:
        experiment_id: the partition.
        segments: segments taken in.
        rows: rows taken in, those of purged runs aside.
        merged_rows: rows of table files that were written again.
        size_bytes: length of the files written.
        commits: manifests won.
        conflicts: commits lost, or begun again because an input was gone.
        problems: what could not be read and stays as it is.
    """

    experiment_id: str
    segments: int = 0
    rows: int = 0
    merged_rows: int = 0
    size_bytes: int = 0
    commits: int = 0
    conflicts: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a compaction may take.

    Attributes:
        budget_bytes: of memory; a segment, or a piece of each file of a merge, goes in always.
        merge_bytes: length of the files that one merge takes at most; None for any.
        is_full: merge whatever is not of its final size, also where it is not due yet.
    """

    budget_bytes: int = BUDGET_BYTES
    merge_bytes: int | None = None
    is_full: bool = False

    @property
    def most_sources(self) -> int:
        """Sorted runs of compacted files that are merged at once."""
        return max(2, self.budget_bytes // _SOURCE_BYTES)


@final
class Work:
    """What one compaction of one experiment does, change by change.

    Attributes:
        done: what is in force so far.
    """

    def __init__(
        self,
        fs: Filesystem,
        experiment_id: str,
        limits: Limits,
        *,
        unripe: Collection[str] = (),
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """Start with nothing done.

        Args:
            fs: the lake's storage.
            experiment_id: the partition.
            limits: how much may be taken.
            unripe: writers whose newest segment goes in although they may replace it.
            pause: called between two pieces of work; what it raises ends the work.
        """
        self.done = Compacted(experiment_id)
        self._fs, self._limits, self._pause = fs, limits, pause
        self._experiment_id, self._unripe = experiment_id, frozenset(unripe)
        self._if_won = self.done
        self._problems: dict[str, str] = {}
        self._goal: dict[str, int] | None = None
        self._not_yet: set[str] = set()

    def next_change(self, snapshot: Snapshot) -> Change | None:
        """Write the files of the next change.

        Args:
            snapshot: of this experiment, just taken.

        Returns:
            The change, to be committed behind the snapshot's manifest; None if there is none.

        Raises:
            FileNotFoundError: an input is gone; take another snapshot.
            StorageError: the store cannot be read or written.
            FormatError: a table file is damaged.
        """
        return self.next_rows(snapshot) or self._next_merge(snapshot.manifest)

    def settle(self, *, is_won: bool) -> None:
        """Count the last change, which was committed or lost."""
        if is_won:
            self.done = replace(self._if_won, commits=self._if_won.commits + 1)
        else:
            self.done = replace(self.done, conflicts=self.done.conflicts + 1)
        self._if_won = self.done

    def next_rows(self, snapshot: Snapshot) -> Change | None:
        """Take the next segments in; as `next_change`, but files of tables stay as they are."""
        batch = self._take_in(snapshot)
        _let_go()
        self.done = self._if_won = replace(self.done, problems=tuple(self._problems.values()))
        if not batch.segments:
            return None
        base, written = snapshot.manifest, 0
        with attempted(
            self._fs, base, experiment_id=self._experiment_id, inputs=batch.inputs
        ) as attempt:
            for table in TABLES.values():
                rows = batch.rows_of(table)
                _let_go()
                if table.is_folded:
                    attempt.write(table, [rows])
                else:
                    pieces = in_order(rows, table.order, size=table.group_rows)
                    written += attempt.write(table, self._unhurried(pieces))
                del rows
            self.check_count(batch.row_count, written)
        done = self.done
        self._if_won = replace(
            done,
            segments=done.segments + len(batch.segments),
            rows=done.rows + batch.row_count,
            size_bytes=done.size_bytes + attempt.size_bytes,
        )
        return Change(
            experiment_id=self._experiment_id,
            added=attempt.added,
            advanced={writer: (first - 1, last) for writer, (first, last) in batch.inputs.items()},
        )

    def _next_merge(self, base: Manifest) -> Change | None:
        """Merge the table files that are too many, of all tables in one commit."""
        due = {table.name: runs for table in TABLES.values() if (runs := self._due(table, base))}
        dropped = [file for runs in due.values() for run in runs for file in run.files]
        if not dropped:
            return None
        paths = [file.path for file in dropped]
        with attempted(
            self._fs, base, experiment_id=self._experiment_id, replaces=paths
        ) as attempt:
            for name, runs in due.items():
                self._merge(attempt, TABLES[name], runs, base.purged)
        done = self.done
        self._if_won = replace(
            done,
            merged_rows=done.merged_rows + sum(file.rows for file in dropped),
            size_bytes=done.size_bytes + attempt.size_bytes,
        )
        return Change(
            experiment_id=self._experiment_id, added=attempt.added, dropped=frozenset(paths)
        )

    def _due(self, table: Table, base: Manifest) -> tuple[SortedRun, ...]:
        return tiers.due(
            table,
            base.files(table.name, self._experiment_id),
            most_runs=self._limits.most_sources,
            most_bytes=self._limits.merge_bytes,
            is_full=self._limits.is_full,
        )

    def _merge(
        self, attempt: Attempt, table: Table, runs: Sequence[SortedRun], purged: Collection[str]
    ) -> None:
        """Merge sorted runs of one table into one."""
        sources = [
            Source(self._fs, table, run, attempt.folder, purged=purged)
            for run in tiers.sources(table, runs)
        ]
        pieces = merged(table, map(Source.pieces, sources))
        written = attempt.write(table, self._unhurried(pieces))
        if not table.is_folded:
            count = sum(file.rows for run in runs for file in run.files)
            self.check_count(count - sum(source.purged_rows for source in sources), written)

    def _unhurried(self, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Pause before each piece."""
        for piece in pieces:
            self._pause()
            yield piece

    def check_count(self, expected: int, written: int) -> None:
        """Refuse to commit files that do not hold every row.

        Args:
            expected: rows that were taken in.
            written: rows that were written.

        Raises:
            FormatError: they are not as many.
        """
        if expected != written:
            message = (
                f"experiment {self._experiment_id} of {self._fs.url}: {written} rows were written "
                f"of {expected}; nothing was changed. Please report it."
            )
            raise FormatError(message, url=self._fs.url)

    def _take_in(self, snapshot: Snapshot) -> Batch:
        """Take segments in until memory is full.

        Only rows that were there at the beginning: what comes meanwhile would keep this at work
        without an end, for ever fewer rows a commit.
        """
        batch = Batch(snapshot.manifest.purged)
        most = max(_LEAST_BATCH_BYTES, self._limits.budget_bytes - 4 * _GATHER_BYTES)
        self._problems.clear()
        stopped: set[str] = set()
        live = [
            segment
            for segment in snapshot.segments
            if segment.name.experiment_id == self._experiment_id
        ]
        newest = {segment.name.writer: segment for segment in live}
        if self._goal is None:
            self._goal = {writer: segment.name.last for writer, segment in newest.items()}
        wanted = [
            segment
            for segment in live
            if segment.name.first + segment.skip_rows <= self._goal.get(segment.name.writer, -1)
            and segment.entry.key not in self._not_yet
        ]
        for segment, data in self._fetch(wanted):
            self._pause()
            writer = segment.name.writer
            if writer in stopped:
                continue
            try:
                found = intake.decode(segment, data)
            except FormatError as error:
                # What lies behind it cannot be taken either: rows are taken without a gap.
                self._problems[segment.entry.key] = str(error)
                stopped.add(writer)
                continue
            if segment is newest[writer] and not (
                writer in self._unripe
                or is_settled(segment, now_us=snapshot.taken_us)
                or has_ended(found.footer)
            ):
                self._not_yet.add(segment.entry.key)
                continue
            if batch.segments and batch.size_bytes + found.size_bytes > most:
                break
            batch.add(found)
        return batch

    def _fetch(self, segments: Sequence[LiveSegment]) -> Iterator[tuple[LiveSegment, bytes]]:
        """Yield segments with their bytes, fetched many at once."""
        start = 0
        while start < len(segments):
            end, size = start, 0
            while end < len(segments) and end - start < _GATHER and size < _GATHER_BYTES:
                size += segments[end].entry.size_bytes
                end += 1
            asked = segments[start:end]
            ranges = [Range(each.entry.key, 0, each.entry.size_bytes) for each in asked]
            yield from zip(asked, self._fs.get_ranges(ranges), strict=True)
            start = end


def _let_go() -> None:
    """Give memory back that a stage has left unused; allocators keep it, beyond any budget."""
    pa.default_memory_pool().release_unused()
