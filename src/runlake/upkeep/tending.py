"""Tending one experiment: compact it, and take away what its compaction has replaced.

Who wins a commit vacuums, so that a lake stays small without anybody doing anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runlake.errors import ConflictError, FormatError
from runlake.upkeep import GRACE_S, delta
from runlake.upkeep.vacuum import Vacuumed, vacuum

if TYPE_CHECKING:
    from runlake.storage.filesystem import Filesystem
    from runlake.upkeep.compact import Compactor
    from runlake.upkeep.work import Compacted


@dataclass(frozen=True, slots=True)
class Tended:
    """What was done for one experiment.

    Attributes:
        compacted: what its compaction did.
        vacuumed: what was taken away after; None if there was no commit of ours.
    """

    compacted: Compacted
    vacuumed: Vacuumed | None

    @property
    def freed_bytes(self) -> int:
        """Bytes that were taken away."""
        return 0 if self.vacuumed is None else self.vacuumed.size_bytes


@dataclass(frozen=True, slots=True)
class Compaction:
    """What was done for several experiments.

    Attributes:
        experiments: each of them.
    """

    experiments: tuple[Tended, ...]

    @property
    def segments(self) -> int:
        """Small segments that were taken in."""
        return sum(each.compacted.segments for each in self.experiments)

    @property
    def rows(self) -> int:
        """Rows of these."""
        return sum(each.compacted.rows for each in self.experiments)

    @property
    def size_bytes(self) -> int:
        """Length of the files that were written."""
        return sum(each.compacted.size_bytes for each in self.experiments)

    @property
    def freed_bytes(self) -> int:
        """Bytes that were taken away."""
        return sum(each.freed_bytes for each in self.experiments)

    @property
    def problems(self) -> tuple[str, ...]:
        """What stays as it is, and why."""
        return tuple(text for each in self.experiments for text in each.compacted.problems)


def tend(
    fs: Filesystem,
    compactor: Compactor,
    experiment_id: str,
    *,
    lake: str,
    grace_s: float = GRACE_S,
) -> Tended:
    """Compact an experiment; if a commit was won, tell other engines, and vacuum.

    It may be ended at any instant, as each of these may.

    Args:
        fs: the lake's storage.
        compactor: of the same lake.
        experiment_id: the partition.
        lake: the lake's id.
        grace_s: how long what was replaced stays, in seconds of the store's clock.

    Returns:
        What was done.

    Raises:
        StateError: the store cannot create conditionally, and we may not be alone.
        ConflictError: others were first, time and again.
        StorageError: the store cannot be read or written.
        FormatError: a file is damaged, another lake's, newer, or missing.
    """
    compacted = compactor.compact(experiment_id)
    if not compacted.commits:
        return Tended(compacted, None)
    try:
        delta.republish(fs, lake=lake)
    except ConflictError:
        pass  # whoever published first has said it as well
    except FormatError as error:  # the projection's own log: no reason to keep what is replaced
        compacted = replace(compacted, problems=(*compacted.problems, str(error)))
    found = vacuum(fs, lake=lake, experiment_id=experiment_id, grace_s=grace_s, is_dry_run=False)
    return Tended(compacted, found)
