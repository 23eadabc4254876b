from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runlake import disks, ids
from runlake.settings import Settings
from runlake.writing import places
from runlake.writing.places import Owner, OwnerLock

_OWNER = Owner("url", "W" * 26, "exp", "Ünïcode", places.host(), os.getpid(), disks.boot_id())
_TAKE = """
import sys
from pathlib import Path
from runlake.writing.places import OwnerLock
print(OwnerLock.take(Path(sys.argv[1])) is not None)
"""


def _taken_elsewhere(folder: Path) -> bool:
    """Tell whether another process gets the lock of a journal."""
    call = [sys.executable, "-c", _TAKE, str(folder)]
    return subprocess.run(call, check=True, capture_output=True, text=True).stdout == "True\n"


@pytest.mark.parametrize("number", [0, 7, 99_999_999])
def test_page_names_are_read_back(number: int) -> None:
    assert places.page_number(places.page_name(number)) == number


@pytest.mark.parametrize("first", [0, 7, 10**14])
def test_events_names_are_read_back(first: int) -> None:
    assert places.events_first(places.events_name(first)) == first


@pytest.mark.parametrize("name", ["", "points-1.bin", "points-00000001.bin.tmp", "owner.json"])
def test_other_names_are_neither(name: str) -> None:
    assert places.page_number(name) is None
    assert places.events_first(name) is None


def test_journal_lies_where_the_user_says(tmp_path: Path) -> None:
    place = places.choose(Settings(journal=str(tmp_path / "mine")))
    assert place.root == tmp_path / "mine" / "journal"
    assert place.root.is_dir()
    assert "RUNLAKE_JOURNAL" in place.reason


def test_journal_lies_in_the_users_state_folder_else_in_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert places.choose(Settings()).root == tmp_path / "state" / "runlake" / "journal"
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(blocked))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    place = places.choose(Settings())
    assert place.root is not None
    assert place.root.is_relative_to(tmp_path / "temporary")
    assert "cannot be made" in place.reason


def test_journal_is_in_memory_where_nothing_can_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    place = places.choose(Settings(journal=str(blocked)))
    assert place.root is None
    assert not place.mapped
    assert "memory only" in place.reason


@pytest.mark.parametrize(
    ("kind", "mapped", "is_passed_over"),
    [("ext4", True, False), ("xfs", True, False), ("btrfs", False, False), ("nfs4", False, True)],
)
def test_filesystem_decides_whether_records_are_mapped_and_network_disks_are_passed_over(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    *,
    mapped: bool,
    is_passed_over: bool,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(
        disks, "filesystem_type", lambda path: kind if "state" in str(path) else "tmpfs"
    )
    place = places.choose(Settings())
    assert place.root is not None
    assert ("state" not in place.root.parts) == is_passed_over
    assert place.mapped == (mapped or is_passed_over)
    # What the user names is taken, and written through.
    named = places.choose(Settings(journal=str(tmp_path / "state")))
    assert named.root is not None
    assert named.mapped == mapped


def test_filesystem_type_is_that_of_the_innermost_mount() -> None:
    assert disks.filesystem_type(Path("/proc/self")) == "proc"
    assert disks.filesystem_type(Path("/proc/self/no/such/place")) == "proc"


def test_lakes_have_folders_of_their_own(tmp_path: Path) -> None:
    one, other = (places.lake_folder(tmp_path, url) for url in ("s3://a", "s3://b"))
    assert one != other
    assert one == tmp_path / ids.name_hash("s3://a")


def test_journal_is_its_owners_until_it_is_released(tmp_path: Path) -> None:
    folder = tmp_path / "lake" / _OWNER.writer
    lock = OwnerLock.create(folder, _OWNER)
    assert lock.owner() == _OWNER
    assert OwnerLock.take(folder) is None
    assert not _taken_elsewhere(folder)
    lock.release(remove=False)
    assert _taken_elsewhere(folder)
    again = OwnerLock.take(folder)
    assert again is not None
    assert not _taken_elsewhere(folder)
    again.release(remove=True)
    assert list((tmp_path / "lake").iterdir()) == []
    assert OwnerLock.take(folder) is None


def test_forked_child_that_lets_go_leaves_the_parents_lock(tmp_path: Path) -> None:
    folder = tmp_path / _OWNER.writer
    lock = OwnerLock.create(folder, _OWNER)
    pid = os.fork()
    if not pid:
        lock.abandon_in_child()
        os._exit(0)
    os.waitpid(pid, 0)
    assert not _taken_elsewhere(folder)
    lock.release(remove=True)


def test_folder_that_cannot_be_made_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "lake" / _OWNER.writer
    with monkeypatch.context() as full:
        full.setattr(os, "write", refuse)
        with pytest.raises(OSError, match="No space"):
            OwnerLock.create(folder, _OWNER)
    assert list((tmp_path / "lake").iterdir()) == []
    OwnerLock.create(folder, _OWNER).release(remove=True)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"url": 1}'])
def test_owner_file_that_is_damaged_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / places.OWNER).write_text(text)
    lock = OwnerLock.take(tmp_path)
    assert lock is not None
    with pytest.raises(ValueError, match=r".+"):
        lock.owner()
    lock.release(remove=False)
