"""Log three runs, rank them, and read one back: the whole of tracking on one screen."""

from __future__ import annotations

import runlake


def main() -> None:
    runlake.set_experiment("slope")
    for lr in (0.01, 0.1, 0.3):
        with runlake.start_run(run_name=f"sgd-{lr}", tags={"team": "examples"}) as run:
            run.log_params({"optimizer": {"name": "sgd", "lr": lr}})
            w = 0.0
            for step in range(50):
                run.log({"loss": (w - 3) ** 2, "w": w}, step=step)
                w -= lr * 2 * (w - 3)
            run.log_dict({"w": w}, "model.json")

    lake = runlake.open()
    print(lake.leaderboard("loss", goal="min"))
    good = lake.search_runs("metrics.loss < 0.01 and params.optimizer.lr >= 0.1")
    print(good.select("run_name", "metrics.loss", "params.optimizer.lr"))

    best = lake.get_run(good["run_id"][0])
    print(best.info.run_name, best.info.status, best.data.metrics)


if __name__ == "__main__":
    main()
