"""What does the training feel while the store is away, or fails every third request?

A loop logs at a steady pace through a store that is made ill, and times every call; beside
each call it times an empty one, which shows what the machine itself does to a call. When the
store is well again, every point is counted there.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.harness import Figure, Spread, scratch, spread
from runlake import clock, settings
from runlake.artifacts.store import Artifacts
from runlake.run import Run
from runlake.run_plan import RunPlan, new_run_id
from runlake.storage.engine import Storage
from runlake.storage.fs import open_filesystem
from runlake.testing.filesystems import FaultyFilesystem
from runlake.writing.drain import Drain

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.harness import Options
    from runlake.query.entities import RunRecord

_now_ns: Final = time.perf_counter_ns
_BURST: Final = 500
_PAUSE_S: Final = 0.02
_LONGEST_MS: Final = 10.0


def measure(options: Options) -> list[Figure]:
    """Return the latency of calls with a store that is well, away, and failing."""
    figures: list[Figure] = []
    well = _trial(options.size(15, quick=1), is_down=False, share=0.0)
    for kind, trial in (
        ("well", well),
        ("away", _trial(options.size(60, quick=1), is_down=True, share=0.0)),
        ("failing 30 %", _trial(options.size(30, quick=1), is_down=False, share=0.15)),
    ):
        ours, empty, lost, count = trial
        limit = None if kind == "well" else _LONGEST_MS
        note = f"{count:,} calls"
        figures += [
            Figure(f"{kind}: p50", ours.p50, "us", note=note),
            Figure(f"{kind}: p50", empty.p50, "us", "an empty call"),
            Figure(f"{kind}: p99", ours.p99, "us", note=note),
            Figure(f"{kind}: p99", empty.p99, "us", "an empty call"),
            Figure(f"{kind}: longest", ours.greatest / 1e3, "ms", bound=limit, note=note),
            Figure(f"{kind}: longest", empty.greatest / 1e3, "ms", "an empty call"),
            Figure(f"{kind}: points lost", lost, "", bound=0.0),
        ]
        if kind != "well":
            change = ours.p99 / well[0].p99
            figures.append(Figure(f"{kind}: p99 against a store that is well", change, "x"))
    return figures


def _trial(seconds: float, *, is_down: bool, share: float) -> tuple[Spread, Spread, int, int]:
    """Log for some seconds; returns the spans of calls in us, of empty ones, and the loss."""
    with scratch() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the store is ill is said, as it should be
        resolved, _ = settings.resolve(url=str(folder / "lake"))
        inner = open_filesystem(resolved.url, storage_options={}, settings=resolved)
        faulty = FaultyFilesystem(inner, seed=1)
        storage = Storage(faulty, resolved)
        drain = Drain(storage, resolved)
        plan = RunPlan(new_run_id(), "0", "Default", None, None, clock.now_us())
        run = Run(
            plan, drain, Artifacts(storage, _unasked), resolved, read=_unread, tags={}, params={}
        )
        run.log_metric("loss", 1.0)
        drain.flush(30)
        faulty.is_down, faulty.before, faulty.after = is_down, share, share
        spans, empty = _paced(run, seconds)
        faulty.is_down, faulty.before, faulty.after = False, 0.0, 0.0
        run.finish()
        drain.close(120)
        stored = _stored(folder / "lake")
        return spread(spans), spread(empty), len(spans) + 1 - stored, len(spans)


def _paced(run: Run, seconds: float) -> tuple[list[float], list[float]]:
    spans: list[float] = []
    empty: list[float] = []
    step = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(_BURST):
            step += 1
            began = _now_ns()
            _empty("loss", 0.5, step)
            between = _now_ns()
            run.log_metric("loss", 0.5, step)
            ended = _now_ns()
            empty.append((between - began) / 1e3)
            spans.append((ended - between) / 1e3)
        time.sleep(_PAUSE_S)
    return spans, empty


def _stored(lake: Path) -> int:
    resolved, _ = settings.resolve(url=str(lake))
    inner = open_filesystem(resolved.url, storage_options={}, settings=resolved)
    _, tables = Storage(inner, resolved).read()
    counts = tables.summaries["n"].to_numpy()
    return int(np.max(counts, initial=0))


def _empty(key: str, value: float, step: int) -> None:
    """Take what `log_metric` takes."""


def _unread(run_id: str) -> RunRecord:
    """Stand in for the reader that a lake gives its runs."""
    message = f"nobody reads {run_id} here"
    raise AssertionError(message)


def _unasked(run_id: str) -> str:
    """Stand in for what finds a run's artifacts."""
    message = f"nobody asks for artifacts of {run_id} here"
    raise AssertionError(message)
