"""One page of a journal: a file of records.

A page is in memory, and has its file open, only while it is written. Behind that a backlog
costs disk and nothing else: neither memory nor file descriptors, however long an outage is.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

PAGE_BYTES: Final = 1 << 20


class Page:
    """A page, made empty.

    Attributes:
        buffer: where records are packed; None while it rests on the disk.
        fd: its file where records are written through instead of mapped, or may be synced;
            -1 where none is open.
    """

    __slots__ = ("_is_synced", "_path", "buffer", "fd")

    def __init__(
        self, buffer: mmap.mmap | bytearray, fd: int = -1, path: Path | None = None
    ) -> None:
        """Take what `create` made, or what recovery has read."""
        self.buffer: mmap.mmap | bytearray | None = buffer
        self.fd = fd
        self._path = path
        self._is_synced = False

    @classmethod
    def create(cls, path: Path | None, *, mapped: bool) -> Page:
        """Make an empty page.

        Args:
            path: its file, which must not be there; None keeps it in memory only.
            mapped: the buffer is a map of the file; else callers write through `fd`.

        Returns:
            The page, all zeros.

        Raises:
            OSError: the disk refuses.
        """
        if path is None:
            return cls(bytearray(PAGE_BYTES))
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if not mapped:
                return cls(bytearray(PAGE_BYTES), fd, path)
            # Allocated for real: a hole would be SIGBUS in the training when the disk is full.
            os.posix_fallocate(fd, 0, PAGE_BYTES)
            return cls(mmap.mmap(fd, PAGE_BYTES), fd, path)
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise

    def rest(self) -> None:
        """Leave memory; the file has everything. A page without a file stays as it is."""
        if self._path is not None:
            self._let_go()

    def read(self, start: int, end: int) -> memoryview:
        """Return some of its bytes.

        Raises:
            OSError: it rests, and the disk refuses.
        """
        buffer = self.buffer
        if buffer is not None:
            return memoryview(buffer)[start:end]
        assert self._path is not None
        with self._path.open("rb") as file:
            file.seek(start)
            return memoryview(file.read(end - start))

    def sync(self) -> None:
        """Force a resting page to the disk, once."""
        if self.buffer is not None or self._is_synced or self._path is None:
            return
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            os.fdatasync(file.fileno())
            self._is_synced = True

    def drop(self, *, delete: bool) -> None:
        """Let go of everything, and delete the file if so told."""
        self._let_go()
        if delete and self._path is not None:
            self._path.unlink(missing_ok=True)

    def _let_go(self) -> None:
        if isinstance(self.buffer, mmap.mmap):
            # Where a reader still holds a view, the map goes when the view does.
            with contextlib.suppress(BufferError):
                self.buffer.close()
        self.buffer = None
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
