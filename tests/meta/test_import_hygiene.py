"""Importing runlake costs next to nothing, and a run that logs loads no query engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conftest import keep_bytecode
from tests.meta.tree import run_python

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HEAVY = {"duckdb", "fsspec", "numpy", "pandas", "polars", "pyarrow"}


def loaded_after(script: str, folder: Path) -> set[str]:
    """Return the modules that a new process has loaded at the end of a script."""
    program = f"{script}\nimport sys\nprint('loaded:', *sys.modules)"
    return set(run_python("-c", program, folder=folder).rpartition("loaded:")[2].split())


def test_importing_runlake_loads_no_module_of_its_own_but_the_version(tmp_path: Path) -> None:
    loaded = loaded_after("import runlake; runlake.__version__; dir(runlake)", tmp_path)
    assert {name for name in loaded if name.partition(".")[0] == "runlake"} == {
        "runlake",
        "runlake._version",
    }


def test_importing_runlake_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_after("import runlake", tmp_path) & (HEAVY | {"importlib.metadata"}) == set()


def test_loading_every_public_name_loads_nothing_heavy(tmp_path: Path) -> None:
    script = "import runlake\nfor name in runlake.__all__: getattr(runlake, name)"
    assert loaded_after(script, tmp_path) & HEAVY == set()


def test_loading_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_after("import runlake.cli", tmp_path) & HEAVY == set()


def test_starting_a_run_loads_no_query_engine(tmp_path: Path) -> None:
    script = "import runlake\nrun = runlake.start_run()\nrunlake.log_metric('loss', 1.0)"
    assert loaded_after(script, tmp_path) & {"duckdb", "pandas", "polars"} == set()


def test_asking_a_compacted_lake_loads_no_pandas(tmp_path: Path) -> None:
    made = """
import runlake
with runlake.start_run():
    runlake.log_param("lr", 0.1)
    runlake.log_metric("loss", 0.5)
lake = runlake.open()
lake.maintain.compact()
"""
    run_python("-c", made, folder=tmp_path)
    asked = """
import runlake
lake = runlake.open(read_only=True)
assert lake.leaderboard("loss").height == 1
assert lake.search_runs("params.lr > 0.05", order_by=["metrics.loss"]).height == 1
"""
    assert loaded_after(asked, tmp_path) & {"pandas", "pyarrow.dataset"} == set()


def test_asking_which_runs_are_best_loads_no_pandas(tmp_path: Path) -> None:
    script = """
import runlake
for lr in (0.1, 0.2):
    with runlake.start_run():
        runlake.log_param("lr", lr)
        runlake.log_metric("loss", lr)
lake = runlake.open()
assert lake.leaderboard("loss").height == 2
assert lake.search_runs("params.lr > 0.1", order_by=["metrics.loss"]).height == 1
"""
    assert loaded_after(script, tmp_path) & {"pandas", "pyarrow.dataset"} == set()


def test_processes_that_tests_start_keep_what_they_compile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    keep_bytecode()
    shown = run_python("-c", "import sys; print(sys.dont_write_bytecode)", folder=tmp_path)
    assert shown == "False\n"
