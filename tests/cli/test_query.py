from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import runlake
from tests.cli.conftest import in_terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from tests.cli.conftest import Filled

NAMES = "SELECT run_name FROM runs ORDER BY run_name"


def test_sql_prints_aligned_text_in_a_pipe(ask: Callable[..., Result], filled: Filled) -> None:
    query = "SELECT run_name, metrics['loss'] AS loss FROM runs WHERE run_name < 'c' ORDER BY 1"
    result = ask("sql", query, "--lake", filled.url)
    assert result.stdout == "run_name  loss\nalpha      0.0\nbeta       1.0\n"
    assert result.stderr == ""


def test_sql_reads_the_query_from_standard_input(
    ask: Callable[..., Result], filled: Filled
) -> None:
    result = ask("sql", "-", "--lake", filled.url, input=NAMES)
    assert result.stdout.split() == ["run_name", "alpha", "beta", "gamma", "gone", "nan"]


def test_sql_as_json_has_a_form_for_every_type(ask_json: Callable[..., Any]) -> None:
    query = """
        SELECT 1 AS whole, sum(2) AS huge, 1.5::DECIMAL(9, 2) AS cents, true AS yes, NULL AS none,
            'NaN'::DOUBLE AS nan, '-inf'::DOUBLE AS low, 'inf'::FLOAT AS high,
            TIMESTAMPTZ '2026-01-02 03:04:05.6+01' AS moment, DATE '2026-01-02' AS day,
            'ab'::BLOB AS bytes, [1, NULL] AS list, {'a': 'inf'::DOUBLE} AS struct,
            MAP {'k': 'v'} AS map, INTERVAL '1 day 2.5 seconds' AS span
    """
    assert ask_json("sql", query) == [
        {
            "whole": 1,
            "huge": 2,
            "cents": 1.5,
            "yes": True,
            "none": None,
            "nan": "NaN",
            "low": "-Infinity",
            "high": "Infinity",
            "moment": "2026-01-02T02:04:05.600000Z",
            "day": "2026-01-02",
            "bytes": "6162",
            "list": [1, None],
            "struct": {"a": "Infinity"},
            "map": {"k": "v"},
            "span": 86402.5,
        }
    ]


def test_sql_without_rows_prints_the_heading_or_an_empty_list(
    ask: Callable[..., Result], ask_json: Callable[..., Any], filled: Filled
) -> None:
    query = "SELECT run_id, status FROM runs WHERE false"
    assert ask("sql", query, "--lake", filled.url).stdout == "run_id  status\n"
    assert ask_json("sql", query) == []


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM rnus", "The views are experiments, runs"),
        ("DELETE FROM runs", "runs one statement that reads"),
        ("SELECT 1; SELECT 2", "2 statements"),
        ("SELECT * FROM read_csv('secret.csv')", "read_csv"),
        ("", "statement"),
    ],
)
def test_sql_refuses_what_is_wrong_or_does_more_than_read(
    ask: Callable[..., Result], filled: Filled, query: str, said: str
) -> None:
    result = ask("sql", query, "--lake", filled.url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert said in result.stderr


def test_sql_too_wide_for_the_terminal_shows_one_column_below_the_other(filled: Filled) -> None:
    query = "SELECT * FROM runs WHERE run_name = 'alpha'"
    code, shown = in_terminal("sql", query, "--lake", filled.url)
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert code == 0
    assert lines[0] == "-- 1 --"
    assert f"run_id           {filled.ids['alpha']}" in lines
    assert lines[-1] == "1 row"


def test_sql_as_csv_tells_null_from_empty(ask: Callable[..., Result], filled: Filled) -> None:
    query = "SELECT 'a,\"b\"' AS a, NULL AS n, '' AS e, 'nan'::DOUBLE AS x, [1] AS l"
    result = ask("sql", query, "--csv", "--lake", filled.url)
    assert result.stdout == 'a,n,e,x,l\n"a,""b""",,"",NaN,[1]\n'


def test_sql_of_more_rows_than_its_limit_is_refused(
    ask: Callable[..., Result], filled: Filled
) -> None:
    query = "SELECT * FROM range(10)"
    result = ask("sql", query, "--limit", "9", "--lake", filled.url)
    assert (result.exit_code, result.stdout) == (8, "")
    assert "more than 9 rows" in result.stderr
    for limit in ("10", "0"):
        assert ask("sql", query, "--limit", limit, "--lake", filled.url).exit_code == 0


def test_sql_that_takes_too_long_is_stopped(ask: Callable[..., Result], filled: Filled) -> None:
    query = "SELECT sum(a.range % b.range) FROM range(1, 9999999) a, range(1, 9999999) b"
    result = ask("sql", query, "--timeout", "0.2", "--lake", filled.url)
    assert (result.exit_code, result.stdout) == (8, "")
    assert "stopped after 0.2 s" in result.stderr


def test_sql_in_a_terminal_shows_the_first_rows_of_many(filled: Filled) -> None:
    code, shown = in_terminal("sql", "FROM range(1000000000)", "--lake", filled.url)
    assert code == 0
    lines = shown.splitlines()
    assert len(lines) == 202
    assert lines[-1] == "These are the first 200 rows; a pipe gets more, `export` all."


def test_sql_with_a_name_twice_numbers_the_second(ask_json: Callable[..., Any]) -> None:
    assert ask_json("sql", "SELECT 1 AS a, 2 AS a") == [{"a": 1, "a_1": 2}]


STOPPED = """
import os, signal, sys
import click
from runlake.cli import main

@main.command("stop")
def stop() -> None:
    os.kill(os.getpid(), signal.SIGINT)

main(["stop"])
"""


def test_a_command_that_is_interrupted_says_so() -> None:
    command = [sys.executable, "-c", STOPPED]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (130, "")
    assert finished.stderr.strip() == "stopped."


def test_best_ranks_and_says_who_is_left_out(ask: Callable[..., Result], filled: Filled) -> None:
    with runlake.open(filled.url) as lake, lake.start_run("empty"):
        pass
    result = ask("best", "loss", "--goal", "min", "--lake", filled.url)
    header, *rows = [line.split() for line in result.stdout.splitlines()]
    assert header == ["rank", "id", "run", "experiment", "loss", "step", "status"]
    assert [(row[0], row[2], row[4]) for row in rows] == [
        ("1", "alpha", "0.0"),
        ("2", "beta", "0.5"),
        ("2", "gamma", "0.5"),
        ("4", "nan", "inf"),
    ]
    assert result.stderr == "1 run without 'loss' is left out.\n"


def test_best_as_json_is_the_leaderboard(ask_json: Callable[..., Any]) -> None:
    found = ask_json("best", "loss", "--value", "last", "-e", "digits", "-n", "2")
    assert [(row["rank"], row["run_name"], row["value"]) for row in found] == [
        (1, "gamma", 2.0),
        (2, "beta", 1.0),
    ]
    at = ask_json("best", "loss", "--step", "1", "-f", "attributes.run_name != 'nan'")
    assert {row["value"] for row in at} == {0.5}
    assert {row["step"] for row in at} == {1}


def test_best_of_each_group(ask_json: Callable[..., Any]) -> None:
    found = ask_json("best", "loss", "--by", "experiment_name", "--value", "last", "-n", "0")
    digits = next(row for row in found if row["experiment_name"] == "digits")
    assert (digits["n"], digits["mean"], digits["run_name"]) == (3, 1.0, "gamma")


def test_best_of_an_unknown_metric_names_the_nearest(
    ask: Callable[..., Result], filled: Filled
) -> None:
    result = ask("best", "los", "--lake", filled.url)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "Did you mean 'loss'" in result.stderr


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_best_in_a_terminal_fits_it(filled: Filled, columns: int) -> None:
    code, shown = in_terminal("best", "loss", "--lake", filled.url, columns=columns)
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert code == 0
    assert max(map(len, lines)) <= columns
    assert lines[0].split()[:4] == ["rank", "run", "loss", "id"]
    assert lines[1].split()[:2] == ["1", "nan"]


def test_export_writes_files_and_names_them(
    ask: Callable[..., Result], filled: Filled, tmp_path: Path
) -> None:
    target = tmp_path / "out.csv"
    result = ask("export", str(target), "--what", "SELECT 1 AS a", "--lake", filled.url)
    assert (result.exit_code, result.stdout) == (0, f"{target}\n")
    assert result.stderr == "wrote 1 row, 4 B, in 1 file.\n"
    assert target.read_text() == "a\n1\n"


def test_export_to_standard_output_is_the_table_alone(
    ask: Callable[..., Result], filled: Filled
) -> None:
    options = ["-w", "SELECT 1 AS a", "--lake", filled.url]
    assert ask("export", "-", *options).stdout == "a\n1\n"
    assert ask("export", "-", *options, "--format", "jsonl").stdout == '{"a":1}\n'
    refused = ask("export", "-", *options, "--json")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert ask("export", "-", "--lake", filled.url).exit_code == 2


def test_export_of_one_run_found_by_its_name(
    ask_json: Callable[..., Any], filled: Filled, tmp_path: Path
) -> None:
    found = ask_json("export", str(tmp_path / "out"), "--run", "alpha")
    assert list(found) == ["paths", "row_count", "size_bytes"]
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["run_id"] == filled.ids["alpha"]
    assert (tmp_path / "out" / "artifacts" / "notes" / "hello.txt").read_text() == "hello"
    bare = ask_json("export", str(tmp_path / "bare"), "--run", "alpha", "--no-artifacts")
    assert len(bare["paths"]) == 3


def test_export_into_a_folder_that_holds_something_is_refused(
    ask: Callable[..., Result], filled: Filled, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    result = ask("export", str(tmp_path / "out"), "--lake", filled.url)
    assert (result.exit_code, result.stdout) == (4, "")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["thesis.tex"]
