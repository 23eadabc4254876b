"""What the real MLflow tracked, once for all tests."""

from __future__ import annotations

import logging
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.importers.mlflow_made import Tracked, track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def quiet_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow tells nobody that it runs, and its folder store opens."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.fixture(scope="session")
def mlflow_folder(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    """A folder `mlruns`; copy it before you write to it."""
    root = tmp_path_factory.mktemp("folder")
    with _calm(root):
        return track((root / "mlruns").as_uri(), root / "mlruns", root / "files")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's without runs; copy it, because to make one takes seconds."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    with _calm(file.parent):
        from mlflow.tracking import MlflowClient  # noqa: PLC0415 - takes seconds

        MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Tracked:
    """A database with the same runs."""
    root = tmp_path_factory.mktemp("database")
    file = root / "mlflow.db"
    file.write_bytes(empty_database.read_bytes())
    with _calm(root):
        return track(f"sqlite:///{file}", file, root / "files")


@pytest.fixture(scope="module")
def mlflow_server(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> Iterator[Tracked]:
    """A tracking server in this process, over a database with the same runs."""
    root = tmp_path_factory.mktemp("server")
    file = root / "mlflow.db"
    file.write_bytes(empty_database.read_bytes())
    given = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{file}",
        "_MLFLOW_SERVER_REGISTRY_STORE": f"sqlite:///{file}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(root / "served"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    with _calm(root), pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        from mlflow.server import app, handlers  # noqa: PLC0415 - takes seconds
        from werkzeug.serving import make_server  # noqa: PLC0415 - as above

        for name in ("_tracking_store", "_model_registry_store", "_artifact_repo"):
            patch.setattr(handlers, name, None)
        # A server names its own store to all clients of its process.
        patch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
        patch.setattr("mlflow.tracking._model_registry.utils._registry_uri", None)
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            patch.setenv(name, f"sqlite:///{file}")
        server = make_server("127.0.0.1", 0, app, threaded=True)
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        tracked = track(f"http://127.0.0.1:{server.port}", file, root / "files")
        for name in [*given][:3]:  # it has its stores; others of this process get theirs
            patch.delenv(name)
        yield tracked
        server.shutdown()
        serving.join()
        server.server_close()


@contextmanager
def _calm(folder: Path) -> Iterator[None]:
    """Have MLflow say and warn of nothing while data are made, and leave files there only."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.chdir(folder)  # where MLflow makes a store of its own beside the one that it is given
        for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_ALLOW_FILE_STORE"):
            patch.setenv(name, "true")
        yield
