"""Thin curves for the eye, and keep every spike.

The range of x of a curve is cut into equal buckets, and each keeps its first, last, lowest and
highest point: drawn that many pixels wide, the thinned curve looks as the whole one. Points lie
in the order of x, so a bucket is a stretch of them, and NumPy finds the four in a fifth of the
time that grouping them in DuckDB takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

# First, last, lowest, highest; and the first that is NaN.
FEWEST: Final = 4
_WITH_GAP: Final = 5


def thin(
    curves: NDArray[np.int64],
    x: NDArray[Any],
    values: NDArray[np.float64],
    *,
    max_points: int,
) -> NDArray[np.int64] | None:
    """Choose at most `max_points` rows of each curve, every extreme among them.

    The range of x of each curve is cut into `max_points // 4` equal buckets; each keeps its
    first, last, lowest and highest row, of equal values the earliest. Infinities are the lowest
    and highest numbers. NaN is neither; a curve that has NaN is cut into `max_points // 5`
    buckets, and each keeps its first NaN too, so that a gap stays visible (not for 4 points,
    where there is no room). A curve that is short enough is kept whole.

    Args:
        curves: shape (n,), which curve each row belongs to, never falling.
        x: shape (n,), int64 or finite float64, never falling in a curve.
        values: shape (n,).
        max_points: greatest number of rows wanted of each curve, at least 4.

    Returns:
        shape (m,), the places of the chosen rows, rising; None where all are.

    Source:
        Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation",
        PVLDB 7(10), 2014.
    """
    starts = np.flatnonzero(_begins(curves))
    ends = np.append(starts[1:], len(curves))
    is_long = ends - starts > max_points
    if not is_long.any():
        return None
    is_kept = np.ones(len(curves), bool)
    for start, end in zip(starts[is_long].tolist(), ends[is_long].tolist(), strict=True):
        is_kept[start:end] = _spots(x[start:end], values[start:end], max_points)
    return np.flatnonzero(is_kept)


def _spots(x: NDArray[Any], values: NDArray[np.float64], max_points: int) -> NDArray[np.bool_]:
    """Tell of each row of one curve whether it is kept."""
    is_nan = np.isnan(values)
    has_gap = bool(is_nan.any())
    slots = max_points // (_WITH_GAP if has_gap and max_points >= _WITH_GAP else FEWEST)
    buckets = _buckets(x, slots)
    starts = np.flatnonzero(_begins(buckets))
    ends = np.append(starts[1:], len(x))
    kept = np.zeros(len(x), bool)
    kept[starts] = kept[ends - 1] = True
    number = np.repeat(np.arange(len(starts)), ends - starts)
    # These two pass NaN over; a bucket of nothing else has neither.
    for extreme in (np.fmin, np.fmax):
        kept[_firsts(values == extreme.reduceat(values, starts)[number], number)] = True
    if has_gap and max_points >= _WITH_GAP:
        kept[_firsts(is_nan, number)] = True
    return kept


def _firsts(is_met: NDArray[np.bool_], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first row of each bucket that meets a condition."""
    rows = np.flatnonzero(is_met)
    firsts: NDArray[np.int64] = rows[_begins(number[rows])]
    return firsts


def _begins(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell of each row whether another number begins with it."""
    found = np.ones(len(numbers), bool)
    found[1:] = numbers[1:] != numbers[:-1]
    return found


def _buckets(x: NDArray[Any], slots: int) -> NDArray[np.int32]:
    """Number the bucket of each row of one curve."""
    # Halves, because the distance of two numbers may be greater than the greatest.
    place = x * 0.5
    low, high = place[0], place[-1]
    place -= low
    place /= high - low if high > low else 1.0
    place *= slots
    return np.minimum(place.astype(np.int32), slots - 1)
