"""Digests that are made when their files are in place, so that nobody waits for more than a copy.

A file that was copied into a lake on this host's disk is brought to the disk and hashed by a
thread of this process. What is said of it lies in the journal meanwhile, with a *mark* in place of
the digest; whoever brings that into the store waits for the digest and puts it there. A process
that is killed leaves marks. They tell the file as it was, so that whoever takes over the journal
hashes it; of a file that is another by then, or that a loss of power may have torn, nothing is
said.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, final

from runlake import disks, ids

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LEAST_BYTES: Final = 4 << 20
"""A smaller file is hashed sooner than a thread has begun."""
_MOST_BYTES: Final = 16 << 30
_MOST_FILES: Final = 64
# So many cores at most are taken from the training.
_THREADS: Final = 2
_READ_BYTES: Final = 512 << 10
_POLL_S: Final = 0.002
_FIELD: Final = "later"
_IN_TEXT: Final = f'"{_FIELD}":['


class Mark(NamedTuple):
    """What stands in place of a digest.

    Attributes:
        token: what this process knows it by.
        size_bytes: length of the file.
        mtime_ns: when it was written.
        boot_id: of the host, then.
    """

    token: str
    size_bytes: int
    mtime_ns: int
    boot_id: str


@final
class _Making:
    """The digests that this process makes; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._kept: dict[str, tuple[Future[str], int]] = {}

    def has_room(self, size_bytes: int) -> bool:
        """Tell whether one more file of this length may wait."""
        with self._lock:
            waiting = [size for future, size in self._kept.values() if not future.done()]
        return len(waiting) < _MOST_FILES and sum(waiting) + size_bytes <= _MOST_BYTES

    def begin(self, make: Callable[[], str]) -> Future[str] | None:
        """Have a digest made; None where the interpreter exits, and takes no more threads."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="runlake-digest")
            try:
                return self._pool.submit(make)
            except RuntimeError:
                return None

    def keep(self, token: str, future: Future[str], size_bytes: int) -> None:
        """Keep a digest for whoever settles its mark."""
        with self._lock:
            self._kept[token] = future, size_bytes

    def waiting(self, token: str) -> Future[str] | None:
        """Return one that is not made yet."""
        with self._lock:
            future, _ = self._kept.get(token, (None, 0))
        return None if future is None or future.done() else future

    def take(self, token: str) -> str | None:
        """Wait for a digest; None where nothing is kept under this token.

        Raises:
            OSError: the file could not be brought to the disk, or not be read.
        """
        with self._lock:
            found = self._kept.get(token)
        if found is None:
            return None
        try:
            return found[0].result()
        finally:
            with self._lock:
                self._kept.pop(token, None)


_making = _Making()


def has_room(size_bytes: int) -> bool:
    """Tell whether the digest of one more file of this length may be made later."""
    return size_bytes >= LEAST_BYTES and _making.has_room(size_bytes)


@final
class Digest:
    """The digest of a file that is being written; a context manager around the writing.

    A thread hashes behind whoever writes, and brings the file to the disk when it is whole.

    Attributes:
        mark: what stands in place of the digest, when the file is whole.
    """

    mark: Mark

    def __init__(self, file: Path, finish: Callable[[], None]) -> None:
        """Open the file; what it holds at the end is hashed, whatever becomes of its name.

        Args:
            file: still empty.
            finish: called when it is hashed and on the disk.

        Raises:
            OSError: it cannot be opened.
        """
        self._file = file.open("rb", buffering=0)
        self._finish = finish
        self._is_whole, self._is_given_up = threading.Event(), False

    def __enter__(self) -> Self:
        """Begin."""
        self._future = _making.begin(self._make)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Hear that the file is whole, or that it will never be."""
        facts = os.fstat(self._file.fileno())
        self._is_given_up = kind is not None
        self._is_whole.set()
        if self._is_given_up:
            return
        future = self._future
        if future is None:
            future = Future()
            try:
                future.set_result(self._make())
            except OSError as error:
                future.set_exception(error)
        self.mark = Mark(ids.new_nonce(), facts.st_size, facts.st_mtime_ns, disks.boot_id())
        _making.keep(self.mark.token, future, facts.st_size)

    def _make(self) -> str:
        try:
            return self._hashed()
        finally:
            self._is_whole.wait()
            self._file.close()

    def _hashed(self) -> str:
        digest, memory = hashlib.sha256(), memoryview(bytearray(_READ_BYTES))
        while not self._is_given_up:
            is_whole = self._is_whole.is_set()  # asked before there is nothing more to read
            if count := self._file.readinto(memory):
                digest.update(memory[:count])
            elif is_whole:
                # Not before: the disk may be at work on what is copied.
                os.fsync(self._file.fileno())
                self._finish()
                break
            else:
                self._is_whole.wait(_POLL_S)
        return digest.hexdigest()


def marked(mark: Mark) -> dict[str, object]:
    """Return what a text says, as JSON, of a file whose digest is made later."""
    return {_FIELD: list(mark)}


def is_marked(text: str) -> bool:
    """Tell whether a text may hold a mark."""
    return _IN_TEXT in text


def is_waiting(text: str) -> bool:
    """Tell whether the digest for a text that `is_marked` is not made yet."""
    return _waiting(text) is not None


def wait(text: str) -> None:
    """Return when the digest for a text that `is_marked` is made, or none can be."""
    future = _waiting(text)
    if future is not None:
        futures.wait([future])


def _waiting(text: str) -> Future[str] | None:
    mark = _mark_of(text)
    return None if mark is None else _making.waiting(mark.token)


def settled(text: str, file: Path) -> str:
    """Return a text with the digest in place of its mark, when it is made.

    Args:
        text: one that `is_marked`.
        file: what it speaks of.

    Returns:
        The text, without a digest where none can be made any more: the file is gone or another,
        or the host was started anew since.

    Raises:
        OSError: the file could not be brought to the disk, or not be read; `unmarked` says then
            what is known.
    """
    mark = _mark_of(text)
    if mark is None:
        return text
    digest = _making.take(mark.token)
    if digest is None:
        digest = _of_file_as_it_was(mark, file)
    return unmarked(text, digest)


def unmarked(text: str, digest: str = "") -> str:
    """Return a text with a digest in place of its mark; with none, it says nothing of it."""
    said: dict[str, Any] = json.loads(text)
    said.pop(_FIELD, None)
    if digest:
        said["sha256"] = digest
    else:
        said.pop("sha256", None)
    return json.dumps(said, separators=(",", ":"))


def _mark_of(text: str) -> Mark | None:
    said = json.loads(text)
    fields = said.get(_FIELD) if isinstance(said, dict) else None
    with suppress(TypeError):
        return Mark(*fields or ())
    return None


def _of_file_as_it_was(mark: Mark, file: Path) -> str:
    """Hash a file that another process has written; empty if it is not what that has written."""
    if mark.boot_id != disks.boot_id():
        return ""
    try:
        opened = file.open("rb", buffering=0)
    except FileNotFoundError:
        return ""
    with opened:
        facts = os.fstat(opened.fileno())
        if (facts.st_size, facts.st_mtime_ns) != (mark.size_bytes, mark.mtime_ns):
            return ""
        os.fsync(opened.fileno())
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _after_fork_in_child() -> None:
    global _making  # noqa: PLW0603 - the threads are the parent's, and so are the files
    _making = _Making()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
