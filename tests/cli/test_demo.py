from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import runlake
from runlake.cli import demo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result


def shortened(plan: demo.Training) -> demo.Training:
    """Return a training that takes a moment; one remains long enough to be good."""
    return plan if plan.name == "forest-deep" else replace(plan, epochs=2)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_demo_trains_ranks_and_can_be_run_again(
    ask: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = len(demo.TRAININGS) + 1
    monkeypatch.setattr(demo, "TRAININGS", [*map(shortened, demo.TRAININGS)])
    first = ask("demo")
    header, *rows = first.stdout.splitlines()
    assert header.split() == ["rank", "run", "val/accuracy", "step", "id"]
    assert len(rows) == 10
    assert "runlake ls\n" in first.stderr
    monkeypatch.setattr(demo, "TRAININGS", demo.TRAININGS[:1])
    found = json.loads(ask("demo", "--json").stdout)
    with runlake.open(tmp_path / "lake", read_only=True) as lake:
        frame = lake.search_runs()
        assert frame.height == runs
        assert set(frame["status"]) == {"FINISHED"}
        assert frame["metrics.val/accuracy"].null_count() == 0
        assert lake.sql(found["sql"])["run_id"].to_list() == [
            row["run_id"] for row in found["leaderboard"]
        ]
        best = found["leaderboard"][0]
        points = lake.sql("SELECT max(value) FROM metrics WHERE key = 'val/accuracy'").item()
        assert best["value"] == points
        assert points > 0.95
        writers = lake.sql("SELECT count(DISTINCT writer) FROM metrics").item()
        assert writers == runs
        assert lake.maintain.verify().is_sound


def test_demo_without_scikit_learn_says_what_to_install(
    ask: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    result = ask("demo")
    assert result.exit_code == 7
    assert "pip install 'runlake[demo]'" in result.stderr
    assert not (tmp_path / "lake").exists()


def test_demo_leaves_a_folder_alone_that_holds_other_things(
    ask: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "thesis.tex").touch()
    result = ask("demo")
    assert result.exit_code == 4
    assert "'thesis.tex'" in result.stderr
    assert [file.name for file in (tmp_path / "lake").iterdir()] == ["thesis.tex"]
