"""A local file on its way into a local lake, copied by the kernel where it does that."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake.errors import StorageError
from runlake.storage import localcopy
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.source import FileChangedError, Source, Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runlake.storage.source import Data

SIZE = 9 << 20
KEY = "artifacts/0/r/big.bin"

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel copies on Linux only")


@pytest.fixture
def big(tmp_path: Path) -> Path:
    return written(tmp_path / "big.bin", SIZE)


def written(file: Path, size: int) -> Path:
    file.write_bytes(random.Random(size).randbytes(size))  # noqa: S311 - repeatable
    return file


def refusing(code: int, *, after: int) -> Callable[[int, int, int, int], int]:
    """Return a `sendfile` that fails after so many calls."""
    send, left = os.sendfile, [after]

    def sendfile(target: int, source: int, start: int, count: int) -> int:
        if not left[0]:
            raise OSError(code, os.strerror(code))
        left[0] -= 1
        return send(target, source, start, count)

    return sendfile


@linux
@settings(max_examples=50, deadline=None)
@given(size=st.integers(0, 300), sent=st.integers(1, 90), read=st.integers(1, 90))
def test_what_the_kernel_copies_is_hashed_whole_and_in_order(
    size: int, sent: int, read: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    file, target = written(folder / "from", size), folder / "to"
    steps: list[int] = []
    watch = Watch(steps.append)
    with pytest.MonkeyPatch.context() as patch, target.open("wb") as opened:
        patch.setattr(localcopy, "_SENT_BYTES", sent)
        patch.setattr(localcopy, "_READ_BYTES", read)
        patch.setattr(localcopy, "_BEGIN_BYTES", 50)
        with Source(file, watch) as source:
            localcopy.copy(source, str(target), opened.fileno())
    assert target.read_bytes() == file.read_bytes()
    assert (watch.size_bytes, sum(steps)) == (size, size)
    assert watch.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@linux
def test_where_the_kernel_does_not_copy_each_piece_is_read_and_written(
    tmp_path: Path, big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sendfile", refusing(errno.EINVAL, after=0))
    fs, watch = LocalFilesystem(tmp_path / "lake"), Watch()
    fs.upload(KEY, big, watch=watch)
    assert fs.get(KEY) == big.read_bytes()
    assert (watch.size_bytes, watch.sha256) == (SIZE, hashlib.sha256(fs.get(KEY)).hexdigest())


@linux
def test_a_disk_that_is_full_in_the_middle_leaves_nothing(
    tmp_path: Path, big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sendfile", refusing(errno.ENOSPC, after=1))
    fs = LocalFilesystem(tmp_path / "lake")
    with pytest.raises(StorageError, match="No space left"):
        fs.upload(KEY, big)
    assert fs.list("") == []
    assert fs.leftovers() == []


@linux
def test_a_file_that_shrinks_while_the_kernel_copies_it_is_noticed(
    tmp_path: Path, big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = os.sendfile

    def shrinking(target: int, source: int, start: int, count: int) -> int:
        os.truncate(big, start + 1000)
        return send(target, source, start, count)

    monkeypatch.setattr(os, "sendfile", shrinking)
    fs = LocalFilesystem(tmp_path / "lake")
    with pytest.raises(FileChangedError, match="written to while it was uploaded"):
        fs.upload(KEY, big)
    assert fs.list("") == []


@linux
def test_the_digest_is_of_what_was_written(tmp_path: Path, big: Path) -> None:
    class Meddler(Watch):
        """Changes the file in place when some of it is hashed, and sets its time back."""

        def read(self, data: Data) -> None:
            if not self.size_bytes:
                facts = big.stat()
                with big.open("r+b") as file:
                    file.write(b"other")
                    file.seek(-5, 2)
                    file.write(b"other")
                os.utime(big, ns=(facts.st_atime_ns, facts.st_mtime_ns))
            super().read(data)

    fs, watch = LocalFilesystem(tmp_path / "lake"), Meddler()
    fs.upload(KEY, big, watch=watch)
    assert watch.sha256 == hashlib.sha256(fs.get(KEY)).hexdigest()
