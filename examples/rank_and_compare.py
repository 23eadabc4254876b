"""Search, rank and compare: which configuration is best over its seeds, and why?"""

from __future__ import annotations

import random

import polars as pl

import runlake

FAMILIES = {"linear": 0.88, "tree": 0.93, "mlp": 0.97}


def train(lake: runlake.Lake, *, family: str, lr: float, seed: int) -> None:
    """Log an accuracy that rises to what the family can reach."""
    chance = random.Random(f"{family} {lr} {seed}")  # noqa: S311 - repeatable on purpose
    with lake.start_run(f"{family}-{lr}-{seed}", experiment="digits") as run:
        run.log_params({"family": family, "lr": lr, "seed": seed})
        for epoch in range(20):
            learned = 1 - (1 - min(lr, 0.5)) ** (epoch + 1)
            run.log({"val/acc": FAMILIES[family] * learned + chance.gauss(0, 0.004)}, step=epoch)


def main() -> None:
    with runlake.open("lake") as lake:
        for family in FAMILIES:
            for lr in (0.1, 0.3):
                for seed in range(3):
                    train(lake, family=family, lr=lr, seed=seed)

        good = lake.search_runs("metrics.val/acc > 0.9 and (params.lr >= 0.3 or params.seed = 0)")
        print(good.height, "of", lake.search_runs().height, "runs are good")

        # One row for each configuration: its best run, and all its seeds.
        board = lake.leaderboard("val/acc", by=["params.family", "params.lr"], top=3)
        print(board.select("rank", "params.family", "params.lr", "run_name", "n", "mean", "std"))

        # What makes the first and the second differ.
        print(lake.compare(board.head(2)).filter(pl.col("kind") == "param"))


if __name__ == "__main__":
    main()
