from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import in_terminal

if TYPE_CHECKING:
    from collections.abc import Callable

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
        ("SELECT * FROM read_csv('secret.csv')", "secret.csv"),
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
