from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl
import pytest

import runlake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VALUES = [0.5, math.nan, -math.inf, 0.25, math.nan, -0.0, 1e300]
# What is asked of a value, and how many of `VALUES` it is true of: in SQL a NaN equals itself
# and is greater than every number.
ASKED = {
    "isnan(value)": 2,
    "NOT isfinite(value)": 3,
    "value = 'NaN'": 2,
    "value IN ('NaN', 7)": 2,
    "value > 1e301": 2,
    "value >= 0.5": 4,
    "NOT value < 1e301": 2,
    "value BETWEEN 1e301 AND 'NaN'": 2,
    "abs(value) > 1e301": 3,
    "greatest(value, 0) > 1e301": 2,
    "value < 0.5": 3,
}


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[runlake.Lake]:
    with runlake.open(tmp_path / "lake") as opened:
        with opened.start_run() as run:
            for value in VALUES:
                run.log({"loss": value, "other": 1.0})
        yield opened


@pytest.mark.parametrize(("condition", "count"), ASKED.items(), ids=ASKED)
def test_condition_on_points_finds_those_that_are_not_a_number(
    lake: runlake.Lake, condition: str, count: int
) -> None:
    found = lake.sql(f"SELECT value FROM metrics WHERE key = 'loss' AND {condition}")
    assert found.height == count


def test_greatest_point_of_all_is_the_one_that_is_not_a_number(lake: runlake.Lake) -> None:
    assert math.isnan(lake.sql("SELECT max(value) FROM metrics").item())
    assert lake.sql("SELECT min(value) FROM metrics").item() == -math.inf


def test_points_come_back_as_they_were_logged(lake: runlake.Lake) -> None:
    found = lake.sql("SELECT value FROM metrics WHERE key = 'loss' ORDER BY step")["value"]
    assert list(map(repr, found)) == list(map(repr, VALUES))


def test_lazy_frame_finds_points_that_are_not_a_number(lake: runlake.Lake) -> None:
    found = lake.scan("metrics").filter(pl.col("value").is_nan()).collect()
    assert found["key"].to_list() == ["loss", "loss"]
