"""Where points lie: which segments hold points of a run and a key, told by summaries alone.

Every footer says of each metric how many points its writer had logged so far. A segment whose
footer does not name a metric holds no point of it, nor does one that counts as many as the
segment of the same writer before it. So most files need not be opened, or fetched.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, final

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.standing import begins, expand

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    from runlake.storage.standing import Coded
    from runlake.storage.states import StateRows
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")


@final
class PointIndex:
    """Finds the summaries of some runs and keys, and the segments that they come from.

    What is worked out is kept: over 100,000 runs with 20 metrics each the first question costs
    tens of milliseconds, and a later one about a run by name less than one.
    """

    def __init__(self, summaries: StateRows, counts: Sequence[int] | None = None) -> None:
        """Keep the summaries; nothing is worked out before the first question.

        Args:
            summaries: as `SnapshotTables.summaries`, in the order of the segments.
            counts: rows of each segment in `summaries`; None if that is not known.
        """
        self._summaries = summaries
        self._counts = counts

    def rows(
        self, run_ids: Collection[str] | None, keys: Collection[str] | None
    ) -> NDArray[np.int64]:
        """Return the rows of `summaries` about some runs and keys, ascending; None means all."""
        if run_ids is None:
            found: NDArray[np.int64] = np.arange(self._summaries.num_rows)
        else:
            known, starts, ends, codes = self._runs
            wanted = _is_in(known, run_ids)[codes]
            found = expand(starts[wanted], ends[wanted])
        if keys is None:
            return found
        key_codes, known = self._keys
        return found[_is_in(known, keys)[key_codes[found]]]

    def experiments(self, rows: NDArray[np.int64]) -> frozenset[str]:
        """Return the partitions of some rows."""
        codes, known = self._experiments
        names: Any = arrays.named(known, codes[rows]).to_pylist()
        return frozenset(names)

    def writers(self, rows: NDArray[np.int64]) -> frozenset[str]:
        """Return the writers of some rows."""
        codes, known = self._writers
        names: Any = arrays.named(known, codes[rows]).to_pylist()
        return frozenset(names)

    def places(self, rows: NDArray[np.int64]) -> list[int]:
        """Return the places of the segments that hold points of some rows, ascending.

        Args:
            rows: what `rows` returned.

        Returns:
            Places in the `counts` given.
        """
        found = np.searchsorted(self._ends, rows, side="right")
        found = np.unique(found[self._has_grown(rows, found)])
        places: list[int] = found.tolist()
        return places

    def _has_grown(self, rows: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell of each row whether its segment added points to what was counted before it."""
        grown = np.ones(len(rows), bool)
        writer_codes, known = self._writers
        writers = writer_codes[rows]
        # Only a writer with several segments among the rows can count the same points twice.
        first_place = np.full(len(known), -1)
        first_place[writers[::-1]] = places[::-1]
        repeated = np.zeros(len(known), bool)
        repeated[writers[places != first_place[writers]]] = True
        doubtful = np.flatnonzero(repeated[writers])
        if not len(doubtful):
            return grown
        counts = arrays.values(self._summaries.array("n"))[rows[doubtful]]
        metric = (
            self._run_codes[0][rows[doubtful]],
            self._keys[0][rows[doubtful]],
            writers[doubtful],
        )
        order = np.lexsort(metric)  # stable: the segments of one writer stay in their order
        same = np.ones(len(order) - 1, bool)
        for column in (*metric, counts):
            same &= column[order[1:]] == column[order[:-1]]
        grown[doubtful[order[1:][same]]] = False
        return grown

    @cached_property
    def _runs(
        self,
    ) -> tuple[pa.Array[Any], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """The runs, and the stretches of rows about one run: starts, ends, and which run."""
        codes, known = self._run_codes
        if not len(codes):
            none = np.zeros(0, np.int64)
            return known, none, none, codes
        starts = np.flatnonzero(begins(codes))
        return known, starts, np.append(starts[1:], len(codes)), codes[starts]

    @cached_property
    def _run_codes(self) -> Coded:
        return self._summaries.coded("run_id")

    @cached_property
    def _keys(self) -> Coded:
        return self._summaries.coded("key")

    @cached_property
    def _experiments(self) -> Coded:
        return self._summaries.coded("experiment_id")

    @cached_property
    def _writers(self) -> Coded:
        return self._summaries.coded("writer")

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(np.array(self._counts, np.int64))


def _is_in(known: pa.Array[Any], wanted: Collection[str]) -> NDArray[np.bool_]:
    """Tell of each value whether it is wanted."""
    values = arrays.strings(list(wanted))
    if len(values) == 1:  # in half the time
        flags: Any = pc.equal(known, values[0])
    else:
        flags = pc.is_in(known, value_set=values)
    return arrays.truths(flags)
