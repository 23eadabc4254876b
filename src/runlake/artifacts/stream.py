"""An artifact as an open file: read where one likes, without fetching the rest.

Whoever reads on gets more at once each time, up to 8 MiB ahead; whoever jumps gets little.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Final, final

from runlake.storage import flow

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from runlake.storage.filesystem import Filesystem

_LEAST_BYTES: Final = 128 << 10
_MOST_BYTES: Final = 8 << 20
_BUFFER_BYTES: Final = 64 << 10


def open_stream(fs: Filesystem, key: str, *, size: int) -> io.BufferedReader:
    """Open an object for reading.

    Args:
        fs: the storage.
        key: the object.
        size: its length in bytes.

    Returns:
        A seekable binary stream. At most twice 8 MiB of it are in memory, and what is asked
        for at once.
    """
    return io.BufferedReader(_Remote(fs, key, size), _BUFFER_BYTES)


@final
class _Remote(io.RawIOBase):
    """An object, read by ranges."""

    def __init__(self, fs: Filesystem, key: str, size: int) -> None:
        super().__init__()
        self._fs, self._key, self._size = fs, key, size
        self._at = 0
        self._held, self._held_at, self._ahead = b"", 0, _LEAST_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(max(0, self._size - self._at))

    def _read(self, count: int) -> bytes:
        """Return at most `count` bytes from here, fewer only at the end."""
        start, end = self._at, min(self._at + count, self._size)
        if start >= end:
            return b""
        held_end = self._held_at + len(self._held)
        if not (self._held_at <= start and end <= held_end):
            is_next = self._held_at < start <= held_end or start == held_end
            self._ahead = min(2 * self._ahead, _MOST_BYTES) if is_next else _LEAST_BYTES
            known = self._held[start - self._held_at :] if is_next else b""
            begin = start + len(known)
            self._at = end
            if end - start > _MOST_BYTES:  # too much to be kept
                self._held, self._held_at = b"", end
                return known + flow.fetch(self._fs, self._key, start=begin, end=end)
            reach = min(max(end, begin + self._ahead), self._size)
            more = flow.fetch(self._fs, self._key, start=begin, end=reach)
            self._held, self._held_at = known + more, start
        data = self._held[start - self._held_at : end - self._held_at]
        self._at = end
        return data
