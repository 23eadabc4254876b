"""MLflow's own server on a lake, asked over HTTP as its clients do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests

from runlake import settings
from runlake.mlflow_plugin.lakes import SharedLake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow")

# Ends with whoever started it.
_SERVER: Final = """
import sys, threading
import mlflow.server
from werkzeug.serving import make_server
server = make_server("127.0.0.1", 0, mlflow.server.app, threaded=True)
print(server.port, flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
server.serve_forever()
"""


class Server:
    """One worker of MLflow's server, with the variables that `mlflow server` gives it."""

    def __init__(self, folder: Path) -> None:
        """Start it on a lake below a folder, with artifacts as by default."""
        self.folder = folder
        given = {
            "_MLFLOW_SERVER_FILE_STORE": f"runlake://{folder / 'lake'}",
            "_MLFLOW_SERVER_REGISTRY_STORE": f"runlake://{folder / 'lake'}",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "./mlartifacts",
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "RUNLAKE_JOURNAL": str(folder / "journals"),
        }
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", _SERVER],
                cwd=folder,
                env={**os.environ, **given},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        port = self.process.stdout.readline().strip()
        assert port, (folder / "log").read_text()
        self.url = f"http://127.0.0.1:{port}"
        self.experiment_id = str(self.post("experiments/create", name="raw")["experiment_id"])

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """Ask, as R's and Java's clients do."""
        return self._answer(requests.get(self._at(path), params=query, timeout=60))  # type: ignore[arg-type]  # texts and numbers

    def post(self, path: str, **body: Any) -> dict[str, Any]:  # noqa: ANN401 - texts and numbers
        """Say, as R's and Java's clients do."""
        return self._answer(requests.post(self._at(path), json=body, timeout=60))

    def start_run(self) -> str:
        made = self.post("runs/create", experiment_id=self.experiment_id, start_time=1)
        return str(made["run"]["info"]["run_id"])

    def end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(timeout=60)

    def _at(self, path: str) -> str:
        return f"{self.url}/api/2.0/mlflow/{path}"

    @staticmethod
    def _answer(response: requests.Response) -> dict[str, Any]:
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.end()


@pytest.fixture
def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401 - MLflow's
    import mlflow  # noqa: PLC0415 - takes seconds

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)  # for downloads of artifacts
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return mlflow.MlflowClient(tracking_uri=server.url, registry_uri=server.url)


def test_client_over_http_reads_what_it_logs(client: Any) -> None:  # noqa: ANN401 - MLflow's
    experiment_id = client.create_experiment("over http", tags={"team": "vision"})
    run_id = client.create_run(experiment_id, run_name="first").info.run_id
    client.log_param(run_id, "lr", 0.1)
    client.set_tag(run_id, "stage", "trial")
    for step in range(5):
        client.log_metric(run_id, "loss", 1 / (step + 1), step=step)
        assert client.get_run(run_id).data.metrics == {"loss": 1 / (step + 1)}
    client.set_terminated(run_id)
    [found] = client.search_runs([experiment_id], "metrics.loss < 0.5 and params.lr = '0.1'")
    assert (found.info.run_id, found.info.status) == (run_id, "FINISHED")
    assert (found.data.tags["stage"], found.info.run_name) == ("trial", "first")
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == [0, 1, 2, 3, 4]
    client.delete_run(run_id)
    assert client.search_runs([experiment_id]) == []
    client.restore_run(run_id)
    client.delete_experiment(experiment_id)
    assert client.get_experiment(experiment_id).lifecycle_stage == "deleted"
    client.restore_experiment(experiment_id)
    assert [run.info.run_id for run in client.search_runs([experiment_id])] == [run_id]
    client.create_registered_model("digits", description="of hands")
    client.create_model_version("digits", f"runs:/{run_id}/model", run_id)
    client.set_registered_model_alias("digits", "champion", "1")
    assert client.get_model_version_by_alias("digits", "champion").run_id == run_id


def test_artifacts_that_pass_through_the_server_lie_in_the_lake(
    client: Any,  # noqa: ANN401 - MLflow's
    server: Server,
    tmp_path: Path,
) -> None:
    run = client.create_run(server.experiment_id)
    run_id = run.info.run_id
    assert run.info.artifact_uri == f"mlflow-artifacts:/{server.experiment_id}/{run_id}/artifacts"
    client.log_text(run_id, "hello", "notes/a.txt")
    assert [(file.path, file.is_dir) for file in client.list_artifacts(run_id)] == [("notes", True)]
    [file] = client.list_artifacts(run_id, "notes")
    assert (file.path, file.file_size) == ("notes/a.txt", 5)
    [got] = (tmp_path / client.download_artifacts(run_id, "notes", str(tmp_path))).iterdir()
    assert got.read_text() == "hello"
    shown = requests.get(
        f"{server.url}/get-artifact", {"run_uuid": run_id, "path": "notes/a.txt"}, timeout=60
    )
    assert shown.text == "hello"
    with _open(server.folder) as lake:
        assert [each.path for each in lake.artifacts.list(run_id, "notes")] == ["notes/a.txt"]
    assert not (server.folder / "mlartifacts").exists()


def test_numbers_may_come_as_texts_as_from_r(server: Server) -> None:
    run_id = server.start_run()
    for value in ("0.5", "NaN"):
        server.post(
            "runs/log-metric",
            run_uuid=run_id,
            run_id=run_id,
            key="loss",
            value=value,
            timestamp="1700000000000",
            step="3" if value == "0.5" else "2",
        )
    server.post("runs/log-parameter", run_id=run_id, key="lr", value="0.1")
    server.post("runs/update", run_id=run_id, status="FINISHED", end_time="1700000001000")
    run = server.get("runs/get", run_id=run_id)["run"]
    assert run["data"]["metrics"] == [
        {"key": "loss", "value": 0.5, "timestamp": 1700000000000, "step": 3}
    ]
    assert (run["info"]["status"], run["info"]["end_time"]) == ("FINISHED", 1700000001000)
    points = server.get("metrics/get-history", run_id=run_id, metric_key="loss")["metrics"]
    assert [(point["step"], str(point["value"]).lower()) for point in points] == [
        (2, "nan"),
        (3, "0.5"),
    ]


def test_page_of_a_run_shows_infinite_values_as_mlflows_own_stores_keep_them(
    server: Server,
) -> None:
    run_id, most = server.start_run(), sys.float_info.max
    for step, value in enumerate(("-Infinity", "Infinity")):
        server.post(
            "runs/log-metric", run_id=run_id, key="loss", value=value, step=step, timestamp=1
        )
    run = _ask_as_pages(
        server,
        "MlflowGetRunInput",
        "mlflowGetRun",
        "run { data { metrics { value } } }",
        runId=run_id,
    )
    assert run["run"]["data"]["metrics"] == [{"value": most}]
    curve = _ask_as_pages(
        server,
        "MlflowGetMetricHistoryBulkIntervalInput",
        "mlflowGetMetricHistoryBulkInterval",
        "metrics { value }",
        runIds=[run_id],
        metricKey="loss",
        maxResults=320,
    )
    assert curve["metrics"] == [{"value": -most}, {"value": most}]
    [kept] = server.get("runs/get", run_id=run_id)["run"]["data"]["metrics"]
    assert kept["value"] == "Infinity"


def test_traces_of_old_clients_are_refused_with_mlflows_own_error(server: Server) -> None:
    trace: dict[str, Any] = {"experiment_id": server.experiment_id, "timestamp_ms": 1}
    asked = (
        requests.post(server._at("traces"), json=trace, timeout=60),
        requests.patch(
            server._at("traces/one"), json={"timestamp_ms": 2, "status": "OK"}, timeout=60
        ),
    )
    for answer in asked:
        assert (answer.status_code, answer.json()["error_code"]) == (501, "NOT_IMPLEMENTED")


@pytest.mark.parametrize(
    "path",
    [
        "gateway/endpoints/list",
        "gateway/endpoints/bindings/list",
        "gateway/model-definitions/list",
        "gateway/secrets/list",
        "gateway/budgets/list",
    ],
)
def test_pages_of_the_gateway_find_nothing(server: Server, path: str) -> None:
    answer = requests.get(f"{server.url}/ajax-api/3.0/mlflow/{path}", timeout=60)
    assert (answer.status_code, answer.json()) == (200, {})


def test_evaluation_set_is_refused_so_that_clients_do_not_try_again(server: Server) -> None:
    at = f"{server.url}/ajax-api/3.0/mlflow/datasets/create"
    answer = requests.post(at, json={"name": "questions"}, timeout=60)
    assert (answer.status_code, answer.json()["error_code"]) == (501, "NOT_IMPLEMENTED")


def test_version_that_no_run_made_has_an_empty_run_over_http(server: Server) -> None:
    server.post("registered-models/create", name="runless")
    made = server.post("model-versions/create", name="runless", source="s3://bucket/model")
    assert made["model_version"]["run_id"] == ""
    found = server.get("model-versions/get", name="runless", version=1)
    assert found["model_version"]["run_id"] == ""


def test_refusals_have_mlflows_codes(server: Server) -> None:
    missing = requests.get(server._at("runs/get"), {"run_id": "a" * 32}, timeout=60)
    assert (missing.status_code, missing.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    taken = requests.post(server._at("experiments/create"), json={"name": "raw"}, timeout=60)
    assert (taken.status_code, taken.json()["error_code"]) == (400, "RESOURCE_ALREADY_EXISTS")
    wrong = requests.post(server._at("runs/search"), json={"filter": "x >"}, timeout=60)
    assert (wrong.status_code, wrong.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_single_points_of_many_clients_are_committed_in_groups(server: Server) -> None:
    clients, points = 4, 60
    runs = [server.start_run() for _ in range(clients)]
    before = _objects(server.folder)

    def log(run_id: str) -> None:
        session = requests.Session()
        for step in range(points):
            body: dict[str, Any] = {
                "run_id": run_id,
                "key": "m",
                "value": step,
                "step": step,
                "timestamp": 1,
            }
            answer = session.post(server._at("runs/log-metric"), json=body, timeout=60)
            assert answer.status_code == 200
        session.close()

    threads = [threading.Thread(target=log, args=(run_id,)) for run_id in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _objects(server.folder) - before < clients * points / 8
    for run_id in runs:
        found = server.get("metrics/get-history", run_id=run_id, metric_key="m")["metrics"]
        assert [point["value"] for point in found] == [float(step) for step in range(points)]


def test_killed_server_loses_nothing_and_its_runs_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path)
    run_id = server.start_run()
    for step in range(5):
        server.post("runs/log-metric", run_id=run_id, key="m", value=step, step=step, timestamp=1)
    server.process.kill()
    server.end()
    monkeypatch.setenv("RUNLAKE_JOURNAL", str(tmp_path / "journals"))
    with _open(tmp_path) as lake:
        run = lake.get_run(run_id)
    assert (run.data.metrics, run.info.status) == ({"m": 4.0}, "RUNNING")


def _ask_as_pages(
    server: Server, type_name: str, field: str, wanted: str, **given: object
) -> dict[str, Any]:
    """Ask in GraphQL; an error beside the answer is one that the page shows in its place."""
    query = f"query($data: {type_name}!) {{ {field}(input: $data) {{ {wanted} }} }}"
    body: dict[str, Any] = {"query": query, "variables": {"data": given}}
    answer = requests.post(f"{server.url}/graphql", json=body, timeout=60).json()
    assert answer["errors"] is None
    found: dict[str, Any] = answer["data"][field]
    return found


def _open(folder: Path) -> SharedLake:
    resolved, origin = settings.resolve(url=str(folder / "lake"), refresh_s=0.0)
    return SharedLake(resolved, origin=origin)


def _objects(folder: Path) -> int:
    return sum(1 for file in (folder / "lake").rglob("*.parquet") if file.is_file())
