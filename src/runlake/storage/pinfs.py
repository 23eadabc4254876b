"""A lake of which the objects of one snapshot are kept, although their writers replace them.

An open writer deletes what it has replaced after a minute, and joins its small segments when
it closes; only what vacuum takes has a grace. So the objects of a snapshot that is to last get
a second name in the local cache: a hard link, which costs neither time nor room, or a copy
where there can be no link. The names go when nobody asks any more, at the latest with the
process; what a killed process left goes with the next one that keeps something.

The folder keeps the layout of the lake, so that it is itself read as one.
"""

from __future__ import annotations

import os
import shutil
import socket
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, final

from runlake import clock, ids
from runlake.errors import StateError, StorageError
from runlake.storage.filesystem import Chunks, Entries, Filesystem, Range
from runlake.storage.localfs import LocalFilesystem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from runlake.storage.cache import Cache
    from runlake.storage.rowobject import RowObject
    from runlake.storage.source import Watch

# A writer replaces its tail and, when it closes, sealed segments below this; a tail is sealed
# before it is so large (docs/spec/v1.md, "Close and merge"). Compaction replaces the others.
_REPLACED_BYTES: Final = 512 << 10
# Fetched at once, and held in memory meanwhile.
_GATHER: Final = 256
# Of other hosts nobody here can tell whether they still ask.
_FOREIGN_S: Final = 30 * 24 * 3600.0


@final
class PinnedFilesystem(Filesystem):
    """Another filesystem, with objects that stay; it takes no writes.

    Attributes:
        folder: where the objects lie that stay.
    """

    def __init__(self, inner: Filesystem, folder: Path) -> None:
        """Keep nothing yet.

        Args:
            inner: the lake's storage.
            folder: a new folder, which `close` deletes.
        """
        self.inner: Filesystem = inner.inner if isinstance(inner, PinnedFilesystem) else inner
        self.url = inner.url
        self.is_local = inner.is_local
        self.conditional_create = inner.conditional_create
        self.folder = folder
        self._own = LocalFilesystem(folder)
        self._kept: set[str] = set()
        self._free = weakref.finalize(self, _free, str(folder), os.getpid())

    def close(self) -> None:
        """Let the objects go that only stayed for this."""
        self._kept.clear()
        self._free()

    def kept(self, key: str) -> Path | None:
        """Return the file of an object that stays; None if it does not."""
        return self._own.local_file(key) if key in self._kept else None

    def keep(self, key: str, file: Path, *, or_copy: bool = True) -> bool:
        """Let an object stay.

        Args:
            key: the object.
            file: a file that holds it and will not change.
            or_copy: copy it where there can be no link.

        Returns:
            Whether it stays.

        Raises:
            FileNotFoundError: the file is gone.
            OSError: the folder cannot be written.
        """
        target = self._own.local_file(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, target)
        except FileExistsError:
            pass
        except FileNotFoundError:
            raise
        except OSError:  # another disk, or one without links
            if not or_copy:
                return False
            shutil.copyfile(file, target)
        self._kept.add(key)
        return True

    def put_kept(self, key: str, data: bytes) -> None:
        """Let an object stay whose bytes are at hand."""
        target = self._own.local_file(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        self._kept.add(key)

    def local_file(self, key: str) -> Path:
        """Return the file that holds an object, the kept one where there is one."""
        return self.kept(key) or self.inner.local_file(key)

    def list(self, prefix: str) -> Entries:
        """Return what is there now."""
        return self.inner.list(prefix)

    def get(self, key: str) -> bytes:
        """Return a whole object; `FileNotFoundError` if it is not there."""
        return self._place(key).get(key)

    def get_ranges(self, ranges: Sequence[Range]) -> Chunks:
        """Return the bytes of many ranges, in their order; only what is not kept is fetched."""
        far = [wanted for wanted in ranges if wanted.key not in self._kept]
        fetched = iter(self.inner.get_ranges(far) if far else [])
        return [
            self._own.get_ranges([wanted])[0] if wanted.key in self._kept else next(fetched)
            for wanted in ranges
        ]

    def download(self, key: str, file: Path) -> None:
        """Copy an object to a local file, which appears whole."""
        self._place(key).download(key, file)

    def now_us(self) -> int:
        """Return the store's clock."""
        return self.inner.now_us()

    def put(self, key: str, data: bytes) -> None:  # noqa: ARG002 - refused
        """Refuse."""
        self._refuse()

    def put_absent(self, key: str, data: bytes) -> bool:  # noqa: ARG002 - refused
        """Refuse."""
        self._refuse()

    def upload(self, key: str, file: Path, *, watch: Watch | None = None) -> None:  # noqa: ARG002 - so
        """Refuse."""
        self._refuse()

    def copy(self, source: str, target: str) -> None:  # noqa: ARG002 - refused
        """Refuse."""
        self._refuse()

    def delete_many(self, keys: Iterable[str]) -> None:  # noqa: ARG002 - refused
        """Refuse."""
        self._refuse()

    def probe(self) -> bool:
        """Refuse."""
        self._refuse()

    def _place(self, key: str) -> Filesystem:
        return self._own if key in self._kept else self.inner

    def _refuse(self) -> NoReturn:
        raise StateError(f"a snapshot of {self.url} takes no writes.", url=self.url)


def pin(
    fs: Filesystem, wanted: Sequence[RowObject], *, cache: Cache | None, root: Path
) -> PinnedFilesystem:
    """Let the objects of a snapshot stay, those at least that their writers may replace.

    Of a local lake all stay that can be linked; of a far one also those that the cache holds.
    Requests of a far lake: one GET for each segment that a writer may replace and that the
    cache does not hold whole (a search has fetched those up to 256 KiB).

    Args:
        fs: the lake's storage, or one that keeps them already.
        wanted: the objects.
        cache: where far objects are; None for a local lake.
        root: folder for the folders of all that is kept.

    Returns:
        The lake's storage, in which they stay until it is closed or forgotten.

    Raises:
        FileNotFoundError: an object is gone already.
        StorageError: the store cannot be read, or the folder cannot be written.
    """
    _sweep(root)
    name = f"{socket.gethostname()}-{os.getpid()}-{ids.new_nonce()}"
    pinned = PinnedFilesystem(fs, root / name)
    try:
        _keep_all(pinned, fs, wanted, cache)
    except FileNotFoundError:
        pinned.close()
        raise
    except OSError as error:
        pinned.close()
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"the snapshot of {fs.url} cannot be kept in {root}: {error}. Name another folder: "
            "RUNLAKE_CACHE=…",
            url=fs.url,
        ) from error
    return pinned


def _keep_all(
    pinned: PinnedFilesystem, fs: Filesystem, wanted: Sequence[RowObject], cache: Cache | None
) -> None:
    missing = []
    for of in wanted:
        may_go = of.is_replaceable and of.size_bytes < _REPLACED_BYTES
        file = _file_of(fs, of, cache)
        try:
            is_kept = file is not None and pinned.keep(of.key, file, or_copy=may_go)
        except FileNotFoundError:
            if cache is None:
                raise
            is_kept = False  # the cache has dropped it just now
        if may_go and not is_kept:
            missing.append(Range(of.key, 0, of.size_bytes))
    for start in range(0, len(missing), _GATHER):
        batch = missing[start : start + _GATHER]
        for part, data in zip(batch, fs.get_ranges(batch), strict=True):
            pinned.put_kept(part.key, data)


def _file_of(fs: Filesystem, of: RowObject, cache: Cache | None) -> Path | None:
    """Return a local file with an object; None if there is none."""
    if isinstance(fs, PinnedFilesystem) and (file := fs.kept(of.key)) is not None:
        return file
    return fs.local_file(of.key) if cache is None else cache.file(of.key, of.size_bytes)


def _sweep(root: Path) -> None:
    """Delete what processes left that were killed."""
    host = socket.gethostname()
    with suppress(OSError), os.scandir(root) as items:
        for item in items:
            owner, _, pid = item.name.rpartition("-")[0].rpartition("-")
            if not pid.isdecimal():
                continue
            with suppress(OSError):
                age_s = clock.now_us() / 1e6 - item.stat().st_mtime
                if age_s > _FOREIGN_S if owner != host else not _is_alive(int(pid)):
                    shutil.rmtree(item.path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _free(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked child inherits its parent's finalizers
        shutil.rmtree(folder, ignore_errors=True)
