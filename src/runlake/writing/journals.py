"""The journals of one process in one lake: where they lie, who owns them, and what if not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runlake import clock, disks, schema
from runlake.writing import places
from runlake.writing.events import HybridClock
from runlake.writing.journal import Journal
from runlake.writing.notices import tell

if TYPE_CHECKING:
    from runlake.settings import Settings

_MEMORY_JOURNAL_BYTES: Final = 64 << 20
# A disk that has refused is asked again after this.
_RETRY_S: Final = 60.0


class Journals:
    """Makes journals; a disk that refuses makes them memory's for a while.

    Attributes:
        hybrid: the clock that all journals of the process share.
        reserved: the clock of the reserved partition, which goes by what others wrote there: a
            host whose clock is far ahead must not carry the times of runs with it.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        """Choose nothing before the first journal.

        Args:
            url: the lake.
            settings: where journals lie, and how large one may grow.
        """
        self.hybrid = HybridClock()
        self.reserved = HybridClock()
        self._url = url
        self._settings = settings
        self._place: places.Place | None = None
        self._disk_failed_s = -1e9

    @property
    def place(self) -> places.Place:
        """Where journals lie, chosen at first use."""
        if self._place is None:
            self._place = places.choose(self._settings)
        return self._place

    def open(self, lock: places.OwnerLock | None, *, experiment_id: str = "") -> Journal:
        """Return an empty journal in the folder of a lock, in memory where there is none.

        Args:
            lock: of the folder.
            experiment_id: whose rows it will hold.

        Raises:
            OSError: the disk refuses.
        """
        limit = self._settings.journal_limit_bytes
        return Journal(
            None if lock is None else lock.folder,
            self.reserved if experiment_id == schema.RESERVED_PARTITION else self.hybrid,
            mapped=self.place.mapped,
            limit_bytes=limit if lock is not None else min(limit, _MEMORY_JOURNAL_BYTES),
        )

    def own(
        self, writer_id: str, experiment_id: str, experiment_name: str
    ) -> places.OwnerLock | None:
        """Make and lock a writer's folder; None where no disk takes one.

        Args:
            writer_id: the writer.
            experiment_id: whose rows it will hold.
            experiment_name: the name of that experiment.

        Returns:
            The lock, or None.
        """
        url = self._url
        root = self.place.root
        if root is None or clock.monotonic_s() - self._disk_failed_s < _RETRY_S:
            return None
        owner = places.Owner(
            url=url,
            writer=writer_id,
            experiment_id=experiment_id,
            experiment_name=experiment_name,
            host=places.host(),
            pid=os.getpid(),
            boot_id=disks.boot_id(),
        )
        try:
            return places.OwnerLock.create(places.lake_folder(root, url) / writer_id, owner)
        except OSError as error:
            self.disk_failed(error)
            return None

    def disk_failed(self, error: OSError) -> None:
        """Keep rows in memory for a while, and say so."""
        self._disk_failed_s = clock.monotonic_s()
        tell(
            f"the journal folder {self.place.root} refuses to be written ({error}). Logging goes "
            f"on in memory, up to {_MEMORY_JOURNAL_BYTES >> 20} MiB until the store has it; a "
            "crash of this process would lose that."
        )
