"""Find runs and experiments: a filter, an order, a page.

A frame of runs has MLflow's columns: `run_id`, `experiment_id`, `status`, `artifact_uri`,
`start_time`, `end_time`, then `run_name`, and one column for each key that a run of the page
has: `metrics.<key>` (the last value), `params.<key>`, `tags.<key>`. What a run does not have is
null; a NaN that was logged is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import arguments, schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.query.compile import compile_search
from runlake.query.cursor import behind, cursor_columns, make_token, read_token
from runlake.query.data import read_cells, read_runs
from runlake.query.entities import Page, get_runs, read_experiments
from runlake.query.export import to_pandas, to_polars
from runlake.query.subjects import EXPERIMENTS, RUNS
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.query.compile import Compiled
    from runlake.query.data import Cells
    from runlake.query.engine import Query
    from runlake.query.entities import Experiment, RunRecord
    from runlake.query.subjects import Subject
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

_STAGES: Final = {
    "ACTIVE_ONLY": f"lifecycle_stage = '{schema.ACTIVE}'",
    "DELETED_ONLY": f"lifecycle_stage = '{schema.DELETED}'",
    "ALL": "true",
}
_FORMATS: Final = ("polars", "pandas", "list")
# The numbers of MLflow's `ViewType`.
_VIEW_NUMBERS: Final = {1: "ACTIVE_ONLY", 2: "DELETED_ONLY", 3: "ALL"}
# The column that names a run.
_PLACE: Final = "r.rowid"
# So many cells of a frame are laid out at once.
_BLOCK_CELLS: Final = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSearch:
    """What is asked for.

    Attributes:
        filter_string: see `runlake.query.grammar`; None or empty matches every run.
        experiment_ids: only runs of these experiments; None means of all.
        order_by: keys like `metrics.acc DESC`; None means the newest start first.
        run_view_type: `ACTIVE_ONLY`, `DELETED_ONLY` or `ALL`, or MLflow's number of it.
        limit: greatest number of runs; None means no limit.
        page_token: the token of the page before; None begins with the first run.
        subject: what filter and order may name.
        artifact_uris: by experiment, what stands before and behind a run's id in the
            `artifact_uri` that filter and order name; None: as in the lake's own views.
    """

    filter_string: str | None = ""
    experiment_ids: Collection[str] | None = None
    order_by: Sequence[str] | None = None
    run_view_type: str | int = "ACTIVE_ONLY"
    limit: int | None = None
    page_token: str | None = None
    subject: Subject = RUNS
    artifact_uris: Mapping[str, tuple[str, str]] | None = None


class Found(NamedTuple):
    """One page of a search.

    Attributes:
        names: of runs their places in `inside.run_facts`, of experiments their ids.
        token: leads to what comes behind them; None where that is nothing, or was not asked.
    """

    names: pa.ChunkedArray[Any]
    token: str | None


class Cut(NamedTuple):
    """What of all that matches is shown, and the question that a token must belong to.

    Attributes:
        limit: greatest number of things; None means no limit.
        page_token: the token of the page before; None begins with the first.
        question: what is asked, as JSON can hold it.
        with_token: the token of the next page is wanted too.
    """

    limit: int | None
    page_token: str | None
    question: list[Any]
    with_token: bool = True


def search_runs(
    query: Query, wanted: RunSearch, *, output_format: str = "polars"
) -> pl.DataFrame | pd.DataFrame | Page[RunRecord]:
    """Return the runs that match.

    Args:
        query: the snapshot.
        wanted: what is asked for.
        output_format: `polars` or `pandas` for a frame, one wide row for each run; `list` for
            objects.

    Returns:
        The frame of this module's description, or one page with the token of the next.

    Raises:
        FilterSyntaxError: the filter or a key of the order cannot be read.
        InvalidInputError: another argument is wrong.
        MissingDependencyError: pandas is asked for, and not installed.
    """
    if arguments.text("output_format", output_format) not in _FORMATS:
        raise InvalidInputError(
            f"output_format is {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}, not {output_format!r}."
        )
    as_list = output_format == "list"
    query.begin()
    found = find_runs(query, wanted, with_token=as_list)
    if as_list:
        return Page(get_runs(query, found.names), token=found.token)
    page = read_runs(query).take(found.names)
    frame = widen(page, read_cells(query, found.names))
    return to_pandas(frame) if output_format == "pandas" else to_polars(frame)


def search_experiments(
    query: Query,
    filter_string: str | None = "",
    *,
    order_by: Sequence[str] | None = None,
    max_results: int | None = None,
    page_token: str | None = None,
    view_type: str | int = "ACTIVE_ONLY",
) -> Page[Experiment]:
    """Return the experiments that match, and the token of the next page.

    Args:
        query: the snapshot.
        filter_string: over `name`, `experiment_id`, `creation_time`, `last_update_time` and
            `tags.<key>`; None or empty matches all.
        order_by: keys like `name DESC`; None means the newest first.
        max_results: greatest number of experiments; None means no limit.
        page_token: the token of the page before; None begins with the first experiment.
        view_type: `ACTIVE_ONLY`, `DELETED_ONLY` or `ALL`, or MLflow's number of it.

    Returns:
        One page.

    Raises:
        FilterSyntaxError: the filter or a key of the order cannot be read.
        InvalidInputError: another argument is wrong.
    """
    stage = _stage("view_type", view_type)
    keys = arguments.texts("order_by", order_by)
    filter_string = arguments.text_or_empty("filter_string", filter_string)
    question = ["experiments", filter_string, keys, stage]
    found = find(
        query,
        "r.experiment_id",
        "FROM experiments AS r",
        compile_search(filter_string, keys, subject=EXPERIMENTS),
        where=[_STAGES[stage]],
        cut=Cut(arguments.count("max_results", max_results), page_token, question),
    )
    clause = "WHERE experiment_id IN (SELECT unnest(CAST($1 AS VARCHAR[])))"
    ids: list[Any] = found.names.to_pylist()
    known = {each.experiment_id: each for each in read_experiments(query, clause, params=[ids])}
    return Page((known[each] for each in ids), token=found.token)


def find_runs(query: Query, wanted: RunSearch, *, with_token: bool = False) -> Found:
    """Return where the runs that match stand, in their order.

    Args:
        query: the snapshot.
        wanted: what is asked for.
        with_token: the token of the next page is wanted too.

    Returns:
        The places of the runs.

    Raises:
        FilterSyntaxError: the filter or a key of the order cannot be read.
        InvalidInputError: another argument is wrong.
    """
    stage = _stage("run_view_type", wanted.run_view_type)
    keys = arguments.texts("order_by", wanted.order_by)
    filter_string = arguments.text_or_empty("filter_string", wanted.filter_string)
    compiled = compile_search(
        filter_string,
        keys,
        subject=wanted.subject,
        has_metric=query.folded.has_metric,
        artifact_uris=wanted.artifact_uris,
    )
    where, ids = [_STAGES[stage]], None
    if wanted.experiment_ids is not None:
        ids = sorted(set(map(str, arguments.several("experiment_ids", wanted.experiment_ids))))
        compiled.params["experiments"] = ids
        where.append("r.experiment_id IN (SELECT unnest(CAST($experiments AS VARCHAR[])))")
    joins = "".join(
        f"\nPOSITIONAL JOIN {table} AS f{number}"
        for number, table in enumerate(query.columns(compiled.columns))
    )
    question = ["runs", filter_string, keys, stage, ids]
    limit = arguments.count("limit", wanted.limit)
    return find(
        query,
        _PLACE,
        f"FROM inside.run_facts AS r{joins}",
        compiled,
        where=where,
        cut=Cut(limit, wanted.page_token, question, with_token=with_token),
    )


def widen(page: pa.Table, held: Sequence[Cells]) -> pa.Table:
    """Give each run of a page its values.

    Args:
        page: one row for each run.
        held: what these runs hold, as `runlake.query.data.read_cells` returns it.

    Returns:
        The page, and behind its columns one for each kind and key.
    """
    columns: list[Any] = [*page.columns]
    names = [*page.column_names]
    for cells in held:
        if not len(cells.rows):
            continue
        numbers, keys = cells.by_key()
        names += [f"{cells.kind}.{key}" for key in keys]
        columns += _columns_of(cells, numbers, page.num_rows)
    return pa.table(columns, names=names)


def _columns_of(cells: Cells, columns: NDArray[np.int64], height: int) -> list[pa.Array[Any]]:
    """Lay out one column for each key, many in one piece: that is quick."""
    count = int(columns[-1]) + 1
    width = max(1, _BLOCK_CELLS // height)
    found = []
    for left in range(0, count, width):
        right = min(left + width, count)
        start, stop = np.searchsorted(columns, [left, right])
        chosen = np.full((right - left) * height, -1, np.int64)
        chosen[(columns[start:stop] - left) * height + cells.rows[start:stop]] = np.arange(
            start, stop
        )
        block = cells.data.take(arrays.numbers(np.maximum(chosen, 0), mask=chosen < 0))
        found += [block.slice(n * height, height) for n in range(right - left)]
    return found


def find(
    query: Query,
    name: str,
    source: str,
    compiled: Compiled,
    *,
    where: list[str],
    cut: Cut,
    needs: Sequence[str] = ("run_facts",),
) -> Found:
    """Run a search.

    Args:
        query: the snapshot.
        name: the column that names what was found.
        source: the FROM of the statement, with the compiled columns beside `r`.
        compiled: filter and order.
        where: further conditions.
        cut: which page of it.
        needs: the tables that the source names.

    Returns:
        One page.
    """
    terms, params = compiled.terms, dict(compiled.params)
    where = [f"({compiled.where})", *where]
    if cut.page_token is not None:
        held = read_token(cut.question, cut.page_token)
        params |= {f"t{place}": value for place, value in enumerate(held)}
        where.append(behind(terms))
    with_token = cut.with_token and bool(cut.limit)
    statement = (
        f"SELECT {name} AS found{f', {cursor_columns(terms)}' if with_token else ''}\n{source}\n"
        f"WHERE {' AND '.join(where)}\nORDER BY {compiled.order_by}"
    )
    if cut.limit is not None:
        # One more tells whether there is a next page.
        statement += f"\nLIMIT {cut.limit + with_token}"
    needs = (*needs, *compiled.needs)
    if name == _PLACE and not with_token:
        return Found(query.numbers(statement, params, needs=needs), None)
    found = query.read(statement, params or None, needs=needs)
    if not with_token or cut.limit is None or found.num_rows <= cut.limit:
        return Found(found["found"], None)
    shown = found.slice(0, cut.limit)
    last = shown.slice(shown.num_rows - 1).to_pylist()[0]
    values = [last[f"t{place}"] for place in range(len(terms))]
    return Found(shown["found"], make_token(cut.question, values))


def _stage(name: str, view_type: str | int) -> str:
    found = view_type
    if isinstance(view_type, int) and not isinstance(view_type, bool):
        found = _VIEW_NUMBERS.get(view_type, view_type)
    if not isinstance(found, str) or found.upper() not in _STAGES:
        raise InvalidInputError(
            f"{name} is {view_type!r}; it may be {', '.join(map(repr, _STAGES))}."
        )
    return found.upper()
