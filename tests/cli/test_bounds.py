"""`runlake sql` ends in time and within its memory, whatever it is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runlake.cli import EXIT_CODES

if TYPE_CHECKING:
    from tests.cli.conftest import Filled

# What DuckDB cannot stop midway: each is one call of one function.
ENDLESS = [
    "SELECT levenshtein(repeat('a', 3000000), repeat('b', 3000000))",
    "SELECT max(damerau_levenshtein(repeat('a', 2000) || i, 'b')) FROM range(900000) AS t(i)",
]
HUGE = [
    "SELECT repeat('x', 1000000000)",
    "SELECT len(range(1000000000))",
    "SELECT repeat('x', 100000000) FROM range(200)",
]


def ask(filled: Filled, query: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command as its own process, with little memory."""
    return subprocess.run(
        [sys.executable, "-m", "runlake", "sql", query, "--lake", filled.url, *options],
        env=os.environ | {"RUNLAKE_QUERY_MEMORY_BYTES": str(256 << 20)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("query", ENDLESS)
def test_a_query_that_cannot_be_stopped_ends_with_its_process(filled: Filled, query: str) -> None:
    done = ask(filled, query, "--timeout", "0.5")
    assert (done.returncode, done.stdout) == (EXIT_CODES["limit-exceeded"], "")
    assert done.stderr.startswith("error: the query was stopped after 0.5 s")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds what a process may add")
@pytest.mark.parametrize("query", HUGE)
def test_a_query_that_needs_too_much_memory_is_refused_in_one_line(
    filled: Filled, query: str
) -> None:
    done = ask(filled, query)
    assert (done.returncode, done.stdout) == (EXIT_CODES["limit-exceeded"], "")
    assert done.stderr.startswith("error: the query needs more memory than the 256 MiB")
    assert done.stderr.count("\n") == 1


def test_a_query_within_its_bounds_is_answered(filled: Filled) -> None:
    done = ask(filled, "SELECT count(*) AS n FROM metrics", "--timeout", "60", "--csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "n"


def test_a_query_that_can_be_stopped_says_so_itself(filled: Filled) -> None:
    done = ask(filled, "SELECT count(*) FROM range(100000000000)", "--timeout", "0.5")
    assert (done.returncode, done.stdout) == (EXIT_CODES["limit-exceeded"], "")
    assert "or ask for more time" in done.stderr
