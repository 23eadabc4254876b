"""What runs hold by key, over all runs: their metrics, their params, or their tags.

One row stands for one key of one run. A run is known by its *place*: its row among the runs of
the snapshot, which never changes. Columns come out in two ways: one key over all runs, to
filter and order by, and all keys of a page of runs, to show.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, final

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.standing import Coded, begins, expand, occurs_once, standing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    from runlake.storage.states import StateRows
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

# So many keys are read by themselves.
_FEW_KEYS: Final = 4
# More runs than these are no page.
_MANY_RUNS: Final = 1000
# Rows up to this many are folded whole in no time, and each page is then a look-up.
_FEW_ROWS: Final = 200_000

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


class Selected:
    """Some rows of a state, or all of them."""

    def __init__(self, rows: StateRows, places: NDArray[np.int64] | None = None) -> None:
        """Read nothing yet.

        Args:
            rows: the state.
            places: shape (n,), which of its rows; None for all.
        """
        self._rows = rows
        self._places = places

    def __len__(self) -> int:
        """Return how many rows there are."""
        return self._rows.num_rows if self._places is None else len(self._places)

    def codes(self, name: str) -> NDArray[np.int32]:
        """Return a column of texts as numbers, see `texts`."""
        codes = self._rows.coded(name).codes
        return codes if self._places is None else codes[self._places]

    def texts(self, name: str) -> Coded:
        """Return the same with the texts, of which some may be of other rows."""
        return Coded(self.codes(name), self._rows.coded(name).values)

    def column(self, name: str) -> pa.Array[Any]:
        """Return a column of numbers or plain texts."""
        if self._places is None:
            return self._rows.array(name)
        return self._rows.take(name, self._places)


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
        return order[expand(starts[places], starts[places + 1])]

    def of_page(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of some runs by key, and whose they are.

        Args:
            places: shape (m,), the runs.

        Returns:
            The rows, and of each the number of its run, below m, which rises within a key.
        """
        _, starts = self._by_place
        rows = self.of_runs(places)
        owners = np.repeat(np.arange(len(places)), starts[places + 1] - starts[places])
        by_key = np.argsort(self.ranks[self.keys[rows]], kind="stable")
        return rows[by_key], owners[by_key]

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """The place of each of `names` in their order."""
        return Coded(self.keys, self.names).ranks()

    @cached_property
    def _by_place(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return by_place(self.places, self.run_count)


@final
class Holding:
    """What runs hold of one kind, folded no further than questions need it.

    A key is folded without the others, and so are the runs of a page that is shown. What is not
    of the first few keys or of the first page is not even kept; a process that asks for more
    keeps whole columns.
    """

    def __init__(
        self,
        rows: StateRows,
        fold: Callable[[Selected, NDArray[np.int32]], Held],
        *,
        reads: Callable[[str], Sequence[str]],
        run_ids: Callable[[], pa.StringArray],
        places_of: Callable[[StateRows], NDArray[np.int32]],
    ) -> None:
        """Fold nothing yet.

        Args:
            rows: what was said.
            fold: given rows, and for each run of `Selected.texts("run_id")` its place or -1,
                returns what stands of them.
            reads: given a column of values, returns the columns of `rows` that it takes.
            run_ids: returns all runs, by place.
            places_of: given rows, returns the place of each run of theirs, in the order of
                `coded("run_id")`; -1 where no fact names it.
        """
        self._rows, self._fold, self._reads, self._run_ids = rows, fold, reads, run_ids
        self._places_of = places_of
        self._has_shown = False
        self._of_key: dict[str, StateRows] = {}
        self._lock = threading.RLock()

    @property
    def names(self) -> pa.StringArray:
        """The distinct keys."""
        return self._rows.coded("key").values

    def code_of(self, key: str) -> int:
        """Return the place of a key in `names`; -1 where no run has it."""
        return self._rows.coded("key").code_of(key)

    @cached_property
    def whole(self) -> Held:
        """What all runs hold."""
        with self._lock:
            return self._fold(Selected(self._rows), self._run_places)

    def column(self, key: str, columns: Sequence[str]) -> pa.Table:
        """Return one key's values over all runs: see `Held.column`."""
        if "whole" in self.__dict__:
            return self.whole.column(key, columns)
        read = [name for column in columns for name in self._reads(column)]
        read = ["run_id", "key", *dict.fromkeys(read)]
        with self._lock:
            if key not in self._of_key and len(self._of_key) < _FEW_KEYS:
                self._of_key[key] = self._rows.of_key(key)
            few = self._of_key.get(key)
        if few is not None:
            few.load([name for name in read if name != "key"])
            return self._fold(Selected(few), self._places_of(few)).column(key, columns)
        self._rows.load(read)
        keys = self._rows.coded("key")
        rows = np.flatnonzero(keys.codes == keys.code_of(key))
        return self._fold(Selected(self._rows, rows), self._run_places).column(key, columns)

    def about(self, places: NDArray[np.int64]) -> Held:
        """Return what some runs hold, and maybe others.

        Args:
            places: shape (m,), the runs, each once.
        """
        if "whole" in self.__dict__ or len(places) > _MANY_RUNS:
            return self.whole
        if self._has_shown and self._rows.num_rows <= _FEW_ROWS:
            return self.whole
        if self._has_shown:
            (order, firsts), (starts, ends) = self._by_place, self._stretches
            stretches = order[expand(firsts[places], firsts[places + 1])]
            rows = np.sort(expand(starts[stretches], ends[stretches]))
        elif self._rows.has("key"):
            is_wanted = np.zeros(self._run_ids_count + 1, bool)
            is_wanted[places] = True  # and that of no run, the last, is not
            rows = np.flatnonzero(is_wanted[self._run_places][self._rows.coded("run_id").codes])
        else:
            self._has_shown = True
            wanted: Any = self._run_ids().take(arrays.numbers(places))
            found = self._rows.of_runs(wanted)
            numbers: Any = pc.index_in(found.coded("run_id").values, value_set=wanted)
            return self._fold(Selected(found), places[arrays.values(numbers)].astype(np.int32))
        self._has_shown = True
        held = self._fold(Selected(self._rows, rows), self._run_places)
        held.ranks = self._ranks
        return held

    @property
    def _run_ids_count(self) -> int:
        return len(self._run_ids())

    @cached_property
    def _run_places(self) -> NDArray[np.int32]:
        """The place of each run of the rows, -1 where no fact names it."""
        return self._places_of(self._rows)

    @cached_property
    def _ranks(self) -> NDArray[np.int64]:
        return self._rows.coded("key").ranks()

    @cached_property
    def _stretches(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where stretches of rows about one run begin, and where they end."""
        codes = self._rows.coded("run_id").codes
        if not len(codes):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        starts = np.flatnonzero(begins(codes))
        return starts, np.append(starts[1:], len(codes))

    @cached_property
    def _by_place(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The stretches in the order of places, and where each place begins."""
        codes = self._rows.coded("run_id").codes[self._stretches[0]]
        return by_place(self._run_places[codes], self._run_ids_count)


def chosen(said: Selected, groups: NDArray[np.int64], *, latest: bool) -> NDArray[np.int64] | None:
    """Choose one fact of each group by (clock, writer, seq).

    Args:
        said: the facts.
        groups: shape (n,), the group of each.
        latest: the latest stands, else the earliest.

    Returns:
        Those that stand, rising; None where each group has one only.
    """
    if occurs_once(groups).all():
        return None
    writers = said.texts("writer")
    clocks, seqs = (arrays.values(said.column(name)) for name in ("clock", "seq"))
    return standing(groups, [clocks, writers.ranks()[writers.codes], seqs], latest=latest)


def by_place(
    places: NDArray[np.int32], run_count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows in the order of their places, and where each place begins.

    Args:
        places: shape (n,), of each row; -1 for none.
        run_count: how many places there are.
    """
    # Rows come as they were logged, the newest run last, and its place is the first: what is
    # nearly in order is sorted in no time.
    order = np.argsort(-places, kind="stable")[::-1]
    return order, np.cumsum(np.bincount(places + 1, minlength=run_count + 1))
