"""How long does `search_runs` take over 1,000, 10,000 and 100,000 runs, near and far?

Three conditions, an order and a limit of 20; every run has 20 params and 20 metrics. The far
store takes 50 ms for each round trip and holds about 500 live segments.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import asking, far, lakes
from benchmarks.bench_scale import compacted_copy
from benchmarks.harness import Figure, rounds, run_task, scratch
from benchmarks.rivals import ASKABLE
from benchmarks.rivals.mlflow import search_script
from benchmarks.tasks import FILTER, LIMIT, ORDER, fingerprint
from runlake import Lake, settings

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.harness import Options

_WARM_MS = {"runs1k": 5.0, "runs100k": 30.0}
_COLD_MS = {"runs1k": 500.0, "runs100k": 1200.0}
_OF_RIVALS = ("runs1k", "runs10k")


def measure(options: Options) -> list[Figure]:
    """Return milliseconds by size, near and far, and of rivals."""
    figures = []
    for name in ("runs100",) if options.quick else ("runs1k", "runs10k", "runs100k"):
        made = lakes.made(name, options.lakes)
        size = f"{made.shape.runs:,} runs"
        note = f"{made.segments} segments"
        with asking.opened(made.folder) as lake:
            found = fingerprint(_search(lake))
            spans = asking.warm(lake, _search, count=options.size(51, quick=3))
        figures.append(asking.figure(f"warm, {size}", spans, _WARM_MS.get(name), note=note))
        spans = asking.cold(_script(made.folder), count=options.size(9, quick=1))
        figures.append(asking.figure(f"cold process, {size}", spans, _COLD_MS.get(name), note=note))
        spans = asking.cold(_script(compacted_copy(made)), count=options.size(9, quick=1))
        what = f"cold process, {size}, compacted"
        figures.append(asking.figure(what, spans, _COLD_MS.get(name), note="no live segment"))
        spans = _behind_changes(compacted_copy(made), count=options.size(9, quick=1))
        what = f"warm, {size}, compacted, each time behind a new run"
        figures.append(asking.figure(what, spans, None, note="logged by the same process"))
        if name in _OF_RIVALS or options.quick:
            figures += _of_rivals(made, size, found, options)
    spans = asking.cold(asking.BARE, count=options.size(9, quick=1))
    name = "duckdb, polars and pyarrow"
    figures.append(asking.figure("bare imports, cold process", spans, None, who=name, note=""))
    figures += _wide(options)
    return figures + _far(options)


def _search(lake: Lake) -> list[str]:
    found = lake.search_runs(FILTER, order_by=ORDER, limit=LIMIT)
    return found["run_name"].to_list()


def _script(folder: Path) -> str:
    return asking.script(
        folder, f"lake.search_runs({FILTER!r}, order_by={list(ORDER)!r}, limit={LIMIT})"
    )


def _behind_changes(compacted: Path, *, count: int) -> list[float]:
    """Ask each time that a run has just been logged; milliseconds, without the logging."""
    with scratch() as folder:
        # Objects never change, so links to them are a lake of its own.
        shutil.copytree(compacted, folder / "lake", copy_function=os.link)
        resolved, _ = settings.resolve(url=str(folder / "lake"))
        with Lake(replace(resolved, compact="off")) as lake:

            def timed() -> float:
                with lake.start_run() as run:
                    run.log({"train/loss_0": 1.0})
                lake.flush()
                began = time.perf_counter()
                _search(lake)
                return (time.perf_counter() - began) * 1e3

            return rounds(timed, count=count, warm_up=2)


def _of_rivals(made: lakes.Made, size: str, found: float, options: Options) -> list[Figure]:
    """Ask the same of rivals that hold the same runs, and hold their answers against ours."""
    figures = []
    shape = {"runs": made.shape.runs, "metrics": made.shape.sweep.metrics, "points": 1}
    for name in (rival for rival in options.against if rival in ASKABLE):
        with scratch() as folder:
            run_task(name, "fill", folder, options=options, **shape)
            count = options.size(11, quick=1)
            answer = run_task(name, "search", folder, options=options, rounds=count)
            assert answer["found"] == found, f"{name} found other runs"
            note = f"{count} rounds"
            figures.append(Figure(f"warm, {size}", answer["p50"], "ms", name, note=note))
            script = search_script(folder, FILTER, ORDER, LIMIT)
            spans = asking.cold(script, count=options.size(5, quick=1), python=options.rival_python)
        figures.append(asking.figure(f"cold process, {size}", spans, None, who=name, note="list"))
    return figures


def _wide(options: Options) -> list[Figure]:
    """Return a whole frame: all runs with all columns, also where keys are many."""
    figures = []
    for name in ("runs100",) if options.quick else ("runs10k", "keys10k"):
        made = lakes.made(name, options.lakes)
        with asking.opened(made.folder) as lake:
            spans = asking.warm(lake, lambda lake: lake.search_runs(), count=3)
            width = lake.search_runs().width
        what = f"all {made.shape.runs:,} runs as a frame of {width:,} columns"
        figures.append(asking.figure(what, spans, None, note="warm, no bound"))
    return figures


def _far(options: Options) -> list[Figure]:
    """Ask a store far away: the first time, again in the same process, and in another one."""
    made = lakes.made("runs100" if options.quick else "runs100k", options.lakes)
    size = f"{made.shape.runs:,} runs, {made.segments} segments, 50 ms a request"
    with scratch() as folder:
        cold, warm = far.ask(made.folder, folder / "cache", "search")
        again, _ = far.ask(made.folder, folder / "cache", "search")
    note = "{0.requests} requests, {0.seconds:.2f} s from question to answer"
    return [
        Figure(f"cold, {size}, waiting", cold.waited_s, "s", bound=2.0, note=note.format(cold)),
        Figure(
            f"new process with the local cache, {size}, waiting",
            again.waited_s,
            "s",
            note=note.format(again),
        ),
        Figure(f"warm, {size}", warm.requests, "requests", bound=2.0, note=note.format(warm)),
    ]
