"""What runs hold, one row for each key: metrics, params and tags of a page of runs.

A run's *place* is its row in `inside.run_facts`, which a snapshot never changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.query.engine import Query
else:
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

RUN_COLUMNS: Final = (
    "run_id",
    "experiment_id",
    "status",
    "artifact_uri",
    "start_time",
    "end_time",
    "run_name",
)
_SQL: Final = """
SELECT 'metrics' AS prefix, place, key, last AS num, NULL AS str
FROM inside.metric_rows
WHERE {where}
UNION ALL
SELECT 'params', place, key, NULL, value FROM inside.param_rows WHERE {where}
UNION ALL
SELECT 'tags', place, key, NULL, value FROM inside.tag_rows WHERE {where}
"""
_NEEDS: Final = ("metric_summary", "params", "tags")
# Longer lists take longer to plan than they save.
_LISTED_RUNS: Final = 100


def read_runs(query: Query) -> pa.Table:
    """Return the columns `RUN_COLUMNS` of all runs, by place."""
    statement = f"SELECT {', '.join(RUN_COLUMNS)} FROM inside.run_facts ORDER BY rowid"
    return query.once("runs", lambda: query.read(statement, needs=("run_facts",)))


def find_places(query: Query, run_ids: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """Return the place of each run; all must be there."""
    known = read_runs(query)["run_id"].combine_chunks()
    return pa.chunked_array([pc.index_in(run_ids.combine_chunks(), value_set=known)])


def read_data(query: Query, places: pa.ChunkedArray[Any]) -> pa.Table:
    """Return what some runs hold.

    Args:
        query: the snapshot.
        places: the runs.

    Returns:
        One row for each key of each run, ordered by the first and the third column: `prefix`
        (`metrics`, `params` or `tags`), `place`, `key`, `num` (of a metric, the last value),
        `str` (of a param or tag).
    """
    listed: list[int] = places.to_numpy().tolist()
    if len(listed) <= _LISTED_RUNS:
        # A list, unlike a subquery, lets DuckDB skip what lies elsewhere.
        where = f"place IN ({', '.join(map(str, listed)) or 'NULL'})"
        data = query.read(_SQL.format(where=where), needs=_NEEDS)
    else:
        where = "place IN (SELECT unnest(CAST($places AS BIGINT[])))"
        data = query.read(_SQL.format(where=where), {"places": listed}, needs=_NEEDS)
    return data.sort_by([("prefix", "ascending"), ("key", "ascending")])
