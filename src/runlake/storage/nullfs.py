"""A filesystem that keeps nothing, for `RUNLAKE_MODE=disabled`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runlake import clock
from runlake.errors import StorageError
from runlake.storage.filesystem import Chunks, Entries, Filesystem, Range, missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from runlake.storage.source import Watch


class NullFilesystem(Filesystem):
    """Takes every write, holds nothing, makes no request."""

    is_local = False
    conditional_create = True

    def __init__(self, url: str) -> None:
        """Keep the URL that the user gave, for messages."""
        self.url = url

    def local_file(self, key: str) -> Path:
        """Raise: there are no files."""
        raise StorageError(f"{self.url}/{key} is not kept: RUNLAKE_MODE is disabled", url=self.url)

    def list(self, prefix: str) -> Entries:
        """Return nothing."""
        return []

    def get(self, key: str) -> bytes:
        """Raise: there is nothing."""
        raise missing(self.url, key)

    def get_ranges(self, ranges: Sequence[Range]) -> Chunks:
        """Raise if anything is asked for."""
        if ranges:
            raise missing(self.url, ranges[0].key)
        return []

    def put(self, key: str, data: bytes) -> None:
        """Forget it."""

    def put_absent(self, key: str, data: bytes) -> bool:
        """Say that it is there."""
        return True

    def upload(self, key: str, file: Path, *, watch: Watch | None = None) -> None:
        """Forget it."""

    def download(self, key: str, file: Path) -> None:
        """Raise: there is nothing."""
        raise missing(self.url, key)

    def copy(self, source: str, target: str) -> None:
        """Raise: there is nothing."""
        raise missing(self.url, source)

    def delete_many(self, keys: Iterable[str]) -> None:
        """There is nothing to delete."""

    def now_us(self) -> int:
        """Return this host's clock."""
        return clock.now_us()

    def probe(self) -> bool:
        """Say yes: nothing can collide."""
        return True
