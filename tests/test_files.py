from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from runlake import schema, testing
from runlake.errors import InvalidInputError, NotFoundError
from runlake.lake import Lake, open_lake
from runlake.query.filelist import FileList, list_files
from runlake.storage import layout, manifest, manifests
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.snapshot import Snapshots
from runlake.testing.filesystems import CountingFilesystem
from runlake.upkeep.compact import Compactor
from tests.storage.lakes import EXPERIMENT
from tests.upkeep.made import LAKE, MadeWriter, compactor, make_lake, point, said

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Lake]:
    with open_lake(tmp_path / "lake") as opened:
        yield opened


def log_some(lake: Lake, *, runs: int = 2, points: int = 30) -> list[str]:
    """Log runs with a curve each, one point of which is NaN; return their ids."""
    made = []
    for number in range(runs):
        with lake.start_run(f"run-{number}", experiment="listed") as run:
            run.log_params({"number": number})
            for step in range(points):
                run.log({"loss": math.nan if step == 3 else 1 / (1 + step)}, step=step)
        made.append(run.info.run_id)
    return made


def compact_all(lake: Lake) -> None:
    """End the writers of a lake, and compact every partition."""
    lake.close()
    keeper = Compactor(lake._storage.fs, lake=lake._storage.require_lake())
    for experiment_id in keeper.experiments():
        keeper.compact(experiment_id)


def rows_by_the_rule(files: FileList) -> list[tuple[Any, ...]]:
    """Return the rows of `metrics` as an engine reads them that knows the rule only."""
    found = []
    for file in files:
        table = pq.read_table(Path(file.path), partitioning=None)
        assert table.num_rows == file.rows
        for row in table.slice(file.skip_rows).to_pylist():
            if row["run_id"] in files.purged or row.get("kind", "metric") != "metric":
                continue
            value, writer = row["num" if file.is_segment else "value"], file.writer or row["writer"]
            found.append(
                (row["run_id"], file.experiment_id, row["key"], row["step"], repr(value), writer)
            )
    return sorted(found)


def rows_of_the_view(lake: Lake) -> list[tuple[Any, ...]]:
    """Return the rows of `metrics` as `sql` gives them."""
    rows = lake.sql("SELECT run_id, experiment_id, key, step, value, writer FROM metrics").rows()
    return sorted((*row[:4], repr(row[4]), row[5]) for row in rows)


def test_what_is_logged_is_listed_as_segments(local: Lake) -> None:
    log_some(local)
    files = local.files("metrics")
    assert len(files.segments) == len(files) == 1
    assert rows_by_the_rule(files) == rows_of_the_view(local)
    assert len(rows_by_the_rule(files)) == 60


def test_the_rule_gives_the_view_before_and_after_compaction(local: Lake) -> None:
    log_some(local)
    local.flush()
    compact_all(local)
    log_some(local, runs=1)
    files = local.files("metrics")
    assert (len(files.compacted), len(files.segments)) == (1, 1)
    assert len(rows_by_the_rule(files)) == 90
    assert rows_by_the_rule(files) == rows_of_the_view(local)


def test_a_list_of_events_has_every_row_that_is_no_point(local: Lake) -> None:
    log_some(local)
    compact_all(local)
    log_some(local, runs=1)
    files = local.files("events")
    found = 0
    for file in files:
        table = pq.read_table(Path(file.path), partitioning=None)
        kinds = table.slice(file.skip_rows)["kind"].to_pylist()
        found += len([kind for kind in kinds if kind != schema.METRIC])
    (count,) = local.sql("SELECT count(*) FROM events").row(0)
    assert found == count


def test_rows_below_the_watermark_are_told_to_be_skipped(tmp_path: Path) -> None:
    fs = LocalFilesystem(tmp_path / "lake")
    make_lake(fs)
    rows = [point("run", "loss", step, float(step)) for step in range(9)]
    writer = MadeWriter(1, [*rows, said("", "close", at=9)])
    writer.put(fs, 0, 3)
    writer.put(fs, 4, 4)
    compactor(fs).compact(EXPERIMENT)
    writer.put(fs, 2, 9)
    snapshot = Snapshots(fs, lake=LAKE).take()
    files = list_files(fs, "metrics", snapshot)
    consumed = snapshot.manifest.consumed[writer.writer]
    assert consumed >= 3
    assert [(file.first, file.skip_rows) for file in files.segments] == [(2, consumed - 1)]
    steps = sorted(row[3] for row in rows_by_the_rule(files))
    assert steps == list(range(9))


def test_purged_runs_are_named_so_that_an_engine_hides_them(tmp_path: Path) -> None:
    fs = LocalFilesystem(tmp_path / "lake")
    make_lake(fs)
    MadeWriter(1, [point("gone", "loss", 0, 1.0), point("kept", "loss", 0, 2.0)]).put(fs, 0, 1)
    purging = manifest.Manifest(lake=LAKE, number=1, nonce="0" * 16, purged=frozenset({"gone"}))
    fs.put(layout.manifest(1), manifest.encode(purging))
    files = list_files(fs, "metrics", Snapshots(fs, lake=LAKE).take())
    assert files.purged == ("gone",)
    assert [row[0] for row in rows_by_the_rule(files)] == ["kept"]


def test_a_list_costs_the_snapshots_requests_and_no_others(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as writing:
        log_some(writing, runs=3)
        compact_all(writing)
    counting = CountingFilesystem(LocalFilesystem(tmp_path / "lake"))
    with testing.open_lake(counting, read_only=True) as lake:
        lake._storage.require_lake()
        counting.reset()
        files = lake.files("metrics")
        listed = counting.requests.copy()
        counting.reset()
        lake._storage.snapshot()
        again = lake.files("events", files.snapshot)
    assert listed == {"LIST": 2, "GET": 1}
    assert counting.requests == {"LIST": 2}
    assert again.snapshot is files.snapshot


def test_a_list_of_an_earlier_snapshot_stays_what_it_was(local: Lake) -> None:
    log_some(local, runs=1)
    local.refresh()
    snapshot = local.snapshot
    before = local.files("metrics", snapshot)
    log_some(local, runs=1)
    assert list(local.files("metrics", snapshot)) == list(before)
    assert sum(file.rows for file in local.files("metrics")) > sum(file.rows for file in before)


def test_a_list_after_which_runs_are_logged_hides_none_from_answers(local: Lake) -> None:
    log_some(local, runs=1)
    assert local.search_runs().height == 1
    log_some(local, runs=1)
    local.files("metrics")
    assert local.search_runs().height == 2


def test_an_answer_of_the_lists_snapshot_is_that_of_its_files(local: Lake) -> None:
    log_some(local, runs=1)
    files = local.files("metrics")
    log_some(local, runs=1)
    with local.at(files.snapshot) as then:
        assert then.sql("SELECT count(*) FROM metrics").item() == len(rows_by_the_rule(files)) == 30


def test_a_frame_and_pickles_hold_the_same_files(local: Lake) -> None:
    log_some(local)
    compact_all(local)
    log_some(local, runs=1)
    files = local.files("metrics")
    assert pickle.loads(pickle.dumps(files.segments)) == files.segments  # noqa: S301 - our own
    frame = files.frame()
    assert frame["path"].to_list() == [file.path for file in files]
    assert frame["is_segment"].to_list() == [False, True]
    assert frame["skip_rows"].to_list() == [0, 0]
    empty = FileList("metrics", None).frame()
    assert (empty.height, empty.schema) == (0, frame.schema)


def test_duckdb_and_polars_read_compacted_files_as_they_are(local: Lake) -> None:
    log_some(local)
    compact_all(local)
    paths = [file.path for file in local.files("metrics").compacted]
    assert pl.read_parquet(paths).height == 60
    with duckdb.connect() as engine:
        found = engine.execute("SELECT count(*) FROM read_parquet(?)", [paths]).fetchone()
    assert found == (60,)


def test_far_files_are_named_by_url(tmp_path: Path) -> None:
    del tmp_path
    with open_lake("memory://listed-far/lake") as lake:
        log_some(lake)
        compact_all(lake)
        log_some(lake, runs=1)
        lake.close()
        files = lake.files("metrics")
    keys = {entry.key for entry in lake._storage.fs.list("")}
    assert {file.path.removeprefix("memory://listed-far/lake/") for file in files} <= keys


def test_what_cannot_be_listed_is_refused_with_what_to_do(tmp_path: Path, local: Lake) -> None:
    assert len(local.files("metrics")) == 0
    with pytest.raises(InvalidInputError, match=r"lake\.export\('runs.parquet'"):
        local.files("runs")
    with pytest.raises(NotFoundError):
        Lake(local.settings, read_only=True).files("metrics")
    log_some(local, runs=1)
    with open_lake(tmp_path / "other") as other:
        log_some(other, runs=1)
        other.refresh()
        with pytest.raises(InvalidInputError, match="of another lake"):
            local.files("metrics", other.snapshot)


def test_files_of_many_experiments_say_whose_they_are(local: Lake) -> None:
    for name in ("one", "two"):
        with local.start_run(experiment=name) as run:
            run.log({"loss": np.float32(1)})
    compact_all(local)
    newest = manifests.newest(local._storage.fs, lake=local._storage.require_lake())
    listed = {file.experiment_id for file in local.files("metrics").compacted}
    assert listed == {file.experiment_id for file in newest.files("metrics")}
    assert len(listed) == 2
    assert schema.RESERVED_PARTITION in {f.experiment_id for f in local.files("events").compacted}
