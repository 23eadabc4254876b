from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake.errors import FilterSyntaxError, InvalidInputError
from runlake.query import Query, search
from runlake.query.entities import Page, RunRecord, get_run
from runlake.query.search import RunSearch, search_runs
from tests.query.builders import (
    Fact,
    Point,
    facts_of,
    snapshot,
    summaries_of,
)

START_US = 1_600_000_000_000_000

# run, last value of the metric, text of the param, tag, name
RUNS: list[tuple[str, float | None, str | None, str | None]] = [
    ("r0", 0.5, "0.1", "vision"),
    ("r1", math.nan, "10", "Vision"),
    ("r2", None, "9", None),
    ("r3", -math.inf, "rbf", "text"),
    ("r4", 2.0, None, "it's"),
    ("r5", 0.5, "1e-1", "vi_ion"),
]


@cache
def _query() -> Query:
    said, points = [], []
    for place, (run_id, metric, param, tag) in enumerate(RUNS):
        said.append(Fact(run_id, "run", "start", num=START_US + place * 1e6))
        said.append(Fact(run_id, "run", "name", f"name {place}"))
        said.append(Fact(run_id, "status", "", "FINISHED", START_US + place * 3e6 + 1e6))
        if param is not None:
            number = None if param == "rbf" else float(param)
            said.append(Fact(run_id, "param", "p", param, number))
        if tag is not None:
            said.append(Fact(run_id, "tag", "t", tag))
        if metric is not None:
            points += [Point(run_id, "m", 0, 1.0), Point(run_id, "m", 1, metric)]
    said.append(Fact("gone", "delete"))
    return Query(snapshot(facts_of(*said), summaries_of(points)))


def _frame(query: Query, filter_string: str | None = "", **options: Any) -> pl.DataFrame:  # noqa: ANN401 - passed on
    found = search_runs(query, RunSearch(filter_string=filter_string, **options))
    assert isinstance(found, pl.DataFrame)
    return found


def _page(query: Query, filter_string: str = "", **options: Any) -> Page[RunRecord]:  # noqa: ANN401 - passed on
    wanted = RunSearch(filter_string=filter_string, **options)
    found = search_runs(query, wanted, output_format="list")
    assert isinstance(found, Page)
    return found


def _found(filter_string: str, **options: Any) -> list[str]:  # noqa: ANN401 - passed on
    return _frame(_query(), filter_string, **options)["run_id"].to_list()


@pytest.mark.parametrize(
    ("filter_string", "expected"),
    [
        ("", "543210"),
        ("metrics.m > 0", "540"),
        ("metrics.m >= -1e400", "5430"),
        ("metrics.m < 1", "530"),
        ("metrics.m != 0.5", "431"),
        ("metrics.m = 0.5", "50"),
        ("metrics.m IN (0.5, 2)", "540"),
        ("metrics.m NOT IN (0.5, 2)", "31"),
        ("metrics.m IS NULL", "2"),
        ("metrics.m.max >= 2", "4"),
        ("metrics.m.count = 2", "54310"),
        ("metrics.m.first = 1", "54310"),
        ("params.p = '0.1'", "0"),
        ("params.p = 0.1", "50"),
        ("params.p > 0.5", "21"),
        ("params.p != 0.1", "321"),
        ("params.p != '0.1'", "5321"),
        ("params.p LIKE '1%'", "51"),
        ("params.p NOT LIKE '1%'", "320"),
        ("params.p IS NULL", "4"),
        ("params.p IN ('10', '9')", "21"),
        ("params.nothing != 'x'", ""),
        ("tags.t LIKE 'v%'", "50"),
        ("tags.t ILIKE 'v%'", "510"),
        ("tags.t = 'it''s'", "4"),
        ('tags.t = "it\'s"', "4"),
        ("tags.t LIKE 'vi_ion'", "50"),
        ("tags.t IS NOT NULL", "54310"),
        ("run_id = 'r1'", "1"),
        ("attributes.run_id NOT IN ('r1', 'r2')", "5430"),
        ("run_name = 'name 3'", "3"),
        ("attributes.`Run name` LIKE '%2'", "2"),
        ("tags.mlflow.runName = 'name 3'", "3"),
        ("start_time > 1600000003000", "54"),
        ("attributes.Created = 1600000003000", "3"),
        ("start_time >= '2020-09-13T12:26:44Z'", "54"),
        ("duration > 6", "543"),
        ("status = 'FINISHED'", "543210"),
        ("metrics.m > 0 AND tags.t = 'vision'", "0"),
        ("metrics.m > 1 OR params.p = 9", "42"),
        ("NOT metrics.m > 0", "321"),
        ("NOT (metrics.m > 0 OR tags.t = 'text')", "21"),
        ("NOT NOT metrics.m > 0", "540"),
    ],
)  # fmt: skip
def test_a_filter_finds_exactly_the_runs_that_match(filter_string: str, expected: str) -> None:
    assert "".join(run_id[1] for run_id in _found(filter_string)) == expected


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        (None, "543210"),
        (["start_time ASC"], "012345"),
        (["metrics.m"], "350412"),
        (["metrics.m DESC"], "450312"),
        (["metrics.m DESC", "start_time"], "405312"),
        (["params.p"], "052134"),
        (["params.p DESC"], "125034"),
        (["tags.t ASC"], "143502"),
        (["tags.t DESC"], "053412"),
        (["metrics.m.count DESC", "run_id"], "013452"),
    ],
)
def test_an_order_puts_missing_values_last_both_ways_and_nan_before_them(
    order_by: list[str] | None, expected: str
) -> None:
    assert "".join(run_id[1] for run_id in _found("", order_by=order_by)) == expected


def test_a_limit_cuts_the_order() -> None:
    assert _found("", limit=2) == ["r5", "r4"]
    assert _found("", limit=0) == []
    assert _found("", limit=100) == ["r5", "r4", "r3", "r2", "r1", "r0"]
    assert _page(_query(), limit=0).token is None


def test_the_columns_are_mlflows_then_one_for_each_key() -> None:
    frame = _frame(_query(), "run_id IN ('r0', 'r1', 'r2')", order_by=["run_id"])
    assert frame.columns == [
        "run_id", "experiment_id", "status", "artifact_uri", "start_time", "end_time",
        "run_name", "metrics.m", "params.p", "tags.t",
    ]  # fmt: skip
    assert frame["params.p"].to_list() == ["0.1", "10", "9"]
    metric = frame["metrics.m"].to_list()
    assert metric[0] == 0.5
    assert math.isnan(metric[1])
    assert metric[2] is None
    assert frame["start_time"][0] == datetime.fromtimestamp(START_US / 1e6, UTC)
    assert frame.schema["start_time"] == pl.Datetime("us", "UTC")


def test_a_key_that_no_run_of_the_page_has_is_left_out() -> None:
    assert "metrics.m" not in _frame(_query(), "run_id = 'r2'").columns


def test_a_frame_laid_out_in_many_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _frame(_query(), order_by=["params.p"])
    monkeypatch.setattr(search, "_BLOCK_CELLS", 1)
    assert _frame(_query(), order_by=["params.p"]).equals(whole)


def test_deleted_runs_show_only_where_they_are_asked_for() -> None:
    assert _found("", run_view_type="DELETED_ONLY") == ["gone"]
    assert set(_found("", run_view_type="ALL")) == {"gone", *(run[0] for run in RUNS)}


def test_experiments_narrow_the_search() -> None:
    said = facts_of(
        Fact("a", "tag", "x", "1", experiment_id="e'1"),
        Fact("b", "tag", "x", "1", experiment_id="e2", writer="W2"),
    )
    query = Query(snapshot(said))
    assert _frame(query, experiment_ids=["e'1"])["run_id"].to_list() == ["a"]
    assert _frame(query, experiment_ids=[]).height == 0
    assert _frame(query).height == 2


def test_an_empty_lake_has_no_runs_but_the_columns() -> None:
    frame = _frame(Query(snapshot()), "metrics.a > 1 OR tags.b = 'c'", order_by=["params.x"])
    assert frame.height == 0
    assert frame.columns[0] == "run_id"


@pytest.mark.parametrize(
    "filter_string",
    [
        "metrics.m = 'x'", "metrics.m LIKE 'x'", "params.p LIKE 1", "status = 1",
        "start_time > 'soon'", "start_time LIKE '1'", "nothing = 'x'", "attributes.m > 1",
    ],
)  # fmt: skip
def test_a_comparison_that_makes_no_sense_is_refused_with_its_place(filter_string: str) -> None:
    with pytest.raises(FilterSyntaxError, match=r"line 1, column \d+: expected"):
        _found(filter_string)


@pytest.mark.parametrize(
    "options",
    [
        {"run_view_type": "SOME"}, {"run_view_type": 0}, {"run_view_type": True},
        {"limit": -1}, {"limit": True},
        {"order_by": "metrics.m"}, {"order_by": ["metrics.m", "metrics.m DESC"]},
        {"experiment_ids": "0"},
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        _found("", **options)


def _matches(
    run: tuple[str, float | None, str | None, str | None], atom: tuple[str, str, Any]
) -> bool:
    """Say in plain Python what one comparison means."""
    kind, operator, wanted = atom
    held: Any = {"metrics.m": run[1], "params.p": run[2], "tags.t": run[3]}[kind]
    if held is None:
        return False
    return bool({
        "=": held == wanted, "!=": held != wanted, ">": held > wanted,
        ">=": held >= wanted, "<": held < wanted, "<=": held <= wanted,
    }[operator])  # fmt: skip


operators = st.sampled_from(["=", "!=", ">", ">=", "<", "<="])
atoms = st.one_of(
    st.tuples(st.just("metrics.m"), operators, st.sampled_from([0.5, 2.0, -1.0, math.inf])),
    st.tuples(st.just("params.p"), operators, st.sampled_from(["0.1", "9", "rbf", ""])),
    st.tuples(st.just("tags.t"), operators, st.sampled_from(["vision", "it's", "zz"])),
)
trees: st.SearchStrategy[Any] = st.recursive(
    atoms,
    lambda parts: st.tuples(st.sampled_from(["AND", "OR"]), parts, parts, st.booleans()),
    max_leaves=6,
)


def _text(tree: Any) -> str:  # noqa: ANN401 - a tree of tuples
    if tree[0] in {"AND", "OR"}:
        both = f"({_text(tree[1])} {tree[0]} {_text(tree[2])})"
        return f"NOT {both}" if tree[3] else both
    kind, operator, wanted = tree
    if isinstance(wanted, float):
        return f"{kind} {operator} {'1e999' if wanted == math.inf else wanted}"
    quoted = wanted.replace("'", "''")
    return f"{kind} {operator} '{quoted}'"


def _holds(run: Any, tree: Any) -> bool:  # noqa: ANN401 - a tree of tuples
    if tree[0] in {"AND", "OR"}:
        parts = _holds(run, tree[1]), _holds(run, tree[2])
        return (all(parts) if tree[0] == "AND" else any(parts)) is not bool(tree[3])
    return _matches(run, tree)


@settings(deadline=None, max_examples=60)
@given(tree=trees)
def test_any_filter_finds_what_plain_python_finds(tree: Any) -> None:  # noqa: ANN401 - as above
    expected = {run[0] for run in RUNS if _holds(run, tree)}
    assert set(_found(_text(tree))) == expected


# Data sets.

INPUTS: dict[str, list[tuple[str, str, str | None]]] = {
    "a": [("digits", "d1", "train"), ("wine", "d2", "eval")],
    "b": [("digits", "d2", None)],
    "c": [],
    "d": [("it's", "d1", "eval")],
}


@cache
def _inputs_query() -> Query:
    said = []
    for place, (run_id, inputs) in enumerate(INPUTS.items()):
        said.append(Fact(run_id, "run", "start", num=START_US - place * 1e6))
        for name, digest, context in inputs:
            held = {
                "name": name, "digest": digest, "context": context,
                "source_type": "s3", "source": f"s3://bucket/{name}",
            }  # fmt: skip
            said.append(Fact(run_id, "input", f"{name}@{digest}", json.dumps(held)))
    return Query(snapshot(facts_of(*said)))


@pytest.mark.parametrize(
    ("filter_string", "expected"),
    [
        ("dataset.name = 'digits'", "ab"),
        ("datasets.digest = 'd1'", "ad"),
        ("dataset.name != 'digits'", "ad"),
        ("dataset.name = 'digits' AND dataset.digest = 'd2'", "ab"),
        ("dataset.context = 'eval'", "ad"),
        ("dataset.context != 'eval'", "a"),
        ("dataset.context IS NULL", "bc"),
        ("dataset.name IS NULL", "c"),
        ("dataset.name IS NOT NULL", "abd"),
        ("dataset.`name` IN ('wine', 'it''s')", "ad"),
        ("dataset.digest NOT IN ('d1')", "ab"),
        ("dataset.name LIKE 'W%' OR dataset.name ILIKE 'W%'", "a"),
        ("NOT dataset.name = 'digits'", "cd"),
        ("NOT dataset.context NOT IN ('eval')", "bcd"),
        ("dataset.source LIKE 's3://%/wine' AND dataset.source_type = 's3'", "a"),
        ("dataset.name > 'it'", "ad"),
    ],
)
def test_a_run_fits_where_any_of_its_inputs_does(filter_string: str, expected: str) -> None:
    frame = _frame(_inputs_query(), filter_string)
    assert "".join(frame["run_id"]) == expected


@pytest.mark.parametrize(
    ("filter_string", "hint"),
    [
        ("dataset.nmae = 'x'", "Did you mean dataset.name?"),
        ("statsu = 'x'", "Did you mean status?"),
        ("strat_time = 1", "Did you mean start_time"),
        ("prams.lr = 1", "Did you mean params.lr?"),
        ("acc > 0.9", "as in metrics.acc"),
        ("dataset.name = 1", "a text in quotes"),
    ],
)
def test_an_unknown_field_is_refused_with_what_was_perhaps_meant(
    filter_string: str, hint: str
) -> None:
    with pytest.raises(FilterSyntaxError) as raised:
        _frame(_inputs_query(), filter_string)
    assert hint in str(raised.value)
    assert "^" in raised.value.caret


@pytest.mark.parametrize(
    ("key", "column", "expected"),
    [
        ("statsu DESC", 1, "Did you mean status?"),
        ("dataset.name", 1, "a run may have several"),
        ("metrics.m UP", 11, "ASC, DESC or the end"),
        ("foo.m", 1, "metrics, params, tags, dataset or attributes"),
        ("", 1, "a field"),
        ("metrics.m, metrics.n", 10, "ASC, DESC or the end"),
    ],
)
def test_a_wrong_order_says_where_and_what_was_expected(
    key: str, column: int, expected: str
) -> None:
    with pytest.raises(FilterSyntaxError) as raised:
        _found("", order_by=[key])
    assert raised.value.column == column
    assert expected in str(raised.value)


def test_an_order_of_too_many_keys_is_refused() -> None:
    assert len(_found("", order_by=[f"metrics.m{number}" for number in range(50)])) == len(RUNS)
    with pytest.raises(InvalidInputError, match="at most 50"):
        _found("", order_by=[f"metrics.m{number}" for number in range(51)])


def test_a_metric_named_like_a_statistic_is_found_unquoted_where_it_can_be_nothing_else() -> None:
    points = [
        Point("a", "loss.min", 0, 1.0),
        Point("b", "top", 0, 5.0), Point("b", "top", 1, 9.0),
        Point("b", "top.max", 0, 7.0),
    ]  # fmt: skip
    query = Query(snapshot(facts_of(Fact("a", "run"), Fact("b", "run")), summaries_of(points)))

    def found(filter_string: str) -> str:
        return "".join(_frame(query, filter_string)["run_id"])

    assert found("metrics.loss.min = 1") == "a"
    assert found("metrics.top.max = 9") == "b"
    assert found('metrics."top.max" = 7') == "b"
    assert found("metrics.nothing.max = 7") == ""
    assert _frame(query, order_by=["metrics.loss.min DESC"])["run_id"].to_list() == ["a", "b"]


# Pages.


def _walk(query: Query, limit: int, **options: Any) -> list[str]:  # noqa: ANN401 - passed on
    """Turn the pages to the last."""
    page = _page(query, limit=limit, **options)
    found = [run.info.run_id for run in page]
    while page.token is not None:
        assert len(page) == limit
        page = _page(query, limit=limit, page_token=page.token, **options)
        found += [run.info.run_id for run in page]
    return found


ORDERS = [
    "metrics.m", "metrics.m DESC", "params.p", "params.p DESC", "tags.t", "tags.t DESC",
    "status", "run_name DESC", "start_time", "end_time DESC", "duration", "metrics.m.count",
    "metrics.m.max DESC", "experiment_id", "lifecycle_stage", "user_id", "tags.mlflow.runName",
]  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(
    order_by=st.lists(st.sampled_from(ORDERS), max_size=3, unique_by=lambda key: key.split()[0]),
    limit=st.integers(1, 8),
    view=st.sampled_from(["ACTIVE_ONLY", "ALL"]),
)
def test_pages_of_any_order_are_the_whole(order_by: list[str], limit: int, view: str) -> None:
    options = {"order_by": order_by, "run_view_type": view}
    assert _walk(_query(), limit, **options) == _found("", **options)


def _starts(names: str, *, later: str = "") -> Query:
    """Return runs by their starts: letters in their order, `later` ones after all others."""
    said = [Fact(each, "run", "start", num=START_US + ord(each)) for each in names]
    said += [Fact(each, "run", "start", num=START_US + 1000 + ord(each)) for each in later]
    return Query(snapshot(facts_of(*said)))


@given(
    there=st.sets(st.sampled_from("bdfhjlnprtvxz"), min_size=1),
    come=st.sets(st.sampled_from("acegikmoqsuwy")),
    latest=st.sets(st.sampled_from("ABC")),
    gone=st.sets(st.sampled_from("bdfhjlnprtvxz")),
    limit=st.integers(1, 4),
)
@settings(deadline=None, max_examples=15)
def test_a_next_page_neither_repeats_nor_leaves_out_a_run_that_was_there(
    there: set[str], come: set[str], latest: set[str], gone: set[str], limit: int
) -> None:
    first = _page(_starts("".join(there)), limit=limit)
    shown = [run.info.run_id for run in first]
    assert shown == sorted(there, reverse=True)[:limit]
    if first.token is None:
        assert len(there) <= limit
        return
    now = _starts("".join((there - gone) | come), later="".join(latest))
    rest = [run.info.run_id for run in _page(now, page_token=first.token)]
    assert set(rest) & there == there - gone - set(shown)
    assert rest == sorted(
        (each for each in (there - gone) | come if each < shown[-1]), reverse=True
    )


def _token(**options: Any) -> str:  # noqa: ANN401 - passed on
    token = _page(_query(), limit=2, **options).token
    assert token is not None
    return token


@pytest.mark.parametrize(
    "other",
    [
        {"filter_string": "metrics.m > 0"}, {"order_by": ["start_time"]},
        {"run_view_type": "ALL"}, {"experiment_ids": ["1"]},
    ],
)  # fmt: skip
def test_a_token_of_another_search_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="another search"):
        _page(_query(), page_token=_token(), **other)
    assert len(_page(_query(), page_token=_token(**other), **other)) > 0


@given(text=st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda raw: raw.hex())))
def test_garbage_is_no_token(text: str) -> None:
    with pytest.raises(InvalidInputError, match="page_token"):
        _page(_query(), page_token=text)


@pytest.fixture(scope="module")
def token() -> str:
    return _token(order_by=["tags.t"])


@given(place=st.integers(0, 200), by=st.integers(1, 127))
def test_a_token_that_was_changed_is_refused(token: str, place: int, by: int) -> None:
    place %= len(token)
    changed = token[:place] + chr((ord(token[place]) + by) % 128) + token[place + 1 :]
    with pytest.raises(InvalidInputError, match="page_token"):
        _page(_query(), page_token=changed, order_by=["tags.t"])


def test_a_list_holds_what_get_run_returns() -> None:
    query = _query()
    page = _page(query, order_by=["run_id"])
    assert [run.info.run_id for run in page] == ["r0", "r1", "r2", "r3", "r4", "r5"]
    for run in page:
        assert repr(run) == repr(get_run(query, run.info.run_id))
    assert page[0].data.metrics == {"m": 0.5}
    assert page[0].data.params == {"p": "0.1"}
    assert page[0].data.tags == {"t": "vision"}


def test_a_frame_comes_as_pandas_or_polars() -> None:
    found = search_runs(_query(), RunSearch(), output_format="pandas")
    assert isinstance(found, pd.DataFrame)
    assert found["run_id"].tolist() == _found("")
    with pytest.raises(InvalidInputError, match="polars, pandas or list"):
        search_runs(_query(), RunSearch(), output_format="spark")


@pytest.mark.parametrize(
    ("view", "same"), [(1, "ACTIVE_ONLY"), (2, "DELETED_ONLY"), (3, "ALL"), ("all", "ALL")]
)
def test_views_have_mlflows_numbers_too(view: str | int, same: str) -> None:
    assert _found("", run_view_type=view) == _found("", run_view_type=same)
