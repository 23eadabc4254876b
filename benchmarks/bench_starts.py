"""Do very many writers that begin at the same instant on an empty lake all succeed?

Processes are held until all are there, then let go. Every point is read back and counted, and
everything that a process said to its user counts against it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import runlake
from benchmarks.harness import AT_LEAST, ROOT, Figure, scratch

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.harness import Options

_POINTS = 100


class _Outcome(NamedTuple):
    """What became of all processes."""

    failed: int
    spoke: int
    runs: int
    points: int
    seconds: float


def measure(options: Options) -> list[Figure]:
    """Return counts: failures, words to the user, what is missing; and how long it took."""
    figures = []
    for processes, lakes, runs in (
        (options.size(64, quick=4), 1, 5),
        (options.size(16, quick=2), options.size(63, quick=3), 1),
    ):
        writers, all_runs = processes * lakes, processes * lakes * runs
        what = f"{writers:,} writers in {processes} processes, {all_runs:,} runs"
        with scratch() as folder:
            found = _start(folder / "lake", processes, lakes, runs)
        missing = all_runs * _POINTS - found.points
        figures += [
            Figure(f"{what}: processes failed", found.failed, "", bound=0.0),
            Figure(f"{what}: processes that warned", found.spoke, "", bound=0.0),
            Figure(f"{what}: runs missing", all_runs - found.runs, "", bound=0.0),
            Figure(f"{what}: points missing", missing, "", bound=0.0),
            Figure(f"{what}: runs a second", all_runs / found.seconds, "", sense=AT_LEAST),
        ]
    return figures


def _start(lake: Path, processes: int, lakes: int, runs: int) -> _Outcome:
    command = [sys.executable, "-m", "benchmarks.bench_starts", str(lake), str(lakes), str(runs)]
    started = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for _ in range(processes)
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()
    began = time.perf_counter()
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[1] for process in started]
    seconds = time.perf_counter() - began
    failed = sum(process.returncode != 0 for process in started)
    spoke = sum(bool(text.strip()) for text in said)
    for text in [text for text in said if text.strip()][:1]:
        print(text[-2000:], file=sys.stderr)
    with runlake.open(lake, read_only=True) as reader:
        counts = reader.sql(
            'SELECT count(DISTINCT run_id) AS runs, sum("count") AS points FROM metric_summary'
        )
        finished = reader.sql("SELECT count(*) AS n FROM runs WHERE status = 'FINISHED'")["n"][0]
    return _Outcome(failed, spoke, int(finished), int(counts["points"][0]), seconds)


def main() -> None:
    """Write as one of many processes, after a line on standard input."""
    url, lakes, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    opened = [runlake.open(url) for _ in range(lakes)]
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(runs):
        begun = [lake.start_run() for lake in opened]
        for step in range(_POINTS):
            for run in begun:
                run.log_metric("loss", 1.0 / (step + 1), step)
        for run in begun:
            run.finish()
    for lake in opened:
        lake.close()


if __name__ == "__main__":
    main()
