from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from runlake import ids
from runlake.errors import FormatError, NewerFormatError, NotFoundError, StateError
from runlake.settings import Settings
from runlake.storage import layout, manifest
from runlake.storage.engine import Storage
from runlake.storage.fs import open_filesystem
from runlake.storage.manifest import Manifest
from runlake.storage.names import Claim
from runlake.testing.filesystems import CountingFilesystem
from tests.storage.lakes import named, segment, sequences, storage_on, writer_id

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.storage.filesystem import Filesystem


def test_opening_costs_nothing_and_the_lake_file_one_read(filesystem: Filesystem) -> None:
    Storage(filesystem, Settings()).ensure_lake()
    counting = CountingFilesystem(filesystem)
    storage = Storage(counting, Settings())
    assert counting.total == 0
    assert storage.lake_id() == storage.require_lake() == storage.ensure_lake()
    assert counting.requests == {"GET": 1}


def test_place_without_a_lake_has_no_id_and_is_not_touched(filesystem: Filesystem) -> None:
    storage = Storage(filesystem, Settings())
    assert storage.lake_id() is None
    with pytest.raises(NotFoundError, match="is not a lake: nothing is there"):
        storage.snapshot()
    assert filesystem.list("") == []


@pytest.mark.filesystems("local")
def test_lake_file_has_the_fields_of_the_specification(filesystem: Filesystem) -> None:
    storage = Storage(filesystem, Settings())
    lake = storage.ensure_lake()
    fields = json.loads(filesystem.get("runlake.json"))
    wanted = {"format": 1, "lake": lake, "conditional_create": filesystem.conditional_create}
    assert fields == wanted
    assert storage.conditional_create == filesystem.conditional_create


def test_lake_file_that_was_lost_comes_again_with_the_id_in_the_manifests(
    filesystem: Filesystem,
) -> None:
    lake = Storage(filesystem, Settings()).ensure_lake()
    filesystem.put(layout.manifest(1), manifest.encode(Manifest(lake=lake, number=1)))
    filesystem.delete_many([layout.LAKE_FILE])
    assert Storage(filesystem, Settings()).ensure_lake() == lake
    assert Storage(filesystem, Settings()).require_lake() == lake


def test_lake_made_by_many_at_once_has_one_id(filesystem: Filesystem) -> None:
    opened = [Storage(filesystem, Settings()) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        lakes = set(pool.map(Storage.ensure_lake, opened))
    assert len(lakes) == 1
    assert Storage(filesystem, Settings()).lake_id() in lakes


def test_folder_with_other_files_is_no_lake_and_does_not_become_one(tmp_path: Path) -> None:
    for name in ("train.py", "data.csv", "notes.md", "run.sh"):
        (tmp_path / name).touch()
    (tmp_path / ".git").mkdir()
    fs = open_filesystem(tmp_path, storage_options={}, settings=Settings())
    storage = Storage(fs, Settings())
    with pytest.raises(NotFoundError, match=r"it holds 'data.csv', .* and 1 more, but no runlake"):
        storage.require_lake()
    with pytest.raises(
        StateError, match=r"Choose an empty folder or a new one, for example .*/lake"
    ):
        storage.ensure_lake()
    assert not (tmp_path / "names").exists()


def test_folder_in_which_another_process_begins_a_lake_becomes_one(tmp_path: Path) -> None:
    (tmp_path / "names").mkdir()
    (tmp_path / ".hidden").touch()
    fs = open_filesystem(tmp_path, storage_options={}, settings=Settings())
    assert Storage(fs, Settings()).ensure_lake()


@pytest.mark.filesystems("local")
@pytest.mark.parametrize("data", [b"{", b"[]", b'{"format": 1}', b'{"format": null}'])
def test_damaged_lake_file_is_refused(filesystem: Filesystem, data: bytes) -> None:
    filesystem.put("runlake.json", data)
    with pytest.raises(FormatError, match=r"no readable lake file|format is"):
        Storage(filesystem, Settings()).lake_id()


@pytest.mark.filesystems("local")
def test_lake_of_a_newer_format_is_refused_with_the_way_out(filesystem: Filesystem) -> None:
    filesystem.put("runlake.json", b'{"format": 2, "new": "thing"}')
    storage = Storage(filesystem, Settings())
    for opening in (storage.lake_id, storage.require_lake, storage.ensure_lake):
        with pytest.raises(NewerFormatError, match="pip install"):
            opening()


def test_appended_segment_is_in_the_next_snapshot(filesystem: Filesystem, tmp_path: Path) -> None:
    storage, name = storage_on(filesystem, tmp_path), named(1, 0, 4)
    data = segment(name)
    assert storage.append(name, data)
    assert storage.append(name, data)  # the answer was lost, and it is sent again
    assert not storage.append(name, segment(name))  # another nonce: not ours
    assert sequences(storage.read()[1]) == {writer_id(1): [0, 1, 2, 3, 4]}


def test_snapshots_of_one_storage_share_what_was_read(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    storage = storage_on(filesystem, tmp_path)
    storage.append(named(1, 0, 4), segment(named(1, 0, 4)))
    one, other = storage.snapshot(), storage.snapshot(["exp"])
    assert storage.tables(one).facts.equals(storage.tables(other).facts)
    assert storage.tables(one).root_url == storage.url
    assert storage.tables(one).stale_s == Settings().stale_s


@pytest.mark.filesystems("local")
def test_claims_go_through_the_storage(filesystem: Filesystem, tmp_path: Path) -> None:
    storage = storage_on(filesystem, tmp_path)
    nonce = ids.new_nonce()
    claim = Claim(name="a", experiment_id="b", time_us=1, user="u", tags={}, nonce=nonce)
    assert storage.read_claim("a") is None
    assert storage.make_claim(claim)
    assert storage.read_claim("a") == claim
