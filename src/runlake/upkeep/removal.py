"""Taking the rows of purged runs out of one partition.

Their runs are hidden already, so no file that is committed from now on holds them. What holds
them still is taken in: live segments as a compaction takes them, and compacted files one by
one, each written again without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from runlake.storage.table_files import TABLES
from runlake.upkeep import tiers
from runlake.upkeep.attempt import attempted
from runlake.upkeep.commit import Change
from runlake.upkeep.merge import merged
from runlake.upkeep.sources import Source
from runlake.upkeep.work import Work

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import Manifest, TableFile
    from runlake.storage.snapshot import Snapshot
    from runlake.storage.table_files import Table
    from runlake.upkeep.attempt import Attempt
    from runlake.upkeep.holders import Search
    from runlake.upkeep.work import Limits

COMMIT_BYTES: Final = 1 << 30
"""Files of so much length are written again in one commit, so that little is lost with it."""


@final
class Removal:
    """What is to be done in one partition, change by change.

    Attributes:
        rows: rows of purged runs that were taken out of compacted files.
        written_bytes: length of the files that took the place of others.
    """

    def __init__(
        self,
        fs: Filesystem,
        experiment_id: str,
        *,
        search: Search,
        limits: Limits,
        unripe: Collection[str],
    ) -> None:
        """Start with nothing done.

        Args:
            fs: the lake's storage.
            experiment_id: the partition.
            search: of the runs; the newest manifest hides them.
            limits: how much a compaction may take.
            unripe: writers that hold them in a segment that they may replace.
        """
        self.rows = 0
        self.written_bytes = 0
        self._fs, self._experiment_id, self._search = fs, experiment_id, search
        self._limits = limits
        self._work = Work(fs, experiment_id, limits, unripe=unripe)
        self._is_rewriting = False
        self._if_won = (0, 0)

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read, and so stays."""
        return self._work.done.problems

    def next_change(self, snapshot: Snapshot) -> Change | None:
        """Write the files of the next change; None if nothing is left that can be taken out.

        Args:
            snapshot: of this partition, just taken.

        Returns:
            The change, to be committed behind the snapshot's manifest.

        Raises:
            FileNotFoundError: an input is gone; take another snapshot.
            StorageError: the store cannot be read or written.
            FormatError: a table file is damaged.
        """
        self._is_rewriting = False
        change = self._work.next_rows(snapshot)
        if change is not None:
            return change
        self._is_rewriting = True
        return self._next_files(snapshot.manifest)

    def settle(self, *, is_won: bool) -> None:
        """Count the last change, which was committed or lost."""
        if not self._is_rewriting:
            before = self._work.done.size_bytes
            self._work.settle(is_won=is_won)
            self.written_bytes += self._work.done.size_bytes - before
        elif is_won:
            rows, size_bytes = self._if_won
            self.rows += rows
            self.written_bytes += size_bytes
        self._if_won = (0, 0)

    def _next_files(self, base: Manifest) -> Change | None:
        """Write compacted files again that hold the runs."""
        files = self._holding(base)
        if not files:
            return None
        paths = [file.path for of in files.values() for file in of]
        removed = 0
        with attempted(
            self._fs, base, experiment_id=self._experiment_id, replaces=paths
        ) as attempt:
            for name, of in files.items():
                removed += self._write(attempt, TABLES[name], of, purged=base.purged)
        self._if_won = removed, attempt.size_bytes
        return Change(
            experiment_id=self._experiment_id, added=attempt.added, dropped=frozenset(paths)
        )

    def _write(
        self,
        attempt: Attempt,
        table: Table,
        files: Sequence[TableFile],
        *,
        purged: Collection[str],
    ) -> int:
        """Write files of one table again; return how many rows were left out."""
        # Those of one commit must not overlap, so what overlapped before is merged.
        sources = [
            Source(self._fs, table, run, attempt.folder, purged=purged)
            for run in tiers.sources(table, tiers.runs_of(files))
        ]
        written = attempt.write(table, merged(table, map(Source.pieces, sources)))
        removed = sum(source.purged_rows for source in sources)
        if not table.is_folded:
            self._work.check_count(sum(file.rows for file in files) - removed, written)
        return removed

    def _holding(self, base: Manifest) -> Mapping[str, Sequence[TableFile]]:
        """Return some files that hold the runs by table, as many as one commit takes."""
        found: dict[str, list[TableFile]] = {}
        size = 0
        for table in TABLES:
            holding = [
                file
                for file in base.files(table, self._experiment_id)
                if self._search.in_file(file.path, file)
            ]
            for run in tiers.runs_of(holding)[: self._limits.most_sources]:
                for file in run.files:
                    size += file.size_bytes
                    if found and size > COMMIT_BYTES:
                        return found
                    found.setdefault(table, []).append(file)
        return found
