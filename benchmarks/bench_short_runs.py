"""What does a short run cost: 20 params, 20 metrics, finished?

Many in one process, from the first start until all are in the store.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.harness import Figure, run_task, scratch, shown_name, shown_rounds
from benchmarks.rivals import BARE, OURS

if TYPE_CHECKING:
    from benchmarks.harness import Options

_FEW = {"mlflow": 50, "trackio": 50, "wandb": 10}


def measure(options: Options) -> list[Figure]:
    """Return milliseconds a run."""
    figures = []
    for name in (OURS, BARE, *options.against):
        runs = options.size(_FEW.get(name, 1000), quick=3)
        spans = []
        for _ in range(options.size(3 if name == OURS else 1, quick=1)):
            with scratch() as folder:
                found = run_task(name, "short_runs", folder, options=options, runs=runs, width=20)
            spans.append(found["seconds"] / runs * 1e3)
        bound = 2.0 if name == OURS else None
        note = f"{runs:,} runs; {shown_rounds(spans)}"
        value = statistics.median(spans)
        figures.append(Figure("a short run", value, "ms", shown_name(name), bound, note=note))
    return figures
