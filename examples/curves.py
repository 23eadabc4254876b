"""Read curves: thinned for a plot with every spike kept, over seconds, over another metric."""

from __future__ import annotations

import math

import polars as pl

import runlake

STEPS = 20_000
BARS = " .:-=+*#%@"


def main() -> None:
    with runlake.open("lake") as lake:
        for lr in (0.001, 0.01):
            with lake.start_run(f"lr-{lr}", experiment="decay") as run:
                run.log_params({"lr": lr})
                steps = list(range(STEPS))
                loss = [math.exp(-lr * step / 10) for step in steps]
                loss[12_345] = 5.0  # one bad batch
                tokens = [float(512 * step) for step in steps]
                run.log_history({"step": steps, "train/loss": loss, "train/tokens": tokens})

        # Of 20,000 points of each curve at most 60, and the spike is one of them.
        curves = lake.history("train/loss", max_points=60)
        for (name,), curve in curves.group_by("run_name", maintain_order=True):
            values = curve["value"].clip(0, 1).to_list()
            print(f"{name:9}", "".join(BARS[round(value * 9)] for value in values))
            print(f"{'':9} {curve.height} points, highest {curve['value'].max()!r}")

        # Loss over tokens instead of steps, and only the beginning.
        early = lake.history("train/loss", x="train/tokens", stop=2048)
        print(early.filter(pl.col("run_name") == "lr-0.01").select("x", "value"))


if __name__ == "__main__":
    main()
