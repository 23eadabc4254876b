"""How long until the first answer over 1,000 runs, in a new process and in a warm one?

The lake is the one that 1,000 short runs of 20 params and 20 metrics leave behind. Cold is a
new Python process, imports included, files in the system's cache.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import runlake
from benchmarks import data
from benchmarks.harness import Figure, rounds, scratch, shown_rounds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.harness import Options

_FILTER = "metrics.\"train/loss_0\" < 1.0 and params.param_1 LIKE 'choice%' and status = 'FINISHED'"
_ORDER = ['metrics."train/loss_0" ASC']
_COLD = {
    "leaderboard": "lake.leaderboard('train/loss_0', goal='min')",
    "search_runs": f"lake.search_runs({_FILTER!r}, order_by={_ORDER!r}, limit=20)",
}


def measure(options: Options) -> list[Figure]:
    """Return milliseconds, cold and warm."""
    count = options.size(1000, quick=10)
    figures = []
    with scratch() as folder:
        url = folder / "lake"
        _fill(url, count)
        for name, call in _COLD.items():
            spans = rounds(_cold(url, call), count=options.size(9, quick=1))
            figures.append(_figure(f"{name}, cold process", spans, 500.0, count))
        with runlake.open(url, read_only=True, refresh=3600) as lake:
            warm: dict[str, Callable[[], object]] = {
                "leaderboard": lambda: lake.leaderboard("train/loss_0", goal="min"),
                "search_runs": lambda: lake.search_runs(_FILTER, order_by=_ORDER, limit=20),
            }
            for name, ask in warm.items():
                spans = rounds(_timed(ask), count=options.size(51, quick=3), warm_up=3)
                bound = 5.0 if name == "search_runs" else None
                figures.append(_figure(f"{name}, warm", spans, bound, count))
    return figures


def _figure(what: str, spans: list[float], bound: float | None, count: int) -> Figure:
    note = f"{count:,} runs; {shown_rounds(spans)}"
    return Figure(what, statistics.median(spans), "ms", bound=bound, note=note)


def _fill(url: Path, count: int) -> None:
    rows = data.rows(20, seed=1)
    with runlake.open(url) as lake:
        for number in range(count):
            with lake.start_run(f"run-{number}") as run:
                run.log_params(data.params(20, seed=number))
                run.log(rows[number % len(rows)])


def _cold(url: Path, call: str) -> Callable[[], float]:
    script = f"import runlake; lake = runlake.open({str(url)!r}, read_only=True); {call}"

    def ask() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        return (time.perf_counter() - began) * 1e3

    return ask


def _timed(ask: Callable[[], object]) -> Callable[[], float]:
    def timed() -> float:
        began = time.perf_counter()
        ask()
        return (time.perf_counter() - began) * 1e3

    return timed
