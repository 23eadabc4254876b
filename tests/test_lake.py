"""One lake from end to end, on every filesystem: what is logged is what is read."""

from __future__ import annotations

import json
import math
import multiprocessing
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

import runlake
from runlake import ids, schema, testing
from runlake.errors import (
    AlreadyExistsError,
    InvalidInputError,
    MissingDependencyError,
    NewerFormatError,
    NotFoundError,
    RunlakeWarning,
    StateError,
    StorageError,
)
from runlake.lake import Lake, open_lake
from runlake.lake_parts import describe_experiment, ensure_experiment
from runlake.settings import Settings
from runlake.storage import layout
from runlake.storage.fs import open_filesystem
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.manifest import Manifest, encode
from runlake.testing import CountingFilesystem

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Place


pytestmark = pytest.mark.filesystems("local", "memory", "s3")


def reopened(place: Place) -> Lake:
    """The same lake as another process would see it: nothing in memory."""
    return open_lake(place.url, storage_options=place.storage_options, read_only=True)


def test_what_is_logged_is_what_another_reader_finds(lake: Lake, lake_url: Place) -> None:
    with lake.start_run("svm", experiment="digits", tags={"team": "vision"}) as run:
        run.log_params({"C": 1.0, "kernel": {"name": "rbf", "gamma": 0.01}})
        for step in range(100):
            run.log({"loss": 1 / (step + 1), "acc": step / 100}, step=step)
    lake.close()
    reader = reopened(lake_url)
    record = reader.get_run(run.run_id)
    assert record.info.status == schema.FINISHED
    assert record.info.run_name == "svm"
    assert record.info.experiment_id == ids.derived_experiment_id("digits")
    assert record.data.params == {"C": "1.0", "kernel.name": "rbf", "kernel.gamma": "0.01"}
    assert record.data.tags == {"team": "vision"}
    assert record.data.metrics == {"loss": 0.01, "acc": 0.99}
    points = reader.sql("SELECT step, value FROM metrics WHERE key = 'acc' ORDER BY step")
    assert points["step"].to_list() == list(range(100))
    assert points["value"].to_list() == [step / 100 for step in range(100)]
    assert reader.leaderboard("acc")["value"].to_list() == [0.99]
    assert reader.maintain.verify().is_sound


def test_a_process_reads_what_it_wrote_through_any_object_of_the_lake(
    lake: Lake, lake_url: Place
) -> None:
    run = lake.start_run()
    run.log_metric("loss", 0.5)
    other = open_lake(lake_url.url, storage_options=lake_url.storage_options)
    assert other.get_run(run.run_id).data.metrics == {"loss": 0.5}
    run.log_metric("loss", 0.25, step=1)
    assert other.get_run(run.run_id).data.metrics == {"loss": 0.25}
    assert run.data.metrics == {"loss": 0.25}


def test_infinities_nan_and_any_order_of_steps_are_kept(lake: Lake) -> None:
    run = lake.start_run()
    for step, value in [(5, math.inf), (1, -math.inf), (3, math.nan), (-2, 0.0)]:
        run.log_metric("x", value, step)
    summary = lake.sql("SELECT * FROM metric_summary").row(0, named=True)
    assert (summary["last"], summary["last_step"]) == (math.inf, 5)
    assert (summary["first"], summary["first_step"]) == (0.0, -2)
    assert (summary["min"], summary["max"]) == (-math.inf, math.inf)
    assert (summary["count"], summary["nan_count"]) == (4, 1)
    assert lake.sql("SELECT count(*) AS n FROM metrics WHERE isnan(value)")["n"].item() == 1


def test_columns_at_once_are_points_like_any_others(lake: Lake) -> None:
    run = lake.start_run()
    steps = np.arange(5000)
    run.log_history({"step": steps, "loss": 1 / (steps + 1), "acc": steps / 5000})
    run.log_history(pl.DataFrame({"key": ["lr"], "step": [7], "value": [0.1]}))
    assert lake.get_run(run.run_id).data.metrics == {"loss": 1 / 5000, "acc": 0.9998, "lr": 0.1}
    assert lake.sql("SELECT count(*) AS n FROM metrics")["n"].item() == 10_001


def test_two_writers_on_one_run_are_one_run(lake: Lake, lake_url: Place) -> None:
    first = lake.start_run(experiment="shared", run_id="a" * 32)
    other = open_lake(lake_url.url, storage_options=lake_url.storage_options)
    second = other.start_run(experiment="shared", run_id="a" * 32)
    first.log_metric("loss", 1.0, step=0)
    second.log_metric("loss", 0.5, step=1)
    first.finish()
    assert lake.get_run("a" * 32).info.status == schema.RUNNING
    second.finish()
    other.close()
    record = lake.get_run("a" * 32)
    assert record.info.status == schema.FINISHED
    assert record.data.metrics == {"loss": 0.5}
    assert lake.sql("SELECT count FROM metric_summary")["count"].to_list() == [2]


def test_a_resumed_run_goes_on_where_it_began(lake: Lake, lake_url: Place) -> None:
    with lake.start_run(experiment="digits") as run:
        run.log_metric("loss", 1.0, step=0)
    lake.close()
    other = open_lake(lake_url.url, storage_options=lake_url.storage_options)
    with other.start_run(run_id=run.run_id) as resumed:
        resumed.log_metric("loss", 0.5, step=1)
    record = other.get_run(run.run_id)
    assert record.info.experiment_id == run.info.experiment_id
    assert record.data.metrics == {"loss": 0.5}
    assert other.sql("SELECT count FROM metric_summary")["count"].to_list() == [2]
    other.close()


@pytest.mark.filesystems("local", "s3")
def test_a_run_whose_writer_was_replaced_ends_as_the_new_writer_says(lake: Lake) -> None:
    run = lake.start_run()
    run.log_metric("loss", 1.0, step=0)
    lake.close()
    assert lake.get_run(run.run_id).info.status == schema.RUNNING
    run.log_metric("loss", 0.5, step=1)
    run.finish()
    info = lake.get_run(run.run_id).info
    assert (info.status, info.is_stale) == (schema.FINISHED, False)


@pytest.mark.filesystems("local", "s3")
def test_a_purged_run_shows_in_no_view_though_its_rows_still_lie_there(
    lake: Lake, lake_url: Place
) -> None:
    with lake.start_run() as gone, lake.start_run() as kept:
        gone.log_metric("loss", 1.0)
        kept.log_metric("loss", 0.5)
    lake.close()
    fs = open_filesystem(
        lake_url.url, storage_options=lake_url.storage_options, settings=Settings()
    )
    manifest = Manifest(
        lake=json.loads(fs.get(layout.LAKE_FILE))["lake"],
        number=1,
        nonce="0" * 16,
        commit_us=1,
        purged=frozenset({gone.run_id}),
    )
    assert fs.put_absent(layout.manifest(1), encode(manifest))
    reader = reopened(lake_url)
    for view in ("runs", "metric_summary", "metrics", "events"):
        query = f"SELECT DISTINCT run_id FROM {view} WHERE run_id <> ''"
        assert reader.sql(query)["run_id"].to_list() == [kept.run_id]
    assert reader.scan("metrics").collect()["run_id"].to_list() == [kept.run_id]


@pytest.mark.filesystems("local", "s3")
def test_a_deleted_run_is_hidden_until_it_is_restored(lake: Lake) -> None:
    with lake.start_run() as run:
        run.log_metric("loss", 1.0)
    lake.delete_run(run.run_id)
    assert lake.search_runs().is_empty()
    assert lake.search_runs(run_view_type="DELETED_ONLY")["run_id"].to_list() == [run.run_id]
    lake.restore_run(run.run_id)
    assert lake.search_runs()["run_id"].to_list() == [run.run_id]


def test_an_experiment_lives_through_its_names(lake: Lake) -> None:
    first = lake.create_experiment("digits", tags={"team": "vision"})
    assert first == ids.derived_experiment_id("digits")
    with pytest.raises(AlreadyExistsError, match="digits"):
        lake.create_experiment("digits")
    lake.rename_experiment(first, "numbers")
    found = lake.get_experiment_by_name("numbers")
    assert found is not None
    assert (found.experiment_id, found.tags) == (first, {"team": "vision"})
    assert lake.get_experiment_by_name("digits") is None
    second = ensure_experiment(lake, "digits")
    assert second != first
    assert ensure_experiment(lake, "digits") == second
    assert ensure_experiment(lake, "numbers") == first
    lake.delete_experiment(second)
    with pytest.raises(StateError, match="deleted"):
        ensure_experiment(lake, "digits")
    lake.restore_experiment(second)
    assert ensure_experiment(lake, "digits") == second


def test_a_text_that_can_be_no_experiments_id_names_none(lake: Lake) -> None:
    with pytest.raises(NotFoundError):
        lake.rename_experiment("漢" * 300, "new")
    experiment_id = lake.create_experiment("digits")
    with pytest.raises(NotFoundError, match=rf"name of the one with the id '{experiment_id}'"):
        lake.rename_experiment("digits", "new")
    with pytest.raises(NotFoundError, match=r"no experiment has the id 'digit'.*lists all"):
        lake.rename_experiment("digit", "new")


def test_artifacts_come_back_as_they_went(lake: Lake, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "a.bin").write_bytes(b"\x00\x01" * 50_000)
    (folder / "empty").write_bytes(b"")
    with lake.start_run() as run:
        run.log_artifacts(folder, "model")
        run.log_artifact(folder / "weights" / "a.bin")
        run.log_text("h\u00e9llo", "notes/summary.txt")
        run.log_dict({"a": [1, 2]}, "config.json")
        run.log_text("", "nothing.txt")
    names = [(entry.path, entry.is_dir) for entry in lake.artifacts.list(run.run_id)]
    assert names == [
        ("a.bin", False),
        ("config.json", False),
        ("model", True),
        ("notes", True),
        ("nothing.txt", False),
    ]
    target = lake.artifacts.download(run.run_id, "model", target=tmp_path / "back")
    assert (target / "weights" / "a.bin").read_bytes() == b"\x00\x01" * 50_000
    assert (target / "empty").read_bytes() == b""
    text = lake.artifacts.download(run.run_id, "notes/summary.txt", target=tmp_path / "back")
    assert text.read_text("utf-8") == "h\u00e9llo"
    rows = lake.sql("SELECT path, size, sha256 FROM artifacts ORDER BY path")
    assert rows["path"].to_list() == [
        "a.bin",
        "config.json",
        "model/empty",
        "model/weights/a.bin",
        "notes/summary.txt",
        "nothing.txt",
    ]
    assert rows["sha256"][0] == rows["sha256"][3]
    with pytest.raises(NotFoundError, match=r"notes/summary\.txt"):
        lake.artifacts.download(run.run_id, "notes/sumary.txt")


@pytest.mark.filesystems("local")
@pytest.mark.parametrize("path", ["../up.txt", "/abs.txt", "a/../../b", "", "a//b", "a\x00b", "."])
def test_an_artifact_path_that_leaves_the_run_is_refused(lake: Lake, path: str) -> None:
    with lake.start_run() as run, pytest.raises(InvalidInputError):
        run.log_text("x", path)


def test_a_new_lake_is_empty_and_a_missing_one_is_said(lake: Lake, lake_url: Place) -> None:
    assert lake.search_runs().is_empty()
    assert lake.sql("SELECT * FROM metrics").is_empty()
    with pytest.raises(NotFoundError, match="not a lake"):
        reopened(lake_url)


def test_a_read_only_lake_refuses_to_write(lake: Lake, lake_url: Place) -> None:
    with lake.start_run():
        pass
    lake.close()
    with pytest.raises(StateError, match="read-only"):
        reopened(lake_url).start_run()


@pytest.mark.filesystems("local")
def test_a_newer_lake_is_refused_politely(lake_url: Place) -> None:
    fs = open_filesystem(
        lake_url.url, storage_options=lake_url.storage_options, settings=Settings()
    )
    fs.put(layout.LAKE_FILE, b'{"format":2,"lake":"x","conditional_create":true}')
    with pytest.raises(NewerFormatError, match="pip install --upgrade runlake"):
        reopened(lake_url)
    lake = open_lake(lake_url.url, storage_options=lake_url.storage_options)
    with pytest.raises(NewerFormatError):
        ensure_experiment(lake, "digits")


@pytest.mark.filesystems("local", "s3")
def test_an_unknown_run_is_an_error_that_names_its_neighbours(lake: Lake) -> None:
    with lake.start_run(run_id="0193a8"):
        pass
    with pytest.raises(NotFoundError, match="Did you mean '0193a8'"):
        lake.get_run("0193a7")


@pytest.mark.filesystems("local", "s3")
def test_a_refresh_without_a_change_keeps_the_same_segments(lake: Lake) -> None:
    with lake.start_run() as run:
        run.log_metric("loss", 1.0)
    lake.refresh()
    before = lake.snapshot
    lake.refresh()
    after = lake.snapshot
    assert before is not None
    assert after is not None
    assert before.segments == after.segments


def test_scan_is_a_lazy_frame_over_the_rows(lake: Lake) -> None:
    with lake.start_run() as run:
        for step in range(10):
            run.log_metric("loss", float(step), step)
    frame = lake.scan("metrics").filter(pl.col("step") >= 5).select("value").collect()
    assert sorted(frame["value"].to_list()) == [5.0, 6.0, 7.0, 8.0, 9.0]


def test_connect_hands_out_a_connection_with_the_views(lake: Lake) -> None:
    with lake.start_run() as run:
        run.log_metric("loss", 1.0)
    connection = lake.connect()
    assert connection.sql("SELECT run_id FROM runs").fetchall() == [(run.run_id,)]
    connection.close()


def name_one(url: str) -> str:
    """Name an experiment in a process of its own."""
    with open_lake(url) as lake:
        return ensure_experiment(lake, "together")


@pytest.mark.slow
def test_names_of_full_length_are_kept_by_compaction_and_renaming(
    lake: Lake, lake_url: Place
) -> None:
    long, renamed = (letter * schema.NAME_LIMIT_CHARS for letter in "漢語")
    with lake.start_run(experiment=long) as run:
        run.log_metric("m", 1.0)
    lake.registry.create_registered_model(long)
    lake.registry.rename_registered_model(long, renamed)
    lake.maintain.compact()
    found = lake.get_experiment_by_name(long)
    assert found is not None
    assert found.name == long
    lake.rename_experiment(found.experiment_id, renamed)
    reader = reopened(lake_url)
    assert reader.get_run(run.run_id).data.metrics == {"m": 1.0}
    again = reader.get_experiment_by_name(renamed)
    assert again is not None
    assert again.experiment_id == found.experiment_id
    assert reader.registry.get_registered_model(renamed).name == renamed
    assert not [each for each in reader.maintain.verify().findings if each.is_fault]
    with pytest.raises(InvalidInputError, match="at most 500"):
        lake.rename_experiment(found.experiment_id, f"{long}x")


def test_processes_that_name_an_experiment_at_once_get_one_id(tmp_path: Path) -> None:
    url = str(tmp_path / "lake")
    context = multiprocessing.get_context("spawn")
    with context.Pool(6) as pool:
        found = pool.map(name_one, [url] * 12)
    assert set(found) == {ids.derived_experiment_id("together")}
    with open_lake(url, read_only=True) as lake:
        assert [each.name for each in lake.search_experiments()] == ["together"]


def test_an_experiment_is_named_without_a_connection(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    lake = open_lake(blocked / "lake")
    with pytest.warns(RunlakeWarning, match="could not be looked up"):
        assert ensure_experiment(lake, "digits") == ids.derived_experiment_id("digits")


def test_a_store_that_is_away_does_not_stop_logging(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    lake = open_lake(blocked / "lake")
    run = lake.start_run()
    for step in range(1000):
        run.log_metric("loss", 0.5, step)
    with pytest.warns(RunlakeWarning), pytest.raises(StorageError, match="local journal"):
        run.flush()
    blocked.unlink()
    run.finish()
    lake.close()
    assert open_lake(blocked / "lake").sql("SELECT count(*) AS n FROM metrics")["n"].item() == 1000


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("nosuch://bucket/lake", InvalidInputError, "nosuch"),
        ("http://127.0.0.1:5000", InvalidInputError, "http"),
        ("https://mlflow.example.org", InvalidInputError, "http"),
    ],
)
def test_an_address_that_is_no_lake_is_refused_at_once(
    url: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        open_lake(url)


def test_a_folder_of_other_things_does_not_become_a_lake(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    lake = open_lake(tmp_path)
    with pytest.raises(NotFoundError, match=r"thesis\.txt"):
        lake.search_runs()
    with pytest.raises(StateError, match=r"thesis\.txt"):
        lake.create_experiment("digits")
    assert [file.name for file in tmp_path.iterdir() if file.name not in {"state", "cache"}] == [
        "thesis.txt"
    ]


def test_a_missing_extra_is_said_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'runlake\[s3\]'"):
        open_lake("s3://bucket/lake").search_runs()


def test_disabled_mode_checks_input_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLAKE_MODE", "disabled")
    before = sorted(tmp_path.iterdir())
    with open_lake(tmp_path / "lake") as lake:
        assert ensure_experiment(lake, "digits") == ids.derived_experiment_id("digits")
        with lake.start_run(experiment="digits") as run:
            run.log_metric("loss", 0.5)
            run.log({"a": 1.0, "b": 2})
            run.log_params({"C": 1})
            run.log_history({"step": [1], "x": [1.0]})
            run.log_text("text", "a.txt")
            run.log_input(runlake.Dataset(name="digits", digest="1"))
            with pytest.raises(InvalidInputError):
                run.log_metric("loss", "high")
            with pytest.raises(InvalidInputError):
                run.log_input("digits")
        assert lake.search_runs().is_empty()
    assert sorted(tmp_path.iterdir()) == before


def test_the_door_opens_a_lake() -> None:
    assert runlake.open is open_lake


def test_a_lake_without_its_lake_file_is_said_to_be_one(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake, lake.start_run():
        pass
    (tmp_path / "lake" / layout.LAKE_FILE).unlink()
    with pytest.raises(NotFoundError, match=r"holds 'log'.*no runlake\.json"):
        open_lake(tmp_path / "lake", read_only=True)


def test_a_sweep_looks_its_experiment_up_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_lake(tmp_path / "lake") as lake:
        first = lake.start_run(experiment="sweep")
        monkeypatch.setattr(lake, "_naming", None)
        monkeypatch.setattr(lake._experiments, "storage", None)
        second = lake.start_run(experiment="sweep")
        assert first.info.experiment_id == second.info.experiment_id


def test_start_beside_many_runs_asks_no_more_than_beside_one(tmp_path: Path) -> None:
    def start() -> dict[str, int]:
        counting = CountingFilesystem(LocalFilesystem(tmp_path / "lake"))
        with testing.open_lake(counting, compact="off") as lake:
            run = lake.start_run(experiment="busy")
            found = dict(counting.requests)
            run.finish()
        return found

    start()  # makes the lake and the experiment
    beside_one = start()

    def describe() -> dict[str, int]:
        counting = CountingFilesystem(LocalFilesystem(tmp_path / "lake"))
        with testing.open_lake(counting, compact="off") as lake:
            assert describe_experiment(lake, ensure_experiment(lake, "busy")).name == "busy"
            return dict(counting.requests)

    described = describe()
    for _ in range(20):
        start()
    assert start() == beside_one
    assert describe() == described
