"""Libraries that log by themselves once MLflow is told to; on a lake as elsewhere.

Each test runs where its library is installed, and is skipped with the library's name elsewhere:
`pip install xgboost lightgbm lightning transformers accelerate keras torch`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
ROUNDS = 5
EPOCHS = 3


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip where a package is missing; none is imported for it, which takes up to a minute."""
    missing = [name for name in names if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")


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
    [pytest.param(name, marks=needs(name)) for name in ("xgboost", "lightgbm")],
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


def curve(mlflow: Any, run_id: str, key: str) -> list[tuple[int, float]]:  # noqa: ANN401 - the module
    """Return the steps and values of a metric."""
    points = mlflow.MlflowClient().get_metric_history(run_id, key)
    return [(point.step, point.value) for point in points]


@needs("keras", "torch")
def test_keras_logs_a_point_of_each_epoch_and_its_model_loads_again(
    mlflow: Any,  # noqa: ANN401 - the module
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = import_module("keras")
    features, target = (each.astype("float32") for each in drawn())
    layers = [keras.layers.Input((4,)), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential(layers)
    model.compile(optimizer="sgd", loss="binary_crossentropy")
    mlflow.keras.autolog(log_models=False)
    try:
        with mlflow.start_run() as run:
            told = model.fit(features, target, epochs=EPOCHS, verbose=0)
            # What autologging adds to a model are minutes that it looks for requirements in.
            kept = mlflow.keras.log_model(model, name="net", pip_requirements=["keras"])
    finally:
        mlflow.keras.autolog(disable=True)
    found = mlflow.get_run(run.info.run_id)
    assert curve(mlflow, run.info.run_id, "loss") == list(enumerate(told.history["loss"]))
    assert found.data.params["optimizer_name"] == "sgd"
    assert found.inputs.dataset_inputs
    assert mlflow.artifacts.load_text(f"{found.info.artifact_uri}/model_summary.txt")
    again = mlflow.keras.load_model(kept.model_uri)
    expected = model.predict(features, verbose=0)
    np.testing.assert_array_equal(again.predict(features, verbose=0), expected)


def lightning_module(lightning: Any, torch: Any) -> Any:  # noqa: ANN401 - the modules
    """Return a linear model as Lightning trains it."""

    class Linear(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"lr": 0.1, "net": {"width": 1}})
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, _index: int) -> Any:  # noqa: ANN401 - tensors
            features, target = batch
            guessed = self.layer(features)[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(guessed, target)
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:  # noqa: ANN401 - an optimizer
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Linear()


@needs("lightning", "torch")
def test_logger_of_lightning_keeps_points_params_and_checkpoints(
    mlflow: Any,  # noqa: ANN401 - the module
    tmp_path: Path,
) -> None:
    torch, lightning = import_module("torch"), import_module("lightning")
    loggers = import_module("lightning.pytorch.loggers")
    columns = (torch.tensor(each.astype("float32")) for each in drawn())
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*columns), batch_size=20)
    uri = mlflow.get_tracking_uri()
    logger = loggers.MLFlowLogger(
        "by Lightning", run_name="linear", tracking_uri=uri, tags={"of": "a test"}, log_model=True
    )
    trainer = lightning.Trainer(
        max_epochs=2,
        logger=logger,
        log_every_n_steps=1,
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(lightning_module(lightning, torch), batches)
    found = mlflow.get_run(logger.run_id)
    assert (found.info.run_name, found.info.status) == ("linear", "FINISHED")
    assert found.data.params == {"lr": "0.1", "net/width": "1"}
    assert found.data.tags["of"] == "a test"
    assert [step for step, _ in curve(mlflow, logger.run_id, "loss")] == list(range(6))
    epochs = [value for _, value in curve(mlflow, logger.run_id, "epoch")]
    assert epochs == [0.0] * 3 + [1.0] * 3
    place = Path(
        mlflow.artifacts.download_artifacts(run_id=logger.run_id, dst_path=str(tmp_path / "got"))
    )
    kept = {file.suffix for file in place.glob("epoch=1*/*")}
    assert kept == {".ckpt", ".txt", ".yaml"}


@needs("transformers", "accelerate", "torch")
def test_callback_of_transformers_keeps_points_params_and_checkpoints(
    mlflow: Any,  # noqa: ANN401 - the module
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_MLFLOW_LOG_ARTIFACTS", "1")
    transformers = import_module("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.BertConfig(
        vocab_size=10, intermediate_size=8, max_position_embeddings=8, **sizes
    )
    words = [
        {"input_ids": [1, 2, 3], "attention_mask": [1, 1, 1], "labels": number % 2}
        for number in range(8)
    ]
    settings = transformers.TrainingArguments(
        str(tmp_path / "out"),
        report_to=["mlflow"],
        run_name="bert",
        max_steps=EPOCHS,
        logging_steps=1,
        save_steps=EPOCHS,
        use_cpu=True,
        disable_tqdm=True,
    )
    model = transformers.BertForSequenceClassification(config)
    transformers.Trainer(model, settings, train_dataset=words).train()
    mlflow.end_run()
    found = mlflow.last_active_run()
    assert (found.info.run_name, found.info.status) == ("bert", "FINISHED")
    # Over 100 params go in several batches.
    assert len(found.data.params) > 100
    assert found.data.params["hidden_size"] == "8"
    steps = [step for step, _ in curve(mlflow, found.info.run_id, "loss")]
    assert steps == [1, 2, EPOCHS]
    # A checkpoint is a logged model, with all of its files.
    (model_output,) = found.outputs.model_outputs
    kept = mlflow.get_logged_model(model_output.model_id)
    assert (kept.name, kept.status) == (f"checkpoint-{EPOCHS}", "READY")
    place = Path(
        mlflow.artifacts.download_artifacts(kept.model_uri, dst_path=str(tmp_path / "got"))
    )
    assert list(place.glob("artifacts/*/model.safetensors"))
