"""The module functions of the registry, called as MLflow's are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import runlake as mlflow
from runlake import active

if TYPE_CHECKING:
    from pathlib import Path


def test_script_of_mlflows_registry_runs(tmp_path: Path) -> None:
    mlflow.set_tracking_uri(tmp_path / "lake")
    try:
        with mlflow.start_run() as run:
            mlflow.log_text("weights", "model/weights.txt")
        mlflow.create_registered_model("other", {"a": 1}, "what it is")
        mlflow.create_model_version("other", "s3://x", run.info.run_id, {"b": 2}, None, "first")
        made = mlflow.register_model(f"runs:/{run.info.run_id}/model", "digits", 300, tags={"c": 3})
        assert (made.name, made.version, made.tags) == ("digits", 1, {"c": "3"})
        mlflow.set_registered_model_alias("digits", "champion", made.version)
        mlflow.set_model_version_tag("digits", "1", "checked", "yes")
        moved = mlflow.transition_model_version_stage("digits", 1, "Production", True)  # noqa: FBT003 - so
        assert moved.current_stage == "Production"
        assert mlflow.get_model_version_by_alias("digits", "champion").tags["checked"] == "yes"
        assert mlflow.copy_model_version("models:/digits@champion", "prod").version == 1
        mlflow.delete_registered_model_alias("digits", "champion")
        names = [each.name for each in mlflow.search_registered_models(10, "name LIKE 'd%'")]
        assert names == ["digits"]
        assert len(mlflow.search_model_versions(filter_string="name = 'digits'")) == 1
        assert [each.name for each in mlflow.search_model_versions(max_results=1)] == ["prod"]
    finally:
        active.forget()
