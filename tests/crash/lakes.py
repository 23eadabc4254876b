"""What a lake holds after its writers died, against what they had been told is safe."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tests.crash.victims import COLUMN_ROWS, SWEEP_STEPS, Life

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runlake.lake import Lake
    from tests.crash.victims import Order

_METRICS = """
SELECT run_id, key, count(*) AS rows, count(DISTINCT step) AS steps, min(step) AS lowest,
    max(step) AS highest, bool_and(abs(value) = step) AS is_true
FROM metrics GROUP BY ALL
"""


def kill_processes(order: Order) -> list[Life]:
    """Let processes live and die as ordered; return what each had been told."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.victims", json.dumps(asdict(order))],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lives = [Life(**json.loads(line)) for line in done.stdout.splitlines()]
    assert len(lives) == order.kills, done.stderr
    return lives


class Found:
    """What a lake answers, read once."""

    def __init__(self, lake: Lake) -> None:
        """Ask."""
        self.metrics = _by_key(lake.sql(_METRICS).to_dicts())
        self.summaries = _by_key(lake.sql("SELECT * FROM metric_summary").to_dicts())
        status = lake.sql("SELECT run_id, status FROM runs")
        self.status = dict(status.iter_rows())
        params = lake.sql("SELECT run_id, count(DISTINCT key), count(*) FROM params GROUP BY 1")
        self.params = {run: (keys, rows) for run, keys, rows in params.iter_rows()}

    def check_steps(self, run_id: str, key: str, told: int, *, more: int = 1) -> int:
        """Check that every step told is there once, and at most `more` behind them.

        Returns:
            The number of steps.
        """
        found = self.metrics.get((run_id, key))
        if found is None:
            assert told == 0, f"{run_id} {key}: all of {told} steps are lost"
            return 0
        count: int = found["rows"]
        assert told <= count <= told + more, (run_id, key, told, found)
        assert found["is_true"], (run_id, key, found)
        assert (found["steps"], found["lowest"], found["highest"]) == (count, 0, count - 1)
        summary = self.summaries[run_id, key]
        assert (summary["count"], summary["last_step"]) == (count, count - 1), (run_id, key)
        assert {summary["min_step"], summary["max_step"]} == {0, count - 1}, (run_id, key)
        return count


def _by_key(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["run_id"], row["key"]): row for row in rows}


def check_training(found: Found, life: Life) -> int:
    """Check a life of the deed `train`; returns its steps."""
    total = sum(
        found.check_steps(life.run_id, f"loss/{thread}", told)
        for thread, told in enumerate(life.steps)
    )
    keys, rows = found.params.get(life.run_id, (0, 0))
    assert keys == rows
    assert life.params <= keys <= life.params + 1
    if total or keys:
        assert found.status[life.run_id] == "KILLED"
    return total


def check_columns(found: Found, life: Life) -> int:
    """Check a life of the deed `columns`; returns its steps."""
    return found.check_steps(life.run_id, "loss/0", life.steps[0], more=COLUMN_ROWS)


def check_sweep(found: Found, life: Life) -> int:
    """Check a life of the deed `sweep`; returns its steps."""
    total = 0
    for number in range(life.runs + 1):
        run_id = f"{life.run_id}{number:04d}"
        is_ended = number < life.runs
        # Between two runs the number of steps may still be that of the run before.
        told = SWEEP_STEPS if is_ended else life.steps[0] % SWEEP_STEPS
        total += found.check_steps(run_id, "loss", told, more=SWEEP_STEPS - told)
        if is_ended:
            assert found.status[run_id] == "FINISHED"
        elif told:
            assert found.status[run_id] in {"FINISHED", "KILLED"}
    return total
