"""The states of runs: what compacted files say, then what live segments do.

Threads may share them. What was compacted is decoded where it is asked for, and shared by all
snapshots until the next compaction, see `runlake.storage.filed`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, final

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.filed import Filed, Kinds, are_among
from runlake.storage.standing import Coded, coded, joined

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

_RUN, _KIND, _KEY, _HOME, _CLOCK = "run_id", "kind", "key", "experiment_id", "clock"
_NO_CLOCK: Final = 2**63 - 1


@final
class StateRows:
    """Rows of facts or summaries: those of compacted files, then those of live segments.

    Attributes:
        schema: the columns.
        filed: the rows of compacted files.
    """

    def __init__(self, live: pa.Table, filed: Filed | None = None) -> None:
        """Decode nothing yet.

        Args:
            live: rows of segments.
            filed: rows of compacted files, with the same columns.
        """
        self.schema = live.schema
        self.filed = Filed(live.schema) if filed is None else filed
        self._live = live
        self._kinds: Kinds | None = None
        self._among: tuple[tuple[str, pa.StringArray], ...] = ()
        self._live_rows: pa.BooleanArray | None = None
        self._kept: dict[str, pa.ChunkedArray[Any]] = {}
        self._coded: dict[str, Coded] = {}
        self._lock = threading.RLock()

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return self.filed.num_rows + self.live_count

    @property
    def live_count(self) -> int:
        """How many of them are of live segments."""
        flags = self._live_flags()
        live: int = self._live.num_rows if flags is None else flags.true_count
        return live

    def __getitem__(self, name: str) -> pa.ChunkedArray[Any]:
        """Return a column, decoded where it was not yet."""
        return self.load([name])[0]

    def load(self, names: Sequence[str]) -> list[pa.ChunkedArray[Any]]:
        """Return columns; what is not decoded yet is so in one pass.

        Raises:
            FormatError: a file is damaged.
        """
        with self._lock:
            missing = [name for name in names if name not in self._kept]
            if missing:
                filed, live = self.filed.load(missing), self.live(missing)
                for name, above, below in zip(missing, filed, live, strict=True):
                    self._kept[name] = _stacked(above, below)
            return [self._kept[name] for name in names]

    def has(self, name: str) -> bool:
        """Tell whether a column is decoded already."""
        return name in self._kept or self.filed.has(name)

    def array(self, name: str) -> pa.Array[Any]:
        """Return a column in one piece; not for numbered texts, see `coded`."""
        with self._lock:
            found: Any = arrays.whole(self[name])
            self._kept[name] = pa.chunked_array([found])
        whole: pa.Array[Any] = found
        return whole

    def coded(self, name: str) -> Coded:
        """Return a column of texts as numbers."""
        with self._lock:
            if name not in self._coded:
                self._coded[name] = joined(self.filed.coded(name), coded(self.live([name])[0]))
            return self._coded[name]

    def table(self) -> pa.Table:
        """Return all columns."""
        return pa.Table.from_arrays(self.load(self.schema.names), schema=self.schema)

    def to_pylist(self) -> list[dict[str, Any]]:
        """Return all rows."""
        return self.table().to_pylist()

    def equals(self, other: StateRows) -> bool:
        """Tell whether another holds the same rows in the same order."""
        same: Any = self.table().equals(other.table())
        return bool(same)

    def of_kinds(self, kinds: Collection[str], *, but: bool = False) -> StateRows:
        """Return the facts of some kinds, from row groups that may hold one.

        Args:
            kinds: which.
            but: all others instead.
        """
        wanted = Kinds(frozenset(kinds), but)
        found = StateRows(self._live, self.filed.once(wanted, lambda: self.filed.of_kinds(wanted)))
        found._kinds, found._among = wanted, self._among
        return found

    def of_runs(self, run_ids: pa.StringArray) -> StateRows:
        """Return the rows of some runs, from row groups that hold one.

        Args:
            run_ids: which runs.
        """
        return self._only(_RUN, run_ids, self.filed.of_runs(run_ids))

    def of_key(self, key: str) -> StateRows:
        """Return the rows of one key; of compacted files those of the last few keys are kept."""
        return self._only(_KEY, arrays.strings([key]), self.filed.of_key(key))

    def beside(self, filed: Filed) -> StateRows:
        """Return the same live rows, and of compacted files others.

        Args:
            filed: rows with the same columns, of the same kinds.
        """
        found = StateRows(self._live, filed)
        found._kinds, found._among = self._kinds, self._among
        return found

    def homes(self) -> list[tuple[str, pa.StringArray]]:
        """Return of each partition runs that occur in it, some of them several times.

        Runs may be among them that only rows of other kinds name.
        """
        found = self.filed.homes()
        homes, runs = map(coded, self.live([_HOME, _RUN]))
        names: list[Any] = homes.values.to_pylist()
        for home, name in enumerate(names):
            found.append((name, arrays.named(runs.values, runs.codes[homes.codes == home])))
        return found

    def take(self, name: str, places: NDArray[np.int64]) -> pa.Array[Any]:
        """Return a column of some rows; not for numbered texts, see `coded`.

        Args:
            name: the column.
            places: shape (m,), rising.
        """
        column = self[name]
        if column.num_chunks == 1:
            only: Any = column.chunk(0)
            taken: pa.Array[Any] = only.take(arrays.numbers(places))
            return taken
        ends = np.cumsum([len(chunk) for chunk in column.chunks], dtype=np.int64)
        cuts = np.searchsorted(places, ends)
        starts, found = 0, []
        for chunk, end, cut in zip(column.chunks, ends.tolist(), cuts.tolist(), strict=True):
            if cut > starts:
                local = places[starts:cut] - (end - len(chunk))
                found.append(chunk.take(arrays.numbers(local)))
            starts = cut
        return arrays.whole(pa.chunked_array(found, column.type))

    def least_clocks(self) -> dict[str, int]:
        """Return the least clock of each partition that has rows."""
        found = dict(self.filed.once(_CLOCK, self.filed.least_clocks))
        homes, clocks = self.live([_HOME, _CLOCK])
        if len(homes):
            of = coded(homes)
            least = np.full(len(of.values), _NO_CLOCK)
            np.minimum.at(least, of.codes, arrays.values(arrays.whole(clocks)))
            names: list[Any] = of.values.to_pylist()
            for home, clock in zip(names, least.tolist(), strict=True):
                found[home] = min(clock, found.get(home, clock))
        return found

    def live(self, names: Sequence[str]) -> list[pa.ChunkedArray[Any]]:
        """Return columns of the rows of live segments."""
        columns: list[Any] = [self._live[name] for name in names]
        flags = self._live_flags()
        return columns if flags is None else [column.filter(flags) for column in columns]

    def _only(self, name: str, texts: pa.StringArray, filed: Filed) -> StateRows:
        """Return the live rows with one of some texts in a column, below those of files."""
        found = StateRows(self._live, filed)
        found._kinds, found._among = self._kinds, (*self._among, (name, texts))
        return found

    def _live_flags(self) -> pa.BooleanArray | None:
        """Tell which of the live rows are meant; None means all."""
        if (self._kinds is None and not self._among) or not self._live.num_rows:
            return None
        if self._live_rows is None:
            meant = [are_among(self._live[name], texts) for name, texts in self._among]
            if self._kinds is not None:
                meant.append(self._kinds.flags(self._live[_KIND]))
            self._live_rows = arrays.flags(np.logical_and.reduce(meant))
        return self._live_rows


def _stacked(above: pa.ChunkedArray[Any], below: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """Put one column below another; nothing is copied, also later, where one is empty."""
    if not len(above) or not len(below):
        return below if len(below) else above
    return pa.chunked_array([*above.chunks, *below.chunks], above.type)
