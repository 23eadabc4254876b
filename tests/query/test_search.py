from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import cache
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake.errors import FilterSyntaxError, InvalidInputError
from runlake.query import Query, search
from runlake.query.search import search_experiments, search_runs
from tests.query.builders import (
    NOW_US,
    Fact,
    Point,
    facts_of,
    lake_event,
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


def _found(filter_string: str, **options: Any) -> list[str]:  # noqa: ANN401 - passed on
    return search_runs(_query(), filter_string, **options)["run_id"].to_list()


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


def test_a_page_is_cut_from_the_whole_order() -> None:
    assert _found("", limit=2, offset=1) == ["r4", "r3"]
    assert _found("", limit=0) == []
    assert _found("", offset=4) == ["r1", "r0"]


def test_the_columns_are_mlflows_then_one_for_each_key() -> None:
    frame = search_runs(_query(), "run_id IN ('r0', 'r1', 'r2')", order_by=["run_id"])
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
    assert "metrics.m" not in search_runs(_query(), "run_id = 'r2'").columns


def test_a_large_lake_gives_the_same_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    small = search_runs(_query(), order_by=["params.p"], limit=4)
    monkeypatch.setattr(search, "_WIDE_ROWS", 0)
    large = search_runs(Query(_query().tables), order_by=["params.p"], limit=4)
    assert large.equals(small)


def test_deleted_runs_show_only_where_they_are_asked_for() -> None:
    assert _found("", run_view_type="DELETED_ONLY") == ["gone"]
    assert set(_found("", run_view_type="ALL")) == {"gone", *(run[0] for run in RUNS)}


def test_experiments_narrow_the_search() -> None:
    said = facts_of(
        Fact("a", "tag", "x", "1", experiment_id="e'1"),
        Fact("b", "tag", "x", "1", experiment_id="e2", writer="W2"),
    )
    query = Query(snapshot(said))
    assert search_runs(query, experiment_ids=["e'1"])["run_id"].to_list() == ["a"]
    assert search_runs(query, experiment_ids=[]).height == 0
    assert search_runs(query).height == 2


def test_an_empty_lake_has_no_runs_but_the_columns() -> None:
    frame = search_runs(Query(snapshot()), "metrics.a > 1 OR tags.b = 'c'", order_by=["params.x"])
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
        {"run_view_type": "SOME"}, {"limit": -1}, {"offset": -1}, {"limit": True},
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


def test_experiments_are_listed_by_their_latest_change() -> None:
    events = [
        lake_event("e1", "experiment_create", "one", clock=NOW_US - 3),
        lake_event("e2", "experiment_create", "two", clock=NOW_US - 2, seq=1),
        lake_event("e3", "experiment_create", "three", clock=NOW_US - 1, seq=2),
        lake_event("e3", "experiment_delete", clock=NOW_US, seq=3),
    ]
    query = Query(snapshot(lake_events=events))
    assert [each.name for each in search_experiments(query)] == ["two", "one"]
    assert search_experiments(query, view_type="ALL")[0].name == "three"
    with pytest.raises(InvalidInputError, match="view_type"):
        search_experiments(query, view_type="SOME")
