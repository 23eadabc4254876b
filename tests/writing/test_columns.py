from __future__ import annotations

import errno
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from runlake.errors import InvalidInputError, RunlakeWarning, StorageError
from runlake.storage import segments
from runlake.writing import columns, recover
from runlake.writing.columns import ColumnWriter, points_of
from tests.writing.drains import StillDrain, points, read_all, segment_keys, start_run

if TYPE_CHECKING:
    from runlake.settings import Settings
    from runlake.storage.engine import Storage
    from runlake.testing.filesystems import FaultyFilesystem

_NOW = 1_700_000_000_000_000


def _steps(count: int) -> list[tuple[str, int, float]]:
    return [("loss", step, float(step)) for step in range(count)]


def _table(count: int, *, first: int = 0) -> dict[str, Any]:
    steps = np.arange(first, first + count, dtype=np.float64)
    return {"step": steps.astype(np.int64), "loss": steps}


_WIDE: dict[str, Any] = {"step": [1, 2], "a": [0.5, math.nan], "b": [3, None]}
_LONG: dict[str, Any] = {"key": ["a", "b", "a"], "step": [1, 1, 2], "value": [0.5, 3.0, math.nan]}


@pytest.mark.parametrize(
    "data",
    [
        pa.table(_WIDE),
        pl.DataFrame(_WIDE),
        pd.DataFrame({"step": [1, 2], "a": pd.array([0.5, 1], "Float64"), "b": [3.0, 4.0]}),
        {"step": np.array([1, 2]), "a": np.array([0.5, 1.0], np.float32), "b": [3, 4]},
        pa.table(_LONG),
        pl.DataFrame(_LONG),
        pd.DataFrame(_LONG),
        pa.table(_LONG).set_column(0, "key", pa.array(_LONG["key"]).dictionary_encode()),
    ],
)
def test_columns_in_any_form_become_points(data: object) -> None:
    table = points_of(data, now_us=_NOW)
    assert table.column_names == ["key", "step", "time", "value"]
    assert {("a", 1, 0.5), ("b", 1, 3.0)} <= set(
        zip(*(table[name].to_pylist() for name in ("key", "step", "value")), strict=True)
    )
    assert set(table["time"].to_pylist()) == {_NOW}


def test_null_is_no_point_and_nan_is_one() -> None:
    table = points_of(pa.table(_WIDE), now_us=_NOW)
    assert table.num_rows == 3
    assert math.isnan(table["value"][1].as_py())


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([1_700_000_000_000, None], [1_700_000_000_000_000, _NOW]),
        ([datetime(2024, 1, 1, tzinfo=UTC)] * 2, [1_704_067_200_000_000] * 2),
        (pa.array([1_700_000_000_000_000_001, None], pa.timestamp("ns", tz="UTC")), [_NOW] * 2),
    ],
)
def test_timestamps_are_milliseconds_or_aware_times(stamps: object, expected: list[int]) -> None:
    columns: dict[str, Any] = {"step": [1, 2], "timestamp": stamps, "a": [1.0, 2.0]}
    assert points_of(pa.table(columns), now_us=_NOW)["time"].to_pylist() == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": [1.0]}, "needs a column 'step'"),
        ({"step": [1]}, "found no metric"),
        ({"step": [1, None], "a": [1.0, 2.0]}, "1 nulls"),
        ({"step": ["x"], "a": [1.0]}, "column 'step'"),
        ({"step": [1.5], "a": [1.0]}, "column 'step'"),
        ({"step": [1], "a": ["x"]}, "column 'a'"),
        ({"step": [1], "": [1.0]}, "empty"),
        ({"step": [1], "key": ["a\n"], "value": [1.0]}, "cannot be printed"),
        ({"step": [1], "timestamp": [datetime(2024, 1, 1)], "a": [1.0]}, "no time zone"),  # noqa: DTZ001
        ({"step": [1], "timestamp": [2**62], "a": [1.0]}, "timestamp"),
        ({"step": [1, 2], "a": [1.0]}, "log_history takes"),
        ({"step": [1], "key": [None], "value": [1.0]}, "key"),
        (5, "log_history takes"),
    ],
)
def test_columns_that_are_no_points_are_refused_with_the_reason(data: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        points_of(data, now_us=_NOW)


def test_columns_arrive_in_the_store_with_cumulative_states(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    run = start_run(still, settings)
    for number in range(3):
        run.log_history(_table(10, first=10 * number))
        assert len(list(still.folders[-1].glob("*.parquet"))) == number + 1
    still.serve()
    assert points(read_all(storage.fs, settings)) == _steps(30)
    counts = []
    for entry in storage.fs.list("log/"):
        footer = segments.read_footer(storage.fs.get(entry.key), key=entry.key)
        counts += footer.state.summaries["n"].to_pylist()
    assert counts == [10, 20, 30]
    assert list(still.folders[-1].glob("*.parquet")) == []


def test_columns_without_a_row_make_no_segment(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    start_run(still, settings).log_history({"step": [], "loss": []})
    still.serve()
    assert len(segment_keys(storage.fs)) == 1


def test_many_columns_are_cut_into_segments(
    still: StillDrain, storage: Storage, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "SEGMENT_ROWS", 100)
    start_run(still, settings).log_history(_table(250))
    still.serve()
    assert points(read_all(storage.fs, settings)) == _steps(250)
    assert len(segment_keys(storage.fs)) == 4


def test_columns_of_a_dead_process_are_recovered(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    start_run(still, settings).log_history(_table(10))
    still.die()
    assert still.place.root is not None
    found = list(recover.each(storage, still.place.root))
    assert [one.problem for one in found] == [None, None]
    assert points(read_all(storage.fs, settings)) == _steps(10)


def test_columns_file_that_is_not_whole_is_reported_and_stays(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    start_run(still, settings).log_history(_table(10))
    folder = still.folders[-1]
    [file] = folder.glob("*.parquet")
    still.die()
    file.write_bytes(file.read_bytes()[:100])
    assert still.place.root is not None
    problems = [one.problem for one in recover.each(storage, still.place.root)]
    assert len([problem for problem in problems if problem]) == 1
    assert file.exists()


def test_full_disk_refuses_columns_as_a_whole_and_the_next_go_to_a_new_writer(
    still: StillDrain, storage: Storage, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "SEGMENT_ROWS", 100)
    run = start_run(still, settings)
    run.log_history(_table(50))
    write, calls = Path.write_bytes, iter(range(100))

    def second_fails(self: Path, data: bytes) -> int:
        if next(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data)

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", second_fails)
        with pytest.raises(StorageError, match="could not write"):
            run.log_history(_table(250, first=50))
    run.log_history(_table(10, first=50))
    still.serve()
    assert points(read_all(storage.fs, settings)) == _steps(60)
    for folder in still.folders:
        assert not [*folder.glob("*.tmp"), *folder.glob("*.parquet")]


def test_twin_of_a_column_writer_makes_its_columns_go_on_under_another_id(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    run = start_run(still, settings)
    run.log_history(_table(10))
    lane = still._columns["exp"]
    twin = ColumnWriter(lane.writer.writer_id, "exp", "Experiment", None)
    assert twin.add("twin", points_of(_table(10), now_us=_NOW))
    twin.upload(storage)
    run.log_history(_table(5, first=10))
    with pytest.warns(RunlakeWarning, match="new writer id"):
        still.serve()
    still.serve()
    rows = read_all(storage.fs, settings)
    assert points(rows) == _steps(15)
    assert len(points(rows, "twin")) == 10


def test_retired_column_writer_takes_nothing() -> None:
    writer = ColumnWriter("W" * 26, "exp", "Experiment", None)
    writer.retire()
    assert not writer.add("run", points_of(_table(3), now_us=_NOW))
    assert writer.pending == 0


def test_columns_wait_in_memory_where_no_folder_can_be_written(
    storage: Storage, faulty: FaultyFilesystem, settings: Settings
) -> None:
    writer = ColumnWriter("W" * 26, "exp", "Experiment", None)
    assert writer.add("run", points_of(_table(10), now_us=_NOW))
    faulty.is_down = True
    with pytest.raises(StorageError):
        writer.upload(storage)
    faulty.is_down = False
    writer.upload(storage)
    assert writer.pending == 0
    assert points(read_all(storage.fs, settings)) == _steps(10)
