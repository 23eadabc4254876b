"""Rows that are no metric points, and places between the rows of a writer."""

from __future__ import annotations

import json
from typing import Final, NamedTuple, TypeAlias

from runlake import clock

to_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Event(NamedTuple):
    """One row that is no metric point.

    Attributes:
        points: how many points came before it.
        clock: hybrid logical clock, microseconds since 1970.
    """

    points: int
    clock: int
    run_id: str
    kind: str
    key: str
    num: float | None
    str: str | None


# An event as callers give it: run_id, kind, key, num, str.
Row: TypeAlias = tuple[str, str, str, float | None, str | None]


class Position(NamedTuple):
    """A place between two rows of a writer."""

    points: int
    events: int

    @property
    def rows(self) -> int:
        """The number of rows before it."""
        return self.points + self.events


class HybridClock:
    """The wall clock, except that it never gives the same or an earlier time again."""

    def __init__(self) -> None:
        """Start at the wall clock."""
        self.last_us = 0

    def tick(self) -> int:
        """Return max(wall, last + 1 us); callers hold their journal's lock."""
        self.last_us = max(clock.now_us(), self.last_us + 1)
        return self.last_us

    def raise_to(self, seen_us: int) -> None:
        """Give only later times from now on; callers hold their journal's lock.

        Args:
            seen_us: the greatest clock that was read before something was decided.
        """
        self.last_us = max(self.last_us, seen_us)


def event_line(number: int, event: Event) -> str:
    """Return the line of an event in its file."""
    return to_json([number, *event])
