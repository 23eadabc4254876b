"""A lake's storage for work that may have to end at any moment.

Upkeep can be ended at any instant without harm, so nothing has to be undone: the next request
after it was told to stop is not made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from runlake.storage.filesystem import Chunks, Entries, Filesystem, Leftovers, Range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from runlake.storage.filesystem import Leftover
    from runlake.storage.source import Watch


@final
class Stopped(BaseException):
    """Work was told to end; no `except Exception` on the way takes it for a failure."""


@final
class StoppableFilesystem(Filesystem):
    """Passes everything on, until it is told to stop."""

    def __init__(
        self, inner: Filesystem, *, asking: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Wrap a filesystem.

        Args:
            inner: the lake's.
            asking: around each request; it raises `Stopped` if none is to be made.
        """
        self.url, self.is_local = inner.url, inner.is_local
        self.conditional_create = inner.conditional_create
        self._inner, self._asking = inner, asking

    def local_file(self, key: str) -> Path:
        """As inside; no request."""
        return self._inner.local_file(key)

    def list(self, prefix: str) -> Entries:
        """As inside."""
        with self._asking():
            return self._inner.list(prefix)

    def get(self, key: str) -> bytes:
        """As inside."""
        with self._asking():
            return self._inner.get(key)

    def get_ranges(self, ranges: Sequence[Range]) -> Chunks:
        """As inside."""
        with self._asking():
            return self._inner.get_ranges(ranges)

    def put(self, key: str, data: bytes) -> None:
        """As inside."""
        with self._asking():
            self._inner.put(key, data)

    def put_absent(self, key: str, data: bytes) -> bool:
        """As inside."""
        with self._asking():
            return self._inner.put_absent(key, data)

    def upload(self, key: str, file: Path, *, watch: Watch | None = None) -> None:
        """As inside."""
        with self._asking():
            self._inner.upload(key, file, watch=watch)

    def download(self, key: str, file: Path) -> None:
        """As inside."""
        with self._asking():
            self._inner.download(key, file)

    def copy(self, source: str, target: str) -> None:
        """As inside."""
        with self._asking():
            self._inner.copy(source, target)

    def delete_many(self, keys: Iterable[str]) -> None:
        """As inside."""
        with self._asking():
            self._inner.delete_many(keys)

    def leftovers(self) -> Leftovers:
        """As inside."""
        with self._asking():
            return self._inner.leftovers()

    def sweep(self, leftovers: Iterable[Leftover]) -> None:
        """As inside."""
        with self._asking():
            self._inner.sweep(leftovers)

    def now_us(self) -> int:
        """As inside."""
        with self._asking():
            return self._inner.now_us()

    def probe(self) -> bool:
        """As inside."""
        with self._asking():
            self.conditional_create = self._inner.probe()
        return self.conditional_create
