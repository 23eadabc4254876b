"""Curves in a terminal: dots of braille, two across and four down in each character.

Axes begin and end at what is there, and their numbers are round. A curve is a line from point
to point, broken where a value is NaN or infinite. Where characters of two curves meet, the later
one's colour shows; without colours each curve has a letter instead of dots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

COLORS: Final = ("cyan", "yellow", "magenta", "green", "red", "blue", "bright_white")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_BRAILLE: Final = 0x2800
# The bit of each dot in its character, by row and column.
_DOTS: Final = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_ACROSS: Final = 2
_DOWN: Final = 4
_ROUND: Final = (1, 2, 5, 10)
_TICK_ROWS: Final = 3
_TICK_GAP: Final = 3
_UNITS: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"))
_SMALL: Final = 1e-4
_LARGE: Final = 1e6
# Of a value that stands alone, this part of it is told.
_FINE: Final = 1000
# Greater numbers cannot be subtracted from each other.
_MOST: Final = 1e300
_LEAST: Final = 1e-300
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Years 1 and 9999, as far as the calendar goes.
_FIRST_S: Final = -62_135_596_800
_LAST_S: Final = 253_402_300_799
_TIME_STEPS_S: Final = (
    *(1, 2, 5, 10, 15, 30),
    *(60 * each for each in (1, 2, 5, 10, 15, 30)),
    *(3600 * each for each in (1, 2, 3, 4, 6, 12)),
    *(86400 * each for each in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
)


@dataclass(frozen=True, slots=True)
class Curve:
    """What is drawn.

    Attributes:
        label: its name in the legend.
        xs: rising.
        ys: as many; NaN and infinities break the line.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float]


@dataclass(slots=True)
class _Canvas:
    """Characters, each with its dots and the curve that was there last."""

    width: int
    height: int
    dots: dict[tuple[int, int], int] = field(default_factory=dict)
    owners: dict[tuple[int, int], int] = field(default_factory=dict)

    def line(self, start: tuple[int, int], end: tuple[int, int], *, owner: int) -> None:
        """Set the dots from one to another."""
        (x, y), (right, below) = start, end
        count = max(abs(right - x), abs(below - y), 1)
        for number in range(count + 1):
            self.dot(
                x + round((right - x) * number / count),
                y + round((below - y) * number / count),
                owner=owner,
            )

    def dot(self, x: int, y: int, *, owner: int) -> None:
        """Set one dot; both count from the upper left corner."""
        place = (x // _ACROSS, y // _DOWN)
        same = self.owners.get(place) == owner
        self.dots[place] = (self.dots[place] if same else 0) | _DOTS[y % _DOWN][x % _ACROSS]
        self.owners[place] = owner


@dataclass(frozen=True, slots=True)
class Scale:
    """One axis: from values to places in [0, 1].

    Attributes:
        low: value at 0.
        high: value at 1.
        is_log: places are by magnitude.
        kind: `number`, `time` (seconds since 1970) or `seconds`.
    """

    low: float
    high: float
    is_log: bool = False
    kind: str = "number"

    def place(self, value: float) -> float:
        """Return where a value stands."""
        low, high = self._bent(self.low), self._bent(self.high)
        return 0.5 if low == high else (self._bent(value) - low) / (high - low)

    def holds(self, value: float) -> bool:
        """Tell whether a value can be drawn."""
        return abs(value) <= _MOST and (value > 0 or not self.is_log)

    def ticks(self, count: int) -> list[tuple[float, str]]:
        """Return about so many round values with their labels, in order."""
        if self.high - self.low < _LEAST:
            return [(self.low, self._label(self.low, abs(self.low) / _FINE or 1))]
        if self.is_log and self.high / self.low >= 10:  # noqa: PLR2004 - or no power lies between
            return self._powers(count)
        step = self._step(count)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [(each * step, self._label(each * step, step)) for each in range(first, last + 1)]

    def _bent(self, value: float) -> float:
        return math.log10(value) if self.is_log else value

    def _powers(self, count: int) -> list[tuple[float, str]]:
        first = math.ceil(math.log10(self.low) - 1e-9)
        last = math.floor(math.log10(self.high) + 1e-9)
        every = max(1, math.ceil((last - first + 1) / max(count, 1)))
        return [(10.0**power, f"{10.0**power:g}") for power in range(first, last + 1, every)]

    def _step(self, count: int) -> float:
        rough = (self.high - self.low) / max(count, 1)
        if self.kind == "number" or rough < 1:
            return _round(rough)
        longer = (step for step in _TIME_STEPS_S if step >= rough)
        return next(longer, _round(rough / _DAY_S) * _DAY_S)

    def _label(self, value: float, step: float) -> str:
        if self.kind == "time":
            return self._time(value, step)
        if self.kind == "seconds":
            return _seconds(value, step)
        return _number(value, step, max(abs(self.low), abs(self.high)))

    def _time(self, value: float, step: float) -> str:
        moment = _EPOCH + timedelta(seconds=min(max(value, _FIRST_S), _LAST_S))
        if self.low == self.high:
            return f"{moment:%Y-%m-%d %H:%M:%S}"
        if step >= _DAY_S:
            return f"{moment:%Y-%m-%d}"
        if self.high - self.low >= _DAY_S:
            return f"{moment:%m-%d %H:%M}"
        if step < 1:
            digits = min(6, -math.floor(math.log10(step)))
            return f"{moment:%H:%M:%S.%f}"[: digits - 6 or None]
        return f"{moment:%H:%M}" if step >= _MINUTE_S else f"{moment:%H:%M:%S}"


def plot(
    curves: Sequence[Curve],
    *,
    size: tuple[int, int],
    paint: Callable[[str, str], str] | None,
    log_y: bool = False,
    x_kind: str = "number",
) -> list[str]:
    """Draw curves with axes.

    Args:
        curves: in the order in which they are drawn.
        size: characters across and down, axes included.
        paint: colours a text, given the name of one of `COLORS`; None means letters.
        log_y: y by magnitude; values that are not positive are left out.
        x_kind: as `Scale.kind`.

    Returns:
        The lines; empty if no curve has a point that can be drawn.
    """
    scales = _scales(curves, log_y=log_y, x_kind=x_kind)
    if scales is None:
        return []
    x_scale, y_scale = scales
    height = max(size[1] - 2, 2)
    labels = _rows_of_ticks(y_scale, height)
    margin = max(map(len, labels.values()), default=0)
    width = max(size[0] - margin - 2, 8)
    canvas = _Canvas(width, height)
    for owner, curve in enumerate(curves):
        _draw(canvas, curve, owner, scales)
    lines = []
    for row in range(height):
        label = labels.get(row, "")
        body = "".join(_cell(canvas, (column, row), paint) for column in range(width))
        lines.append(f"{label.rjust(margin)} {'┤' if label else '│'}{body}".rstrip())
    return lines + _x_axis(x_scale, width, margin)


def mark(number: int, paint: Callable[[str, str], str] | None) -> str:
    """Return how curve `number` looks in a legend."""
    if paint is None:
        return _LETTERS[number % len(_LETTERS)]
    return paint("⠒⠒", COLORS[number % len(COLORS)])


def _scales(curves: Sequence[Curve], *, log_y: bool, x_kind: str) -> tuple[Scale, Scale] | None:
    probe = Scale(0, 1, is_log=log_y)
    points = [
        (x, y)
        for curve in curves
        for x, y in zip(curve.xs, curve.ys, strict=True)
        if abs(x) <= _MOST and probe.holds(y)
    ]
    if not points:
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return Scale(min(xs), max(xs), kind=x_kind), Scale(min(ys), max(ys), is_log=log_y)


def _draw(canvas: _Canvas, curve: Curve, owner: int, scales: tuple[Scale, Scale]) -> None:
    x_scale, y_scale = scales
    across, down = canvas.width * _ACROSS - 1, canvas.height * _DOWN - 1
    before: tuple[int, int] | None = None
    for x, y in zip(curve.xs, curve.ys, strict=True):
        if not (x_scale.holds(x) and y_scale.holds(y)):
            before = None
            continue
        here = (round(x_scale.place(x) * across), round((1 - y_scale.place(y)) * down))
        canvas.line(before or here, here, owner=owner)
        before = here


def _cell(canvas: _Canvas, place: tuple[int, int], paint: Callable[[str, str], str] | None) -> str:
    owner = canvas.owners.get(place)
    if owner is None:
        return " "
    if paint is None:
        return mark(owner, None)
    return paint(chr(_BRAILLE + canvas.dots[place]), COLORS[owner % len(COLORS)])


def _rows_of_ticks(scale: Scale, height: int) -> dict[int, str]:
    """Return the labels of the y axis by row."""
    found: dict[int, str] = {}
    for value, label in scale.ticks(max(2, height // _TICK_ROWS)):
        row = round((1 - scale.place(value)) * (height * _DOWN - 1)) // _DOWN
        found.setdefault(row, label)
    return found


def _x_axis(scale: Scale, width: int, margin: int) -> list[str]:
    """Return the line below the plot, and the one with its numbers."""
    choices = (
        list(_placed(scale, scale.ticks(count), width, margin))
        for count in range(max(2, width // 8), 0, -1)
    )
    ticks = next(filter(_are_apart, choices), [])
    axis, labels = ["─"] * width, ""
    for column, left, text in ticks:
        axis[column] = "┬"
        labels = labels.ljust(left) + text
    return [f"{' ' * margin} └{''.join(axis)}", labels]


def _are_apart(ticks: Sequence[tuple[int, int, str]]) -> bool:
    return all(
        left + len(text) + _TICK_GAP <= right for (_, left, text), (_, right, _) in pairwise(ticks)
    )


def _placed(
    scale: Scale, ticks: Sequence[tuple[float, str]], width: int, margin: int
) -> Iterator[tuple[int, int, str]]:
    """Yield the column of each tick in the plot, where its text begins, and the text."""
    for value, text in ticks:
        column = round(scale.place(value) * (width * _ACROSS - 1)) // _ACROSS
        left = margin + 2 + column - len(text) // 2
        yield column, max(0, min(left, margin + 2 + width - len(text))), text


def _round(rough: float) -> float:
    """Return the next number that is 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(each * power for each in _ROUND if each * power >= rough * (1 - 1e-9))


def _number(value: float, step: float, most: float) -> str:
    """Return a number with as many digits as tell it from the next one.

    Args:
        value: the number.
        step: how far the next one is.
        most: the greatest magnitude on the axis, which chooses the unit.
    """
    if value == 0:
        return "0"
    unit, letter = next((each for each in _UNITS if most >= each[0]), (1.0, ""))
    if step / unit < _SMALL or most / unit >= _LARGE:
        digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(step))
        mantissa, _, power = f"{value:.{min(max(0, digits), 12)}e}".partition("e")
        return f"{mantissa}e{int(power)}"
    digits = max(0, -math.floor(math.log10(step / unit) + 1e-9))
    return f"{value / unit:.{digits}f}{letter}"


def _seconds(value: float, step: float) -> str:
    """Return a length of time; one that no clock has seen is a plain number of seconds."""
    if abs(value) >= _LAST_S:
        return f"{_number(value, step, abs(value))}s"
    if step >= _DAY_S:
        return f"{value / _DAY_S:.0f}d"
    if step >= _HOUR_S:
        return f"{value / _HOUR_S:.0f}h"
    if step >= _MINUTE_S:
        return f"{value / _MINUTE_S:.0f}m"
    return f"{_number(value, step, 1)}s"
