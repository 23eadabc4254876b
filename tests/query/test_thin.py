from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.query.thin import thin

if TYPE_CHECKING:
    from collections.abc import Sequence

Rows = list[tuple[float, float]]

_values = st.sampled_from([0.0, 1.0, 2.5, -3.0, math.nan, math.inf, -math.inf])


def choose(curves: Sequence[Rows], max_points: int) -> list[list[int]]:
    """Thin curves of (x, value), and return the places kept of each."""
    lengths = [len(rows) for rows in curves]
    numbers = np.repeat(np.arange(len(curves)), lengths)
    x = np.array([x for rows in curves for x, _ in rows])
    values = np.array([value for rows in curves for _, value in rows], np.float64)
    kept = thin(numbers, x, values, max_points=max_points)
    chosen = np.arange(len(x)) if kept is None else kept
    starts = np.cumsum([0, *lengths])
    return [(chosen[numbers[chosen] == n] - starts[n]).tolist() for n in range(len(curves))]


def spots(rows: Rows, *, has_room: bool) -> set[int]:
    """Return the places of the first, last, lowest and highest row, and of the first NaN."""
    numbers = [place for place, (_, value) in enumerate(rows) if not math.isnan(value)]
    found = {0, len(rows) - 1}
    if numbers:
        found.add(min(numbers, key=lambda place: (rows[place][1], place)))
        found.add(min(numbers, key=lambda place: (-rows[place][1], place)))
    if has_room:
        found.update([place for place in range(len(rows)) if place not in set(numbers)][:1])
    return found


def expected(rows: Rows, max_points: int) -> list[int]:
    """Return the places to keep of one curve, by the plainest means."""
    if len(rows) <= max_points:
        return list(range(len(rows)))
    has_room = max_points >= 5
    has_gap = any(math.isnan(value) for _, value in rows)
    slots = max_points // (5 if has_gap and has_room else 4)
    low, high = rows[0][0] * 0.5, rows[-1][0] * 0.5
    buckets = defaultdict(list)
    for place, (x, _) in enumerate(rows):
        share = (x * 0.5 - low) / (high - low) if high > low else 0.0
        buckets[min(int(share * slots), slots - 1)].append(place)
    return sorted(
        members[place]
        for members in buckets.values()
        for place in spots([rows[member] for member in members], has_room=has_room)
    )


@st.composite
def _curves(draw: st.DrawFn) -> list[Rows]:
    """Draw curves, x never falling."""
    steps = st.integers(-(2**63), 2**63 - 1) | st.integers(-20, 20)
    floats = st.floats(allow_nan=False, allow_infinity=False)
    xs: st.SearchStrategy[Any] = draw(st.sampled_from([steps, floats]))
    rows = st.lists(st.tuples(xs, _values), min_size=1, max_size=40)
    drawn = draw(st.lists(rows, max_size=3))
    return [sorted(each, key=lambda row: row[0]) for each in drawn]


@given(curves=_curves(), max_points=st.integers(4, 24))
def test_thinned_curves_keep_the_spots_of_every_bucket_and_the_promised_size(
    curves: list[Rows], max_points: int
) -> None:
    kept = choose(curves, max_points)
    assert kept == [expected(rows, max_points) for rows in curves]
    for rows, places in zip(curves, kept, strict=True):
        assert len(places) <= max_points
        assert spots(rows, has_room=max_points >= 5) <= set(places)


@given(curves=_curves(), max_points=st.integers(4, 24))
def test_curve_that_was_thinned_is_short_enough_to_stay(
    curves: list[Rows], max_points: int
) -> None:
    kept = [
        [rows[place] for place in places]
        for rows, places in zip(curves, choose(curves, max_points), strict=True)
    ]
    assert choose(kept, max_points) == [list(range(len(rows))) for rows in kept]


@pytest.mark.parametrize("spike", [9.0, math.inf, -math.inf, math.nan])
def test_every_spike_of_a_long_curve_is_kept(spike: float) -> None:
    rows: Rows = [(step, math.sin(step)) for step in range(20_000)]
    spikes = [777, 5_000, 12_345]
    for step in spikes:
        rows[step] = (step, spike)
    [kept] = choose([rows], 100)
    assert set(spikes) <= set(kept)
    assert len(kept) <= 100


def test_gap_stays_as_wide_as_the_buckets_tell() -> None:
    rows: Rows = [(step, math.nan if 400 <= step < 600 else 1.0 + step) for step in range(1000)]
    [kept] = choose([rows], 100)
    assert [place for place in kept if 400 <= place < 600]
    assert all(math.isnan(rows[place][1]) for place in kept if 400 <= place < 600)
    numbers = [place for place in kept if not math.isnan(rows[place][1])]
    assert max(place for place in numbers if place < 400) == 399
    assert min(place for place in numbers if place >= 600) == 600


@pytest.mark.parametrize("max_points", [4, 5])
def test_number_between_gaps_is_kept(max_points: int) -> None:
    rows: Rows = [(step, 1.0 if 2 <= step < 5 else math.nan) for step in range(8)]
    [kept] = choose([rows], max_points)
    assert kept == [0, 2, 7]


def test_curves_of_equal_values_keep_their_ends_only() -> None:
    rows: Rows = [(step, 1.0) for step in range(1000)]
    [kept] = choose([rows], 8)
    assert kept == [0, 499, 500, 999]
