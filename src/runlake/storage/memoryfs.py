"""fsspec's memory filesystem as storage: for tests and for lakes that end with the process.

The objects lie in fsspec's own process-wide store, where `fsspec.filesystem("memory")` sees
them too. fsspec's verbs are not atomic, so this module works on that store under one lock.
"""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, final

from runlake import clock, ids
from runlake._lazy import lazy
from runlake.errors import StorageError
from runlake.storage import layout
from runlake.storage.filesystem import (
    TEMPORARY,
    Chunks,
    Entries,
    Entry,
    Filesystem,
    Range,
    check_data,
    check_key,
    check_prefix,
    failed,
    missing,
)
from runlake.storage.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import Any

    import fsspec.implementations.memory as fsspec_memory

    from runlake.storage.source import Watch
else:
    fsspec_memory = lazy("fsspec.implementations.memory")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_lock = threading.Lock()


def _renew_lock() -> None:
    """Give a forked child its own lock: a thread that is gone may have held the old one."""
    global _lock  # noqa: PLW0603 - replaced once, in a child that has one thread
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


@final
class MemoryFilesystem(Filesystem):
    """A lake in the memory of this process."""

    def __init__(self, root: str) -> None:
        """Keep the root.

        Args:
            root: a path without slashes at its ends; it may be empty.
        """
        self.url = f"memory://{root}"
        self.is_local = False
        self.conditional_create: bool | None = None
        self._root = f"/{root}/" if root else "/"

    def local_file(self, key: str) -> Path:
        """Raise: an object in memory is no file."""
        message = f"{self.url}/{key} is in memory, not in a local file."
        raise StorageError(message, url=self.url)

    def list(self, prefix: str) -> Entries:
        """Return all objects whose key starts with `prefix`, sorted by key."""
        start, skip = self._root + check_prefix(prefix), len(self._root)
        with _lock:
            store = _objects()
            found = [
                Entry(path[skip:], store[path].getbuffer().nbytes, _time_us(store[path]))
                for path in store
                if path.startswith(start)
            ]
        return sorted(found, key=lambda entry: entry.key)

    def get(self, key: str) -> bytes:
        """Return a whole object; `FileNotFoundError` if it is not there."""
        with _lock:
            return self._bytes(key)

    def get_ranges(self, ranges: Sequence[Range]) -> Chunks:
        """Return the bytes of many ranges, in their order."""
        with _lock:
            return [self._bytes(key)[start:end] for key, start, end in ranges]

    def put(self, key: str, data: bytes) -> None:
        """Write an object; replace what is there."""
        with _lock:
            self._store(key, check_data(key, data))

    def put_absent(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none; True if it then holds exactly `data`."""
        check_data(key, data)
        with _lock:
            if self._path(key) not in _objects():
                self._store(key, data)
            return self._bytes(key) == data

    def upload(self, key: str, file: Path, *, watch: Watch | None = None) -> None:
        """Read a local file into a key; it may be empty."""
        try:
            with Source(file, watch) as source:
                data = source.read(source.size_bytes)
                source.finish()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise failed("upload to", error, url=self.url, key=key) from error
        with _lock:
            self._store(key, data)
        if watch is not None:
            watch.arrived(len(data))

    def download(self, key: str, file: Path) -> None:
        """Write an object to a local file, which appears whole."""
        data = self.get(key)
        temporary = file.with_name(TEMPORARY + ids.new_nonce())
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(file)
        except OSError as error:
            raise failed("download", error, url=self.url, key=key) from error

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the lake; `FileNotFoundError` if the source is not there."""
        with _lock:
            self._store(target, self._bytes(source))

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are fine."""
        paths = [self._path(key) for key in keys]
        with _lock:
            for path in paths:
                _objects().pop(path, None)

    def now_us(self) -> int:
        """Return this process's clock, which also stamps the objects."""
        return clock.now_us()

    def probe(self) -> bool:
        """Create a fresh key twice, and remember whether the second was refused."""
        key = layout.probe(ids.new_nonce())
        self.conditional_create = self.put_absent(key, b"1") and not self.put_absent(key, b"2")
        self.delete_many([key])
        return self.conditional_create

    def _path(self, key: str) -> str:
        return self._root + check_key(key)

    def _bytes(self, key: str) -> bytes:
        try:
            data: bytes = _objects()[self._path(key)].getvalue()
        except KeyError as error:
            raise missing(self.url, key) from error
        return data

    def _store(self, key: str, data: bytes) -> None:
        path, filesystem = self._path(key), fsspec_memory.MemoryFileSystem()
        written = fsspec_memory.MemoryFile(filesystem, path, data)
        written.modified = _EPOCH + timedelta(microseconds=clock.now_us())
        _objects()[path] = written


def _objects() -> dict[str, Any]:
    """Return fsspec's process-wide store, path to file."""
    store: dict[str, Any] = fsspec_memory.MemoryFileSystem.store
    return store


def _time_us(file: Any) -> int:  # noqa: ANN401 - fsspec has no types
    return int((file.modified - _EPOCH) / timedelta(microseconds=1))
