"""Thin curves for the eye, and keep every spike.

The range of x of a curve is cut into equal buckets, and each keeps its first, last, lowest and
highest point: drawn that many pixels wide, the thinned curve looks as the whole one. DuckDB
finds these four; what comes in and goes out are columns, so points never become Python objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.storage import arrays

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

# First, last, lowest, highest; and the first that is NaN.
FEWEST: Final = 4
_WITH_GAP: Final = 5

# NaN is null here, which min and max pass over. Of equal values the earliest row stands, so that
# the answer does not depend on how DuckDB shares out the work.
_THIN: Final = """
WITH spots AS MATERIALIZED (
    SELECT
        bucket,
        min(row) AS first,
        max(row) AS last,
        min(value) AS low,
        max(value) AS high,
        min(row) FILTER (value IS NULL) AS gap
    FROM points
    GROUP BY bucket
)
SELECT first AS row FROM spots
UNION ALL
SELECT last FROM spots
UNION ALL
SELECT gap FROM spots WHERE gap IS NOT NULL AND $has_room
UNION ALL
SELECT min(row)
FROM points
JOIN spots USING (bucket)
WHERE (low < high OR gap IS NOT NULL) AND (value = low OR value = high)
GROUP BY bucket, value = low
"""


def thin(
    curves: NDArray[np.int64],
    x: NDArray[Any],
    values: NDArray[np.float64],
    *,
    max_points: int,
    cursor: duckdb.DuckDBPyConnection,
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
        cursor: of a database of our own.

    Returns:
        shape (m,), the places of the chosen rows, rising; None where all are.

    Source:
        Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation",
        PVLDB 7(10), 2014.
    """
    starts = np.flatnonzero(np.r_[True, curves[1:] != curves[:-1]])[: len(curves)]
    lengths = np.diff(np.r_[starts, len(curves)])
    is_long = lengths > max_points
    if not is_long.any():
        return None
    if is_long.all():
        return _choose(x, values, lengths=lengths, max_points=max_points, cursor=cursor)
    is_wanted = np.repeat(is_long, lengths)
    chosen = _choose(
        x[is_wanted],
        values[is_wanted],
        lengths=lengths[is_long],
        max_points=max_points,
        cursor=cursor,
    )
    is_kept = ~is_wanted
    is_kept[np.flatnonzero(is_wanted)[chosen]] = True
    return np.flatnonzero(is_kept)


def _choose(
    x: NDArray[Any],
    values: NDArray[np.float64],
    *,
    lengths: NDArray[np.int64],
    max_points: int,
    cursor: duckdb.DuckDBPyConnection,
) -> NDArray[np.int64]:
    """Return the places of the rows to keep of long curves, which lie one behind the other."""
    ends = np.cumsum(lengths)
    is_nan = np.isnan(values)
    has_room = max_points >= _WITH_GAP
    slots = np.full(len(lengths), max_points // FEWEST, np.int32)
    if is_nan.any() and has_room:
        slots[np.add.reduceat(is_nan, ends - lengths) > 0] = max_points // _WITH_GAP
    points = {
        "bucket": arrays.numbers(_buckets(x, lengths, slots)),
        "row": arrays.numbers(np.arange(len(x), dtype=np.int32)),
        "value": arrays.numbers(values, mask=is_nan),
    }
    cursor.register("points", pa.table(points))
    found = cursor.sql(_THIN, params={"has_room": has_room}).to_arrow_table()
    is_kept = np.zeros(len(x), bool)
    is_kept[arrays.values(found["row"].combine_chunks())] = True
    return np.flatnonzero(is_kept)


def _buckets(
    x: NDArray[Any], lengths: NDArray[np.int64], slots: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Number the bucket of each row; no two curves share one."""
    ends = np.cumsum(lengths)
    # Halves, because the distance of two numbers may be greater than the greatest.
    low, high = x[ends - lengths] * 0.5, x[ends - 1] * 0.5
    width = np.where(high > low, high - low, 1.0)
    firsts = np.cumsum(slots, dtype=np.int32) - slots
    place = x * 0.5
    place -= np.repeat(low, lengths)
    place /= np.repeat(width, lengths)
    place *= np.repeat(slots, lengths)
    buckets = place.astype(np.int32)
    np.minimum(buckets, np.repeat(slots - 1, lengths), out=buckets)
    buckets += np.repeat(firsts, lengths)
    return buckets
