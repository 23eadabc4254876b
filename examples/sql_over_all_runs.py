"""Ask what no run table answers: SQL over every point, param and tag of every run."""

from __future__ import annotations

import math

import runlake

EPOCHS_TO_HALVE = """
    SELECT
        r.params['lr'] AS lr,
        count(DISTINCT r.run_id) AS seeds,
        avg(halved.step) AS epochs_to_halve_the_loss
    FROM runs AS r
    JOIN (
        SELECT m.run_id, min(m.step) AS step
        FROM metrics AS m
        JOIN metric_summary AS s USING (run_id, key)
        WHERE key = 'loss' AND m.value <= s.first / 2
        GROUP BY m.run_id
    ) AS halved USING (run_id)
    GROUP BY ALL
    ORDER BY epochs_to_halve_the_loss
"""
WORST_JUMP = """
    SELECT run_name, step, value - before AS jump
    FROM (
        SELECT *, lag(value) OVER (PARTITION BY run_id ORDER BY step) AS before
        FROM metrics
        WHERE key = 'loss'
    )
    JOIN runs USING (run_id)
    ORDER BY jump DESC NULLS LAST
    LIMIT 3
"""


def train(lake: runlake.Lake, *, lr: float, seed: int) -> None:
    """Log a noisy decay."""
    with lake.start_run(f"lr-{lr}-{seed}", experiment="decay") as run:
        run.log_params({"lr": lr, "seed": seed})
        for epoch in range(100):
            noise = 0.05 * math.sin(7 * epoch + seed)
            run.log({"loss": math.exp(-lr * epoch) + noise}, step=epoch)


def main() -> None:
    with runlake.open("lake") as lake:
        for lr in (0.01, 0.03, 0.1):
            for seed in range(3):
                train(lake, lr=lr, seed=seed)
        print(lake.sql(EPOCHS_TO_HALVE))
        print(lake.sql(WORST_JUMP))
        print(lake.sql("SELECT run_name FROM runs WHERE params['lr'] = ? LIMIT 1", [0.1]))


if __name__ == "__main__":
    main()
