"""Where journals lie on this host, what their files are called, and who owns one.

<root>/<hash of the lake's URL>/<writer>/owner.json      who writes here; locked while alive
keys.jsonl, events-<n>.jsonl, points-<n>.bin
sealed.json      the state where trimming stopped
<segment name>.parquet   columns given at once
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shutil
import socket
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from runlake import disks, ids
from runlake.settings import Settings, user_folder

if TYPE_CHECKING:
    from types import ModuleType

fcntl: ModuleType | None
try:
    fcntl = importlib.import_module("fcntl")
except ImportError:  # Windows: without a lock, only `recover(force=True)` touches journals
    fcntl = None

OWNER: Final = "owner.json"
KEYS: Final = "keys.jsonl"
SEALED: Final = "sealed.json"
# How the folders of journals begin that are being removed; others are hidden by the dot alone.
GONE: Final = ".gone-"
# Filesystems on which a preallocated shared map is safe when the disk fills up.
_MAPPABLE: Final = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs"})
_PAGE: Final = re.compile(r"points-(\d{8})\.bin")
_EVENTS: Final = re.compile(r"events-(\d{15})\.jsonl")


@dataclass(frozen=True, slots=True)
class Owner:
    """Who writes a journal, as its `owner.json` says.

    Attributes:
        url: the lake.
        writer: the writer's id.
        experiment_id: the experiment whose rows these are.
        experiment_name: its name.
        host: where the process runs.
        pid: the process.
        boot_id: the boot of that host.
    """

    url: str
    writer: str
    experiment_id: str
    experiment_name: str
    host: str
    pid: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class Place:
    """The root of the journals, and why it is there.

    Attributes:
        root: the folder; None where none can be written.
        reason: one sentence for `runlake info`.
        mapped: whether records may go through a memory map.
    """

    root: Path | None
    reason: str
    mapped: bool


def page_name(number: int) -> str:
    """Return the file name of points page `number`."""
    return f"points-{number:08d}.bin"


def events_name(first: int) -> str:
    """Return the file name of the events from number `first` on."""
    return f"events-{first:015d}.jsonl"


def page_number(file_name: str) -> int | None:
    """Return the number of a points page's file name, None if it is none."""
    match = _PAGE.fullmatch(file_name)
    return None if match is None else int(match[1])


def events_first(file_name: str) -> int | None:
    """Return the first event number of an events file's name, None if it is none."""
    match = _EVENTS.fullmatch(file_name)
    return None if match is None else int(match[1])


@lru_cache(maxsize=1)
def host() -> str:
    """Return the name of this host."""
    return socket.gethostname()


def choose(settings: Settings) -> Place:
    """Choose where journals lie: as told, else the user's state folder, else a temporary one.

    Args:
        settings: `journal` names a folder where the user wants one.

    Returns:
        The place, and why it is there.
    """
    temporary = Path(tempfile.gettempdir()) / f"runlake-{_user()}"
    candidates = [(user_folder("XDG_STATE_HOME", ".local/state"), "the user's state folder")]
    candidates.append((temporary, "the temporary folder"))
    if settings.journal:
        candidates = [(Path(settings.journal), "RUNLAKE_JOURNAL")]
    why_not = []
    for base, what in candidates:
        root = base / "journal"
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            why_not.append(f"{what} {root} cannot be made: {error.strerror}")
            continue
        kind = disks.filesystem_type(root)
        if not os.access(root, os.W_OK):
            why_not.append(f"{what} {root} cannot be written")
        elif disks.is_network(kind) and not settings.journal:
            why_not.append(f"{what} {root} is on a network filesystem ({kind})")
        else:
            how = f"on {kind}" if kind else "on an unknown filesystem"
            reason = "; ".join([*why_not, f"{what}, {how}"])
            return Place(root, reason, kind in _MAPPABLE and hasattr(os, "posix_fallocate"))
    return Place(None, "; ".join([*why_not, "rows are kept in memory only"]), mapped=False)


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else platform.node()


def lake_folder(root: Path, url: str) -> Path:
    """Return the folder of all journals of one lake."""
    return root / ids.name_hash(url)


class OwnerLock:
    """The lock that a living process holds on its journal.

    It is a POSIX record lock, which a forked child does not inherit, so that a surviving
    worker never makes a dead trainer's journal look alive.
    """

    # Closing any descriptor of a file drops the process's lock on it, and the kernel gives a
    # process its own lock again, so a process never opens an owner file that it has locked.
    _held: ClassVar[set[Path]] = set()
    _mutex: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, folder: Path, fd: int) -> None:
        """Keep the descriptor that holds the lock; see `take` and `create`."""
        self.folder = folder
        self._fd = fd

    @classmethod
    def create(cls, folder: Path, owner: Owner) -> OwnerLock:
        """Make a journal's folder and own it.

        Raises:
            OSError: the folder cannot be made.
        """
        # Locked under a name that recoverers pass over, then shown: else one could take the
        # new journal for a dead process's in the moment before it is locked.
        hidden = folder.with_name(f".{folder.name}")
        hidden.mkdir(parents=True, mode=0o700)
        fd = -1
        cls._held.add(folder)
        try:
            fd = os.open(hidden / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.write(fd, json.dumps(asdict(owner)).encode())
            if fcntl is not None:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            hidden.rename(folder)
        except OSError:
            if fd >= 0:
                os.close(fd)
            cls._held.discard(folder)
            shutil.rmtree(hidden, ignore_errors=True)
            raise
        return cls(folder, fd)

    @classmethod
    def take(cls, folder: Path, *, force: bool = False) -> OwnerLock | None:
        """Own the journal of a dead process; None while its owner lives.

        Args:
            folder: the journal's.
            force: take it also where no lock can tell whether its owner lives.

        Returns:
            The lock, or None.
        """
        with cls._mutex:
            if folder in cls._held or (fcntl is None and not force):
                return None
            try:
                fd = os.open(folder / OWNER, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                return None
            try:
                if fcntl is not None:
                    fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Another recoverer may have finished and removed it between open and lock.
                (folder / OWNER).stat()
            except OSError:
                os.close(fd)
                return None
            cls._held.add(folder)
        return cls(folder, fd)

    def owner(self) -> Owner:
        """Read who the journal belongs to.

        Raises:
            ValueError: the file is damaged.
        """
        data = os.pread(self._fd, 1 << 16, 0)
        fields = json.loads(data)
        try:
            return Owner(**{name: fields[name] for name in Owner.__slots__})
        except (KeyError, TypeError) as error:
            message = f"{self.folder / OWNER} is damaged: {error}"
            raise ValueError(message) from error

    def release(self, *, remove: bool) -> None:
        """Give the journal up; `remove` deletes it, because all it held is in the store."""
        if remove:
            # Out of sight in one step: half a journal must never be taken for a whole one.
            gone = self.folder.with_name(f"{GONE}{self.folder.name}")
            with suppress(OSError):
                self.folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
        os.close(self._fd)
        self._held.discard(self.folder)

    def abandon_in_child(self) -> None:
        """Close the descriptor in a forked child; the parent's lock stays."""
        self._held.discard(self.folder)
        os.close(self._fd)


def _renew_mutex() -> None:
    """Give a forked child its own: a thread that is gone may have held the old one."""
    OwnerLock._mutex = threading.Lock()  # noqa: SLF001 - of this file


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_mutex)
