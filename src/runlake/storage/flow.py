"""An object of any size as a flow of bytes, in order and with bounded memory.

Some ranges travel side by side; when the first has come, another sets out.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from runlake.errors import StorageError
from runlake.storage.filesystem import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.storage.filesystem import Chunks, Filesystem

PIECE_BYTES: Final = 4 << 20
"""The greatest range that is asked for in one request."""
_SIDE_BY_SIDE: Final = 6
_NEAR: Final = 2  # of a disk: the next while the caller works on this one


def pieces(fs: Filesystem, key: str, *, size: int, start: int = 0) -> Iterator[bytes]:
    """Yield the bytes of an object, piece by piece.

    `_SIDE_BY_SIDE` pieces are on their way at most, and one is at hand.

    Args:
        fs: the storage.
        key: the object.
        size: its length in bytes, as a listing says.
        start: the first byte wanted.

    Yields:
        At most `PIECE_BYTES` at a time; nothing if there is nothing behind `start`.

    Raises:
        FileNotFoundError: the object is not there.
        StorageError: the store refused, or the object is shorter than it was.
    """
    ranges = _ranges(key, size, start)
    if len(ranges) <= 1:
        for wanted in ranges:
            yield from _fetch(fs, [wanted])
        return
    side_by_side = _NEAR if fs.is_local else _SIDE_BY_SIDE
    with ThreadPoolExecutor(side_by_side, thread_name_prefix="runlake-flow") as pool:
        coming = deque(_begin(pool, fs, wanted) for wanted in ranges[:side_by_side])
        try:
            for wanted in ranges[side_by_side:]:
                found = coming.popleft().result()
                coming.append(_begin(pool, fs, wanted))
                yield found.pop()
            while coming:
                yield coming.popleft().result().pop()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(pool: ThreadPoolExecutor, fs: Filesystem, wanted: Range) -> Future[Chunks]:
    try:
        return pool.submit(_fetch, fs, [wanted])
    except RuntimeError:  # the interpreter exits, and takes no more threads
        done: Future[Chunks] = Future()
        done.set_result(_fetch(fs, [wanted]))
        return done


def fetch(fs: Filesystem, key: str, *, start: int, end: int) -> bytes:
    """Return bytes `start` to `end` of an object, in pieces that travel side by side.

    Args:
        fs: the storage.
        key: the object.
        start: the first byte wanted.
        end: the first byte not wanted; it may not lie behind the object's end.

    Raises:
        FileNotFoundError: the object is not there.
        StorageError: the store refused, or the object is shorter than it was.
    """
    ranges = _ranges(key, end, start)
    batches = [ranges[at : at + _SIDE_BY_SIDE] for at in range(0, len(ranges), _SIDE_BY_SIDE)]
    return b"".join(piece for batch in batches for piece in _fetch(fs, batch))


class ReplacedError(StorageError):
    """An object was replaced while it was read."""


def shorter(fs: Filesystem, key: str) -> ReplacedError:
    """Return what is raised of an object that has become shorter while it was read."""
    message = (
        f"{fs.url}/{key} is shorter than it was: another has replaced it meanwhile. Ask again."
    )
    return ReplacedError(message, url=fs.url)


def _ranges(key: str, size: int, start: int) -> list[Range]:
    return [Range(key, at, min(at + PIECE_BYTES, size)) for at in range(start, size, PIECE_BYTES)]


def _fetch(fs: Filesystem, ranges: list[Range]) -> Chunks:
    found = fs.get_ranges(ranges)
    for wanted, data in zip(ranges, found, strict=True):
        if len(data) != wanted.end - wanted.start:
            raise shorter(fs, wanted.key)
    return found
