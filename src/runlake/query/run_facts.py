"""What is known of each run by itself, with what it takes from its experiment.

`duration` is in seconds, null until the run ends. `lifecycle_stage` is `deleted` where the run
or its experiment is; restoring the experiment shows only the runs that were not deleted one by
one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake._lazy import lazy
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.query.homes import Home
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

_PLAIN: Final = ("user_id", "source_name", "parent_run_id")
_SECOND_US: Final = 1e6


def run_facts(runs: pa.Table, homes: Mapping[str, Home], root_url: str) -> pa.Table:
    """Return one row for each run, in the order of the places.

    Args:
        runs: as `runlake.query.folded.Folded.runs` has them.
        homes: the experiments, by id.
        root_url: of the lake.
    """
    ids = runs["experiment_id"].cast(pa.string())
    known: Any = pc.index_in(ids, value_set=arrays.strings(list(homes)))
    names = arrays.strings([home.name for home in homes.values()])
    gone = [name for name, home in homes.items() if home.lifecycle_stage == schema.DELETED]
    is_gone = pc.is_in(ids, value_set=arrays.strings(gone))
    is_open: Any = pc.is_in(runs["status"], value_set=arrays.strings(sorted(schema.OPEN)))
    start, end = runs["start_us"].cast(pa.int64()), runs["end_us"].cast(pa.int64())
    # Python's own scalars would load pandas where that is installed.
    second: Any = arrays.numbers(np.array([_SECOND_US]))[0]
    # A wrong time may be centuries away, where a float has no more microseconds.
    lasted = pc.subtract(end, start).cast(pa.float64(), safe=False)
    seconds: Any = pc.divide(lasted, second)
    is_deleted = pc.or_(is_gone, runs["is_deleted"])
    text: Any = arrays.text
    columns: dict[str, Any] = {
        "run_id": runs["run_id"],
        "experiment_id": ids,
        "experiment_name": names.take(known),
        "run_name": runs["run_name"],
        "status": runs["status"],
        "is_stale": pc.and_(runs["is_quiet"], is_open),
        "start_time": _times(start),
        "end_time": _times(pc.if_else(is_open, _nothing(np.int64), end)),
        "duration": pc.if_else(is_open, _nothing(np.float64), seconds),
        **{name: runs[name] for name in _PLAIN},
        "lifecycle_stage": pc.if_else(is_deleted, text(schema.DELETED), text(schema.ACTIVE)),
        "artifact_uri": pc.binary_join_element_wise(
            text(f"{root_url}/artifacts"), ids, runs["run_id"], text("/")
        ),
    }
    return pa.table(columns)


def _nothing(kind: type[np.int64 | np.float64]) -> Any:  # noqa: ANN401 - Arrow's null
    """Return the null of a kind of numbers."""
    return arrays.numbers(np.zeros(1, kind), mask=np.ones(1, bool))[0]


def _times(microseconds: Any) -> Any:  # noqa: ANN401 - Arrow arrays of times
    return microseconds.cast(pa.timestamp("us", tz="UTC"))
