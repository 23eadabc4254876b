"""What runs hold, one row for each key: metrics, params and tags of a page of runs.

A run's *place* is its row in `inside.run_facts`, which a snapshot never changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.storage import arrays

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
    statement = f"SELECT {', '.join(RUN_COLUMNS)} FROM inside.run_facts ORDER BY rowid"
    return query.once("runs", lambda: query.read(statement, needs=("run_facts",)))


def read_data(
    query: Query, places: pa.ChunkedArray[Any], *, kinds: Sequence[str] = HELD_KINDS
) -> pa.Table:
    """Return what some runs hold.

    Args:
        query: the snapshot.
        places: the runs.
        kinds: which of `HELD_KINDS`, in their order.

    Returns:
        One row for each key of each run, ordered by the first and the third column: `prefix`
        (`metrics`, `params` or `tags`), `place`, `key`, `num` (of a metric, the last value),
        `str` (of a param or tag).
    """
    wanted = arrays.values(places.combine_chunks()).astype(np.int64)
    return pa.concat_tables([_read_held(query, kind, wanted) for kind in kinds])


def _read_held(query: Query, name: str, wanted: NDArray[np.int64]) -> pa.Table:
    holding: Holding = getattr(query.folded, name)
    held = holding.about(wanted)
    rows = held.of_runs(wanted)
    rows = rows[np.argsort(held.ranks[held.keys[rows]], kind="stable")]
    is_metric = name == "metrics"
    value = held.values("last" if is_metric else "value", rows)
    nothing = pa.nulls(len(rows), pa.string() if is_metric else pa.float64())
    return pa.table(
        {
            "prefix": _constant(name, len(rows)),
            "place": arrays.numbers(held.places[rows]),
            "key": held.names.take(arrays.numbers(held.keys[rows])),
            "num": value if is_metric else nothing,
            "str": nothing if is_metric else value,
        }
    )


def _constant(text: str, count: int) -> pa.DictionaryArray[Any, Any]:
    return pa.DictionaryArray.from_arrays(
        arrays.numbers(np.zeros(count, np.int32)), arrays.strings([text])
    )
