"""Models through MLflow's own functions: logged, registered, loaded by every address."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from runlake.lake import open_lake

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore"),  # MLflow's own
]

MODEL = """
import mlflow

class Doubling(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[int], params=None):
        return [2 * each for each in model_input]

mlflow.models.set_model(Doubling())
"""


@pytest.fixture
def tracking_uri(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A lake that MLflow's functions go to."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return store_uri


def doubled(uri: str) -> Any:  # noqa: ANN401 - what the model says
    """Return what a model says to 21."""
    import mlflow  # noqa: PLC0415 - takes seconds

    return mlflow.pyfunc.load_model(uri).predict([21])


@pytest.mark.usefixtures("tracking_uri")
@pytest.mark.filesystems("local", "s3")
def test_a_model_is_found_by_every_address(lake_url: Place, tmp_path: Path) -> None:
    import mlflow  # noqa: PLC0415 - takes seconds

    code = tmp_path / "model.py"
    code.write_text(MODEL)
    client = mlflow.MlflowClient()
    experiment_id = client.create_experiment("models")
    with mlflow.start_run(experiment_id=experiment_id) as run:
        mlflow.log_text("beside", "notes.txt")
        info = mlflow.pyfunc.log_model(
            name="doubling",
            python_model=str(code),
            registered_model_name="doubler",
            pip_requirements=["mlflow-skinny"],
        )
    run_id = run.info.run_id
    client.set_registered_model_alias("doubler", "champion", 1)
    client.transition_model_version_stage("doubler", "1", "Production")
    again = mlflow.register_model(f"runs:/{run_id}/doubling", "second")
    copy = client.copy_model_version("models:/second/1", "third")
    for uri in (
        info.model_uri,
        "models:/doubler/1",
        "models:/doubler@champion",
        "models:/doubler/latest",
        "models:/doubler/Production",
        f"runs:/{run_id}/doubling",
        f"models:/second/{again.version}",
        f"models:/third/{copy.version}",
    ):
        assert doubled(uri) == [42], uri
    # The model knows of its versions, and the run's own artifacts are not mixed with its files.
    tags = client.get_logged_model(info.model_id).tags
    assert [each["name"] for each in json.loads(tags["mlflow.modelVersions"])] == [
        "doubler",
        "second",
    ]
    assert client.get_model_version("doubler", "1").model_id == info.model_id
    assert [each.path for each in client.list_artifacts(run_id)] == ["notes.txt"]
    with open_lake(lake_url.url, storage_options=lake_url.storage_options) as lake:
        assert (lake.registry.download("models:/doubler@champion") / "MLmodel").is_file()
        joined = lake.sql(
            "SELECT v.name FROM model_versions AS v JOIN runs AS r USING (run_id) ORDER BY 1"
        )
        assert joined["name"].to_list() == ["doubler", "second", "third"]
        assert lake.maintain.verify(artifacts=True).is_sound


# MLflow's skinny half has none of these, and needs none of them for a lake.
SKINNY = """
import sys

ABSENT = {
    "sqlalchemy", "alembic", "flask", "flask_cors", "graphene", "huey", "cryptography", "docker",
    "pandas", "sklearn", "scipy", "matplotlib", "skops", "aiohttp", "waitress", "gunicorn",
}

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        is_absent = name.partition(".")[0] in ABSENT
        return None if is_absent else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]

import mlflow
from mlflow.entities import Dataset, DatasetInput, LoggedModelStatus, Metric

uri, folder = sys.argv[1:]
mlflow.set_tracking_uri(uri)
experiment = mlflow.set_experiment("skinny")
client = mlflow.MlflowClient()
with mlflow.start_run(run_name="one", tags={"team": "vision"}) as run:
    mlflow.log_params({"lr": 0.1})
    mlflow.log_metrics({"loss": 0.5}, step=1)
    mlflow.log_metric("loss", 0.25, step=2)
    mlflow.log_text("hello", "notes/a.txt")
    client.log_inputs(run.info.run_id, [DatasetInput(Dataset("digits", "1", "local", "{}"))])
    model = client.create_logged_model(
        experiment.experiment_id, "m", source_run_id=run.info.run_id, params={"depth": "3"}
    )
    client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
run_id = run.info.run_id
assert [each.value for each in client.get_metric_history(run_id, "loss")] == [0.5, 0.25]
found = mlflow.search_runs(
    search_all_experiments=True,
    filter_string="metrics.loss < 0.3 and params.lr = '0.1' and tags.team LIKE 'v%'",
    output_format="list",
)
assert [each.info.run_name for each in found] == ["one"]
assert found[0].inputs.dataset_inputs[0].dataset.name == "digits"
assert [each.path for each in client.list_artifacts(run_id, "notes")] == ["notes/a.txt"]
assert mlflow.artifacts.load_text(f"runs:/{run_id}/notes/a.txt") == "hello"
assert [each.name for each in client.search_logged_models([experiment.experiment_id])] == ["m"]
version = mlflow.register_model(f"models:/{model.model_id}", "registered")
assert (version.run_id, version.model_id) == (run_id, model.model_id)
client.set_registered_model_alias("registered", "best", version.version)
assert client.search_model_versions("name LIKE 'reg%'")[0].aliases == ["best"]
there = mlflow.artifacts.download_artifacts("models:/registered@best")
print(open(f"{there}/weights.txt").read())
assert not ABSENT & {name.partition(".")[0] for name in sys.modules}
"""


@pytest.mark.filesystems("local")
def test_everything_works_with_mlflows_skinny_half_alone(tracking_uri: str, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "weights.txt").write_text("1 2 3")
    done = subprocess.run(
        [sys.executable, "-c", SKINNY, tracking_uri, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "1 2 3"
