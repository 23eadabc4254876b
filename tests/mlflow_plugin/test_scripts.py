"""Scripts as people write who begin with MLflow: on a lake only the address changes.

They run with MLflow itself and a lake's address; and, for what they log and ask, with
`import runlake as mlflow`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

import runlake
from runlake import active

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # MLflow's and scikit-learn's own
]

SERVER: Final = "http://127.0.0.1:5000"

# A linear regression by hand: what is logged, and asked for again.
TRACKED: Final = """
import mlflow
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.model_selection import train_test_split

mlflow.set_tracking_uri("http://127.0.0.1:5000")
mlflow.set_experiment("diabetes by hand")

features, target = load_diabetes(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(features, target, random_state=1)

for fit_intercept in (True, False):
    settings = {"fit_intercept": fit_intercept, "positive": False, "n_jobs": None}
    with mlflow.start_run(run_name=f"intercept-{fit_intercept}") as run:
        model = LinearRegression(**settings).fit(train_x, train_y)
        guessed = model.predict(test_x)
        mlflow.log_params(settings)
        mlflow.log_metric("mse", mean_squared_error(test_y, guessed))
        mlflow.log_metrics({"r2": r2_score(test_y, guessed), "rows": len(test_y)})
        mlflow.set_tag("purpose", "a first try")
        mlflow.log_text(str(model.coef_.tolist()), "coefficients.txt")
        mlflow.log_dict({"names": ["a", "b"]}, "names.json")

found = mlflow.get_run(run.info.run_id)
experiment = mlflow.get_experiment_by_name("diabetes by hand")
ordered = mlflow.search_runs(
    experiment_ids=[experiment.experiment_id],
    filter_string="metrics.r2 > -100 and tags.purpose = 'a first try'",
    order_by=["metrics.mse ASC"],
)
logged = {
    "name": found.info.run_name,
    "status": found.info.status,
    "params": dict(found.data.params),
    "metrics": dict(found.data.metrics),
    "purpose": found.data.tags["purpose"],
    "order": list(ordered["params.fit_intercept"]),
    "best": float(ordered["metrics.mse"][0]),
}
"""

# The same with autologging, and a model that is kept and loaded again.
AUTOLOGGED: Final = """
import mlflow
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split

mlflow.set_tracking_uri("http://127.0.0.1:5000")
mlflow.set_experiment("diabetes")
mlflow.sklearn.autolog()

features, target = load_diabetes(return_X_y=True)
train_x, test_x, train_y, test_y = train_test_split(features, target, random_state=1)

with mlflow.start_run() as run:
    model = LinearRegression().fit(train_x, train_y)
    score = model.score(test_x, test_y)
    info = mlflow.sklearn.log_model(
        model, name="by-hand", input_example=train_x[:2], serialization_format="cloudpickle"
    )

again = mlflow.pyfunc.load_model(info.model_uri)
difference = abs(again.predict(test_x) - model.predict(test_x)).max()
found = mlflow.get_run(run.info.run_id)
"""

# A random forest: params, metrics, a registered model and a file beside it.
FOREST: Final = """
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, f1_score

mlflow.set_tracking_uri("http://127.0.0.1:5000")
mlflow.set_experiment("iris")

features, kinds = load_iris(return_X_y=True, as_frame=True)
settings = {"n_estimators": 5, "max_depth": 3, "random_state": 7}

with mlflow.start_run(run_name="forest") as run:
    forest = RandomForestClassifier(**settings).fit(features, kinds)
    guessed = forest.predict(features)
    mlflow.log_params(settings)
    mlflow.log_metrics({
        "accuracy": accuracy_score(kinds, guessed),
        "f1": f1_score(kinds, guessed, average="macro"),
    })
    mlflow.log_input(mlflow.data.from_pandas(features, name="iris"), context="training")
    mlflow.sklearn.log_model(
        forest,
        name="forest",
        signature=infer_signature(features, guessed),
        registered_model_name="iris-forest",
        serialization_format="cloudpickle",
    )
    Path("importances.csv").write_text(
        "\\n".join(f"{n},{v}" for n, v in zip(features.columns, forest.feature_importances_))
    )
    mlflow.log_artifact("importances.csv", artifact_path="reports")

client = MlflowClient()
client.set_registered_model_alias("iris-forest", "champion", 1)
client.set_model_version_tag("iris-forest", "1", "checked", "yes")
champion = mlflow.sklearn.load_model("models:/iris-forest@champion")
same = bool((champion.predict(features) == guessed).all())
version = client.get_model_version_by_alias("iris-forest", "champion")
report = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/reports/importances.csv")
files = [file.path for file in mlflow.artifacts.list_artifacts(run_id=run.info.run_id)]
best = mlflow.search_runs(
    filter_string="metrics.accuracy > 0.5 and params.max_depth = '3'",
    order_by=["metrics.accuracy DESC"],
)
"""


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Any]:
    """MLflow in an empty folder, as it was before afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("DO_NOT_TRACK", "true")
        patch.setenv("MLFLOW_LOGGING_LEVEL", "ERROR")
        patch.chdir(tmp_path)
        import mlflow  # noqa: PLC0415 - takes seconds
        from mlflow.utils import environment, requirements_utils  # noqa: PLC0415 - as above

        # What a model needs is found out by importing it in another process, for seconds.
        for module in (environment, requirements_utils):
            if hasattr(module, "_infer_requirements"):
                patch.setattr(module, "_infer_requirements", lambda *_, **__: ["scikit-learn"])
        before = mlflow.get_tracking_uri()
        yield mlflow
        mlflow.sklearn.autolog(disable=True)
        while mlflow.active_run():
            mlflow.end_run()
        mlflow.set_tracking_uri(before)
        mlflow.tracking.fluent._active_experiment_id = None


def run_script(script: str, address: str) -> dict[str, Any]:
    """Run a script with another address; return its names."""
    names: dict[str, Any] = {}
    exec(compile(script.replace(SERVER, address), "script.py", "exec"), names)  # noqa: S102 - our own
    return names


@pytest.fixture
def address(tmp_path: Path) -> str:
    """What MLflow is told of an empty lake."""
    return f"runlake://{tmp_path / 'lake'}"


@pytest.mark.usefixtures("mlflow")
def test_what_a_script_tracks_is_the_same_with_mlflow_on_a_lake_and_with_runlake(
    address: str, tmp_path: Path
) -> None:
    assert TRACKED.count("import mlflow\n") == TRACKED.count(SERVER) == 1
    theirs = run_script(TRACKED, address)["logged"]
    ours = TRACKED.replace("import mlflow\n", "import runlake as mlflow\n")
    try:
        assert run_script(ours, str(tmp_path / "own"))["logged"] == theirs
    finally:
        active.forget()
    assert theirs["status"] == "FINISHED"
    assert theirs["params"] == {"fit_intercept": "False", "positive": "False", "n_jobs": "None"}
    assert theirs["order"] == ["True", "False"]


def test_autologging_and_a_logged_model_work_on_a_lake(mlflow: Any, address: str) -> None:  # noqa: ANN401 - the module
    names = run_script(AUTOLOGGED, address)
    found = names["found"]
    assert names["difference"] == 0
    assert found.data.params["fit_intercept"] == "True"
    assert {"training_mean_squared_error", "training_r2_score"} <= set(found.data.metrics)
    (test_score,) = [value for key, value in found.data.metrics.items() if "test_x" in key]
    assert test_score == names["score"]
    assert found.data.tags["estimator_name"] == "LinearRegression"
    assert {each.tags[0].value for each in found.inputs.dataset_inputs} == {"train", "eval"}
    logged = [mlflow.get_logged_model(each.model_id) for each in found.outputs.model_outputs]
    assert {model.name for model in logged} == {"model", "by-hand"}
    assert {str(model.status) for model in logged} == {"READY"}
    assert all(model.params["fit_intercept"] == "True" for model in logged)


def test_a_registered_model_and_its_files_work_on_a_lake(mlflow: Any, address: str) -> None:  # noqa: ANN401 - the module
    names = run_script(FOREST, address)
    run, version = names["run"], names["version"]
    assert names["same"]
    assert (version.name, int(version.version), version.run_id) == (
        "iris-forest",
        1,
        run.info.run_id,
    )
    assert (version.status, version.tags, version.aliases) == (
        "READY",
        {"checked": "yes"},
        ["champion"],
    )
    assert names["report"].startswith("sepal length (cm),")
    assert names["files"] == ["reports"]
    assert names["best"]["run_id"].tolist() == [run.info.run_id]
    (model,) = mlflow.search_logged_models(output_format="list")
    assert (model.name, model.source_run_id) == ("forest", run.info.run_id)


def test_a_servers_address_is_refused_with_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(runlake.errors.InvalidInputError) as caught:
        runlake.set_tracking_uri(SERVER)
    assert SERVER in str(caught.value)
    assert "'./lake'" in str(caught.value)
    assert "runlake import mlflow" in str(caught.value)
    assert not list(tmp_path.iterdir())
