"""Keep MLflow's own client, and change one line: its runs, models and files go to a lake."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
from mlflow import MlflowClient

import runlake


def main() -> None:
    # The one line. A bucket is runlake+s3://bucket/folder, and alike with gs and az.
    mlflow.set_tracking_uri(f"runlake://{Path('lake').absolute()}")

    mlflow.set_experiment("curves")
    for rate in (0.3, 0.1, 0.03):
        with mlflow.start_run(run_name=f"rate-{rate}"):
            mlflow.log_params({"rate": rate, "steps": 50})
            value = 1.0
            for step in range(50):
                value *= 1 - rate
                mlflow.log_metric("loss", value, step=step)
            mlflow.log_dict({"rate": rate, "last": value}, "result.json")

    found = mlflow.search_runs(
        filter_string="metrics.loss < 0.5 and params.steps = '50'",
        order_by=["metrics.loss ASC"],
        output_format="list",
    )
    for run in found:
        print(run.info.run_name, run.info.status, run.data.metrics["loss"])
    best = found[0].info.run_id
    print(mlflow.artifacts.load_dict(f"runs:/{best}/result.json"))

    # The registry is in the same lake.
    client = MlflowClient()
    client.create_registered_model("curve")
    version = client.create_model_version("curve", f"runs:/{best}/result.json", best)
    client.set_registered_model_alias("curve", "champion", version.version)
    print(client.get_model_version_by_alias("curve", "champion").source)

    # And the lake answers what MLflow cannot be asked.
    with runlake.open("lake", read_only=True) as lake:
        print(lake.leaderboard("loss", goal="min").select("rank", "run_name", "value", "step"))
        print(lake.sql("SELECT key, count(*) AS points, min(value) FROM metrics GROUP BY key"))


if __name__ == "__main__":
    main()
