"""Go on with a run of an earlier process, and put runs below a run."""

from __future__ import annotations

import runlake


def main() -> None:
    runlake.set_experiment("search")

    # A first job ends early; a second one, perhaps on another machine, goes on.
    with runlake.start_run(run_name="long") as run:
        for step in range(5):
            run.log({"loss": 1 / (step + 1)}, step=step)
    with runlake.start_run(run_id=run.run_id) as again:
        for step in range(5, 10):
            again.log({"loss": 1 / (step + 1)}, step=step)

    # A search with its trials below it.
    with runlake.start_run(run_name="sweep") as sweep:
        for width in (16, 32, 64):
            with runlake.start_run(run_name=f"width-{width}", nested=True):
                runlake.log_params({"width": width})
                runlake.log_metric("score", 1 - 1 / width)
        sweep.set_tag("trials", 3)

    # A failure is recorded with its traceback, and raised as ever.
    try:
        with runlake.start_run(run_name="diverges"):
            runlake.log_metric("loss", 1 / 0)
    except ZeroDivisionError as error:
        print("failed, as it should:", error)

    lake = runlake.open()
    resumed = lake.sql("SELECT count(*) AS points FROM metrics WHERE run_id = ?", [run.run_id])
    print(resumed)
    trials = lake.search_runs(
        f"attributes.parent_run_id = '{sweep.run_id}'", order_by=["metrics.score DESC"]
    )
    print(trials.select("run_name", "metrics.score", "params.width"))
    print(lake.sql("SELECT run_name, status FROM runs ORDER BY start_time"))


if __name__ == "__main__":
    main()
