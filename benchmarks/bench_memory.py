"""How much memory does logging 10 million points take above the process after its first flush?

Peak resident memory, journal pages included, however fast the points come.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import runlake
from benchmarks import data
from benchmarks.harness import ROOT, Figure, forget_peak, rss_bytes, scratch

if TYPE_CHECKING:
    from benchmarks.harness import Options

_WAYS = {"log_metric": 1, "log of 10": 10}


def measure(options: Options) -> list[Figure]:
    """Return MiB above the first flush, each way in a process of its own."""
    count = options.size(10_000_000, quick=50_000)
    figures = []
    for way, width in _WAYS.items():
        command = [sys.executable, "-m", "benchmarks.bench_memory", str(width), str(count)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        first, above = map(float, run.stdout.split()[-2:])
        note = f"{count:,} points; after the first flush {first:.0f} MiB"
        figures.append(Figure(f"by {way}", above, "MiB", bound=64.0, note=note))
    return figures


def main() -> None:
    """Log in this process; prints MiB after the first flush, and the peak above that."""
    width, count = int(sys.argv[1]), int(sys.argv[2])
    rows = data.rows(width, seed=1)
    (key,) = rows[0] if width == 1 else ("",)
    with scratch() as folder, runlake.open(folder / "lake") as lake, lake.start_run() as run:
        run.log(rows[0])
        run.flush()
        first = rss_bytes()
        forget_peak()
        for step in range(count // width):
            if width == 1:
                run.log_metric(key, rows[step % 1000][key], step)
            else:
                run.log(rows[step % 1000], step)
        run.finish()
        lake.close()
        above = rss_bytes(peak=True) - first
    print(first / 2**20, above / 2**20)


if __name__ == "__main__":
    main()
