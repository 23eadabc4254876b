"""Facts of a snapshot with their texts as numbers, and their writers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.standing import Coded, standing

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    np = lazy("numpy")


class Facts(NamedTuple):
    """The facts, texts as numbers."""

    homes: Coded
    runs: Coded
    kinds: Coded
    keys: Coded
    writers: Coded
    writer_ranks: NDArray[np.int64]
    by_kind: NDArray[np.int64]
    kind_starts: NDArray[np.int64]
    clocks: NDArray[np.int64]
    seqs: NDArray[np.int64]
    numbers: pa.Array[Any]
    texts: pa.StringArray

    def rows(self, kind: str, *, key: str | None = None) -> NDArray[np.int64]:
        """Return the rows of one kind, of one key or of all."""
        code = self.kinds.code_of(kind)
        if code < 0:
            return np.arange(0)
        found = self.by_kind[self.kind_starts[code] : self.kind_starts[code + 1]]
        return found if key is None else found[self.keys.codes[found] == self.keys.code_of(key)]

    def runs_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the run codes of some rows."""
        return self.runs.codes[rows].astype(np.int64)

    def stand(
        self, rows: NDArray[np.int64], groups: NDArray[np.int64], *, latest: bool
    ) -> NDArray[np.int64]:
        """Choose of some facts one of each group, by (clock, writer, seq).

        Args:
            rows: shape (n,), the facts.
            groups: shape (n,), the group of each.
            latest: the latest stands, else the earliest.

        Returns:
            Those of `rows` that stand.
        """
        order = [self.clocks[rows], self.writer_ranks[self.writers.codes[rows]], self.seqs[rows]]
        return rows[standing(groups, order, latest=latest)]

    def values(self, column: str, rows: NDArray[np.int64]) -> pa.Array[Any]:
        """Return `str`, `num` or `clock` of some rows."""
        if column == "clock":
            return arrays.numbers(self.clocks[rows])
        return {"str": self.texts, "num": self.numbers}[column].take(arrays.numbers(rows))

    def spread(self, column: str, rows: NDArray[np.int64]) -> pa.Array[Any]:
        """Return what facts hold, one of a run at most, by run code; null elsewhere.

        Args:
            column: `str`, `num` or `clock`.
            rows: the facts.

        Returns:
            One for each run.
        """
        codes = self.runs_of(rows)
        chosen = np.full(len(self.runs.values), -1, np.int64)
        chosen[codes] = np.arange(len(rows))
        indices = arrays.numbers(np.maximum(chosen, 0), mask=chosen < 0)
        found: pa.Array[Any] = self.values(column, rows).take(indices)
        return found

    def order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where each of some rows stands among them by (clock, writer, seq)."""
        ranks = self.writer_ranks[self.writers.codes[rows]]
        order = np.empty(len(rows), np.int64)
        by = np.lexsort([self.seqs[rows], ranks, self.clocks[rows]])
        order[by] = np.arange(len(rows))
        return order


class Writers(NamedTuple):
    """What is known of the writers of the facts, by their code."""

    is_fresh: NDArray[np.bool_]
    is_open: NDArray[np.bool_]
