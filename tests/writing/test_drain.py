from __future__ import annotations

import errno
import os
import threading
import warnings
from typing import TYPE_CHECKING, Any, TypeVar, final

import pytest

from runlake import clock, schema
from runlake.errors import DataLossWarning, RunlakeWarning, StorageError
from runlake.settings import Settings
from runlake.storage import segments
from runlake.storage.engine import Storage
from runlake.storage.layout import parse_segment
from runlake.testing.filesystems import Call, FaultyFilesystem, SlowFilesystem, Wrapper
from runlake.writing import lanes, recover
from runlake.writing.drain import Drain
from runlake.writing.lanes import FAR, LOCAL
from runlake.writing.pages import PAGE_BYTES
from runlake.writing.places import OwnerLock
from runlake.writing.records import PAGE_POINTS
from runlake.writing.writer import Writer
from tests.writing.drains import (
    EXPERIMENT,
    StillDrain,
    memory_filesystem,
    new_writer,
    points,
    read_all,
    segment_keys,
    start_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runlake.storage.filesystem import Filesystem
    from runlake.testing.filesystems import CountingFilesystem
    from tests.writing.conftest import FakeTime

T = TypeVar("T")


@pytest.fixture
def threaded(storage: Storage, settings: Settings) -> Iterator[Drain]:
    """A drain with its thread."""
    drain = Drain(storage, settings)
    yield drain
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunlakeWarning)
        drain.close(5.0)


def _steps(count: int) -> list[tuple[str, int, float]]:
    return [("loss", step, float(step)) for step in range(count)]


def _writers(storage: Storage) -> set[str]:
    names = [parse_segment(entry.key) for entry in storage.fs.list("log/")]
    return {name.writer for name in names if name is not None}


@pytest.mark.parametrize(
    ("age_s", "local_s", "far_s"), [(0, 1, 2), (60, 1.2, 3), (300, 6, 15), (3600, 10, 30)]
)
def test_cadence_grows_with_the_age_of_a_writer_up_to_its_bound(
    age_s: float, local_s: float, far_s: float
) -> None:
    assert LOCAL.wait_s(age_s) == pytest.approx(local_s)
    assert FAR.wait_s(age_s) == pytest.approx(far_s)


def test_flush_returns_when_every_row_is_in_the_store(
    threaded: Drain, settings: Settings, storage: Storage, counting: CountingFilesystem
) -> None:
    run = start_run(threaded, settings)
    threaded.flush(10.0)
    for number in range(1, 4):
        for step in range(10 * (number - 1), 10 * number):
            run.log_metric("loss", float(step), step)
        counting.reset()
        run.flush()
        assert counting.requests["PUT"] == 1
        assert counting.requests["GET"] == counting.requests["LIST"] == 0
        assert points(read_all(storage.fs, settings)) == _steps(10 * number)


def test_flush_of_nothing_asks_nothing(
    threaded: Drain, settings: Settings, counting: CountingFilesystem
) -> None:
    start_run(threaded, settings)
    threaded.flush(10.0)
    counting.reset()
    threaded.flush(10.0)
    assert counting.total == 0


def test_flush_of_a_store_that_is_down_raises_within_its_time_and_keeps_the_rows(
    threaded: Drain, settings: Settings, storage: Storage, faulty: FaultyFilesystem
) -> None:
    run = start_run(threaded, settings)
    threaded.flush(10.0)
    faulty.is_down = True
    run.log_metric("loss", 0.0, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunlakeWarning)
        with pytest.raises(StorageError, match="1 rows did not reach"):
            run.flush(5.0)
    faulty.is_down = False
    run.log_metric("loss", 1.0, 1)
    run.flush(10.0)
    assert points(read_all(storage.fs, settings)) == _steps(2)


def test_flush_of_a_store_that_hangs_raises_when_its_time_is_over(
    settings: Settings, storage: Storage
) -> None:
    answer = threading.Event()

    def wait(_: float) -> None:
        answer.wait()

    hanging = SlowFilesystem(storage.fs, latency_s=1.0, sleep=wait)
    drain = Drain(Storage(hanging, settings), settings)
    run = start_run(drain, settings)
    run.log_metric("loss", 0.0, 0)
    with pytest.raises(StorageError, match=r"no answer within 0\.05 s"):
        run.flush(0.05)
    answer.set()
    run.flush(10.0)
    drain.close(10.0)
    assert points(read_all(storage.fs, settings)) == _steps(1)


def test_no_request_is_made_on_the_thread_that_logs(
    settings: Settings, storage: Storage, faulty: FaultyFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    around = FaultyFilesystem.around

    def noted(self: FaultyFilesystem, call: Any, action: Any) -> Any:  # noqa: ANN401 - as wrapped
        threads.add(threading.get_ident())
        return around(self, call, action)

    monkeypatch.setattr(FaultyFilesystem, "around", noted)
    drain = Drain(storage, settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunlakeWarning)
        run = start_run(drain, settings)
        for step in range(2000):
            faulty.is_down = step > 1000
            run.log({"loss": 1.0}, step=step)
            run.log_metric("acc", 1.0, step)
            if step % 100 == 0:
                run.log_param(f"p{step}", step)
                drain.wake()
        run.finish()
        faulty.is_down = False
        drain.close(10.0)
    assert threads
    assert threading.get_ident() not in threads
    assert len(points(read_all(storage.fs, settings))) == 4000


def test_outage_is_said_once_and_its_end_too_and_all_rows_arrive(
    still: StillDrain, settings: Settings, storage: Storage, faulty: FaultyFilesystem,
    time: FakeTime,
) -> None:  # fmt: skip
    run = start_run(still, settings)
    still.serve()
    faulty.is_down = True
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step in range(60):  # a minute
            run.log_metric("loss", float(step), step)
            time.now_s += 1.0
            still.serve_due()
    # Python may warn of garbage that others left.
    told = [str(each.message) for each in said if issubclass(each.category, RunlakeWarning)]
    assert ["cannot be brought" in text for text in told] == [True], told
    faulty.is_down = False
    time.now_s += 120.0
    with pytest.warns(RunlakeWarning, match="answers again"):
        still.serve_due()
    assert still.pending == 0
    assert points(read_all(storage.fs, settings)) == _steps(60)


def test_outage_is_waited_for_longer_each_time_but_no_longer_than_a_minute_and_a_half(
    still: StillDrain, settings: Settings, faulty: FaultyFilesystem, time: FakeTime
) -> None:
    start_run(still, settings)
    faulty.is_down = True
    waits = []
    for _ in range(9):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RunlakeWarning)
            still.serve()
        [lane] = still._lanes
        waits.append(lane.due_s - time.now_s)
    assert all(1.0 <= wait <= 90.0 for wait in waits)
    assert waits[0] <= 3.0
    assert min(waits[-2:]) >= 30.0


@pytest.mark.parametrize("seed", range(4))
def test_store_that_fails_a_third_of_requests_loses_and_doubles_nothing(
    settings: Settings, seed: int, time: FakeTime
) -> None:
    store = memory_filesystem()
    faulty = FaultyFilesystem(store, seed=seed, before=0.3, after=0.3)
    drain = StillDrain(Storage(faulty, settings), settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunlakeWarning)
        run = start_run(drain, settings)
        for step in range(300):
            run.log_metric("loss", float(step), step)
            if step % 5 == 0:
                drain.serve()
                time.now_s += 30.0
        run.finish()
        drain.end()
        while drain.pending:
            drain.serve()
    rows = read_all(store, settings)
    assert points(rows) == _steps(300)
    assert [row.str for row in rows if row.kind == schema.STATUS] == ["RUNNING", "FINISHED"]


def test_close_leaves_one_segment_no_journal_and_the_word_that_the_writer_ended(
    still: StillDrain, settings: Settings, storage: Storage
) -> None:
    run = start_run(still, settings)
    for step in range(100):
        run.log_metric("loss", float(step), step)
        if step % 3 == 0:
            still.serve()
    [journal] = still.folders
    run.finish()
    still.end()
    still.serve()
    assert not journal.exists()
    assert len(segment_keys(storage.fs)) == 1
    rows = read_all(storage.fs, settings)
    assert rows[-1].kind == schema.CLOSE
    assert points(rows) == _steps(100)


def test_rows_logged_while_the_last_upload_is_under_way_are_not_left_behind(
    still: StillDrain, settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(still, settings)
    upload = Writer.upload

    def slow(self: Writer, storage: Storage, *, seal: bool = False) -> None:
        upload(self, storage, seal=seal)
        if not run.is_open:
            return
        run.log_metric("loss", 0.0, 0)
        run.finish()
        still.end()

    monkeypatch.setattr(Writer, "upload", slow)
    still.serve()
    still.serve()
    assert points(read_all(storage.fs, settings)) == _steps(1)
    assert not still.pending


def test_close_of_a_store_that_is_down_keeps_the_rows_for_the_next_opening(
    settings: Settings, storage: Storage, faulty: FaultyFilesystem
) -> None:
    drain = Drain(storage, settings)
    run = start_run(drain, settings)
    drain.flush(10.0)
    faulty.is_down = True
    run.log_metric("loss", 0.0, 0)
    run.finish()
    thread = drain._thread
    with (
        pytest.warns(RunlakeWarning, match="3 rows did not reach"),
        pytest.warns(RunlakeWarning, match="cannot be brought"),
    ):
        drain.close(0.1)
    assert thread is not None
    thread.join()
    faulty.is_down = False
    assert drain.place.root is not None
    [found] = recover.each(storage, drain.place.root)
    assert (found.problem, found.killed_runs) == (None, ())
    rows = read_all(storage.fs, settings)
    assert points(rows) == _steps(1)
    assert [row.str for row in rows if row.kind == schema.STATUS] == ["RUNNING", "FINISHED"]


def test_close_waits_for_a_store_that_comes_back_in_time(
    settings: Settings, storage: Storage, faulty: FaultyFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = Drain(storage, settings)
    run = start_run(drain, settings)
    drain.flush(10.0)
    run.log_metric("loss", 0.0, 0)
    faulty.is_down = True
    failed = Drain._failed

    def mend(self: Drain, lane: Any, error: Exception) -> None:  # noqa: ANN401 - a private type
        failed(self, lane, error)
        faulty.is_down = False
        lane.due_s = clock.monotonic_s() + 0.05

    monkeypatch.setattr(Drain, "_failed", mend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunlakeWarning)
        drain.close(10.0)
    assert drain.pending == 0
    assert points(read_all(storage.fs, settings)) == _steps(1)


def test_drain_goes_on_after_a_close(settings: Settings, storage: Storage) -> None:
    drain = Drain(storage, settings)
    run = start_run(drain, settings)
    run.log_metric("loss", 0.0, 0)
    drain.close(10.0)
    run.log_metric("loss", 1.0, 1)
    run.finish()
    drain.close(10.0)
    assert points(read_all(storage.fs, settings)) == _steps(2)
    assert len(_writers(storage)) == 2


def test_rows_logged_while_a_drain_closes_are_kept(settings: Settings, storage: Storage) -> None:
    drain = Drain(storage, settings)
    run = start_run(drain, settings)
    stop = threading.Event()
    steps = 0

    def work() -> None:
        nonlocal steps
        while not stop.is_set() and steps < 20_000:
            run.log_metric("loss", float(steps), steps)
            steps += 1

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(3):
        drain.close(10.0)
    stop.set()
    thread.join()
    drain.flush(10.0)
    drain.close(10.0)
    assert points(read_all(storage.fs, settings)) == _steps(steps)


def test_writer_that_must_end_hands_over_and_its_run_goes_on_without_a_gap(
    still: StillDrain, settings: Settings, storage: Storage
) -> None:
    run = start_run(still, settings)
    for step in range(30):
        run.log_metric("loss", float(step), step)
        if step % 10 == 5:
            still.writer(EXPERIMENT, "Experiment").must_end = True
            still.serve()
    run.finish()
    still.end()
    still.serve()
    still.serve()
    assert len(_writers(storage)) == 4
    assert points(read_all(storage.fs, settings)) == _steps(30)


def test_run_resumed_in_the_same_process_counts_on(
    still: StillDrain, settings: Settings, storage: Storage
) -> None:
    for number in range(6):
        run = start_run(still, settings)
        for step in range(10 * number, 10 * (number + 1)):
            run.log_metric("loss", float(step), step)
        if number % 2:
            still.serve()
        run.finish()
        if number % 3 == 0:
            still.serve()
            for lane in still._lanes:
                lane.writer.upload(storage, seal=True)
    still.end()
    still.serve()
    assert points(read_all(storage.fs, settings)) == _steps(60)
    best: dict[tuple[str, str], int] = {}
    for entry in storage.fs.list("log/"):
        footer = segments.read_footer(storage.fs.get(entry.key), key=entry.key)
        for row in footer.state.summaries.to_pylist():
            name = footer.header.writer, str(row["key"])
            best[name] = max(int(row["n"]), best.get(name, 0))
    assert sum(best.values()) == 60


def test_twin_under_our_writer_id_makes_us_go_on_under_another(
    still: StillDrain, settings: Settings, storage: Storage
) -> None:
    run = start_run(still, settings)
    still.serve()
    writer = still._lanes[0].writer
    assert isinstance(writer, Writer)
    run.log_metric("loss", 0.0, 0)
    twin = new_writer()
    twin.writer_id = writer.writer_id
    for _ in range(writer.rows):
        twin.journal.events([("twin", schema.NOTE, "k", None, "other")])
    twin.upload(storage)
    with pytest.warns(RunlakeWarning, match="go on under a new writer id"):
        still.serve()
    run.log_metric("loss", 1.0, 1)
    run.finish()
    still.end()
    still.serve()
    rows = read_all(storage.fs, settings)
    assert points(rows) == _steps(2)
    assert len(_writers(storage)) == 2
    words = [row.str for row in rows if row.kind == schema.STATUS]
    assert set(words[:-1]) == {"RUNNING"}
    assert words[-1] == "FINISHED"


def test_flush_follows_rows_that_moved_to_another_writer(
    threaded: Drain, settings: Settings, storage: Storage
) -> None:
    run = start_run(threaded, settings)
    threaded.flush(10.0)
    writer = threaded._lanes[0].writer
    run.log_metric("loss", 0.0, 0)
    twin = new_writer()
    twin.writer_id = writer.writer_id
    for _ in range(writer.rows):
        twin.journal.events([("twin", schema.NOTE, "k", None, "other")])
    twin.upload(storage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunlakeWarning)
        run.flush(10.0)
    assert points(read_all(storage.fs, settings)) == _steps(1)


def test_open_run_without_news_still_shows_that_its_process_lives(
    still: StillDrain, settings: Settings, storage: Storage, time: FakeTime
) -> None:
    start_run(still, settings)
    still.serve()
    before = segment_keys(storage.fs)
    time.now_s += settings.heartbeat_s - 1
    still._upkeep()
    still.serve()
    assert segment_keys(storage.fs) == before
    time.now_s += 2
    still._upkeep()
    time.now_s += FAR.longest_s
    still.serve_due()
    assert segment_keys(storage.fs) != before
    assert read_all(storage.fs, settings)[-1].kind == schema.HEARTBEAT


def test_backlog_goes_out_before_it_is_due(
    still: StillDrain, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "BACKLOG_ROWS", 100)
    run = start_run(still, settings)
    still.serve()
    for step in range(99):
        run.log_metric("loss", 0.0, step)
    still.serve_due()
    assert still.pending == 99
    run.log_metric("loss", 0.0, 99)
    still.serve_due()
    assert still.pending == 0


def test_rows_past_the_limit_of_the_journal_are_counted_and_said(
    tmp_path: Path, storage: Storage, faulty: FaultyFilesystem, time: FakeTime
) -> None:
    small = Settings(journal=str(tmp_path / "j"), journal_limit_bytes=PAGE_BYTES)
    drain = StillDrain(storage, small)
    run = start_run(drain, small)
    drain.serve()
    faulty.is_down = True
    took = PAGE_BYTES // 32
    for step in range(took + 7):
        run.log_metric("loss", float(step), step)
    run.log({"loss": 1.0, "acc": 1.0}, step=0)
    with (
        pytest.warns(DataLossWarning, match="9 rows were refused"),
        pytest.warns(RunlakeWarning, match="cannot be brought"),
    ):
        drain.serve()
    faulty.is_down = False
    time.now_s += 120
    drain.serve()
    assert points(read_all(storage.fs, small)) == _steps(took)
    run.log_metric("loss", float(took), took)
    drain.serve()
    drain.end()
    drain.serve()


def test_strict_run_raises_where_rows_are_refused(
    tmp_path: Path, storage: Storage, faulty: FaultyFilesystem
) -> None:
    strict = Settings(journal=str(tmp_path / "j"), journal_limit_bytes=PAGE_BYTES, strict=True)
    drain = StillDrain(storage, strict)
    run = start_run(drain, strict)
    faulty.is_down = True
    for step in range(PAGE_BYTES // 32):
        run.log_metric("loss", float(step), step)
    with pytest.raises(StorageError, match="1 points were refused"):
        run.log_metric("loss", 0.0, 0)
    drain.die()


def _refuse(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_disk_that_is_full_moves_the_rows_into_memory_and_none_is_lost(
    still: StillDrain, settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(still, settings)
    run.log_metric("loss", 0.0, 0)
    with monkeypatch.context() as full:
        for call in ("posix_fallocate", "pwrite", "write", "fsync"):
            full.setattr(os, call, _refuse)
        # One of these calls finds out.
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            for step in range(1, 100):
                run.log_metric("loss", float(step), step)
            run.log_param("p", 1)
            still.serve()
    assert ["refuses to be written" in str(warning.message) for warning in said] == [True]
    run.finish()
    still.end()
    still.serve()
    still.serve()
    rows = read_all(storage.fs, settings)
    assert points(rows) == _steps(100)
    assert [row.str for row in rows if row.kind == schema.PARAM] == ["1"]


@pytest.mark.parametrize("refused", ["open", "mkdir"])
def test_journal_that_cannot_be_made_lets_rows_wait_in_memory(
    still: StillDrain, settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch,
    refused: str,
) -> None:  # fmt: skip
    assert still.place.root is not None
    with monkeypatch.context() as full:
        full.setattr(os, refused, _refuse)
        with pytest.warns(RunlakeWarning, match="refuses to be written"):
            run = start_run(still, settings)
    run.log_metric("loss", 0.0, 0)
    assert still.folders == []
    still.serve()
    assert points(read_all(storage.fs, settings)) == _steps(1)


def test_seal_whose_state_cannot_be_saved_is_no_failure(
    still: StillDrain, settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(still, settings)
    count = PAGE_POINTS + 5  # a page that a trim would delete
    for step in range(count):
        run.log_metric("loss", float(step), step)
    monkeypatch.setattr(Writer, "_save", _refuse)
    for lane in still._lanes:
        lane.writer.upload(storage, seal=True)
    run.log_metric("loss", float(count), count)
    still.serve()
    assert still.errors == []
    # Recovery begins at the seal before, and covers what is there.
    still.die()
    assert still.place.root is not None
    [found] = recover.each(storage, still.place.root)
    assert found.problem is None
    assert points(read_all(storage.fs, settings)) == _steps(count + 1)


def test_thread_that_cannot_start_is_said_and_the_rows_stay_in_the_journal(
    settings: Settings, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = Drain(storage, settings)

    def refuse(_: threading.Thread) -> None:
        message = "can't create new thread at interpreter shutdown"
        raise RuntimeError(message)

    with monkeypatch.context() as late:
        late.setattr(threading.Thread, "start", refuse)
        with pytest.warns(RunlakeWarning, match="cannot start"):
            run = start_run(drain, settings)
    run.log_metric("loss", 0.0, 0)
    drain.abandon_in_child()
    assert drain.place.root is not None
    [found] = recover.each(storage, drain.place.root)
    assert found.problem is None
    assert points(read_all(storage.fs, settings)) == _steps(1)


def test_journal_of_a_living_process_is_no_dead_ones(
    still: StillDrain, settings: Settings, storage: Storage
) -> None:
    start_run(still, settings)
    assert still.place.root is not None
    assert list(recover.each(storage, still.place.root)) == []
    [folder] = still.folders
    assert OwnerLock.take(folder) is None
    assert folder.exists()


@final
class CallingFilesystem(Wrapper):
    """Calls somebody while it puts."""

    def __init__(self, inner: Filesystem) -> None:
        """Call nobody yet."""
        super().__init__(inner)
        self.call: Callable[[], None] = lambda: None

    def around(self, call: Call, action: Callable[[], T]) -> T:
        if call.verb.startswith("put") and call.keys[0].startswith("log/"):
            self.call()
        return action()


def test_what_hurries_while_its_writer_uploads_is_due_soon(
    settings: Settings, time: FakeTime
) -> None:
    calling = CallingFilesystem(memory_filesystem())
    drain = StillDrain(Storage(calling, settings), settings)
    run = start_run(drain, settings)
    time.now_s += 3600.0
    calling.call = drain.soon
    drain.serve()
    run.log_metric("loss", 0.0, 0)
    time.now_s += 1.0
    calling.call = lambda: None
    drain.serve_due()
    assert drain.pending == 0
    [lane] = drain._lanes
    assert lane.due_s - time.now_s >= 10.0
