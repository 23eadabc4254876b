"""Files out of a lake, by `Lake.export`."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, NamedTuple

import fsspec
import numpy as np
import polars as pl
import pytest

import runlake
from runlake.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    RunlakeError,
    StorageError,
)
from runlake.query import Query, takeout
from runlake.query.formats import FORMATS
from runlake.query.outlet import Outlet
from runlake.query.views import VIEWS
from runlake.settings import Settings
from runlake.storage.localfs import LocalFilesystem
from tests.query.builders import NOW_US, snapshot, write_points

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runlake.lake import Lake
    from tests.conftest import Place


class Filled(NamedTuple):
    """A lake with one run that holds everything, and one that is deleted."""

    lake: Lake
    run_id: str
    gone: str


def fill(lake: Lake) -> Filled:
    with lake.start_run("svm", experiment="digits", tags={"team": 'v"1"'}) as run:
        run.log_params({"C": 1.0, "note": "two\nlines, é"})
        for step, value in enumerate([1.0, math.nan, math.inf, -0.0]):
            run.log({"loss": value}, step=step)
        run.log_text("hello", "notes/hello.txt")
        run.log_dict({"a": 1}, "config.json")
        run.log_histogram("weights", [0.0, 0.5, math.nan], bins=2, step=-1)
    with lake.start_run("gone", experiment="digits") as other:
        other.log({"loss": 0.5})
        other.log_text("x", "x.txt")
    lake.delete_run(other.run_id)
    lake.flush()
    return Filled(lake, run.run_id, other.run_id)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Filled]:
    """Make the lake."""
    with runlake.open(tmp_path / "lake") as lake:
        yield fill(lake)


def read_back(file: Path) -> pl.DataFrame:
    match file.suffix:
        case ".parquet":
            return pl.read_parquet(file)
        case ".arrow":
            return pl.read_ipc(file)
        case ".csv":
            return pl.read_csv(file)
    return pl.read_ndjson(file)


def left_over(folder: Path) -> list[str]:
    """Return what should not be in a folder: files that were half written."""
    return [file.name for file in folder.iterdir() if file.name.endswith(".tmp")]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_table_goes_into_one_file_of_each_format(
    filled: Filled, tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / "new" / f"out.{suffix}"
    found = filled.lake.export(target, what="metrics")
    assert found.paths == (str(target),)
    assert found.row_count == 5
    assert found.size_bytes == target.stat().st_size
    frame = read_back(target)
    assert frame.columns == [name for name, _ in VIEWS["metrics"]]
    values = frame.filter(pl.col("run_id") == filled.run_id).sort("step")["value"]
    assert [float(value) for value in values][2:] == [math.inf, 0.0]
    assert math.isnan(float(values[1]))
    assert left_over(target.parent) == []


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_comes_back_from_parquet_as_sql_shows_it(
    filled: Filled, tmp_path: Path, view: str
) -> None:
    filled.lake.export(tmp_path / "out.parquet", what=view)
    order = ", ".join(f'"{name}"' for name, kind in VIEWS[view] if "MAP" not in kind)
    wanted = filled.lake.sql(f"FROM {view} ORDER BY {order}")
    back = pl.read_parquet(tmp_path / "out.parquet")
    assert back.schema == wanted.schema
    assert sorted(map(repr, back.to_dicts())) == sorted(map(repr, wanted.to_dicts()))


def test_a_select_is_exported_as_a_view_is(filled: Filled, tmp_path: Path) -> None:
    statement = "SELECT run_name AS name, params['C'] AS c FROM runs WHERE run_name = 'svm'"
    filled.lake.export(tmp_path / "out.csv", what=statement)
    assert (tmp_path / "out.csv").read_text() == "name,c\nsvm,1.0\n"


def test_a_stream_gets_one_table_and_stays_open(filled: Filled) -> None:
    sink = io.BytesIO()
    found = filled.lake.export(sink, what="SELECT 1 AS a", format="jsonl")
    assert (found.paths, found.row_count) == ((), 1)
    assert sink.getvalue() == b'{"a":1}\n'


def test_a_view_of_one_run_holds_its_rows_only(filled: Filled, tmp_path: Path) -> None:
    filled.lake.export(tmp_path / "m.parquet", what="metrics", run_id=filled.gone)
    assert pl.read_parquet(tmp_path / "m.parquet")["value"].to_list() == [0.5]


def test_one_run_goes_into_a_folder_with_all_that_it_holds(filled: Filled, tmp_path: Path) -> None:
    target = tmp_path / "out"
    found = filled.lake.export(target, run_id=filled.run_id)
    inside = ["artifacts/config.json", "artifacts/notes/hello.txt", "events.parquet"]
    inside += ["metrics.parquet", "run.json"]
    assert sorted(found.paths) == [f"{target}/{name}" for name in inside]
    assert found.paths[-1].endswith("run.json")
    assert (target / "artifacts" / "notes" / "hello.txt").read_text() == "hello"
    about = json.loads((target / "run.json").read_text("utf-8"))
    assert about["run_id"] == filled.run_id
    assert about["status"] == "FINISHED"
    assert about["params"] == {"C": "1.0", "note": "two\nlines, é"}
    assert about["tags"] == {"team": 'v"1"'}
    assert about["metrics"]["loss"]["count"] == 4
    assert about["metrics"]["loss"]["max"] == "Infinity"
    assert [file["path"] for file in about["artifacts"]] == ["config.json", "notes/hello.txt"]
    metrics = pl.read_parquet(target / "metrics.parquet")
    assert metrics["step"].to_list() == [0, 1, 2, 3]
    assert set(metrics["run_id"]) == {filled.run_id}


def test_artifacts_of_a_run_can_be_left_out(filled: Filled, tmp_path: Path) -> None:
    filled.lake.export(tmp_path / "out", run_id=filled.run_id, artifacts=False)
    assert not (tmp_path / "out" / "artifacts").exists()


def test_a_whole_lake_goes_into_a_folder_that_explains_itself(
    filled: Filled, tmp_path: Path
) -> None:
    found = filled.lake.export(tmp_path / "out", format="csv")
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == sorted(["README.md", *(f"{view}.csv" for view in VIEWS)])
    assert found.paths[-1] == f"{tmp_path}/out/README.md"
    readme = (tmp_path / "out" / "README.md").read_text("utf-8")
    silent = [
        f"{view}.{name}"
        for view, columns in VIEWS.items()
        for name, _ in columns
        if f"| `{name}` |" not in readme.partition(f"## `{view}.csv`")[2].partition("\n## ")[0]
    ]
    assert silent == []
    assert "`runs.csv`: 2 rows" in readme
    assert filled.lake.url in readme


def test_every_view_has_a_sentence_for_those_who_find_its_file() -> None:
    assert takeout.TABLES.keys() == VIEWS.keys()


def test_a_whole_lake_with_artifacts_in_an_archive(filled: Filled, tmp_path: Path) -> None:
    target = tmp_path / "all.zip"
    found = filled.lake.export(target, artifacts=True)
    assert found.paths == (str(target),)
    assert found.size_bytes == target.stat().st_size
    with zipfile.ZipFile(target) as packed:
        assert packed.testzip() is None
        names = packed.namelist()
        experiment = filled.lake.get_run(filled.run_id).info.experiment_id
        assert packed.read(f"artifacts/{experiment}/{filled.gone}/x.txt") == b"x"
    assert len([name for name in names if name.endswith(".parquet")]) == len(VIEWS)


def test_an_export_goes_to_any_store(lake: Lake, lake_url: Place) -> None:
    filled = fill(lake)
    found = lake.export("memory://elsewhere/run.zip", run_id=filled.run_id)
    assert found.paths == ("memory://elsewhere/run.zip",)
    found = lake.export("memory://elsewhere/out", run_id=filled.run_id)
    memory = fsspec.filesystem("memory")
    assert len(found.paths) == 5
    for path in found.paths:
        assert memory.size(path.removeprefix("memory:/")) > 0
    with pytest.raises(AlreadyExistsError):
        lake.export("memory://elsewhere/out", run_id=filled.run_id)
    beside = f"{lake_url.url.removesuffix('/lake')}/runs.csv"
    assert lake.export(beside, what="runs").row_count == 2
    memory.rm("/elsewhere", recursive=True)


def test_a_file_that_is_there_is_replaced_and_a_folder_is_not(
    filled: Filled, tmp_path: Path
) -> None:
    (tmp_path / "out.csv").write_text("old")
    filled.lake.export(tmp_path / "out.csv", what="SELECT 1 AS a")
    assert (tmp_path / "out.csv").read_text() == "a\n1\n"
    (tmp_path / "out").mkdir()
    filled.lake.export(tmp_path / "out")  # it is empty
    with pytest.raises(AlreadyExistsError, match="is there already"):
        filled.lake.export(tmp_path / "out")


def test_of_a_link_what_it_leads_to_is_replaced_and_a_pipe_never_is(
    filled: Filled, tmp_path: Path
) -> None:
    (tmp_path / "there.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("there.csv")
    filled.lake.export(tmp_path / "link.csv", what="SELECT 1 AS a")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "there.csv").read_text() == "a\n1\n"
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InvalidInputError, match="no file can replace"):
        filled.lake.export(tmp_path / "pipe.csv", what="SELECT 1 AS a")
    assert (tmp_path / "pipe.csv").is_fifo()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_query_that_fails_half_way_leaves_what_was_there(
    filled: Filled, tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / f"out.{suffix}"
    target.write_text("old")
    statement = (
        "SELECT CAST(CASE WHEN i = 90000 THEN 'x' ELSE '1' END AS INT) FROM range(99999) t(i)"
    )
    with pytest.raises(InvalidInputError, match="Could not convert string 'x'"):
        filled.lake.export(target, what=statement)
    assert target.read_text() == "old"
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("target", ["out.csv", "out", "out.zip"])
def test_an_interrupted_export_leaves_nothing(
    filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    def interrupt(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(takeout, "write", interrupt)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        filled.lake.export(tmp_path / target, what="runs" if target == "out.csv" else None)
    assert sorted(tmp_path.iterdir()) == before


def test_a_place_that_cannot_be_written_is_named(filled: Filled, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"cannot export to .*file/out\.csv"):
        filled.lake.export(tmp_path / "file" / "out.csv", what="runs")
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(StorageError, match=r"cannot export to .*out\.csv"):
        filled.lake.export(tmp_path / "out.csv", what="runs")
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("out.csv", {}, "say what goes into this one file"),
        ("out.csv", {"what": "rnus"}, "there is no view 'rnus'"),
        ("out.xlsx", {"what": "runs"}, "does not tell the format"),
        ("out.csv", {"what": "runs", "format": "excel"}, "format is 'excel'"),
        ("out.csv", {"what": "runs", "artifacts": True}, "leave `what` out"),
        ("out.csv", {"what": "DELETE FROM runs"}, "runs one statement that reads"),
        ("out.csv", {"what": "experiments", "run_id": "x"}, "has no run_id"),
        ("out.csv", {"what": "SELECT 1", "run_id": "x"}, "goes with a view"),
        ("lake/out.csv", {"what": "runs"}, "lies inside the lake"),
        ("lake/tables/../x.csv", {"what": "runs"}, "lies inside the lake"),
        ("", {}, "names no file"),
        ("s3://out.csv", {"what": "runs"}, "names no file"),
        ("http://server/out.csv", {"what": "runs"}, "is a server's address"),
    ],
)
def test_an_export_that_makes_no_sense_is_refused_and_writes_nothing(
    filled: Filled,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    options: dict[str, object],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidInputError) as refused:
        filled.lake.export(target, **options)  # type: ignore[arg-type]
    assert said in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unknown_run_is_not_exported(filled: Filled, tmp_path: Path) -> None:
    for name, what in (("out", None), ("out.csv", "metrics")):
        with pytest.raises(NotFoundError, match="no run 'nobody'"):
            filled.lake.export(tmp_path / name, what=what, run_id="nobody")
        assert not (tmp_path / name).exists()


def test_a_file_of_the_snapshot_that_is_gone_is_left_to_who_can_take_a_new_one(
    tmp_path: Path,
) -> None:
    file = write_points(tmp_path / "x.parquet", [("a" * 32, "metric", "x", 0, NOW_US, 1.0, None)])
    query = Query(snapshot(points=(file,)))
    query.sql("SELECT count(*) FROM metrics")
    (tmp_path / "x.parquet").unlink()
    lake = LocalFilesystem(tmp_path / "lake")
    outlet = Outlet(tmp_path / "out.csv", lake=lake, settings=Settings())
    options = {"what": "metrics", "form": "csv", "run_id": None, "artifacts": None}
    with pytest.raises(FileNotFoundError):
        takeout.Takeout(outlet, **options).write(query, lake)  # type: ignore[arg-type]
    assert not (tmp_path / "out.csv").exists()
    # A stream cannot be begun again.
    with pytest.raises(StorageError, match="export again"):
        takeout.Takeout(io.BytesIO(), **options).write(query, lake)  # type: ignore[arg-type]


# What `getrusage` tells is the peak of the process that started this one, where that is more.
BIG = """
import re, sys
from pathlib import Path
import runlake

def peak_bytes():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

lake = runlake.open(sys.argv[1], read_only=True)
lake.export(sys.argv[2] + "/small." + sys.argv[3], what="SELECT * FROM metrics LIMIT 10")
before = peak_bytes()
found = lake.export(sys.argv[2] + "/big." + sys.argv[3], what="metrics")
print(found.row_count, found.size_bytes, peak_bytes() - before)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_export_larger_than_the_memory_that_it_takes(tmp_path: Path, suffix: str) -> None:
    points = 10_000_000 if suffix == "parquet" else 3_000_000
    curves = 10
    with runlake.open(tmp_path / "lake") as lake, lake.start_run("big") as run:
        steps = np.arange(points // curves)
        noise = np.random.default_rng(0).random(len(steps))
        for curve in range(curves):
            run.log_history({"step": steps, f"curve{curve}": noise + curve})
    command = [sys.executable, "-c", BIG, str(tmp_path / "lake"), str(tmp_path), suffix]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    row_count, size_bytes, held_bytes = map(int, shown.split())
    assert row_count == points
    assert held_bytes < 512 << 20
    if suffix == "csv":
        assert held_bytes < size_bytes / 2
    else:
        assert held_bytes < points * 8 * 2  # its values and steps alone


def test_all_errors_of_an_export_are_ours(filled: Filled, tmp_path: Path) -> None:
    for what in ("SELEC", "SELECT nothing FROM runs", "SELECT * FROM read_csv('/etc/passwd')"):
        with pytest.raises(RunlakeError):
            filled.lake.export(tmp_path / "x.csv", what=what + " ")
