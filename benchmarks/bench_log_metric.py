"""What does one call that logs cost the training?

Each call is timed by itself and is acknowledged when it returns: the row lies in the journal
and survives `kill -9`. Beside it, in the same loop's terms: an empty function, which shows
what timing costs, and one record packed into a memory map under a lock, the least that an
acknowledged row can cost.
"""

from __future__ import annotations

import mmap
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

import runlake
from benchmarks import data
from benchmarks.harness import Figure, Spread, middle, run_task, scratch, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Options

_now_ns: Final = time.perf_counter_ns
_PACK: Final = struct.Struct("<qqdII").pack_into
_EMPTY: Final = "an empty call"
_BARE: Final = "bare mmap"
ONE: Final = "log_metric"
MODULE: Final = "runlake.log_metric, the module's"


def measure(options: Options) -> list[Figure]:
    """Return microseconds a call."""
    count = options.size(1_000_000, quick=5_000)
    times = options.size(3, quick=1)
    figures = _of(ONE, 1.5, 5.0, _scalars(count, times))
    for width, many, bound in ((10, 300_000, 5.0), (5_000, 600, 2_000.0)):
        calls = options.size(many, quick=50)
        figures += _of(f"log of {width:,}", bound, None, {"runlake": _wide(width, calls, times)})
    with scratch() as folder:
        for name in options.against:
            size = options.size(300 if name == "mlflow" else 20_000, quick=50)
            found = run_task(name, "calls", folder / name, options=options, count=size, width=10)
            note = f"{size:,} calls"
            figures.append(Figure("log of 10, p50", found["p50"], "us", name, note=note))
            figures.append(Figure("log of 10, p99", found["p99"], "us", name, note=note))
    return figures


def _of(
    what: str, p50: float | None, p99: float | None, found: dict[str, tuple[Spread, int]]
) -> list[Figure]:
    figures = []
    for who, (spans, count) in found.items():
        is_ours = who == "runlake"
        name = MODULE if who == MODULE else what
        shown = "runlake" if who == MODULE else who
        note = f"{count:,} calls; least {spans.least:.3g}, greatest {spans.greatest:,.4g} us"
        for quantile, value, bound in (("p50", spans.p50, p50), ("p99", spans.p99, p99)):
            kept = bound if is_ours or who == MODULE else None
            figures.append(Figure(f"{name}, {quantile}", value, "us", shown, kept, note=note))
    return figures


def _scalars(count: int, times: int) -> dict[str, tuple[Spread, int]]:
    """Time calls of one scalar: ours, the module's, and the two limits."""
    values = data.curve(count, seed=1).tolist()
    found: dict[str, list[Spread]] = {}
    for _ in range(times):
        with scratch() as folder:
            runlake.set_tracking_uri(folder / "lake")
            with runlake.start_run() as run:
                warm = values[:1000]
                _timed(run.log_metric, warm)
                subjects: dict[str, Callable[..., object]] = {
                    "runlake": run.log_metric,
                    MODULE: runlake.log_metric,
                    _EMPTY: _empty,
                    _BARE: _bare_mmap(),
                }
                for who, call in subjects.items():
                    found.setdefault(who, []).append(_timed(call, values))
            runlake.set_tracking_uri(folder / "other")  # closes the lake before
    return {who: (middle(spreads), count) for who, spreads in found.items()}


def _timed(call: Callable[..., object], values: list[float]) -> Spread:
    """Time every call, in microseconds."""
    spans = np.zeros(len(values), np.int64)
    for step, value in enumerate(values):
        began = _now_ns()
        call("train/loss", value, step)
        spans[step] = _now_ns() - began
    return spread(spans / 1e3)


def _wide(width: int, calls: int, times: int) -> tuple[Spread, int]:
    """Time calls of many scalars, in microseconds."""
    rows = data.rows(width, seed=1, count=min(calls, 100))
    spreads = []
    for _ in range(times):
        with scratch() as folder, runlake.open(folder / "lake") as lake, lake.start_run() as run:
            run.log(rows[0])
            spans = np.zeros(calls, np.int64)
            for number in range(calls):
                row = rows[number % len(rows)]
                began = _now_ns()
                run.log(row)
                spans[number] = _now_ns() - began
            spreads.append(spread(spans / 1e3))
    return middle(spreads), calls


def _empty(key: str, value: float, step: int) -> None:
    """Take what `log_metric` takes."""


def _bare_mmap() -> Callable[[str, float, int], None]:
    """Return a function that packs one record into a shared map under a lock."""
    size = 1 << 20
    page: Any = mmap.mmap(-1, size)
    lock, place = threading.Lock(), 0

    def call(key: str, value: float, step: int) -> None:  # noqa: ARG001 - takes what ours takes
        nonlocal place
        with lock:
            _PACK(page, place, step, time.time_ns() // 1000, value, 1, 1)
            place = (place + 32) % size

    return call
