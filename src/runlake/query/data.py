"""What runs hold, one row for each key: metrics, params and tags of a page of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

    from runlake.query.engine import Query

_SQL: Final = """
SELECT 'metrics' AS prefix, run_id, key, last AS num, NULL AS str FROM metric_summary {where}
UNION ALL
SELECT 'params', run_id, key, NULL, value FROM params {where}
UNION ALL
SELECT 'tags', run_id, key, NULL, value FROM tags {where}
"""
# Longer lists take longer to plan than they save.
_LISTED_RUNS: Final = 100
_NEEDS: Final = ("metric_summary", "params", "tags")


def read_data(query: Query, run_ids: pa.ChunkedArray[Any] | pa.Array[Any]) -> pa.Table:
    """Return what some runs hold.

    Args:
        query: the snapshot.
        run_ids: the runs.

    Returns:
        One row for each key of each run, ordered by the first and the third column: `prefix`
        (`metrics`, `params` or `tags`), `run_id`, `key`, `num` (of a metric, the last value),
        `str` (of a param or tag).
    """
    ids = run_ids.to_pylist()
    if len(ids) <= _LISTED_RUNS:
        # A list of values, unlike a subquery, lets DuckDB skip what lies elsewhere.
        params = {f"r{number}": run_id for number, run_id in enumerate(ids)}
        listed = ", ".join(f"${name}" for name in params) or "NULL"
        where = f"WHERE run_id IN ({listed})"
    else:
        params = {"runs": ids}
        where = "WHERE run_id IN (SELECT unnest(CAST($runs AS VARCHAR[])))"
    data = query.read(_SQL.format(where=where), params or None, needs=_NEEDS)
    return data.sort_by([("prefix", "ascending"), ("key", "ascending")])
