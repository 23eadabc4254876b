"""The local cache of a far lake's immutable objects, shared by all processes of a user.

An object never changes under its name, so an entry is right for ever or not there. Entries
appear by a rename, are checked when they are read, and are dropped when they do not hold what
they should: a file that a crash cut short is never trusted. Anything may be deleted at any
time. Where the disk is full or no right is given, nothing is kept and nothing raises but
`filling`.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import zlib
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from runlake import clock, ids
from runlake.settings import cache_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.settings import Settings

_MAGIC: Final = b"PAR1"
_CHECKSUM_BYTES: Final = 4
_TEMPORARY: Final = ".tmp-"
# An entry's time is renewed when it is older than the first, and kept at least for the second,
# so that what a running query reads is not taken away; the first must be less.
_RENEW_S: Final = 300
_KEEP_S: Final = 900
# A full look through the cache comes about once for each sixteenth of the limit written, over
# all processes together; down to nine tenths, so that it is not due again at once.
_LOOKS: Final = 16
_LEAVE: Final = 0.9


@final
class Cache:
    """The cached objects of one lake.

    Attributes:
        folder: where they lie.
    """

    def __init__(self, root: Path, *, lake: str, limit_bytes: int) -> None:
        """Name the folder; it is made by the first entry.

        Args:
            root: folder of the caches of all lakes.
            lake: the lake's id, or another text that stands for it alone.
            limit_bytes: size over all lakes at which the entries not used for longest go.
        """
        self._root = root
        self.folder = root / lake
        self._limit_bytes = limit_bytes

    def file(self, key: str, size_bytes: int) -> Path | None:
        """Return the local copy of a whole object; None if there is none that can be trusted.

        Args:
            key: the object.
            size_bytes: its length, as listed.
        """
        file = self._file(key)
        try:
            with file.open("rb") as opened:
                is_whole = _is_whole(opened.fileno(), size_bytes)
        except OSError:
            return None
        if not is_whole:
            self.drop(key)
            return None
        _renew(file)
        return file

    def read(self, key: str, size_bytes: int) -> bytes | None:
        """Return a whole object; None if there is no copy that can be trusted."""
        file = self._file(key)
        try:
            data = file.read_bytes()
        except OSError:
            return None
        if len(data) != size_bytes or not data.startswith(_MAGIC) or not data.endswith(_MAGIC):
            self.drop(key)
            return None
        _renew(file)
        return data

    def read_tail(self, key: str) -> bytes | None:
        """Return the last bytes of an object, as `put_tail` got them; None if not there."""
        file = self._tail_file(key)
        try:
            stored = file.read_bytes()
        except OSError:
            return None
        checksum, data = stored[:_CHECKSUM_BYTES], stored[_CHECKSUM_BYTES:]
        if checksum != _checksum(data):
            self.drop(key)
            return None
        _renew(file)
        return data

    def put(self, key: str, data: bytes) -> Path | None:
        """Keep a whole object; return its local copy, None if it cannot be kept."""
        file = self._file(key)
        return file if self._write(file, data) else None

    def put_tail(self, key: str, data: bytes) -> None:
        """Keep the last bytes of an object."""
        self._write(self._tail_file(key), _checksum(data) + data)

    @contextmanager
    def filling(self, key: str) -> Iterator[Path]:
        """Lend a file to download a whole object into; it is kept if the block ends well.

        Raises:
            OSError: the cache cannot be written.
        """
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(_TEMPORARY + ids.new_nonce())
        try:
            yield temporary
            size = temporary.stat().st_size
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        self._look(size)

    def drop(self, key: str) -> None:
        """Forget an object and its tail."""
        for file in (self._file(key), self._tail_file(key)):
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def trim(self) -> None:
        """Delete what was not used for longest until the cache is below its limit.

        What was used within the last minutes stays, even if the limit is passed by it.
        """
        now_s = clock.now_us() / 1_000_000
        found = sorted(_walk(self._root))
        excess = sum(size for _, size, _ in found)
        if excess <= self._limit_bytes:
            return
        excess -= int(self._limit_bytes * _LEAVE)
        for used_s, size, path in found:
            if excess <= 0 or now_s - used_s < _KEEP_S:
                return
            with suppress(OSError):
                Path(path).unlink()
                excess -= size

    def _file(self, key: str) -> Path:
        return self.folder / (name := ids.name_hash(key))[0] / f"{name}.parquet"

    def _tail_file(self, key: str) -> Path:
        return self._file(key).with_suffix(".tail")

    def _write(self, file: Path, data: bytes) -> bool:
        """Let a file appear whole; False if that cannot be."""
        temporary = file.with_name(_TEMPORARY + ids.new_nonce())
        try:
            try:
                temporary.write_bytes(data)
            except FileNotFoundError:
                file.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(data)
            temporary.replace(file)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            return False
        self._look(len(data))
        return True

    def _look(self, written_bytes: int) -> None:
        """Trim with a chance that grows with what was written; no process need keep count."""
        if ids.jitter() * self._limit_bytes < written_bytes * _LOOKS:
            self.trim()


def open_cache(settings: Settings, *, lake: str, in_memory: bool) -> Cache:
    """Return the cache of a far lake.

    Args:
        settings: where it lies and how large it may grow.
        lake: the lake's id.
        in_memory: the lake ends with this process, and so does its cache.
    """
    root = _process_folder(os.getpid()) if in_memory else cache_root(settings)
    return Cache(root, lake=lake, limit_bytes=settings.cache_limit_bytes)


@cache
def _process_folder(pid: int) -> Path:
    """Make a folder that this process deletes when it ends; a forked child makes its own."""
    folder = tempfile.mkdtemp(prefix="runlake-")
    atexit.register(_delete_folder, folder, pid)
    return Path(folder)


def _delete_folder(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked child inherits its parent's exit handlers
        shutil.rmtree(folder, ignore_errors=True)


def _is_whole(handle: int, size_bytes: int) -> bool:
    """Tell whether an open file has the length and both ends of a whole Parquet file."""
    if os.fstat(handle).st_size != size_bytes:
        return False
    ends = os.pread(handle, len(_MAGIC), 0), os.pread(handle, len(_MAGIC), size_bytes - len(_MAGIC))
    return ends == (_MAGIC, _MAGIC)


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "big")


def _renew(file: Path) -> None:
    """Note that an entry is used; not on every reading, because a note is a write."""
    with suppress(OSError):
        if clock.now_us() / 1_000_000 - file.stat().st_mtime > _RENEW_S:
            os.utime(file)


def _walk(folder: Path) -> Iterator[tuple[float, int, str]]:
    """Give time of last use in seconds, size in bytes, and path of every file below."""
    pending = [str(folder)]
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as items:
            for item in items:
                if item.is_dir(follow_symlinks=False):
                    pending.append(item.path)
                    continue
                with suppress(FileNotFoundError):
                    facts = item.stat(follow_symlinks=False)
                    yield facts.st_mtime, facts.st_size, item.path
