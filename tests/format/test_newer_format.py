"""A lake of a newer format is refused politely: which file, and what to do."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from runlake.errors import NewerFormatError
from runlake.settings import Settings
from runlake.storage import layout
from runlake.storage.engine import Storage
from runlake.storage.localfs import LocalFilesystem
from runlake.upkeep.checks.verify import verify
from tests.format.make_golden import LAKE
from tests.storage.lakes import named, segment

if TYPE_CHECKING:
    from pathlib import Path

CLAIM = next(LAKE.glob("names/experiments/ivc*/*.json")).relative_to(LAKE).as_posix()
SEGMENT = named(99, 0, 2, experiment="0").key


def newer(data: bytes) -> bytes:
    """Return a JSON object as the next version might write it."""
    return json.dumps(json.loads(data) | {"format": 2, "novelty": [1]}).encode()


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy of the golden lake."""
    lake = tmp_path / "golden"
    shutil.copytree(LAKE, lake)
    return lake


def spoil(lake: Path, key: str) -> None:
    """Make one object one of the next version's."""
    file = lake / key
    if key == SEGMENT:
        file.write_bytes(segment(named(99, 0, 2, experiment="0"), version=2))
    elif key == layout.manifest(2):
        fields = json.loads((lake / layout.manifest(1)).read_bytes())
        file.write_bytes(newer(json.dumps(fields | {"n": 2, "nonce": "f" * 16}).encode()))
    else:
        file.write_bytes(newer(file.read_bytes()))


@pytest.mark.parametrize("key", [layout.LAKE_FILE, layout.manifest(2), SEGMENT])
def test_newer_file_stops_a_reader_and_is_named(golden: Path, key: str) -> None:
    spoil(golden, key)
    storage = Storage(LocalFilesystem(golden), Settings())
    with pytest.raises(NewerFormatError) as caught:
        storage.read()
    message = str(caught.value)
    assert key in message
    assert "format 2 is newer" in message
    assert "pip install --upgrade runlake" in message


def test_newer_claim_stops_who_looks_for_its_name(golden: Path) -> None:
    spoil(golden, CLAIM)
    storage = Storage(LocalFilesystem(golden), Settings())
    with pytest.raises(NewerFormatError, match="upgrade runlake"):
        storage.read_claim("final")


def test_newer_lake_file_stops_a_writer_and_stays(golden: Path) -> None:
    spoil(golden, layout.LAKE_FILE)
    before = (golden / layout.LAKE_FILE).read_bytes()
    with pytest.raises(NewerFormatError):
        Storage(LocalFilesystem(golden), Settings()).ensure_lake()
    assert (golden / layout.LAKE_FILE).read_bytes() == before


def test_newer_files_are_no_fault_of_the_lake(golden: Path) -> None:
    for key in (layout.manifest(2), SEGMENT, CLAIM):
        spoil(golden, key)
    report = verify(LocalFilesystem(golden))
    assert report.is_sound
    found = {finding.key for finding in report.findings if finding.kind == "newer"}
    assert found == {layout.manifest(2), SEGMENT, CLAIM}


def test_newer_manifest_below_the_newest_is_not_read(golden: Path) -> None:
    (golden / layout.manifest(2)).write_bytes(
        (golden / layout.manifest(1)).read_bytes().replace(b'"n":1', b'"n":2')
    )
    spoil(golden, layout.manifest(1))
    snapshot, _ = Storage(LocalFilesystem(golden), Settings()).read()
    assert snapshot.manifest.number == 2
