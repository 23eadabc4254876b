"""A lake at one snapshot: the same answers, whatever becomes of the lake."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from runlake.errors import InvalidInputError, NotFoundError, StateError, StorageError
from runlake.lake import open_lake
from runlake.query.views import VIEWS
from runlake.storage import layout
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.snapshot import SnapshotExpiredError
from runlake.testing import CountingFilesystem
from runlake.testing import open_lake as open_over

if TYPE_CHECKING:
    from runlake.lake import Lake
    from runlake.questions import Questions
    from runlake.run import Run


pytestmark = pytest.mark.filesystems("local", "memory", "s3")

OTHER_DISK = Path("/dev/shm")  # noqa: S108 - on Linux it is not the disk of temporary files


def log(run: Run, count: int, *, more: int = 0) -> None:
    """Log points of two metrics and an artifact, and bring them to the store."""
    for step in range(more, more + count):
        run.log({"loss": 1.0 / (step + 1), "acc": step / 100}, step=step)
    run.log_text("hello", f"notes/{more}.txt")
    run.flush()


def answers(lake: Questions) -> dict[str, pl.DataFrame]:
    """Ask everything that gives a frame."""
    found = {view: lake.sql(f"FROM {view} ORDER BY ALL") for view in VIEWS}
    found |= {
        f"scan {view}": lake.scan(view).collect().sort(pl.all())
        for view in ("metrics", "events", "artifacts")
    }
    found["runs found"] = lake.search_runs(run_view_type="ALL")
    found["best"] = lake.leaderboard("acc")
    found["curves"] = lake.history("*")
    return found


def assert_same(one: dict[str, pl.DataFrame], other: dict[str, pl.DataFrame]) -> None:
    """Check that two sets of answers are the same."""
    assert one.keys() == other.keys()
    for name, frame in one.items():
        assert_frame_equal(frame, other[name])


def delete_segments(lake: Lake) -> None:
    """Take every segment away, as writers and vacuum do with those that were replaced."""
    fs = lake._storage.fs
    fs.delete_many([entry.key for entry in fs.list(layout.LOG)])


def kept_files(tmp_path: Path) -> int:
    """Count the files that are kept for somebody."""
    return sum("pins" in file.parts for file in tmp_path.rglob("*.parquet"))


def test_a_pinned_lake_gives_the_same_answers_whatever_becomes_of_the_lake(lake: Lake) -> None:
    run = lake.start_run("first", experiment="digits", tags={"team": "vision"})
    run.log_params({"lr": 0.1})
    log(run, 20)
    before = answers(lake)
    with lake.at(lake.snapshot) as then:
        assert_same(answers(then), before)
        log(run, 20, more=20)
        run.finish()
        with lake.start_run("second", experiment="digits") as other:
            log(other, 3)
        lake.delete_run(run.run_id)
        lake.set_experiment_tags(run.info.experiment_id, {"a": "b"})
        assert lake.search_runs().height == 1
        assert_same(answers(then), before)
        delete_segments(lake)
        assert_same(answers(then), before)
        assert then.get_run(run.run_id).info.status == "RUNNING"
        with pytest.raises(NotFoundError):
            then.get_run(other.run_id)


def test_a_pinned_lake_of_an_open_writer_outlives_the_replaced_tail(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        run = lake.start_run()
        log(run, 5)
        with lake.at() as then:
            replaced = {entry.key for entry in lake._storage.fs.list(layout.LOG)}
            log(run, 5, more=5)
            lake._storage.fs.delete_many(replaced)
            assert lake.history("loss").height == 10
            assert then.history("loss").height == 5
            assert then.sql("SELECT max(step) AS last FROM metrics").item() == 4
        run.finish()


def test_a_pinned_lake_only_asks(lake: Lake) -> None:
    with lake.start_run():
        pass
    with lake.at() as then:
        for deed in ("start_run", "delete_run", "create_experiment", "flush", "maintain"):
            assert not hasattr(then, deed)
        with pytest.raises(StateError, match="at one snapshot"):
            then.refresh()
        assert repr(then) == f"<Lake {lake.url} at one snapshot>"


def test_a_pinned_lake_tells_what_stood_in_the_registry(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"first")
    with lake.start_run() as run:
        run.log_artifact(tmp_path / "weights.bin", "model")
    models = lake.registry
    models.create_registered_model("digits", description="before")
    models.create_model_version("digits", f"runs:/{run.run_id}/model")
    models.set_registered_model_alias("digits", "champion", "1")
    with lake.at() as then:
        models.create_model_version("digits", f"runs:/{run.run_id}/model")
        models.set_registered_model_alias("digits", "champion", "2")
        models.update_registered_model("digits", "after")
        models.create_registered_model("later")
        asked = then.registry
        assert asked is then.registry
        assert asked.get_registered_model("digits").description == "before"
        assert models.get_registered_model("digits").description == "after"
        assert asked.get_model_version_by_alias("digits", "champion").version == 1
        assert asked.resolve("models:/digits/latest").version == 1
        assert [found.name for found in asked.search_registered_models()] == ["digits"]
        assert [found.version for found in asked.search_model_versions()] == [1]
        with pytest.raises(NotFoundError, match="version 2 of registered model"):
            asked.get_model_version("digits", 2)
        with pytest.raises(NotFoundError, match="later"):
            asked.get_registered_model("later")
        found, cursor = asked.changes()
        assert found.height == asked.history("digits").height == 3
        assert asked.changes(cursor)[0].height == 0
        assert set(models.changes(cursor)[0]["name"]) == {"digits", "later"}
        folder = asked.download("models:/digits@champion", target=tmp_path / "out")
        assert (folder / "weights.bin").read_bytes() == b"first"
        for deed in ("create_model_version", "set_registered_model_alias", "promote"):
            assert hasattr(models, deed)
            assert not hasattr(asked, deed)
    with pytest.raises(StateError, match="was closed"):
        asked.get_registered_model("digits")


def test_the_last_snapshot_is_pinned_without_a_request(tmp_path: Path) -> None:
    counting = CountingFilesystem(LocalFilesystem(tmp_path / "store"))
    counting.is_local = False
    with open_over(counting, cache=str(tmp_path / "cache"), refresh_s=0.0) as lake:
        with lake.start_run() as run:
            log(run, 5)
        lake.search_runs()
        counting.reset()
        with lake.at(lake.snapshot) as then:
            assert then.snapshot is lake.snapshot
            assert then.search_runs().height == 1
            assert then.history("loss").height == 5
            assert then.search_runs().height == 1
        assert counting.total == 0


def test_without_a_snapshot_what_the_next_answer_would_come_from_is_pinned(lake: Lake) -> None:
    assert lake.snapshot is None
    with lake.at(lake.snapshot) as empty:
        with lake.start_run() as run:
            log(run, 5)
        assert empty.search_runs().height == 0
        assert empty.sql("SELECT count(*) AS n FROM metrics").item() == 0
    with lake.at() as then:
        assert then.search_runs().height == 1


def test_an_earlier_snapshot_is_pinned_as_long_as_its_objects_are_there(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake", refresh=0.0) as lake:
        run = lake.start_run("first")
        log(run, 5)
        before = answers(lake)
        earlier = lake.snapshot
        assert earlier is not None
        log(run, 5, more=5)
        assert lake.history("loss").height == 10
        with lake.at(earlier) as then:
            assert_same(answers(then), before)
        lake._storage.fs.delete_many([segment.entry.key for segment in earlier.segments])
        with pytest.raises(SnapshotExpiredError, match="is gone"):
            lake.at(earlier)
        assert kept_files(tmp_path) == 0
        run.finish()


def test_a_snapshot_of_another_lake_is_refused(tmp_path: Path) -> None:
    with open_lake(tmp_path / "one") as one, open_lake(tmp_path / "other") as other:
        for lake in (one, other):
            lake.start_run().finish()
            lake.refresh()
        with pytest.raises(InvalidInputError, match="another lake"):
            one.at(other.snapshot)


def test_what_a_pinned_lake_kept_goes_when_it_is_closed(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake:
        with lake.start_run() as run:
            log(run, 5)
        then = lake.at()
        assert then.history("loss").height == 5
        assert kept_files(tmp_path) == 1
        then.close()
        assert kept_files(tmp_path) == 0
        then.close()
        for question in (then.search_runs, then.connect, then.search_experiments):
            with pytest.raises(StateError, match="was closed"):
                question()
        forgotten = lake.at()
        forgotten.history("loss")
        del forgotten
        gc.collect()
        assert kept_files(tmp_path) == 0


def test_frames_and_connections_of_a_pinned_lake_live_on_when_it_is_closed(
    tmp_path: Path,
) -> None:
    with open_lake(tmp_path / "lake", refresh=1e9) as lake:
        with lake.start_run() as run:
            log(run, 5)
        with lake.at() as then:
            frame, connection = then.scan("metrics"), then.connect()
        delete_segments(lake)
        assert frame.filter(key="loss").collect().height == 5
        assert connection.sql("SELECT count(*) FROM metrics").fetchall() == [(10,)]
        del frame, connection
        gc.collect()
        assert kept_files(tmp_path) == 0


def test_when_the_grace_of_vacuum_is_over_a_far_pinned_lake_says_so(tmp_path: Path) -> None:
    counting = CountingFilesystem(LocalFilesystem(tmp_path / "store"))
    counting.is_local = False
    with open_over(counting, cache=str(tmp_path / "cache"), refresh_s=1e9) as lake:
        with lake.start_run() as run:
            noise = np.random.default_rng(0).normal(size=200_000)
            run.log_history({"step": np.arange(len(noise)), "noise": noise})
        lake.flush()
        with lake.at() as then:
            delete_segments(lake)
            assert then.search_runs().height == 1
            with pytest.raises(SnapshotExpiredError, match="grace period of vacuum is over"):
                then.sql("SELECT count(*) FROM metrics")
            assert then.leaderboard("noise").height == 1


def test_threads_share_a_pinned_lake(lake: Lake) -> None:
    with lake.start_run() as run:
        log(run, 50)
    with lake.at() as then:
        delete_segments(lake)
        found: list[int] = []

        def ask() -> None:
            found.extend(then.sql("SELECT count(*) AS n FROM metrics").item() for _ in range(5))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [100] * 40


def test_where_nothing_can_be_kept_pinning_says_so(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file, not a folder")
    with open_over(LocalFilesystem(tmp_path / "lake"), cache=str(tmp_path / "blocked")) as lake:
        with lake.start_run() as run:
            log(run, 5)
        with pytest.raises(StorageError, match="RUNLAKE_CACHE"):
            lake.at()
        with pytest.raises(StorageError, match="RUNLAKE_CACHE"):
            lake.connect()
        assert lake.history("loss").height == 5


@pytest.mark.skipif(not OTHER_DISK.is_dir(), reason="needs a second disk")
def test_on_another_disk_a_copy_stays_of_what_writers_replace(tmp_path: Path) -> None:
    other = OTHER_DISK / f"runlake-{tmp_path.name}-{os.getpid()}"
    with open_over(LocalFilesystem(tmp_path / "lake"), cache=str(other), refresh_s=1e9) as lake:
        with lake.start_run() as run:
            log(run, 5)
        with lake.at() as then:
            delete_segments(lake)
            assert then.history("loss").height == 5
    (other / "pins").rmdir()
    other.rmdir()
