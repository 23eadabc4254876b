from __future__ import annotations

import math
from typing import Any

import pytest

from runlake.errors import InvalidInputError, NotFoundError
from runlake.query import Query
from runlake.query.leaderboard import count_left_out, leaderboard, leaderboard_sql
from tests.query.builders import Fact, Point, facts_of, snapshot, summaries_of


def _query(curves: dict[str, list[float]], *, experiment_id: str = "1", key: str = "m") -> Query:
    said, points = [], []
    for place, (run_id, curve) in enumerate(curves.items()):
        said.append(Fact(run_id, "run", "start", num=1e15 + place))
        said.append(Fact(run_id, "run", "auto_name", f"name-{run_id}"))
        said.append(Fact(run_id, "param", "same", "1", 1.0))
        said.append(Fact(run_id, "param", "lr", str(place), float(place)))
        if place == 0:
            said.append(Fact(run_id, "param", "only", "x"))
        points += [Point(run_id, key, step, value) for step, value in enumerate(curve)]
    tables = snapshot(facts_of(*said), summaries_of(points))
    assert experiment_id == "1"
    return Query(tables)


CURVES = {
    "a": [0.1, 0.9, 0.5],
    "b": [0.9, 0.2, 0.3],
    "c": [0.4, 0.4, 0.4],
    "d": [math.nan, math.nan],
    "e": [],
    "f": [0.8, math.nan],
}


@pytest.mark.parametrize(
    ("options", "ranks", "steps"),
    [
        ({}, [(1, "a"), (1, "b"), (3, "f"), (4, "c"), (5, "d")], [1, 0, 0, 0, None]),
        ({"goal": "min"}, [(1, "a"), (2, "b"), (3, "c"), (4, "f"), (5, "d")], [0, 1, 0, 0, None]),
        (
            {"value": "last"},
            [(1, "a"), (2, "c"), (3, "b"), (4, "d"), (4, "f")],
            [2, 2, 2, 1, 1],
        ),
        (
            {"value": "mean", "goal": "max", "top": 2},
            [(1, "f"), (2, "a")],
            [None, None],
        ),
        ({"value": "min", "goal": "max", "top": 1}, [(1, "f")], [0]),
    ],
)
def test_runs_are_ranked_ties_share_a_rank_and_nan_comes_last(
    options: dict[str, Any], ranks: list[tuple[int, str]], steps: list[int | None]
) -> None:
    board = leaderboard(_query(CURVES), "m", **options)
    assert list(zip(board["rank"].to_list(), board["run_id"].to_list(), strict=True)) == ranks
    assert board["step"].to_list() == steps


def test_the_params_that_differ_between_the_runs_shown_stand_beside_them() -> None:
    board = leaderboard(_query(CURVES), "m", top=3)
    assert board.columns == [
        "rank", "run_id", "run_name", "experiment_name", "value", "step", "status",
        "params.lr", "params.only",
    ]  # fmt: skip
    assert board["params.only"].to_list() == ["x", None, None]
    assert leaderboard(_query(CURVES), "m", top=1).columns[-1] == "status"


def test_runs_without_the_metric_are_left_out_and_counted() -> None:
    query = _query(CURVES)
    assert "e" not in leaderboard(query, "m", top=None)["run_id"].to_list()
    assert count_left_out(query, "m") == 1
    assert count_left_out(query, "m", experiment_ids=["2"]) == 0


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'val/acc'"):
        leaderboard(_query(CURVES, key="val/acc"), "val/ac")


def test_a_metric_of_another_experiment_gives_an_empty_board() -> None:
    assert leaderboard(_query(CURVES), "m", experiment_ids=["2"]).height == 0
    assert leaderboard(_query(CURVES), "m", experiment_ids=[]).height == 0


def test_the_statement_that_is_printed_gives_the_same_ranks() -> None:
    query = _query(CURVES, key="it's;--")
    options: dict[str, Any] = {"goal": "min", "value": "last", "experiment_ids": ["1"]}
    printed = query.sql(leaderboard_sql("it's;--", **options))
    board = leaderboard(query, "it's;--", **options)
    assert printed.column_names == board.columns[:7]
    assert printed["run_id"].to_pylist() == board["run_id"].to_list()
    assert printed["rank"].to_pylist() == board["rank"].to_list()


@pytest.mark.parametrize(
    "options", [{"goal": "most"}, {"value": "median"}, {"top": 0}, {"experiment_ids": "1"}]
)
def test_a_wrong_argument_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        leaderboard_sql("m", **options)
