"""A script written for MLflow runs with `import runlake as mlflow`, and finds what it logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.meta.tree import run_python

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import runlake as mlflow

mlflow.set_tracking_uri("lake")
experiment = mlflow.set_experiment("digits")

with mlflow.start_run(run_name="parent", tags={"team": "vision"}, description="first try") as run:
    mlflow.log_param("C", 1.0)
    mlflow.log_params({"kernel": "rbf", "gamma": 0.01})
    mlflow.set_tags({"stage": "trial"})
    mlflow.set_tag("gone", "soon")
    mlflow.delete_tag("gone")
    for step in range(3):
        mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
    mlflow.log_metrics({"acc": 0.9, "f1": 0.8}, step=2)
    mlflow.log_text("hello", "notes/hello.txt")
    mlflow.log_dict({"a": 1}, "config.json")
    assert mlflow.active_run().info.run_id == run.info.run_id
    with mlflow.start_run(run_name="child", nested=True) as child:
        mlflow.log_metric("loss", 0.1)

assert mlflow.active_run() is None
assert mlflow.last_active_run().info.run_id == child.info.run_id

try:
    with mlflow.start_run(run_name="broken") as broken:
        raise RuntimeError("no luck")
except RuntimeError:
    pass

found = mlflow.get_run(run.info.run_id)
assert found.info.status == "FINISHED", found.info.status
assert found.info.experiment_id == experiment.experiment_id
assert found.info.run_name == "parent"
assert found.data.params == {"C": "1.0", "kernel": "rbf", "gamma": "0.01"}, found.data.params
assert found.data.metrics == {"loss": 1.0 / 3, "acc": 0.9, "f1": 0.8}, found.data.metrics
assert found.data.tags["team"] == "vision"
assert found.data.tags["mlflow.note.content"] == "first try"
assert "gone" not in found.data.tags
assert mlflow.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == run.info.run_id
assert mlflow.get_run(broken.info.run_id).info.status == "FAILED"

runs = mlflow.search_runs(
    experiment_names=["digits"],
    filter_string="metrics.loss < 0.5 AND params.kernel = 'rbf'",
    order_by=["metrics.loss ASC"],
    max_results=10,
)
assert runs["run_id"].to_list() == [run.info.run_id]
assert runs["params.C"].to_list() == ["1.0"]
listed = mlflow.search_runs(experiment_names=["digits"], output_format="list")
assert {each.info.run_name for each in listed} == {"parent", "child", "broken"}

mlflow.delete_run(broken.info.run_id)
assert len(mlflow.search_runs(experiment_names=["digits"])) == 2
mlflow.restore_run(broken.info.run_id)
assert len(mlflow.search_runs(experiment_names=["digits"])) == 3
assert mlflow.get_experiment_by_name("digits").experiment_id == experiment.experiment_id
assert mlflow.get_experiment(experiment.experiment_id).name == "digits"
print("found all")
"""


def test_a_script_written_for_mlflow_finds_what_it_logged(tmp_path: Path) -> None:
    assert run_python("-c", SCRIPT, folder=tmp_path) == "found all\n"
    assert (tmp_path / "lake" / "runlake.json").is_file()
