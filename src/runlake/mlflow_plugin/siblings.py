"""The processes of this host that share a lake through MLflow find each other.

Each listens on a Unix socket beside the journals of the lake. Whoever is about to read asks the
others to bring what they have logged to the store, so that a worker of MLflow's server sees what
another worker has acknowledged a moment before, and nobody writes a file for each call. Logging
never waits for any of this. A sibling that is dead costs nothing, and its journal is brought
out; one that does not answer costs `LIMIT_S` once, and is then left alone for `REST_S`.

Where there are no Unix sockets (Windows), or no folder for journals, a process sees what others
have logged when they bring it out by themselves, within seconds.
"""

from __future__ import annotations

import atexit
import os
import selectors
import socket
import struct
import sys
import threading
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from runlake import clock, ids
from runlake.errors import StorageError
from runlake.writing import places
from runlake.writing.drains import drains_of
from runlake.writing.notices import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# All siblings together are waited for so long, seconds.
LIMIT_S: Final = 3.0
# One that did not answer in time is not asked again for so long, seconds.
REST_S: Final = 60.0
# Hidden from whoever looks for journals beside it.
_FOLDER: Final = ".near"
_BACKLOG: Final = 128
# The address of a Unix socket holds so many bytes on every system.
_LONGEST: Final = 100
_FLUSH: Final = b"f"
# How many rows the process has logged; less than none where the store refused some.
_ANSWER: Final = struct.Struct("<q")
_REFUSED: Final = -1


class _EndedError(Exception):
    """A sibling has ended while it was asked."""


_listening: Final[weakref.WeakSet[Siblings]] = weakref.WeakSet()


class Siblings:
    """One process of those that share a lake, and its way to the others."""

    def __init__(self, url: str, root: Path | None, *, recover: Callable[[], object]) -> None:
        """Listen, where that is possible.

        Args:
            url: the lake.
            root: of the journals; None: there are none, and no siblings.
            recover: brings the journals of dead processes to the store.
        """
        self._url = url
        self._folder = None if root is None else places.lake_folder(root, url) / _FOLDER
        self._recover = recover
        self._name = f"{os.getpid()}-{ids.new_nonce()[:6]}"
        self._listener: socket.socket | None = None
        self._seen: dict[str, int] = {}
        self._resting: dict[str, float] = {}
        if hasattr(socket, "AF_UNIX") and self._folder is not None:
            self._listen(self._folder)

    # Asking: any thread.

    def bring(self) -> bool:
        """Have all siblings bring what they have logged to the store.

        Returns:
            Whether one of them has logged since the last call.
        """
        try:
            return self._ask(_FLUSH)
        except _EndedError:
            # Now it is found dead, and its journal is brought out.
            with suppress(_EndedError):
                self._ask(_FLUSH)
            return True

    def _ask(self, word: bytes) -> bool:
        """Say a word to all, and wait for answers; without a word, only find out who is dead.

        Raises:
            _EndedError: one of them has ended instead of answering.
        """
        folder = self._folder
        if folder is None or self._listener is None:
            return False
        asked: dict[str, socket.socket] = {}
        is_one_dead = False
        with _reach(folder) as short:
            for name in self._others(folder):
                line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                line.settimeout(0.0)
                try:
                    line.connect(f"{short}/{name}")
                    line.sendall(word)
                except (ConnectionRefusedError, FileNotFoundError):
                    line.close()
                    is_one_dead = self._bury(folder / name) or is_one_dead
                except OSError:  # it has long stopped to answer
                    line.close()
                    self._rest(name)
                else:
                    asked[name] = line
        try:
            changed = self._hear(asked) if word else False
        finally:
            for line in asked.values():
                line.close()
            if is_one_dead:
                self._inherit()
        return changed or is_one_dead

    def _others(self, folder: Path) -> list[str]:
        """Return the names of the siblings that may be asked now."""
        try:
            names = set(os.listdir(folder))  # noqa: PTH208 - names only, before each answer
        except OSError:
            return []
        now = clock.monotonic_s()
        self._resting = {
            name: until for name, until in self._resting.items() if name in names and until > now
        }
        names -= {self._name, *self._resting}
        return [name for name in names if not name.startswith(".")]

    def _hear(self, asked: dict[str, socket.socket]) -> bool:
        """Wait for the answers of those that were asked."""
        changed = False
        waiting = set(asked)
        deadline_s = clock.monotonic_s() + LIMIT_S
        with selectors.DefaultSelector() as selector:
            for name, line in asked.items():
                selector.register(line, selectors.EVENT_READ, name)
            while waiting:
                ready = selector.select(max(0.0, deadline_s - clock.monotonic_s()))
                if not ready:
                    break
                for key, _ in ready:
                    waiting.discard(key.data)
                    selector.unregister(key.fileobj)
                    changed = self._take(key.data, asked[key.data]) or changed
        for name in waiting:
            self._rest(name)
        return changed

    def _take(self, name: str, line: socket.socket) -> bool:
        """Take an answer; tell whether there is anything new to be read.

        Raises:
            _EndedError: there is none.
        """
        try:
            answer = line.recv(_ANSWER.size)
        except OSError:
            answer = b""
        if len(answer) != _ANSWER.size:
            raise _EndedError
        rows: int = _ANSWER.unpack(answer)[0]
        if rows == _REFUSED:
            tell(f"{_who(name)} cannot bring its rows to {self._url!r} now; they may be missing.")
        changed = self._seen.get(name) != rows
        self._seen[name] = rows
        return changed

    def _rest(self, name: str) -> None:
        self._resting[name] = clock.monotonic_s() + REST_S
        tell(
            f"{_who(name)}, which shares the lake {self._url!r}, did not answer within "
            f"{LIMIT_S:g} s; what it has logged last may be missing, and it is not asked for "
            f"{REST_S:g} s."
        )

    def _bury(self, dead: Path) -> bool:
        """Remove the socket of a dead process; tell whether it was there."""
        self._seen.pop(dead.name, None)
        try:
            dead.unlink()
        except OSError:
            return False
        return True

    def _inherit(self) -> None:
        try:
            self._recover()
        except StorageError as error:
            tell(f"rows of a dead process wait in its journal: {error}")

    # Answering: a thread of its own.

    def _listen(self, folder: Path) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _reach(folder) as short:
                # Shown when it can be called: else it would be taken for dead.
                listener.bind(f"{short}/.{self._name}")
                listener.listen(_BACKLOG)
            (folder / f".{self._name}").rename(folder / self._name)
            serve = threading.Thread(
                target=_serve, args=(listener, self._url), name="runlake-siblings", daemon=True
            )
            serve.start()
        except (OSError, RuntimeError):  # no such place, or no thread: others wait for the drain
            listener.close()
            return
        self._listener = listener
        _listening.add(self)
        _end_with_process(self)

    def close(self) -> None:
        """Bring all out, listen no more, and look after siblings that have died."""
        if self._listener is None or self._folder is None:
            return
        _flush(self._url)
        with suppress(OSError):
            (self._folder / self._name).unlink()
        # Of the server it is the process that was started which ends last: its workers are gone
        # by a signal, and the last rows of some lie in their journals.
        with suppress(FileNotFoundError):  # somebody has taken the journals away
            self._ask(b"")
        self._hang_up()

    def _hang_up(self) -> None:
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def abandon_in_child(self) -> None:
        """Let go of the socket in a forked child: else it would keep a dead parent's alive."""
        if self._listener is not None:
            os.close(self._listener.detach())
            self._listener = None


@contextmanager
def _reach(folder: Path) -> Iterator[str]:
    """Give a folder's path, short enough for the address of a socket in it."""
    path = os.fspath(folder)
    if len(os.fsencode(path)) + len("/.1234567-123456") <= _LONGEST or sys.platform != "linux":
        yield path
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _serve(listener: socket.socket, url: str) -> None:
    """Answer siblings, one after the other, until the socket is closed."""
    with listener:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line, suppress(OSError):
                line.settimeout(LIMIT_S)
                if line.recv(1) == _FLUSH:
                    line.sendall(_ANSWER.pack(_flush(url)))


def _flush(url: str) -> int:
    """Bring out what this process has logged; return how many rows that is in all."""
    drains = drains_of(url)
    rows = sum(drain.rows_logged for drain in drains)
    try:
        for drain in drains:
            if drain.pending:
                drain.flush(LIMIT_S)
    except StorageError:
        return _REFUSED
    return rows


def _who(name: str) -> str:
    return f"process {name.partition('-')[0]}"


def _end_with_process(siblings: Siblings) -> None:
    """Close at the end of the process, after the drains where they came later."""
    weak = weakref.ref(siblings)
    pid = os.getpid()

    def end() -> None:
        found = weak()
        if found is not None and os.getpid() == pid:
            found.close()

    atexit.register(end)
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        # Such a process ends without `atexit`.
        util.Finalize(None, end, exitpriority=5)


def _after_fork_in_child() -> None:
    for siblings in list(_listening):
        siblings.abandon_in_child()
    _listening.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
