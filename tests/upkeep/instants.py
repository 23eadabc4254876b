"""The instants of a piece of work: those to die at, and those at which others come between.

What dies leaves the store and nothing else. So to die before a request, or behind one that only
reads, is to die behind the write before it: the instants behind each write are all there are.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar, final

from runlake.testing.filesystems import Call, SimulatedCrash, Wrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.storage.filesystem import Filesystem

T = TypeVar("T")


@final
class DieBehind(Wrapper):
    """Dies just behind one of its writes, and stays dead.

    Attributes:
        writes: how many there were.
    """

    def __init__(self, inner: Filesystem, *, write: int | None) -> None:
        """Wrap `inner`; die behind that write, from 1, or never."""
        super().__init__(inner)
        self.conditional_create = True
        self.writes = 0
        self._last = write

    def around(self, call: Call, action: Callable[[], T]) -> T:
        if self.writes == self._last:
            raise SimulatedCrash(f"dead behind write {self._last}, now {call.verb} of {call.keys}")
        found = action()
        self.writes += call.is_write
        if self.writes == self._last:
            raise SimulatedCrash(f"died behind write {self._last}: {call.verb} of {call.keys}")
        return found


@final
class Interrupt(Wrapper):
    """Lets others work just before one of our calls.

    Attributes:
        calls: how many there were.
    """

    def __init__(
        self, inner: Filesystem, *, at: int | None = None, others: Callable[[], object] = list
    ) -> None:
        """Wrap `inner`; `others` work before call number `at`, from 1, or never."""
        super().__init__(inner)
        self.conditional_create = True
        self.calls = 0
        self._at, self._others = at, others

    def around(self, call: Call, action: Callable[[], T]) -> T:
        del call
        self.calls += 1
        if self.calls == self._at:
            self._others()
        return action()


def writes_of(work: Callable[[Filesystem], object], fs: Filesystem) -> range:
    """Do some work; return the numbers of its writes."""
    counting = DieBehind(fs, write=None)
    work(counting)
    assert counting.writes
    return range(1, counting.writes + 1)


def calls_of(
    work: Callable[[Filesystem], object], fs: Filesystem, *, one_in: int = 1, lane: int = 0
) -> range:
    """Do some work; return the numbers of its requests.

    Args:
        work: done by a filesystem.
        fs: is wrapped.
        one_in: leave out all but one in so many; which, changes from session to session.
        lane: those of other lanes are other requests, in the same session.
    """
    counting = Interrupt(fs)
    work(counting)
    # Each session has a seed of its own, which is the seed of each of its tests.
    shift = random.randrange(one_in)  # noqa: S311 - repeatable on purpose
    return range(1 + (lane + shift) % one_in, counting.calls + 1, one_in)
