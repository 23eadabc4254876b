"""A local file on its way into a store: read once, in order, and hashed as it is read.

What goes along with it, its digest and how far it is, is told to a `Watch`. A file that changes
meanwhile is noticed before the object appears, because a mixture of two files is neither.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Self, final

from runlake.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_CHUNK_BYTES: Final = 1 << 20
# So far the hash may be behind; in step with it, two threads wait for each other all the time.
_BEHIND_BYTES: Final = 8 << 20


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

    def read(self, data: bytes) -> None:
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
class Hasher:
    """Hashes in a thread of its own what the caller works on meanwhile; a context manager."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        """Start no thread yet.

        Args:
            take: gets each piece, in order.
        """
        self._take = take
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="runlake-hash")
        self._waiting: deque[tuple[int, Future[None]]] = deque()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is under way."""
        self._pool.shutdown()

    def feed(self, data: bytes) -> None:
        """Take the next piece; waits while too much is not hashed yet."""
        while self._waiting and sum(size for size, _ in self._waiting) > _BEHIND_BYTES:
            self._waiting.popleft()[1].result()
        try:
            self._waiting.append((len(data), self._pool.submit(self._take, data)))
        except RuntimeError:  # the interpreter exits, and takes no more threads
            self.settle()
            self._take(data)

    def settle(self) -> None:
        """Return when every piece is hashed."""
        while self._waiting:
            self._waiting.popleft()[1].result()


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

    def chunks(self) -> Iterator[bytes]:
        """Yield the file piece by piece; each is hashed while the caller works on it."""
        left = self.size_bytes
        if left <= _CHUNK_BYTES:
            if left:
                yield self.read(left)
            return
        with Hasher(self.watch.read) as hasher:
            while left:
                data = self._take(min(left, _CHUNK_BYTES))
                left -= len(data)
                hasher.feed(data)
                yield data
            hasher.settle()

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
