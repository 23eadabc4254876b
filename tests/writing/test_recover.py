from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runlake import schema
from runlake.errors import StorageError
from runlake.storage import segments
from runlake.storage.engine import Storage
from runlake.testing.filesystems import CrashAt, SimulatedCrash
from runlake.writing import places, recover
from runlake.writing.places import OwnerLock
from runlake.writing.records import PAGE_POINTS
from tests.writing.drains import StillDrain, points, read_all, start_run

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.settings import Settings
    from runlake.testing.filesystems import FaultyFilesystem
    from runlake.writing.recover import Recovered
    from tests.writing.drains import Row


def _recover(still: StillDrain, storage: Storage, *, force: bool = False) -> list[Recovered]:
    assert still.place.root is not None
    return list(recover.each(storage, still.place.root, force=force))


def _die_with(still: StillDrain, settings: Settings, *, steps: int = 10) -> Path:
    """Let a process log and die; return its journal."""
    run = start_run(still, settings)
    run.log_params({"a": 1})
    for step in range(steps):
        run.log_metric("loss", float(step), step)
    [folder] = still.folders
    still.die()
    return folder


def _steps(count: int) -> list[tuple[str, int, float]]:
    return [("loss", step, float(step)) for step in range(count)]


def _words(rows: list[Row]) -> list[str | None]:
    return [row.str for row in rows if row.kind == schema.STATUS]


def test_dead_process_has_its_rows_recovered_and_its_run_killed(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    folder = _die_with(still, settings)
    [found] = _recover(still, storage)
    assert (found.problem, found.killed_runs, found.writer) == (None, ("run",), folder.name)
    rows = read_all(storage.fs, settings)
    assert found.rows == len(rows)
    assert points(rows) == _steps(10)
    assert _words(rows) == ["RUNNING", "KILLED"]
    assert rows[-1].kind == schema.CLOSE
    assert not folder.exists()
    assert _recover(still, storage) == []


def test_end_of_a_killed_run_is_when_it_last_wrote_and_gives_way_to_later_words(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    _die_with(still, settings)
    [_] = _recover(still, storage)
    [entry] = storage.fs.list("log/")
    table, footer = segments.decode(storage.fs.get(entry.key), key=entry.key)
    rows = table.to_pylist()
    [killed] = [row for row in rows if row["str"] == schema.KILLED]
    last = max(row["timestamp"] for row in rows if row["kind"] == schema.PARAM)
    assert (killed["timestamp"] - last).microseconds == 1
    points_us = [int(row["timestamp"].timestamp() * 1e6) for row in rows if row["key"] == "loss"]
    assert killed["num"] >= max(points_us)
    assert footer.state.summaries["n"].to_pylist() == [10]


@pytest.mark.parametrize("uploaded", ["nothing", "a tail", "a seal", "a seal and a tail"])
def test_recovery_goes_on_from_whatever_was_uploaded_with_the_right_counts(
    still: StillDrain, storage: Storage, settings: Settings, uploaded: str
) -> None:
    run = start_run(still, settings)
    for step in range(30):
        run.log_metric("loss", float(step), step)
        if step == 10 and "seal" in uploaded:
            still._lanes[0].writer.upload(storage, seal=True)
        if step == 20 and "tail" in uploaded:
            still.serve()
    still.die()
    [found] = _recover(still, storage)
    assert found.problem is None
    rows = read_all(storage.fs, settings)
    assert points(rows) == _steps(30)
    last = storage.fs.list("log/")[-1].key
    footer = segments.read_footer(storage.fs.get(last), key=last)
    assert footer.state.summaries["n"].to_pylist() == [30]
    assert footer.state.summaries["sum"].to_pylist() == [sum(range(30))]


def test_rows_in_several_pages_are_recovered_behind_a_seal(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    run = start_run(still, settings)
    count = 2 * PAGE_POINTS + 100
    for step in range(count):
        run.log_metric("loss", float(step), step)
        if step == PAGE_POINTS + 50:
            still._lanes[0].writer.upload(storage, seal=True)
    still.die()
    [found] = _recover(still, storage)
    assert found.problem is None
    assert points(read_all(storage.fs, settings)) == _steps(count)


def test_recovery_dies_at_any_request_and_the_next_one_finishes_it(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    assert still.place.root is not None
    for at in range(1, 8):
        for with_effect in (False, True):
            drain = StillDrain(storage, settings)
            run = start_run(drain, settings, f"run{at}{with_effect}")
            for step in range(10):
                run.log_metric("loss", float(step), step)
                if step % 4 == 0:
                    drain.serve()
            drain.die()
            dying = Storage(CrashAt(storage.fs, at=at, with_effect=with_effect), settings)
            try:
                list(recover.each(dying, still.place.root))
            except SimulatedCrash:
                [found] = _recover(still, storage)
                assert found.problem is None
            rows = read_all(storage.fs, settings)
            assert points(rows, run.run_id) == _steps(10)
            words = [row.str for row in rows if row.run_id == run.run_id and row.kind == "status"]
            assert words == ["RUNNING", "KILLED"]


def test_store_that_refuses_keeps_the_journal_for_the_next_recovery(
    still: StillDrain, storage: Storage, settings: Settings, faulty: FaultyFilesystem
) -> None:
    folder = _die_with(still, settings)
    faulty.is_down = True
    with pytest.raises(StorageError):
        _recover(still, storage)
    assert folder.exists()
    faulty.is_down = False
    [found] = _recover(still, storage)
    assert found.problem is None
    rows = read_all(storage.fs, settings)
    assert points(rows) == _steps(10)
    assert _words(rows) == ["RUNNING", "KILLED"]


def test_event_line_cut_off_by_the_crash_is_left_out(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    folder = _die_with(still, settings)
    with (folder / places.events_name(0)).open("ab") as file:
        file.write(b'[9,10,123,"run","para')
    [found] = _recover(still, storage)
    assert found.problem is None
    assert _words(read_all(storage.fs, settings)) == ["RUNNING", "KILLED"]


def test_event_that_follows_points_which_are_not_there_is_left_out(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    folder = _die_with(still, settings)
    file = folder / places.events_name(0)
    count = len(file.read_bytes().splitlines())
    with file.open("ab") as lines:
        lines.write(json.dumps([count, 99, 5, "run", "tag", "k", None, "v"]).encode() + b"\n")
    [found] = _recover(still, storage)
    assert found.problem is None
    assert not [row for row in read_all(storage.fs, settings) if row.kind == schema.TAG]


def test_journal_without_a_row_is_removed_and_says_nothing(
    still: StillDrain, storage: Storage
) -> None:
    still.writer("exp", "Experiment")
    [folder] = still.folders
    still.die()
    [found] = _recover(still, storage)
    assert (found.rows, found.problem) == (0, None)
    assert not folder.exists()
    assert storage.fs.list("log/") == []


@pytest.mark.parametrize("damage", ["owner.json", "sealed.json"])
def test_damaged_journal_is_reported_and_keeps_no_other_from_recovery(
    still: StillDrain, storage: Storage, settings: Settings, damage: str
) -> None:
    broken = _die_with(still, settings)
    (broken / damage).write_text("{nonsense")
    other = StillDrain(storage, settings)
    start_run(other, settings, "other").log_metric("loss", 0.0, 0)
    other.die()
    problems = {found.writer: found.problem for found in _recover(still, storage)}
    assert len(problems) == 2
    assert problems[broken.name] is not None
    assert broken.exists()
    assert points(read_all(storage.fs, settings), "other") == _steps(1)


def test_journal_of_another_host_is_left_alone_unless_forced(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    folder = _die_with(still, settings)
    owner = json.loads((folder / places.OWNER).read_text())
    (folder / places.OWNER).write_text(json.dumps({**owner, "host": "elsewhere"}))
    [found] = _recover(still, storage)
    assert "elsewhere" in str(found.problem)
    [found] = _recover(still, storage, force=True)
    assert found.problem is None
    assert points(read_all(storage.fs, settings)) == _steps(10)


def test_journal_that_another_recoverer_holds_is_passed_over(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    folder = _die_with(still, settings)
    lock = OwnerLock.take(folder)
    assert lock is not None
    assert _recover(still, storage) == []
    lock.release(remove=False)
    assert len(_recover(still, storage)) == 1


def test_rest_of_a_journal_whose_removal_was_cut_off_goes_with_the_next_recovery(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    folder = _die_with(still, settings)
    rest = folder.rename(folder.with_name(f"{places.GONE}{folder.name}"))
    (rest / places.OWNER).unlink()
    assert _recover(still, storage) == []
    assert not rest.exists()


def test_run_that_another_writer_finished_later_stays_finished(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    _die_with(still, settings)
    other = StillDrain(storage, settings)
    run = start_run(other, settings)
    run.finish()
    other.end()
    other.serve()
    [_] = _recover(still, storage)
    words: list[tuple[Any, Any]] = []
    for entry in storage.fs.list("log/"):
        table, _ = segments.decode(storage.fs.get(entry.key), key=entry.key)
        said = [row for row in table.to_pylist() if row["kind"] == schema.STATUS]
        words += [(row["timestamp"], row["str"]) for row in said]
    assert max(words)[1] == schema.FINISHED


def test_run_without_a_word_on_its_status_is_counted_whole_after_a_seal(
    still: StillDrain, storage: Storage
) -> None:
    """As a forked child's: its rows before the seal count beside those that recovery brings."""
    journal = still.writer("exp", "Experiment").journal
    key_id = journal.key_id("child", "loss")
    for step in range(100):
        journal.point(key_id, step, 1_000 + step, float(step))
    [lane] = still._lanes
    lane.writer.upload(storage, seal=True)
    for step in range(100, 160):
        journal.point(key_id, step, 1_000 + step, float(step))
    still.die()
    [_] = _recover(still, storage)
    _, tables = storage.read()
    latest = max(tables.summaries.to_pylist(), key=lambda row: int(row["n"]))
    assert (latest["n"], latest["sum"]) == (160, sum(range(160)))


def test_writer_that_died_while_it_tidied_up_is_not_ended_again(
    still: StillDrain, storage: Storage, settings: Settings
) -> None:
    run = start_run(still, settings)
    run.log_metric("loss", 0.0, 0)
    with still._lock:
        still._end(still._lanes[0])
    [lane] = still._lanes
    lane.writer.upload(storage, seal=True)  # and dies before it deletes its journal
    still.die()
    [found] = _recover(still, storage)
    assert (found.problem, found.killed_runs, found.rows) == (None, (), 0)
    rows = read_all(storage.fs, settings)
    assert [row.kind for row in rows].count(schema.CLOSE) == 1
    assert _words(rows) == [schema.RUNNING]
