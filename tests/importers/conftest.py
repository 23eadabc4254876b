"""What the real MLflow tracked, once for all tests."""

from __future__ import annotations

import logging
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
