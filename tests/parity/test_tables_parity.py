"""A script that logs and loads tables gets the same rows from MLflow and from a lake."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.meta.tree import run_python

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT: Final = """
import json, os, sys, warnings

import pandas as pd

if sys.argv[1] == "mlflow":
    warnings.simplefilter("ignore")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    import mlflow
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.create_experiment("tables", "artifacts")
else:
    import runlake as mlflow
    mlflow.set_tracking_uri("lake")
mlflow.set_experiment("tables")

ids = []
for number in range(2):
    with mlflow.start_run() as run:
        ids.append(run.info.run_id)
        mlflow.log_table({"prompt": ["a", "b"], "score": [0.5, number]}, "eval.json")
        mlflow.log_table(pd.DataFrame({"prompt": ["c"], "score": [2.0]}), "eval.json")
        mlflow.log_table({"prompt": "d", "score": 3.0}, artifact_file="eval.json")
        mlflow.log_table({"x": [1, 2], "run_id": ["mine", "mine"]}, "folder/other.json")
with mlflow.start_run():
    pass


def rows(frame):
    found = frame.to_dicts() if hasattr(frame, "to_dicts") else frame.to_dict("records")
    shown = [{k: ids.index(v) if v in ids else v for k, v in row.items()} for row in found]
    return sorted(map(json.dumps, shown))


print(json.dumps([
    rows(mlflow.load_table("eval.json")),
    rows(mlflow.load_table("eval.json", [ids[1]])),
    rows(mlflow.load_table("eval.json", run_ids=ids, extra_columns=["run_id", "status"])),
]))
try:
    mlflow.load_table("nothing.json")
except Exception as error:
    print(json.dumps(type(error).__name__))
"""


@pytest.mark.slow
def test_the_same_script_loads_the_same_tables_from_mlflow_and_from_a_lake(tmp_path: Path) -> None:
    def answers(module: str) -> list[Any]:
        (tmp_path / module).mkdir()
        lines = run_python("-c", SCRIPT, module, folder=tmp_path / module).splitlines()
        return [json.loads(line) for line in lines if line.startswith(("[", '"'))]

    theirs, ours = answers("mlflow"), answers("runlake")
    assert [len(rows) for rows in ours[0]] == [8, 4, 8]
    assert ours[0] == theirs[0]
    assert (theirs[1], ours[1]) == ("MlflowException", "NotFoundError")
