"""What a host knows of uploads that it has begun: kept, locked, private, and forgotten in time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake import clock
from runlake.storage.trackers import KEPT_S, Tracker
from tests.meta.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS = "https://store.example/upload?upload_id=secret"
MARKS = [f"{number:064x}" for number in range(9)]
HOLD = """
import sys
from pathlib import Path
from runlake.storage.trackers import Tracker
tracker = Tracker.take(Path(sys.argv[1]), "a")
print(tracker.address, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where trackers lie; afterwards nobody holds one."""
    yield tmp_path / "uploads"
    assert Tracker._held == {}


def begun(folder: Path, *marks: str, about: str = "a") -> Tracker:
    """Return a tracker of an upload with parts."""
    tracker = Tracker.take(folder, about)
    tracker.begin(ADDRESS)
    for mark in marks:
        tracker.add(mark)
    return tracker


def known(folder: Path, about: str = "a") -> tuple[str, list[str]]:
    """Return what the next process would know."""
    tracker = Tracker.take(folder, about)
    tracker.close()
    return tracker.address, tracker.marks


def test_a_tracker_that_was_closed_is_known_and_one_that_was_removed_is_not(folder: Path) -> None:
    begun(folder, *MARKS[:2]).close()
    assert known(folder) == (ADDRESS, MARKS[:2])
    assert known(folder, "b") == ("", [])
    Tracker.take(folder, "a").remove()
    assert known(folder) == ("", [])


def test_a_tracker_of_a_new_upload_forgets_the_one_before(folder: Path) -> None:
    begun(folder, *MARKS).close()
    begun(folder, MARKS[5]).close()
    assert known(folder) == (ADDRESS, [MARKS[5]])


def test_trackers_are_readable_by_their_user_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        begun(folder).close()
    finally:
        os.umask(before)
    (file,) = folder.iterdir()
    assert (file.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_folder_that_others_may_read_holds_no_tracker(folder: Path, tmp_path: Path) -> None:
    folder.mkdir(mode=0o755)
    begun(folder, *MARKS).close()
    folder.rmdir()
    (tmp_path / "mine").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "mine")
    begun(folder, *MARKS).close()
    assert list((tmp_path / "mine").iterdir()) == []
    folder.unlink()
    folder.write_bytes(b"no folder")
    tracker = begun(folder, *MARKS)
    assert (tracker.address, tracker.marks) == (ADDRESS, MARKS)  # for this process alone
    tracker.remove()


def test_a_second_tracker_of_the_same_upload_knows_nothing_and_harms_nothing(folder: Path) -> None:
    first = begun(folder, *MARKS[:1])
    second = begun(folder, *MARKS[4:])
    second.remove()
    first.add(MARKS[1])
    first.close()
    assert known(folder) == (ADDRESS, MARKS[:2])


def test_a_tracker_belongs_to_one_process_until_it_dies(folder: Path) -> None:
    begun(folder, *MARKS[:2]).close()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == ADDRESS
        assert known(folder) == ("", [])
        other.kill()
    assert known(folder) == (ADDRESS, MARKS[:2])


def test_a_tracker_that_its_holder_removed_meanwhile_is_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(folder, *MARKS).close()
    real = os.open

    def open_late(path: str, flags: int, mode: int = 0o777) -> int:
        fd = real(path, flags, mode)
        monkeypatch.setattr(os, "open", real)
        os.unlink(path)  # noqa: PTH108 - as the holder does
        return fd

    monkeypatch.setattr(os, "open", open_late)
    begun(folder, MARKS[3]).close()
    assert known(folder) == (ADDRESS, [MARKS[3]])


def test_a_tracker_that_the_store_has_forgotten_is_not_known_and_is_swept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(folder, *MARKS).close()
    begun(folder, *MARKS, about="b").close()
    (folder / "other").touch()
    for file in folder.iterdir():
        os.utime(file, (0, 0))
    now = clock.now_us()
    monkeypatch.setattr(clock, "now_us", lambda: now + (KEPT_S + 60) * 1_000_000)
    begun(folder, about="c").close()
    assert len(list(folder.iterdir())) == 2  # it, and what is no tracker
    begun(folder, *MARKS, about="d").close()
    monkeypatch.setattr(clock, "now_us", lambda: now + (2 * KEPT_S + 180) * 1_000_000)
    for file in folder.iterdir():  # written to of late, but begun long ago
        os.utime(file, (now / 1e6 + 2 * KEPT_S, now / 1e6 + 2 * KEPT_S))
    assert known(folder, "d") == ("", [])


@given(cut=st.integers(0, 700), junk=st.sampled_from([b"", b"\n", b"x\n", b"\xff\xfe", b"{}\n"]))
def test_a_tracker_that_was_cut_off_knows_less_and_is_written_on(cut: int, junk: bytes) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name) / "uploads"
        begun(folder, *MARKS).close()
        (file,) = folder.iterdir()
        file.write_bytes(file.read_bytes()[:cut] + junk)
        tracker = Tracker.take(folder, "a")
        address, marks = tracker.address, list(tracker.marks)
        assert address in {"", ADDRESS}
        assert marks == MARKS[: len(marks)]
        assert bool(address) or not marks
        if not address:
            tracker.begin(ADDRESS)
        tracker.add("f" * 64)
        tracker.close()
        assert known(folder) == (ADDRESS, [*marks, "f" * 64])


def test_a_tracker_on_a_full_disk_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = begun(folder, *MARKS[:2])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda _fd, data, _at: len(data) - 1)
        tracker.add(MARKS[2])
    tracker.add(MARKS[3])
    assert tracker.marks == MARKS[:4]
    tracker.close()
    assert known(folder) == ("", [])
