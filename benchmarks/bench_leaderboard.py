"""How long does a leaderboard take, over more and more runs, and over more and more points?

A leaderboard reads summaries, never points, so that its time hangs on the number of runs only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import asking, data, far, lakes
from benchmarks.bench_scale import compacted_copy
from benchmarks.harness import Figure, scratch

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Options
    from runlake import Lake

_METRIC = data.keys(1)[0]
_ASKED: dict[str, Callable[[Lake], object]] = {
    "leaderboard": lambda lake: lake.leaderboard(_METRIC, goal="min"),
    "best of each group": lambda lake: lake.leaderboard(
        _METRIC, goal="min", by="params.param_0", top=10
    ),
}
_WARM_MS = {"leaderboard": {"runs100k": 30.0}}
_BY_RUNS = ("runs1k", "runs10k", "runs100k")
_BY_POINTS = ("points1m", "points10m", "points100m")


def measure(options: Options) -> list[Figure]:
    """Return milliseconds by runs and by points, near and far."""
    figures = []
    names = ["runs100", "points100k"] if options.quick else [*_BY_RUNS, *_BY_POINTS]
    names += [name for name in ("points1b",) if lakes.is_made(name, options.lakes)]
    for name in names:
        made = lakes.made(name, options.lakes)
        size = f"{made.shape.runs:,} runs, {made.rows:,} rows"
        with asking.opened(made.folder) as lake:
            for what, ask in _ASKED.items():
                spans = asking.warm(lake, ask, count=options.size(51, quick=3))
                bound = _WARM_MS.get(what, {}).get(name)
                note = f"{made.segments} segments"
                figures.append(asking.figure(f"{what}, warm, {size}", spans, bound, note=note))
    made = lakes.made("runs100" if options.quick else "runs1k", options.lakes)
    script = asking.script(made.folder, f"lake.leaderboard({_METRIC!r}, goal='min')")
    spans = asking.cold(script, count=options.size(9, quick=1))
    what = f"leaderboard, cold process, {made.shape.runs:,} runs"
    figures.append(asking.figure(what, spans, 500.0, note=f"{made.segments} segments"))
    made = lakes.made("runs100" if options.quick else "runs100k", options.lakes)
    script = asking.script(compacted_copy(made), f"lake.leaderboard({_METRIC!r}, goal='min')")
    spans = asking.cold(script, count=options.size(9, quick=1))
    what = f"leaderboard, cold process, {made.shape.runs:,} runs, compacted"
    figures.append(asking.figure(what, spans, 1200.0, note="no live segment"))
    return [*figures, _far(options)]


def _far(options: Options) -> Figure:
    """Ask a store far away for the first time."""
    made = lakes.made("runs100" if options.quick else "runs100k", options.lakes)
    with scratch() as folder:
        cold, _ = far.ask(made.folder, folder / "cache", "leaderboard")
    what = f"leaderboard, cold, {made.shape.runs:,} runs, 50 ms a request, waiting"
    note = f"{cold.requests} requests, {cold.seconds:.2f} s from question to answer"
    return Figure(what, cold.waited_s, "s", note=note)
