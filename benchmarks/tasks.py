"""The same work for any tracker, in a process of its own: `python -m benchmarks.tasks`.

Called with the name of a tracker, of a task, a folder and the task's sizes as JSON; the last
line printed is the result as JSON. Runs under the rivals' interpreter too, so it imports
nothing of runlake.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks import data
from benchmarks.rivals import Askable, tracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.rivals import Tracker

# What is searched, in words that MLflow has too.
FILTER: Final = (
    "metrics.\"train/loss_0\" < 0.1 and params.param_0 != 'choice-3' "
    "and attributes.status = 'FINISHED'"
)
ORDER: Final = ('metrics."train/loss_0" ASC',)
LIMIT: Final = 20

_now_ns: Final = time.perf_counter_ns


def calls(subject: Tracker, *, count: int, width: int) -> dict[str, float]:
    """Time each call that logs `width` scalars: us, p50 and p99."""
    rows = data.rows(width, seed=1)
    subject.start("calls")
    for step in range(100):
        subject.log(rows[step], step)
    spans = np.zeros(count, np.int64)
    for number in range(count):
        row = rows[number % len(rows)]
        began = _now_ns()
        subject.log(row, 100 + number)
        spans[number] = _now_ns() - began
    subject.finish()
    subject.close()
    return {
        "p50": float(np.quantile(spans, 0.5)) / 1e3,
        "p99": float(np.quantile(spans, 0.99)) / 1e3,
    }


def points(subject: Tracker, *, count: int, width: int) -> dict[str, float]:
    """Log `count` points, `width` a call, until the finished run is in the store."""
    # None comes twice where size is measured: repeated rows would compress too well.
    rows = data.rows(width, seed=2, count=min(count // width, 20_000))
    began = _now_ns()
    subject.start("points")
    for step in range(count // width):
        subject.log(rows[step % len(rows)], step)
    subject.finish()
    subject.close()
    return {"seconds": (_now_ns() - began) / 1e9}


def short_runs(subject: Tracker, *, runs: int, width: int) -> dict[str, float]:
    """Log many short runs until all are in the store."""
    rows, params = data.rows(width, seed=3), data.params(width, seed=3)
    began = _now_ns()
    for number in range(runs):
        subject.start(f"run-{number}")
        subject.params(params)
        subject.log(rows[number % len(rows)], 0)
        subject.finish()
    subject.close()
    return {"seconds": (_now_ns() - began) / 1e9}


def one_writer(
    subject: Tracker, *, runs: int, steps: int, width: int, writer: int
) -> dict[str, float]:
    """Wait for a line on standard input, then log some runs, as one of many processes."""
    rows = data.rows(width, seed=4)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    for number in range(runs):
        subject.start(f"writer-{writer}-run-{number}")
        for step in range(steps):
            subject.log(rows[step % len(rows)], step)
        subject.finish()
    subject.close()
    return {"points": float(runs * steps * width)}


def fill(subject: Tracker, *, runs: int, metrics: int, points: int) -> dict[str, float]:
    """Bring many runs in."""
    assert isinstance(subject, Askable)
    began = _now_ns()
    subject.fill(data.Sweep(runs=runs, metrics=metrics, points=points))
    return {"seconds": (_now_ns() - began) / 1e9}


def search(subject: Tracker, *, rounds: int) -> dict[str, float]:
    """Search again and again: ms, p50; and a number that stands for the runs found."""
    assert isinstance(subject, Askable)
    found, spans = [""], []
    for _ in range(rounds + 1):
        began = _now_ns()
        found = subject.search(FILTER, ORDER, LIMIT)
        spans.append((_now_ns() - began) / 1e6)
    return {"p50": statistics.median(spans[1:]), "found": fingerprint(found)}


def history(subject: Tracker, *, rounds: int) -> dict[str, float]:
    """Read one curve again and again: ms, p50."""
    assert isinstance(subject, Askable)
    count, spans = 0, []
    for _ in range(rounds + 1):
        began = _now_ns()
        count = subject.history(data.keys(1)[0])
        spans.append((_now_ns() - began) / 1e6)
    return {"p50": statistics.median(spans[1:]), "points": float(count)}


def fingerprint(names: list[str]) -> float:
    """Return a number that stands for the runs `run-<n>` in this order."""
    return float(sum(place * int(name.rpartition("-")[2]) for place, name in enumerate(names, 1)))


TASKS: Final[dict[str, Callable[..., dict[str, float]]]] = {
    task.__name__: task for task in (calls, points, short_runs, one_writer, fill, search, history)
}


def main() -> None:
    """Do one task and print its result."""
    name, task, folder, sizes = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    result = TASKS[task](tracker(name, Path(folder)), **json.loads(sizes))
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
