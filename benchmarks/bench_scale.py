"""What do questions cost as a lake grows, before and after compaction?

Lakes of 10 M, 100 M and 1 B points, and of 10 k, 100 k and 1 M runs; those of a billion points and
a million runs only where they lie in `--lakes` already, because to make them takes half an hour.
Compacted lakes lie beside the others under the name with `-compacted`, and are made when missing.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from benchmarks import asking, data, lakes, tasks
from benchmarks.bench_compact import compacted
from benchmarks.harness import Figure, folder_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.harness import Options

_METRIC: Final = data.keys(1)[0]
_BILLION: Final = 10**9
_LARGE: Final = ("points1b", "runs1m")
_SCRIPT: Final = "lake.search_runs({filter!r}, order_by=list({order!r}), limit={limit})"


def measure(options: Options) -> list[Figure]:
    """Return milliseconds by size, before and after compaction."""
    names = ["points10m", "points100m", "runs10k", "runs100k"]
    names = ["runs100"] if options.quick else names
    names += [name for name in _LARGE if lakes.is_made(name, options.lakes)]
    figures = []
    for name in names:
        made = lakes.made(name, options.lakes)
        for state, folder in (("live", made.folder), ("compacted", compacted_copy(made))):
            figures += _ask(made, folder, state, options)
    return figures


def compacted_copy(made: lakes.Made) -> Path:
    """Return a compacted copy of a lake; it is made unless it is there already."""
    folder = made.folder.with_name(f"{made.folder.name}-compacted")
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(made.folder, unfinished)
        compacted(unfinished)
        unfinished.rename(folder)
    return folder


def _ask(made: lakes.Made, folder: Path, state: str, options: Options) -> list[Figure]:
    size = f"{made.shape.runs:,} runs, {made.rows:,} rows, {state}"
    note = f"{folder_bytes(folder) / 1e6:,.0f} MB"
    script = _SCRIPT.format(filter=tasks.FILTER, order=tasks.ORDER, limit=tasks.LIMIT)
    spans = asking.cold(asking.script(folder, script), count=options.size(3, quick=1))
    figures = [asking.figure(f"search, cold process, {size}", spans, None, note=note)]
    runs = [made.run_id(number) for number in range(min(100, made.shape.sweep.runs))]
    last = made.run_id(made.shape.sweep.runs) if made.shape.long_points else runs[0]
    asked = {
        "search": lambda lake: lake.search_runs(
            tasks.FILTER, order_by=list(tasks.ORDER), limit=tasks.LIMIT
        ),
        "leaderboard": lambda lake: lake.leaderboard(_METRIC, goal="min"),
        "one curve": lambda lake: lake.history(_METRIC, runs=[last], max_points=500),
        "100 curves": lambda lake: lake.history(_METRIC, runs=runs, max_points=500),
    }
    with asking.opened(folder) as lake:
        for what, ask in asked.items():
            spans = asking.warm(lake, ask, count=options.size(15, quick=2))
            bound = 50.0 if what == "one curve" and made.rows > _BILLION else None
            figures.append(asking.figure(f"{what}, warm, {size}", spans, bound, note=note))
    return figures
