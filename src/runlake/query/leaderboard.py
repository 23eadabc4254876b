"""Rank runs by one metric.

A run stands with its best, last, least, greatest or mean value, or with that at one step. Runs
with equal values share a rank, and the next rank counts them all (1, 1, 3). A run whose value is
NaN ranks behind all numbers; a run without the metric is left out and counted. In groups, the
best run stands for its group, and beside it the number of runs, their mean and their sample
deviation, which are NaN where a value is. Runs that lack the field are a group too, whose field
is null: nothing is hidden.

The statement behind a leaderboard is also text that anybody can run, `leaderboard_sql`: the same
over public views instead of our own tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from runlake import arguments, schema
from runlake._lazy import lazy
from runlake.errors import NotFoundError
from runlake.query.compile import compile_search
from runlake.query.data import read_cells, read_runs
from runlake.query.database import KeyColumn
from runlake.query.export import to_polars
from runlake.query.ranking import Ranking, Source, lacking_sql, public_source, rank_sql
from runlake.query.scan import scan
from runlake.query.search import widen
from runlake.storage import arrays
from runlake.storage.standing import coded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    import numpy as np
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.query.compile import Compiled
    from runlake.query.data import Cells
    from runlake.query.engine import Query
    from runlake.query.held import Holding

    class Board(pl.DataFrame):
        """A leaderboard: a plain Polars frame that also says what is not in it.

        Attributes:
            left_out: how many runs were asked for and have no such value.
        """

        left_out: int
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pl = lazy("polars")

# Nobody reads more columns than these; the params that most of the runs have come first.
_PARAM_COLUMNS: Final = 50
# A list of many numbers is bound as a text, which is ten times as quick.
_AT_STEP: Final = """
    LEFT JOIN (
        SELECT
            unnest(CAST($places AS BIGINT[])) AS place, unnest(CAST($values AS DOUBLE[])) AS value
    ) AS s ON s.place = r.rowid"""


def leaderboard(
    query: Query,
    metric: str,
    *,
    goal: str | None = None,
    value: str | int = "best",
    by: str | Sequence[str] | None = None,
    filter_string: str | None = "",
    top: int | None = 10,
    experiment_ids: Iterable[str] | None = None,
) -> Board:
    """Return the best runs by one metric, or the best groups of runs.

    Args:
        query: the snapshot.
        metric: its key.
        goal: `max` or `min`: which value is better; None means `max`.
        value: what a run stands with: `best` (by the goal), `last`, `min`, `max`, `mean`, or a
            step: the value logged at exactly that step, of several the latest.
        by: a field as in a filter, or several: one row for each group of runs that are equal in
            them; runs without a field are equal in that.
        filter_string: only runs that match; see `runlake.query.grammar`.
        top: greatest number of rows; None means all.
        experiment_ids: only runs of these experiments; None means of all.

    Returns:
        `rank`, the fields of `by`, `run_id`, `run_name`, `experiment_name`, `value`, `step` (of
        the value; null for a mean), with `by` also `n`, `mean` and `std` of the values of the
        group's runs (`std` is null for one run), `status`, and `params.<key>` for each param
        that differs between the runs shown, at most 50. The frame's attribute `left_out` counts
        the runs that have no such value.

    Raises:
        FilterSyntaxError: the filter or a field cannot be read.
        InvalidInputError: an argument is none of what it may be.
        NotFoundError: no run of the snapshot has this metric, or this param or tag to group
            by; the message names the nearest.
    """
    ranking = Ranking.of(goal=goal, value=value, by=by, top=top, experiment_ids=experiment_ids)
    metric = arguments.text("metric", metric)
    query.begin()
    has_metric = query.folded.has_metric
    compiled = compile_search(filter_string, fields=ranking.by, has_metric=has_metric)
    source = _inside(query, metric, ranking, compiled)
    needs = ("run_facts", *compiled.needs)
    statement = rank_sql(source, ranking, with_id=True)
    board = query.read(statement, source.params or None, needs=needs)
    if not board.num_rows and not has_metric(metric):
        raise _unknown(query, "metric", metric)
    if board.num_rows == 1:
        _require_fields(query, ranking)
    places, board = board["id"], board.drop_columns("id")
    params = _differing_params(query, places, but=board.column_names)
    shown = cast("Board", to_polars(widen(board, params)))
    lacking = query.read(lacking_sql(source), source.params or None, needs=needs)
    shown.left_out = int(lacking[0][0].as_py())
    return shown


def leaderboard_sql(
    metric: str,
    *,
    goal: str | None = None,
    value: str | int = "best",
    by: str | Sequence[str] | None = None,
    filter_string: str | None = "",
    top: int | None = 10,
    experiment_ids: Iterable[str] | None = None,
    has_metric: Callable[[str], bool] = lambda _: True,
) -> str:
    """Return the statement that ranks, to read, to change, and to run with `runlake sql`.

    Args:
        metric: its key.
        goal: as `leaderboard`.
        value: as `leaderboard`.
        by: as `leaderboard`.
        filter_string: as `leaderboard`.
        top: as `leaderboard`.
        experiment_ids: as `leaderboard`.
        has_metric: as `runlake.query.compile.compile_search`.

    Returns:
        DuckDB's SQL over the public views; the rows are those of `leaderboard`, without the
        columns of differing params.

    Raises:
        FilterSyntaxError: the filter or a field cannot be read.
        InvalidInputError: an argument is none of what it may be.
    """
    ranking = Ranking.of(goal=goal, value=value, by=by, top=top, experiment_ids=experiment_ids)
    compiled = compile_search(filter_string, fields=ranking.by, has_metric=has_metric)
    return rank_sql(public_source(metric, ranking, compiled), ranking)


def _inside(query: Query, metric: str, ranking: Ranking, compiled: Compiled) -> Source:
    """Return our own tables, which lie row by row beside the runs."""
    params: dict[str, Any] = dict(compiled.params)
    columns = [(column, f"f{number}") for number, column in enumerate(compiled.columns)]
    if isinstance(ranking.value, str):
        columns.append((KeyColumn("metric", metric, ranking.value), "s"))
        # A run of which every point is NaN has no least, greatest or mean value, but a count.
        columns.append((KeyColumn("metric", metric, "count"), "c"))
        has_value, step, at_step = "c.value IS NOT NULL", "s.step", ""
    else:
        params |= _values_at(query, metric, ranking.value)
        step = f"CAST({ranking.value} AS BIGINT)"
        has_value, at_step = "s.place IS NOT NULL", _AT_STEP
    tables = query.columns([column for column, _ in columns])
    joined = "".join(
        f"\n    POSITIONAL JOIN {table} AS {alias}"
        for table, (_, alias) in zip(tables, columns, strict=True)
    )
    where = [f"r.lifecycle_stage = '{schema.ACTIVE}'", f"({compiled.where})"]
    if ranking.experiment_ids is not None:
        params["experiments"] = list(ranking.experiment_ids)
        where.append("r.experiment_id IN (SELECT unnest(CAST($experiments AS VARCHAR[])))")
    return Source(
        runs="inside.run_facts",
        id="r.rowid",
        tables=f"inside.run_facts AS r{joined}{at_step}",
        where=tuple(where),
        has_value=has_value,
        step=step,
        fields=compiled.fields,
        params=params,
    )


def _values_at(query: Query, metric: str, step: int) -> dict[str, str]:
    """Return the values of runs at a step, and the places of these runs, as `_AT_STEP` asks.

    Of several points the latest stands, and of several at one time the greatest number.
    """
    points = scan(query, "metrics").filter(pl.col("key") == metric, pl.col("step") == step)
    points = points.select("run_id", "timestamp", "value")
    points = points.sort("timestamp", ~pl.col("value").is_nan(), "value")
    found = points.group_by("run_id").agg(pl.col("value").last()).collect().to_arrow()
    known = read_runs(query)["run_id"].combine_chunks()
    places: Any = pc.index_in(found["run_id"].cast(pa.string()), value_set=known)
    columns = {"places": places, "values": found["value"]}
    return {
        name: f"[{', '.join(map(repr, column.filter(pc.is_valid(places)).to_pylist()))}]"
        for name, column in columns.items()
    }


def _unknown(query: Query, entity: str, key: str) -> NotFoundError:
    """Say that no run has a key, and name the nearest."""
    holding: Holding = getattr(query.folded, f"{entity}s")
    held = holding.whole
    known: list[Any] = arrays.named(held.names, held.keys).to_pylist()
    return NotFoundError.of(entity, key, url=query.tables.root_url, known=known)


def _require_fields(query: Query, ranking: Ranking) -> None:
    """Refuse to group by what no run of the snapshot has: one group of all would mislead."""
    for column in compile_search("", fields=ranking.by).columns:
        lies = query.columns([column])[0]
        found = query.read(f"SELECT any_value(value) FROM {lies}", needs=())
        if found[0][0].as_py() is None:
            raise _unknown(query, column.entity, column.key)


def _differing_params(
    query: Query, places: pa.ChunkedArray[Any], *, but: Collection[str]
) -> list[Cells]:
    """Return the params that these runs do not all share: those that most of them have."""
    (held,) = read_cells(query, places, kinds=("params",))
    if not len(held.rows):
        return []
    groups, keys = held.by_key()
    texts = coded(pa.chunked_array([held.data])).codes
    runs = np.bincount(groups)
    values = np.bincount(np.unique(groups * (int(texts.max()) + 1) + texts) // (texts.max() + 1))
    is_free = np.array([f"params.{key}" not in but for key in keys])
    wanted = np.flatnonzero(((values > 1) | (runs < len(places))) & is_free)
    wanted = wanted[np.argsort(-runs[wanted], kind="stable")][:_PARAM_COLUMNS]
    rows = np.flatnonzero(np.isin(groups, wanted))
    kept: Any = held.data.take(arrays.numbers(rows))
    return [held._replace(rows=held.rows[rows], keys=held.keys[rows], data=kept)]
