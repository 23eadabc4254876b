"""How fast do eight processes write at once, 5 runs x 200 steps x 10 scalars each?

Every process has its libraries loaded and its tracker opened before all are let go together;
measured until the last has everything in the store. A second figure counts the start of the
processes and their imports too.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import TYPE_CHECKING

import runlake
from benchmarks.harness import (
    AT_LEAST,
    ROOT,
    Figure,
    scratch,
    shown_name,
    shown_rounds,
    task_command,
)
from benchmarks.rivals import BARE, OURS

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.harness import Options

WIDTH = 10
_STEPS = {"mlflow": 20}


def measure(options: Options) -> list[Figure]:
    """Return points a second, all processes together."""
    figures = []
    for name in (OURS, BARE, *options.against):
        writers, runs = options.size(8, quick=2), options.size(5, quick=1)
        steps = options.size(_STEPS.get(name, 200), quick=5)
        rates: list[float] = []
        whole: list[float] = []
        failed = 0
        for _ in range(options.size(5 if name in {OURS, BARE} else 2, quick=1)):
            with scratch() as folder:
                commands = [
                    task_command(
                        name, "one_writer", folder / "lake", options=options,
                        runs=runs, steps=steps, width=WIDTH, writer=number,
                    )
                    for number in range(writers)
                ]  # fmt: skip
                warm, cold, dead = _race(commands)
                failed = max(failed, dead)
                points = (writers - dead) * runs * steps * WIDTH
                rates.append(points / warm)
                whole.append(points / cold)
                if name == OURS:
                    _check(folder / "lake" / "lake", points)
        who = shown_name(name)
        note = f"{writers} processes; {shown_rounds(rates)}"
        note += f"; {failed} processes crashed" if failed else ""
        bound = 100e3 if name == OURS else None
        for what, values, limit in (("let go together", rates, bound), ("cold", whole, None)):
            value = statistics.median(values)
            figures.append(Figure(what, value, "points/s", who, limit, AT_LEAST, note))
    return figures


def _race(commands: list[list[str]]) -> tuple[float, float, int]:
    """Start all, let them go when all are ready; returns seconds warm and cold, and crashes."""
    began = time.perf_counter()
    started = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )
        for command in commands
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None
        while process.stdout.readline() not in {"ready\n", ""}:
            pass
    opened = time.perf_counter()
    dead = 0
    for process in started:
        assert process.stdin is not None
        if process.poll() is None:
            process.stdin.write("go\n")
            process.stdin.flush()
    for process in started:
        process.communicate()
        dead += process.returncode != 0
    ended = time.perf_counter()
    return ended - opened, ended - began, dead


def _check(lake: Path, points: int) -> None:
    with runlake.open(lake, read_only=True) as reader:
        stored = reader.sql('SELECT sum("count") AS n FROM metric_summary')["n"][0]
    assert stored == points, f"{stored} of {points} points are in the store"
