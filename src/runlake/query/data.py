"""What runs hold, one row for each key: metrics, params and tags of a page of runs.

A run's *place* is its row in `inside.run_facts`, which a snapshot never changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.standing import begins

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.query.engine import Query
    from runlake.query.held import Holding
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

RUN_COLUMNS: Final = (
    "run_id",
    "experiment_id",
    "status",
    "artifact_uri",
    "start_time",
    "end_time",
    "run_name",
)
HELD_KINDS: Final = ("metrics", "params", "tags")


def read_runs(query: Query) -> pa.Table:
    """Return the columns `RUN_COLUMNS` of all runs, by place."""
    return query.folded.run_facts.select(list(RUN_COLUMNS))


class Cells(NamedTuple):
    """What the runs of a page hold of one kind, by key.

    Attributes:
        kind: of `HELD_KINDS`.
        rows: shape (n,), whose each value is: a row of the page.
        keys: shape (n,), the place of each one's key in `names`.
        names: keys.
        data: n values: of a metric the last one, else texts.
    """

    kind: str
    rows: NDArray[np.int64]
    keys: NDArray[np.int32]
    names: pa.StringArray
    data: pa.Array[Any]

    def by_key(self) -> tuple[NDArray[np.int64], list[str]]:
        """Number the keys that are held, in the order of the values.

        Returns:
            Of each value the number of its key, shape (n,); the keys.
        """
        is_first = begins(self.keys)
        held: Any = self.names.take(arrays.numbers(self.keys[is_first]))
        return np.cumsum(is_first) - 1, held.to_pylist()


def read_cells(
    query: Query, places: pa.ChunkedArray[Any], *, kinds: Sequence[str] = HELD_KINDS
) -> list[Cells]:
    """Return what the runs of a page hold.

    Args:
        query: the snapshot.
        places: the runs, in the order of the page.
        kinds: which of `HELD_KINDS`.

    Returns:
        One for each kind, in their order.
    """
    wanted = arrays.values(places.combine_chunks()).astype(np.int64)
    return [_read_held(query, kind, wanted) for kind in kinds]


def read_data(
    query: Query, places: pa.ChunkedArray[Any], *, kinds: Sequence[str] = HELD_KINDS
) -> pa.Table:
    """Return what some runs hold, as rows.

    Args:
        query: the snapshot.
        places: the runs.
        kinds: which of `HELD_KINDS`, in their order.

    Returns:
        One row for each key of each run, ordered by the first and the third column: `prefix`
        (`metrics`, `params` or `tags`), `place`, `key`, `num` (of a metric, the last value),
        `str` (of a param or tag).
    """
    whole: Any = places.combine_chunks()
    return pa.concat_tables(
        [_rows_of(cells, whole) for cells in read_cells(query, places, kinds=kinds)]
    )


def _read_held(query: Query, kind: str, wanted: NDArray[np.int64]) -> Cells:
    holding: Holding = getattr(query.folded, kind)
    held = holding.about(wanted)
    rows, owners = held.of_page(wanted)
    value = held.values("last" if kind == "metrics" else "value", rows)
    return Cells(kind, owners, held.keys[rows], held.names, value)


def _rows_of(cells: Cells, places: pa.Array[Any]) -> pa.Table:
    is_metric = cells.kind == "metrics"
    nothing = pa.nulls(len(cells.rows), pa.string() if is_metric else pa.float64())
    return pa.table(
        {
            "prefix": _constant(cells.kind, len(cells.rows)),
            "place": places.take(arrays.numbers(cells.rows)),
            "key": cells.names.take(arrays.numbers(cells.keys)),
            "num": cells.data if is_metric else nothing,
            "str": nothing if is_metric else cells.data,
        }
    )


def _constant(text: str, count: int) -> pa.DictionaryArray[Any, Any]:
    return pa.DictionaryArray.from_arrays(
        arrays.numbers(np.zeros(count, np.int32)), arrays.strings([text])
    )
