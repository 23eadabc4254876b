"""A folder as storage, without fsspec: its `mode="create"` and `open("xb")` are not safe here.

Every write goes to a hidden temporary file in the target's own folder (one disk, one folder
to sync), is synced, and then appears under its name in one step. Readers never see a part.
An object is created conditionally by a hard link, which the kernel refuses if the name is
taken; where there are no hard links by `renameat2(RENAME_NOREPLACE)`; where that is missing
too by a look and a rename, which two processes may win at once: `probe` then says False.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from contextlib import contextmanager, suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, final

from runlake import clock, disks, ids
from runlake.storage import later, layout, localcopy
from runlake.storage.filesystem import (
    ABSENT,
    READS,
    TEMPORARY,
    Chunks,
    Entries,
    Entry,
    Filesystem,
    Leftover,
    Leftovers,
    Range,
    check_data,
    check_key,
    check_prefix,
    failed,
    missing,
)
from runlake.storage.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runlake.storage.later import Mark
    from runlake.storage.source import Watch

_ATTEMPTS: Final = 5
_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_RENAME_NOREPLACE: Final = 1
# A folder that changes all the time is read this often at most.
_SCANS: Final = 4
_TICK_NS: Final = 20_000_000  # at least two of the kernel's ticks
_AT_FDCWD: Final = -100
_CHUNK_BYTES: Final = 512 << 10
# Windows gives no other name to a file that is read.
_RENAMES_OPEN: Final = os.name == "posix"

Folders: TypeAlias = list[str]


@final
class LocalFilesystem(Filesystem):
    """A lake in a folder of this host, or of a disk that it has mounted."""

    def __init__(self, root: Path) -> None:
        """Keep the folder; it is made by the first write.

        Args:
            root: absolute path of the folder.
        """
        self.url = str(root)
        self.is_local = True
        self.conditional_create: bool | None = None
        self._is_exclusive = True
        self._on_network: bool | None = None

    def local_file(self, key: str) -> Path:
        """Return the file that holds an object."""
        return Path(self._file(key))

    def list(self, prefix: str) -> Entries:
        """Return all objects whose key starts with `prefix`, sorted by key."""
        folder, _, start = check_prefix(prefix).rpartition("/")
        base = f"{folder}/" if folder else ""
        found: Entries = []
        with self._reporting("list", prefix):
            pending = self._scan(base, start, found)
            linked: set[str] = set()
            while pending:
                below = pending.pop()
                path = os.path.join(self.url, below)
                if os.path.islink(path.rstrip("/")):
                    # A link to a folder above would otherwise be walked for ever.
                    if (real := os.path.realpath(path)) in linked:
                        continue
                    linked.add(real)
                pending += self._scan(below, "", found)
        found.sort(key=lambda entry: entry.key)
        return found

    def get(self, key: str) -> bytes:
        """Return a whole object; `FileNotFoundError` if it is not there."""
        with self._reporting("read", key), open(self._file(key), "rb") as file:
            return file.read()

    def get_ranges(self, ranges: Sequence[Range]) -> Chunks:
        """Return the bytes of many ranges, in their order; neighbours share one opening."""
        chunks: Chunks = []
        for key, wanted in groupby(ranges, key=lambda wanted: wanted.key):
            with self._reporting("read", key), open(self._file(key), "rb") as file:
                chunks += [_read(file.fileno(), start, end) for _, start, end in wanted]
        return chunks

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole or not at all; replace what is there."""
        target = self._file(key)
        with self._reporting("write", key), self._temporary(target, check_data(key, data)) as file:
            os.replace(file, target)

    def put_absent(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none; True if it then holds exactly `data`."""
        target = self._file(key)
        check_data(key, data)
        for _ in range(_ATTEMPTS):
            with self._reporting("create", key), self._temporary(target, data) as file:
                created = self._create(file, target)
            if created:
                return True
            # On a network disk "exists" can be the answer to our own request, sent twice.
            with suppress(FileNotFoundError):
                return self.get(key) == data
        reason = FileExistsError("a folder or something that is no file is in its place")
        raise failed("create", reason, url=self.url, key=key)

    def upload(self, key: str, file: Path, *, watch: Watch | None = None) -> None:
        """Copy a local file to a key, whole or not at all; it may be empty."""
        target = self._file(key)
        with (
            Source(file, watch) as source,
            self._reporting("upload to", key),
            self._temporary(target, source) as copied,
        ):
            os.replace(copied, target)

    def place(self, key: str, file: Path, *, watch: Watch | None = None) -> Mark | None:
        """Copy a local file to a key; if it is free, what remains is done behind the call.

        Args:
            key: where to.
            file: what.
            watch: told what has arrived; it has no digest where that comes later.

        Returns:
            None where the watch has the digest; else what stands in its place.
        """
        target = self._file(key)
        with Source(file, watch) as source, self._reporting("upload to", key):
            # What is there must not be lost with its successor, if the host loses power.
            # A disk of another host says only when it is synced that it is full.
            may_wait = _RENAMES_OPEN and later.has_room(source.size_bytes)
            if may_wait and not self._is_remote() and not os.path.lexists(target):
                return _placed(source, target)
        self.upload(key, file, watch=watch)
        return None

    def download(self, key: str, file: Path) -> None:
        """Copy an object to a local file, which appears whole."""
        with self._reporting("download", key):
            source = self._existing(key)
            with self._temporary(str(file.absolute()), source) as copied:
                os.replace(copied, file)

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the lake; `FileNotFoundError` if the source is not there."""
        path = self._file(target)
        with self._reporting("copy", source), self._temporary(path, self._existing(source)) as file:
            os.replace(file, path)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are fine.

        Folders of artifacts that are empty then go too: their names tell of runs. Others stay.
        """
        folders: set[str] = set()
        for key in keys:
            file = self._file(key)
            with suppress(FileNotFoundError), self._reporting("delete", key):
                os.unlink(file)
            if key.startswith(layout.ARTIFACTS):
                folders.add(os.path.dirname(file))
        top = os.path.dirname(self._file(layout.ARTIFACTS + "any"))
        for folder in sorted(folders, reverse=True):
            _remove_empty(folder, top)

    def leftovers(self) -> Leftovers:
        """Return the hidden files of writers that died."""
        found: Leftovers = []
        for folder, _, names in os.walk(self.url):
            for name in names:
                if name.startswith(TEMPORARY):
                    file = os.path.join(folder, name)
                    with suppress(FileNotFoundError):
                        facts = os.stat(file)
                        key, time_us = os.path.relpath(file, self.url), facts.st_mtime_ns // 1000
                        found.append(Leftover(key, facts.st_size, time_us))
        return sorted(found)

    def sweep(self, leftovers: Iterable[Leftover]) -> None:
        """Delete hidden files; those that are gone are fine."""
        for leftover in leftovers:
            with suppress(FileNotFoundError), self._reporting("delete", leftover.key):
                os.unlink(self._file(leftover.key))

    def now_us(self) -> int:
        """Return the clock of the disk, which on a network disk is its server's.

        Only there a file is made to ask for it: who looks at a lake leaves its folder alone.
        """
        if not self._is_remote():
            return clock.now_us()
        file = os.path.join(self.url, TEMPORARY + ids.new_nonce())
        try:
            handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except OSError:  # not there yet, or not ours to write: readers need a clock as well
            return clock.now_us()
        try:
            return os.fstat(handle).st_mtime_ns // 1000
        finally:
            os.close(handle)
            os.unlink(file)

    def probe(self) -> bool:
        """Ask the disk whether it can create conditionally, and remember the answer."""
        key = layout.probe(ids.new_nonce())
        created = self.put_absent(key, b"1") and not self.put_absent(key, b"2")
        self.delete_many([key])
        self.conditional_create = created and self._is_exclusive
        return self.conditional_create

    def _is_remote(self) -> bool:
        """Tell whether another host may have the disk; looked up once."""
        if self._on_network is None:
            self._on_network = disks.is_network(disks.filesystem_type(Path(self.url)))
        return self._on_network

    def _file(self, key: str) -> str:
        return os.path.join(self.url, check_key(key))

    def _existing(self, key: str) -> Path:
        file = self._file(key)
        if not os.path.isfile(file):
            raise missing(self.url, key)
        return Path(file)

    def _scan(self, below: str, start: str, found: Entries) -> Folders:
        """Add the files of one folder to `found`; return its folders.

        A folder that changes while it is read may show neither a name that goes nor the one
        that came before it in its place. So it is read again, and what any reading saw counts:
        a name that was replaced during one reading had its successor before the next began.
        """
        path = os.path.join(self.url, below)
        files: dict[str, Entry] = {}
        folders: dict[str, None] = {}
        with _suppress_absence():
            for _ in range(_SCANS):
                changed_ns = os.stat(path).st_mtime_ns
                self._read_folder(path, (below, start), files, folders)
                # The kernel's stamps are coarse: a change within one tick keeps the stamp.
                settled = clock.now_us() * 1000 - changed_ns > _TICK_NS
                if settled and os.stat(path).st_mtime_ns == changed_ns:
                    break
        found.extend(files.values())
        return list(folders)

    @staticmethod
    def _read_folder(
        path: str, names: tuple[str, str], files: dict[str, Entry], folders: dict[str, None]
    ) -> None:
        """Read a folder once, into what earlier readings saw."""
        below, start = names
        with os.scandir(path) as items:
            for item in items:
                name = item.name
                if name.startswith(TEMPORARY) or not name.startswith(start):
                    continue
                if item.is_dir():
                    folders[f"{below}{name}/"] = None
                    continue
                with suppress(FileNotFoundError):  # deleted since the folder was read
                    facts = item.stat()
                    key, time_us = below + name, facts.st_mtime_ns // 1000
                    files[key] = Entry(key, facts.st_size, time_us)

    def _create(self, file: str, target: str) -> bool:
        """Give a temporary file its name; False if the name is taken."""
        try:
            os.link(file, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            return True
        if (renamed := _rename_absent(file, target)) is not None:
            return renamed
        self._is_exclusive = False
        if os.path.lexists(target):
            return False
        os.rename(file, target)
        return True

    @contextmanager
    def _temporary(self, target: str, content: bytes | Path | Source) -> Iterator[str]:
        """Lend a synced temporary file beside `target`; sync the folder at the end."""
        folder = os.path.dirname(target)
        file, handle = _open_beside(target)
        try:
            with open(handle, "wb") as written:
                if isinstance(content, bytes):
                    written.write(content)
                elif isinstance(content, Source):
                    localcopy.copy(content, file, handle)
                else:
                    with open(content, "rb") as source:
                        shutil.copyfileobj(source, written, _CHUNK_BYTES)
                written.flush()
                os.fsync(handle)
            yield file
        finally:
            with suppress(FileNotFoundError):
                os.unlink(file)
        _sync_folder(folder)

    @contextmanager
    def _reporting(self, operation: str, key: str) -> Iterator[None]:
        """Say which operation failed on what; a missing object stays `FileNotFoundError`."""
        try:
            yield
        except OSError as error:
            if _is_absence(error) and operation in READS:
                raise missing(self.url, key) from error
            raise failed(operation, error, url=self.url, key=key) from error


def _placed(source: Source, target: str) -> Mark:
    """Copy a file to a name that is free; it is synced and hashed behind that."""
    file, handle = _open_beside(target)
    finish = partial(_sync_folder, os.path.dirname(target))
    try:
        with open(handle, "wb"), later.Digest(Path(file), finish) as digest:
            localcopy.copy_only(source, handle)
            os.replace(file, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(file)
    return digest.mark


def _is_absence(error: OSError) -> bool:
    """Tell whether an error says that nothing is there."""
    # A stale handle of a network disk is a file that its server no longer has; and what is
    # longer than the disk's names cannot have been written.
    return isinstance(error, ABSENT) or error.errno in {errno.ESTALE, errno.ENAMETOOLONG}


@contextmanager
def _suppress_absence() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not _is_absence(error):
            raise


def _remove_empty(folder: str, top: str) -> None:
    """Remove a folder and those above it that are empty then, below `top`."""
    with suppress(OSError):  # something lies in it
        while folder != top:
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def _open_beside(target: str) -> tuple[str, int]:
    """Create a hidden file beside another, and the folders above it; return it with its handle."""
    file = os.path.join(os.path.dirname(target), TEMPORARY + ids.new_nonce())
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
    for _ in range(_ATTEMPTS):  # another may delete a folder that is empty still
        with suppress(FileNotFoundError):
            return file, os.open(file, flags, 0o666)
        with suppress(FileNotFoundError):
            _make_folder(os.path.dirname(file))
    return file, os.open(file, flags, 0o666)


def _make_folder(folder: str) -> None:
    """Make a folder and those above it, each synced into the one above."""
    above = os.path.dirname(folder)
    try:
        os.mkdir(folder)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_folder(above)
        with suppress(FileExistsError):
            os.mkdir(folder)
    _sync_folder(above)


def _sync_folder(folder: str) -> None:
    """Write a folder's names to the disk; without it a new name may be lost with the power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # disks that cannot sync a folder
            raise
    finally:
        os.close(handle)


def _read(handle: int, start: int, end: int) -> bytes:
    """Read bytes `start` to `end`; fewer only at the end of the file."""
    data = os.pread(handle, end - start, start)
    while data and len(data) < end - start:  # the kernel gives at most 2 GiB a call
        more = os.pread(handle, end - start - len(data), start + len(data))
        if not more:
            break
        data += more
    return data


def _rename_absent(file: str, target: str) -> bool | None:
    """Rename unless the target exists; None where the system cannot do it in one step."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    names = os.fsencode(file), os.fsencode(target)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
        return True
    return False if ctypes.get_errno() == errno.EEXIST else None
