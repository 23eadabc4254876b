"""Files on their way out of a lake: into a local file that appears whole, and is what was logged.

What is half fetched lies under a hidden name made of the file's own name and its digest. So a
fetch that was interrupted goes on where it was, and never with another content.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from runlake import ids
from runlake.artifacts.sending import sha256_of
from runlake.errors import FormatError, StorageError
from runlake.storage import flow
from runlake.storage.filesystem import TEMPORARY
from runlake.storage.source import Data, Hasher, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runlake.storage.filesystem import Filesystem

_CHUNK_BYTES: Final = 512 << 10
_NAME_LENGTH: Final = 32


class Wanted(NamedTuple):
    """One object to be fetched.

    Attributes:
        key: where it lies.
        target: where it goes.
        size_bytes: as the listing says.
        sha256: as the log says, in hex; empty if it says nothing.
        written_us: when the store says that it was written, microseconds since 1970, UTC.
    """

    key: str
    target: Path
    size_bytes: int
    sha256: str
    written_us: int = 0


def fetch(
    fs: Filesystem,
    wanted: Wanted,
    *,
    arrived: Callable[[int], None],
    is_logged: Callable[[str], bool] = lambda _: False,
) -> None:
    """Fetch one object into a local file; folders are made.

    A file that is there and has the digest stays. What an interrupted fetch left is gone on
    with. A failure of the store leaves what came, for the next try; a wrong digest nothing.

    Args:
        fs: the storage.
        wanted: what, and where to.
        arrived: called with numbers of bytes as they arrive; with negative ones to begin anew.
        is_logged: tells of another digest whether a file with it was logged there since.

    Raises:
        FileNotFoundError: the object is not there.
        FormatError: the content is not what was logged; nothing is left behind.
        StorageError: the store refused, or the local disk did.
    """
    if wanted.sha256 and _is_there(wanted):
        arrived(wanted.size_bytes)
        return
    try:
        wanted.target.parent.mkdir(parents=True, exist_ok=True)
        with _partial(wanted) as (partial, handle):
            if not _fill(fs, wanted, handle, arrived=arrived, is_logged=is_logged):
                partial.unlink(missing_ok=True)
                message = (
                    f"{fs.url}/{wanted.key} is not what was logged: its SHA-256 is not "
                    f"{wanted.sha256}. Nothing was kept. `runlake verify --artifacts` tells of "
                    "all such files."
                )
                raise FormatError(message, url=fs.url)
            partial.replace(wanted.target)
    except StorageError:
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError) and wanted.target.parent.is_dir():
            raise
        message = f"could not fetch {fs.url}/{wanted.key} into {wanted.target}: {error}"
        raise StorageError(message, url=fs.url) from error


def _is_there(wanted: Wanted) -> bool:
    """Tell whether the local file is already what is wanted."""
    with suppress(OSError):
        is_long = wanted.target.stat().st_size == wanted.size_bytes
        return is_long and sha256_of(wanted.target) == wanted.sha256
    return False


def _fill(
    fs: Filesystem,
    wanted: Wanted,
    handle: int,
    *,
    arrived: Callable[[int], None],
    is_logged: Callable[[str], bool],
) -> bool:
    """Bring a half-fetched file to its end; False if it then has a digest that was not logged."""
    there = os.fstat(handle).st_size
    for start in dict.fromkeys((there if there <= wanted.size_bytes else 0, 0)):
        # Of a file that was cut off, even at its end, closing waits for the disk.
        if os.fstat(handle).st_size != start:
            os.ftruncate(handle, start)
        digest = hashlib.sha256()
        for chunk in _read(handle, start):
            digest.update(chunk)
            arrived(len(chunk))
        with Hasher[Data](digest.update) as hasher:
            for piece in _pieces(fs, wanted, start, hasher):
                view = memoryview(piece)
                while view:
                    view = view[os.write(handle, view[:_CHUNK_BYTES]) :]
                arrived(len(piece))
            hasher.settle()
        if not wanted.sha256 or digest.hexdigest() == wanted.sha256:
            return True
        if not start and is_logged(digest.hexdigest()):
            return True
        arrived(-wanted.size_bytes)
    return False


def _pieces(fs: Filesystem, wanted: Wanted, start: int, hasher: Hasher[Data]) -> Iterator[Data]:
    """Yield an object from a place on; each piece is hashed while the caller works on it."""
    if not fs.is_local:
        for piece in flow.pieces(fs, wanted.key, size=wanted.size_bytes, start=start):
            hasher.feed(piece)
            yield piece
        return
    with fs.local_file(wanted.key).open("rb", buffering=0) as file:
        file.seek(start)

        def read(piece: memoryview) -> None:
            if not fill(file, piece):
                raise flow.shorter(fs, wanted.key)

        yield from hasher.pieces(read, wanted.size_bytes - start)


@contextmanager
def _partial(wanted: Wanted) -> Iterator[tuple[Path, int]]:
    """Lend the half-fetched file, locked; it stays after a failure of the store."""
    partial, handle = _open(wanted)
    is_kept = False
    try:
        yield partial, handle
    except (StorageError, KeyboardInterrupt) as error:
        is_torn = isinstance(error, flow.ReplacedError)
        is_kept = (
            not is_torn and bool(wanted.sha256) and os.fstat(handle).st_size >= flow.PIECE_BYTES
        )
        raise
    finally:
        if not is_kept:
            partial.unlink(missing_ok=True)
        os.close(handle)


def _open(wanted: Wanted) -> tuple[Path, int]:
    said = f"{wanted.target.name}/{wanted.sha256}".encode(errors="surrogateescape")
    name = hashlib.sha256(said).hexdigest()[:_NAME_LENGTH]
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    if wanted.sha256:
        partial = wanted.target.with_name(TEMPORARY + name)
        handle = os.open(partial, flags, 0o666)
        with suppress(OSError):  # another fetches the same file at this moment
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have been renamed between the two calls, and then is that one's result.
            if partial.stat().st_ino == os.fstat(handle).st_ino:
                return partial, handle
        os.close(handle)
    partial = wanted.target.with_name(TEMPORARY + ids.new_nonce())
    return partial, os.open(partial, flags | os.O_EXCL, 0o666)


def _read(handle: int, end: int) -> Iterator[bytes]:
    """Yield the first bytes of a file; the next write goes behind them."""
    os.lseek(handle, 0, os.SEEK_SET)
    while end:
        chunk = os.read(handle, min(end, _CHUNK_BYTES))
        if not chunk:
            return
        end -= len(chunk)
        yield chunk
