"""CSV and JSON lines in each of their forms, with and without a map of columns."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from runlake import ids
from runlake.errors import InvalidInputError, NotFoundError
from runlake.importers import import_from, tables
from runlake.importers.facts import ids_of
from runlake.importers.source import SourceError
from runlake.lake import open_lake
from tests.importers.made import counted, points_in

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.lake import Lake

_HEX = "0123456789abcdef" * 2


def _memory() -> Lake:
    return open_lake(f"memory://{ids.new_nonce()}/lake", refresh=0)


def test_wide_csv_keeps_every_digit_and_no_empty_cell_is_a_point(tmp_path: Path) -> None:
    file = tmp_path / "curves.csv"
    file.write_text(
        "run,epoch,timestamp,loss,acc,team\n"
        f"{_HEX},0,1700000000000,0.1000000000000000055511151231257827,nan,0012\n"
        f"{_HEX},1,2023-11-14T22:13:20.123456Z,inf,,0012\n"
        "b,0,,-1e-320,0.5,x\n"
    )
    with _memory() as lake:
        report = import_from("csv", str(file), lake, columns={"tags": ["team"]})
        assert report.problems == []
        at = 1_700_000_000_000_000
        assert points_in(lake, _HEX) == counted(
            [("loss", 0, at, 0.1), ("acc", 0, at, math.nan), ("loss", 1, at + 123_456, math.inf)]
        )
        other = ids_of("csv", "curves/b")
        assert points_in(lake, other) == counted([("loss", 0, 0, -1e-320), ("acc", 0, 0, 0.5)])
        assert lake.get_run(_HEX).data.tags == {"team": "0012"}
        assert lake.get_run(other).info.run_name == "b"
        assert import_from("csv", str(file), lake, columns={"tags": "team"}).already == 2


def test_long_form_counts_steps_where_there_are_none(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    lines: list[dict[str, object]] = [
        {"run": "a", "metric": "loss", "value": 2.5, "params": {"lr": 0.1, "net": {"depth": 3}}},
        {"run": "a", "metric": "acc", "value": "NaN"},
        {"run": "a", "metric": "loss", "value": 1},
        {"run": "a", "metric": "loss", "value": "fast"},
        {"run": "a", "metric": None, "value": 1},
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    with _memory() as lake:
        report = import_from("jsonl", str(file), lake, experiment="mine")
        run_id = ids_of("jsonl", "mine/a")
        assert points_in(lake, run_id) == counted(
            [("loss", 0, 0, 2.5), ("acc", 0, 0, math.nan), ("loss", 1, 0, 1.0)]
        )
        assert lake.get_run(run_id).data.params == {"lr": "0.1", "net.depth": "3"}
        assert {loss.what.partition(":")[0]: loss.count for loss in report.losses} == {
            "value is no number": 1,
            "point without a key": 1,
            "points have no time": 3,
        }


def test_table_of_runs_as_mlflow_exports_it(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    file.write_text(
        "run_id,experiment,status,start_time,end_time,metrics.acc,params.lr,tags.mlflow.user,seed\n"
        f"{_HEX},digits,FAILED,2026-01-01 10:00:00+00:00,2026-01-01 11:00:00+00:00,0.5,0.1,ada,7\n"
    )
    with _memory() as lake:
        report = import_from("csv", str(file), lake)
        assert report.problems == []
        record = lake.get_run(_HEX)
        assert record.info.status == "FAILED"
        assert (record.info.end_time or 0) - record.info.start_time == 3_600_000
        assert record.data.metrics == {"acc": 0.5}
        assert record.data.params == {"lr": "0.1", "seed": "7"}
        assert record.data.tags == {"mlflow.user": "ada"}
        assert report.experiments == ["digits"]


def test_large_file_is_cut_by_run_and_rows_of_a_run_may_lie_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "many.csv"
    rows = [f"run{number % 7},{number // 7},{number}" for number in range(700)]
    file.write_text("\n".join(["run,step,loss", *rows]))
    monkeypatch.setattr(tables, "_PART_BYTES", 2000)
    with _memory() as lake:
        report = import_from("csv", str(file), lake)
        assert (report.brought, report.points, report.problems) == (7, 700, [])
        found = points_in(lake, ids_of("csv", "many/run3"))
        assert found == counted([("loss", step, 0, float(step * 7 + 3)) for step in range(100)])


def test_columns_left_out_or_changing_within_a_run_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("run,step,loss,note,lr\na,0,1,x,0.1\na,1.5,2,y,0.2\n")
    with _memory() as lake:
        report = import_from("csv", str(file), lake, columns={"left": "note", "params": "lr"})
        assert lake.get_run(ids_of("csv", "a/a")).data.params == {"lr": "0.1"}
        assert {loss.what.partition(",")[0].partition(":")[0] for loss in report.losses} == {
            "column left out",
            "column changes within a run",
            "step was no whole number",
            "points have no time",
        }


def test_files_that_are_no_tables_are_told(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    with _memory() as lake:
        with pytest.raises(NotFoundError):
            import_from("csv", str(file), lake)
        file.write_text("run,run\n")
        with pytest.raises(SourceError, match="each once"):
            import_from("csv", str(file), lake)
        file.write_text("run,step,loss\na,0\n")
        with pytest.raises(SourceError, match="no CSV with 3 columns"):
            import_from("csv", str(file), lake)
        file.write_text("run,loss\na,0\na,1\n")
        with pytest.raises(SourceError, match="no column tells the step"):
            import_from("csv", str(file), lake)
        file.write_text("[1]\n")
        with pytest.raises(SourceError, match="line 1 is no JSON object"):
            import_from("jsonl", str(file), lake)
        file.write_text("run,step,loss\na,0,1\n")
        with pytest.raises(InvalidInputError, match="there is no column 'epoch'"):
            import_from("csv", str(file), lake, columns={"step": "epoch"})
