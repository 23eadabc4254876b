"""What S3, Google Cloud Storage and Azure have in common, over fsspec's asynchronous calls.

Every request goes through `_ask`, which bounds the requests under way, tries transient
failures again until the time is over, and turns what remains into `StorageError`.
fsspec's caches of listings and instances are off: they show what was, not what is.
The calls with an underscore are fsspec's own interface for asynchronous use.
"""

from __future__ import annotations

import asyncio
import mimetypes
import os
from abc import abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, ParamSpec, TypeVar

from runlake import clock, ids
from runlake.errors import StorageError
from runlake.storage import ioloop, large, layout, retry
from runlake.storage.filesystem import (
    TEMPORARY,
    Chunks,
    Entries,
    Entry,
    Filesystem,
    Range,
    check_data,
    check_key,
    check_prefix,
    failed,
    missing,
)
from runlake.storage.source import Source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
    from pathlib import Path

    from runlake.settings import Settings
    from runlake.storage.source import Watch

T = TypeVar("T")
P = ParamSpec("P")

_SLOWEST_BYTES_S: Final = 1 << 20
_CLOCK_KEPT_S: Final = 60.0
_PAST_END: Final = 416
_PAGE: Final = 1000
_UNKNOWN_TYPE: Final = "application/octet-stream"
_READS: Final = {"read", "download", "copy", "delete"}


class _PastEndError(Exception):
    """A range begins behind the object's end."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a lake lies in a store.

    Attributes:
        bucket: the bucket or container.
        prefix: the lake's root in it, without slashes at its ends; it may be empty.
    """

    bucket: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing.

    Attributes:
        entries: objects, with keys below the bucket.
        token: what the next page is asked with; None if this is the last.
        date: the store's clock as its answer's `Date` says it, "" if it does not.
    """

    entries: Entries
    token: str | None
    date: str


@dataclass(frozen=True, slots=True)
class Client:
    """One fsspec instance, the gate that bounds its requests, and what bounds its memory."""

    store: Any
    gate: asyncio.Semaphore
    budget: large.Budget


class ObjectFilesystem(Filesystem):
    """A lake in a bucket of a store that can create conditionally."""

    batch: ClassVar[int]
    """How many keys `_remove` takes at once."""

    def __init__(
        self, url: str, *, place: Place, options: Mapping[str, object], settings: Settings
    ) -> None:
        """Keep where the lake is and how to get there; ask nothing.

        Args:
            url: what the user passed, normalised, without credentials.
            place: the bucket, and the lake's root in it.
            options: what fsspec gets.
            settings: for the time and the number of requests.
        """
        self.url = url
        self.is_local = False
        self.conditional_create: bool | None = None
        self.bucket = place.bucket
        self.parallel = max(1, settings.parallel_requests)
        self._timeout_s = settings.request_timeout_s
        self._settings = settings
        self._options = dict(options)
        self._base = f"{place.prefix}/" if place.prefix else ""
        self._clock: tuple[int, float] | None = None
        self._opened: tuple[int, Client] | None = None
        ioloop.start()  # now, because a thread cannot be started while the interpreter exits

    @abstractmethod
    def _connect(self, options: dict[str, Any]) -> Any:  # noqa: ANN401 - fsspec has no types
        """Make the fsspec instance."""

    @abstractmethod
    async def _page(self, prefix: str, token: str | None, limit: int) -> Page:
        """Ask for one page of a listing below the bucket."""

    @abstractmethod
    async def _remove(self, keys: Sequence[str]) -> None:
        """Delete objects below the bucket in as few requests as the store needs."""

    @abstractmethod
    def _large(self, path: str, size: int) -> large.Large[Any]:
        """Return how a large object of `size` bytes is sent to a path."""

    @abstractmethod
    def _type_option(self, kind: str) -> dict[str, Any]:
        """Return how fsspec is told the media type of what it writes."""

    def local_file(self, key: str) -> Path:
        """Raise: an object in a bucket is no file."""
        message = f"{self.url}/{key} is far away, not a local file."
        raise StorageError(message, url=self.url)

    def list(self, prefix: str) -> Entries:
        """Return all objects whose key starts with `prefix`, sorted by key."""
        return self._run(self._list, check_prefix(prefix))

    def get(self, key: str) -> bytes:
        """Return a whole object in one request; `FileNotFoundError` if it is not there."""
        return self._run(self._get, check_key(key))

    def get_ranges(self, ranges: Sequence[Range]) -> Chunks:
        """Return the bytes of many ranges, in their order, fetched in parallel."""
        return self._run(self._get_ranges, ranges)

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole or not at all; replace what is there."""
        path, size = self._path(check_key(key)), len(check_data(key, data))
        self._run(self._ask, "write", key, lambda: self.store._pipe_file(path, data), size)

    def put_absent(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none; True if it then holds exactly `data`."""
        return self._run(self._put_absent, check_key(key), check_data(key, data))

    def upload(self, key: str, file: Path, *, watch: Watch | None = None) -> None:
        """Stream a local file to a key, whole or not at all; it may be empty."""
        check_key(key)
        with Source(file, watch) as source:
            self._run(self._upload, key, source)

    def download(self, key: str, file: Path) -> None:
        """Stream an object to a local file, which appears whole."""
        path, size = self._path(check_key(key)), self._run(self._size, key)
        temporary = file.with_name(TEMPORARY + ids.new_nonce())
        fetch = partial(self._fetch, path, str(temporary), size)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._run(self._ask, "download", key, fetch, size)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the bucket; `FileNotFoundError` if the source is not there."""
        paths = self._path(check_key(source)), self._path(check_key(target))
        size = self._run(self._size, source)
        self._run(self._ask, "copy", source, partial(self._copy, *paths, size), size)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects in parallel batches; those that are not there are fine."""
        names = [self._base + check_key(key) for key in keys]
        batches = [names[at : at + self.batch] for at in range(0, len(names), self.batch)]
        self._run(_gather, [partial(self._delete, batch) for batch in batches])

    def now_us(self) -> int:
        """Return the store's clock, in whole seconds, as its last listing said it.

        Taken from the answer's `Date`, so that a reader needs no right to write; asked for
        again, by a listing of one key, when what is known is older than a minute.
        """
        known = self._clock
        if known is None or clock.monotonic_s() - known[1] > _CLOCK_KEPT_S:
            self._run(self._list_page, self._base + layout.LAKE_FILE, None, 1)
            known = self._clock
        if known is None:  # a store that does not say
            return clock.now_us()
        return known[0] + int((clock.monotonic_s() - known[1]) * 1_000_000)

    def probe(self) -> bool:
        """Create a fresh key twice, and remember whether the second was refused."""
        key = layout.probe(ids.new_nonce())
        self.conditional_create = self.put_absent(key, b"1") and not self.put_absent(key, b"2")
        self.delete_many([key])
        return self.conditional_create

    @property
    def store(self) -> Any:  # noqa: ANN401 - fsspec has no types
        """The fsspec instance of this process, made at first use."""
        return self._client().store

    def _client(self) -> Client:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), self._open()
        return self._opened[1]

    def _open(self) -> Client:
        name = type(self).__name__, repr(sorted(self._options.items())), self.parallel

        def make() -> Client:
            options = {"use_listings_cache": False, **self._options}
            options |= {"skip_instance_cache": True, "loop": ioloop.start()}
            gate = asyncio.Semaphore(self.parallel)
            return Client(self._connect(options), gate, large.Budget())

        try:
            return ioloop.shared(name, make)
        except (OSError, ValueError, TypeError) as error:
            raise failed("open", error, url=self.url, key="") from error

    def _path(self, key: str) -> str:
        return f"{self.bucket}/{self._base}{key}"

    def _run(
        self, verb: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a verb on the loop; libraries are loaded and clients made in this thread."""
        self._client()
        return ioloop.run(verb(*args, **kwargs))

    async def _ask(
        self,
        operation: str,
        key: str,
        call: Callable[[], Awaitable[T]],
        size: int = 0,
    ) -> T:
        """Make one request; again after a transient failure, while there is time.

        Large bodies get a second for each MiB on top, so that a slow line can carry them.
        """
        async with self._client().gate:
            # Begun behind the gate, so that waiting for one's turn costs no time.
            deadline = retry.Deadline(self._timeout_s + size / _SLOWEST_BYTES_S)
            return await self._try(operation, key, call, deadline)

    async def _try(
        self, operation: str, key: str, call: Callable[[], Awaitable[T]], deadline: retry.Deadline
    ) -> T:
        while True:
            try:
                async with asyncio.timeout(deadline.share_s):
                    return await call()
            except FileNotFoundError as error:
                if operation not in _READS or retry.is_bucket_missing(error):
                    raise failed(operation, error, url=self.url, key=key) from error
                raise missing(self.url, key) from error
            except Exception as error:
                if retry.status(error) == _PAST_END:
                    raise _PastEndError from error
                pause_s = None if retry.is_permanent(error) else deadline.pause_s()
                if pause_s is None:
                    raise failed(operation, error, url=self.url, key=key) from error
            await asyncio.sleep(pause_s)

    async def _list(self, prefix: str) -> Entries:
        skip = len(self._base)
        found: Entries = []
        token: str | None = None
        while True:
            page = await self._list_page(self._base + prefix, token, _PAGE)
            found += [
                Entry(entry.key[skip:], entry.size_bytes, entry.time_us)
                for entry in page.entries
                if not entry.key.endswith("/")  # a console's "folder"
            ]
            token = page.token
            if token is None:
                return sorted(found, key=lambda entry: entry.key)

    async def _list_page(self, prefix: str, token: str | None, limit: int) -> Page:
        page = await self._ask(
            "list", prefix[len(self._base) :], lambda: self._page(prefix, token, limit)
        )
        if page.date:
            told = parsedate_to_datetime(page.date).timestamp()
            self._clock = int(told * 1_000_000), clock.monotonic_s()
        return page

    async def _get(self, key: str) -> bytes:
        path = self._path(key)
        try:
            # A start makes s3fs send one GET; without it a HEAD goes first.
            data = await self._ask("read", key, lambda: self.store._cat_file(path, start=0))
        except _PastEndError:  # an empty artifact has no byte 0
            return b""
        return bytes(data)

    async def _get_ranges(self, ranges: Sequence[Range]) -> Chunks:
        return await _gather([partial(self._get_range, wanted) for wanted in ranges])

    async def _get_range(self, wanted: Range) -> bytes:
        key, start, end = wanted
        if start >= end:
            return b""
        path = self._path(check_key(key))
        try:
            data = await self._ask(
                "read",
                key,
                lambda: self.store._cat_file(path, start=start, end=end),
                end - start,
            )
        except _PastEndError:
            return b""
        return bytes(data)

    async def _upload(self, key: str, source: Source) -> None:
        if source.size_bytes > large.ONE_BODY_BYTES:
            await self._upload_large(key, source)
            return
        size, budget = source.size_bytes, self._client().budget
        await budget.take(size)
        try:
            data = await asyncio.get_running_loop().run_in_executor(None, source.read, size)
            source.finish()
            await self._ask("upload to", key, lambda: self._send(self._path(key), data), size)
        finally:
            budget.give(size)
        source.watch.arrived(size)

    async def _upload_large(self, key: str, source: Source) -> None:
        try:
            await self._send_parts(key, source, anew=False)
        except StorageError as error:
            if not retry.is_upload_lost(error):
                raise
            # Another upload of this key has ended meanwhile, and took the parts with it.
            source.rewind()
            await self._send_parts(key, source, anew=True)

    async def _send_parts(self, key: str, source: Source, *, anew: bool) -> None:
        def ask(call: Callable[[], Awaitable[None]], size: int) -> Awaitable[None]:
            return self._ask("upload to", key, call, size)

        way = self._large(self._path(key), source.size_bytes)
        try:
            budget = self._client().budget
            await large.send_all(way, source, budget=budget, ask=ask, anew=anew)
        finally:
            way.close()

    async def _send(self, path: str, data: bytes) -> None:
        """Write an object in one request."""
        kind = mimetypes.guess_type(path)[0] or _UNKNOWN_TYPE
        await self.store._pipe_file(path, data, **self._type_option(kind))

    async def _put_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        deadline = retry.Deadline(self._timeout_s + len(data) / _SLOWEST_BYTES_S)
        while True:
            try:
                async with self._client().gate, asyncio.timeout(deadline.share_s):
                    await self.store._pipe_file(path, data, mode="create")
            except Exception as error:
                # Any error may hide that the object was written: the answer may have been
                # lost, or be the refusal of our own second try.
                try:
                    return await self._get(key) == data
                except FileNotFoundError:
                    refused = retry.is_permanent(error) or isinstance(error, FileNotFoundError)
                    pause_s = None if refused else deadline.pause_s()
                except StorageError:
                    pause_s = None
                if pause_s is None:
                    raise failed("create", error, url=self.url, key=key) from error
            else:
                return True
            await asyncio.sleep(pause_s)

    async def _size(self, key: str) -> int:
        """Return the size of an object; the first key with this prefix is the key itself."""
        page = await self._list_page(self._base + key, None, 1)
        if not page.entries or page.entries[0].key != self._base + key:
            raise missing(self.url, key)
        return page.entries[0].size_bytes

    async def _fetch(self, path: str, file: str, size: int) -> None:
        """Stream `size` bytes to a local file."""
        del size  # only GCS fetches large objects in another way
        await self.store._get_file(path, file)

    async def _copy(self, source: str, target: str, size: int) -> None:
        """Copy `size` bytes; return when the copy is complete."""
        del size  # only S3 copies large objects in another way
        await self.store._cp_file(source, target)

    async def _delete(self, names: Sequence[str]) -> None:
        key = names[0][len(self._base) :]
        with suppress(FileNotFoundError):
            await self._ask("delete", key, lambda: self._remove(names))


async def _gather(calls: Sequence[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
    """Await all calls at once, in their order; the first error ends the others."""
    tasks = [asyncio.ensure_future(call()) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
