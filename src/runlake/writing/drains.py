"""Every drain of this process, known to whoever asks what it has logged.

A room of its own, because that question comes with each answer of a lake, and what moves rows
is long to load.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runlake.writing.drain import Drain

ALL: Final[weakref.WeakSet[Drain]] = weakref.WeakSet()


def drains_of(url: str) -> list[Drain]:
    """Return every drain of this process that writes to a lake, whichever object opened it."""
    return [drain for drain in list(ALL) if drain.storage.url == url]
