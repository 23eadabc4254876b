"""Committing change after change until there is nothing left to do.

Compaction, purge and copy all work like this: take a snapshot, write files, try to commit, and
begin again from a newer snapshot where somebody else was first. Every commit stands by itself,
so the work may be ended at any instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from runlake import ids
from runlake.errors import ConflictError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.snapshot import Snapshot, Snapshots
    from runlake.upkeep.commit import Change, Committer

_TRIES: Final = 10
_PAUSE_S: Final = 0.5


class Changes(Protocol):
    """Work of one partition that is done in commits."""

    def next_change(self, snapshot: Snapshot) -> Change | None:
        """Write the files of the next change; None if there is nothing to do.

        Raises:
            FileNotFoundError: an input is gone; a newer snapshot is wanted.
        """

    def settle(self, *, is_won: bool) -> None:
        """Be told what became of the last change."""


def commit_all(
    changes: Changes,
    experiment_id: str,
    *,
    snapshots: Snapshots,
    committer: Committer,
    settled: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None],
    url: str,
) -> None:
    """Commit the changes of one partition.

    Args:
        changes: what is to be done.
        experiment_id: the partition.
        snapshots: of the lake that is changed.
        committer: of the same lake.
        settled: called after each commit, won or lost.
        sleep: what waits.
        url: the lake, for messages.

    Raises:
        ConflictError: others were first, time and again.
        StorageError: the store cannot be read or written.
        FormatError: a manifest or a table file is damaged, another lake's, or newer.
    """
    losses = 0
    while True:
        snapshot = snapshots.take([experiment_id])
        try:
            change = changes.next_change(snapshot)
        except FileNotFoundError:  # an input was replaced, or compacted and vacuumed
            is_won = False
        else:
            if change is None:
                return
            is_won = committer.commit(change, snapshot.manifest) is not None
        changes.settle(is_won=is_won)
        settled()
        losses = 0 if is_won else losses + 1
        if losses == _TRIES:
            message = (
                f"experiment {experiment_id} of {url} was not finished: others changed it first, "
                f"{_TRIES} times. Nothing is lost; run it again."
            )
            raise ConflictError(message, url=url)
        if losses:
            sleep(_PAUSE_S * losses * ids.jitter())


def refuse_unsafe_store(fs: Filesystem, *, is_alone: bool) -> None:
    """Refuse a store on which two commits could both win.

    Args:
        fs: the lake's storage.
        is_alone: the caller says that nobody else commits now.

    Raises:
        StateError: the store cannot create conditionally, and we may not be alone.
        StorageError: the store cannot be asked.
    """
    if is_alone:
        return
    safe = fs.conditional_create
    if safe if safe is not None else fs.probe():
        return
    message = (
        f"{fs.url} cannot create an object only where there is none, so two compactions at once "
        "would lose rows. If nobody else compacts this lake now or while you do, say so: "
        "alone=True, or --alone."
    )
    raise StateError(message, url=fs.url)
