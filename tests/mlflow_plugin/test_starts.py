"""Processes that begin at once on an empty lake, through MLflow's client.

Here they are few; `python -m benchmarks mlflow` starts 32.
"""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING, Final

import pytest

import runlake

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # Python warns of forks where there are threads, as anybody's are who imports MLflow.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
PROCESSES: Final = 8
STEPS: Final = 10


def work(uri: str, number: int, barrier: Barrier) -> None:
    """Do what a training script does, all of it at once with the others."""
    import mlflow  # noqa: PLC0415 - imported before the fork

    barrier.wait(120)
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("together")
    with mlflow.start_run(run_name=f"run {number}"):
        mlflow.log_param("number", number)
        for step in range(STEPS):
            mlflow.log_metric("loss", number / (step + 1), step=step)
    found = mlflow.search_runs(filter_string=f"params.number = '{number}'", output_format="list")
    assert [run.info.status for run in found] == ["FINISHED"]


def test_eight_processes_begin_at_once_on_an_empty_lake_and_none_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "ERROR")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    import mlflow  # noqa: PLC0415 - once, for all: it takes seconds

    assert mlflow.active_run() is None
    # They are forks of a process that has MLflow: what is tested begins with the store.
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(PROCESSES)
    uri = f"runlake://{tmp_path / 'lake'}"
    processes = [
        context.Process(target=work, args=(uri, number, barrier)) for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert os.getpid() not in {process.pid for process in processes}
    with runlake.open(tmp_path / "lake", read_only=True) as lake:
        runs = lake.sql("SELECT run_name, status, params['number'] AS number FROM runs").to_dicts()
        points = lake.sql("SELECT count(*) AS n, count(DISTINCT run_id) AS runs FROM metrics")
        names = lake.sql("SELECT name FROM experiments WHERE name <> 'Default'")["name"].to_list()
    assert sorted(run["run_name"] for run in runs) == sorted(f"run {n}" for n in range(PROCESSES))
    assert {run["status"] for run in runs} == {"FINISHED"}
    assert points.row(0) == (PROCESSES * STEPS, PROCESSES)
    assert names == ["together"]
