"""Rank runs by one metric.

A run stands with its best, last, least, greatest or mean value. Runs with equal values share a
rank, and the next rank counts them all (1, 1, 3). A run whose value is NaN ranks behind all
numbers; a run without the metric is left out. The statement behind a leaderboard is text that
anybody can run, `leaderboard_sql`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake.errors import InvalidInputError, NotFoundError
from runlake.query.data import find_places
from runlake.query.export import to_polars
from runlake.query.search import widen
from runlake.query.views import text_literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl
    import pyarrow as pa

    from runlake.query.engine import Query

GOALS: Final = ("max", "min")
VALUES: Final = ("best", "last", "min", "max", "mean")


def leaderboard(
    query: Query,
    metric: str,
    *,
    goal: str | None = None,
    value: str = "best",
    top: int | None = 10,
    experiment_ids: Iterable[str] | None = None,
) -> pl.DataFrame:
    """Return the best runs by one metric.

    Args:
        query: the snapshot.
        metric: its key.
        goal: `max` or `min`: which value is better; None means `max`.
        value: what a run stands with: `best` (by the goal), `last`, `min`, `max` or `mean`.
        top: greatest number of runs; None means all.
        experiment_ids: only runs of these experiments; None means of all.

    Returns:
        `rank`, `run_id`, `run_name`, `experiment_name`, `value`, `step` (of the value; null
        for a mean), `status`, and `params.<key>` for each param that differs between the runs
        shown.

    Raises:
        InvalidInputError: an argument is none of what it may be.
        NotFoundError: no run of the snapshot has this metric; the message names the nearest.
    """
    statement = leaderboard_sql(
        metric, goal=goal, value=value, top=top, experiment_ids=experiment_ids
    )
    board = query.read(statement, needs=("lean_runs", "metric_summary"), lean=True)
    if not board.num_rows:
        _require_metric(query, metric)
    places = find_places(query, board["run_id"])
    return to_polars(widen(board, places, data=_differing_params(query, places)))


def leaderboard_sql(
    metric: str,
    *,
    goal: str | None = None,
    value: str = "best",
    top: int | None = 10,
    experiment_ids: Iterable[str] | None = None,
) -> str:
    """Return the statement that ranks, to read, to change, and to run with `runlake sql`.

    Args:
        metric: its key.
        goal: `max` or `min`: which value is better; None means `max`.
        value: what a run stands with: `best` (by the goal), `last`, `min`, `max` or `mean`.
        top: greatest number of runs; None means all.
        experiment_ids: only runs of these experiments; None means of all.

    Returns:
        DuckDB's SQL over the views `runs` and `metric_summary`.

    Raises:
        InvalidInputError: an argument is none of what it may be.
    """
    goal = "max" if goal is None else goal
    for name, given, known in (("goal", goal, GOALS), ("value", value, VALUES)):
        if given not in known:
            raise InvalidInputError(
                f"{name} is {given!r}; it may be {', '.join(map(repr, known))}."
            )
    if top is not None and (isinstance(top, bool) or top < 1):
        raise InvalidInputError(f"top is {top!r}; it may be 1 or more, or None for all.")
    if isinstance(experiment_ids, str):
        raise InvalidInputError(f"experiment_ids is a text; write a list: [{experiment_ids!r}].")
    column = goal if value == "best" else value
    step = "NULL::BIGINT" if column == "mean" else f"{column}_step"
    better = f"isnan(value), value {'DESC' if goal == 'max' else 'ASC'}"
    lines = [
        "SELECT",
        f"    rank() OVER (ORDER BY {better}) AS rank,",
        "    run_id, run_name, experiment_name, value, step, status",
        "FROM (",
        # Where every point is NaN there is no least, greatest or mean value.
        f"    SELECT runs.*, coalesce({column}, 'nan') AS value, {step} AS step",
        "    FROM runs",
        "    JOIN metric_summary USING (run_id)",
        f"    WHERE key = {text_literal(metric)} AND lifecycle_stage = '{schema.ACTIVE}'",
    ]
    if experiment_ids is not None:
        listed = ", ".join(text_literal(str(each)) for each in experiment_ids)
        lines.append(f"        AND runs.experiment_id IN ({listed or 'NULL'})")
    lines.append(f"    ORDER BY {better}, start_time, run_id")
    if top is not None:
        lines.append(f"    LIMIT {int(top)}")
    return "\n".join([*lines, ")", "ORDER BY rank, start_time, run_id"])


def count_left_out(
    query: Query, metric: str, *, experiment_ids: Iterable[str] | None = None
) -> int:
    """Count the active runs that a leaderboard leaves out, because they lack the metric.

    Args:
        query: the snapshot.
        metric: its key.
        experiment_ids: only runs of these experiments; None means of all.

    Returns:
        The number of runs.
    """
    only = None if experiment_ids is None else [str(each) for each in experiment_ids]
    statement = f"""
SELECT count(*)
FROM runs
WHERE lifecycle_stage = '{schema.ACTIVE}'
    AND ($only IS NULL OR list_contains(CAST($only AS VARCHAR[]), experiment_id))
    AND run_id NOT IN (SELECT run_id FROM metric_summary WHERE key = $metric)
"""
    params = {"only": only, "metric": metric}
    needs = ("lean_runs", "metric_summary")
    found = query.read(statement, params, needs=needs, lean=True)
    return int(found[0][0].as_py())


def _require_metric(query: Query, metric: str) -> None:
    keys = query.read("SELECT DISTINCT key FROM metric_summary", needs=("metric_summary",))
    known = [str(key) for key in keys["key"].to_pylist()]
    if metric not in known:
        raise NotFoundError.of("metric", metric, url=query.tables.root_url, known=known)


def _differing_params(query: Query, places: pa.ChunkedArray[Any]) -> pa.Table:
    """Return the params that these runs do not all share, as `read_data` returns data."""
    statement = """
WITH held AS (
    SELECT place, key, value
    FROM inside.param_rows
    WHERE place IN (SELECT unnest(CAST($places AS BIGINT[])))
), differing AS (
    SELECT key
    FROM held
    GROUP BY key
    HAVING count(DISTINCT value) > 1 OR count(*) < len(CAST($places AS BIGINT[]))
)
SELECT 'params' AS prefix, place, key, NULL::DOUBLE AS num, value AS str
FROM held
SEMI JOIN differing USING (key)
ORDER BY key
"""
    return query.read(statement, {"places": places.to_pylist()}, needs=("params",))
