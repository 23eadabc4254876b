"""`runlake import` and `runlake export --to`, as people and programs call them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from click.testing import CliRunner

import runlake
from runlake.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

_ROWS = "job,epoch,loss,lr\na,0,0.5,0.1\na,1,0.25,0.1\nb,0.5,1,0.2\n"


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_import_prints_numbers_and_says_what_is_not_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    file.write_text(_ROWS)
    call = ("import", "csv", str(file), "--lake", str(tmp_path / "lake"), "-m", "run=job")
    first = _run(*call, "--map", "params=lr")
    assert first.exit_code == 0, first.output
    shown = dict(line.split(maxsplit=1) for line in first.stdout.splitlines())
    assert (shown["came"], shown["points"]) == ("2", "3")
    assert "not as it was: step was no whole number" in first.stderr
    assert "All is there as it was, but for what is named above." in first.stderr
    again = _run(*call, "--map", "params=lr", "--json")
    about = json.loads(again.stdout)
    assert (about["already"], about["brought"], about["is_sound"]) == (2, 0, True)
    with runlake.open(str(tmp_path / "lake")) as lake:
        rows = lake.sql("SELECT run_name, params['lr'] FROM runs ORDER BY run_name").rows()
        assert rows == [("a", "0.1"), ("b", "0.2")]


def test_import_that_met_a_problem_ends_with_one(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text('{"run": "a", "step": 0, "loss": 1, "status": "ASLEEP"}\n')
    found = _run("import", "jsonl", str(file), "--lake", str(tmp_path / "lake"))
    assert found.exit_code == 1
    assert "problem: run runs/a did not come: the status of a run is one of" in found.stderr


def test_wrong_calls_of_import_and_export_are_told(tmp_path: Path) -> None:
    lake = str(tmp_path / "lake")
    assert _run("import", "csv", str(tmp_path / "none.csv"), "--lake", lake).exit_code == 3
    wrong = _run("import", "csv", "a.csv", "--map", "run")
    assert wrong.exit_code == 2
    assert "--map takes NAME=VALUE, got 'run'." in wrong.stderr
    unknown = _run("import", "mlflow", str(tmp_path), "--lake", lake, "--set", "colour=red")
    assert "no option 'colour'" in unknown.stderr
    assert "needs --uri" in _run("export", "--to", "mlflow", "--lake", lake).stderr
    assert "say where to" in _run("export", "--lake", lake).stderr
    both = _run("export", "--to", "mlflow", "--uri", "sqlite:///x.db", "--what", "runs")
    assert "go with files, not with --to" in both.stderr
