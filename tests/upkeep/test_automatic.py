"""Nobody tends the lake, and it stays small all the same."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import pytest

from runlake import ids, schema, upkeep
from runlake.errors import FormatError, RunlakeWarning
from runlake.lake import open_lake
from runlake.settings import Settings
from runlake.storage import layout
from runlake.storage.engine import Storage
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.snapshot import Snapshots
from runlake.testing import open_lake as open_on
from runlake.testing.filesystems import CountingFilesystem
from runlake.upkeep import automatic, compact, ripe
from runlake.writing import writer
from tests.storage.lakes import EXPERIMENT
from tests.upkeep.made import LAKE, MadeWriter, compactor, make_lake, point, said

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runlake.lake import Lake
    from runlake.storage.filesystem import Filesystem

DEFAULT = "0"
BOUND = 256


@pytest.fixture
def memory() -> Iterator[MemoryFilesystem]:
    yield (opened := MemoryFilesystem(f"test-{ids.new_nonce()}/lake"))
    opened.delete_many([entry.key for entry in opened.list("")])


@pytest.fixture(autouse=True)
def _drawn_from_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw as processes do, but the same every time."""
    monkeypatch.setattr(ids, "jitter", random.Random(4).random)  # noqa: S311 - the same every time


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look after every object, and compact above three."""
    monkeypatch.setattr(automatic, "ONE_IN", 1)
    monkeypatch.setattr(compact, "DUE_SEGMENTS", 3)


def live(fs: Filesystem, experiment: str = DEFAULT) -> int:
    """Return how many segments of an experiment are not compacted."""
    lake = Storage(fs, Settings()).require_lake()
    snapshot = Snapshots(fs, lake=lake).take([experiment])
    return len([each for each in snapshot.segments if each.name.experiment_id == experiment])


def short_run(fs: Filesystem, number: int, *, compact: str | None = None) -> None:
    """Log a run as a process does that then ends."""
    with open_on(fs, compact=compact) as lake, lake.start_run(f"run-{number}") as run:
        run.log({"loss": float(number)})
    automatic.end(60.0)


def wait() -> None:
    """Wait until nothing is under way."""
    automatic.end(60.0)


def keeper_of(memory: MemoryFilesystem) -> automatic.Keeper:
    """Return what a process has that begins to log."""
    return automatic.Keeper(Storage(memory, Settings()), is_on=True, tell=pytest.fail)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the experiments that are looked at, one for each look; nothing is done."""
    found: list[str] = []
    monkeypatch.setattr(
        automatic._background, "offer", lambda task, **_: found.append(task.experiment_id)
    )
    return found


def test_none_of_the_objects_up_to_the_bound_is_looked_at_once_in_ten_thousand_million_times(
    memory: MemoryFilesystem, offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = automatic.ONE_IN
    # Of a process the first look comes behind any of its first objects, each as likely, and then
    # one behind each sixth: that none of k comes has the probability (6 - k)/6 at most.
    for place in range(of):
        monkeypatch.setattr(ids, "jitter", lambda place=place: (place + 0.5) / of)
        keeper, looks = keeper_of(memory), []
        for _ in range(3 * of):
            keeper.put(DEFAULT)
            looks.append(len(offered))
            offered.clear()
        assert looks == [int(number % of == place) for number in range(3 * of)]
    # That is most where each object is of a process of its own.
    assert all((of - count) / of <= (1 - 1 / of) ** count for count in range(of + 1))
    assert (1 - 1 / of) ** (BOUND - compact.DUE_SEGMENTS) < 1e-10


@pytest.mark.parametrize("processes", [1, 10, 100, 20_000])
def test_processes_that_know_nothing_of_each_other_look_often_enough(
    memory: MemoryFilesystem, offered: list[str], processes: int
) -> None:
    keepers = [keeper_of(memory) for _ in range(processes)]
    unlooked, longest = 0, 0
    for number in range(20_000):
        keepers[number % processes].put(DEFAULT)
        unlooked = 0 if offered else unlooked + 1
        longest = max(longest, unlooked)
        offered.clear()
    assert longest <= (BOUND - compact.DUE_SEGMENTS) // 2


def test_where_thousands_of_writers_are_open_each_looks_less_often(
    memory: MemoryFilesystem,
) -> None:
    assert automatic.every(0) == automatic.every(automatic.MANY_LIVE) == automatic.ONE_IN
    assert automatic.every(100_000) == 146
    short_run(memory, 0)
    keeper = keeper_of(memory)
    for _ in range(automatic.ONE_IN):
        keeper.put(DEFAULT)
    wait()
    assert keeper._live == {DEFAULT: 1}


def test_short_runs_one_after_the_other_leave_few_objects_with_nobody_tending(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "DUE_SEGMENTS", 16)
    counts = []
    for number in range(60):
        short_run(memory, number)
        counts.append(live(memory))
    assert 16 < max(counts) <= 16 + 3 * automatic.ONE_IN
    assert sum(after < before for before, after in pairwise(counts)) >= 2
    with open_on(memory) as lake:
        found = lake.sql("SELECT count(*) AS runs, sum(metrics['loss']) AS loss FROM runs")
    assert found.rows() == [(60, sum(range(60)))]


def test_a_writer_that_never_ends_leaves_few_objects_too(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SEAL_UPLOADS", 1)
    monkeypatch.setattr(compact, "DUE_SEGMENTS", 16)
    counts = []
    with open_on(memory) as lake, lake.start_run() as run:
        for step in range(60):
            run.log({"loss": float(step)}, step=step)
            lake.flush()
            wait()
            counts.append(live(memory))
        lake.refresh()
        (count,) = lake.sql("SELECT count FROM metric_summary")["count"].to_list()
    assert 16 < max(counts) <= 16 + automatic.ONE_IN + 1
    assert count == 60


def test_processes_that_are_killed_leave_few_objects_too(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compact, "DUE_SEGMENTS", 16)
    monkeypatch.setattr(ripe, "QUIET_S", -1)
    counts = []
    for number in range(40):
        lake = open_on(memory, journal=str(tmp_path / f"host-{number}"))
        lake.start_run(f"run-{number}").log({"loss": 1.0})
        lake.flush()
        stop, wake = lake._drain._stop, lake._drain._wake
        lake._drain.abandon_in_child()
        stop.wanted = True
        wake.set()
        wait()
        counts.append(live(memory))
    assert max(counts) <= 16 + 3 * automatic.ONE_IN
    assert min(counts[16:]) < 16


@pytest.mark.usefixtures("always")
def test_columns_are_taken_although_their_writer_never_says_that_it_ends(
    memory: MemoryFilesystem,
) -> None:
    for _ in range(8):
        with open_on(memory) as lake, lake.start_run() as run:
            run.log_history({"step": [0, 1], "loss": [1.0, 2.0]})
        wait()
    assert live(memory) <= 3 + 2


@pytest.mark.usefixtures("always")
def test_runs_stay_as_they_are_and_answers_too(lake: Lake) -> None:
    for number in range(10):
        with lake.start_run(f"run-{number}") as run:
            run.log_params({"lr": number})
            run.log({"loss": float(number)})
        lake.close()
        wait()
        assert lake.search_runs().height == number + 1
    assert live(lake._storage.fs) <= 4
    assert lake.maintain.verify().is_sound


def test_where_it_is_off_nothing_starts(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch, always: None
) -> None:
    del always
    monkeypatch.setenv("RUNLAKE_COMPACT", "off")
    for number in range(6):
        short_run(memory, number)
    assert live(memory) == 6
    with open_on(memory) as lake:
        monkeypatch.setattr(upkeep, "SEEN_SEGMENTS", 0)
        lake.refresh()
        wait()
    assert live(memory) == 6


@pytest.mark.usefixtures("always")
def test_a_store_that_cannot_create_conditionally_is_left_alone(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "probe", lambda: False)
    for number in range(6):
        short_run(memory, number)
    assert live(memory) == 6
    assert memory.list(layout.MANIFESTS) == []


def test_a_look_costs_two_listings_and_only_one_object_in_six_is_followed_by_one(
    memory: MemoryFilesystem,
) -> None:
    short_run(memory, 0)
    counting = CountingFilesystem(memory)
    storage = Storage(counting, Settings())
    storage.ensure_lake()
    keeper = automatic.Keeper(storage, is_on=True, tell=pytest.fail)
    counting.reset()
    for _ in range(4 * automatic.ONE_IN):
        keeper.put(DEFAULT)
        wait()
    assert counting.requests["LIST"] == 4 * 2
    assert counting.total == counting.requests["LIST"]


def test_the_first_object_of_a_process_is_followed_by_a_look_once_in_six(
    memory: MemoryFilesystem, offered: list[str]
) -> None:
    for _ in range(600):
        keeper_of(memory).put(DEFAULT)
    assert 70 <= len(offered) <= 130


def test_a_reader_that_may_write_has_many_objects_compacted_once_a_minute(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "DUE_SEGMENTS", 3)
    monkeypatch.setattr(upkeep, "SEEN_SEGMENTS", 4)
    for number in range(6):
        short_run(memory, number, compact="off")
    with open_on(memory, read_only=True) as reader:
        assert reader.search_runs().height == 6
        wait()
        assert live(memory) == 6
    with open_on(memory) as reader:
        assert reader.search_runs().height == 6
        wait()
        assert live(memory) == 0
        for number in range(6):
            short_run(memory, number, compact="off")
        reader.refresh()
        wait()
        assert live(memory) == 6
        assert reader.search_runs().height == 12


@pytest.mark.usefixtures("always")
def test_a_lake_that_cannot_be_compacted_is_told_of_once_and_logged_to_all_the_same(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        message = "the manifest is damaged"
        raise FormatError(message)

    monkeypatch.setattr(compact.Compactor, "compact", fail)
    told: list[str] = []
    storage = Storage(memory, Settings())
    storage.ensure_lake()
    for number in range(6):
        short_run(memory, number, compact="off")
    keeper = automatic.Keeper(storage, is_on=True, tell=told.append)
    for _ in range(3):
        keeper.put(DEFAULT)
        wait()
    (message,) = told
    assert "the manifest is damaged" in message
    assert "RUNLAKE_COMPACT=off" in message


@pytest.mark.usefixtures("always")
def test_what_a_writer_is_told_is_a_warning(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        message = "the manifest is damaged"
        raise FormatError(message)

    monkeypatch.setattr(compact.Compactor, "compact", fail)
    for number in range(3):
        short_run(memory, number)
    with pytest.warns(RunlakeWarning, match="could not be compacted in the background"):
        short_run(memory, 3)
    short_run(memory, 4)


@pytest.mark.usefixtures("always")
def test_a_child_forked_in_the_middle_of_a_compaction_never_begins_one(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "_background", automatic._Background())
    begun, go_on = threading.Event(), threading.Event()

    def stall(*_: object, **__: object) -> compact.Look:
        begun.set()
        go_on.wait()
        return compact.Look(0, is_due=False)

    monkeypatch.setattr(compact.Compactor, "look", stall)
    storage = Storage(memory, Settings())
    storage.ensure_lake()
    keeper = automatic.Keeper(storage, is_on=True, tell=pytest.fail)
    keeper.put(DEFAULT)
    begun.wait()
    parents = automatic._background
    automatic._after_fork_in_child()
    try:
        keeper.put(DEFAULT)
        assert automatic.take_over() is None
        assert not automatic._background.is_serving
    finally:
        go_on.set()
        parents.end(60.0)


def test_a_child_that_is_forked_while_nothing_goes_on_may(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automatic, "_background", automatic._Background())
    automatic._after_fork_in_child()
    keeper = automatic.Keeper(Storage(memory, Settings()), is_on=True, tell=pytest.fail)
    for _ in range(automatic.ONE_IN):
        keeper.put(DEFAULT, now=False)
    session = automatic.take_over()
    assert session is not None
    automatic.serve(session)


# A process that logs a run and ends; what it finds is due.
ENDS = """
import sys, time
import runlake
from runlake.storage import localfs
from runlake.upkeep import automatic, compact


automatic.ONE_IN, compact.DUE_SEGMENTS = 1, 3
{change}
with runlake.open(sys.argv[1]) as lake:
    lake.start_run("last").finish()
"""


def ended(url: Path, *, change: str = "") -> None:
    """Run a process to its end; it must be quiet."""
    script = ENDS.format(change=change)
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", script, str(url)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")


def full_lake(url: Path, count: int = 40) -> Filesystem:
    """Make a local lake with segments that are due."""
    lake = open_lake(url)
    for number in range(count):
        lake.start_run(f"run-{number}").finish()
        lake.close()
    return lake._storage.fs


def test_a_process_that_ends_finishes_what_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLAKE_COMPACT", "off")
    fs = full_lake(tmp_path / "lake")
    monkeypatch.setenv("RUNLAKE_COMPACT", "auto")
    ended(tmp_path / "lake")
    assert live(fs) == 0


STUCK = "localfs.LocalFilesystem.upload = lambda *_: time.sleep(3600); "


@pytest.mark.parametrize(
    "change",
    [
        "automatic.END_S = 0.0",  # stopped at its next pause
        "automatic.END_S = 0.1",
        "automatic.END_S = 0.2",
        STUCK + "automatic.END_S = automatic._STOP_S = 0.1",  # the store never answers
    ],
)
def test_a_process_that_ends_leaves_what_takes_too_long_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setenv("RUNLAKE_COMPACT", "off")
    fs = full_lake(tmp_path / "lake", 20)
    monkeypatch.setenv("RUNLAKE_COMPACT", "auto")
    ended(tmp_path / "lake", change=change)
    monkeypatch.setenv("RUNLAKE_COMPACT", "off")
    with open_lake(tmp_path / "lake") as lake:
        assert lake.search_runs().height == 21
    assert live(fs) in {0, 21}


def test_open_writers_are_no_work_and_those_that_have_ended_are(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "DUE_SEGMENTS", 5)
    make_lake(memory)
    for number in range(1, 9):
        rows = [said("run", schema.STATUS, "", schema.RUNNING, at=0), point("run", "loss", 1, 1.0)]
        made = MadeWriter(number, [*rows, said("", schema.CLOSE, at=2)])
        made.put(memory, 0, 1)
    assert not compactor(memory).look(EXPERIMENT).is_due
    for number in range(9, 16):
        rows = [said("run", schema.STATUS, "", schema.RUNNING, at=0), said("", schema.CLOSE, at=1)]
        MadeWriter(number, rows).put(memory, 0, 1)
    assert compactor(memory).look(EXPERIMENT).is_due
    assert compactor(memory).compact(EXPERIMENT).segments == 7
    assert not compactor(memory).look(EXPERIMENT).is_due
    assert Snapshots(memory, lake=LAKE).take([EXPERIMENT]).manifest.number == 1


def test_of_many_newest_segments_a_few_are_looked_into(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ripe, "_LOOKED_INTO", 4)
    make_lake(memory)
    for number in range(1, 21):
        rows = [said("run", schema.STATUS, "", schema.RUNNING, at=0), said("", schema.CLOSE, at=1)]
        MadeWriter(number, rows).put(memory, 0, 1 if number % 2 else 0)
    counting = CountingFilesystem(memory)
    snapshot = Snapshots(counting, lake=LAKE).take([EXPERIMENT])
    counting.reset()
    assert 5 <= ripe.count(counting, snapshot, EXPERIMENT, most=3) <= 15
    assert counting.total <= 4
    counting.reset()
    assert ripe.count(counting, snapshot, EXPERIMENT, most=20) <= 20
    assert counting.total == 0


def test_a_thread_that_dies_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead(BaseException):
        """Ends a thread, as the end of a process does."""

    def die(*_: object) -> None:
        raise Dead

    background = automatic._Background()
    monkeypatch.setattr(background, "_do", die)
    background._waiting["lake", "0"] = cast("Any", None)
    session = background.take_over()
    assert session is not None
    with pytest.raises(Dead):
        background.serve(session)
    assert not background.is_serving
