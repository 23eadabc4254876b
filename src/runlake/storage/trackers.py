"""What this host knows of uploads that it has begun and not ended, for the next process.

Some stores let only those go on with an upload who know its secret address. So each upload has
a small file: the address, and for each part that was sent, or was about to be, what the file was
worth up to its end. Whoever holds the file's lock goes on; others begin an upload of their own.

    {"version": 1, "address": "https://…", "time_us": 1760000000000000}
    <SHA-256 of the file up to the end of part 1, in hex>
    <… of part 2>

It is a help and no promise: where no file can be written or read, uploads begin anew.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final, Self, final

from runlake import clock, ids

KEPT_S: Final = 7 * 24 * 3600
"""So long stores remember an upload; older files are deleted."""
_SUFFIX: Final = ".upload"
_VERSION: Final = 1
_HEX: Final = frozenset("0123456789abcdef")
_MARK: Final = 64
_TRIES: Final = 3


@final
class Tracker:
    """What is known of one upload; also where there is no file, then for this process alone.

    Attributes:
        address: of the upload, a secret; "" if none was begun that could be gone on with.
        marks: of the parts that the store may have, from the first, without gaps.
    """

    # Closing any descriptor of a file drops the process's lock on it, and the kernel gives a
    # process its own lock again, so a process never opens a file that it has locked.
    _held: ClassVar[dict[Path, object]] = {}

    def __init__(self) -> None:
        """Know nothing, and keep nothing; see `take`."""
        self.address = ""
        self.marks: list[str] = []
        self._path, self._fd, self._end = Path(), -1, 0
        # A helper thread may still write when the upload has failed: the number of a closed
        # descriptor may be another file's by then.
        self._mutex = threading.RLock()

    @classmethod
    def take(cls, folder: Path, about: str) -> Self:
        """Return what is known of an upload, and keep what comes.

        Args:
            folder: of all such files of this user; it is made.
            about: what the upload is of: all that must be equal for one to be gone on with.

        Returns:
            A tracker, which knows nothing if another upload of the same is under way.
        """
        tracker = cls()
        path = folder / f"{ids.name_hash(about)}{_SUFFIX}"
        if cls._held.setdefault(path, tracker) is not tracker:
            return tracker
        tracker._path = path
        try:
            _prepare(folder)
            tracker._open()
        except OSError:
            tracker.close()
        return tracker

    def begin(self, address: str) -> None:
        """Keep the address of a new upload; what was known of another is forgotten."""
        self.address, self.marks = address, []
        self._end = 0
        said = {"version": _VERSION, "address": address, "time_us": clock.now_us()}
        self._write(json.dumps(said))

    def add(self, mark: str) -> None:
        """Keep the mark of the next part, before any of it is sent."""
        self.marks.append(mark)
        self._write(mark)

    def remove(self) -> None:
        """Delete the file: the upload is over."""
        with self._mutex:
            if self._fd >= 0:
                with suppress(OSError):
                    self._path.unlink()
            self.close()

    def close(self) -> None:
        """Let another upload of the same go on with it."""
        with self._mutex:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
        if self._held.get(self._path) is self:
            del self._held[self._path]

    def _open(self) -> None:
        """Open and lock the file, and read it.

        Raises:
            OSError: it cannot be opened, or another process has it.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        for _ in range(_TRIES):
            self._fd = os.open(self._path, flags, 0o600)
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(self._path, self._fd):
                self._read()
                return
            # Whoever held it has ended, and has deleted it between open and lock.
            os.close(self._fd)
            self._fd = -1
        raise FileNotFoundError(self._path)

    def _read(self) -> None:
        """Take what the file says, up to what was cut off or is damaged."""
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        head, *lines = data.split(b"\n")[:-1] or [b""]
        try:
            said = json.loads(head)
            is_known = said["version"] == _VERSION and str(said["address"]).startswith("http")
            if not is_known or clock.now_us() - said["time_us"] > KEPT_S * 1_000_000:
                return
        except (ValueError, TypeError, LookupError):
            return
        self.address, self._end = str(said["address"]), len(head) + 1
        for line in lines:
            mark = line.decode("ascii", "replace")
            if len(mark) != _MARK or not _HEX.issuperset(mark):
                break
            self.marks.append(mark)
            self._end += len(line) + 1

    def _write(self, line: str) -> None:
        """Put a line at the end of what is good; what is behind it goes."""
        data = f"{line}\n".encode("ascii")
        with self._mutex:
            if self._fd < 0:
                return
            try:
                os.ftruncate(self._fd, self._end)
                is_whole = os.pwrite(self._fd, data, self._end) == len(data)
            except OSError:
                is_whole = False
            if not is_whole:  # the disk is full: a file that lacks a part is worth nothing
                self.remove()
            self._end += len(data)


def _prepare(folder: Path) -> None:
    """Make the folder, and delete files of uploads that the store has forgotten.

    Raises:
        OSError: the folder cannot be used, or not by this user alone.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise PermissionError(str(folder))
    oldest_s = clock.now_us() / 1_000_000 - KEPT_S
    for file in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError):
            if file.lstat().st_mtime < oldest_s:
                file.unlink()


def _is_at(path: Path, fd: int) -> bool:
    """Tell whether a path still names an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
