from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import runlake
from tests.cli.conftest import in_terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from tests.cli.conftest import Filled

FIELDS = ["run_id", "run_name", "key", "x", "step", "timestamp", "value"]


def shown_in(filled: Filled, *arguments: str, columns: int = 80) -> list[str]:
    """Return the lines that a terminal shows, without colours."""
    code, shown = in_terminal("history", "--lake", filled.url, *arguments, columns=columns)
    assert code == 0, shown
    return re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()


def test_history_in_a_pipe_is_every_point(ask: Callable[..., Result], filled: Filled) -> None:
    result = ask("history", "beta", "loss", "--lake", filled.url)
    header, *rows = [line.split() for line in result.stdout.splitlines()]
    assert header == FIELDS
    assert [(row[0], row[3], row[-1]) for row in rows] == [
        (filled.ids["beta"], step, value)
        for step, value in (("0", "1.0"), ("1", "0.5"), ("2", "1.0"))
    ]


def test_history_as_json_tells_nan_and_infinity(ask_json: Callable[..., Any]) -> None:
    rows = ask_json("history", "nan", "loss")
    assert [list(row) for row in rows] == [FIELDS, FIELDS]
    assert [row["value"] for row in rows] == ["NaN", "Infinity"]


def test_history_as_csv_is_one_row_for_each_point(
    ask: Callable[..., Result], filled: Filled
) -> None:
    result = ask("history", "nan", "loss", "--csv", "--lake", filled.url)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["value"] for row in rows] == ["NaN", "inf"]
    assert [row["x"] for row in rows] == ["0", "1"]


def test_history_without_a_run_is_of_all_and_a_pattern_is_a_metric(
    ask_json: Callable[..., Any],
) -> None:
    assert {row["run_name"] for row in ask_json("history", "lo*")} == {
        "alpha",
        "beta",
        "gamma",
        "nan",
    }


def test_history_of_what_fits_a_filter(ask_json: Callable[..., Any]) -> None:
    rows = ask_json("history", "loss", "-f", "metrics.loss < 2", "-e", "digits")
    assert {row["run_name"] for row in rows} == {"alpha", "beta"}
    rows = ask_json("history", "beta", "nan", "loss", "-e", "odd")
    assert {row["run_name"] for row in rows} == {"nan"}


def test_history_along_other_axes(ask_json: Callable[..., Any]) -> None:
    assert [row["x"] for row in ask_json("history", "beta", "loss", "--start", "1")] == [1, 2]
    by_time = ask_json("history", "beta", "loss", "-x", "time")
    assert [row["x"] for row in by_time] == [row["timestamp"] for row in by_time]
    until = by_time[1]["timestamp"]
    assert len(ask_json("history", "beta", "loss", "-x", "time", "--stop", until)) == 2
    assert all(row["x"] >= 0 for row in ask_json("history", "beta", "loss", "-x", "relative"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["beta"], "name a metric too; 'beta' has loss"),
        (["beta", "loss", "--start", "x"], "'x' is not a whole number"),
        (["beta", "loss", "-x", "time", "--stop", "noon"], "'noon' is not a time like"),
        (["beta", "loss", "-x", "relative", "--stop", "x"], "'x' is not a number"),
        (["beta", "loss", "--max-points", "3"], "--max-points"),
    ],
)
def test_history_that_makes_no_sense_is_explained(
    ask: Callable[..., Result], filled: Filled, arguments: list[str], said: str
) -> None:
    result = ask("history", *arguments, "--lake", filled.url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_history_of_an_unknown_run_or_axis_names_the_nearest(
    ask: Callable[..., Result], filled: Filled
) -> None:
    for arguments in (["alhpa", "loss"], ["alpha", "loss", "-x", "losss"]):
        result = ask("history", *arguments, "--lake", filled.url)
        assert result.exit_code == 3
        assert "Did you mean" in result.stderr


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_history_in_a_terminal_is_a_plot_that_fits_it(filled: Filled, columns: int) -> None:
    lines = shown_in(filled, "alpha", "beta", "loss", columns=columns)
    assert lines[0] == "loss over step"
    assert max(map(len, lines)) <= columns
    axis = next(number for number, line in enumerate(lines) if "└" in line)
    assert re.findall(r"\S+", lines[axis + 1])[0] == "0"
    assert sum(0x2800 < ord(char) < 0x2900 for line in lines[1:axis] for char in line) > 20
    assert [line.split("  ")[0] for line in lines[axis + 2 :]] == ["⠒⠒ alpha", "⠒⠒ beta"]
    assert "last 1 at step 2, min 0.5, max 1" in lines[-1]


def test_history_in_a_terminal_without_colours_draws_letters(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    code, shown = in_terminal("history", "--lake", filled.url, "alpha", "beta", "loss")
    assert code == 0
    assert "\x1b" not in shown
    assert re.search(r"^.*┤ *a+", shown, re.MULTILINE)
    assert "\na alpha  last" in shown


def test_history_in_a_terminal_thins_to_what_a_plot_can_show(tmp_path: Path) -> None:
    url = str(tmp_path / "lake")
    with runlake.open(url) as lake, lake.start_run("long") as run:
        values = [0.0] * 100_000
        values[70_000] = 5.0
        run.log_history(pl.DataFrame({"step": range(100_000), "loss": values}))
    code, shown = in_terminal("history", "--lake", url, "long", "loss")
    assert code == 0
    assert "max 5" in shown
    top = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()[1]
    assert any(0x2800 < ord(char) < 0x2900 for char in top)


def test_history_of_more_curves_than_a_plot_shows_says_so(tmp_path: Path) -> None:
    url = str(tmp_path / "lake")
    with runlake.open(url) as lake, lake.start_run("many") as run:
        run.log({f"m{number:02}": 1.0 for number in range(15)})
    code, shown = in_terminal("history", "--lake", url, "many", "m*")
    assert code == 0
    assert "These are the first 12 of 15 curves." in shown
