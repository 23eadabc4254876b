"""A local file on its way into a store: read once, in order, and hashed as it is read.

What goes along with it, its digest and how far it is, is told to a `Watch`. A file that changes
meanwhile is noticed before the object appears, because a mixture of two files is neither.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from itertools import cycle
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Generic, Self, TypeAlias, TypeVar, final

from runlake.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sized
    from io import RawIOBase
    from pathlib import Path

Data: TypeAlias = "bytes | memoryview"
_Piece = TypeVar("_Piece", bound="Sized")
# More at once goes into larger pages of the system's cache, which virtual machines lack for long.
_CHUNK_BYTES: Final = 512 << 10
# So far the hash may be behind; in step with it, two threads wait for each other all the time.
_BEHIND_BYTES: Final = 8 << 20
_BUFFERS: Final = 16


class FileChangedError(StateError):
    """A local file was written to while it was read; the store has nothing of it."""


class Watch:
    """What is told of a file on its way.

    Attributes:
        size_bytes: read so far.
        there_bytes: that the store had already, from an earlier try.
    """

    def __init__(self, progress: Callable[[int], None] | None = None) -> None:
        """Begin at zero.

        Args:
            progress: called with the number of bytes that have arrived, again and again, from
                any thread; with a negative one where it begins anew.
        """
        self._progress = progress
        self.begin()

    def begin(self) -> None:
        """Begin at zero again."""
        arrived = getattr(self, "_arrived", 0)
        self.size_bytes = self.there_bytes = self._arrived = 0
        self._digest = hashlib.sha256()
        if arrived and self._progress is not None:
            self._progress(-arrived)

    def read(self, data: Data) -> None:
        """Take the next bytes of the file into its digest."""
        self._digest.update(data)
        self.size_bytes += len(data)

    def arrived(self, size_bytes: int, *, was_there: bool = False) -> None:
        """Note that bytes are in the store, in any order."""
        self._arrived += size_bytes
        if was_there:
            self.there_bytes += size_bytes
        if self._progress is not None:
            self._progress(size_bytes)

    @property
    def sha256(self) -> str:
        """SHA-256 of what was read so far, in hex."""
        return self._digest.hexdigest()


@final
class Hasher(Generic[_Piece]):
    """Hashes in a thread of its own what the caller works on meanwhile; a context manager."""

    def __init__(self, take: Callable[[_Piece], None]) -> None:
        """Start no thread yet.

        Args:
            take: gets each piece, in order; its length is the bytes that it stands for.
        """
        self._take = take
        self._thread: threading.Thread | None = None
        self._given: SimpleQueue[_Piece | None] = SimpleQueue()
        self._taken: SimpleQueue[BaseException | None] = SimpleQueue()
        self._waiting: deque[int] = deque()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is under way."""
        if self._thread is not None:
            self._given.put(None)
            self._thread.join()

    def feed(self, data: _Piece) -> None:
        """Take the next piece; waits while too much is not hashed yet."""
        if sum(self._waiting) > _BEHIND_BYTES:
            self.settle(but=len(self._waiting) // 2)
        if self._thread is None:
            thread = threading.Thread(target=self._serve, name="runlake-hash", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter exits, and takes no more threads
                self._take(data)
                return
            self._thread = thread
        self._waiting.append(len(data))
        self._given.put(data)

    def settle(self, but: int = 0) -> None:
        """Return when every piece is hashed.

        Args:
            but: the last ones, so many, may still be under way.
        """
        while len(self._waiting) > but:
            error = self._taken.get()
            self._waiting.popleft()
            if error is not None:
                raise error

    def _serve(self) -> None:
        while (data := self._given.get()) is not None:
            try:
                self._take(data)
            except BaseException as error:  # noqa: BLE001 - raised where the piece came from
                self._taken.put(error)
            else:
                self._taken.put(None)
            del data  # nobody holds what is hashed

    def pieces(
        self: Hasher[Data], fill: Callable[[memoryview], None], size_bytes: int
    ) -> Iterator[memoryview]:
        """Yield bytes piece by piece; each is hashed while the caller works on it.

        All are hashed at the end. A piece is good until the next is asked for.

        Args:
            fill: reads the next bytes into memory that is there.
            size_bytes: of all of them.
        """
        # Fresh memory for every piece would cost as much time as reading it.
        buffers = [memoryview(bytearray(min(size_bytes, _CHUNK_BYTES))) for _ in range(_BUFFERS)]
        for buffer in cycle(buffers):
            if not size_bytes:
                break
            if len(self._waiting) == _BUFFERS:
                # Not one by one: to wake up costs more than to wait.
                self.settle(but=_BUFFERS // 2)
            piece = buffer[:size_bytes]
            fill(piece)
            size_bytes -= len(piece)
            self.feed(piece)
            yield piece
        self.settle()


@final
class Source:
    """An open local file.

    Attributes:
        watch: told of all that is read.
        size_bytes: when it was opened.
    """

    def __init__(self, file: Path, watch: Watch | None = None) -> None:
        """Open the file.

        Args:
            file: what to read.
            watch: told of it; None: nobody asks.

        Raises:
            OSError: it cannot be opened.
        """
        self.watch = watch or Watch()
        self._name = str(file)
        self._file = file.open("rb", buffering=0)
        facts = os.fstat(self._file.fileno())
        self.size_bytes = facts.st_size
        self._facts = facts.st_size, facts.st_mtime_ns
        self.rewind()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def rewind(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self.watch.begin()

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, hashed.

        Raises:
            FileChangedError: the file is shorter than it was.
        """
        data = self._take(count)
        self.watch.read(data)
        return data

    def read_into(self, memory: memoryview) -> None:
        """Take the next bytes into memory that is there, hashed.

        Raises:
            FileChangedError: the file is shorter than it was.
        """
        self.take_into(memory)
        self.watch.read(memory)

    def take_into(self, memory: memoryview) -> None:
        """Take the next bytes into memory that is there; nobody is told of them.

        Raises:
            FileChangedError: the file is shorter than it was.
        """
        if not fill(self._file, memory):
            raise self._changed()

    def chunks(self) -> Iterator[Data]:
        """Yield the file piece by piece; each is hashed while the caller works on it.

        A piece is good until the next is asked for.
        """
        if self.size_bytes > _CHUNK_BYTES:
            with Hasher[Data](self.watch.read) as hasher:
                yield from hasher.pieces(self.take_into, self.size_bytes)
        elif self.size_bytes:
            yield self.read(self.size_bytes)

    def send(self, handle: int, start: int, count: int) -> int:
        """Let the kernel copy bytes into another file, behind what is in it; Linux only.

        Args:
            handle: of the other file.
            start: where the bytes begin.
            count: how many.

        Returns:
            How many were copied, one at least.

        Raises:
            FileChangedError: the file is shorter than it was.
            OSError: the kernel copies nothing from or to files of this kind.
        """
        sent = os.sendfile(handle, self._file.fileno(), start, count)
        if not sent:
            raise self._changed()
        return sent

    def finish(self) -> None:
        """Make sure that the file is still what it was when it was opened.

        Raises:
            FileChangedError: it is not.
        """
        facts = os.fstat(self._file.fileno())
        if (facts.st_size, facts.st_mtime_ns) != self._facts:
            raise self._changed()

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        while len(data) < count:
            more = self._file.read(count - len(data))
            if not more:
                raise self._changed()
            data += more
        return data

    def _changed(self) -> FileChangedError:
        message = f"{self._name!r} was written to while it was uploaded; log it when it is done."
        return FileChangedError(message)


def fill(file: RawIOBase, piece: memoryview) -> bool:
    """Read the next bytes of a file into memory; False if it has no more so many."""
    while piece:
        size = file.readinto(piece)
        if not size:
            return False
        piece = piece[size:]
    return True
