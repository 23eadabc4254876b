"""What a lake must hold, known from what was logged and from nothing else.

Rows are compared as tuples in which a double is its bits. Folds are made here once more, by the
words of `docs/spec/v1.md`, "State", from all rows up to one of each writer.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

from runlake import schema

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Item: TypeAlias = tuple[object, ...]

_IN_STATE: Final = frozenset(
    {"run", "param", "tag", "input", "status", "delete", "restore", "close"}
)


class Row(NamedTuple):
    """One row of a writer."""

    run_id: str
    kind: str
    key: str
    step: int | None
    timestamp: int
    num: float | None
    str: str | None


class Fold(NamedTuple):
    """What stands of some rows.

    Attributes:
        facts: of each (run, kind, key) the (clock, seq, num, str) that stands.
        summaries: of each (run, key) the columns of a summary.
    """

    facts: dict[Item, Item]
    summaries: dict[Item, Item]


def exact(value: object) -> object:
    """Return a value that equals itself: doubles as their bits, any NaN as one."""
    if not isinstance(value, float):
        return value
    return "nan" if math.isnan(value) else struct.pack("<d", value)


def summed(value: object) -> object:
    """Return a value of a summary as `exact` does, but zeros are one: none is the lesser."""
    return exact(0.0 if isinstance(value, float) and value == 0 else value)


def item(row: Row, seq: int) -> Item:
    """Return what is compared of a row: all of it, and its number where tables keep that."""
    is_point = row.kind == schema.METRIC
    return (None if is_point else seq, *map(exact, row))


@dataclass(eq=False)
class Log:
    """What one writer has said.

    Attributes:
        rows: in the order of their numbers; logged, and so never to be lost.
        stored: of these so many were said to be in the store.
        stored_at: when that was said: (time, rows), rising.
        is_ended: it was told to end.
        is_recovered: a recoverer has decided how it ends.
    """

    writer: str
    experiment: str
    rows: list[Row] = field(default_factory=list)
    stored: int = 0
    stored_at: list[tuple[int, int]] = field(default_factory=list)
    is_ended: bool = False
    is_recovered: bool = False
    _items: list[Item] = field(default_factory=list)
    _folds: dict[int, Fold] = field(default_factory=dict)

    def say(self, rows: Iterable[Row]) -> None:
        """Take rows that were logged."""
        for row in rows:
            self._items.append(item(row, len(self.rows)))
            self.rows.append(row)

    def store(self, count: int, time_us: int) -> None:
        """Note that so many rows are in the store."""
        assert count <= len(self.rows), f"{self.writer} stored {count} of {len(self.rows)} rows"
        if count > self.stored:
            self.stored = count
            self.stored_at.append((time_us, count))

    def stored_before(self, time_us: int) -> int:
        """Return how many rows were said to be in the store at a time."""
        return max((count for at, count in self.stored_at if at <= time_us), default=0)

    def items(self, count: int, purged: Collection[str]) -> Counter[Item]:
        """Return the first rows but for those of purged runs."""
        return Counter(
            one
            for one, row in zip(self._items[:count], self.rows, strict=False)
            if row.run_id not in purged
        )

    def fold(self, count: int) -> Fold:
        """Return what stands of the first rows."""
        if count not in self._folds:
            self._folds[count] = _fold(self.rows[:count])
        return self._folds[count]


def _fold(rows: list[Row]) -> Fold:
    facts: dict[Item, Item] = {}
    points: dict[Item, list[Row]] = {}
    for seq, row in enumerate(rows):
        if row.kind == schema.METRIC:
            points.setdefault((row.run_id, row.key), []).append(row)
        elif row.kind in _IN_STATE:
            name = row.run_id, row.kind, row.key
            said = row.timestamp, seq, exact(row.num), row.str
            known = facts.get(name)
            is_first = row.kind == "param" or (row.kind == "run" and row.key != "name")
            if known is None or (said[:2] < known[:2]) == is_first:
                facts[name] = said
    return Fold(facts, {name: _summary(of) for name, of in points.items()})


def _summary(points: list[Row]) -> Item:
    """Return n, sum, NaN count, and last, first, min, max with step and time each."""
    known = [
        (one.step or 0, one.timestamp, float(one.num)) for one in points if one.num is not None
    ]
    numbers = [one for one in known if not math.isnan(one[2])]
    last = max(known, key=lambda one: (*one[:2], not math.isnan(one[2]), one[2]))
    first = min(known, key=lambda one: (*one[:2], math.isnan(one[2]), one[2]))
    spots = [last, first]
    if numbers:
        spots += [
            min(numbers, key=lambda one: (one[2], *one[:2])),
            min(numbers, key=lambda one: (-one[2], *one[:2])),
        ]
    total = math.fsum(one[2] for one in numbers)
    found: list[object] = [len(points), summed(total), len(points) - len(numbers)]
    for step, time, value in spots:
        found += [summed(value), step, time]
    return (*found, *[None] * (15 - len(found)))


@final
class Truth:
    """All that was logged in a world, and what was promised.

    Attributes:
        logs: by writer.
        purged: runs that were said to be hidden for ever.
        removed: those that were said to be taken out of all tables.
        won: nonces of the manifests that were said to be in force.
    """

    def __init__(self) -> None:
        """Begin with nothing said."""
        self.logs: dict[str, Log] = {}
        self.purged: set[str] = set()
        self.removed: set[str] = set()
        self.won: dict[str, int] = {}

    def log(self, writer: str, experiment: str) -> Log:
        """Return what a writer has said."""
        return self.logs.setdefault(writer, Log(writer, experiment))

    def stored(self, before_us: int) -> dict[str, int]:
        """Return how many rows of each writer were said to be in the store at a time."""
        return {writer: log.stored_before(before_us) for writer, log in self.logs.items()}


def differing(expected: Counter[Item], found: Counter[Item]) -> str:
    """Say how two sets of rows differ."""
    lost, extra = expected - found, found - expected
    return f"missing {sorted(map(str, lost))[:4]} extra {sorted(map(str, extra.elements()))[:4]}"
