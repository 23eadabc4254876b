"""Log whole columns at once: a curve that is already an array needs no loop."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import polars as pl

import runlake

POINTS = 200_000


def main() -> None:
    steps = np.arange(POINTS)
    with runlake.open("lake") as lake:
        with lake.start_run("wide", experiment="columns") as run:
            # Wide: a column `step`, and one column for each metric.
            began = perf_counter()
            run.log_history({"step": steps, "loss": 1 / (1 + steps), "noise": np.sin(steps)})
            run.flush()
            seconds = perf_counter() - began
            print(f"{2 * POINTS} points in the store after {seconds:.2f} s")

        with lake.start_run("long", experiment="columns") as run:
            # Long: columns `key`, `step` and `value`, here from a Polars frame.
            frame = pl.DataFrame(
                {
                    "key": ["train/loss", "val/loss"] * 3,
                    "step": [0, 0, 1, 1, 2, 2],
                    "value": [1.0, 1.1, 0.5, 0.7, 0.2, None],  # null is no point, NaN is one
                }
            )
            run.log_history(frame)

        print(
            lake.sql("""
                SELECT run_name, key, count, min, max
                FROM metric_summary
                JOIN runs USING (run_id)
                ORDER BY ALL
            """)
        )


if __name__ == "__main__":
    main()
