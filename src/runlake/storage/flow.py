"""An object of any size as a flow of bytes, in order and with bounded memory.

Some ranges travel side by side, and the next ones while the caller works on these.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from runlake.errors import StorageError
from runlake.storage.filesystem import Range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.storage.filesystem import Chunks, Filesystem

PIECE_BYTES: Final = 4 << 20
"""The greatest range that is asked for in one request."""
_SIDE_BY_SIDE: Final = 4


def pieces(fs: Filesystem, key: str, *, size: int, start: int = 0) -> Iterator[bytes]:
    """Yield the bytes of an object, piece by piece.

    Twice `_SIDE_BY_SIDE` pieces are in memory at most: those at hand, and those on their way.

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
    batches = _batches(key, size, start)
    if len(batches) <= 1:
        for batch in batches:
            yield from _fetch(fs, batch)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="runlake-flow") as pool:
        coming: Future[Chunks] | None = None
        for number, batch in enumerate(batches):
            found = _fetch(fs, batch) if coming is None else coming.result()
            coming = None
            if number + 1 < len(batches):
                try:
                    coming = pool.submit(_fetch, fs, batches[number + 1])
                except RuntimeError:  # the interpreter exits, and takes no more threads
                    coming = None
            while found:
                yield found.pop(0)


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
    return b"".join(piece for batch in _batches(key, end, start) for piece in _fetch(fs, batch))


def _batches(key: str, size: int, start: int) -> list[list[Range]]:
    ranges = [Range(key, at, min(at + PIECE_BYTES, size)) for at in range(start, size, PIECE_BYTES)]
    return [ranges[at : at + _SIDE_BY_SIDE] for at in range(0, len(ranges), _SIDE_BY_SIDE)]


def _fetch(fs: Filesystem, ranges: list[Range]) -> Chunks:
    found = fs.get_ranges(ranges)
    for wanted, data in zip(ranges, found, strict=True):
        if len(data) != wanted.end - wanted.start:
            message = (
                f"{fs.url}/{wanted.key} is shorter than it was: another has replaced it "
                "meanwhile. Ask again."
            )
            raise StorageError(message, url=fs.url)
    return found
