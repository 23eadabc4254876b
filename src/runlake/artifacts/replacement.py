"""Files that a run replaces while others fetch them.

The file is in the store first, and the log says so a moment later; a reader's snapshot may be
older still. So what does not fit to the log is held against the log anew before it is refused.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, final

from runlake import clock
from runlake.storage.flow import PIECE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.artifacts.fetching import Wanted
    from runlake.storage.filesystem import Filesystem

# An open run says within two seconds that it has replaced a file; its store may be slow.
_WAIT_S: Final = 10.0
_PAUSES_S: Final = (0.1, 0.25, 0.5, 1.0)
# What was written longer ago than this has been told of, whatever clocks say.
_LATE_US: Final = 120_000_000


class Heard(NamedTuple):
    """What the log says of one path of a run, read anew.

    Attributes:
        digests: the SHA-256 of every file that was logged under it, in hex.
        latest: of the one that stands; empty if nothing is said.
        is_open: whether the run may log more.
    """

    digests: frozenset[str]
    latest: str
    is_open: bool


@final
@dataclass(frozen=True, slots=True)
class Replacement:
    """Tells of the files of one run whether what came is a later one than was looked for.

    Attributes:
        fs: the storage.
        root: where the run's files lie.
        hear: reads the log anew: what it says of a path of the run.
    """

    fs: Filesystem
    root: str
    hear: Callable[[str], Heard]

    def is_logged(self, wanted: Wanted, sha256: str) -> bool:
        """Tell whether the run has logged what came, or does so in the next seconds.

        Args:
            wanted: what was looked for.
            sha256: of what came, in hex.

        Raises:
            StorageError: the store cannot be read.
        """
        now = self._now(wanted)
        if now is None or self._is_torn(wanted, now):
            return False
        until_s = clock.monotonic_s() + _WAIT_S
        pauses = iter(_PAUSES_S)
        while True:
            heard = self.hear(wanted.key[len(self.root) :])
            if sha256 in heard.digests:
                return True
            is_late = clock.now_us() - now.written_us > _LATE_US
            if not heard.is_open or is_late or clock.monotonic_s() >= until_s:
                return False
            threading.Event().wait(next(pauses, _PAUSES_S[-1]))

    def again(self, wanted: Wanted) -> Wanted | None:
        """Return what to look for now; None if nothing has changed, or nothing is there.

        Args:
            wanted: what was looked for.

        Raises:
            StorageError: the store cannot be read.
        """
        now = self._now(wanted)
        if now is None:
            return None
        latest = self.hear(wanted.key[len(self.root) :]).latest
        now = now._replace(sha256=latest or wanted.sha256)
        return None if now == wanted else now

    def _now(self, wanted: Wanted) -> Wanted | None:
        """Return what lies there, under the same digest."""
        for entry in self.fs.list(wanted.key):
            if entry.key == wanted.key:
                return wanted._replace(size_bytes=entry.size_bytes, written_us=entry.time_us)
        return None

    def _is_torn(self, wanted: Wanted, now: Wanted) -> bool:
        """Tell whether what came may be of two files: no event will ever speak of it."""
        is_in_pieces = not self.fs.is_local and wanted.size_bytes > PIECE_BYTES
        is_another = now.written_us != wanted.written_us
        return now.size_bytes != wanted.size_bytes or (is_in_pieces and is_another)
