from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import clock, ids, schema
from runlake.errors import ConflictError, InvalidInputError, StateError
from runlake.storage import layout, manifest, manifests
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.manifest import Manifest
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.snapshot import Snapshots
from runlake.storage.table_files import METRICS, TABLES, read_header
from runlake.testing.filesystems import Call, Wrapper
from runlake.upkeep import commit, compact, work
from runlake.upkeep.compact import Compactor, shard_of
from runlake.upkeep.ripe import QUIET_S
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Compacted, Limits
from tests.storage.curves import put_columns
from tests.storage.lakes import EXPERIMENT
from tests.upkeep import bounded
from tests.upkeep.made import (
    LAKE,
    MadeWriter,
    compactor,
    cuts,
    expected,
    held,
    make_lake,
    point,
    said,
    writers,
)
from tests.upkeep.peak import BESIDE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runlake.storage.filesystem import Filesystem

T = TypeVar("T")


@pytest.fixture
def memory() -> Iterator[MemoryFilesystem]:
    yield (opened := MemoryFilesystem(f"test-{ids.new_nonce()}/lake"))
    opened.delete_many([entry.key for entry in opened.list("")])


@settings(max_examples=40)
@given(data=st.data(), made=writers())
def test_rows_and_states_are_the_same_before_and_after_any_compaction(
    data: st.DataObject, made: list[MadeWriter]
) -> None:
    fs = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_lake(fs)
    lasts = {}
    for writer in made:
        ends = data.draw(st.composite(cuts)(len(writer.rows)))
        upto = data.draw(st.integers(0, len(ends)))
        first = 0
        for end in ends[:upto]:
            writer.put(fs, first, end)
            first = end + 1
        lasts[writer.number] = first - 1
    wanted = expected((writer, lasts[writer.number]) for writer in made)
    assert held(fs) == wanted
    compactor(fs).compact(EXPERIMENT)
    assert held(fs) == wanted
    compactor(fs, limits=Limits(is_full=True)).compact(EXPERIMENT)
    assert held(fs) == wanted
    fs.delete_many([entry.key for entry in fs.list("")])


class Life:
    """Writers that go on while their lake is compacted and vacuumed."""

    def __init__(self, fs: Filesystem, made: list[MadeWriter]) -> None:
        """Start with nothing put."""
        self.fs, self.made = fs, made
        self.sealed = dict.fromkeys(range(len(made)), 0)
        self.tails: dict[int, list[str]] = {place: [] for place in self.sealed}
        self.lasts = dict.fromkeys(self.sealed, -1)
        self.put: list[tuple[MadeWriter, int, int]] = []

    def grow(self, place: int, size: int) -> None:
        """Put a tail that covers the one before."""
        writer, first = self.made[place], self.sealed[place]
        last = min(self.lasts[place] + size, len(writer.rows) - 1)
        if last > self.lasts[place]:
            self.tails[place].append(writer.put(self.fs, first, last))
            self.put.append((writer, first, last))
            self.lasts[place] = last

    def seal(self, place: int) -> None:
        """Begin a new tail, and delete the names that the old one replaced."""
        self.sealed[place] = self.lasts[place] + 1
        self.fs.delete_many(self.tails[place][:-1])
        self.tails[place] = []

    def merge(self, place: int, first: int) -> None:
        """Join all sealed rows from a segment's beginning on."""
        writer, last = self.made[place], self.sealed[place] - 1
        starts = [start for of, start, end in self.put if of is writer and end <= last]
        if last >= 0 and starts:
            start = starts[first % len(starts)]
            cover = writer.segment(start, last, merged=True)
            self.fs.put_absent(cover.key, writer.encoded(cover))
            names = [
                name
                for entry in self.fs.list(layout.partition(writer.experiment))
                if (name := layout.parse_segment(entry.key)) and name.writer == writer.writer
            ]
            self.fs.delete_many([name.key for name in names if cover.covers(name)])

    def replay(self, number: int) -> None:
        """Upload a segment once more, as a recovery may do weeks later."""
        if self.put:
            writer, first, last = self.put[number % len(self.put)]
            name = writer.segment(first, last)
            self.fs.put_absent(name.key, writer.encoded(name))

    def wanted(self) -> object:
        """Return what the lake should hold."""
        return expected((self.made[place], last) for place, last in self.lasts.items())


_deeds = st.tuples(
    st.sampled_from(["grow", "grow", "grow", "seal", "merge", "replay", "compact", "vacuum"]),
    st.integers(0, 2),
    st.integers(1, 9),
)


@settings(max_examples=60)
@given(made=writers(), deeds=st.lists(_deeds, min_size=5, max_size=25))
def test_no_row_is_lost_or_doubled_while_writers_compactors_and_vacuums_take_turns(
    made: list[MadeWriter], deeds: list[tuple[str, int, int]]
) -> None:
    fs = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_lake(fs)
    life, keeper = Life(fs, made), compactor(fs)
    for deed, which, number in deeds:
        place = which % len(made)
        match deed:
            case "grow":
                life.grow(place, number)
            case "seal":
                life.seal(place)
            case "merge":
                life.merge(place, number)
            case "replay":
                life.replay(number)
            case "compact":
                keeper.compact(EXPERIMENT)
            case "vacuum":
                vacuum(fs, lake=LAKE, grace_s=0, is_dry_run=False)
        if deed in {"merge", "compact", "vacuum", "replay"}:
            assert held(fs) == life.wanted()
    assert held(fs) == life.wanted()
    fs.delete_many([entry.key for entry in fs.list("")])


def test_a_lake_on_any_store_is_compacted_merged_and_vacuumed(filesystem: Filesystem) -> None:
    made = [curve(number, 5, run=f"run-{number}") for number in (1, 2, 3)]
    lake_of(filesystem, (made[0], [2, 5]), (made[1], [1]))
    compactor(filesystem).compact(EXPERIMENT)
    made[1].put(filesystem, 2, 5)
    made[2].put(filesystem, 0, 5)
    done = compactor(filesystem, limits=Limits(is_full=True)).compact(EXPERIMENT)
    assert (done.commits, done.conflicts, live(filesystem)) == (2, 0, [])
    vacuum(filesystem, lake=LAKE, grace_s=0, is_dry_run=False)
    assert filesystem.list(layout.LOG) == []
    named = manifests.newest(filesystem, lake=LAKE).paths()
    assert {entry.key for entry in filesystem.list(layout.TABLES)} == named
    assert held(filesystem) == expected((writer, 5) for writer in made)


# --- what is taken, and what is left ---


def curve(number: int, count: int, *, closes: bool = True, run: str = "run-a") -> MadeWriter:
    """Return a writer of one curve; one that does not close begins with the status of its run."""
    rows = [point(run, "loss", step, float(step)) for step in range(count)]
    if closes:
        return MadeWriter(number, [*rows, said("", schema.CLOSE, at=count)])
    return MadeWriter(number, [said(run, schema.STATUS, "", schema.RUNNING, at=0), *rows[1:]])


def lake_of(fs: Filesystem, *made: tuple[MadeWriter, list[int]]) -> None:
    """Make a lake with the segments of some writers, given where each ends."""
    make_lake(fs)
    for writer, ends in made:
        first = 0
        for end in ends:
            writer.put(fs, first, end)
            first = end + 1


def live(fs: Filesystem, experiment: str = EXPERIMENT) -> list[str]:
    """Return the live segments of an experiment, as writer, first and last row."""
    snapshot = Snapshots(fs, lake=LAKE).take([experiment])
    return [
        f"{int(name.writer)}:{name.first}-{name.last}"
        for name in (segment.name for segment in snapshot.segments)
        if name.experiment_id == experiment
    ]


def test_all_of_a_writer_is_taken_but_the_tail_that_it_may_still_replace(
    memory: MemoryFilesystem,
) -> None:
    lake_of(memory, (curve(1, 6), [2, 6]), (curve(2, 6, closes=False), [2, 4]))
    done = compactor(memory).compact(EXPERIMENT)
    assert (done.segments, done.rows, done.commits, done.conflicts) == (3, 10, 1, 0)
    assert live(memory) == ["2:3-4"]
    assert compactor(memory).compact(EXPERIMENT) == Compacted(EXPERIMENT)


def test_the_tail_of_a_writer_that_is_silent_for_long_is_taken_too(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = curve(1, 9, closes=False)
    lake_of(memory, (writer, [2, 4]))
    now = clock.now_us()
    monkeypatch.setattr(clock, "now_us", lambda: now + (QUIET_S + 5) * 1_000_000)
    assert compactor(memory).compact(EXPERIMENT).segments == 2
    # It was not dead: its tail goes on, and straddles the watermark.
    writer.put(memory, 3, 8)
    monkeypatch.setattr(clock, "now_us", lambda: now + (2 * QUIET_S + 10) * 1_000_000)
    assert held(memory) == expected([(writer, 8)])
    assert compactor(memory).compact(EXPERIMENT).rows == 4
    assert live(memory) == []
    assert held(memory) == expected([(writer, 8)])


def test_a_damaged_segment_stays_and_what_lies_behind_it(memory: MemoryFilesystem) -> None:
    broken, whole = curve(1, 8), curve(2, 3)
    lake_of(memory, (broken, [2, 5, 8]), (whole, [3]))
    key = broken.segment(3, 5).key
    data = bytearray(memory.get(key))
    data[40] ^= 0xFF
    memory.put(key, bytes(data))
    done = compactor(memory).compact(EXPERIMENT)
    assert (done.segments, done.rows) == (2, 7)
    assert [key in problem for problem in done.problems] == [True]
    assert live(memory) == ["1:3-5", "1:6-8"]
    memory.put(key, broken.encoded(broken.segment(3, 5)))
    assert compactor(memory).compact(EXPERIMENT).problems == ()
    assert held(memory) == expected([(broken, 8), (whole, 3)])


def test_the_reserved_partition_is_compacted_like_any_other(memory: MemoryFilesystem) -> None:
    rows = [said("exp", schema.EXPERIMENT_TAG, "team", str(at), at=at) for at in range(4)]
    lake = schema.RESERVED_PARTITION
    writer = MadeWriter(1, [*rows, said("", schema.CLOSE, at=4)], lake)
    make_lake(memory)
    writer.put(memory, 0, 1)
    writer.put(memory, 2, 4)
    assert compactor(memory).experiments() == [lake]
    compactor(memory).compact(lake)
    assert live(memory, lake) == []
    assert held(memory, lake) == expected([(writer, 4)])


def test_purged_runs_are_left_out_of_what_is_taken_and_of_what_is_merged(
    memory: MemoryFilesystem,
) -> None:
    gone, kept = curve(1, 4, run="gone"), curve(2, 4, run="kept")
    lake_of(memory, (gone, [1, 2]), (kept, [2, 4]))
    compactor(memory).compact(EXPERIMENT)
    assert "gone" in {key[1] for key in held(memory).summaries}
    newest = manifests.newest(memory, lake=LAKE)
    purging = Manifest(
        lake=LAKE,
        number=newest.number + 1,
        nonce=ids.new_nonce(),
        parent=newest.nonce,
        tables=newest.tables,
        consumed=newest.consumed,
        purged=frozenset({"gone"}),
    )
    memory.put(layout.manifest(purging.number), manifest.encode(purging))
    gone.put(memory, 3, 4)
    curve(3, 2, run="gone").put(memory, 0, 2)
    curve(4, 1, run="kept").put(memory, 0, 1)
    done = compactor(memory, limits=Limits(is_full=True)).compact(EXPERIMENT)
    assert done.rows == 2 + 2  # of two writers the word that they end
    found = held(memory)
    assert {row[2] for row in found.rows} == {"kept", ""}
    assert {key[1] for key in found.facts | found.summaries} == {"kept", ""}
    assert {writer: of[0] for writer, of in found.writers.items()} == {
        gone.writer: 4,
        kept.writer: 4,
        curve(3, 0).writer: 2,
        curve(4, 0).writer: 1,
    }


# --- bounds ---


def test_segments_beyond_the_budget_go_in_by_further_commits(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_LEAST_BATCH_BYTES", 50_000)
    made = [curve(number, 400, run=f"run-{number}") for number in (1, 2, 3)]
    lake_of(memory, *((writer, [199, 400]) for writer in made))
    done = compactor(memory, limits=Limits(budget_bytes=1)).compact(EXPERIMENT)
    assert (done.segments, done.rows, live(memory)) == (6, 1203, [])
    files = manifests.newest(memory, lake=LAKE).files(METRICS.name)
    assert [file.rows for file in files] == [400, 400, 400]
    assert done.commits == 3


def test_files_of_one_size_are_merged_before_they_are_many(memory: MemoryFilesystem) -> None:
    writer = curve(1, 400, closes=False)
    make_lake(memory)
    keeper = compactor(memory)
    merged_rows = 0
    for last in range(60):
        writer.put(memory, last, last)
        merged_rows += keeper.compact(EXPERIMENT).merged_rows
    newest = manifests.newest(memory, lake=LAKE)
    for name, table in TABLES.items():
        assert len(newest.files(name)) < 2 * table.fan
    assert merged_rows < 60 * 5 * len(TABLES)
    assert held(memory) == expected([(writer, 59)])


def test_a_full_compaction_leaves_one_file_of_each_table(memory: MemoryFilesystem) -> None:
    made = [curve(number, 5) for number in (1, 2, 3)]
    make_lake(memory)
    for writer in made:
        writer.put(memory, 0, 5)
        compactor(memory).compact(EXPERIMENT)
    compactor(memory, limits=Limits(is_full=True)).compact(EXPERIMENT)
    newest = manifests.newest(memory, lake=LAKE)
    assert {name: len(newest.files(name)) for name in TABLES} == dict.fromkeys(TABLES, 1)
    assert held(memory) == expected((writer, 5) for writer in made)


def test_watermarks_of_idle_writers_move_to_the_cold_files_and_count_for_ever(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "HOT_WRITERS", 4)
    made = [curve(number, 3) for number in range(1, 13)]
    make_lake(memory)
    for writer in made:
        writer.put(memory, 0, 1)
        writer.put(memory, 2, 3)
        compactor(memory).compact(EXPERIMENT)
    newest = manifests.newest(memory, lake=LAKE)
    assert len(newest.consumed) <= 4
    assert newest.cold_hi >= made[7].writer
    assert set(newest.consumed_cold) == {file.path for file in newest.files("writers")}
    tidy = vacuum(memory, lake=LAKE, grace_s=0, is_dry_run=False)
    assert {removed.reason for removed in tidy.removed} >= {"consumed"}
    assert live(memory) == []
    # A recovery uploads again what was compacted long ago, and one row more.
    old = MadeWriter(1, [*made[0].rows, point("run-a", "loss", 99, 1.0)])
    old.put(memory, 0, 1)
    old.put(memory, 2, 4)
    assert live(memory) == ["1:2-4"]
    wanted = expected([(old, 4), *((writer, 3) for writer in made[1:])])
    assert held(memory) == wanted
    compactor(memory).compact(EXPERIMENT)
    assert held(memory) == wanted


# --- manners ---


@pytest.mark.parametrize("count", [1, 3])
def test_shards_share_all_experiments_and_none_twice(memory: MemoryFilesystem, count: int) -> None:
    make_lake(memory)
    names = [f"exp-{number}" for number in range(9)]
    for name in names:
        MadeWriter(1, curve(1, 1).rows, name).put(memory, 0, 1)
    shares = [compactor(memory).experiments(shard=(i, count)) for i in range(1, count + 1)]
    assert sorted(name for share in shares for name in share) == names
    assert all(shard_of(name, count) == i for i, share in enumerate(shares) for name in share)


@pytest.mark.parametrize("shard", [(0, 2), (3, 2)])
def test_a_shard_that_is_none_is_refused(memory: MemoryFilesystem, shard: tuple[int, int]) -> None:
    make_lake(memory)
    with pytest.raises(InvalidInputError, match=f"{shard[0]}/{shard[1]}"):
        compactor(memory).experiments(shard=shard)


def test_an_experiment_is_due_with_many_live_segments_only(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compact, "DUE_SEGMENTS", 3)
    lake_of(memory, (curve(1, 9), [1, 3, 5, 9]))
    keeper = compactor(memory)
    assert keeper.look(EXPERIMENT).is_due
    keeper.compact(EXPERIMENT)
    assert not keeper.look(EXPERIMENT).is_due


@final
class Unsafe(Wrapper):
    """A store that cannot create conditionally."""

    def around(self, call: Call, action: Callable[[], T]) -> T:
        del call
        return action()

    def probe(self) -> bool:
        self.conditional_create = False
        return False


def test_a_store_on_which_two_could_win_is_refused_unless_nobody_else_compacts(
    memory: MemoryFilesystem,
) -> None:
    lake_of(memory, (curve(1, 3), [3]))
    with pytest.raises(StateError, match="alone=True"):
        Compactor(Unsafe(memory), lake=LAKE).compact(EXPERIMENT)
    assert live(memory) == ["1:0-3"]
    assert Compactor(Unsafe(memory), lake=LAKE, is_alone=True).compact(EXPERIMENT).rows == 4


def take_one_segment(fs: Filesystem) -> None:
    """Commit a compaction of one segment, as a compactor with little memory does."""
    snapshot = Snapshots(fs, lake=LAKE).take([EXPERIMENT])
    change = work.Work(fs, EXPERIMENT, Limits(budget_bytes=1)).next_change(snapshot)
    assert change is not None
    assert commit.Committer(fs, lake=LAKE).commit(change, snapshot.manifest) is not None


def test_whoever_is_overtaken_time_and_again_gives_up_without_harm(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_LEAST_BATCH_BYTES", 1)
    writer = curve(1, 20)
    lake_of(memory, (writer, list(range(21))))

    @final
    class Overtaken(Wrapper):
        def around(self, call: Call, action: Callable[[], T]) -> T:
            if call.verb == "put_absent":
                take_one_segment(memory)
            return action()

    slow = Overtaken(memory)
    slow.conditional_create = True
    pauses: list[float] = []
    losing = Compactor(slow, lake=LAKE, sleep=pauses.append)
    with pytest.raises(ConflictError, match="others changed it first"):
        losing.compact(EXPERIMENT)
    assert len(set(pauses)) > 1
    assert held(memory) == expected([(writer, 20)])


def test_what_comes_while_a_compaction_is_at_work_is_left_to_the_next(
    memory: MemoryFilesystem,
) -> None:
    writer, last = curve(1, 20), 3
    lake_of(memory, (writer, [1, 3]))

    def go_on(_: Compacted) -> None:
        nonlocal last
        last += 1
        writer.put(memory, last, last)

    keeper = Compactor(memory, lake=LAKE, progress=go_on)
    assert keeper.compact(EXPERIMENT).commits == 1
    assert live(memory) == ["1:4-4"]
    assert held(memory) == expected([(writer, 4)])


def test_progress_is_told_after_each_commit(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_LEAST_BATCH_BYTES", 1)
    lake_of(memory, *((curve(number, 3), [3]) for number in (1, 2, 3)))
    told: list[Compacted] = []
    keeper = Compactor(memory, lake=LAKE, limits=Limits(budget_bytes=1), progress=told.append)
    done = keeper.compact(EXPERIMENT)
    assert [each.rows for each in told] == sorted(each.rows for each in told)
    assert told[-1] == done
    assert len(told) == done.commits > 1


def test_each_file_says_what_went_into_it_and_what_it_replaces(
    memory: MemoryFilesystem, tmp_path: Path
) -> None:
    one, two = curve(1, 4), curve(2, 4)
    lake_of(memory, (one, [4]))
    compactor(memory).compact(EXPERIMENT)
    first = manifests.newest(memory, lake=LAKE)
    two.put(memory, 0, 4)
    compactor(memory).compact(EXPERIMENT)
    second = manifests.newest(memory, lake=LAKE)
    compactor(memory, limits=Limits(is_full=True)).compact(EXPERIMENT)
    third = manifests.newest(memory, lake=LAKE)
    headers = []
    for made in (first, second, third):
        file = made.files(METRICS.name)[-1]
        memory.download(file.path, tmp_path / "file.parquet")
        headers.append(read_header(tmp_path / "file.parquet", key=file.path))
    assert [header.inputs for header in headers] == [
        {one.writer: (0, 4)},
        {two.writer: (0, 4)},
        {},
    ]
    assert [set(header.replaces) for header in headers] == [set(), set(), set(second.paths())]
    assert [header.n for header in headers] == [1, 2, 3]
    assert [header.rows for header in headers] == [4, 4, 8]
    assert {(header.lake, header.table, header.experiment_id) for header in headers} == {
        (LAKE, METRICS.name, EXPERIMENT)
    }


def test_memory_stays_within_the_budget_whatever_the_size(tmp_path: Path) -> None:
    fs = LocalFilesystem(tmp_path / "lake")
    make_lake(fs)
    MadeWriter(99, curve(99, 3).rows, bounded.SMALL).put(fs, 0, 3)
    keys = [f"key-{number}" for number in range(10)]
    for number in range(8):
        put_columns(fs, number, keys=keys, points=20_000)
    for file in (tmp_path / "lake").rglob("*.parquet"):
        os.utime(file, (0, 0))  # writers that are long gone
    budget = 64 << 20
    command = [sys.executable, "-m", "tests.upkeep.bounded", str(tmp_path / "lake"), str(budget)]
    root = Path(__file__).parents[2]
    ended = subprocess.run(command, check=True, capture_output=True, cwd=root)
    said = json.loads(ended.stdout)
    assert said["rows"] == 1_600_000
    assert said["bytes"] < budget + BESIDE_BYTES
