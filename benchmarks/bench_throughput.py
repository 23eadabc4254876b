"""How many points a second reach a finished run in the store, from one process?

Measured from the first call until everything is in the store. The limits: one bare Parquet
file from the same calls, and the same columns written by pyarrow at once.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

import runlake
from benchmarks import data
from benchmarks.harness import AT_LEAST, Figure, run_task, scratch, shown_rounds
from benchmarks.rivals import BARE

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Options

_SLOW = {"mlflow": 2_000, "tensorboardx": 50_000, "wandb": 100_000}


def measure(options: Options) -> list[Figure]:
    """Return points a second."""
    count = options.size(5_000_000, quick=20_000)
    times = options.size(3, quick=1)
    figures = []
    for what, bound, feed in (
        ("by log_metric", 500e3, _one_by_one),
        ("by log of 10", 1e6, _ten_by_ten),
    ):
        rates = [_ours(feed, count) for _ in range(times)]
        note = f"{count:,} points; {shown_rounds(rates)}"
        value = statistics.median(rates)
        figures.append(Figure(what, value, "points/s", bound=bound, sense=AT_LEAST, note=note))
    figures.append(_at_once(count))
    with scratch() as folder:
        for name in (BARE, *options.against):
            size = min(count, _SLOW.get(name, 500_000))
            found = run_task(name, "points", folder / name, options=options, count=size, width=10)
            rate = size / found["seconds"]
            note = f"{size:,} points"
            figures.append(
                Figure("by log of 10", rate, "points/s", name, sense=AT_LEAST, note=note)
            )
    return figures


def _ours(feed: Callable[[runlake.Run, int], None], count: int) -> float:
    with scratch() as folder:
        lake = runlake.open(folder / "lake")
        began = time.perf_counter()
        with lake.start_run() as run:
            feed(run, count)
        lake.close()
        span = time.perf_counter() - began
        with runlake.open(folder / "lake", read_only=True) as reader:
            stored = reader.sql('SELECT sum("count") AS n FROM metric_summary')["n"][0]
        assert stored == count, f"{stored} of {count} points are in the store"
    return count / span


def _one_by_one(run: runlake.Run, count: int) -> None:
    values = data.curve(count, seed=1).tolist()
    for step in range(count):
        run.log_metric("train/loss", values[step], step)


def _ten_by_ten(run: runlake.Run, count: int) -> None:
    # More than a segment holds, so that no repetition compresses.
    rows = data.rows(10, seed=1, count=min(count // 10, 50_000))
    for step in range(count // 10):
        run.log(rows[step % len(rows)], step)


def _at_once(count: int) -> Figure:
    """Write the columns at once, as nobody who logs can."""
    steps = pa.array(range(count), pa.int64())
    table = pa.table({"step": steps, "value": pa.array(data.curve(count, seed=1))})
    with scratch() as folder:
        began = time.perf_counter()
        pq.write_table(table, folder / "points.parquet", compression="zstd")
        rate = count / (time.perf_counter() - began)
    return Figure("by log_metric", rate, "points/s", "pyarrow, at once", sense=AT_LEAST)
