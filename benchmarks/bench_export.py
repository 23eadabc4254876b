"""How fast do all points leave the lake, and in how much memory?

A whole-lake export streams: ten times the rows must not take more memory. Beside it what bare
DuckDB takes to copy the same rows from the same files, without a thought about which of them
count.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet as pq

from benchmarks import asking, lakes
from benchmarks.harness import (
    AT_LEAST,
    ROOT,
    Figure,
    folder_bytes,
    forget_peak,
    rss_bytes,
    scratch,
)

if TYPE_CHECKING:
    from benchmarks.harness import Options
    from benchmarks.lakes import Made

_KINDS = {"points1m": ("parquet", "csv", "jsonl"), "points10m": ("parquet",)}
_MEMORY_MIB = 256.0
_BARE = """
    COPY (
        SELECT run_id, key, step, timestamp, num FROM read_parquet(?) WHERE kind = 'metric'
    ) TO '{}' (FORMAT parquet, COMPRESSION zstd)
"""


def measure(options: Options) -> list[Figure]:
    """Return rows a second, and MiB above what the process had before."""
    figures = []
    wanted = _KINDS | {"points100m": ("parquet",)}
    for name, kinds in ({"points100k": ("parquet", "csv")} if options.quick else wanted).items():
        made = lakes.made(name, options.lakes)
        for kind in kinds:
            figures += _exported(made, kind)
        figures.append(_bare(made))
    return figures


def _what(rows: int, kind: str) -> str:
    return f"all points to {kind}, {rows:,} points"


def _points(made: Made) -> int:
    """Return how many points a lake holds."""
    sweep = made.shape.sweep
    return sweep.metrics * (sweep.runs * sweep.points + made.shape.long_points)


def _exported(made: Made, kind: str) -> list[Figure]:
    """Export in a process of its own, and count what came out."""
    rows = _points(made)
    with scratch() as folder:
        target = folder / f"points.{kind}"
        command = [sys.executable, "-m", "benchmarks.bench_export", str(made.folder), str(target)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        seconds, peak = map(float, run.stdout.split()[-2:])
        assert _rows_of(target) == rows
        size = folder_bytes(folder)
    what = _what(rows, kind)
    note = f"{size / rows:.1f} bytes a row"
    return [
        Figure(what, rows / seconds, "rows/s", sense=AT_LEAST, note=note),
        Figure(f"{what}, memory", peak, "MiB", bound=_MEMORY_MIB, note="above the opened lake"),
    ]


def _rows_of(target: Path) -> int:
    """Count the rows of an exported file."""
    if target.suffix == ".parquet":
        return pq.read_metadata(target).num_rows
    with target.open("rb") as file:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    return lines - (target.suffix == ".csv")


def _bare(made: Made) -> Figure:
    """Let DuckDB copy the points out of all files."""
    rows = _points(made)
    files = [str(file) for file in made.folder.glob("log/experiment_id=[!_]*/*.parquet")]
    with scratch() as folder:
        target = folder / "points.parquet"
        began = time.perf_counter()
        duckdb.execute(_BARE.format(target), [files])
        seconds = time.perf_counter() - began
        assert _rows_of(target) == rows
    what = _what(rows, "parquet")
    return Figure(what, rows / seconds, "rows/s", "DuckDB", sense=AT_LEAST, note="bare COPY")


def main() -> None:
    """Export all points in this process; prints seconds, and the peak in MiB above the start."""
    lake, target = map(Path, sys.argv[1:])
    with asking.opened(lake) as opened:
        opened.sql("SELECT count(*) FROM runs")
        first = rss_bytes()
        forget_peak()
        began = time.perf_counter()
        opened.export(target, what="metrics")
        seconds = time.perf_counter() - began
        print(seconds, (rss_bytes(peak=True) - first) / 2**20)


if __name__ == "__main__":
    main()
