from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar, final

import pytest

from runlake import clock, ids, schema
from runlake.errors import FormatError
from runlake.storage import layout, manifests
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.testing.filesystems import Call, Wrapper
from runlake.upkeep import vacuum as vacuum_module
from runlake.upkeep.vacuum import Vacuumed, vacuum
from runlake.upkeep.work import Limits
from tests.storage.lakes import EXPERIMENT
from tests.upkeep.made import (
    LAKE,
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
    from pathlib import Path

    from runlake.storage.filesystem import Filesystem

T = TypeVar("T")
HOUR_US = 3600 * 1_000_000


class Time:
    """The clock of the store, which a test moves."""

    def __init__(self) -> None:
        """Start now."""
        self.us = clock.now_us()

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.us += int(seconds * 1e6)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(clock, "now_us", lambda: made.us)
    return made


@pytest.fixture
def memory(time: Time) -> Iterator[MemoryFilesystem]:
    """A lake; its objects are stamped by `time`."""
    del time
    opened = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_lake(opened)
    yield opened
    opened.delete_many([entry.key for entry in opened.list("")])


def writer_of(number: int, count: int = 20) -> MadeWriter:
    """Return a writer of one curve, which goes on."""
    begun = said("run", schema.STATUS, "", schema.RUNNING, at=0)
    points = [point("run", "loss", step, 1.0) for step in range(1, count)]
    return MadeWriter(number, [begun, *points])


def removed(found: Vacuumed) -> dict[str, str]:
    """Return what went, as the last part of the key, with the reason."""
    return {each.key.rpartition("/")[2]: each.reason for each in found.removed}


def tidy(fs: Filesystem, *, grace_s: float = 3600.0) -> Vacuumed:
    """Take away what may go."""
    return vacuum(fs, lake=LAKE, grace_s=grace_s, is_dry_run=False)


def last_part(key: str) -> str:
    """Return the name of an object in its folder."""
    return key.rpartition("/")[2]


def test_a_dry_run_says_what_would_go_and_how_many_bytes(memory: MemoryFilesystem) -> None:
    writer = writer_of(1)
    keys = [writer.put(memory, 0, 1), writer.put(memory, 2, 3), writer.put(memory, 4, 5)]
    compactor(memory).compact(EXPERIMENT)
    before = {entry.key: entry.size_bytes for entry in memory.list("")}
    found = vacuum(memory, lake=LAKE, grace_s=0)
    assert found.is_dry_run
    assert {entry.key for entry in memory.list("")} == before.keys()
    assert removed(found) == dict.fromkeys(map(last_part, keys[:2]), "consumed")
    assert found.size_bytes == sum(before[key] for key in keys[:2])
    done = tidy(memory, grace_s=0)
    assert (done.removed, done.is_dry_run) == (found.removed, False)
    assert before.keys() - {entry.key for entry in memory.list("")} == set(keys[:2])
    assert held(memory) == expected([(writer, 5)])


def test_consumed_segments_stay_until_the_manifest_is_older_than_the_grace(
    memory: MemoryFilesystem, time: Time
) -> None:
    writer = writer_of(1)
    first, second = writer.put(memory, 0, 1), writer.put(memory, 2, 3)
    writer.put(memory, 4, 5)
    compactor(memory).compact(EXPERIMENT)
    assert removed(tidy(memory)) == {}
    time.pass_s(3000)
    writer.put(memory, 6, 7)
    compactor(memory).compact(EXPERIMENT)
    assert removed(tidy(memory)) == {}
    time.pass_s(700)  # the first manifest is older than the grace, the second is not
    assert removed(tidy(memory)) == {last_part(first): "consumed", last_part(second): "consumed"}


def test_dropped_files_stay_until_the_manifest_that_named_them_is_long_superseded(
    memory: MemoryFilesystem, time: Time
) -> None:
    writer = writer_of(1)
    for last in range(3):
        writer.put(memory, last, last)
        compactor(memory).compact(EXPERIMENT)
    time.pass_s(9000)
    compactor(memory, limits=Limits(is_full=True)).compact(EXPERIMENT)
    named = manifests.newest(memory, lake=LAKE).paths()
    old = {entry.key for entry in memory.list(layout.TABLES)} - named
    assert len(old) > 3
    assert "dropped" not in removed(tidy(memory)).values()
    time.pass_s(3500)
    assert removed(tidy(memory)) == {}
    time.pass_s(200)
    gone = tidy(memory).removed
    assert {each.key for each in gone if each.reason == "dropped"} == old
    assert held(memory) == expected([(writer, 2)])


def test_files_that_no_manifest_names_go_by_their_number_whatever_their_age(
    memory: MemoryFilesystem, time: Time
) -> None:
    writer = writer_of(1)
    writer.put(memory, 0, 1)
    writer.put(memory, 2, 3)
    compactor(memory).compact(EXPERIMENT)
    orphans = {
        number: layout.TableName("metrics", EXPERIMENT, number, ids.new_nonce()).key
        for number in (1, 2, 3)
    }
    for key in orphans.values():
        memory.put(key, b"half done")
    time.pass_s(1e6)
    memory.put(layout.TableName("metrics", "other", 1, ids.new_nonce()).key, b"another's")
    found = vacuum(memory, lake=LAKE, experiment_id=EXPERIMENT)
    assert {each.key for each in found.removed if each.reason == "dropped"} == {orphans[1]}


def test_a_segment_goes_once_a_whole_one_has_covered_it_for_the_grace(
    memory: MemoryFilesystem, time: Time
) -> None:
    writer = writer_of(1)
    covered = [writer.put(memory, 0, last) for last in (0, 1, 2)]
    time.pass_s(100)
    writer.put(memory, 0, 3)
    assert removed(tidy(memory)) == {}
    time.pass_s(4000)
    assert removed(tidy(memory)) == dict.fromkeys(map(last_part, covered), "superseded")
    assert held(memory) == expected([(writer, 3)])


def test_a_segment_stays_while_the_one_that_covers_it_is_damaged(memory: MemoryFilesystem) -> None:
    writer = writer_of(1)
    writer.put(memory, 0, 1)
    key = writer.segment(0, 2).key
    data = bytearray(writer.encoded(writer.segment(0, 2)))
    data[30] ^= 0xFF
    memory.put(key, bytes(data))
    assert removed(tidy(memory, grace_s=0)) == {}
    memory.put(key, writer.encoded(writer.segment(0, 2)))
    assert list(removed(tidy(memory, grace_s=0)).values()) == ["superseded"]


def test_the_newest_hundred_manifests_stay_and_those_superseded_within_the_grace(
    memory: MemoryFilesystem, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum_module, "KEPT_MANIFESTS", 3)
    writer = writer_of(1)
    writer.put(memory, 0, 0)
    for last in range(1, 9):
        writer.put(memory, last, last)
        compactor(memory, limits=Limits(merge_bytes=1)).compact(EXPERIMENT)
        time.pass_s(60)
    numbers = [each.number for each in manifests.listed(memory)]
    assert numbers == list(range(1, 9))
    tidy(memory, grace_s=330)  # as many manifests came within it as are above 3
    assert [each.number for each in manifests.listed(memory)] == [3, 4, 5, 6, 7, 8]
    tidy(memory, grace_s=0)
    assert [each.number for each in manifests.listed(memory)] == [6, 7, 8]
    assert held(memory) == expected([(writer, 8)])


def test_a_file_that_the_newest_manifest_names_and_that_is_missing_stops_all(
    memory: MemoryFilesystem,
) -> None:
    writer = writer_of(1)
    writer.put(memory, 0, 1)
    writer.put(memory, 2, 3)
    compactor(memory).compact(EXPERIMENT)
    gone = min(manifests.newest(memory, lake=LAKE).paths())
    memory.delete_many([gone])
    before = memory.list("")
    with pytest.raises(FormatError, match=f"ALARM: .*{gone}"):
        tidy(memory, grace_s=0)
    assert memory.list("") == before


def test_a_missing_file_stops_all_also_where_a_commit_of_others_comes_between(
    memory: MemoryFilesystem,
) -> None:
    for number, experiment in enumerate([EXPERIMENT, "other"], 1):
        writer = MadeWriter(number, [point("run-a", "loss", 0, 1.0)] * 4, experiment)
        writer.put(memory, 0, 1)
        writer.put(memory, 2, 3)
    compactor(memory).compact(EXPERIMENT)
    gone = min(manifests.newest(memory, lake=LAKE).paths())
    memory.delete_many([gone])
    before: list[object] = []

    @final
    class Committing(Wrapper):
        def around(self, call: Call, action: Callable[[], T]) -> T:
            if call == Call("get_ranges", (gone,)):
                compactor(memory).compact("other")
                before.extend(memory.list(""))
            return action()

    with pytest.raises(FormatError, match=f"ALARM: .*{gone}"):
        tidy(Committing(memory), grace_s=0)
    assert memory.list("") == before


def test_a_commit_between_the_listings_raises_no_alarm(memory: MemoryFilesystem) -> None:
    writer = writer_of(1)
    writer.put(memory, 0, 1)
    writer.put(memory, 2, 3)
    committed: list[object] = []

    @final
    class Committing(Wrapper):
        def around(self, call: Call, action: Callable[[], T]) -> T:
            if call.keys == (layout.MANIFESTS,) and not committed:
                committed.append(compactor(memory).compact(EXPERIMENT))
            return action()

    tidy(Committing(memory), grace_s=0)
    assert committed
    assert held(memory) == expected([(writer, 3)])


def test_a_lake_without_manifests_loses_nothing(memory: MemoryFilesystem) -> None:
    writer_of(1).put(memory, 0, 3)
    memory.put(layout.TableName("metrics", EXPERIMENT, 1, ids.new_nonce()).key, b"half done")
    assert tidy(memory, grace_s=0).removed == ()


def test_another_lakes_manifest_stops_all(memory: MemoryFilesystem) -> None:
    writer_of(1).put(memory, 0, 3)
    writer_of(1).put(memory, 4, 4)
    compactor(memory).compact(EXPERIMENT)
    with pytest.raises(FormatError, match="ALARM"):
        vacuum(memory, lake="another", grace_s=0, is_dry_run=False)


def test_what_an_upload_left_goes_after_a_day_whatever_the_grace(tmp_path: Path) -> None:
    fs = LocalFilesystem(tmp_path)
    make_lake(fs)
    fs.put("artifacts/0/run/kept.bin", b"whole")
    young, old = (tmp_path / f"artifacts/0/run/.tmp-{age}" for age in ("young", "old"))
    for file, hours in ((young, 23), (old, 25)):
        file.write_bytes(b"half")
        then_us = fs.now_us() - hours * HOUR_US
        os.utime(file, ns=(then_us * 1000, then_us * 1000))
    found = vacuum(fs, lake=LAKE)
    assert [(each.key, each.reason, each.size_bytes) for each in found.removed] == [
        ("artifacts/0/run/.tmp-old", "upload", 4)
    ]
    assert old.exists()
    assert vacuum(fs, lake=LAKE, experiment_id="0", grace_s=0).removed == ()
    vacuum(fs, lake=LAKE, is_dry_run=False)
    assert (young.exists(), old.exists()) == (True, False)
    vacuum(fs, lake=LAKE, grace_s=0, is_dry_run=False)
    assert young.exists()  # somebody may be writing it at this moment
    assert fs.get("artifacts/0/run/kept.bin") == b"whole"
