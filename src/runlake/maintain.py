"""Keeping house: what is rarely needed, and then badly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runlake.upkeep.verify import verify
from runlake.writing import recover

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.storage.engine import Storage
    from runlake.upkeep.verify import Report
    from runlake.writing.drain import Drain
    from runlake.writing.recover import Recovered


@dataclass(frozen=True, slots=True)
class Maintain:
    """`lake.maintain`: verify and recover."""

    _storage: Storage
    _drain: Drain
    _check_writable: Callable[[], None]

    def verify(self) -> Report:
        """Check every file of the lake against the specification; mend nothing.

        Returns:
            What was checked and found, file by file.

        Raises:
            NotFoundError: there is no lake.
            StorageError: the store cannot be read.
        """
        return verify(self._storage.fs)

    def recover(self, *, force: bool = False) -> list[Recovered]:
        """Bring into the lake what dead processes of this host left in their journals.

        Twice or at once is the same as once.

        Args:
            force: take also journals of other hosts, whose processes must be dead.

        Returns:
            One entry for each journal that no living process owns.

        Raises:
            StateError: the lake is read-only.
            StorageError: the store refused; the journals stay.
        """
        self._check_writable()
        root = self._drain.place.root
        return [] if root is None else list(recover.each(self._storage, root, force=force))
