from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake.dataset import Dataset
from runlake.errors import InvalidInputError, NotFoundError
from runlake.lake import open_lake
from runlake.query import Query
from runlake.query.compare import compare, read_run_ids
from tests.query.builders import Fact, Point, facts_of, snapshot, summaries_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

START = 1_700_000_000_000_000


def _input(run_id: str, name: str, digest: str, context: str | None = None) -> Fact:
    said = {"name": name, "digest": digest, "context": context, "source": None}
    return Fact(run_id, "input", f"{name}@{digest}@{context}", json.dumps(said))


def _query(
    params: Mapping[str, Mapping[str, str]],
    *facts: Fact,
    curves: Mapping[str, Mapping[str, list[float]]] | None = None,
    names: Mapping[str, str | None] | None = None,
) -> Query:
    """Return a snapshot of runs: params by run and key, curves by run and key."""
    said, points = [], []
    for number, (run_id, own) in enumerate(params.items()):
        said.append(Fact(run_id, "run", "start", num=START + number))
        name = (names or {}).get(run_id, run_id.upper())
        said += [Fact(run_id, "run", "name", name)] if name is not None else []
        said += [Fact(run_id, "param", key, value) for key, value in own.items()]
        for key, curve in (curves or {}).get(run_id, {}).items():
            points += [Point(run_id, key, step, value) for step, value in enumerate(curve)]
    return Query(snapshot(facts_of(*said, *facts), summaries_of(points)))


def _rows(frame: pl.DataFrame, *kinds: str) -> list[tuple[Any, ...]]:
    return frame.filter(pl.col("kind").is_in(kinds)).rows()


def test_params_stand_side_by_side_in_the_order_of_the_runs() -> None:
    query = _query({"a": {"C": "1.0", "k": "rbf"}, "b": {"C": "1", "k": "rbf"}, "c": {"C": "1.0"}})
    frame = compare(query, ["c", "a", "b"], show="all")
    assert frame.columns == ["kind", "key", "C", "A", "B"]
    assert set(frame.dtypes) == {pl.String}
    assert _rows(frame, "param") == [
        ("param", "C", "1.0", "1.0", "1"),
        ("param", "k", None, "rbf", "rbf"),
    ]


texts = st.sampled_from(["", "1", "1.0", "x"])
held = st.dictionaries(st.sampled_from(["C", "k", "ä b"]), texts, max_size=3)


@settings(max_examples=30, deadline=None)
@given(params=st.lists(held, min_size=2, max_size=4))
def test_differing_and_same_rows_are_all_rows_and_each_is_what_its_name_says(
    params: list[dict[str, str]],
) -> None:
    query = _query({f"run{number}": own for number, own in enumerate(params)})
    run_ids = [f"run{number}" for number in range(len(params))]
    found = {show: compare(query, run_ids, show=show) for show in ("differing", "same", "all")}
    for show, is_same in (("differing", False), ("same", True)):
        assert all((len(set(row[2:])) == 1) == is_same for row in found[show].rows())
    both = found["differing"].vstack(found["same"])
    assert sorted(both.rows(), key=str) == sorted(found["all"].rows(), key=str)
    assert {row[1]: row[2:] for row in _rows(found["all"], "param")} == {
        key: tuple(own.get(key) for own in params) for own in params for key in own
    }


def test_numbers_read_back_as_the_same_numbers() -> None:
    curves = {
        "a": {"acc": [0.1 + 0.2], "loss": [math.inf, 1e-300, 0.1], "nan": [math.nan]},
        "b": {"loss": [5.0], "nan": [math.nan]},
    }
    frame = compare(_query({"a": {}, "b": {}}, curves=curves), ["a", "b"], show="all")
    metrics = frame.filter(pl.col("kind").str.starts_with("metric"))
    cast = metrics.with_columns(pl.col("A", "B").cast(pl.Float64))
    assert cast.rows()[:5] == [
        ("metric", "acc", 0.1 + 0.2, None),
        ("metric", "loss", 0.1, 5.0),
        ("metric.min", "loss", 1e-300, 5.0),
        ("metric.max", "loss", math.inf, 5.0),
        ("metric.last_step", "loss", 2.0, 0.0),
    ]
    assert metrics.rows()[5:] == [("metric", "nan", "nan", "nan")]


def test_a_metric_that_is_nan_in_both_runs_is_the_same() -> None:
    curves = {run_id: {"m": [math.nan, math.nan]} for run_id in "ab"}
    frame = compare(_query({"a": {}, "b": {}}, curves=curves), ["a", "b"], show="same")
    assert _rows(frame, "metric", "metric.min", "metric.last_step") == [
        ("metric", "m", "nan", "nan"),
        ("metric.last_step", "m", "1", "1"),
    ]


def test_attributes_come_first_and_say_what_the_runs_are() -> None:
    facts = [
        Fact("a", "status", "", "FINISHED", num=START + 2_500_000.0),
        Fact("b", "status", "", "FAILED", num=START + 1_000_001.0),
        Fact("a", "run", "user", "ada"),
        Fact("b", "run", "user", "bob"),
        Fact("b", "tag", "team", "vision"),
    ]
    frame = compare(_query({"a": {"p": "1"}, "b": {"p": "2"}}, *facts), ["a", "b"])
    assert frame.rows() == [
        ("attribute", "run_id", "a", "b"),
        ("attribute", "status", "FINISHED", "FAILED"),
        (
            "attribute",
            "start_time",
            "2023-11-14T22:13:20.000000Z",
            "2023-11-14T22:13:20.000001Z",
        ),
        ("attribute", "duration", "2.5", "1.0"),
        ("attribute", "user_id", "ada", "bob"),
        ("param", "p", "1", "2"),
        ("tag", "team", None, "vision"),
    ]


def test_data_sets_are_compared_by_digest_for_each_name_and_context() -> None:
    facts = [
        _input("a", "digits", "1", "training"),
        _input("b", "digits", "2", "training"),
        _input("a", "digits", "1"),
        _input("b", "digits", "1"),
        _input("b", "more", "z"),
        _input("b", "more", "y"),
    ]
    frame = compare(_query({"a": {}, "b": {}}, *facts), ["a", "b"], show="all")
    assert _rows(frame, "input") == [
        ("input", "digits", "1", "1"),
        ("input", "digits (training)", "1", "2"),
        ("input", "more", None, "y, z"),
    ]


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        (["svm", "svm", "tree"], ["svm 0193a7aa0", "svm 0193a7aa1", "tree"]),
        (["key", "kind", "tree"], ["key 0193a7aa0", "kind 0193a7aa1", "tree"]),
        ([None, None, "tree"], ["run 0193a7aa0", "run 0193a7aa1", "tree"]),
        (["svm", "svm", "svm 0193a7aa0"], ["svm 0193a7aa0x", "svm 0193a7aa1y", "svm 0193a7aa0"]),
        (["svm", "svm", "svm 0193a7aa0x"], ["svm 0193a7aa0", "svm 0193a7aa1", "svm 0193a7aa0x"]),
    ],
)
def test_runs_are_titled_by_name_and_where_that_is_shared_by_the_id_too(
    names: list[str | None], titles: list[str]
) -> None:
    run_ids = ["0193a7aa0x", "0193a7aa1y", "z"]
    query = _query({run_id: {} for run_id in run_ids}, names=dict(zip(run_ids, names, strict=True)))
    assert compare(query, run_ids).columns == ["kind", "key", *titles]


odd_names = st.sampled_from(["x", "x a", "x ab", "kind", "key", "run", "run a", "run ab", None])


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "ab", "b", "ba", "kind"]), odd_names, min_size=2))
def test_titles_never_collide_whatever_runs_are_called(names: dict[str, str | None]) -> None:
    query = _query({run_id: {} for run_id in names}, names=names)
    frame = compare(query, list(names), show="all")
    assert frame.columns[:2] == ["kind", "key"]
    assert frame.filter(pl.col("key") == "run_id").row(0)[2:] == tuple(names)


RUN = SimpleNamespace(info=SimpleNamespace(run_id="a"))


@pytest.mark.parametrize(
    "given",
    [
        ["a", "b"],
        ("a", "b"),
        [RUN, SimpleNamespace(run_id="b")],
        pl.DataFrame({"x": [1, 2], "run_id": ["a", "b"]}),
        pl.DataFrame({"run_id": ["a", "b"]}).to_pandas(),
        pa.table({"run_id": ["a", "b"]}),
        pl.Series(["a", "b"]),
        iter(["a", "b"]),
    ],
)
def test_runs_are_given_in_any_form(given: object) -> None:
    assert read_run_ids(given) == ["a", "b"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda query: compare(query, ["a"]), "two runs or more, got only 'a'"),
        (lambda query: compare(query, ["a", "a"]), "two runs or more, got only 'a'"),
        (lambda query: compare(query, []), "two runs or more, got none"),
        (lambda query: compare(query, "ab"), "a list of ids .* got 'ab'"),
        (lambda query: compare(query, None), "a list of ids .* got None"),
        (lambda query: compare(query, ["a", 5]), "by its id, got an int 5"),
        (lambda query: compare(query, pl.DataFrame({"id": ["a"]})), "column 'run_id'"),
        (lambda query: compare(query, ["a", "b"], show="diff"), "'differing', 'same', 'all'"),
    ],
)
def test_what_is_no_choice_of_runs_is_refused(
    call: Callable[[Query], object], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call(_query({"a": {}, "b": {}}))


def test_an_unknown_run_is_named_with_the_nearest() -> None:
    query = _query({"first-run": {}, "other": {}})
    with pytest.raises(NotFoundError, match=r"no run 'first-rum'.*Did you mean 'first-run'"):
        compare(query, ["other", "first-rum"])


def test_a_lake_compares_runs_of_its_own(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        runs = []
        for name, lr in (("first", 0.1), ("second", 0.2)):
            with lake.start_run(name, tags={"team": "vision"}) as run:
                run.log_params({"lr": lr, "C": 1})
                run.log({"acc": lr * 3})
                run.log_input(Dataset(name="digits", digest=name))
                runs.append(run)
        differing = lake.compare(runs)
        assert differing.columns == ["kind", "key", "first", "second"]
        assert _rows(differing, "param", "metric", "input", "tag") == [
            ("param", "lr", "0.1", "0.2"),
            ("metric", "acc", repr(0.1 * 3), repr(0.2 * 3)),
            ("input", "digits", "first", "second"),
        ]
        found = lake.search_runs(order_by=["params.lr"])
        assert lake.compare(found).equals(differing)
        same = lake.compare(found, show="same")
        assert _rows(same, "param", "tag") == [
            ("param", "C", "1", "1"),
            ("tag", "team", "vision", "vision"),
        ]
