from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from runlake import ids
from runlake.storage import layout, manifest, segments
from runlake.storage.manifest import Manifest, TableFile
from runlake.storage.names import Claim
from runlake.upkeep import verify
from tests.storage.lakes import named, put, rows_of, segment, state_at, storage_on, writer_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runlake.storage.engine import Storage
    from runlake.storage.filesystem import Filesystem


@pytest.fixture
def storage(filesystem: Filesystem, tmp_path: Path) -> Storage:
    """A lake with two writers, a claim and an artifact, without fault."""
    made = storage_on(filesystem, tmp_path)
    put(filesystem, named(1, 0, 4), named(1, 5, 9), named(2, 0, 4))
    made.make_claim(Claim(name="a", experiment_id="b", time_us=1, user="u", tags={}, nonce="n"))
    filesystem.put("artifacts/exp/run-1/model.pkl", b"model")
    return made


def kinds(report: verify.Report) -> dict[str, str]:
    return {finding.key: finding.kind for finding in report.findings}


def test_lake_without_fault_is_sound(storage: Storage) -> None:
    report = verify.verify(storage.fs)
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
    rows = rows_of(name)
    wrong = rows.set_column(5, "num", pa.array([9.0] * 5))
    footer = segments.read_footer(segment(name), key=name.key)
    return segments.encode(wrong, footer.header, state_at(name))


def _other_name(_: bytes) -> bytes:
    return segment(named(7, 0, 4))


@pytest.mark.parametrize("spoil", [_cut, _one_bit, _other_rows, _other_name])
def test_damaged_segment_is_found(storage: Storage, spoil: Callable[[bytes], bytes]) -> None:
    key = named(1, 0, 4).key
    storage.fs.put(key, spoil(storage.fs.get(key)))
    report = verify.verify(storage.fs)
    assert kinds(report) == {key: verify.DAMAGED}
    assert not report.is_sound


def test_missing_row_is_found(storage: Storage) -> None:
    storage.fs.delete_many([named(1, 0, 4).key])
    report = verify.verify(storage.fs)
    assert kinds(report) == {f"log/experiment_id=exp/{writer_id(1)}": verify.HOLE}
    assert "row 0 is in no segment" in report.findings[0].detail


def test_superseded_and_consumed_segments_are_named_and_are_no_fault(storage: Storage) -> None:
    put(storage.fs, named(1, 0, 9, merged=True))
    consumed = {writer_id(2): 4}
    made = Manifest(lake=storage.require_lake(), number=1, consumed=consumed)
    storage.fs.put(layout.manifest(1), manifest.encode(made))
    report = verify.verify(storage.fs)
    assert kinds(report) == {
        named(1, 0, 4).key: verify.SUPERSEDED,
        named(1, 5, 9).key: verify.SUPERSEDED,
        named(2, 0, 4).key: verify.CONSUMED,
    }
    assert report.is_sound


def test_unknown_objects_are_found(storage: Storage) -> None:
    keys = ["thing.txt", "log/experiment_id=exp/x.parquet", "manifests/one.json"]
    for key in keys:
        storage.fs.put(key, b"x")
    assert kinds(verify.verify(storage.fs)) == dict.fromkeys(keys, verify.UNKNOWN)


def test_missing_lake_file_is_found(storage: Storage) -> None:
    storage.fs.delete_many(["runlake.json"])
    report = verify.verify(storage.fs)
    assert (report.lake, kinds(report)) == (None, {"runlake.json": verify.MISSING})


def test_foreign_manifest_is_found_and_a_missing_one(storage: Storage) -> None:
    for number in (1, 3):
        made = Manifest(lake="theirs", number=number)
        storage.fs.put(layout.manifest(number), manifest.encode(made))
    report = verify.verify(storage.fs)
    assert kinds(report) == {
        layout.manifest(1): verify.DAMAGED,
        layout.manifest(2): verify.MISSING,
        layout.manifest(3): verify.DAMAGED,
    }


def test_table_file_that_the_manifest_names_must_be_there_whole(storage: Storage) -> None:
    files = tuple(TableFile(f"tables/runs/{n}", 3, 1, "exp", "a", "b") for n in ("a", "b"))
    made = Manifest(lake=storage.require_lake(), number=1, tables={"runs": files})
    storage.fs.put(layout.manifest(1), manifest.encode(made))
    storage.fs.put("tables/runs/a", b"longer")
    report = verify.verify(storage.fs)
    assert kinds(report) == {"tables/runs/a": verify.DAMAGED, "tables/runs/b": verify.MISSING}


def test_damaged_claim_is_found(storage: Storage) -> None:
    key = layout.claim(ids.name_hash("digits"), 1)
    storage.fs.put(key, b"{}")
    assert kinds(verify.verify(storage.fs)) == {key: verify.DAMAGED}


def test_segment_of_a_newer_format_is_named_and_is_no_fault(storage: Storage) -> None:
    storage.fs.put(named(4, 0, 1).key, segment(named(4, 0, 1), version=2))
    report = verify.verify(storage.fs)
    assert kinds(report) == {named(4, 0, 1).key: verify.NEWER}
    assert report.is_sound
