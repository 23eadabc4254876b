"""Runs that the real MLflow tracked: the same script into a folder and into a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

T_MS = 1_700_000_000_123


class Tracked(NamedTuple):
    """What MLflow holds.

    Attributes:
        place: the folder or the database.
        uri: the tracking URI.
        ids: runs by what the script calls them.
        model_id: a logged model.
        lone_id: a logged model that no run made, version 1 of the registered model `lone`.
        made_ms: when MLflow made some things, milliseconds since 1970.
    """

    place: Path
    uri: str
    ids: dict[str, str]
    made_ms: dict[str, int]
    model_id: str
    lone_id: str


def track(uri: str, place: Path, files: Path) -> Tracked:
    """Log what MLflow's users log: nested, failed, running and deleted runs, files, models.

    Args:
        uri: of the store.
        place: where that is.
        files: folder for artifacts.
    """
    from mlflow import entities  # noqa: PLC0415 - takes seconds
    from mlflow.tracking import MlflowClient  # noqa: PLC0415 - as above

    client = MlflowClient(uri, uri)
    # A server hands files on: they lie where it says.
    location = None if uri.startswith("http") else f"{files.as_uri()}/digits"
    files.mkdir(exist_ok=True)
    home = client.create_experiment("digits", location, tags={"team": "vision"})
    ids: dict[str, str] = {}

    def begin(name: str, experiment_id: str = home, **tags: str) -> str:
        run = client.create_run(experiment_id, start_time=T_MS, tags=tags, run_name=name)
        ids[name] = run.info.run_id
        return ids[name]

    parent = begin("parent", **{"mlflow.user": "ada", "mlflow.source.name": "train.py"})
    child = begin("child", **{"mlflow.parentRunId": parent, "note": "zwei\nZeilen ü"})
    curve = [entities.Metric("loss", 1 / (step + 1), T_MS + step, step) for step in range(40)]
    strange = [
        entities.Metric("val/acc", float("nan"), T_MS, -3),
        entities.Metric("val/acc", 0.1, T_MS, 2**40),
    ]
    params = [entities.Param("lr", "0.1"), entities.Param("empty", " ")]
    client.log_batch(child, metrics=[*curve, *strange], params=params)
    dataset = entities.Dataset("train", "abc12345", "local", "{}", '{"s": 1}', '{"rows": 1}')
    tags = [entities.InputTag("mlflow.data.context", "training"), entities.InputTag("k", "v")]
    client.log_inputs(child, [entities.DatasetInput(dataset, tags)])
    client.log_text(child, "hello", "notes/a.txt")
    client.log_text(child, "", "empty.txt")
    model = client.create_logged_model(
        home, "net", source_run_id=child, tags={"t": "1"}, params={"p": "2"}, model_type="sklearn"
    )
    client.log_outputs(child, [entities.LoggedModelOutput(model.model_id, 3)])
    client.log_metric(
        child,
        "val/f1",
        0.5,
        timestamp=T_MS,
        step=2,
        model_id=model.model_id,
        dataset_name="train",
        dataset_digest="abc12345",
    )
    weights = files / "weights.bin"
    weights.write_bytes(b"weights")
    client.log_model_artifact(model.model_id, str(weights))
    client.finalize_logged_model(model.model_id, entities.LoggedModelStatus.READY)
    client.log_inputs(parent, models=[entities.LoggedModelInput(model.model_id)])
    lone = _alone(client, home, str(weights))
    client.set_terminated(child, "FAILED", T_MS + 5000)
    client.set_terminated(parent, "FINISHED", T_MS + 9000)
    client.delete_run(begin("deleted"))
    # A model of another experiment.
    client.log_inputs(begin("open", "0"), models=[entities.LoggedModelInput(model.model_id)])
    gone = client.create_experiment("gone", f"{files.as_uri()}/gone")
    client.log_metric(begin("in the bin", gone), "x", 1.5, timestamp=T_MS, step=0)
    client.delete_experiment(gone)
    client.create_experiment("empty", f"{files.as_uri()}/empty")
    _register(client, child, model.model_id)
    made_ms = {
        "digits": client.get_experiment(home).creation_time,
        "net/3": client.get_model_version("net", "3").creation_timestamp,
    }
    return Tracked(place, uri, ids, made_ms, model.model_id, lone)


def _alone(client: Any, home: str, file: str) -> str:  # noqa: ANN401 - MLflow's
    from mlflow import entities  # noqa: PLC0415 - as above

    made = client.create_logged_model(home, "lone", tags={"of": "nobody"})
    model_id: str = made.model_id
    client.log_model_artifact(model_id, file)
    client.finalize_logged_model(model_id, entities.LoggedModelStatus.READY)
    client.create_registered_model("lone")
    # Without a server MLflow would look for the model in its default store.
    told = {"model_id": model_id} if client.tracking_uri.startswith("http") else {}
    client.create_model_version("lone", made.artifact_location, **told)
    return model_id


def _register(client: Any, run_id: str, model_id: str) -> None:  # noqa: ANN401 - MLflow's
    client.create_registered_model("net", tags={"a": "b"}, description="a net")
    for number in range(3):
        client.create_model_version(
            "net",
            f"runs:/{run_id}/model",
            run_id,
            {"n": str(number)},
            description=f"v{number}",
            # A server takes no model with a source in a run.
            model_id=model_id if number and not client.tracking_uri.startswith("http") else None,
        )
    client.delete_model_version("net", "2")
    client.set_registered_model_alias("net", "champion", "3")
    client.transition_model_version_stage("net", "1", "Staging")
