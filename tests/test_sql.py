"""`Lake.sql` as people call it: values, limits and settings."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

import runlake
from runlake.errors import InvalidInputError, LimitExceededError
from runlake.lake import open_lake
from runlake.storage.localfs import LocalFilesystem
from runlake.testing import open_lake as open_over

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runlake.lake import Lake


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Lake]:
    """A lake with three runs."""
    with open_lake(tmp_path / "lake") as lake:
        for lr in (0.1, 0.2, 0.3):
            with lake.start_run(f"lr-{lr}") as run:
                run.log_params({"lr": lr})
                run.log({"loss": lr})
        yield lake


def test_values_are_bound_by_place_and_by_name(filled: Lake) -> None:
    query = "SELECT run_name FROM runs WHERE params['lr'] IN ({}, {}) ORDER BY ALL"
    wanted = ["lr-0.2", "lr-0.3"]
    assert filled.sql(query.format("?", "?"), ["0.2", "0.3"])["run_name"].to_list() == wanted
    assert filled.sql(query.format("$2", "$1"), ("0.2", "0.3"))["run_name"].to_list() == wanted
    named = {"one": "0.2", "other": "0.3"}
    assert filled.sql(query.format("$one", "$other"), named)["run_name"].to_list() == wanted


def test_lists_and_frames_are_bound_as_lists(filled: Lake) -> None:
    names = filled.search_runs("params.lr = 0.1 or params.lr = 0.3")["run_name"]
    for given in (names, names.to_list(), set(names), np.array(names)):
        found = filled.sql(
            "SELECT count(*) AS n FROM runs WHERE run_name = ANY($names)", {"names": given}
        )
        assert found.item() == 2


def test_text_from_outside_is_a_value_and_never_sql(filled: Lake) -> None:
    hostile = "x' OR 1 = 1; DROP TABLE runs; --"
    assert filled.sql("FROM runs WHERE run_name = $name", {"name": hostile}).height == 0
    assert filled.sql("SELECT ? AS said", [hostile]).item() == hostile


def test_a_query_is_bounded_in_time_and_rows(filled: Lake) -> None:
    with pytest.raises(LimitExceededError, match=r"stopped after 0\.1 s"):
        filled.sql("SELECT count(*) FROM metrics, range(100000000000)", timeout_s=0.1)
    with pytest.raises(LimitExceededError, match="more than 2 rows"):
        filled.sql("FROM runs", max_rows=2)
    assert filled.sql("FROM runs", max_rows=3, timeout_s=60.0).height == 3


@pytest.mark.parametrize("limits", [{"timeout_s": -1.0}, {"max_rows": -1}])
def test_a_limit_below_nothing_is_refused(filled: Lake, limits: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match="0 or more"):
        filled.sql("FROM runs", **limits)  # type: ignore[arg-type] # as a notebook would


def test_memory_and_threads_are_settings(tmp_path: Path) -> None:
    fs = LocalFilesystem(tmp_path / "lake")
    with open_over(fs, query_memory_bytes=64 << 20, query_threads=1) as lake:
        lake.start_run().finish()
        with pytest.raises(LimitExceededError, match="64 MiB"):
            lake.sql("SELECT list(range) FROM range(1000000000)")
        settings = lake.connect().sql(
            "SELECT current_setting('threads'), current_setting('memory_limit')"
        )
        assert settings.fetchall() == [(1, "64.0 MiB")]
        assert lake.sql("FROM runs").height == 1


def test_the_error_is_public_and_says_what_to_do(filled: Lake) -> None:
    with pytest.raises(runlake.LimitExceededError, match=r"export\(\) writes any number"):
        filled.sql("FROM runs", max_rows=0)
    with pytest.raises(runlake.InvalidInputError, match="Did you mean 'metrics'"):
        filled.sql("FROM metric")


@pytest.mark.parametrize(
    "value",
    [
        "md5_number('x')",
        "[INTERVAL 1 day]",
        "MAP {{'x': 1}: 2}",
        "TIMETZ '12:00:00+02'",
        "[{'a': union_value(n := 2)}]",
        "array_value({'size': md5_number('x')})",
    ],
)
def test_a_column_that_no_frame_or_file_holds_is_refused_and_its_text_is_not(
    filled: Lake, tmp_path: Path, value: str
) -> None:
    query = f"SELECT {value} AS v"
    with pytest.raises(InvalidInputError, match=r"column 'v' is of type .* CAST"):
        filled.sql(query)
    for form in ("csv", "parquet"):
        with pytest.raises(InvalidInputError, match=r"column 'v' is of type .* CAST"):
            filled.export(tmp_path / f"out.{form}", what=query)
    assert filled.sql(f"SELECT CAST({value} AS VARCHAR) AS v").schema == {"v": pl.String}


def test_nested_answers_are_given_as_they_are(filled: Lake) -> None:
    query = (
        "SELECT [{'a': MAP {'b': [1.5, NULL]}}] AS v, INTERVAL 1 day AS i, array_value(1, 2) AS a"
    )
    (row,) = filled.sql(query).rows()
    assert row == ([{"a": {"b": [Decimal("1.5"), None]}}], timedelta(days=1), [1, 2])


def test_an_answer_is_a_polars_frame_with_times_in_utc(filled: Lake) -> None:
    found = filled.sql("SELECT start_time, params, duration FROM runs LIMIT 1")
    assert isinstance(found, pl.DataFrame)
    assert found.schema["start_time"] == pl.Datetime("us", "UTC")
