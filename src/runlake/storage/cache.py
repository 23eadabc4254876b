"""The local cache of a far lake's immutable objects, shared by all processes of a user.

An object never changes under its name, so an entry is right for ever or not there. There are
three kinds: *whole* objects, as plain files that DuckDB opens; *tails*, the last bytes of an
object; and *parts*, a range of its bytes. Entries appear by a rename. Every byte is checked
against a checksum before it is used, of a whole object once in each process; what does not
hold what it should is dropped and counts as not there, so neither a crash nor a failing disk
ever gives a wrong answer. A part and a tail begin with their checksum. A whole object's stands
in a second name of its file, a hard link: that costs a tenth of a second file.

The size is bounded: a process looks through the cache after each sixteenth of the limit that
it wrote, and what was not used for longest goes. Any number of processes may fill and trim at
once, and anything may be deleted at any time. Where the disk is full or no right is given,
nothing is kept, and nothing raises.
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
from typing import TYPE_CHECKING, BinaryIO, Final, final

from runlake import clock, ids
from runlake.settings import cache_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.settings import Settings

PINS: Final = "pins"
"""Beside the caches of the lakes: objects that must stay, see `runlake.storage.pinfs`."""
_CHECKSUM_BYTES: Final = 4
_TEMPORARY: Final = ".tmp-"
_SUM: Final = ".sum"
# An entry's time is renewed when it is older than the first; a file is kept at least for the
# second, so that what a running query reads is not taken away; the first must be less.
_RENEW_S: Final = 300
_KEEP_S: Final = 900
# Down to nine tenths, so that it is not due again at once.
_LOOKS: Final = 16
_LEAVE: Final = 0.9
_CHUNK_BYTES: Final = 1 << 20


@final
class Filling:
    """A whole object on its way into the cache, written from its beginning.

    Attributes:
        path: the local copy, once it is there; None if it could not be kept.
    """

    def __init__(self, file: Path) -> None:
        """Open a file beside `file`, which gets its name at the end."""
        self.path: Path | None = None
        self.size_bytes = 0
        self.temporary = file.with_name(_TEMPORARY + ids.new_nonce())
        self.checksum = _seed(file)
        self._opened: BinaryIO | None = None
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            self._opened = self.temporary.open("xb")

    def write(self, data: bytes) -> None:
        """Add bytes; where the disk takes no more, none of them are kept."""
        self.size_bytes += len(data)
        self.checksum = zlib.crc32(data, self.checksum)
        if self._opened is not None:
            try:
                self._opened.write(data)
            except OSError:
                self.close()

    def close(self) -> bool:
        """Close the file; tell whether all that was written is in it."""
        if self._opened is None:
            return False
        opened, self._opened = self._opened, None
        try:
            opened.close()
        except OSError:
            return False
        return True


@final
class Cache:
    """The cached objects of one lake.

    Attributes:
        folder: where they lie.
        limit_bytes: size over all lakes at which the entries not used for longest go. Whole
            objects used within the last minutes stay all the same.
    """

    def __init__(self, root: Path, *, lake: str, limit_bytes: int) -> None:
        """Name the folder; it is made by the first entry.

        Args:
            root: folder of the caches of all lakes.
            lake: the lake's id, or another text that stands for it alone.
            limit_bytes: see the attribute.
        """
        self._root = root
        self.folder = root / lake
        self.limit_bytes = limit_bytes
        # Begun anywhere, so that many short processes look as often as a long one.
        self._unseen_bytes = int(ids.jitter() * limit_bytes / _LOOKS)
        self._checked: dict[str, tuple[int, int, int]] = {}

    def file(self, key: str, size_bytes: int) -> Path | None:
        """Return the local copy of a whole object; None if there is none that can be trusted.

        Its bytes are checked at the first call for it in this process, and again when the file
        was written since: about half a millisecond for each MiB.

        Args:
            key: the object.
            size_bytes: its length, as listed.
        """
        file = self._file(key)
        try:
            with file.open("rb") as opened:
                facts = os.fstat(opened.fileno())
                identity = facts.st_ino, facts.st_size, facts.st_mtime_ns
                is_right = facts.st_size == size_bytes and (
                    self._checked.get(key) == identity
                    or _sum_file(file, _read_checksum(opened, _seed(file))).exists()
                )
        except OSError:
            return None
        if not is_right:
            self._drop(file)
            return None
        self._checked[key] = identity
        _renew(file)
        return file

    def read(self, key: str, size_bytes: int) -> bytes | None:
        """Return a whole object; None if there is no copy that can be trusted."""
        file = self._file(key)
        try:
            data = file.read_bytes()
        except OSError:
            return None
        checksum = zlib.crc32(data, _seed(file))
        if len(data) != size_bytes or not _sum_file(file, checksum).exists():
            self._drop(file)
            return None
        _renew(file)
        return data

    def read_tail(self, key: str) -> bytes | None:
        """Return the last bytes of an object, as `put_tail` got them; None if not there."""
        return self._read_checked(self._tail_file(key))

    def read_part(self, key: str, start: int, end: int) -> bytes | None:
        """Return a range of an object's bytes, as `put_part` got them; None if not there.

        Args:
            key: the object.
            start: where the range begins.
            end: where it ends, not included.

        Returns:
            Exactly these bytes; a part of another range does not do.
        """
        data = self._read_checked(self._part_file(key, start, end))
        return data if data is None or len(data) == end - start else None

    def put(self, key: str, data: bytes) -> Path | None:
        """Keep a whole object; return its local copy, None if it cannot be kept."""
        file = self._file(key)
        return file if self._write(file, data, zlib.crc32(data, _seed(file))) else None

    def put_tail(self, key: str, data: bytes) -> None:
        """Keep the last bytes of an object."""
        self._write_checked(self._tail_file(key), data)

    def put_part(self, key: str, start: int, data: bytes) -> None:
        """Keep a range of an object's bytes.

        Args:
            key: the object.
            start: where they begin.
            data: the bytes.
        """
        self._write_checked(self._part_file(key, start, start + len(data)), data)

    @contextmanager
    def filling(self, key: str) -> Iterator[Filling]:
        """Take the object under a key piece by piece; it is kept if the block ends well."""
        file = self._file(key)
        filling = Filling(file)
        try:
            yield filling
            if filling.close():
                with suppress(OSError):
                    _name_sum(filling.temporary, _sum_file(file, filling.checksum))
                    filling.temporary.replace(file)
                    filling.path = file
        finally:
            filling.close()
            with suppress(OSError):
                filling.temporary.unlink(missing_ok=True)
        self._look(filling.size_bytes)

    def drop(self, key: str) -> None:
        """Forget an object and its tail; parts are checked one by one."""
        self._drop(self._file(key))
        self._drop(self._tail_file(key))

    def trim(self) -> None:
        """Delete what was not used for longest until the cache is below its limit.

        Whole objects that were used within the last minutes stay, even if the limit is passed
        by it, because a query may be about to open them.
        """
        now_s = clock.now_us() / 1_000_000
        found = sorted(_walk(self._root, but=PINS))
        excess = sum(size for _, size, _ in found)
        if excess <= self.limit_bytes:
            return
        excess -= int(self.limit_bytes * _LEAVE)
        for used_s, size, path in found:
            if excess <= 0:
                return
            if now_s - used_s < _KEEP_S and not path.endswith((".part", ".tail")):
                continue
            try:
                os.unlink(path)  # noqa: PTH108 - thousands of paths, no objects
            except FileNotFoundError:  # another process trims too
                pass
            except OSError:
                continue
            excess -= size

    def _file(self, key: str) -> Path:
        return self.folder / (name := ids.name_hash(key))[0] / f"{name}.parquet"

    def _tail_file(self, key: str) -> Path:
        return self._file(key).with_suffix(".tail")

    def _part_file(self, key: str, start: int, end: int) -> Path:
        file = self._file(key)
        return file.with_name(f"{file.stem}.{start}-{end}.part")

    def _drop(self, file: Path) -> None:
        with suppress(OSError):
            file.unlink(missing_ok=True)

    def _read_checked(self, file: Path) -> bytes | None:
        """Return what `_write_checked` wrote; None, and no file, if it is not that."""
        try:
            stored = file.read_bytes()
        except OSError:
            return None
        checksum, data = stored[:_CHECKSUM_BYTES], stored[_CHECKSUM_BYTES:]
        if not data or checksum != _checksum(file, data):
            self._drop(file)
            return None
        _renew(file)
        return data

    def _write_checked(self, file: Path, data: bytes) -> None:
        self._write(file, _checksum(file, data) + data)

    def _write(self, file: Path, data: bytes, checksum: int | None = None) -> bool:
        """Let a file appear whole, and with a checksum its second name; False if it cannot."""
        temporary = file.with_name(_TEMPORARY + ids.new_nonce())
        try:
            try:
                temporary.write_bytes(data)
            except FileNotFoundError:
                file.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(data)
            if checksum is not None:
                _name_sum(temporary, _sum_file(file, checksum))
            temporary.replace(file)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            return False
        self._look(len(data))
        return True

    def _look(self, written_bytes: int) -> None:
        """Trim where this process wrote enough since it last did."""
        self._unseen_bytes += written_bytes
        if self._unseen_bytes * _LOOKS >= self.limit_bytes:
            self._unseen_bytes = 0
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


def _seed(file: Path) -> int:
    """Return where an entry's checksum begins, so that none can stand for another."""
    return zlib.crc32(file.name.encode())


def _checksum(file: Path, data: bytes) -> bytes:
    return zlib.crc32(data, _seed(file)).to_bytes(_CHECKSUM_BYTES, "big")


def _read_checksum(opened: BinaryIO, checksum: int) -> int:
    """Go on with a checksum over the rest of a file."""
    while data := opened.read(_CHUNK_BYTES):
        checksum = zlib.crc32(data, checksum)
    return checksum


def _sum_file(file: Path, checksum: int) -> Path:
    """Return the name that says that a whole object's file has this checksum."""
    return file.with_name(f"{file.stem}.{checksum:08x}{_SUM}")


def _name_sum(file: Path, name: Path) -> None:
    """Give a file its second name."""
    try:
        os.link(file, name)
    except FileExistsError:  # of an entry that was dropped, and would keep its room
        name.unlink(missing_ok=True)
        with suppress(FileExistsError):  # another process puts the same object
            os.link(file, name)
    except FileNotFoundError:
        raise
    except OSError:  # a disk without links: that the name exists is enough
        name.touch()


def _renew(file: Path) -> None:
    """Note that an entry is used; not on every reading, because a note is a write."""
    with suppress(OSError):
        if clock.now_us() / 1_000_000 - file.stat().st_mtime > _RENEW_S:
            os.utime(file)


def _walk(folder: Path, *, but: str) -> Iterator[tuple[float, int, str]]:
    """Give time of last use in seconds, size in bytes, and path of every file below.

    A second name has no size of its own; of one time it sorts before the first.

    Args:
        folder: where to look.
        but: name of folders that are passed over.
    """
    pending = [str(folder)]
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as items:
            for item in items:
                is_folder = item.is_dir(follow_symlinks=False)
                if is_folder and item.name != but:
                    pending.append(item.path)
                if is_folder:
                    continue
                with suppress(FileNotFoundError):
                    facts = item.stat(follow_symlinks=False)
                    size = 0 if item.name.endswith(_SUM) else facts.st_size
                    yield facts.st_mtime, size, item.path
