"""Take runs and points out of the lake: Polars, lazily; and a Parquet file for everybody else."""

from __future__ import annotations

import polars as pl

import runlake

LATE = 990


def main() -> None:
    with runlake.open("lake") as lake:
        for depth in (2, 4, 8):
            with lake.start_run(f"depth-{depth}", experiment="trees") as run:
                run.log_params({"depth": depth})
                for step in range(1000):
                    run.log({"loss": 1 / (1 + step * depth), "lr": 0.1}, step=step)

        # One row a run, ready for a table or a plot.
        runs = lake.search_runs("params.depth > 2")
        print(runs.select("run_name", "params.depth", "metrics.loss"))

        # Every point, lazily: only the columns and rows that the plan needs are read.
        late = (
            lake.scan("metrics")
            .filter(pl.col("key") == "loss", pl.col("step") >= LATE)
            .group_by("run_id")
            .agg(pl.col("value").mean().alias("late_loss"))
        )
        print(late.collect().join(runs.select("run_id", "run_name"), on="run_id"))

        # A file, in bounded memory however many points there are.
        written = lake.export(
            "points.parquet",
            what="SELECT run_name, step, value FROM metrics JOIN runs USING (run_id)",
        )
    print(f"{written.paths[0]} holds {written.row_count} rows, {written.size_bytes} bytes")


if __name__ == "__main__":
    main()
