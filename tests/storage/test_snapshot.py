from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, TypeVar, final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import ids, schema
from runlake.errors import DataLossWarning, FormatError, NewerFormatError, RunlakeWarning
from runlake.storage import layout, manifest
from runlake.storage.filesystem import Entry, Filesystem
from runlake.storage.manifest import Manifest
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.snapshot import LISTINGS_AGAIN, Snapshot, Snapshots, choose
from runlake.testing.filesystems import Call, CountingFilesystem, FaultyFilesystem, Wrapper
from tests.storage.lakes import EXPERIMENT, named, writer_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from random import Random

    from runlake.storage.layout import SegmentName

T = TypeVar("T")
LAKE = "lake-id"


@final
class LaggingFilesystem(Wrapper):
    """A network disk that shows some objects late in its listings, for a number of listings."""

    def __init__(self, inner: Filesystem) -> None:
        """Hide nothing yet."""
        super().__init__(inner)
        self.hidden: set[str] = set()
        self.listings = 1 << 30

    def around(self, call: Call, action: Callable[[], T]) -> T:
        result = action()
        if call.verb == "list" and self.hidden and self.listings:
            self.listings -= 1
            assert isinstance(result, list)
            result[:] = [entry for entry in result if entry.key not in self.hidden]
        return result


@pytest.fixture
def memory() -> Iterator[MemoryFilesystem]:
    yield (opened := MemoryFilesystem(f"test-{ids.new_nonce()}/lake"))
    opened.delete_many([entry.key for entry in opened.list("")])


def put(fs: Filesystem, *names: SegmentName) -> None:
    """Put objects of which only the names matter."""
    for name in names:
        fs.put(name.key, b"rows")


def put_manifest(fs: Filesystem, number: int, consumed: dict[str, int]) -> None:
    made = Manifest(lake=LAKE, number=number, nonce=ids.new_nonce(), consumed=consumed)
    assert fs.put_absent(layout.manifest(number), manifest.encode(made))


def chosen(snapshot: Snapshot) -> list[tuple[SegmentName, int]]:
    return [(segment.name, segment.skip_rows) for segment in snapshot.segments]


# --- choosing ---

_ranges = st.tuples(st.integers(0, 30), st.integers(0, 12), st.booleans())
_name_sets = st.lists(
    _ranges.map(lambda drawn: named(1, drawn[0], drawn[0] + drawn[1], merged=drawn[2])),
    max_size=12,
    unique=True,
)


@given(names=_name_sets, watermark=st.integers(-1, 20))
def test_chosen_rows_are_the_longest_prefix_that_is_there_each_once(
    names: list[SegmentName], watermark: int
) -> None:
    there = {row for name in names for row in range(name.first, name.last + 1)}
    end = watermark
    while end + 1 in there:
        end += 1
    found, hole = choose(names, watermark)
    rows = [row for name, skip in found for row in range(name.first + skip, name.last + 1)]
    assert rows == list(range(watermark + 1, end + 1))
    assert hole == (end + 1 if any(row > end for row in there) else None)


@given(names=_name_sets, watermark=st.integers(-1, 20), order=st.randoms(use_true_random=False))
def test_choice_does_not_depend_on_the_order_of_the_listing(
    names: list[SegmentName], watermark: int, order: Random
) -> None:
    mixed = list(names)
    order.shuffle(mixed)
    assert choose(mixed, watermark) == choose(names, watermark)


@given(names=_name_sets)
def test_no_chosen_segment_is_covered_by_another_that_was_listed(names: list[SegmentName]) -> None:
    found, _ = choose(names)
    assert not [name for name, _ in found for other in names if other.covers(name)]


# --- taking ---


def test_snapshot_of_an_empty_lake_is_empty(memory: MemoryFilesystem) -> None:
    snapshot = Snapshots(memory, lake=LAKE).take()
    assert (snapshot.segments, snapshot.manifest.number, snapshot.is_complete) == ((), 0, True)


def test_snapshot_prefers_the_covering_segment(memory: MemoryFilesystem) -> None:
    put(memory, named(1, 0, 4), named(1, 0, 9), named(1, 10, 12), named(2, 0, 0))
    snapshot = Snapshots(memory, lake=LAKE).take()
    wanted = [(named(1, 0, 9), 0), (named(1, 10, 12), 0), (named(2, 0, 0), 0)]
    assert chosen(snapshot) == wanted
    assert snapshot.lasts == {writer_id(1): 12, writer_id(2): 0}


def test_segment_that_straddles_the_watermark_skips_what_is_consumed(
    memory: MemoryFilesystem,
) -> None:
    put(memory, named(1, 0, 9), named(2, 0, 3))
    put_manifest(memory, 1, {writer_id(1): 5, writer_id(2): 3})
    snapshot = Snapshots(memory, lake=LAKE).take()
    assert chosen(snapshot) == [(named(1, 0, 9), 6)]


def test_segment_uploaded_again_weeks_later_is_not_counted_twice(memory: MemoryFilesystem) -> None:
    put_manifest(memory, 1, {writer_id(1): 99})
    put(memory, named(1, 0, 42))
    assert Snapshots(memory, lake=LAKE).take().segments == ()


def test_snapshot_of_some_experiments_holds_them_and_the_reserved_partition(
    memory: MemoryFilesystem,
) -> None:
    names = [named(n, 0, 1, experiment=e) for n, e in enumerate(["a", "b", "c", "_lake"])]
    put(memory, *names)
    counting = CountingFilesystem(memory)
    snapshot = Snapshots(counting, lake=LAKE).take(["a", "c"])
    assert {segment.name.experiment_id for segment in snapshot.segments} == {"a", "c", "_lake"}
    prefixes = [call.keys[0] for call in counting.calls if call.verb == "list"]
    partitions = [layout.partition(name) for name in (schema.RESERVED_PARTITION, "a", "c")]
    assert prefixes == [*partitions, "manifests/"]


def test_snapshot_of_many_experiments_lists_the_log_once(memory: MemoryFilesystem) -> None:
    put(memory, *(named(n, 0, 1, experiment=f"e{n}") for n in range(30)))
    counting = CountingFilesystem(memory)
    snapshot = Snapshots(counting, lake=LAKE).take([f"e{n}" for n in range(20)])
    assert len(snapshot.segments) == 20
    assert counting.requests == {"LIST": 2}


def test_objects_that_are_no_segments_are_passed_over(memory: MemoryFilesystem) -> None:
    put(memory, named(1, 0, 1))
    for key in ("log/notes.txt", f"log/experiment_id={EXPERIMENT}/x.parquet", "manifests/x.json"):
        memory.put(key, b"x")
    assert len(Snapshots(memory, lake=LAKE).take().segments) == 1


def test_log_is_listed_before_the_manifests(memory: MemoryFilesystem) -> None:
    counting = CountingFilesystem(memory)
    put_manifest(memory, 3, {})
    snapshots = Snapshots(counting, lake=LAKE)
    snapshots.take()
    calls = [(call.verb, call.keys) for call in counting.calls]
    newest = ("get", (layout.manifest(3),))
    listings = [("list", ("log/",)), ("list", ("manifests/",))]
    assert calls == [*listings, newest, ("now_us", ())]
    counting.reset()
    snapshots.take()
    assert counting.requests == {"LIST": 2}


# --- holes ---


def test_hole_is_listed_again_then_reported_and_the_prefix_is_kept(
    memory: MemoryFilesystem,
) -> None:
    put(memory, named(1, 0, 4), named(1, 10, 14), named(2, 0, 7))
    counting = CountingFilesystem(memory)
    snapshots = Snapshots(counting, lake=LAKE)
    with pytest.warns(RunlakeWarning, match="row 5 of writer 0+1 .* is not in"):
        snapshot = snapshots.take()
    assert snapshot.lasts == {writer_id(1): 4, writer_id(2): 7}
    assert [(hole.writer, hole.sequence) for hole in snapshot.holes] == [(writer_id(1), 5)]
    assert counting.requests["LIST"] == 2 + 2 * LISTINGS_AGAIN
    counting.reset()
    assert not snapshots.take().is_complete  # known by now: said once, listed once
    assert counting.requests["LIST"] == 2
    put(memory, named(1, 5, 9))
    assert snapshots.take().lasts[writer_id(1)] == 14


def test_hole_that_a_torn_listing_made_is_mended_in_silence(memory: MemoryFilesystem) -> None:
    lagging = LaggingFilesystem(memory)
    put(memory, named(1, 0, 4), named(1, 5, 9), named(1, 10, 14))
    lagging.hidden, lagging.listings = {named(1, 5, 9).key}, 1
    snapshot = Snapshots(lagging, lake=LAKE).take()
    assert (snapshot.lasts, snapshot.is_complete) == ({writer_id(1): 14}, True)


# --- never back ---


@pytest.mark.parametrize("listings", [1, 1 << 30])
def test_snapshot_after_a_listing_that_lags_shows_no_less(
    memory: MemoryFilesystem, listings: int
) -> None:
    lagging = LaggingFilesystem(memory)
    snapshots = Snapshots(lagging, lake=LAKE)
    put(memory, named(1, 0, 4), named(1, 5, 9))
    before = snapshots.take()
    lagging.hidden, lagging.listings = {named(1, 0, 4).key, named(1, 5, 9).key}, listings
    put(memory, named(2, 0, 0))
    assert snapshots.take().lasts == {**before.lasts, writer_id(2): 0}


def test_snapshot_never_takes_an_older_manifest(memory: MemoryFilesystem) -> None:
    lagging = LaggingFilesystem(memory)
    snapshots = Snapshots(lagging, lake=LAKE)
    put_manifest(memory, 1, {})
    put_manifest(memory, 2, {writer_id(1): 3})
    assert snapshots.take().manifest.number == 2
    lagging.hidden = {layout.manifest(2)}
    assert snapshots.take().manifest.number == 2


def test_snapshot_after_objects_were_taken_away_shows_less_and_says_so(
    memory: MemoryFilesystem,
) -> None:
    snapshots = Snapshots(memory, lake=LAKE)
    put(memory, named(1, 0, 4), named(1, 5, 9))
    snapshots.take()
    memory.delete_many([named(1, 5, 9).key])
    with pytest.warns(DataLossWarning, match="had 10 rows .* now shows 5"):
        assert snapshots.take().lasts == {writer_id(1): 4}
    assert snapshots.take().lasts == {writer_id(1): 4}


def test_manifest_that_is_vacuumed_while_it_is_read_is_looked_for_again(
    memory: MemoryFilesystem,
) -> None:
    @final
    class Vacuuming(Wrapper):
        def around(self, call: Call, action: Callable[[], T]) -> T:
            if call.verb == "get" and call.keys == (layout.manifest(1),):
                memory.delete_many([layout.manifest(1)])
                put_manifest(memory, 2, {})
            return action()

    put_manifest(memory, 1, {})
    assert Snapshots(Vacuuming(memory), lake=LAKE).take().manifest.number == 2


# --- refusals ---


def test_manifest_of_another_lake_stops_the_reader(memory: MemoryFilesystem) -> None:
    put_manifest(memory, 1, {})
    with pytest.raises(FormatError, match="ALARM"):
        Snapshots(memory, lake="another").take()


def test_writer_whose_watermark_is_in_a_cold_file_stops_the_reader(
    memory: MemoryFilesystem,
) -> None:
    cold = Manifest(lake=LAKE, number=1, consumed_cold=("x",), cold_hi=writer_id(5))
    memory.put(layout.manifest(1), manifest.encode(cold))
    put(memory, named(6, 0, 0))
    snapshots = Snapshots(memory, lake=LAKE)
    assert snapshots.take().lasts == {writer_id(6): 0}
    put(memory, named(5, 0, 0))
    with pytest.raises(NewerFormatError, match="cold file"):
        snapshots.take()


# --- the whole protocol of names, under torn listings ---


@final
class World:
    """Writers, a compactor and a vacuum as far as names show them, on one store."""

    def __init__(self, fs: MemoryFilesystem, steps: Iterable[tuple[str, int]]) -> None:
        """Begin with two writers that have said nothing."""
        self.fs = fs
        self.steps = iter(steps)
        self.acknowledged = {1: -1, 2: -1}
        self.sealed: dict[int, list[SegmentName]] = {1: [], 2: []}
        self.dead: dict[int, list[SegmentName]] = {1: [], 2: []}
        self.tail: dict[int, SegmentName | None] = {1: None, 2: None}
        self.manifest = 0
        self.consumed: dict[str, int] = {}

    def step(self) -> None:
        """Do the next thing that somebody else does, if there is one."""
        for verb, writer in self.steps:
            getattr(self, verb)(writer)
            return

    def extend(self, writer: int) -> None:
        """Append rows and put the whole unsealed tail under a covering name."""
        tail, last = self.tail[writer], self.acknowledged[writer] + 2
        first = self.acknowledged[writer] + 1 if tail is None else tail.first
        self.tail[writer] = named(writer, first, last)
        put(self.fs, named(writer, first, last))
        self.acknowledged[writer] = last
        if tail is not None:
            self.dead[writer].append(tail)

    def seal(self, writer: int) -> None:
        """End the tail."""
        tail = self.tail[writer]
        if tail is not None:
            self.sealed[writer].append(tail)
            self.tail[writer] = None

    def merge(self, writer: int) -> None:
        """Join all sealed segments, as a closing writer does."""
        parts = self.sealed[writer]
        if len(parts) > 1:
            whole = named(writer, parts[0].first, parts[-1].last, merged=True)
            put(self.fs, whole)
            self.dead[writer] += parts
            self.sealed[writer] = [whole]

    def clean(self, writer: int) -> None:
        """Delete what was superseded."""
        self.fs.delete_many([name.key for name in self.dead[writer]])
        self.dead[writer] = []

    def consume(self, writer: int) -> None:
        """Compact the sealed segments, and vacuum them at once."""
        if self.sealed[writer]:
            self.manifest += 1
            self.consumed[writer_id(writer)] = self.sealed[writer][-1].last
            put_manifest(self.fs, self.manifest, self.consumed)
            self.fs.delete_many([name.key for name in self.sealed[writer] + self.dead[writer]])
            self.sealed[writer] = self.dead[writer] = []


_verbs = st.sampled_from(["extend", "extend", "extend", "seal", "merge", "clean", "consume"])


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.tuples(_verbs, st.sampled_from([1, 2])), max_size=60),
    reads=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 8), st.booleans()), min_size=1, max_size=12
    ),
)
def test_every_acknowledged_row_is_in_every_later_snapshot_under_torn_listings(
    steps: list[tuple[str, int]], reads: list[tuple[int, int, bool]]
) -> None:
    memory = MemoryFilesystem(f"test-{ids.new_nonce()}")
    torn, world = FaultyFilesystem(memory, seed=0), World(memory, steps)
    torn.between_pages = world.step
    snapshots = Snapshots(torn, lake=LAKE)
    seen = {1: -1, 2: -1}
    for page, steps_before, is_new_reader in reads:
        torn.page = page
        for _ in range(steps_before):
            world.step()
        if is_new_reader:
            snapshots = Snapshots(torn, lake=LAKE)
        wanted = dict(world.acknowledged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            snapshot = snapshots.take()
        before, seen = seen, {writer: _seen(snapshot, writer) for writer in seen}
        assert all(seen[writer] >= max(wanted[writer], before[writer]) for writer in seen)
        assert snapshot.is_complete
    memory.delete_many([entry.key for entry in memory.list("")])


def _seen(snapshot: Snapshot, writer: int) -> int:
    """Return the last row of a writer, having checked that all rows are there, each once."""
    following = snapshot.manifest.consumed.get(writer_id(writer), -1) + 1
    for segment in snapshot.segments:
        if segment.name.writer == writer_id(writer):
            assert segment.name.first + segment.skip_rows == following
            following = segment.name.last + 1
    return following - 1


def test_entry_of_a_live_segment_is_the_listed_object(memory: MemoryFilesystem) -> None:
    put(memory, named(1, 0, 0))
    (segment,) = Snapshots(memory, lake=LAKE).take().segments
    assert isinstance(segment.entry, Entry)
    assert (segment.entry.key, segment.entry.size_bytes) == (named(1, 0, 0).key, 4)
