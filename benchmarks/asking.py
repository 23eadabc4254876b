"""What the benchmarks that ask have in common.

Warm is the same `Lake` object in the same process. Cold is a new Python process, imports
included, with the files in the system's cache.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import runlake
from benchmarks.harness import Figure, rounds, shown_rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runlake import Lake

# What every answer needs, and most of what a short question costs in a new process.
BARE: Final = "import duckdb, polars, pyarrow.compute, pyarrow.parquet"


def warm(lake: Lake, ask: Callable[[Lake], object], *, count: int) -> list[float]:
    """Ask a lake again and again; milliseconds, the first questions left out."""

    def timed() -> float:
        began = time.perf_counter()
        ask(lake)
        return (time.perf_counter() - began) * 1e3

    return rounds(timed, count=count, warm_up=3)


def cold(script: str, *, count: int, python: str = sys.executable) -> list[float]:
    """Run a script in new processes; milliseconds, of several without the first."""

    def timed() -> float:
        began = time.perf_counter()
        subprocess.run([python, "-c", script], check=True, capture_output=True)
        return (time.perf_counter() - began) * 1e3

    return rounds(timed, count=count, warm_up=min(1, count - 1))


def script(folder: Path, call: str) -> str:
    """Return what a user writes to ask one question of a lake in a new process."""
    return f"import runlake\nlake = runlake.open({str(folder)!r}, read_only=True)\n{call}\n"


def opened(folder: Path) -> Lake:
    """Open a lake that nobody writes."""
    return runlake.open(folder, read_only=True, refresh=3600)


def figure(
    what: str, spans: Sequence[float], bound: float | None, *, who: str = "runlake", note: str
) -> Figure:
    """Return the median of spans in milliseconds, and how far they were apart."""
    said = f"{note}; {shown_rounds(spans)}"
    return Figure(what, statistics.median(spans), "ms", who, bound=bound, note=said)
