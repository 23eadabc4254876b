from __future__ import annotations

import math
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runlake.errors import FilterSyntaxError, InvalidInputError, NotFoundError
from runlake.lake import open_lake
from runlake.query import Query
from runlake.query.leaderboard import leaderboard, leaderboard_sql
from tests.query.builders import (
    NOW_US,
    Fact,
    Point,
    facts_of,
    snapshot,
    summaries_of,
    write_points,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runlake.query.leaderboard import Board

KEY = "it's;--"
FIXED = ["run_id", "run_name", "experiment_name", "value", "step", "status"]


@dataclass(frozen=True)
class Trial:
    """One run: what it logged of the metric (step, time, value), its params, and where it is."""

    points: Sequence[tuple[int, int, float]] = ()
    params: dict[str, str] = field(default_factory=dict)
    experiment_id: str = "1"
    is_deleted: bool = False
    context: str | None = None

    def at(self, what: str | int) -> tuple[float, int | None] | None:
        """Return the value that the run stands with, and its step; None if there is none."""
        numbers = [point for point in self.points if not math.isnan(point[2])]
        if isinstance(what, int):
            here = [(time, value) for step, time, value in self.points if step == what]
            return (max(here, key=_last)[1], what) if here else None
        if not self.points:
            return None
        if what == "last":
            step, _, value = max(self.points, key=lambda point: (point[0], *_last(point[1:])))
            return value, step
        if not numbers:
            return math.nan, None
        if what == "mean":
            return sum(value for *_, value in numbers) / len(numbers), None
        sign = -1 if what == "max" else 1
        step, _, value = min(numbers, key=lambda point: (sign * point[2], *point[:2]))
        return value, step


def _last(point: tuple[int, float]) -> tuple[int, bool, float]:
    time, value = point
    return time, not math.isnan(value), 0.0 if math.isnan(value) else value


def _query(trials: Sequence[Trial], *, key: str = "m", folder: Path | None = None) -> Query:
    """Return a snapshot of runs `r0`, `r1`, ..., each a second younger than the one before."""
    said, points, rows = [], [], []
    for number, trial in enumerate(trials):
        run_id, home = f"r{number}", trial.experiment_id
        said.append(Fact(run_id, "run", "start", num=1e15 + number, experiment_id=home))
        said.append(Fact(run_id, "run", "auto_name", f"name-{number}", experiment_id=home))
        said += [Fact(run_id, "delete", experiment_id=home)] if trial.is_deleted else []
        for name, text in trial.params.items():
            said.append(Fact(run_id, "param", name, text, _number(text), experiment_id=home))
        if trial.context is not None:
            about = f'{{"name":"d","digest":"1","context":"{trial.context}"}}'
            said.append(Fact(run_id, "input", f"d@1@{trial.context}", about, experiment_id=home))
        for step, time, value in trial.points:
            points.append(Point(run_id, key, step, value, NOW_US + time, experiment_id=home))
            rows.append((run_id, "metric", key, step, NOW_US + time, value, None))
    files = () if folder is None else (write_points(folder / "points.parquet", rows),)
    return Query(snapshot(facts_of(*said), summaries_of(points), points=files))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _curves(**curves: list[float]) -> list[Trial]:
    """Return runs whose points are at steps 0, 1, 2, ...; `lr` differs, `same` does not."""
    return [
        Trial(
            [(step, step, value) for step, value in enumerate(curve)],
            {"same": "1", "lr": str(number)} | ({"only": "x"} if number == 0 else {}),
        )
        for number, curve in enumerate(curves.values())
    ]


CURVES = _curves(
    a=[0.1, 0.9, 0.5],
    b=[0.9, 0.2, 0.3],
    c=[0.4, 0.4, 0.4],
    d=[math.nan, math.nan],
    e=[],
    f=[0.8, math.nan],
)


@pytest.mark.parametrize(
    ("options", "ranks", "steps"),
    [
        ({}, [(1, "r0"), (1, "r1"), (3, "r5"), (4, "r2"), (5, "r3")], [1, 0, 0, 0, None]),
        (
            {"goal": "min"},
            [(1, "r0"), (2, "r1"), (3, "r2"), (4, "r5"), (5, "r3")],
            [0, 1, 0, 0, None],
        ),
        (
            {"value": "last"},
            [(1, "r0"), (2, "r2"), (3, "r1"), (4, "r3"), (4, "r5")],
            [2, 2, 2, 1, 1],
        ),
        ({"value": "mean", "goal": "max", "top": 2}, [(1, "r5"), (2, "r0")], [None, None]),
        ({"value": "min", "goal": "max", "top": 1}, [(1, "r5")], [0]),
        ({"filter_string": "params.lr >= 2", "top": 1}, [(1, "r5")], [0]),
    ],
)
def test_runs_are_ranked_ties_share_a_rank_and_nan_comes_last(
    options: dict[str, Any], ranks: list[tuple[int, str]], steps: list[int | None]
) -> None:
    board = leaderboard(_query(CURVES), "m", **options)
    assert list(zip(board["rank"].to_list(), board["run_id"].to_list(), strict=True)) == ranks
    assert board["step"].to_list() == steps


values = st.sampled_from([-math.inf, -1.5, -0.0, 0.0, 0.1, 2.0, 1e200, math.inf, math.nan])
points = st.tuples(st.integers(0, 2), st.integers(0, 2), values)
trials = st.builds(
    Trial,
    points=st.lists(points, max_size=4),
    params=st.dictionaries(st.sampled_from(["k", 'it\'s "odd"']), st.sampled_from("xy1")),
    experiment_id=st.sampled_from("12"),
    is_deleted=st.sampled_from([False, False, True]),
    context=st.sampled_from([None, "training"]),
)
fields = st.sampled_from(["params.k", 'params.`it\'s "odd"`', "experiment_name", "status"])
choices = st.fixed_dictionaries(
    {
        "goal": st.sampled_from(["max", "min"]),
        "value": st.sampled_from(["best", "last", "min", "max", "mean", 0, 1, np.int64(2)]),
        "by": st.none() | fields | st.lists(fields, max_size=2, unique=True),
        "filter_string": st.sampled_from(
            [
                "",
                "params.k = 'x' or params.k IS NULL",
                "params.k > 0.5 or metrics.m.count != 1",
                "not params.`it's \"odd\"` IN ('x', 'y')",
                "dataset.context = 'training' and dataset.name LIKE 'd%'",
                "dataset.context IS NULL",
                "start_time > '2001-09-09T01:46:40.000001+00:00'",
                "created > 1 and duration IS NULL and tags.`mlflow.runName` != 'name-0'",
            ]
        ),
        "top": st.none() | st.integers(1, 3),
        "experiment_ids": st.none() | st.lists(st.sampled_from("123"), max_size=2),
    }
)


def _board(query: Query, metric: str, options: dict[str, Any]) -> Board | None:
    """Return the leaderboard, None where nothing is there to rank or to group by."""
    try:
        return leaderboard(query, metric, **options)
    except NotFoundError:
        return None


def _same(found: object, expected: object) -> bool:
    if isinstance(found, float) and isinstance(expected, float):
        is_nan = math.isnan(found) and math.isnan(expected)
        return is_nan or math.isclose(found, expected, rel_tol=1e-12)
    return found == expected


@settings(max_examples=40, deadline=None)
@given(trials=st.lists(trials, min_size=1, max_size=7), options=choices)
@example(trials=[Trial([(0, 0, 1.0)])], options={"by": "metrics.m.mean", "value": 0})
def test_the_statement_that_is_printed_gives_the_same_rows(
    trials: list[Trial], options: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        query = _query(trials, key=KEY, folder=Path(folder))
        printed = query.sql(leaderboard_sql(KEY, **options))
        board = _board(query, KEY, options)
        query.close()
    if board is None:
        # No run has the metric, or none has the param that is to make groups.
        assert printed.num_rows <= 1
        return
    assert printed.column_names == board.columns[: printed.num_columns]
    rows = board.select(printed.column_names).rows()
    assert len(rows) == printed.num_rows
    for row, other in zip(rows, printed.to_pylist(), strict=True):
        assert all(map(_same, row, other.values())), (row, other)


@settings(max_examples=40, deadline=None)
@given(
    trials=st.lists(trials, min_size=1, max_size=8),
    goal=st.sampled_from(["max", "min"]),
    value=st.sampled_from(["best", "last", "mean", 1]),
    by=st.sampled_from([None, "params.k"]),
    top=st.none() | st.integers(1, 3),
)
def test_a_board_is_what_plain_python_makes_of_the_points(
    trials: list[Trial], goal: str, value: str | int, by: str | None, top: int | None
) -> None:
    asked = goal if value == "best" else value
    found = {f"r{n}": each.at(asked) for n, each in enumerate(trials) if not each.is_deleted}
    standing = {run_id: each for run_id, each in found.items() if each is not None}
    keys = {run_id: trials[int(run_id[1:])].params.get("k") for run_id in standing}

    def badness(run_id: str) -> tuple[bool, float, int]:
        number = standing[run_id][0]
        is_nan = math.isnan(number)
        signed = 0.0 if is_nan else -number if goal == "max" else number
        return is_nan, signed, int(run_id[1:])

    order = sorted(standing, key=badness)
    if by is not None:
        order = [
            run_id for n, run_id in enumerate(order) if keys[run_id] not in _keys(order[:n], keys)
        ]
    with tempfile.TemporaryDirectory() as folder:
        query = _query(trials, folder=Path(folder))
        options = {"goal": goal, "value": value, "by": by, "top": top}
        board = _board(query, "m", options)
        query.close()
    if board is None:
        assert not standing or set(keys.values()) == {None}
        return
    order = order[:top]
    assert board["run_id"].to_list() == order
    assert board.left_out == len(found) - len(standing)
    ranks = [1 + sum(badness(other)[:2] < badness(each)[:2] for other in order) for each in order]
    assert board["rank"].to_list() == ranks
    for row in board.iter_rows(named=True):
        number, step = standing[row["run_id"]]
        assert _same(row["value"], number)
        assert row["step"] == step
        if by is not None:
            members = [standing[run][0] for run in order_of(keys, row[by])]
            _check_group(row, members)


def _keys(run_ids: Sequence[str], keys: dict[str, str | None]) -> set[str | None]:
    return {keys[run_id] for run_id in run_ids}


def order_of(keys: dict[str, str | None], key: str | None) -> list[str]:
    """Return the runs of a group."""
    return [run_id for run_id, each in keys.items() if each == key]


def _check_group(row: dict[str, Any], members: list[float]) -> None:
    assert row["n"] == len(members)
    if all(map(math.isfinite, members)) and max(map(abs, members)) < 1e100:
        assert math.isclose(row["mean"], statistics.fmean(members), abs_tol=1e-12)
        if len(members) > 1:
            assert math.isclose(row["std"], statistics.stdev(members), abs_tol=1e-12)
    elif any(map(math.isnan, members)):
        assert math.isnan(row["mean"])
    assert (row["std"] is None) == (len(members) == 1)


def test_the_best_run_of_each_group_stands_with_number_mean_and_deviation_of_its_runs() -> None:
    seeds = [("rbf", 0.8), ("rbf", 0.9), ("lin", 0.7), ("rbf", 1.0), (None, 0.6), ("lin", math.nan)]
    trials = [
        Trial([(3, 0, value)], {"seed": str(seed)} | ({"kernel.name": name} if name else {}))
        for seed, (name, value) in enumerate(seeds)
    ]
    board = leaderboard(_query(trials), "m", by="parameters.kernel.name")
    assert board.columns == [
        "rank", "params.kernel.name", "run_id", "run_name", "experiment_name", "value", "step",
        "n", "mean", "std", "status", "params.seed",
    ]  # fmt: skip
    assert board["params.kernel.name"].to_list() == ["rbf", "lin", None]
    assert board["run_id"].to_list() == ["r3", "r2", "r4"]
    assert board["step"].to_list() == [3, 3, 3]
    assert board["n"].to_list() == [3, 2, 1]
    assert board["mean"].to_list()[0] == pytest.approx(0.9)
    assert board["std"].to_list()[0] == pytest.approx(0.1)
    assert math.isnan(board["std"].to_list()[1])
    assert board["std"].to_list()[2] is None


def test_groups_may_be_made_by_several_fields_of_any_kind() -> None:
    trials = [
        Trial([(0, 0, 0.1 * number)], {"k": "xy"[number % 2]}, experiment_id="12"[number // 4])
        for number in range(8)
    ]
    board = leaderboard(_query(trials), "m", by=["params.k", "experiment_id"])
    assert board.select("params.k", "experiment_id", "run_id", "n").rows() == [
        ("y", "2", "r7", 2),
        ("x", "2", "r6", 2),
        ("y", "1", "r3", 2),
        ("x", "1", "r2", 2),
    ]
    by_metric = leaderboard(_query(trials), "m", by="metrics.m.count")
    assert by_metric.select("metrics.m.count", "n").rows() == [(1, 8)]
    by_home = leaderboard(_query(trials), "m", by="experiment_name")
    assert by_home.columns[:4] == ["rank", "experiment_name", "run_id", "run_name"]


def test_several_points_at_one_step_stand_with_the_latest_number(tmp_path: Path) -> None:
    trials = [
        Trial([(5, 1, 0.5), (5, 3, 0.1), (5, 2, 0.9), (6, 0, 7.0)]),
        Trial([(5, 0, 0.2)]),
        Trial([(4, 0, 0.9)]),
        Trial([(5, 0, math.nan)]),
        Trial([(5, 2, 0.3), (5, 2, math.nan), (5, 2, 0.25), (5, 1, 9.0)]),
        Trial([(5, 1, 9.0), (5, 2, math.nan)]),
    ]
    query = _query(trials, folder=tmp_path)
    board = leaderboard(query, "m", value=5)
    printed = query.sql(leaderboard_sql("m", value=5))
    assert printed["run_id"].to_pylist() == board["run_id"].to_list()
    assert board["run_id"].to_list() == ["r4", "r1", "r0", "r3", "r5"]
    assert board["rank"].to_list() == [1, 2, 3, 4, 4]
    assert set(board["step"]) == {5}
    assert board["value"].to_list()[:3] == [0.3, 0.2, 0.1]
    assert board.left_out == 1
    assert leaderboard(query, "m", value=99).left_out == len(trials)


@pytest.mark.parametrize("step", [-(2**63), -1, 2**63 - 1])
def test_any_step_can_be_ranked_at(tmp_path: Path, step: int) -> None:
    query = _query([Trial([(step, 0, 0.5)])], folder=tmp_path)
    board = leaderboard(query, "m", value=step)
    assert board.select("value", "step").rows() == [(0.5, step)]
    printed = query.sql(leaderboard_sql("m", value=step))
    assert printed["step"].to_pylist() == [step]


def test_numbers_of_a_filter_are_printed_exactly() -> None:
    query = _query(_curves(a=[0.1 + 0.2], b=[0.3], c=[1e-300]))
    for filter_string, run_ids in (
        ("metrics.m = 0.30000000000000004", ["r0"]),
        ("metrics.m = 0.3", ["r1"]),
        ("metrics.m < 1e-299", ["r2"]),
        ("params.lr = 1", ["r1"]),
        ("metrics.m < 1e999", ["r0", "r1", "r2"]),
    ):
        printed = query.sql(leaderboard_sql("m", filter_string=filter_string))
        assert printed["run_id"].to_pylist() == run_ids
        board = leaderboard(query, "m", filter_string=filter_string)
        assert board["run_id"].to_list() == run_ids


def test_the_params_that_differ_between_the_runs_shown_stand_beside_them() -> None:
    board = leaderboard(_query(CURVES), "m", top=3)
    assert board.columns == ["rank", *FIXED, "params.lr", "params.only"]
    assert dict(zip(board["run_id"], board["params.only"], strict=True)) == {
        "r0": "x", "r1": None, "r5": None,
    }  # fmt: skip
    assert leaderboard(_query(CURVES), "m", top=1).columns == ["rank", *FIXED]


def test_of_a_thousand_differing_params_the_commonest_are_shown() -> None:
    common = [{f"c{key:02}": str(run) for key in range(40)} for run in range(2)]
    rare = [{f"a{run}{key:04}": "x" for key in range(1000)} for run in range(2)]
    trials = [Trial([(0, 0, 1.0)], common[run] | rare[run]) for run in range(2)]
    shown = leaderboard(_query(trials), "m").columns[len(FIXED) + 1 :]
    assert shown == [
        *(f"params.a0{key:04}" for key in range(10)),
        *(f"params.c{key:02}" for key in range(40)),
    ]


def test_runs_without_the_metric_are_left_out_and_counted() -> None:
    query = _query(CURVES)
    board = leaderboard(query, "m", top=2)
    assert board.left_out == 1
    assert leaderboard(query, "m", filter_string="params.lr < 4").left_out == 0
    assert leaderboard(query, "m", experiment_ids=["2"]).left_out == 0


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(NotFoundError, match=r"no metric 'val/ac'.*Did you mean 'val/acc'"):
        leaderboard(_query(CURVES, key="val/acc"), "val/ac")


def test_groups_by_what_no_run_has_are_refused_with_the_nearest() -> None:
    with pytest.raises(NotFoundError, match=r"no param 'onyl'.*Did you mean 'only'"):
        leaderboard(_query(CURVES), "m", by="params.onyl")
    board = leaderboard(_query(CURVES), "m", by="params.only", filter_string="params.lr > 0")
    assert board.select("params.only", "n").rows() == [(None, 4)]


def test_a_metric_of_another_experiment_gives_an_empty_board() -> None:
    for by in (None, "params.lr"):
        board = leaderboard(_query(CURVES), "m", experiment_ids=["2"], by=by)
        assert board.height == 0
        assert "value" in board.columns
    assert leaderboard(_query(CURVES), "m", experiment_ids=[]).height == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": "most"}, "goal is 'most'; it may be 'max', 'min'"),
        ({"value": "median"}, "value is 'median'; it may be 'best'.* or a step"),
        ({"value": True}, "value is True"),
        ({"value": 1.5}, r"value is 1\.5"),
        ({"value": 2**63}, "value is 9223372036854775808"),
        ({"top": 0}, "top is 0"),
        ({"top": True}, "top is True"),
        ({"top": "5"}, "top is '5'"),
        ({"experiment_ids": "1"}, r"write a list: \['1'\]"),
        ({"by": 5}, "by is 5; it may be a field"),
        ({"by": ["params.k", None]}, "it may be a field"),
        ({"by": ["params.k", "param.k"]}, "by names a field twice: params.k, params.k"),
    ],
)
def test_a_wrong_argument_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        leaderboard_sql("m", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"by": "params"},
        {"by": "params.k DESC"},
        {"by": "dataset.name"},
        {"by": "nothing"},
        {"filter_string": "metrics.m >"},
    ],
)
def test_what_is_no_field_or_filter_points_at_the_place(options: dict[str, Any]) -> None:
    with pytest.raises(FilterSyntaxError, match="line 1, column"):
        leaderboard_sql("m", **options)


def test_a_lake_ranks_its_runs(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        for number in range(4):
            lr, seed = (0.1, 0.2)[number // 2], number % 2
            with lake.start_run(experiment="digits") as run:
                run.log_params({"lr": lr, "seed": seed})
                run.log_history({"step": range(3), "acc": [lr * n + seed / 100 for n in range(3)]})
        lake.start_run(experiment="digits").finish()
        board = lake.leaderboard("acc", by="params.lr", filter_string="params.seed < 5")
        assert board.select("params.lr", "n", "step").rows() == [("0.2", 2, 2), ("0.1", 2, 2)]
        at_step = lake.leaderboard("acc", value=1, experiment_names=["digits"])
        assert at_step["value"].to_list() == pytest.approx([0.21, 0.2, 0.11, 0.1])
        assert at_step.left_out == 1
