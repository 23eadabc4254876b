from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import harness
from benchmarks.harness import AT_LEAST, Figure, Result, Spread

if TYPE_CHECKING:
    from pathlib import Path


def result(*figures: Figure) -> Result:
    return Result(
        name="name",
        question="How fast?",
        quick=False,
        load_before=0.5,
        load_after=0.75,
        machine={"cores": 2},
        versions={"x": "1"},
        figures=list(figures),
    )


def test_spread_of_a_hundred_and_one_spans_has_its_median_and_its_quantile() -> None:
    assert harness.spread(list(range(101))) == Spread(0, 50, 99, 100)


def test_middle_of_rounds_is_the_median_number_by_number_and_keeps_the_extremes() -> None:
    found = [Spread(1, 10, 50, 90), Spread(2, 30, 40, 80), Spread(0, 20, 60, 70)]
    assert harness.middle(found) == Spread(0, 20, 50, 90)


def test_rounds_that_warm_up_are_measured_but_do_not_count() -> None:
    spans = iter([9.0, 1.0, 2.0])
    assert harness.rounds(lambda: next(spans), count=2, warm_up=1) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("sense", "value", "is_met"),
    [("<=", 1.0, True), ("<=", 1.1, False), (">=", 1.0, True), (">=", 0.9, False)],
)
def test_bound_is_kept_in_its_own_sense(sense: str, value: float, *, is_met: bool) -> None:
    assert Figure("x", value, "ms", bound=1.0, sense=sense).is_met is is_met


def test_figure_without_a_bound_is_neither_met_nor_missed() -> None:
    assert Figure("x", 1.0, "ms").is_met is None


def test_ratio_above_one_means_better_whichever_way_is_better() -> None:
    assert harness.ratio(Figure("x", 2.0, "ms"), Figure("x", 10.0, "ms", "rival")) == 5.0
    fast = Figure("x", 10.0, "points/s", sense=AT_LEAST)
    assert harness.ratio(fast, Figure("x", 2.0, "points/s", "rival", sense=AT_LEAST)) == 5.0


def test_result_that_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    found = result(Figure("x", 1.5, "ms", bound=2.0, note="ten calls"))
    harness.write(found, tmp_path)
    assert harness.read(tmp_path / "name.json") == found


def test_table_shows_what_is_missed_and_how_far_ahead_of_a_rival() -> None:
    shown = harness.table(
        result(Figure("x", 3.0, "ms", bound=2.0), Figure("x", 6.0, "ms", "rival"))
    )
    ours, rival = shown.splitlines()[2:]
    assert "MISSED" in ours
    assert "2 x as good" in rival
