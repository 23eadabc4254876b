"""How many bytes does a point take in the store, fresh from the writer?

Everything in the lake counts, footers and all. Steps come every 50 ms, give or take, with
times in microseconds; 10 metrics share a step.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import runlake
from benchmarks import data
from benchmarks.harness import Figure, folder_bytes, run_task, scratch

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Options

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WIDTH = 10
_FEW = {"mlflow": 5_000, "tensorboardx": 20_000}


def measure(options: Options) -> list[Figure]:
    """Return bytes a point."""
    figures = []
    for kind, make, bound in (
        ("float32-valued curves", data.curve, 5.0),
        ("float64 noise", data.noise, None),
    ):
        for steps in (1_000, 10_000, 100_000):
            size = options.size(steps, quick=steps // 100)
            points = size * _WIDTH
            what = f"{kind}, {_WIDTH} metrics, {points:,} points"
            limit = bound if points >= 10_000 else None  # noqa: PLR2004 - the bound's own condition
            figures.append(Figure(what, _logged(size, make) / points, "bytes", bound=limit))
    size = options.size(1_000_000, quick=1_000)
    what = f"one float32-valued curve at full speed, {size:,} points"
    figures.append(Figure(what, _one_curve(size) / size, "bytes", bound=5.0))
    what = "float32-valued curves at full speed, by log of 10"
    for name in ("ours", *options.against):
        count = options.size(_FEW.get(name, 100_000), quick=1_000)
        with scratch() as folder:
            run_task(name, "points", folder / name, options=options, count=count, width=_WIDTH)
            size_bytes = folder_bytes(folder / name)
        who = "runlake" if name == "ours" else name
        note = f"{count:,} points"
        figures.append(Figure(what, size_bytes / count, "bytes", who, note=note))
    return figures


def _logged(steps: int, make: Callable[..., Any]) -> int:
    """Return the size of a lake with one run of 10 metrics."""
    columns = [make(steps, seed=number).tolist() for number in range(_WIDTH)]
    times = data.moments(steps, seed=1).tolist()
    with scratch() as folder:
        with runlake.open(folder / "lake") as lake, lake.start_run() as run:
            for step, row in enumerate(zip(*columns, strict=True)):
                metrics = dict(zip(data.keys(_WIDTH), row, strict=True))
                moment = _EPOCH + timedelta(microseconds=times[step])
                run.log_metrics(metrics, step, moment)
        return folder_bytes(folder / "lake")


def _one_curve(count: int) -> int:
    with scratch() as folder:
        with runlake.open(folder / "lake") as lake, lake.start_run() as run:
            for step, value in enumerate(data.curve(count, seed=1).tolist()):
                run.log_metric("train/loss", value, step)
        return folder_bytes(folder / "lake")
