from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import ids, schema
from runlake.storage import layout, manifest, manifests, segments, table_files
from runlake.storage.manifest import Manifest, TableFile
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.names import Claim
from runlake.upkeep import commit, table_writer
from runlake.upkeep.checks import findings
from runlake.upkeep.checks.verify import verify
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Limits
from tests.storage.lakes import (
    EXPERIMENT,
    named,
    put,
    segment,
    state_at,
    storage_on,
    writer_id,
)
from tests.storage.lakes import (
    rows_of as curve_of,
)
from tests.upkeep.busy import ARTIFACT, make_busy, rows_of
from tests.upkeep.made import LAKE, Held, MadeWriter, compactor, held, said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runlake.storage.engine import Storage
    from runlake.storage.filesystem import Filesystem


pytestmark = pytest.mark.filesystems("local", "memory", "s3")


@pytest.fixture
def storage(filesystem: Filesystem, tmp_path: Path) -> Storage:
    """A lake with two writers, a claim and an artifact, without fault."""
    made = storage_on(filesystem, tmp_path)
    put(filesystem, named(1, 0, 4), named(1, 5, 9), named(2, 0, 4))
    made.make_claim(Claim(name="a", experiment_id="b", time_us=1, user="u", tags={}, nonce="n"))
    filesystem.put("artifacts/exp/run-1/model.pkl", b"model")
    return made


def kinds(report: findings.Report) -> dict[str, str]:
    return {finding.key: finding.kind for finding in report.findings}


def test_lake_without_fault_is_sound(storage: Storage) -> None:
    report = verify(storage.fs)
    assert (report.findings, report.is_sound, report.lake) == ((), True, storage.lake_id())
    assert (report.object_count, report.segment_count, report.row_count) == (6, 3, 15)
    assert report.size_bytes == sum(entry.size_bytes for entry in storage.fs.list(""))


def _cut(data: bytes) -> bytes:
    return data[:-9]


def _one_bit(data: bytes) -> bytes:
    middle = data.index(b"PAR1") + 60
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _other_rows(_: bytes) -> bytes:
    """The digest is of other rows; everything else fits."""
    name = named(1, 0, 4)
    rows = curve_of(name)
    wrong = rows.set_column(5, "num", pa.array([9.0] * 5))
    footer = segments.read_footer(segment(name), key=name.key)
    return segments.encode(wrong, footer.header, state_at(name))


def _other_name(_: bytes) -> bytes:
    return segment(named(7, 0, 4))


@pytest.mark.filesystems("local", "s3")
@pytest.mark.parametrize("spoil", [_cut, _one_bit, _other_rows, _other_name])
def test_damaged_segment_is_found(storage: Storage, spoil: Callable[[bytes], bytes]) -> None:
    key = named(1, 0, 4).key
    storage.fs.put(key, spoil(storage.fs.get(key)))
    report = verify(storage.fs)
    assert kinds(report) == {key: findings.DAMAGED}
    assert not report.is_sound


@pytest.mark.filesystems("local", "s3")
def test_missing_row_is_found(storage: Storage) -> None:
    storage.fs.delete_many([named(1, 0, 4).key])
    report = verify(storage.fs)
    assert kinds(report) == {f"log/experiment_id=exp/{writer_id(1)}": findings.HOLE}
    assert "row 0 is in no segment" in report.findings[0].detail


@pytest.mark.filesystems("local", "s3")
def test_superseded_and_consumed_segments_are_named(storage: Storage) -> None:
    put(storage.fs, named(1, 0, 9, merged=True))
    consumed = {writer_id(2): 4}
    made = Manifest(lake=storage.require_lake(), number=1, consumed=consumed)
    storage.fs.put(layout.manifest(1), manifest.encode(made))
    report = verify(storage.fs)
    assert kinds(report) == {
        named(1, 0, 4).key: findings.SUPERSEDED,
        named(1, 5, 9).key: findings.SUPERSEDED,
        named(2, 0, 4).key: findings.CONSUMED,
        layout.manifest(1): findings.COUNT,  # no table knows writer 2
    }


@pytest.mark.filesystems("local", "s3")
def test_unknown_objects_are_found(storage: Storage) -> None:
    keys = ["thing.txt", "log/experiment_id=exp/x.parquet", "manifests/one.json"]
    for key in keys:
        storage.fs.put(key, b"x")
    assert kinds(verify(storage.fs)) == dict.fromkeys(keys, findings.UNKNOWN)


@pytest.mark.filesystems("local", "s3")
def test_missing_lake_file_is_found(storage: Storage) -> None:
    storage.fs.delete_many(["runlake.json"])
    report = verify(storage.fs)
    assert (report.lake, kinds(report)) == (None, {"runlake.json": findings.MISSING})


@pytest.mark.filesystems("local", "s3")
def test_foreign_manifest_is_found_and_a_missing_one(storage: Storage) -> None:
    for number in (1, 3):
        made = Manifest(lake="theirs", number=number)
        storage.fs.put(layout.manifest(number), manifest.encode(made))
    report = verify(storage.fs)
    assert kinds(report) == {
        layout.manifest(1): findings.FOREIGN,
        layout.manifest(2): findings.MISSING,
        layout.manifest(3): findings.FOREIGN,
    }


@pytest.mark.filesystems("local", "s3")
def test_table_file_that_the_manifest_names_must_be_there_whole(storage: Storage) -> None:
    files = tuple(TableFile(f"tables/runs/{n}", 3, 1, "exp", "a", "b") for n in ("a", "b"))
    made = Manifest(lake=storage.require_lake(), number=1, tables={"runs": files})
    storage.fs.put(layout.manifest(1), manifest.encode(made))
    storage.fs.put("tables/runs/a", b"longer")
    report = verify(storage.fs)
    assert kinds(report) == {"tables/runs/a": findings.DAMAGED, "tables/runs/b": findings.MISSING}


@pytest.mark.filesystems("local", "s3")
def test_damaged_claim_is_found(storage: Storage) -> None:
    key = layout.claim(ids.name_hash("digits"), 1)
    storage.fs.put(key, b"{}")
    assert kinds(verify(storage.fs)) == {key: findings.DAMAGED}


@pytest.mark.filesystems("local", "s3")
def test_segment_of_a_newer_format_is_named_and_is_no_fault(storage: Storage) -> None:
    storage.fs.put(named(4, 0, 1).key, segment(named(4, 0, 1), version=2))
    report = verify(storage.fs)
    assert kinds(report) == {named(4, 0, 1).key: findings.NEWER}
    assert report.is_sound


@pytest.fixture
def memory() -> Iterator[MemoryFilesystem]:
    """A lake that is compacted, vacuumed, and still written to."""
    opened = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_busy(opened)
    yield opened
    opened.delete_many([entry.key for entry in opened.list("")])


def faults(fs: Filesystem, *, artifacts: bool = False) -> dict[str, set[str]]:
    """Return the kinds of fault by file."""
    found: dict[str, set[str]] = {}
    for each in verify(fs, artifacts=artifacts).findings:
        if each.is_fault:
            found.setdefault(each.key, set()).add(each.kind)
    return found


def first(fs: Filesystem, table: str) -> TableFile:
    """Return the first file of a table."""
    return manifests.newest(fs, lake=LAKE).files(table, EXPERIMENT)[0]


def part(table: str) -> str:
    return layout.table_partition(table, EXPERIMENT)


def edit(fs: Filesystem, **fields: Any) -> str:  # noqa: ANN401 - any field
    """Put the newest manifest again with other fields; return its key."""
    newest = manifests.newest(fs, lake=LAKE)
    key = layout.manifest(newest.number)
    fs.put(key, manifest.encode(replace(newest, **fields)))
    return key


def rewrite(
    fs: Filesystem,
    file: TableFile,
    change: Callable[[pa.Table], pa.Table],
    *,
    lake: str = LAKE,
) -> None:  # fmt: skip
    """Write a table file again with other rows, and let the manifest say so."""
    name = layout.parse_table_file(file.path)
    assert name is not None
    table = table_files.TABLES[name.table]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        fs.download(file.path, path)
        said = table_files.read_header(path, key=file.path)
        rows = change(pa.concat_tables(table_files.read_groups(path, table, key=file.path)))
        written: list[table_writer.Written] = []
        writer = table_writer.TableWriter(
            table, replace(said, lake=lake), Path(folder), finished=written.append
        )
        writer.write(rows)
        writer.close()
        fs.upload(file.path, written[0].path)
    newest = manifests.newest(fs, lake=LAKE)
    mended = replace(
        file,
        size_bytes=written[0].size_bytes,
        rows=written[0].rows,
        min_run=written[0].least,
        max_run=written[0].greatest,
    )
    tables = {
        each: tuple(mended if one == file else one for one in files)
        for each, files in newest.tables.items()
    }
    edit(fs, tables=tables)


def test_a_compacted_lake_is_sound_and_counted(memory: MemoryFilesystem) -> None:
    seen: list[findings.Checked] = []
    report = verify(memory, artifacts=True, progress=seen.append)
    newest = manifests.newest(memory, lake=LAKE)
    assert report.findings == ()
    assert report.table_count == len(newest.paths())
    files = [file for of in newest.tables.values() for file in of]
    assert report.table_rows == sum(file.rows for file in files)
    assert [each.files for each in seen] == list(range(1, len(files) + report.segment_count + 1))
    assert (seen[-1].files, seen[-1].size_bytes) == (seen[-1].all_files, seen[-1].all_bytes)


def test_an_untidy_lake_is_sound_and_what_vacuum_takes_is_named() -> None:
    fs = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_busy(fs, is_tidy=False)
    report = verify(fs)
    assert report.is_sound
    gone = {each.key for each in vacuum(fs, lake=LAKE, grace_s=0).removed}
    said = {f.key for f in report.findings if f.kind in {findings.ORPHAN, findings.CONSUMED}}
    assert said == gone
    fs.delete_many([entry.key for entry in fs.list("")])


def test_a_lake_with_cold_watermarks_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "HOT_WRITERS", 2)
    fs = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_busy(fs)
    assert manifests.newest(fs, lake=LAKE).cold_hi
    assert verify(fs).findings == ()
    fs.delete_many([entry.key for entry in fs.list("")])


@pytest.mark.parametrize("table", table_files.TABLES)
def test_a_table_file_that_is_cut_or_gone_or_another_lakes_is_named(
    memory: MemoryFilesystem, table: str
) -> None:
    file = first(memory, table)
    whole = memory.get(file.path)
    memory.put(file.path, whole[:-40])
    assert faults(memory) == {file.path: {findings.DAMAGED}}
    memory.delete_many([file.path])
    assert findings.MISSING in faults(memory)[file.path]
    memory.put(file.path, whole)
    rewrite(memory, file, lambda rows: rows, lake="f" * 32)
    assert findings.FOREIGN in faults(memory)[file.path]


def test_two_files_that_changed_places_are_named(memory: MemoryFilesystem) -> None:
    one, other = manifests.newest(memory, lake=LAKE).files("metrics", EXPERIMENT)[:2]
    first_bytes, other_bytes = memory.get(one.path), memory.get(other.path)
    memory.put(one.path, other_bytes)
    memory.put(other.path, first_bytes)
    assert faults(memory) == {one.path: {findings.DAMAGED}, other.path: {findings.DAMAGED}}


def test_rows_out_of_order_are_named(memory: MemoryFilesystem) -> None:
    file = first(memory, "metrics")
    rewrite(memory, file, lambda rows: rows.take(list(range(rows.num_rows))[::-1]))
    assert faults(memory)[file.path] == {findings.DAMAGED}


@pytest.mark.parametrize("table", ["metrics", "events"])
@pytest.mark.parametrize("is_twice", [True, False])
def test_rows_that_are_missing_or_twice_are_counted(
    memory: MemoryFilesystem, table: str, *, is_twice: bool
) -> None:
    def changed(rows: pa.Table) -> pa.Table:
        return pa.concat_tables([rows.slice(0, 1), rows]) if is_twice else rows.slice(1)

    rewrite(memory, first(memory, table), changed)
    assert findings.COUNT in faults(memory)[part("metrics")]


def test_a_state_that_is_not_what_the_rows_say_is_named(memory: MemoryFilesystem) -> None:
    def halved(rows: pa.Table) -> pa.Table:
        place = rows.column_names.index("max")
        return rows.set_column(place, "max", pc.divide(rows["max"], pa.scalar(2.0)))

    rewrite(memory, first(memory, "summaries"), halved)
    rewrite(memory, first(memory, "facts"), lambda rows: rows.slice(1))
    assert faults(memory) == {
        part("summaries"): {findings.STATE},
        part("facts"): {findings.STATE},
    }


def test_watermarks_that_differ_are_named(memory: MemoryFilesystem) -> None:
    consumed = dict(manifests.newest(memory, lake=LAKE).consumed)
    consumed[writer_id(1)] -= 1
    edit(memory, consumed=consumed)
    assert faults(memory) == {part("writers"): {findings.COUNT}}


@pytest.mark.parametrize("change", [{"rows": 1}, {"size_bytes": 1}, {"min_run": "a"}])
def test_an_entry_of_a_manifest_that_is_not_true_is_named(
    memory: MemoryFilesystem, change: dict[str, Any]
) -> None:
    newest, file = manifests.newest(memory, lake=LAKE), first(memory, "events")
    others = tuple(each for each in newest.files("events") if each != file)
    edit(memory, tables={**newest.tables, "events": (replace(file, **change), *others)})
    assert findings.DAMAGED in faults(memory)[file.path]


def test_a_manifest_that_does_not_follow_is_named(memory: MemoryFilesystem) -> None:
    newest = manifests.newest(memory, lake=LAKE)
    following = replace(newest, number=newest.number + 1, parent="other", nonce="n")
    key = layout.manifest(following.number)
    for made in (
        following,
        replace(following, parent=newest.nonce),  # of the same time
        replace(following, parent=newest.nonce, commit_us=2 * newest.commit_us, consumed={
            **newest.consumed, writer_id(1): 3
        }),
    ):  # fmt: skip
        memory.put(key, manifest.encode(made))
        assert findings.HISTORY in faults(memory)[key]


def test_rows_of_a_purged_run_in_a_table_are_named(memory: MemoryFilesystem) -> None:
    edit(memory, purged=frozenset({"run-2"}))
    holding = {key for key, kinds in faults(memory).items() if kinds == {findings.PURGED}}
    assert {key.split("/")[1] for key in holding} == {"metrics", "events", "facts", "summaries"}


def test_a_lost_manifest_is_told_from_a_commit_that_never_came(memory: MemoryFilesystem) -> None:
    newest = manifests.newest(memory, lake=LAKE)
    live = MadeWriter(7, rows_of(7))
    live.put(memory, 0, len(live.rows) - 1)
    compactor(memory, limits=Limits(merge_bytes=1)).compact(EXPERIMENT)
    memory.delete_many(
        [e.key for e in memory.list(layout.MANIFESTS) if e.key > layout.manifest(newest.number)]
    )
    assert faults(memory) == {}  # its rows are in its segment still
    memory.delete_many([live.segment(0, len(live.rows) - 1).key])
    assert faults(memory) == {layout.manifest(newest.number + 1): {findings.MISSING}}


def test_stale_statistics_of_a_segment_are_named(memory: MemoryFilesystem) -> None:
    key = MadeWriter(9, []).segment(6, 30).key
    data = memory.get(key)
    said = pq.read_metadata(pa.BufferReader(data)).row_group(0).column(3).statistics
    assert said is not None
    raw = int(str(said.max_raw)).to_bytes(8, "little")
    at = data.rindex(raw)
    memory.put(key, data[:at] + b"\x63" + data[at + 1 :])
    found = verify(memory).findings
    assert [(each.key, each.kind) for each in found] == [(key, findings.DAMAGED)]


def test_artifacts_are_held_against_the_log(memory: MemoryFilesystem) -> None:
    memory.put(ARTIFACT, b"b model")
    assert faults(memory) == {}
    assert faults(memory, artifacts=True) == {ARTIFACT: {findings.ARTIFACT}}
    memory.put(ARTIFACT, b"longer model")
    assert faults(memory) == {ARTIFACT: {findings.ARTIFACT}}
    memory.delete_many([ARTIFACT])
    assert faults(memory, artifacts=True) == {ARTIFACT: {findings.ARTIFACT}}


def test_artifacts_without_an_event_are_noted_and_deleted_ones_are_not_missed(
    memory: MemoryFilesystem,
) -> None:
    folder = ARTIFACT.rpartition("/")[0]
    memory.put(f"{folder}/unsaid.bin", b"x")
    report = verify(memory, artifacts=True)
    assert report.is_sound
    assert kinds(report) == {f"{folder}/unsaid.bin": findings.ORPHAN}
    memory.delete_many([f"{folder}/unsaid.bin"])
    rows = [said("run-1", schema.ARTIFACT, "model.pkl", None, at=10**9)]
    MadeWriter(77, rows).put(memory, 0, 0)
    report = verify(memory, artifacts=True)
    assert (report.is_sound, kinds(report)) == (True, {ARTIFACT: findings.ORPHAN})
    memory.delete_many([ARTIFACT])
    assert verify(memory, artifacts=True).findings == ()


def test_leftovers_and_what_a_repair_put_aside_are_no_faults(memory: MemoryFilesystem) -> None:
    memory.put("names/probes/0123456789abcdef.json", b"1")
    memory.put("quarantine/log/x", b"1")
    memory.put("tables/metrics/_delta_log/00000000000000000000.json", b"{}")
    report = verify(memory)
    assert [each.kind for each in report.findings] == [findings.LEFTOVER, findings.QUARANTINED]
    assert report.is_sound


@pytest.mark.filesystems("local", "s3")
def test_a_claim_that_is_missing_is_named(storage: Storage) -> None:
    storage.make_claim(
        Claim(name="a", experiment_id="c", time_us=1, user="u", tags={}, nonce="n", number=3)
    )
    key = layout.claim(ids.name_hash("a"), 2)
    assert faults(storage.fs) == {key: {findings.MISSING}}


BUSY: Final = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
ANSWERS: Final[list[Held]] = []


@given(st.data())
@settings(max_examples=30)
def test_a_flipped_bit_anywhere_is_named_or_changes_no_answer(data: st.DataObject) -> None:
    if not BUSY.list(""):
        make_busy(BUSY, writers=2)
        ANSWERS.append(held(BUSY))
    entry = data.draw(st.sampled_from(BUSY.list("")), label="file")
    whole = BUSY.get(entry.key)
    place = data.draw(st.integers(0, len(whole) - 1), label="byte")
    bit = data.draw(st.integers(0, 7), label="bit")
    try:
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << bit
        BUSY.put(entry.key, bytes(spoilt))
        report = verify(BUSY, artifacts=True)
        if report.is_sound and not _is_about_the_host(whole, place):
            assert held(BUSY) == ANSWERS[0]
    finally:
        BUSY.put(entry.key, whole)


def _is_about_the_host(whole: bytes, place: int) -> bool:
    """Tell whether a byte is where a segment says who wrote it, which nothing else says."""
    start, end = whole.rfind(b'{"writer"'), whole.rfind(b'"format":1}')
    return 0 <= start <= place < end + 11
