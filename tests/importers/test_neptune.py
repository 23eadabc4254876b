"""Runs of Neptune come whole from what its exporter left."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runlake import ids
from runlake.errors import NotFoundError
from runlake.importers import import_from
from runlake.importers.neptune import open_source
from runlake.importers.source import SourceError
from runlake.lake import open_lake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runlake.importers.source import SourceRun
    from runlake.lake import Lake

_T = datetime(2025, 1, 1, tzinfo=UTC)
# As the exporter's README gives it.
_FIELDS: list[tuple[str, pa.DataType]] = [
    ("project_id", pa.string()),
    ("run_id", pa.string()),
    ("attribute_path", pa.string()),
    ("attribute_type", pa.string()),
    ("step", pa.decimal128(18, 6)),
    ("timestamp", pa.timestamp("ms", tz="UTC")),
    ("int_value", pa.int64()),
    ("float_value", pa.float64()),
    ("string_value", pa.string()),
    ("bool_value", pa.bool_()),
    ("datetime_value", pa.timestamp("ms", tz="UTC")),
    ("string_set_value", pa.list_(pa.string())),
    ("file_value", pa.struct([("path", pa.string())])),
    (
        "histogram_value",
        pa.struct(
            [
                ("type", pa.string()),
                ("edges", pa.list_(pa.float64())),
                ("values", pa.list_(pa.float64())),
            ]
        ),
    ),
]
_SCHEMA = pa.schema(_FIELDS)


@pytest.fixture
def lake() -> Iterator[Lake]:
    """An empty lake."""
    with open_lake(f"memory://{ids.new_nonce()}/lake", refresh=0) as opened:
        yield opened


def _row(path: str, kind: str, run_id: str = "RUN-1", **values: object) -> dict[str, Any]:
    about = {"attribute_path": path, "attribute_type": kind}
    return {"project_id": "team/digits", "run_id": run_id} | about | values


def _loss(count: int, run_id: str = "RUN-1", *, width: str = "1") -> list[dict[str, Any]]:
    return [
        _row(
            "metrics/loss",
            "float_series",
            run_id,
            step=Decimal(step) * Decimal(width),
            timestamp=_T + timedelta(seconds=step),
            float_value=1 / (step + 1),
        )
        for step in range(count)
    ]


def _write(root: Path, rows: list[dict[str, Any]], name: str = "RUN-1_part_0") -> Path:
    folder = root / "data" / "team_digits_1a2b"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def _file(root: Path, path: str, content: bytes) -> None:
    (root / "files" / path).parent.mkdir(parents=True, exist_ok=True)
    (root / "files" / path).write_bytes(content)


def _only(root: Path, **options: str) -> SourceRun:
    (run,) = open_source(str(root), **options).runs()
    return run


def test_run_comes_whole_with_series_files_and_who_made_it(lake: Lake, tmp_path: Path) -> None:
    point: dict[str, Any] = {"step": Decimal(3), "timestamp": _T}
    counted = {"type": "COUNTING", "edges": [0.0, 1.0, 2.0], "values": [3.0, 4.0]}
    dense = {"type": "DENSITY", "edges": [0.0, 1.0], "values": [0.5]}
    rows = [
        _row("sys/name", "string", string_value="svm"),
        _row("sys/owner", "string", string_value="ada"),
        _row("sys/creation_time", "datetime", datetime_value=_T),
        _row("sys/tags", "string_set", string_set_value=["b", "a"]),
        _row("sys/failed", "bool", bool_value=True),
        _row("params/lr", "float", float_value=0.1),
        _row("params/n", "int", int_value=3),
        _row("params/when", "datetime", datetime_value=_T),
        _row("params/of_others", "int"),
        *_loss(4),
        _row("logs/out", "string_series", string_value="hello", **point),
        _row("weights", "histogram_series", histogram_value=counted, **point),
        _row("dense", "histogram_series", histogram_value=dense, **point),
        _row("model", "file", file_value={"path": "p/model.bin"}),
        _row("shown", "file_series", file_value={"path": "p/3.png"}, **point),
        _row("code", "file_set", file_value={"path": "p/code"}),
        _row("gone", "file", file_value={"path": "p/gone"}),
        _row("secret", "file", file_value={"path": "../../outside"}),
        _row("commit", "git_ref"),
    ]
    _write(tmp_path, rows)
    (tmp_path.parent / "outside").write_text("")
    for path in ("p/model.bin", "p/3.png", "p/code/a.py"):
        _file(tmp_path, path, path.encode())
    report = import_from("neptune", str(tmp_path), lake)
    assert (report.problems, report.brought, report.checked) == ([], 1, 1)
    row = lake.sql("SELECT * FROM runs").row(0, named=True)
    assert (row["run_name"], row["experiment_name"], row["user_id"], row["status"]) == (
        "svm",
        "team/digits",
        "ada",
        "FAILED",
    )
    assert row["params"] == {
        "params/lr": "0.1",
        "params/n": "3",
        "params/when": "2025-01-01T00:00:00+00:00",
    }
    assert row["tags"]["neptune.sys/tags"] == '["a", "b"]'
    assert row["start_time"] == _T
    points = lake.sql("SELECT step, value FROM metrics ORDER BY step").rows()
    assert points == [(step, 1 / (step + 1)) for step in range(4)]
    paths = lake.sql("SELECT path FROM artifacts ORDER BY path")["path"].to_list()
    assert paths == [
        "code/a.py",
        "model.bin",
        "neptune/values.jsonl",
        "shown/0000000000000000003.png",
    ]
    assert lake.sql("SELECT count(*) FROM histograms").item() == 1
    lost = {loss.what for loss in report.losses}
    assert "a file of it is not in the export" in lost
    assert "attributes of the type 'git_ref' are left out" in lost
    assert any("lies outside" in what for what in lost)


def test_second_import_brings_nothing(lake: Lake, tmp_path: Path) -> None:
    _write(tmp_path, _loss(3))
    import_from("neptune", str(tmp_path), lake)
    again = import_from("neptune", str(tmp_path), lake)
    assert (again.brought, again.already, again.points) == (0, 1, 0)


def test_steps_that_are_no_whole_numbers_are_all_multiplied_alike_and_named(tmp_path: Path) -> None:
    _write(tmp_path, _loss(3, width="0.25"))
    _write(tmp_path, _loss(2, "RUN-2"), "RUN-2_part_0")
    source = open_source(str(tmp_path))
    steps = {
        run.name: [row["step"] for table in run.points() for row in table.to_pylist()]
        for run in source.runs()
    }
    assert steps == {"RUN-1": [0, 25, 50], "RUN-2": [0, 100]}
    assert [note.what for note in source.notes()] == [
        "steps were no whole numbers: all of the import are multiplied by 100"
    ]
    (first, _) = open_source(str(tmp_path), step_multiplier="4").runs()
    assert [step for table in first.points() for step in table["step"].to_pylist()] == [0, 1, 2]
    (first, _) = open_source(str(tmp_path), step_multiplier="2").runs()
    with pytest.raises(SourceError, match="no whole numbers when they are multiplied by 2"):
        list(first.points())


def test_null_that_pandas_makes_of_nan_is_nan_again(tmp_path: Path) -> None:
    rows = _loss(2)
    rows[1]["float_value"] = None
    _write(tmp_path, rows)
    (table,) = _only(tmp_path).points()
    values = table["value"].to_numpy()
    assert values[0] == 1.0
    assert math.isnan(values[1])


def test_points_without_a_time_have_that_of_the_run_and_are_counted(tmp_path: Path) -> None:
    rows = [_row("sys/creation_time", "datetime", datetime_value=_T), *_loss(2)]
    rows[2]["timestamp"] = None
    _write(tmp_path, rows)
    run = _only(tmp_path)
    assert [time for table in run.points() for time in table["timestamp"].to_pylist()] == [_T, _T]
    assert [(note.about, note.count) for note in run.notes()] == [("metrics/loss", 1)]


def test_parts_of_a_run_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    rows = _loss(12)
    for part, row in enumerate(rows):
        _write(tmp_path, [row], f"RUN-1_part_{part}")
    steps = [step for table in _only(tmp_path).points() for step in table["step"].to_pylist()]
    assert steps == list(range(12))


def test_runs_in_one_file_are_told_apart(tmp_path: Path) -> None:
    _write(tmp_path, [*_loss(2), *_loss(3, "RUN-2")], "part_0")
    found = {run.source_id: run for run in open_source(str(tmp_path)).runs()}
    counts = {id_: sum(t.num_rows for t in run.points()) for id_, run in found.items()}
    assert counts == {"team/digits/RUN-1": 2, "team/digits/RUN-2": 3}


def test_strings_of_a_series_stand_in_a_file_of_lines(tmp_path: Path) -> None:
    point: dict[str, Any] = {"step": Decimal(3), "timestamp": _T, "string_value": "grün"}
    _write(tmp_path, [_row("logs/out", "string_series", **point)])
    (file,) = _only(tmp_path).artifacts()
    assert json.loads(file.fetch(tmp_path).read_text(encoding="utf-8")) == {
        "attribute": "logs/out",
        "type": "string_series",
        "step": 3,
        "time_us": round(_T.timestamp() * 1e6),
        "value": "grün",
    }


def test_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = _write(tmp_path, _loss(3))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"RUN-1_part_0\.parquet cannot be read"):
        open_source(str(tmp_path))


def test_folder_without_an_export_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="holds no export of Neptune"):
        open_source(str(tmp_path))
    with pytest.raises(NotFoundError, match="there is no"):
        open_source(str(tmp_path / "gone"))
    _write(tmp_path, _loss(1))
    with pytest.raises(SourceError, match="step_multiplier is a whole number"):
        open_source(str(tmp_path), step_multiplier="1.5")
