from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from runlake import disks
from runlake.errors import StorageError
from runlake.storage import layout, localfs
from runlake.storage.fs import Range
from runlake.storage.localfs import LocalFilesystem

RACE = """
import sys
from pathlib import Path
from runlake.storage.localfs import LocalFilesystem
filesystem, who, rounds = LocalFilesystem(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    if filesystem.put_absent(f"manifests/{number}", f"{who} made {number}".encode()):
        print(number)
"""


@pytest.fixture
def lake(tmp_path: Path) -> LocalFilesystem:
    return LocalFilesystem(tmp_path / "lake")


def no_links(_: str, __: str) -> NoReturn:
    raise OSError(errno.EPERM, "no hard links on this disk")


def test_put_absent_has_one_winner_of_many_processes(tmp_path: Path) -> None:
    rounds = 50
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path / "lake"), str(who), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    won = [racer.communicate("go\n")[0].split() for racer in racers]
    assert sorted(int(number) for numbers in won for number in numbers) == list(range(rounds))
    lake = LocalFilesystem(tmp_path / "lake")
    for who, numbers in enumerate(won):
        for number in numbers:
            assert lake.get(f"manifests/{number}") == f"{who} made {number}".encode()


def test_put_absent_without_hard_links_still_creates_once(
    lake: LocalFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    assert lake.put_absent("a", b"mine")
    assert not lake.put_absent("a", b"theirs")
    assert lake.get("a") == b"mine"
    assert lake.probe()


def test_probe_says_no_where_a_name_cannot_be_taken_in_one_step(
    lake: LocalFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(localfs, "_rename_absent", lambda *_: None)
    assert lake.put_absent("a", b"mine")
    assert not lake.put_absent("a", b"theirs")
    assert not lake.probe()
    assert lake.conditional_create is False
    assert [entry.key for entry in lake.list("")] == ["a"]


def test_put_absent_that_fails_for_another_reason_says_so(
    lake: LocalFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: str, __: str) -> NoReturn:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(StorageError, match=r"could not create .*/lake/a: .*no space left"):
        lake.put_absent("a", b"x")
    assert list(Path(lake.url).iterdir()) == []


def test_write_that_fails_leaves_the_old_object_and_no_temporary_file(
    lake: LocalFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "no space left")

    lake.put("a", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="could not write"):
        lake.put("a", b"new")
    assert [file.name for file in Path(lake.url).iterdir()] == ["a"]
    assert lake.get("a") == b"old"


def test_write_syncs_the_data_before_the_name_and_the_folder_after_it(
    lake: LocalFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def note_fsync(handle: int) -> None:
        done.append(Path(f"/proc/self/fd/{handle}").readlink().name[:5])
        fsync(handle)

    def note_link(source: str, target: str) -> None:
        done.append("link")
        link(source, target)

    lake.put("log/first", b"x")
    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    lake.put_absent("log/a", b"x")
    assert done == [".tmp-", "link", "log"]
    done.clear()
    lake.put_absent("new/folder/a", b"x")
    assert done == ["lake", "new", ".tmp-", "link", "folde"]


def test_list_hides_temporary_files(lake: LocalFilesystem) -> None:
    lake.put("log/a", b"x")
    (Path(lake.url) / "log" / ".tmp-0123").write_bytes(b"half")
    assert [entry.key for entry in lake.list("")] == ["log/a"]


def test_list_follows_a_linked_folder_but_not_for_ever(
    lake: LocalFilesystem, tmp_path: Path
) -> None:
    lake.put("log/a", b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model").write_bytes(b"x")
    (Path(lake.url) / "artifacts").symlink_to(tmp_path / "elsewhere")
    (Path(lake.url) / "log" / "loop").symlink_to(lake.url)
    keys = [entry.key for entry in lake.list("")]
    assert {"artifacts/model", "log/a"} <= set(keys)
    assert len(keys) < 10


def test_a_file_in_place_of_the_folder_is_told_as_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "lake").write_bytes(b"I am a file")
    lake = LocalFilesystem(tmp_path / "lake")
    for write in (lake.put, lake.put_absent):
        with pytest.raises(StorageError, match=r"could not (write|create) .*/lake/log/a") as caught:
            write("log/a", b"x")
        assert caught.value.url == str(tmp_path / "lake")
        assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(FileNotFoundError):
        lake.get("log/a")


def test_a_folder_in_place_of_an_object_is_told_as_a_storage_error(lake: LocalFilesystem) -> None:
    lake.put("log/a", b"x")
    with pytest.raises(StorageError, match="could not create"):
        lake.put_absent("log", b"x")
    with pytest.raises(StorageError, match="could not write"):
        lake.put("log", b"x")


def test_an_unwritable_folder_is_told_as_a_storage_error() -> None:
    lake = LocalFilesystem(Path("/proc/lake"))
    with pytest.raises(StorageError, match="could not write /proc/lake/a"):
        lake.put("a", b"x")
    assert lake.now_us() > 0


def test_list_that_is_refused_is_no_empty_list(
    lake: LocalFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> NoReturn:
        raise PermissionError(errno.EACCES, "not yours")

    lake.put("log/a", b"x")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match=r"could not list .*not yours"):
        lake.list("log/")


def test_a_stale_handle_of_a_network_disk_is_a_missing_file(
    lake: LocalFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object) -> NoReturn:
        raise OSError(errno.ESTALE, "stale file handle")

    lake.put("a", b"x")
    monkeypatch.setattr(os, "pread", stale)
    with pytest.raises(FileNotFoundError):
        lake.get_ranges([Range("a", 0, 1)])


def test_what_is_longer_than_the_disks_names_is_not_there(lake: LocalFilesystem) -> None:
    lake.put("a/b", b"data")
    long = "x" * 300
    assert lake.list(f"{long}/") == []
    assert lake.list(f"a/{long}") == []
    with pytest.raises(FileNotFoundError):
        lake.get(f"a/{long}")
    lake.delete_many([f"a/{long}"])
    with pytest.raises(StorageError, match="name too long"):
        lake.put(f"a/{long}", b"data")


def test_now_is_the_hosts_clock_on_its_own_disk_and_nothing_is_written(
    lake: LocalFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.put("a", b"x")
    assert abs(lake.now_us() - lake.list("")[0].time_us) < 5_000_000
    monkeypatch.setattr("runlake.clock.now_us", lambda: 1)
    monkeypatch.setattr(os, "open", pytest.fail)
    assert lake.now_us() == 1


def test_now_is_the_disks_clock_where_another_host_may_have_it(
    lake: LocalFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "filesystem_type", lambda _: "nfs4")
    lake.put("a", b"x")
    monkeypatch.setattr("runlake.clock.now_us", lambda: 1)
    assert abs(lake.now_us() - lake.list("")[0].time_us) < 5_000_000
    assert [entry.key for entry in lake.list("")] == ["a"]
    assert [file.name for file in Path(lake.url).iterdir()] == ["a"]


def test_folders_of_artifacts_go_with_the_last_of_them(tmp_path: Path) -> None:
    fs = LocalFilesystem(tmp_path / "lake")
    keys = [f"{layout.artifacts('exp', 'run')}{name}" for name in ("a", "plots/b", "plots/c")]
    for key in keys:
        fs.put(key, b"data")
    fs.put(f"{layout.artifacts('exp', 'other')}a", b"data")
    fs.put("log/experiment_id=exp/object", b"data")
    fs.delete_many([*keys[:2], "log/experiment_id=exp/object"])
    assert [entry.key for entry in fs.list("artifacts/exp/run/")] == keys[2:]
    fs.delete_many(keys)
    assert [item.name for item in (tmp_path / "lake/artifacts/exp").iterdir()] == ["other"]
    assert (tmp_path / "lake/log/experiment_id=exp").is_dir()
    fs.put(keys[1], b"again")
    assert fs.get(keys[1]) == b"again"
