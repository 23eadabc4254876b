"""Compaction beside others that compact, vacuum, fail and die, at every one of its requests."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar, final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import ids, schema
from runlake.errors import StorageError
from runlake.storage import layout, manifests
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.snapshot import Snapshots
from runlake.testing.filesystems import Call, FaultyFilesystem, SimulatedCrash, Wrapper
from runlake.upkeep import vacuum as vacuum_module
from runlake.upkeep.commit import Committer
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Compacted, Limits, Work
from tests.storage.lakes import EXPERIMENT
from tests.upkeep.instants import DieBehind, Interrupt, calls_of, writes_of
from tests.upkeep.made import (
    LAKE,
    Held,
    MadeWriter,
    compactor,
    expected,
    held,
    make_lake,
    point,
    said,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runlake.storage.filesystem import Filesystem

T = TypeVar("T")
FULL: Final = Limits(is_full=True)


def rows_of(number: int, count: int, *, closes: bool) -> MadeWriter:
    """Return a writer of two runs."""
    rows = [
        said(f"run-{number}", schema.RUN, schema.RUN_START, at=0),
        *(point(f"run-{step % 2}", "loss", step, float(number)) for step in range(count)),
    ]
    return MadeWriter(number, [*rows, said("", schema.CLOSE, at=count)] if closes else rows)


MADE: Final = (
    rows_of(1, 5, closes=True),
    rows_of(2, 6, closes=False),
    rows_of(3, 2, closes=True),
)


def put_first(fs: Filesystem) -> Held:
    """Put some segments of three writers; return what the lake then holds."""
    MADE[0].put(fs, 0, 3)
    MADE[0].put(fs, 4, 6)
    MADE[1].put(fs, 0, 2)
    MADE[1].put(fs, 3, 4)
    return expected([(MADE[0], 6), (MADE[1], 4)])


def put_more(fs: Filesystem) -> Held:
    """Put what comes later; return what the lake then holds."""
    MADE[1].put(fs, 3, 6)
    MADE[2].put(fs, 0, 3)
    return expected([(MADE[0], 6), (MADE[1], 6), (MADE[2], 3)])


class World:
    """A lake in which something is compacted and something is not; it can be had again."""

    def __init__(self) -> None:
        """Make it."""
        self.fs = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
        make_lake(self.fs)
        put_first(self.fs)
        compactor(self.fs).compact(EXPERIMENT)
        self.wanted = put_more(self.fs)
        self._objects = {entry.key: self.fs.get(entry.key) for entry in self.fs.list("")}

    def restore(self) -> None:
        """Bring the lake back to what it was."""
        self.fs.delete_many([entry.key for entry in self.fs.list("")])
        for key, data in self._objects.items():
            self.fs.put(key, data)


@pytest.fixture
def world(scratch_in_memory: None) -> Iterator[World]:
    del scratch_in_memory
    yield (made := World())
    made.fs.delete_many([entry.key for entry in made.fs.list("")])


def tidy(fs: Filesystem) -> None:
    """Take away at once whatever may go."""
    vacuum(fs, lake=LAKE, grace_s=0, is_dry_run=False)


def compact_fully(fs: Filesystem) -> Compacted:
    """Compact as far as one can."""
    fs.conditional_create = True
    return compactor(fs, limits=FULL).compact(EXPERIMENT)


def test_a_compactor_that_dies_at_any_instant_harms_nothing(world: World) -> None:
    for at in writes_of(compact_fully, world.fs):
        world.restore()
        with pytest.raises(SimulatedCrash):
            compact_fully(DieBehind(world.fs, write=at))
        tidy(world.fs)
        assert held(world.fs) == world.wanted, at
        compact_fully(world.fs)
        assert held(world.fs) == world.wanted, at


def test_orphans_of_the_dead_go_once_their_number_is_used(world: World) -> None:
    for at in writes_of(compact_fully, world.fs):
        world.restore()
        with pytest.raises(SimulatedCrash):
            compact_fully(DieBehind(world.fs, write=at))
        compact_fully(world.fs)
        tidy(world.fs)
        named = manifests.newest(world.fs, lake=LAKE).paths()
        numbers = {
            entry.key: name.number
            for entry in world.fs.list(layout.TABLES)
            if (name := layout.parse_table_file(entry.key))
        }
        assert named <= numbers.keys()
        newest = manifests.newest(world.fs, lake=LAKE).number
        assert all(number > newest for key, number in numbers.items() if key not in named)


@pytest.mark.parametrize("tidies", [False, True], ids=["", "vacuum"])
def test_two_compactors_lose_work_only_wherever_one_overtakes_the_other(
    world: World, *, tidies: bool
) -> None:
    def others() -> None:
        compact_fully(world.fs)
        if tidies:
            tidy(world.fs)

    for at in calls_of(compact_fully, world.fs, one_in=2, lane=tidies):
        world.restore()
        compact_fully(Interrupt(world.fs, at=at, others=others))
        tidy(world.fs)
        assert held(world.fs) == world.wanted, at
        assert not [
            entry for entry in world.fs.list(layout.LOG) if is_consumed(world.fs, entry.key)
        ]


def is_consumed(fs: Filesystem, key: str) -> bool:
    """Tell whether the rows of a segment are compacted."""
    name = layout.parse_segment(key)
    assert name is not None
    return name.last <= manifests.newest(fs, lake=LAKE).consumed.get(name.writer, -1)


def test_a_commit_of_another_experiment_costs_no_work(world: World) -> None:
    other = MadeWriter(9, [point("run-9", "loss", 0, 1.0)] * 2, "other")

    def others() -> None:
        other.put(world.fs, 0, 0)
        other.put(world.fs, 1, 1)
        compactor(world.fs).compact("other")

    calls = calls_of(lambda fs: compactor(fs).compact(EXPERIMENT), world.fs)
    moved = 0
    for at in calls:
        world.restore()
        racing = Interrupt(world.fs, at=at, others=others)
        racing.conditional_create = True
        done = compactor(racing).compact(EXPERIMENT)
        assert done.conflicts == 0, at
        moved += racing.calls > len(calls)
        assert held(world.fs) == world.wanted, at
        assert held(world.fs, "other").rows.total() == 2
    assert moved


def test_a_vacuum_at_any_request_of_a_compactor_takes_nothing_that_it_needs(world: World) -> None:
    for at in calls_of(compact_fully, world.fs):
        world.restore()
        compact_fully(Interrupt(world.fs, at=at, others=lambda: tidy(world.fs)))
        assert held(world.fs) == world.wanted, at


def test_a_compactor_at_any_request_of_a_vacuum_loses_nothing(world: World) -> None:
    for at in calls_of(tidy, world.fs):
        world.restore()
        tidy(Interrupt(world.fs, at=at, others=lambda: compact_fully(world.fs)))
        assert held(world.fs) == world.wanted, at


def test_files_that_move_on_are_not_taken_by_a_vacuum_that_saw_them_before(world: World) -> None:
    other = MadeWriter(9, [point("run-9", "loss", 0, 1.0)] * 2, "other")
    snapshot = Snapshots(world.fs, lake=LAKE).take([EXPERIMENT])
    change = Work(world.fs, EXPERIMENT, Limits()).next_change(snapshot)
    assert change is not None
    found = change
    other.put(world.fs, 0, 0)
    other.put(world.fs, 1, 1)
    compactor(world.fs).compact("other")
    made: list[object] = []

    @final
    class Vacuuming(Wrapper):
        def around(self, call: Call, action: Callable[[], T]) -> T:
            if call.verb == "delete_many":
                committer = Committer(world.fs, lake=LAKE)
                made.append(committer.commit(found, snapshot.manifest))
            return action()

    tidy(Vacuuming(world.fs))
    assert made != [None]
    assert held(world.fs) == world.wanted


@pytest.mark.parametrize("seed", range(8))
def test_lost_answers_and_failures_lose_no_row(world: World, seed: int) -> None:
    world.restore()
    faulty = FaultyFilesystem(world.fs, seed=seed, before=0.05, after=0.1)
    faulty.conditional_create = True
    for _ in range(40):
        try:
            compactor(faulty, limits=FULL).compact(EXPERIMENT)
            vacuum(faulty, lake=LAKE, grace_s=0, is_dry_run=False)
        except StorageError:
            assert held(world.fs) == world.wanted
        else:
            break
    assert held(world.fs) == world.wanted


@pytest.mark.parametrize("is_next_there", [False, True], ids=["", "next-is-there"])
def test_a_number_won_a_second_time_means_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, *, is_next_there: bool
) -> None:
    late = MadeWriter(4, [point("run-4", "loss", step, 1.0) for step in range(4)])

    def others() -> None:
        for last in range(4):
            late.put(world.fs, last, last)
            compact_fully(world.fs)
        there = len(manifests.listed(world.fs))
        monkeypatch.setattr(vacuum_module, "KEPT_MANIFESTS", there - 2 if is_next_there else 1)
        tidy(world.fs)

    at = first_commit(world.fs)
    stalled = Interrupt(world.fs, at=at, others=others)
    report = compact_fully(stalled)
    assert report.conflicts == 1
    numbers = [each.number for each in manifests.listed(world.fs)]
    assert numbers[0] == 2  # the one that came too late
    assert (numbers[1] == 3) == is_next_there
    later = expected([(late, 3)])
    assert held(world.fs).rows == world.wanted.rows + later.rows
    tidy(world.fs)
    assert held(world.fs).rows == world.wanted.rows + later.rows
    assert [each.number for each in manifests.listed(world.fs)] == numbers[1:]


@final
class Turns:
    """Lets two threads make their requests in an order that is given."""

    def __init__(self, order: list[int]) -> None:
        """Keep the order: which of the threads 0 and 1 makes each request."""
        self._order = list(reversed(order))
        self._ended: set[int] = set()
        self._changed = threading.Condition()

    def wait(self, who: int) -> None:
        """Wait for one's turn; whoever is alone, or beyond the order, need not."""
        with self._changed:
            self._changed.wait_for(lambda: self._next() in {who, None}, timeout=30)
            if self._order:
                self._order.pop()
            self._changed.notify_all()

    def end(self, who: int) -> None:
        """Take part no longer."""
        with self._changed:
            self._ended.add(who)
            self._changed.notify_all()

    def _next(self) -> int | None:
        while self._order and self._order[-1] in self._ended:
            self._order.pop()
        return self._order[-1] if self._order else None


@final
class TakingTurns(Wrapper):
    """Waits for its turn before every request."""

    def __init__(self, inner: Filesystem, turns: Turns, who: int) -> None:
        """Wrap `inner`."""
        super().__init__(inner)
        self.conditional_create = True
        self._turns, self._who = turns, who

    def around(self, call: Call, action: Callable[[], T]) -> T:
        del call
        self._turns.wait(self._who)
        return action()


@settings(max_examples=15)
@given(order=st.lists(st.integers(0, 1), max_size=60), tidies=st.booleans())
def test_two_compactors_lose_no_row_in_any_order_of_their_requests(
    order: list[int], *, tidies: bool
) -> None:
    world, turns = World(), Turns(order)

    def work(who: int) -> None:
        try:
            fs = TakingTurns(world.fs, turns, who)
            compactor(fs, limits=FULL).compact(EXPERIMENT)
            if tidies:
                tidy(fs)
        finally:
            turns.end(who)

    with ThreadPoolExecutor(2) as pool:
        for working in [pool.submit(work, who) for who in (0, 1)]:
            working.result()
    assert held(world.fs) == world.wanted
    tidy(world.fs)
    assert held(world.fs) == world.wanted
    world.fs.delete_many([entry.key for entry in world.fs.list("")])


def first_commit(fs: Filesystem) -> int:
    """Return which request of a compaction is the first commit, in a lake that is left as is."""
    seen: list[Call] = []

    @final
    class Watching(Wrapper):
        def around(self, call: Call, action: Callable[[], T]) -> T:
            seen.append(call)
            if call.verb == "put_absent":
                raise SimulatedCrash
            return action()

    watching = Watching(fs)
    watching.conditional_create = True
    with pytest.raises(SimulatedCrash):
        compactor(watching, limits=FULL).compact(EXPERIMENT)
    return len(seen)
