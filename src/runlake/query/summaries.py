"""How the metric summaries of several writers fold into one for each run and key.

Of one writer's states the largest `n` holds. Over writers `last` is the greatest (step, time,
value), NaN the least in a tie; `first` the least, NaN the greatest; `min` and `max` leave NaN
out, stand at their earliest step, and are null, like `mean`, where every value is NaN. `count`
counts NaN too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.standing import occurs_once, standing

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.query.held import Selected
else:
    np = lazy("numpy")

_Columns = dict[str, "NDArray[Any]"]

_EXTREMES: Final = ("min", "max")
_PARTS: Final = ("", "_step", "_time")


_OF_SEVERAL: Final = {"count": ("n",), "mean": ("n", "nan_count", "sum")}


def read_columns(name: str) -> tuple[str, ...]:
    """Return the columns of summaries that a column of the view `metric_summary` takes."""
    return _OF_SEVERAL.get(name, (name,))


@final
class SummaryFold:
    """One row for each run and key; a column is worked out when it is first asked for.

    Attributes:
        heads: shape (n,), for each row of the result a row of the summaries of its group.
    """

    def __init__(self, summaries: Selected, groups: NDArray[np.int64]) -> None:
        """Find what stands.

        Args:
            summaries: rows of `runlake.storage.tables.summaries_schema()`.
            groups: shape (n,), a number for each row's run and key.
        """
        self._summaries = summaries
        self._kept: dict[str, pa.Array[Any]] = {}
        # Nearly all metrics have one state, which needs no choosing.
        is_single = occurs_once(groups)
        self._alone = np.flatnonzero(is_single)
        self._merged: _Columns = {}
        self.heads = self._alone
        again = np.flatnonzero(~is_single)
        if not len(again):
            return
        writers = summaries.codes("writer")
        states = groups[again] * (int(writers.max()) + 1) + writers[again]
        again = again[standing(states, [self._plain("n")[again]], latest=True)]
        is_single = occurs_once(groups[again])
        self._alone = np.sort(np.concatenate([self._alone, again[is_single]]))
        self.heads = self._alone
        shared = again[~is_single]
        if len(shared):
            _, firsts, of = np.unique(groups[shared], return_index=True, return_inverse=True)
            self._merged = self._merge(of, shared)
            self.heads = np.concatenate([self._alone, shared[firsts]])

    def values(self, name: str, rows: NDArray[np.int64]) -> pa.Array[Any]:
        """Return a column of some rows.

        Args:
            name: a column of the view `metric_summary` from `last` on, `last_time` in
                microseconds since 1970.
            rows: shape (m,).
        """
        if name not in self._kept:
            self._kept[name] = self._column(name)
        return self._kept[name].take(arrays.numbers(rows))

    def _column(self, name: str) -> pa.Array[Any]:
        if name == "count":
            return arrays.numbers(self._all("n"))
        if name == "mean":
            counts = self._all("n") - self._all("nan_count")
            is_empty = counts <= 0
            return arrays.numbers(self._all("sum") / np.where(is_empty, 1, counts), mask=is_empty)
        extreme = name.removesuffix("_step")
        mask = ~self._all(f"has_{extreme}") if extreme in _EXTREMES else None
        return arrays.numbers(self._all(name), mask=mask)

    def _all(self, name: str) -> NDArray[Any]:
        """Return a column over all rows, where it is null anything."""
        column = self._source(name)
        if len(self._alone) < len(column):
            column = column[self._alone]
        return np.concatenate([column, self._merged[name]]) if self._merged else column

    def _source(self, name: str) -> NDArray[Any]:
        """Return a column of the states; `has_min` and `has_max` tell where they are a number."""
        if not name.startswith("has_"):
            return self._plain(name)
        extreme = name.removeprefix("has_")
        is_there = arrays.is_valid(self._summaries.column(extreme))
        has_number: NDArray[np.bool_] = is_there & ~np.isnan(self._plain(extreme))
        return has_number

    def _plain(self, name: str) -> NDArray[Any]:
        return arrays.values(self._summaries.column(name))

    def _merge(self, of: NDArray[np.int64], shared: NDArray[np.int64]) -> _Columns:
        """Join the states of several writers; groups are numbered from 0 without a gap."""
        size = int(of.max()) + 1
        merged: _Columns = {}
        for name in ("n", "nan_count", "sum"):
            column = self._plain(name)[shared]
            merged[name] = np.bincount(of, weights=column, minlength=size).astype(column.dtype)
        for spot in ("last", "first", *_EXTREMES):
            value, step, time = (self._plain(spot + part)[shared] for part in _PARTS)
            order = {
                "last": [step, time, ~np.isnan(value), value],
                "first": [step, time, value],
                "min": [value, step, time],
                "max": [-value, step, time],
            }[spot]
            rows = np.arange(len(of))
            if spot in _EXTREMES:
                rows = np.flatnonzero(self._source(f"has_{spot}")[shared])
                merged[f"has_{spot}"] = np.bincount(of[rows], minlength=size) > 0
            ordered = [column[rows] for column in order]
            rows = rows[standing(of[rows], ordered, latest=spot == "last")]
            for part, column in zip(_PARTS, (value, step, time), strict=True):
                merged[spot + part] = np.zeros(size, column.dtype)
                merged[spot + part][of[rows]] = column[rows]
        return merged
