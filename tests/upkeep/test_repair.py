from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runlake import ids
from runlake.errors import DataLossWarning
from runlake.storage import layout, manifest, manifests
from runlake.storage.manifest import Manifest
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.upkeep import commit as commit_module
from runlake.upkeep.checks import findings
from runlake.upkeep.checks.repair import repair
from runlake.upkeep.checks.verify import verify
from runlake.upkeep.compact import Compactor
from runlake.upkeep.copies.copying import copy
from runlake.upkeep.copies.passage import Place
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Limits
from tests.storage.lakes import EXPERIMENT
from tests.upkeep.busy import make_busy, rows_of
from tests.upkeep.made import LAKE, MadeWriter, compactor, expected, held

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.storage.filesystem import Filesystem
    from runlake.upkeep.checks.findings import Report

TABLES = ("metrics", "events", "facts", "summaries", "writers")


@pytest.fixture
def memory() -> Iterator[MemoryFilesystem]:
    """A place for one lake."""
    opened = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    yield opened
    opened.delete_many([entry.key for entry in opened.list("")])


def deeds(report: Report) -> list[tuple[str, str]]:
    """Return what was done to what."""
    return [(each.deed, each.key) for each in report.mended]


def objects(fs: Filesystem) -> dict[str, bytes]:
    """Return everything that is there."""
    return {entry.key: fs.get(entry.key) for entry in fs.list("")}


def manifest_keys(fs: Filesystem) -> list[str]:
    return sorted(entry.key for entry in fs.list(layout.MANIFESTS))


def test_a_sound_lake_is_left_as_it_is(memory: MemoryFilesystem) -> None:
    make_busy(memory)
    before = objects(memory)
    report = repair(memory)
    assert (report.is_sound, report.mended) == (True, ())
    assert objects(memory) == before


@pytest.mark.parametrize("is_tidy", [True, False], ids=["vacuumed", "untidy"])
def test_all_manifests_lost_are_worked_out_of_the_table_files(
    memory: MemoryFilesystem, *, is_tidy: bool
) -> None:
    writers = make_busy(memory, is_tidy=is_tidy)
    memory.delete_many(manifest_keys(memory))
    kept = objects(memory)
    report = repair(memory)
    assert report.is_sound
    assert held(memory) == expected(writers)
    assert kept.items() <= objects(memory).items()
    compactor(memory).compact(EXPERIMENT)
    assert held(memory) == expected(writers)


def test_a_damaged_newest_manifest_gets_a_successor_and_goes_aside(
    memory: MemoryFilesystem,
) -> None:
    writers = make_busy(memory)
    (key,) = manifest_keys(memory)
    memory.put(key, b"{cut")
    report = repair(memory)
    number = (layout.parse_manifest(key) or 0) + 1
    assert deeds(report) == [
        (findings.REBUILT, layout.manifest(number)),
        (findings.QUARANTINED, key),
    ]
    assert memory.get(f"quarantine/{key}") == b"{cut"
    assert (report.is_sound, held(memory)) == (True, expected(writers))


def test_a_foreign_manifest_goes_aside_and_ours_is_rebuilt(memory: MemoryFilesystem) -> None:
    writers = make_busy(memory)
    theirs = layout.manifest(1000)
    memory.put(theirs, manifest.encode(Manifest(lake="f" * 32, number=1000)))
    report = repair(memory)
    assert (findings.QUARANTINED, theirs) in deeds(report)
    assert (report.is_sound, held(memory)) == (True, expected(writers))
    assert manifests.newest(memory, lake=LAKE).number == 1001


def test_tables_of_another_lake_go_aside_where_no_vacuum_takes_them(
    memory: MemoryFilesystem,
) -> None:
    writers = make_busy(memory)
    theirs = {
        replace(name, nonce=ids.new_nonce()).key: data.replace(LAKE.encode(), b"f" * 32)
        for key, data in objects(memory).items()
        if (name := layout.parse_table_file(key)) is not None
    }
    for key, data in theirs.items():
        memory.put(key, data)
    top = layout.manifest(1000)
    memory.put(top, manifest.encode(Manifest(lake="f" * 32, number=1000)))
    report = repair(memory)
    aside = [key for deed, key in deeds(report) if deed == findings.QUARANTINED]
    assert {*aside} == {*theirs, top}
    assert aside[-1] == top  # whoever is killed before has left the alarm
    vacuum(memory, lake=LAKE, grace_s=0, is_dry_run=False)
    assert {key: memory.get(f"quarantine/{key}") for key in theirs} == theirs
    assert (report.is_sound, held(memory)) == (True, expected(writers))


def test_watermarks_that_had_gone_cold_come_out_right(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_module, "HOT_WRITERS", 2)
    writers = make_busy(memory)
    assert manifests.newest(memory, lake=LAKE).cold_hi
    assert verify(memory).is_sound
    memory.delete_many(manifest_keys(memory))
    report = repair(memory)
    made = manifests.newest(memory, lake=LAKE)
    assert (bool(made.cold_hi), len(made.consumed) <= 2, report.is_sound) == (True, True, True)
    writers[0][0].put(memory, 0, 20)  # a recovery uploads again what is compacted for long
    assert held(memory) == expected(writers)


def test_an_attempt_that_had_died_is_not_taken_twice(memory: MemoryFilesystem) -> None:
    writers = make_busy(memory)
    base = manifests.newest(memory, lake=LAKE)
    # A slow compactor's files, of rows that the winner has taken in and merged.
    dead = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_busy(dead, is_tidy=False)
    for key, data in objects(dead).items():
        name = layout.parse_table_file(key)
        if name is not None and name.number <= 2:
            memory.put(replace(name, number=base.number, nonce=ids.new_nonce()).key, data)
    memory.delete_many(manifest_keys(memory))
    report = repair(memory)
    assert (report.is_sound, held(memory)) == (True, expected(writers))


@pytest.mark.parametrize("table", TABLES)
def test_a_table_file_that_is_gone_is_made_good_while_its_sources_are_there(
    memory: MemoryFilesystem, table: str
) -> None:
    writers = make_busy(memory, is_tidy=False)
    gone = manifests.newest(memory, lake=LAKE).files(table)[0].path
    memory.delete_many([gone])
    assert [(each.kind, each.key) for each in verify(memory).findings if each.is_fault][:1]
    report = repair(memory)
    assert (report.is_sound, held(memory)) == (True, expected(writers))


@pytest.mark.parametrize("table", ["metrics", "events"])
def test_a_table_file_without_sources_is_lost_and_never_silently(
    memory: MemoryFilesystem, table: str
) -> None:
    make_busy(memory)
    broken = manifests.newest(memory, lake=LAKE).files(table)[0]
    memory.put(broken.path, memory.get(broken.path)[:-30])
    with pytest.warns(DataLossWarning, match=f"its {broken.rows} rows"):
        report = repair(memory)
    assert (findings.LOST, broken.path) in deeds(report)
    assert memory.list(f"quarantine/{broken.path}")
    assert not report.is_sound  # it says what stays lost
    assert not [each for each in report.findings if each.key == broken.path]
    held(memory)  # what is left can be read


def test_a_lost_file_about_writers_is_not_said_to_lose_rows_of_runs(
    memory: MemoryFilesystem,
) -> None:
    writers = make_busy(memory)
    broken = manifests.newest(memory, lake=LAKE).files("writers")[0]
    memory.put(broken.path, memory.get(broken.path)[:-30])
    with pytest.warns(DataLossWarning, match="about writers .* no row of a run is"):
        repair(memory)
    assert held(memory).rows == expected(writers).rows


def test_a_repair_refuses_where_only_the_lost_manifest_told_what_was_purged(
    memory: MemoryFilesystem,
) -> None:
    writers = make_busy(memory)
    base = manifests.newest(memory, lake=LAKE)
    hiding = replace(
        base, number=base.number + 1, parent=base.nonce, nonce=ids.new_nonce(),
        commit_us=base.commit_us + 1, purged=frozenset({"run-9"}),
    )  # fmt: skip
    memory.put(layout.manifest(hiding.number), manifest.encode(hiding))
    writers[4][0].put(memory, 20, 40)
    compactor(memory).compact(EXPERIMENT)
    memory.delete_many(manifest_keys(memory))
    before = objects(memory)
    report = repair(memory)
    (only,) = report.mended
    assert only.deed == findings.REFUSED
    assert "purged or copied" in only.detail
    assert objects(memory) == before


def test_purged_runs_stay_purged_where_an_older_manifest_tells_them(
    memory: MemoryFilesystem,
) -> None:
    writers = make_busy(memory)
    base = manifests.newest(memory, lake=LAKE)
    hiding = replace(
        base, number=base.number + 1, parent=base.nonce, nonce=ids.new_nonce(),
        commit_us=base.commit_us + 1, purged=frozenset({"run-9"}),
    )  # fmt: skip
    memory.put(layout.manifest(hiding.number), manifest.encode(hiding))
    writers[4][0].put(memory, 20, 40)
    compactor(memory).compact(EXPERIMENT)
    memory.put(manifest_keys(memory)[-1], b"x")
    report = repair(memory)
    assert report.is_sound
    assert manifests.newest(memory, lake=LAKE).purged == {"run-9"}


def test_a_damaged_segment_goes_aside_and_its_rows_are_named(memory: MemoryFilesystem) -> None:
    writers = make_busy(memory)
    writer = writers[-1][0]
    key = writer.segment(6, 30).key
    memory.put(key, memory.get(key)[:-9])
    with pytest.warns(DataLossWarning, match="rows 6 to 30"):
        report = repair(memory)
    assert deeds(report) == [(findings.QUARANTINED, key), (findings.LOST, key)]
    assert (report.is_sound, held(memory)) == (True, expected([*writers[:-1], (writer, 5)]))
    writer.put(memory, 6, 30)  # from its journal
    assert held(memory) == expected(writers)


def test_a_damaged_segment_whose_rows_are_elsewhere_is_no_loss(memory: MemoryFilesystem) -> None:
    writers = make_busy(memory)
    writer = writers[-1][0]
    key = writer.segment(6, 30).key
    memory.put(key, memory.get(key)[:-9])
    writer.put(memory, 0, 30, merged=True)
    again = writers[0][0].segment(0, 20)  # compacted, and uploaded once more
    memory.put(again.key, b"no segment")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataLossWarning)
        report = repair(memory)
    assert deeds(report) == [(findings.QUARANTINED, again.key), (findings.QUARANTINED, key)]
    assert (report.is_sound, held(memory)) == (True, expected(writers))


def test_what_is_put_aside_twice_is_kept_twice(memory: MemoryFilesystem) -> None:
    writers = make_busy(memory)
    key = writers[-1][0].segment(6, 30).key
    for data in (b"one", b"two"):
        memory.put(key, data)
        with pytest.warns(DataLossWarning):
            repair(memory)
    kept = [memory.get(entry.key) for entry in memory.list("quarantine/")]
    assert sorted(kept) == [b"one", b"two"]


def test_a_lake_without_its_lake_file_is_refused(memory: MemoryFilesystem) -> None:
    make_busy(memory)
    memory.delete_many([layout.LAKE_FILE])
    before = objects(memory)
    assert deeds(repair(memory)) == [(findings.REFUSED, layout.LAKE_FILE)]
    assert objects(memory) == before


def test_a_newer_manifest_is_refused(memory: MemoryFilesystem) -> None:
    make_busy(memory)
    newest = manifests.newest(memory, lake=LAKE)
    fields = json.loads(manifest.encode(newest)) | {"format": 2, "n": newest.number + 1}
    key = layout.manifest(newest.number + 1)
    memory.put(key, json.dumps(fields).encode())
    assert deeds(repair(memory)) == [(findings.REFUSED, key)]


@given(st.data())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_lost_is_made_good_or_named(data: st.DataObject) -> None:
    """Any files of an untidy lake are lost: the answers stay, or each loss is said."""
    fs = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    writers = make_busy(fs, is_tidy=False, writers=2)
    everything = sorted(objects(fs).keys() - {layout.LAKE_FILE})
    gone = data.draw(st.lists(st.sampled_from(everything), min_size=1, max_size=4, unique=True))
    fs.delete_many(gone)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        report = repair(fs)
    if report.is_sound and not any(each.category is DataLossWarning for each in said):
        live = {writers[-1][0].segment(0, 5).key, writers[-1][0].segment(6, 30).key}
        if not live & set(gone) and writers[-2][0].segment(10, 19).key not in gone:
            assert held(fs) == expected(writers)
    fs.delete_many([entry.key for entry in fs.list("")])


def test_a_lake_merged_whole_tells_that_its_manifests_are_lost(memory: MemoryFilesystem) -> None:
    writers = make_busy(memory)
    compactor(memory, limits=Limits(is_full=True)).compact(EXPERIMENT)
    vacuum(memory, lake=LAKE, grace_s=0, is_dry_run=False)
    memory.delete_many(manifest_keys(memory))
    live = [entry.key for entry in memory.list(layout.LOG)]
    kept = objects(memory)
    memory.delete_many(live)  # nothing but merged files is left
    assert not verify(memory).is_sound
    for key in live:
        memory.put(key, kept[key])
    report = repair(memory)
    assert (report.is_sound, held(memory)) == (True, expected(writers))


def test_a_repair_refuses_where_copied_rows_cannot_be_told(memory: MemoryFilesystem) -> None:
    source = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_busy(source)
    other = "1" * 32
    memory.put(layout.LAKE_FILE, b'{"format":1,"lake":"' + other.encode() + b'"}')
    MadeWriter(50, rows_of(50)).put(memory, 0, 46)
    Compactor(memory, lake=other).compact(EXPERIMENT)
    copy(Place(source, LAKE), Place(memory, other), sleep=lambda _: None)
    assert verify(memory).is_sound
    memory.delete_many(manifest_keys(memory))
    before = objects(memory)
    assert [each.deed for each in repair(memory).mended] == [findings.REFUSED]
    assert objects(memory) == before
    source.delete_many([entry.key for entry in source.list("")])
