"""How Google Cloud Storage takes a large object: a resumable upload, whose address is a secret.

The store tells how many bytes it has to whoever knows the address, takes the rest, and passes
over bytes that it has already. The address is kept in a file of this host, with what the parts
were worth that were sent to it, so that the next process goes on there, and only with the same
content. The requests are made here and not by gcsfs, which logs addresses and puts them into its
errors, and takes an answer without a range, which means that nothing has arrived, for the opposite.

Source:
    Google, "Perform resumable uploads", https://cloud.google.com/storage/docs/performing-resumable-uploads.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import mimetypes
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import TYPE_CHECKING, Any, Final, final

from runlake.storage import retry
from runlake.storage.large import Large, part_bytes
from runlake.storage.trackers import Tracker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from runlake.storage.objectstores import GcsFilesystem
    from runlake.storage.source import Source

# Requests that are not the last carry a multiple of this.
_GRAIN_BYTES: Final = 256 << 10
_PIECE_BYTES: Final = 256 << 10
_COMPLETE: Final = {200, 201}
_INCOMPLETE: Final = 308
# Not known, expired, cancelled.
_GONE: Final = {404, 410, 499}


class _RefusedError(OSError):
    """The store did not take what an upload was sent; it never tells the address."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the store answered {status} to a part of a resumable upload")
        self.status = status
        self.error_code = "NoSuchUpload" if status in _GONE else ""


class _LostError(OSError):
    """What the store has of this upload is not the beginning of this file."""

    error_code = "NoSuchUpload"
    status = 410


@final
class GcsLarge(Large[mmap]):
    """A resumable upload; one that was interrupted on this host is gone on with."""

    is_in_order = True

    def __init__(self, fs: GcsFilesystem, key: str, size: int, folder: Path) -> None:
        """Ask nothing yet.

        Args:
            fs: the store.
            key: in the bucket.
            size: of the file.
            folder: where this host keeps what it knows of uploads.
        """
        self._fs, self._key, self._size, self._folder = fs, key, size, folder
        self._part = part_bytes(size, is_in_order=True)
        self._kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
        self._tracker: Tracker | None = None
        self._writer: Any = None
        self._offset, self._is_complete = 0, False
        self._is_unsure = self._is_other = False
        # Of a file that is gone on with, the store's digest is compared at the end.
        self._md5: Any = None

    async def begin(self, *, anew: bool) -> None:
        """Begin, or ask how much has arrived of what this host sent before."""
        loop = asyncio.get_running_loop()
        if self._tracker is None:
            await loop.run_in_executor(None, self._take)
        tracker = self._known
        if not anew and tracker.address and await self._go_on():
            self._md5 = hashlib.md5(usedforsecurity=False)
            return
        address = await self._fs.begin_upload(self._key, self._kind)
        self._is_unsure = False
        if isinstance(address, str):
            await loop.run_in_executor(None, tracker.begin, address)
        else:  # a zonal bucket, which gcsfs appends to in another way
            self._writer = address

    def _take(self) -> None:
        # The URL alone does not tell a store from another that stands in for it.
        of = [self._fs.store._location, self._fs.bucket, self._key, self._size, self._part]
        self._tracker = Tracker.take(self._folder, "\n".join(map(str, of)))

    @property
    def _known(self) -> Tracker:
        assert self._tracker is not None  # noqa: S101 - narrows a type: it has begun
        return self._tracker

    async def _go_on(self) -> bool:
        """Ask how much of an earlier upload has arrived; False if it cannot be gone on with."""
        try:
            await self._ask_offset()
        except OSError as error:
            if retry.is_permanent(error):
                return False
            raise
        return True

    def hold(self, source: Source, count: int) -> mmap:
        """Take the next bytes into memory that is the system's again when it is closed.

        What Python allocates, and frees in another thread, stays with the process: parts of this
        size, in the arenas of all helper threads, were 120 MiB.
        """
        memory = mmap(-1, count, flags=MAP_PRIVATE | MAP_ANONYMOUS)
        with memoryview(memory) as view:
            source.read_into(view)
        return memory

    def has(self, number: int, data: mmap, mark: str) -> bool:
        """Tell whether the store has a part, and keep what a part is worth that it has not.

        Args:
            number: of the part, from 1; each is asked for in turn.
            data: the part.
            mark: SHA-256 of the file up to the end of this part, in hex.
        """
        if self._writer is not None:
            return False
        start = (number - 1) * self._part
        marks = self._known.marks
        with memoryview(data) as view:
            end = start + len(view)
            if self._md5 is not None:
                self._md5.update(view)
        if number <= len(marks):
            # Of other content some may be on its way even if none has arrived.
            self._is_other = marks[number - 1] != mark
        elif self._offset > start:
            self._is_other = True
        else:
            self._known.add(mark)
        return not self._is_other and self._has_to(end)

    async def send(self, number: int, data: mmap, mark: str) -> None:
        """Send what the store lacks of a part."""
        del mark
        start = (number - 1) * self._part
        part = memoryview(data)
        if self._writer is not None:
            await self._fs.append(self._writer, part, start, self._size)
            return
        if self._is_other:
            raise _LostError("another content was sent to this upload")
        if self._is_unsure:
            await self._ask_offset()
        end = start + len(part)
        while not self._has_to(end):
            if self._offset < start:
                raise _LostError("the store has lost what it had of this upload")
            known = self._offset
            # All of it has arrived, and it is not complete: the last bytes go again.
            first = min(known, self._size - 1) // _GRAIN_BYTES * _GRAIN_BYTES
            first = max(first, start)
            about = f"bytes {first}-{end - 1}/{self._size}"
            await self._put(about, part[first - start :])
            if self._offset <= known and not self._is_complete:
                raise OSError("the store took nothing of a part of a resumable upload")

    async def end(self) -> None:
        """Look at an object that was gone on with; the last part has let it appear."""
        if self._md5 is not None:
            await self._check()
        await asyncio.get_running_loop().run_in_executor(None, self._known.remove)

    def close(self) -> None:
        """Let another upload go on with it."""
        if self._tracker is not None:
            self._tracker.close()

    def _has_to(self, end: int) -> bool:
        """Tell whether all up to a place has arrived; at the end, whether the store knows it."""
        return self._is_complete or (self._offset >= end and end < self._size)

    async def _check(self) -> None:
        """Compare the object with what was read here.

        Raises:
            _LostError: it is another, or gone.
        """
        store = self._fs.store
        try:
            _, _, _, content = await store._request(
                "GET", "b/{}/o/{}", self._fs.bucket, self._key, fields="md5Hash"
            )
        except FileNotFoundError:
            content = b"{}"
        if json.loads(content).get("md5Hash") != base64.b64encode(self._md5.digest()).decode():
            raise _LostError("the object is not what was sent")

    async def _ask_offset(self) -> None:
        await self._put(f"bytes */{self._size}", memoryview(b""))

    async def _put(self, about: str, data: memoryview) -> None:
        """Send bytes, or none; learn how many the store has.

        Raises:
            _RefusedError: it took nothing.
        """
        store = self._fs.store
        await store._set_session()
        told = {"Content-Range": about, "Content-Type": self._kind}
        told["Content-Length"] = str(len(data))
        self._is_unsure = True
        async with store.session.request(
            "PUT",
            self._known.address,
            params=store._get_params({}),
            headers=store._get_headers(told),
            data=_pieces(data) if data else b"",
            allow_redirects=False,  # 308 is none
            timeout=store.requests_timeout,
        ) as answer:
            status, arrived = answer.status, answer.headers.get("Range", "")
            await answer.read()
        if status in _COMPLETE:
            self._offset, self._is_complete = self._size, True
        elif status == _INCOMPLETE:
            # Without a range, nothing has arrived.
            self._offset = int(arrived.rpartition("-")[2]) + 1 if arrived else 0
        else:
            raise _RefusedError(status)
        self._is_unsure = False


async def _pieces(data: memoryview) -> AsyncIterator[memoryview]:
    """Yield bytes so that others may use the line in between."""
    for at in range(0, len(data), _PIECE_BYTES):
        yield data[at : at + _PIECE_BYTES]
