"""Libraries that log by themselves once MLflow is told to; on a lake as elsewhere."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]
ROUNDS = 5


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """MLflow on an empty lake, as it was before afterwards."""
    for variable in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(variable, "true")
    monkeypatch.chdir(tmp_path)
    import mlflow  # noqa: PLC0415 - takes seconds

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"runlake://{tmp_path / 'lake'}")
    mlflow.set_experiment("boosting")
    yield mlflow
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)
    mlflow.tracking.fluent._active_experiment_id = None


def drawn() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    features = np.random.default_rng(0).normal(size=(60, 4))
    return features, (features[:, 0] > 0).astype(int)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"),
        )
        for name in ("xgboost", "lightgbm")
    ],
)
def test_a_booster_logs_a_point_of_each_round(mlflow: Any, name: str) -> None:  # noqa: ANN401 - the module
    library = import_module(name)
    features, target = drawn()
    settings: dict[str, object]
    flavor = getattr(mlflow, name)
    flavor.autolog(log_models=False)
    try:
        with mlflow.start_run() as run:
            if name == "xgboost":
                data = library.DMatrix(features, target)
                settings = {"objective": "binary:logistic", "eval_metric": "logloss"}
                library.train(settings, data, ROUNDS, evals=[(data, "train")], verbose_eval=False)
            else:
                data = library.Dataset(features, target)
                settings = {"objective": "binary", "metric": "binary_logloss", "verbose": -1}
                library.train(settings, data, ROUNDS, valid_sets=[data], valid_names=["train"])
    finally:
        flavor.autolog(disable=True)
    found = mlflow.get_run(run.info.run_id)
    (key,) = found.data.metrics
    points = mlflow.MlflowClient().get_metric_history(run.info.run_id, key)
    assert [point.step for point in points] == list(range(ROUNDS))
    assert [point.value for point in points] == sorted([p.value for p in points], reverse=True)
    assert found.data.params["objective"] == settings["objective"]
    assert found.inputs.dataset_inputs
    files = [file.path for file in mlflow.artifacts.list_artifacts(run_id=run.info.run_id)]
    assert any(file.startswith("feature_importance") for file in files)
