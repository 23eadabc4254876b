"""MLflow on its SQLite store, through the fluent functions."""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from benchmarks.rivals import Askable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from benchmarks.data import Sweep

_EXPERIMENT: Final = "benchmark"
_BEGAN_MS: Final = 1_750_000_000_000


class Adapter(Askable):
    """A database in a folder."""

    def __init__(self, folder: Path) -> None:
        """Make or open the database."""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        self._mlflow: Any = import_module("mlflow")
        self._database = folder / "mlflow.db"
        self._mlflow.set_tracking_uri(f"sqlite:///{self._database}")
        self._mlflow.set_experiment(_EXPERIMENT)

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

    def fill(self, sweep: Sweep) -> None:
        """Log one run as users do, and write the others beside it into the same tables.

        Through its functions 10,000 runs take minutes.
        """
        self.start("run-0")
        run_id = self._mlflow.active_run().info.run_id
        self.log({"made": 1.0}, 0)
        self.finish()
        with closing(sqlite3.connect(self._database)) as database:
            database.row_factory = sqlite3.Row
            pattern = dict(
                database.execute("SELECT * FROM runs WHERE run_uuid = ?", [run_id]).fetchone()
            )
            for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
                database.execute(f"DELETE FROM {table}")  # noqa: S608 - one of the names above
            for number in range(sweep.runs):
                for table, columns, rows in _rows(sweep, number, pattern):
                    marks = ", ".join("?" * len(columns))
                    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - as above
                    database.executemany(statement, rows)
            database.commit()

    def search(self, filter_string: str, order_by: Sequence[str], limit: int) -> list[str]:
        """Return the names of the runs that match, in order."""
        found = self._mlflow.search_runs(
            experiment_names=[_EXPERIMENT],
            filter_string=filter_string,
            order_by=list(order_by),
            max_results=limit,
            output_format="list",
        )
        return [run.info.run_name for run in found]

    def history(self, key: str) -> int:
        """Read the whole curve of a metric of the run `run-0`, and return its points."""
        client = self._mlflow.MlflowClient()
        (run,) = self._mlflow.search_runs(
            experiment_names=[_EXPERIMENT],
            filter_string="attributes.run_name = 'run-0'",
            output_format="list",
        )
        return len(client.get_metric_history(run.info.run_id, key))


def search_script(folder: Path, filter_string: str, order_by: Sequence[str], limit: int) -> str:
    """Return what a user writes to search in a new process."""
    return (
        "import mlflow\n"
        f"mlflow.set_tracking_uri('sqlite:///{folder}/mlflow.db')\n"
        f"mlflow.search_runs(experiment_names=[{_EXPERIMENT!r}], filter_string={filter_string!r}, "
        f"order_by={list(order_by)!r}, max_results={limit}, output_format='list')"
    )


def _rows(
    sweep: Sweep, number: int, pattern: Mapping[str, Any]
) -> Iterator[tuple[str, Sequence[str], Sequence[tuple[object, ...]]]]:
    """Yield what one run is in the database: table, columns, rows."""
    run_id, name = uuid.uuid4().hex, f"run-{number}"
    status = "FAILED" if sweep.has_failed(number) else "FINISHED"
    run = {**pattern, "run_uuid": run_id, "name": name, "status": status}
    run |= {"start_time": _BEGAN_MS + number, "end_time": _BEGAN_MS + number + 1}
    yield "runs", tuple(run), [tuple(run.values())]
    yield "tags", ("key", "value", "run_uuid"), [("mlflow.runName", name, run_id)]
    params = [(key, str(value), run_id) for key, value in sweep.params_of(number).items()]
    yield "params", ("key", "value", "run_uuid"), params
    values = sweep.values_of(number).tolist()
    columns = ("key", "value", "timestamp", "step", "is_nan", "run_uuid")
    for table, first in (("metrics", 0), ("latest_metrics", len(values) - 1)):
        rows = [
            (key, value, _BEGAN_MS + step, step, 0, run_id)
            for step, row in enumerate(values[first:], first)
            for key, value in zip(sweep.metrics_of(number), row, strict=True)
        ]
        yield table, columns, rows
