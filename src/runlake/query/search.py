"""Find runs: a filter, an order, a page, and one wide row for each run.

The columns are MLflow's: `run_id`, `experiment_id`, `status`, `artifact_uri`, `start_time`,
`end_time`, then `run_name`, and one column for each key that a run of the page has:
`metrics.<key>` (the last value), `params.<key>`, `tags.<key>`. What a run does not have is
null; a NaN that was logged is NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.query.compile import compile_search
from runlake.query.data import RUN_COLUMNS, read_data, read_runs
from runlake.query.entities import read_experiments
from runlake.query.export import to_polars

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.query.engine import Query
    from runlake.query.entities import Experiment
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

# A lake with at most so many facts and summaries is set out as one wide table, once; of a larger
# one, only the runs of a page are.
_WIDE_ROWS: Final = 200_000
_STAGES: Final = {
    "ACTIVE_ONLY": f"lifecycle_stage = '{schema.ACTIVE}'",
    "DELETED_ONLY": f"lifecycle_stage = '{schema.DELETED}'",
    "ALL": "true",
}


def search_runs(
    query: Query,
    filter_string: str = "",
    *,
    experiment_ids: Iterable[str] | None = None,
    run_view_type: str = "ACTIVE_ONLY",
    limit: int | None = None,
    offset: int = 0,
    order_by: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Return the runs that match, one wide row each.

    Args:
        query: the snapshot.
        filter_string: see `runlake.query.grammar`; empty matches every run.
        experiment_ids: only runs of these experiments; None means of all.
        run_view_type: `ACTIVE_ONLY`, `DELETED_ONLY` or `ALL`.
        limit: greatest number of runs; None means no limit.
        offset: runs to leave out at the beginning.
        order_by: keys like `metrics.acc DESC`; by default the newest start first.

    Returns:
        The columns of this module's description.

    Raises:
        FilterSyntaxError: the filter or a key of the order cannot be read.
        InvalidInputError: another argument is wrong.
    """
    places = _find(
        query,
        filter_string,
        experiment_ids=experiment_ids,
        run_view_type=run_view_type,
        limit=limit,
        offset=offset,
        order_by=order_by,
    )
    whole = query.once("wide_runs", lambda: _wide_runs(query))
    if whole is not None:
        return to_polars(_without_empty(whole.take(places)))
    page = read_runs(query).take(places)
    return to_polars(widen(page, places, data=read_data(query, places)))


def _find(
    query: Query,
    filter_string: str,
    *,
    experiment_ids: Iterable[str] | None,
    run_view_type: str,
    limit: int | None,
    offset: int,
    order_by: Sequence[str] | None,
) -> pa.ChunkedArray[Any]:
    """Return the places, in `inside.run_facts`, of the runs that `search_runs` shows."""
    if run_view_type not in _STAGES:
        raise InvalidInputError(
            f"run_view_type is {run_view_type!r}; it may be {', '.join(map(repr, _STAGES))}."
        )
    for name, number in (("limit", limit), ("offset", offset)):
        if number is not None and (isinstance(number, bool) or number < 0):
            raise InvalidInputError(f"{name} is {number!r}; it may be 0 or more.")
    if isinstance(order_by, str):
        raise InvalidInputError(f"order_by is a text; write a list: [{order_by!r}].")
    if isinstance(experiment_ids, str):
        raise InvalidInputError(f"experiment_ids is a text; write a list: [{experiment_ids!r}].")
    found = compile_search(filter_string, order_by or ())
    params = dict(found.params)
    where = [f"({found.where})", _STAGES[run_view_type]]
    if experiment_ids is not None:
        params["experiments"] = [str(experiment_id) for experiment_id in experiment_ids]
        where.append("r.experiment_id IN (SELECT unnest(CAST($experiments AS VARCHAR[])))")
    cut = "" if limit is None else f"LIMIT {int(limit)}"
    joins = "".join(
        f"\nPOSITIONAL JOIN {table} AS f{number}"
        for number, table in enumerate(query.columns(found.columns))
    )
    statement = (
        f"SELECT r.rowid\nFROM inside.run_facts AS r{joins}\nWHERE {' AND '.join(where)}\n"
        f"ORDER BY {found.order_by}\n{cut} OFFSET {int(offset)}"
    )
    return query.read(statement, params or None, needs=("run_facts",))["rowid"]


def _wide_runs(query: Query) -> pa.Table | None:
    """Return all columns of all runs, by place; None where that would be too much to keep."""
    if len(query.tables.facts) + len(query.tables.summaries) > _WIDE_ROWS:
        return None
    runs = read_runs(query)
    places = pa.chunked_array([np.arange(runs.num_rows)])
    return widen(runs, places, data=read_data(query, places))


def _without_empty(page: pa.Table) -> pa.Table:
    """Leave out the keys that no run of the page has."""
    fixed = len(RUN_COLUMNS)
    empty = [
        name
        for name, column in zip(page.column_names[fixed:], page.columns[fixed:], strict=True)
        if column.null_count == page.num_rows
    ]
    return page.drop_columns(empty) if empty else page


def search_experiments(query: Query, *, view_type: str = "ACTIVE_ONLY") -> list[Experiment]:
    """Return experiments, the latest updated first.

    Args:
        query: the snapshot.
        view_type: `ACTIVE_ONLY`, `DELETED_ONLY` or `ALL`.

    Returns:
        The experiments.

    Raises:
        InvalidInputError: there is no such view type.
    """
    if view_type not in _STAGES:
        raise InvalidInputError(
            f"view_type is {view_type!r}; it may be {', '.join(map(repr, _STAGES))}."
        )
    clause = f"WHERE {_STAGES[view_type]} ORDER BY last_update_time DESC, experiment_id DESC"
    return read_experiments(query, clause, params=[])


def widen(page: pa.Table, places: pa.ChunkedArray[Any], *, data: pa.Table) -> pa.Table:
    """Give each run of a page its values.

    Args:
        page: one row for each run.
        places: the place of each.
        data: what these runs hold, as `runlake.query.data.read_data` returns it.

    Returns:
        The page, and behind its columns one for each prefix and key of `data`.
    """
    if not data.num_rows:
        return page
    rows = pc.index_in(data["place"], value_set=places.combine_chunks()).to_numpy()
    prefixes, keys = (data[name].combine_chunks().dictionary_encode() for name in ("prefix", "key"))
    codes = prefixes.indices.to_numpy() * np.int64(len(keys.dictionary)) + keys.indices.to_numpy()
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    ends = np.r_[starts[1:], len(codes)]
    numbers, texts = data["num"].combine_chunks(), data["str"].combine_chunks()
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        prefix, key = prefixes[start].as_py(), keys[start].as_py()
        chosen = np.full(page.num_rows, -1, dtype=np.int64)
        chosen[rows[start:end]] = np.arange(start, end)
        values = numbers if prefix == "metrics" else texts
        indices = pa.array(chosen, pa.int64(), mask=chosen < 0)
        page = page.append_column(f"{prefix}.{key}", values.take(indices))
    return page
