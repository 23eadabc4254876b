"""MLflow on its SQLite store, through the fluent functions."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.rivals import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Adapter(Tracker):
    """A database in a folder."""

    def __init__(self, folder: Path) -> None:
        """Make or open the database."""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        self._mlflow: Any = import_module("mlflow")
        self._mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        self._mlflow.set_experiment("benchmark")

    def start(self, name: str) -> None:
        """Begin a run."""
        self._mlflow.start_run(run_name=name)

    def params(self, params: Mapping[str, object]) -> None:
        """Log hyperparameters in one request."""
        self._mlflow.log_params(params)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log one step in one request."""
        self._mlflow.log_metrics(metrics, step=step)

    def finish(self) -> None:
        """End the run."""
        self._mlflow.end_run()
