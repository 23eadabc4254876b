"""What do system metrics and the console cost the training beside them?

A sample's price is the CPU time of the thread that takes it; its effect is what `log_metric`
costs while samples are taken a hundred times as often as by default. A printed line's price is
what `print` takes longer, to a stream that goes nowhere, and the CPU time of all threads.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

import runlake
from benchmarks.harness import Figure, Spread, middle, scratch, spread
from runlake.console.lines import LINES_PER_SECOND
from runlake.system.sampler import LEAST_INTERVAL_S, own_readers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.harness import Options
    from runlake.run import Run

_now_ns: Final = time.perf_counter_ns
_INTERVAL: Final = "RUNLAKE_SYSTEM_METRICS_INTERVAL_S"
_PLAIN: Final = "without"


class _Printed(NamedTuple):
    """What lines cost, in microseconds: `print` itself, and all threads for each line."""

    calls: Spread
    cpu_us: float


def measure(options: Options) -> list[Figure]:
    """Return milliseconds a sample, and microseconds a call and a line."""
    return [*_samples(options), *_beside(options), *_lines(options)]


def _samples(options: Options) -> list[Figure]:
    """Take samples as the thread does, in this thread."""
    count = options.size(200, quick=5)
    began = time.thread_time()
    readers = own_readers()
    made_ms = (time.thread_time() - began) * 1e3
    spans = []
    found: list[dict[str, float]] = []
    for _ in range(count):
        began = time.thread_time()
        found = [part() for reader in readers for part in reader.parts()]
        spans.append((time.thread_time() - began) * 1e3)
    for reader in readers:
        reader.close()
    taken = spread(spans)
    keys = sum(map(len, found))
    note = f"{count} samples of {keys} keys, {_processes()} processes here"
    return [
        Figure("a sample, CPU time p50", taken.p50, "ms", bound=10.0, note=note),
        Figure("a sample, CPU time p99", taken.p99, "ms", note=note),
        Figure("before the first sample, CPU time", made_ms, "ms", note="imports included"),
        Figure("of one core, every 10 s", taken.p50 / 10e3 * 100, "%", bound=0.1),
    ]


def _processes() -> int:
    return sum(each.name.isdigit() for each in Path("/proc").iterdir())


def _beside(options: Options) -> list[Figure]:
    """Time `log_metric` alone and beside a sampler that is a hundred times too busy."""
    count, times = options.size(500_000, quick=2_000), options.size(3, quick=1)
    found: dict[str, list[Spread]] = {}
    os.environ[_INTERVAL] = str(LEAST_INTERVAL_S)
    for who in (_PLAIN, "runlake") * times:
        with (
            scratch() as folder,
            runlake.open(folder / "lake") as lake,
            lake.start_run(log_system_metrics=who == "runlake") as run,
        ):
            _calls(run, 1000)
            found.setdefault(who, []).append(_calls(run, count))
    del os.environ[_INTERVAL]
    alone, beside = middle(found[_PLAIN]), middle(found["runlake"])
    figures = []
    for who, spans, often in (
        (_PLAIN, alone, "no sample"),
        ("runlake", beside, f"a sample every {LEAST_INTERVAL_S} s"),
    ):
        note = f"{count:,} calls, {often}"
        figures.append(Figure("log_metric, p50", spans.p50, "us", who, note=note))
        figures.append(Figure("log_metric, p99", spans.p99, "us", who, note=note))
    return [
        *figures,
        Figure("log_metric beside samples, p50", beside.p50 / alone.p50, "times", bound=1.1),
        Figure("log_metric beside samples, p99", beside.p99 / alone.p99, "times", bound=1.5),
    ]


def _calls(run: Run, count: int) -> Spread:
    spans = np.zeros(count, np.int64)
    log_metric = run.log_metric
    for step in range(count):
        began = _now_ns()
        log_metric("loss", 0.5, step)
        spans[step] = _now_ns() - began
    return spread(spans / 1e3)


def _lines(options: Options) -> list[Figure]:
    """Print as many lines a second as are kept, and then far more."""
    figures = []
    seconds, flood = options.size(4, quick=1), options.size(200_000, quick=2_000)
    for who in (_PLAIN, "runlake"):
        with (
            scratch() as folder,
            runlake.open(folder / "lake") as lake,
            _nowhere(),
            lake.start_run(log_console=who == "runlake"),
        ):
            kept = _print(LINES_PER_SECOND * 9 // 10, seconds)
            over = _print(flood, 1)
        each = f"{seconds} times {LINES_PER_SECOND * 9 // 10} lines, all kept"
        many = f"{flood:,} lines at once, nearly all left out"
        bound = None if who == _PLAIN else 10.0
        figures += [
            Figure("a line, p50", kept.calls.p50, "us", who, bound, note=each),
            Figure("a line, p99", kept.calls.p99, "us", who, note=each),
            Figure("a line, CPU of all threads", kept.cpu_us, "us", who, note=each),
            Figure("a line of a flood, p50", over.calls.p50, "us", who, bound, note=many),
            Figure("a line of a flood, CPU of all threads", over.cpu_us, "us", who, note=many),
        ]
    return figures


def _print(count: int, seconds: int) -> _Printed:
    spans = np.zeros(count * seconds, np.int64)
    cpu_s = 0.0
    for second in range(seconds):
        if second:
            threading.Event().wait(1.0)
        cpu_began = time.process_time()
        for number in range(second * count, second * count + count):
            began = _now_ns()
            print("epoch 17 step", number, "loss 0.12345 acc 0.98765")
            spans[number] = _now_ns() - began
        threading.Event().wait(0.2)  # until the rows are made
        cpu_s += time.process_time() - cpu_began
    return _Printed(spread(spans / 1e3), cpu_s / (count * seconds) * 1e6)


@contextmanager
def _nowhere() -> Iterator[None]:
    """Have a stream of the interpreter's own kind that goes nowhere."""
    shown = sys.stdout
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        sys.stdout = nowhere
        try:
            yield
        finally:
            sys.stdout = shown
