"""What happened in the registry: the audit trail of a model, and changes for those who poll."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runlake._lazy import lazy
from runlake.registry.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    import polars as pl

    from runlake.query import export as frames
    from runlake.query import registry_trail
    from runlake.query.engine import Query

    _Answer = TypeVar("_Answer")
else:
    frames = lazy("runlake.query.export")
    registry_trail = lazy("runlake.query.registry_trail")

# So often in a row files may be compacted while they are read.
_TRIES: Final = 5


class Trail(Reading):
    """The part of the registry that tells what happened. Threads may share it."""

    def history(self, name: str) -> pl.DataFrame:
        """Return the audit trail of a model: who did what, where, when and why.

        A model that is deleted is found by the name that it had last; so after a second model
        was made under a name, the trail of that name holds both, told apart by `model_id`.

        Args:
            name: of the model.

        Returns:
            Rows of the view `registry_events`, the oldest first.

        Raises:
            NotFoundError: no model goes by this name or went by it last; names the nearest.
            StorageError: the store cannot be read.
        """
        found = self._of_reserved(lambda query: registry_trail.history(query, name))
        if not found.num_rows:
            self._find(name)
        return frames.to_polars(found)

    def changes(self, since: str | None = None) -> tuple[pl.DataFrame, str]:
        """Return what changed in the registry since the call that gave a cursor.

        Whoever keeps the cursor of each call and gives it to the next has every change once:
        the cursor counts rows of each writer and holds no time, so clocks that are wrong and
        changes that come late lose nothing and double nothing. Rows are in the order of their
        clocks within one call; a late change comes with a later call.

        Args:
            since: the cursor of an earlier call; None gives everything.

        Returns:
            Rows of the view `registry_events`, and the cursor for the next call.

        Raises:
            InvalidInputError: it is no such cursor.
            StorageError: the store cannot be read.
        """
        start = registry_trail.START
        cursor = start if since is None else start.read(since)
        found, cursor = self._of_reserved(lambda query: registry_trail.changes(query, cursor))
        return frames.to_polars(found), str(cursor)

    def _of_reserved(self, answer: Callable[[Query], _Answer]) -> _Answer:
        """Ask the reserved partition, as the store holds it now, and nothing else."""
        for _ in range(_TRIES - 1):
            try:
                return self._book.ask(answer)
            except FileNotFoundError:  # it was compacted meanwhile
                continue
        return self._book.ask(answer)
