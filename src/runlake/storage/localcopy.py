"""A local file into a new one beside it, hashed on the way, with the disk at work all the while.

On Linux the kernel copies (`sendfile`, as `shutil.copyfile` does), and what it has written is
read back and hashed behind it: so the digest is of the bytes that are there, and one core copies
while the other hashes. Elsewhere each piece is read, written and hashed. Where the digest may come
later (`later.py`), the file is copied and no more.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runlake.storage.source import Hasher, fill

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase

    from runlake.storage.source import Data, Source

_SYNC_FILE_RANGE_WRITE: Final = 2
_BEGIN_BYTES: Final = 8 << 20
# The kernel copies so much at once; far more than what fits into a core's own memory is slower.
_SENT_BYTES: Final = 4 << 20
_READ_BYTES: Final = 512 << 10


class _NotSentError(Exception):
    """The kernel does not copy here; nothing is written."""


def copy(source: Source, file: str, handle: int) -> None:
    """Write all of a file to a new one; the disk begins with the first bytes meanwhile.

    Args:
        source: at its beginning; its watch is told of all bytes, its digest is of what is written.
        file: the new file, still empty.
        handle: of it, open for writing.

    Raises:
        FileChangedError: the source was written to meanwhile.
        OSError: it could not be read or written.
    """
    sync = _Sync(handle)
    if source.size_bytes <= _SENT_BYTES:
        _pass_on(source, handle, sync)
    else:
        try:
            _let_copy(source, file, handle, sync)
        except _NotSentError:
            _pass_on(source, handle, sync)
    source.finish()


def copy_only(source: Source, handle: int) -> None:
    """Write all of a file to a new one; nothing is hashed, and nothing waits for the disk.

    Args:
        source: at its beginning; its watch is told what has arrived, and has no digest.
        handle: of the new file, open for writing.

    Raises:
        FileChangedError: the source was written to meanwhile.
        OSError: it could not be read or written.
    """
    try:
        for piece in _sent(source, handle):
            source.watch.arrived(len(piece))
    except _NotSentError:
        memory, left = memoryview(bytearray(_READ_BYTES)), source.size_bytes
        while left:
            part = memory[:left]
            source.take_into(part)
            _write(handle, part)
            left -= len(part)
            source.watch.arrived(len(part))
    source.finish()


def _sent(source: Source, handle: int) -> Iterator[range]:
    """Let the kernel copy; yield which bytes are written, again and again."""
    if sys.platform != "linux":
        raise _NotSentError
    at = 0
    while at < source.size_bytes:
        try:
            count = source.send(handle, at, min(_SENT_BYTES, source.size_bytes - at))
        except OSError as error:
            if at:
                raise
            raise _NotSentError from error  # a disk of a kind that it does not copy from or to
        yield range(at, at + count)
        at += count


def _let_copy(source: Source, file: str, handle: int, sync: _Sync) -> None:
    """Let the kernel copy, and hash behind it what it has written."""
    with Path(file).open("rb", buffering=0) as written, Hasher(_Behind(source, written)) as hasher:
        for piece in _sent(source, handle):
            hasher.feed(piece)
            sync.written(piece.stop)
            source.watch.arrived(len(piece))
        hasher.settle()


def _pass_on(source: Source, handle: int, sync: _Sync) -> None:
    """Read and write piece by piece."""
    at = 0
    for data in source.chunks():
        _write(handle, data)
        at += len(data)
        sync.written(at)
        source.watch.arrived(len(data))


def _write(handle: int, data: Data) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


class _Behind:
    """Hashes what is written, in order."""

    def __init__(self, source: Source, written: RawIOBase) -> None:
        self._source, self._written = source, written
        # Fresh memory for every piece would cost as much time as reading it.
        self._memory = memoryview(bytearray(_READ_BYTES))

    def __call__(self, piece: range) -> None:
        for at in range(piece.start, piece.stop, _READ_BYTES):
            memory = self._memory[: piece.stop - at]
            if not fill(self._written, memory):
                raise OSError(errno.EIO, "bytes that were just written are not there")
            self._source.watch.read(memory)


class _Sync:
    """Lets the system bring bytes to the disk early, where it can; nothing is waited for."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._begun = 0

    def written(self, size_bytes: int) -> None:
        """Hear how much is written."""
        count = size_bytes - self._begun
        if count < _BEGIN_BYTES:
            return
        with suppress(OSError, AttributeError):
            begin = ctypes.CDLL(None).sync_file_range
            start = ctypes.c_int64(self._begun)
            begin(self._handle, start, ctypes.c_int64(count), _SYNC_FILE_RANGE_WRITE)
        self._begun = size_bytes
