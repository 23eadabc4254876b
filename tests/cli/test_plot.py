from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.cli import _plot
from runlake.cli._plot import Curve, Scale

points = st.lists(st.tuples(st.floats(), st.floats()), max_size=30)
kinds = st.sampled_from(["number", "seconds", "time"])


def plotted(*curves: Curve, size: tuple[int, int] = (60, 14), log_y: bool = False) -> list[str]:
    return _plot.plot(curves, size=size, paint=None, log_y=log_y)


@given(
    curves=st.lists(points, min_size=1, max_size=3),
    size=st.tuples(st.integers(20, 120), st.integers(4, 40)),
    scale=st.sampled_from(["linear", "log"]),
    kind=kinds,
)
def test_a_plot_of_anything_fits_its_size(
    curves: list[list[tuple[float, float]]], size: tuple[int, int], scale: str, kind: str
) -> None:
    log_y, (width, height) = scale == "log", size
    given = [Curve("a", [x for x, _ in held], [y for _, y in held]) for held in curves]
    lines = _plot.plot(given, size=size, paint=None, log_y=log_y, x_kind=kind)
    drawable = [
        y for held in curves for x, y in held if abs(x) <= 1e300 and Scale(0, 1, log_y).holds(y)
    ]
    assert bool(lines) == bool(drawable)
    assert len(lines) in {0, max(height, 4)}
    margin = max((line.find("┤") for line in lines), default=0)
    assert max(map(len, lines), default=0) <= max(width, margin + 11)


@given(st.floats(-1e15, 1e15), st.floats(1e-6, 1e15), st.integers(1, 12), kinds)
def test_ticks_lie_within_the_axis_in_order_and_read_back_as_their_values(
    low: float, span: float, count: int, kind: str
) -> None:
    scale = Scale(low, low + span, kind=kind)
    ticks = scale.ticks(count)
    values = [value for value, _ in ticks]
    assert values == sorted(values)
    # A tick is a multiple of a round step, to the last bit of numbers of this size.
    slack = (scale.high - scale.low) * 1e-6 + 2 * math.ulp(max(abs(scale.low), abs(scale.high)))
    assert all(scale.low - slack <= value <= scale.high + slack for value in values)
    labels = [label for _, label in ticks]
    if kind == "number" and span > 1e-9 * abs(low):
        assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 1, ["0", "0.5", "1.0"]),
        (0, 1.5e6, ["0", "0.5M", "1.0M", "1.5M"]),
        (1e-9, 3e-9, ["1e-9", "2e-9", "3e-9"]),
        (-2, 2, ["-2", "0", "2"]),
        (5, 5, ["5.000"]),
    ],
)
def test_numbers_of_an_axis_are_round(low: float, high: float, labels: list[str]) -> None:
    assert [label for _, label in Scale(low, high).ticks(3)] == labels


def test_numbers_of_an_axis_by_magnitude_are_powers_of_ten() -> None:
    labels = [label for _, label in Scale(0.003, 2000, is_log=True).ticks(6)]
    assert labels == ["0.01", "0.1", "1", "10", "100", "1000"]


@pytest.mark.parametrize(
    ("span", "first"),
    [
        (0.1, "00:00:00.00"),
        (30, "00:00:00"),
        (7200, "00:00"),
        (86400 * 1.5, "01-01 00:00"),
        (86400 * 300, "1970-01-01"),
    ],
)
def test_times_of_an_axis_are_told_as_the_range_needs(span: float, first: str) -> None:
    assert Scale(0, span, kind="time").ticks(4)[0][1] == first


@pytest.mark.parametrize(
    ("span", "last"), [(0.5, "0.4s"), (60, "60s"), (600, "10m"), (36000, "8h"), (864000, "10d")]
)
def test_seconds_of_an_axis_are_told_in_one_unit(span: float, last: str) -> None:
    assert Scale(0, span, kind="seconds").ticks(3)[-1][1] == last


def test_a_rising_line_goes_from_one_corner_to_the_other() -> None:
    lines = plotted(Curve("a", [0, 10], [0, 10]))
    bodies = [line.partition("┤")[2] or line.partition("│")[2] for line in lines[:-2]]
    columns = [body.index("a") for body in bodies]
    assert columns == sorted(columns, reverse=True)
    assert columns[-1] == 0
    assert columns[0] == max(map(len, bodies)) - len(bodies[0][columns[0] :])
    assert bodies[0].endswith("a")


def test_a_spike_is_seen() -> None:
    values = [0.0] * 100
    values[50] = 9.0
    lines = plotted(Curve("a", range(100), values))
    assert "a" in lines[0] + lines[1]


def test_a_curve_is_broken_where_it_is_not_a_number() -> None:
    values = [1.0] * 40 + [math.nan] * 20 + [1.0] * 40
    (line,) = [line for line in plotted(Curve("a", range(100), values)) if "a" in line]
    inside = line[line.index("a") : line.rindex("a") + 1]
    gap = inside.strip("a")
    assert gap == " " * len(gap)
    assert len(inside) / 8 < len(gap) < len(inside) / 3


def test_a_value_that_has_no_magnitude_is_left_out() -> None:
    assert plotted(Curve("a", [0, 1], [0.0, -1.0]), log_y=True) == []
    assert plotted(Curve("a", [0, 1, 2], [0.0, 1.0, 10.0]), log_y=True) != []


def test_dots_of_two_curves_keep_their_colours() -> None:
    painted: list[tuple[str, str]] = []

    def paint(text: str, color: str) -> str:
        painted.append((text, color))
        return text

    _plot.plot([Curve("a", [0, 1], [0, 0]), Curve("b", [0, 1], [1, 1])], size=(40, 10), paint=paint)
    colors = {color for _, color in painted}
    assert colors == set(_plot.COLORS[:2])
    assert {ord(text) >> 8 for text, _ in painted} == {0x28}
