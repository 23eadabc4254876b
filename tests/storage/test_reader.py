from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, final

import pytest

from runlake import schema
from runlake.errors import NewerFormatError, RunlakeWarning
from runlake.settings import Settings
from runlake.storage import layout, manifest, tables
from runlake.storage.engine import Storage
from runlake.storage.manifest import Manifest, TableFile
from runlake.storage.snapshot import SnapshotExpiredError
from runlake.testing.filesystems import Call, CountingFilesystem, Wrapper
from tests.storage.lakes import named, put, rows_of, segment, sequences, storage_on, writer_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.storage.filesystem import Filesystem

pytestmark = pytest.mark.filesystems("local", "memory", "s3")

T = TypeVar("T")
COUNT = 12
LONG = 15_000  # params whose footer is longer than one read of a tail


@final
class Losing(Wrapper):
    """Deletes objects just before they are read, a number of times."""

    def __init__(self, inner: Filesystem, *, times: int) -> None:
        """Lose what is asked for `times` times."""
        super().__init__(inner)
        self.times = times

    def around(self, call: Call, action: Callable[[], T]) -> T:
        if call.verb == "get_ranges" and self.times:
            self.times -= 1
            self.inner.delete_many(call.keys)
        return action()


def put_manifest(storage: Storage, **fields: object) -> None:
    made = Manifest(lake=storage.require_lake(), number=1, **fields)  # type: ignore[arg-type]
    storage.fs.put(layout.manifest(1), manifest.encode(made))


def test_tables_hold_facts_and_summaries_of_every_writer(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    put(filesystem, named(1, 0, 9), named(1, 10, 19), named(2, 0, 4, experiment="other"))
    _, read = storage_on(filesystem, tmp_path).read()
    assert read.facts.schema == tables.facts_schema()
    assert read.summaries.schema == tables.summaries_schema()
    assert read.problems == ()
    runs = {(row["writer"], row["experiment_id"], row["run_id"]) for row in read.facts.to_pylist()}
    assert runs == {(writer_id(1), "exp", "run-1"), (writer_id(2), "other", "run-2")}
    counts = [(row["run_id"], row["n"], row["last"]) for row in read.summaries.to_pylist()]
    assert counts == [("run-1", 10, 9.0), ("run-1", 20, 19.0), ("run-2", 5, 4.0)]


@pytest.mark.filesystems("local", "s3")
def test_writers_are_told_from_their_newest_segment(filesystem: Filesystem, tmp_path: Path) -> None:
    put(filesystem, named(1, 0, 9), named(1, 10, 19))
    _, read = storage_on(filesystem, tmp_path).read()
    (entry,) = filesystem.list(named(1, 10, 19).key)
    assert read.writers.schema == tables.writers_schema()
    assert read.writers.to_pylist() == [
        {
            "writer": writer_id(1),
            "experiment_id": "exp",
            "experiment_name": "Made up",
            "last": 19,
            "object_time_us": entry.time_us,
            "host": "host",
            "pid": 7,
        }
    ]


def test_rows_are_in_local_files_each_once(filesystem: Filesystem, tmp_path: Path) -> None:
    put(filesystem, named(1, 0, 4), named(1, 0, 9), named(1, 10, 12), named(2, 0, 0))
    _, read = storage_on(filesystem, tmp_path).read()
    assert sequences(read) == {writer_id(1): list(range(13)), writer_id(2): [0]}
    assert all(Path(file.path).is_absolute() for file in read.row_files("metrics"))


@pytest.mark.filesystems("local", "s3")
def test_rows_below_the_watermark_are_skipped(filesystem: Filesystem, tmp_path: Path) -> None:
    storage = storage_on(filesystem, tmp_path)
    put(filesystem, named(1, 0, 9))
    put_manifest(storage, consumed={writer_id(1): 3})
    _, read = storage.read()
    assert sequences(read) == {writer_id(1): [4, 5, 6, 7, 8, 9]}


@pytest.mark.filesystems("local", "s3")
def test_reserved_partition_is_read_by_row(filesystem: Filesystem, tmp_path: Path) -> None:
    reserved = schema.RESERVED_PARTITION
    put(filesystem, *(named(3, 0, last, experiment=reserved) for last in (1, 4)))
    put(filesystem, named(1, 0, 0))
    _, read = storage_on(filesystem, tmp_path).read(["exp"])
    rows = read.lake_events.to_pylist()
    assert read.lake_events.schema == tables.lake_events_schema()
    assert [(row["seq"], row["str"]) for row in rows] == [(n, str(n)) for n in range(5)]
    assert read.writers["experiment_id"].to_pylist() == ["exp"]
    assert len(read.row_files("metrics")) == 1


def test_lake_without_segments_has_empty_tables(filesystem: Filesystem, tmp_path: Path) -> None:
    _, read = storage_on(filesystem, tmp_path).read()
    assert read.facts.schema == tables.facts_schema()
    assert read.lake_events.schema == tables.lake_events_schema()
    assert [read.facts.num_rows, read.writers.num_rows, len(read.row_files("metrics"))] == [0, 0, 0]


@pytest.mark.filesystems("local", "s3")
def test_purged_run_is_not_shown(filesystem: Filesystem, tmp_path: Path) -> None:
    storage = storage_on(filesystem, tmp_path)
    put(filesystem, named(1, 0, 0), named(2, 0, 0))
    put_manifest(storage, purged=frozenset({"run-1"}))
    _, read = storage.read()
    assert set(read.facts["run_id"].to_pylist()) == {"run-2"}
    assert read.summaries["run_id"].to_pylist() == ["run-2"]


@pytest.mark.filesystems("local")
def test_tables_of_an_unknown_kind_are_refused_not_left_out(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    storage = storage_on(filesystem, tmp_path)
    put_manifest(storage, tables={"runs": (TableFile("tables/x", 1, 1, "exp", "a", "b"),)})
    with pytest.raises(NewerFormatError, match=r"does not know \(runs\)"):
        storage.read()


# --- requests ---


def test_cold_snapshot_costs_two_listings_and_one_gather(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    storage_on(filesystem, tmp_path)
    put(filesystem, *(named(number, 0, 4) for number in range(COUNT)))
    counting = CountingFilesystem(filesystem)
    storage = Storage(counting, Settings(cache=str(tmp_path / "cache")))
    storage.read()
    assert counting.requests == {"GET": 1 + COUNT, "LIST": 2}
    gathers = [len(call.keys) for call in counting.calls if call.verb == "get_ranges"]
    assert gathers == [COUNT]


def test_warm_snapshot_costs_two_listings(filesystem: Filesystem, tmp_path: Path) -> None:
    put(filesystem, *(named(number, 0, 4) for number in range(COUNT)))
    counting = CountingFilesystem(filesystem)
    storage = storage_on(counting, tmp_path)
    _, before = storage.read()
    counting.reset()
    _, after = storage.read()
    assert counting.requests == {"LIST": 2}
    assert after is before  # so that nothing is folded again


@pytest.mark.filesystems("local", "s3")
def test_tables_are_new_when_a_writer_has_become_stale(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    put(filesystem, named(0, 0, 4))
    storage = storage_on(filesystem, tmp_path)
    snapshot = storage.snapshot()
    before = storage.tables(snapshot)
    stale_us = int(before.stale_s * 1e6)
    newest = before.writers["object_time_us"][0].as_py()
    fresh = storage.tables(replace(snapshot, taken_us=newest + stale_us))
    stale = storage.tables(replace(snapshot, taken_us=newest + stale_us + 1))
    assert fresh is before
    assert stale.now_us == newest + stale_us + 1
    assert stale.facts is before.facts


def test_newer_snapshot_reads_new_segments_only(filesystem: Filesystem, tmp_path: Path) -> None:
    put(filesystem, *(named(number, 0, 4) for number in range(COUNT)))
    counting = CountingFilesystem(filesystem)
    storage = storage_on(counting, tmp_path)
    storage.read()
    put(filesystem, named(0, 0, 9), named(COUNT, 0, 0))
    counting.reset()
    _, read = storage.read()
    assert counting.requests == {"LIST": 2, "GET": 2}
    assert read.writers["last"].to_pylist() == [9, *[4] * (COUNT - 1), 0]


def test_footer_longer_than_a_tail_costs_a_second_gather(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    put(filesystem, named(1, 0, 4), params=LONG)
    put(filesystem, named(2, 0, 4))
    counting = CountingFilesystem(filesystem)
    _, read = storage_on(counting, tmp_path).read()
    gathers = [call.keys for call in counting.calls if call.verb == "get_ranges"]
    assert [len(keys) for keys in gathers] == [2, 1]
    assert read.facts.num_rows == LONG + 1 + 2


def test_far_objects_are_fetched_once_for_all_processes(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    put(filesystem, named(1, 0, 4), params=LONG)
    put(filesystem, named(2, 0, 4), named(3, 0, 2, experiment=schema.RESERVED_PARTITION))
    first = storage_on(filesystem, tmp_path).read()[1]
    counting = CountingFilesystem(filesystem)
    again = Storage(counting, Settings(cache=str(tmp_path / "cache"))).read()[1]
    assert again.facts.equals(first.facts)
    assert again.lake_events.equals(first.lake_events)
    again.row_files("metrics")
    counting.reset()
    again.row_files("metrics")
    assert counting.total == 0
    if not filesystem.is_local:
        counting.reset()
        Storage(counting, Settings(cache=str(tmp_path / "cache"))).read()
        assert counting.requests == {"LIST": 2, "GET": 1}


@pytest.mark.filesystems("local", "s3")
def test_damaged_cache_is_fetched_again(filesystem: Filesystem, tmp_path: Path) -> None:
    put(filesystem, named(1, 0, 4), named(2, 0, 4))
    (one, other) = storage_on(filesystem, tmp_path).read()[1].row_files("metrics")
    if filesystem.is_local:
        pytest.skip("a local lake has no cache")
    Path(one.path).write_bytes(b"cut")
    whole = Path(other.path).read_bytes()
    Path(other.path).write_bytes(whole[:4] + bytes(len(whole) - 8) + whole[-4:])
    storage = Storage(filesystem, Settings(cache=str(tmp_path / "cache")))
    _, read = storage.read()
    assert (read.problems, read.writers.num_rows) == ((), 2)
    assert sequences(read)[writer_id(1)] == [0, 1, 2, 3, 4]


# --- what is not as it should be ---


def _cut(data: bytes) -> bytes:
    return data[:-20]


def _empty_state(data: bytes) -> bytes:
    return data.replace(b"runlake.state.facts", b"runlake.state.fakes")


def _text(_: bytes) -> bytes:
    return b"PAR1 no Parquet at all \x00\x00\x00\x00PAR1"


def _other_rows(_: bytes) -> bytes:
    return segment(named(1, 0, 3))


@pytest.mark.filesystems("local", "s3")
@pytest.mark.parametrize("spoil", [_cut, _empty_state, _text, _other_rows])
def test_damaged_segment_is_left_out_and_reported_and_the_rest_is_read(
    filesystem: Filesystem, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    name = named(1, 0, 4)
    filesystem.put(name.key, spoil(segment(name)))
    put(filesystem, named(2, 0, 4))
    storage = storage_on(filesystem, tmp_path)
    with pytest.warns(RunlakeWarning, match=re.escape(name.key)):
        _, read = storage.read()
    assert [problem.key for problem in read.problems] == [name.key]
    assert sequences(read) == {writer_id(2): [0, 1, 2, 3, 4]}
    assert storage.read()[1].problems == read.problems  # said once


@pytest.mark.filesystems("local", "s3")
def test_segment_of_a_newer_format_is_refused_with_the_way_out(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    filesystem.put(named(1, 0, 4).key, segment(named(1, 0, 4), version=2))
    with pytest.raises(NewerFormatError, match="pip install --upgrade runlake"):
        storage_on(filesystem, tmp_path).read()


def test_segment_replaced_while_it_is_read_is_read_under_its_new_name(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    losing = Losing(filesystem, times=1)
    storage = storage_on(losing, tmp_path)
    put(filesystem, named(1, 0, 4))
    snapshot = storage.snapshot()
    with pytest.raises(SnapshotExpiredError, match=r"take|Ask again"):
        storage.tables(snapshot)
    put(filesystem, named(1, 0, 9))
    assert sequences(storage.read()[1]) == {writer_id(1): list(range(10))}


def test_read_takes_another_snapshot_when_one_expires(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    @final
    class Replacing(Wrapper):
        """Replaces the tail of writer 1 at the first reading."""

        replaced = False

        def around(self, call: Call, action: Callable[[], T]) -> T:
            if call.verb == "get_ranges" and not self.replaced:
                self.replaced = True
                put(filesystem, named(1, 0, 9))
                filesystem.delete_many([named(1, 0, 4).key])
            return action()

    put(filesystem, named(1, 0, 4), named(2, 0, 4))
    snapshot, read = storage_on(Replacing(filesystem), tmp_path).read()
    assert snapshot.lasts[writer_id(1)] == 9
    assert sequences(read) == {writer_id(1): list(range(10)), writer_id(2): list(range(5))}


def test_files_that_are_gone_say_that_the_snapshot_expired(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    big = named(1, 0, 4)
    put(filesystem, big, params=LONG)  # so large that only its tail is kept
    _, read = storage_on(filesystem, tmp_path).read()
    filesystem.delete_many([big.key])
    with pytest.raises(SnapshotExpiredError):
        read.row_files("metrics")


def test_rows_in_the_builder_are_what_a_segment_holds() -> None:
    assert rows_of(named(1, 3, 5))["step"].to_pylist() == [3, 4, 5]


@pytest.mark.filesystems("local", "s3")
def test_what_was_replaced_is_forgotten(filesystem: Filesystem, tmp_path: Path) -> None:
    reserved = schema.RESERVED_PARTITION
    storage = storage_on(filesystem, tmp_path)
    for last in (1, 4):
        put(filesystem, named(1, 0, last), named(3, 0, last, experiment=reserved))
        storage.read(["exp"])
    assert storage._reader is not None
    live = {named(1, 0, 4).key, named(3, 0, 4, experiment=reserved).key}
    assert set(storage._reader._parts) == live
