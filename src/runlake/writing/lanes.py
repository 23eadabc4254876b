"""One writer's place in the drain: when it is due, how it fares, and what waits for it."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from runlake.writing.columns import ColumnWriter
from runlake.writing.records import PAGE_POINTS
from runlake.writing.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runlake.writing import places

# A backlog this long goes out at once, so that memory stays small at any speed.
BACKLOG_ROWS: Final = 4 * PAGE_POINTS


@dataclass(frozen=True, slots=True)
class Cadence:
    """When a writer uploads by itself: first after `first_s`, then slower as it ages."""

    first_s: float
    share_of_age: float
    longest_s: float

    def wait_s(self, age_s: float) -> float:
        """Return the seconds until the next upload of a writer of this age."""
        return min(self.longest_s, max(self.first_s, self.share_of_age * age_s))


LOCAL: Final = Cadence(first_s=1.0, share_of_age=0.02, longest_s=10.0)
FAR: Final = Cadence(first_s=2.0, share_of_age=0.05, longest_s=30.0)


W = TypeVar("W", Writer, ColumnWriter)


@dataclass(slots=True, eq=False)
class Lane(Generic[W]):
    """One writer, its lock, and when it is due."""

    writer: W
    lock: places.OwnerLock | None
    born_s: float
    due_s: float
    put_s: float
    hurried_s: float = math.inf
    ending: bool = False
    done: bool = False
    failures: int = 0
    attempts: int = 0
    error: Exception | None = None
    refused_told: int = 0
    objects_told: int = 0
    flush_wanted: bool = False
    successor: Lane[Any] | None = None
    moved_rows: int = 0

    def is_due(self, now_s: float) -> bool:
        """Tell whether it is time to upload."""
        if self.flush_wanted:
            return True
        if self.failures:
            return now_s >= self.due_s
        pending = self.writer.pending
        if self.ending or pending >= BACKLOG_ROWS:
            return True
        return pending > 0 and now_s >= self.due_s

    def succeeded(self, now_s: float, *, before: int, cadence: Cadence) -> int:
        """Take note of an upload.

        Args:
            now_s: the monotonic clock.
            before: rows that the store held before.
            cadence: says when the next is due.

        Returns:
            How many objects are new since the last one.
        """
        self.failures, self.error = 0, None
        self.put_s = now_s if self.writer.uploaded_rows > before else self.put_s
        self.due_s = min(self.hurried_s, now_s + cadence.wait_s(now_s - self.born_s))
        told, self.objects_told = self.objects_told, self.writer.objects
        return self.objects_told - told

    def wait_s(self, now_s: float, longest_s: float) -> float:
        """Return the seconds until it is time to look again."""
        if self.done or not (self.writer.pending or self.ending):
            return longest_s
        return 0.0 if self.ending and not self.failures else max(0.0, self.due_s - now_s)


@dataclass(slots=True)
class Stop:
    """Whether a thread was told to end, and whether it has; each thread has its own.

    Attributes:
        wanted: it was told to.
        until_s: when it must, by the monotonic clock.
        is_keeping: it goes on with upkeep, for which nobody has to wait.
        ended: all its rows are out, or its time was over.
    """

    wanted: bool = False
    until_s: float = 0.0
    is_keeping: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def is_wanted(self) -> bool:
        """Ask now: another thread says so."""
        return self.wanted


@dataclass(slots=True)
class Target:
    """How many rows of a writer a flush waits for."""

    lane: Lane[Any]
    rows: int
    attempts: int

    @property
    def left(self) -> int:
        """How many of them the store does not hold."""
        uploaded: int = self.lane.writer.uploaded_rows
        return max(0, self.rows - uploaded)

    def is_settled(self) -> bool:
        """Tell whether all are in the store, or an attempt has failed; follow moved rows."""
        while self.left and self.lane.done and self.lane.successor is not None:
            self.rows, self.lane = self.lane.moved_rows, self.lane.successor
            self.attempts = 0
        failed = self.lane.attempts > self.attempts and self.lane.error is not None
        return not self.left or self.lane.done or failed


def settled(lanes: Iterable[Lane[Any]]) -> list[Lane[Any]]:
    """Return the lanes that are not done, when the files are on the disk that rows speak of."""
    left = [lane for lane in list(lanes) if not lane.done]
    for lane in left:
        lane.writer.settle()
    return left
