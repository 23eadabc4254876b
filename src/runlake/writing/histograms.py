"""Histograms: many values as counts between edges, as text for one event.

Values are counted in pieces, so that a tensor of any size takes little more memory. NaN is
counted apart, and so are values outside the edges, infinities among them.
"""

from __future__ import annotations

import math
import operator
import sys
from typing import TYPE_CHECKING, Any, Final

from runlake import given, schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.writing import values as checks
from runlake.writing.events import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

_PIECE: Final = 1 << 20
_MOST: Final = sys.float_info.max
_MOST_BINS: Final = 16384
# The width of a range may be greater than any float, of a quarter of it is not.
_SHRINK: Final = 0.25


def text_of(
    key: str,
    values: object = None,
    *,
    bins: object = 64,
    edges: object = None,
    counts: object = None,
    step: object = 0,
) -> str:
    """Return a histogram as an event says it.

    Args:
        key: 1 to 250 printable characters.
        values: numbers of any shape: an array, a tensor, a list.
        bins: how many, of equal width between the least and the greatest finite value.
        edges: the bounds of the bins, rising; in place of `bins`.
        counts: with `edges` in place of `values`: what was counted elsewhere.
        step: any 64-bit whole number.

    Raises:
        InvalidInputError: these do not make a histogram, or it is too long for an event.
    """
    key = checks.name("histogram", key)
    said: dict[str, object] = {"step": checks.step(step)}
    bounds = None if edges is None else _edges(key, edges)
    if (values is None) == (counts is None):
        raise InvalidInputError(
            f"histogram {key!r} takes values, or edges and counts; got "
            f"{'neither' if values is None else 'both'}."
        )
    if counts is not None:
        if bounds is None:
            raise InvalidInputError(f"histogram {key!r} has counts; give its edges too.")
        given_counts = _counts(key, counts, len(bounds) - 1)
        said |= _told(bounds, given_counts, below=0, above=0, nan_count=0)
    else:
        said |= _count(_numbers(key, "values", values), bounds, _bins(key, bins))
    text = to_json(said)
    if len(text) > schema.TEXT_LIMIT_BYTES:
        raise InvalidInputError(
            f"histogram {key!r} has {len(text):,} bytes as text, at most "
            f"{schema.TEXT_LIMIT_BYTES:,} are kept; take fewer bins."
        )
    return text


def _count(
    numbers: NDArray[Any], bounds: NDArray[np.float64] | None, bins: int
) -> dict[str, object]:
    """Count numbers between bounds, or between their own least and greatest."""
    flat = numbers.reshape(-1)
    if bounds is None:
        bounds = _even(flat, bins)
    low, high = (bounds[0], bounds[-1]) if len(bounds) else (0.0, 0.0)
    counts = np.zeros(max(0, len(bounds) - 1), np.int64)
    below = above = nan_count = 0
    for piece in _pieces(flat):
        nan_count += int(np.count_nonzero(np.isnan(piece)))
        below += int(np.count_nonzero(piece < low))
        above += int(np.count_nonzero(piece > high))
        if len(bounds):
            counts += np.histogram(piece, bounds)[0]
    return _told(bounds, counts, below=below, above=above, nan_count=nan_count)


def _told(
    bounds: NDArray[np.float64], counts: NDArray[Any], *, below: int, above: int, nan_count: int
) -> dict[str, object]:
    return {
        "edges": bounds.tolist(),
        "counts": counts.tolist(),
        "below": below,
        "above": above,
        "nan_count": nan_count,
    }


def _pieces(flat: NDArray[Any]) -> Iterator[NDArray[np.floating[Any]]]:
    # Floats of 32 bits are sorted faster than what they would become, and compare the same.
    kind = np.float32 if flat.dtype == np.float32 else np.float64
    for start in range(0, len(flat), _PIECE):
        yield flat[start : start + _PIECE].astype(kind, copy=False)


def _even(flat: NDArray[Any], bins: int) -> NDArray[np.float64]:
    """Return edges of equal distance around all finite values; none if there are none."""
    low, high = math.inf, -math.inf
    for piece in _pieces(flat):
        finite = piece[np.isfinite(piece)]
        if len(finite):
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        return np.empty(0)
    # Narrower bins would have edges that are one number.
    least = 2 * bins * math.ulp(max(abs(low), abs(high)))
    if high / 2 - low / 2 < least / 2:
        more = max(least, 0.5 if low == high else 0.0)
        low, high = max(low - more, -_MOST), min(high + more, _MOST)
    shrink = 1.0 if high - low < _MOST / 2 else _SHRINK
    bounds = np.linspace(low * shrink, high * shrink, bins + 1) / shrink
    bounds[0], bounds[-1] = low, high
    return bounds


def _numbers(key: str, what: str, values: object) -> NDArray[Any]:
    """Return numbers of any shape as an array."""
    found = given.array(values)
    try:
        if found is None:
            found = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{what} of histogram {key!r}: {error}") from error
    if isinstance(found, np.ma.MaskedArray):
        found = found.compressed()
    if found.size and found.dtype.kind not in "buif":
        raise InvalidInputError(
            f"{what} of histogram {key!r} are numbers, got {type(values).__name__} of "
            f"{found.dtype}."
        )
    return found


def _bins(key: str, bins: object) -> int:
    try:
        count = operator.index(bins)  # type: ignore[arg-type]
    except TypeError:
        count = 0
    if 1 <= count <= _MOST_BINS:
        return count
    raise InvalidInputError(
        f"bins of histogram {key!r} is a number from 1 to {_MOST_BINS}, got {bins!r}. Bounds of "
        "your own go into edges."
    )


def _edges(key: str, edges: object) -> NDArray[np.float64]:
    bounds = _numbers(key, "edges", edges).astype(np.float64)
    is_rising = bounds.ndim == 1 and len(bounds) > 1 and bool(np.all(np.diff(bounds) > 0))
    if not is_rising or not np.isfinite(bounds).all():
        raise InvalidInputError(
            f"edges of histogram {key!r} are two or more finite numbers, each greater than the "
            f"one before, got {str(edges)[:80]}."
        )
    return bounds


def _counts(key: str, counts: object, bins: int) -> NDArray[Any]:
    found = _numbers(key, "counts", counts)
    if found.shape != (bins,) or not np.isfinite(found).all() or (found < 0).any():
        raise InvalidInputError(
            f"counts of histogram {key!r} are {bins} numbers of 0 or more, one less than edges, "
            f"got {str(counts)[:80]}."
        )
    return found
