"""What runs hold by key, over all runs: their metrics, their params, or their tags.

One row stands for one key of one run. A run is known by its *place*: its row among the runs of
the snapshot, which never changes. Columns come out in two ways: one key over all runs, to
filter and order by, and all keys of a page of runs, to show.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.standing import Coded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

# What values there are of each kind.
COLUMNS: Final = {
    "params": ("value", "number"),
    "tags": ("value",),
    "inputs": ("value",),
    "metrics": (
        "run_id",
        "experiment_id",
        "last",
        "last_step",
        "last_time",
        "first",
        "first_step",
        "min",
        "min_step",
        "max",
        "max_step",
        "mean",
        "count",
        "nan_count",
    ),
}
# The statistics of a metric that stand at a step.
STEPPED: Final = frozenset({"last", "first", "min", "max"})


class Held:
    """Rows of (place, key, values), each pair of the first two once.

    Attributes:
        places: shape (n,), the run of each row; -1 for a run that no fact names.
        keys: shape (n,), the place of each row's key in `names`.
        names: the distinct keys.
        run_count: how many runs there are.
    """

    def __init__(
        self,
        places: NDArray[np.int32],
        keys: NDArray[np.int32],
        names: pa.StringArray,
        *,
        values: Callable[[str, NDArray[np.int64]], pa.Array[Any]],
        run_count: int,
    ) -> None:
        """Keep the rows.

        Args:
            places: see the attributes.
            keys: see the attributes.
            names: see the attributes.
            values: given the name of a column of values and some rows, returns their values.
            run_count: see the attributes.
        """
        self.places = places
        self.keys = keys
        self.names = names
        self.values = values
        self.run_count = run_count

    def code_of(self, key: str) -> int:
        """Return the place of a key in `names`; -1 where no run has it."""
        return Coded(self.keys, self.names).code_of(key)

    def column(self, key: str, columns: Sequence[str]) -> pa.Table:
        """Return one key's values over all runs, null where a run does not have it.

        Args:
            key: the key.
            columns: names of columns of values.

        Returns:
            These columns, one row for each run, by place.
        """
        rows = np.flatnonzero(self.keys == self.code_of(key))
        rows = rows[self.places[rows] >= 0]
        chosen = np.full(self.run_count, -1, np.int64)
        chosen[self.places[rows]] = np.arange(len(rows))
        indices = arrays.numbers(np.maximum(chosen, 0), mask=chosen < 0)
        return pa.table({name: self.values(name, rows).take(indices) for name in columns})

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Return all rows: `place` (-1 where no fact names the run), `key`, and some values."""
        rows = np.arange(len(self.places))
        keys = pa.DictionaryArray.from_arrays(arrays.numbers(self.keys), self.names)
        found: dict[str, Any] = {"place": arrays.numbers(self.places), "key": keys}
        return pa.table(found | {name: self.values(name, rows) for name in columns})

    def maps(self, name: str) -> pa.MapArray[Any, Any]:
        """Return a map of all keys for each run, by place, the keys in their order.

        Args:
            name: the column of values that the maps hold.
        """
        order = np.lexsort((self.ranks[self.keys], self.places))
        order = order[np.searchsorted(self.places[order], 0) :]
        counts = np.bincount(self.places[order], minlength=self.run_count)
        ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        offsets: Any = arrays.numbers(ends)
        keys = self.names.take(arrays.numbers(self.keys[order]))
        maps: Any = pa.MapArray.from_arrays(offsets, keys, self.values(name, order))
        found: pa.MapArray[Any, Any] = maps
        return found

    def of_runs(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of some runs.

        Args:
            places: shape (m,), the runs.

        Returns:
            The rows of the first, then of the second, and so on.
        """
        order, starts = self._by_place
        counts = starts[places + 1] - starts[places]
        ends = np.cumsum(counts)
        shift = np.repeat(starts[places] - (ends - counts), counts)
        found: NDArray[np.int64] = order[np.arange(len(shift)) + shift]
        return found

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """The place of each of `names` in their order."""
        return Coded(self.keys, self.names).ranks()

    @cached_property
    def _by_place(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows in the order of places, and where each place begins."""
        # Rows come as they were logged, the newest run last, and its place is the first: what
        # is nearly in order is sorted in no time.
        order = np.argsort(-self.places, kind="stable")[::-1]
        counts = np.bincount(self.places + 1, minlength=self.run_count + 1)
        return order, np.cumsum(counts)
