"""When a question takes a new snapshot, and what that costs in requests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from runlake import clock
from runlake.errors import InvalidInputError
from runlake.lake import open_lake
from runlake.storage.localfs import LocalFilesystem
from runlake.testing import CountingFilesystem, SlowFilesystem
from runlake.testing import open_lake as open_over
from tests.storage.lakes import named, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runlake.lake import Lake

WARM = {"LIST": 2}
THREADS = 8


@pytest.fixture
def counting(tmp_path: Path) -> CountingFilesystem:
    """The storage of a lake in which two writers have put rows."""
    fs = LocalFilesystem(tmp_path / "lake")
    with open_over(fs) as lake:
        lake._storage.ensure_lake()
    put(fs, named(1, 0, 9), named(2, 0, 4))
    return CountingFilesystem(fs)


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that stands until it is set."""
    now = [1000.0]
    monkeypatch.setattr(clock, "monotonic_s", lambda: now[0])
    yield now
    monkeypatch.undo()


def at_once(question: Callable[[], object]) -> list[object]:
    """Ask the same question in many threads."""
    barrier = threading.Barrier(THREADS)
    answers: list[object] = []

    def ask() -> None:
        barrier.wait()
        answers.append(question())

    threads = [threading.Thread(target=ask) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def points(lake: Lake) -> object:
    """Count the points of a lake."""
    return lake.sql("SELECT count(*) AS n FROM metrics").item()


def test_a_question_to_a_fresh_snapshot_costs_nothing(
    counting: CountingFilesystem, now_s: list[float]
) -> None:
    with open_over(counting, refresh_s=7.0, read_only=True) as lake:
        assert points(lake) == 15
        counting.reset()
        now_s[0] += 7.0
        for _ in range(3):
            assert points(lake) == 15
            assert lake.search_runs().height == 2
        assert counting.total == 0


def test_a_question_to_an_old_snapshot_costs_two_listings(
    counting: CountingFilesystem, now_s: list[float]
) -> None:
    with open_over(counting, refresh_s=7.0, read_only=True) as lake:
        points(lake)
        counting.reset()
        now_s[0] += 7.1
        assert lake.search_runs().height == 2
        assert dict(counting.requests) == WARM
        assert lake.search_runs().height == 2
        assert dict(counting.requests) == WARM


def test_without_patience_every_question_takes_a_snapshot(counting: CountingFilesystem) -> None:
    with open_over(counting, refresh_s=0.0, read_only=True) as lake:
        points(lake)
        counting.reset()
        for asked in (1, 2, 3):
            lake.search_runs()
            assert counting.requests["LIST"] == 2 * asked


@pytest.mark.parametrize(("is_local", "patience_s"), [(True, 1.0), (False, 10.0)])
def test_a_snapshot_is_good_for_a_second_of_a_local_lake_and_for_ten_of_a_far_one(
    counting: CountingFilesystem, now_s: list[float], *, is_local: bool, patience_s: float
) -> None:
    counting.is_local = is_local
    with open_over(counting, read_only=True) as lake:
        lake.search_runs()
        counting.reset()
        now_s[0] += patience_s
        lake.search_runs()
        assert counting.total == 0
        now_s[0] += 0.1
        lake.search_runs()
        assert dict(counting.requests) == WARM


def test_refresh_takes_a_snapshot_at_once(counting: CountingFilesystem) -> None:
    with open_over(counting, refresh_s=1e9, read_only=True) as lake:
        assert points(lake) == 15
        put(counting.inner, named(3, 0, 4))
        assert points(lake) == 15
        before = lake.snapshot
        lake.refresh()
        assert lake.snapshot is not before
        assert points(lake) == 20


def test_a_new_segment_costs_its_footer_only(counting: CountingFilesystem) -> None:
    with open_over(counting, refresh_s=0.0, read_only=True) as lake:
        lake.search_runs()
        put(counting.inner, named(3, 0, 4))
        counting.reset()
        assert lake.search_runs().height == 3
        assert dict(counting.requests) == {"LIST": 2, "GET": 1}


def test_own_rows_are_read_however_patient_the_lake_is(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake", refresh=1e9) as lake:
        assert lake.search_runs().height == 0
        with lake.start_run() as run:
            run.log({"loss": 1.0})
            assert points(lake) == 1
        assert lake.search_runs()["status"].to_list() == ["FINISHED"]


def test_threads_that_ask_at_once_take_one_snapshot(counting: CountingFilesystem) -> None:
    slow = CountingFilesystem(SlowFilesystem(counting, latency_s=0.05))
    with open_over(slow, refresh_s=1e9, read_only=True) as lake:
        lake.search_runs()
        slow.reset()
        lake._taken_s = float("-inf")
        assert at_once(lambda: lake.search_runs().height) == [2] * THREADS
        assert dict(slow.requests) == WARM


def test_threads_that_miss_a_file_at_once_take_one_snapshot(counting: CountingFilesystem) -> None:
    with open_over(counting, refresh_s=1e9, read_only=True) as lake:
        assert lake.search_runs().height == 2
        put(counting.inner, named(1, 0, 19))
        counting.inner.delete_many([named(1, 0, 9).key])
        counting.reset()
        assert at_once(lambda: points(lake)) == [25] * THREADS
        assert counting.requests["LIST"] == 2


@pytest.mark.parametrize("refresh", [-1.0, float("nan")])
def test_a_patience_that_is_none_is_refused(tmp_path: Path, refresh: float) -> None:
    with pytest.raises(InvalidInputError, match="refresh_s"):
        open_lake(tmp_path / "lake", refresh=refresh)
