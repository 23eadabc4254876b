"""Runs that runlake itself has logged, as MLflow's client sees them: like MLflow's own."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.twins import RunTwins

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # MLflow's use of SQLAlchemy
]
GREATEST = sys.float_info.max


def told(run: Any, homes: dict[str, str]) -> dict[str, Any]:  # noqa: ANN401 - MLflow's run
    """Return all that a client says of a run; what MLflow keeps of infinities."""
    metrics = {
        key: "NaN" if math.isnan(value) else min(max(value, -GREATEST), GREATEST)
        for key, value in run.data.metrics.items()
    }
    inputs = [
        (each.dataset.name, each.dataset.digest, sorted((tag.key, tag.value) for tag in each.tags))
        for each in run.inputs.dataset_inputs
    ]
    info = run.info
    return {
        "run_id": info.run_id,
        "name": info.run_name,
        "home": homes[info.experiment_id],
        "status": info.status,
        "times": (info.start_time, info.end_time),
        "stage": info.lifecycle_stage,
        "user": info.user_id,
        "metrics": metrics,
        "params": run.data.params,
        "tags": run.data.tags,
        "inputs": sorted(inputs),
    }


def test_mlflows_client_tells_of_a_lakes_runs_as_of_its_own(
    runs: RunTwins, database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

    found = []
    for uri, homes in (
        (f"sqlite:///{database}", runs.store_homes),
        (f"runlake://{runs.lake.url}", runs.lake_homes),
    ):
        client = MlflowClient(uri, uri)
        names = {key: name for name, key in homes.items()}
        page = client.search_runs(list(names), run_view_type=3, max_results=1_000)
        found.append([told(run, names) for run in page])
    theirs, ours = found
    assert len(theirs) == len(runs.runs)
    assert [run["run_id"] for run in ours] == [run["run_id"] for run in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == other
