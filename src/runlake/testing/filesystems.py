"""Filesystems for tests: they wrap any other and count, wait, fail or die as told.

All are deterministic: what goes wrong follows from a seed or from a number of calls.
"""

from __future__ import annotations

import random
import threading
from abc import abstractmethod
from collections import Counter
from math import ceil
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, final

from runlake.errors import StorageError
from runlake.storage.fs import Entry, Filesystem, Range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from runlake.storage.filesystem import Leftover, Leftovers
    from runlake.storage.source import Watch

T = TypeVar("T")
Entries = list[Entry]
Chunks = list[bytes]

_PAGE: Final = 1000
_WRITES: Final = frozenset({"put", "put_absent", "upload", "copy", "delete_many", "sweep"})


class Call(NamedTuple):
    """One call of a verb.

    Attributes:
        verb: the method's name.
        keys: what it is about; the prefix of a listing.
        sent_bytes: what goes to the store.
    """

    verb: str
    keys: tuple[str, ...]
    sent_bytes: int = 0

    @property
    def is_write(self) -> bool:
        """Whether it changes the store."""
        return self.verb in _WRITES


class Wrapper(Filesystem):
    """A filesystem that passes every call through `around`."""

    def __init__(self, inner: Filesystem) -> None:
        """Wrap `inner`."""
        self.inner = inner
        self.url = inner.url
        self.is_local = inner.is_local
        self.conditional_create = inner.conditional_create

    @abstractmethod
    def around(self, call: Call, action: Callable[[], T]) -> T:
        """Do `action`, or not, and return its result, or raise."""

    def local_file(self, key: str) -> Path:
        """Return the local file of a key; no request, so never disturbed."""
        return self.inner.local_file(key)

    def list(self, prefix: str) -> Entries:
        """Return all objects below a prefix."""
        return self.around(Call("list", (prefix,)), lambda: self.inner.list(prefix))

    def get(self, key: str) -> bytes:
        """Return a whole object."""
        return self.around(Call("get", (key,)), lambda: self.inner.get(key))

    def get_ranges(self, ranges: Sequence[Range]) -> Chunks:
        """Return the bytes of many ranges."""
        call = Call("get_ranges", tuple(wanted.key for wanted in ranges))
        return self.around(call, lambda: self.inner.get_ranges(ranges))

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        self.around(Call("put", (key,), len(data)), lambda: self.inner.put(key, data))

    def put_absent(self, key: str, data: bytes) -> bool:
        """Write an object only if there is none."""
        call = Call("put_absent", (key,), len(data))
        return self.around(call, lambda: self.inner.put_absent(key, data))

    def upload(self, key: str, file: Path, *, watch: Watch | None = None) -> None:
        """Copy a local file to a key."""
        call = Call("upload", (key,), file.stat().st_size)
        self.around(call, lambda: self.inner.upload(key, file, watch=watch))

    def download(self, key: str, file: Path) -> None:
        """Copy an object to a local file."""

        def fetch() -> int:
            self.inner.download(key, file)
            return file.stat().st_size

        self.around(Call("download", (key,)), fetch)

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the lake."""
        self.around(Call("copy", (source, target)), lambda: self.inner.copy(source, target))

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects."""
        names = tuple(keys)
        self.around(Call("delete_many", names), lambda: self.inner.delete_many(names))

    def leftovers(self) -> Leftovers:
        """Return what interrupted uploads have left."""
        return self.around(Call("leftovers", ()), self.inner.leftovers)

    def sweep(self, leftovers: Iterable[Leftover]) -> None:
        """Take leftovers away."""
        found = tuple(leftovers)
        call = Call("sweep", tuple(leftover.key for leftover in found))
        self.around(call, lambda: self.inner.sweep(found))

    def now_us(self) -> int:
        """Return the store's clock."""
        return self.around(Call("now_us", ()), self.inner.now_us)

    def probe(self) -> bool:
        """Ask whether the store can create conditionally."""
        found = self.around(Call("probe", ()), self.inner.probe)
        self.conditional_create = self.inner.conditional_create
        return found


@final
class CountingFilesystem(Wrapper):
    """Counts what a far store would be asked.

    A listing is one LIST for each 1,000 keys, each range is a GET, a refused creation is a PUT
    and the GET that reads back, a download or a copy asks for the size by a LIST, up to 1,000
    keys go in one DELETE, a probe is all of its parts, and the clock is free, because listings
    bring it.

    Attributes:
        requests: number of requests by verb: LIST, GET, PUT, COPY, DELETE.
        calls: every call, in order.
    """

    def __init__(self, inner: Filesystem) -> None:
        """Wrap `inner` and begin at zero."""
        super().__init__(inner)
        self.requests: Counter[str] = Counter()
        self.calls: list[Call] = []

    @property
    def total(self) -> int:
        """The number of all requests."""
        return self.requests.total()

    def reset(self) -> None:
        """Begin at zero again."""
        self.requests.clear()
        self.calls.clear()

    def around(self, call: Call, action: Callable[[], T]) -> T:
        """Do it, and count it also when it fails."""
        self.calls.append(call)
        result: T | None = None
        try:
            result = action()
            return result
        finally:
            self.requests.update(_requests(call, result))


@final
class SlowFilesystem(Wrapper):
    """A far store: waits as one does, and has no local files, whatever it wraps.

    A round trip costs one latency, and bytes cost what the line takes for them. Pages of a
    listing, 1,000 keys each, come one after another. The ranges of one call go over `parallel`
    connections to one line: the line carries the answers of some while others wait, so the call
    takes the time of its round trips or that of its bytes after the first latency, whichever
    is longer. Two threads wait side by side.

    Without `sleep` nobody waits in truth: the seconds only add up, the same at every time.

    Attributes:
        waited_s: seconds waited so far, by all threads together.
    """

    def __init__(
        self,
        inner: Filesystem,
        *,
        latency_s: float = 0.05,
        bytes_s: float = 100e6,
        parallel: int = 64,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """Wrap `inner`.

        Args:
            inner: the filesystem that does the work.
            latency_s: seconds for each round trip.
            bytes_s: bytes that the line carries each second, one way.
            parallel: requests that travel together.
            sleep: called with the seconds to wait: `time.sleep` to measure a clock, None to
                count.
        """
        super().__init__(inner)
        self.is_local = False
        self.waited_s = 0.0
        self._latency_s = latency_s
        self._bytes_s = bytes_s
        self._parallel = parallel
        self._sleep = sleep
        self._lock = threading.Lock()

    def local_file(self, key: str) -> Path:
        """Return no file, because what is far away has none.

        Raises:
            StorageError: always.
        """
        message = f"{self.url}/{key} is made to be far away, not a local file."
        raise StorageError(message, url=self.url)

    def around(self, call: Call, action: Callable[[], T]) -> T:
        """Do it, then wait."""
        result: T | None = None
        try:
            result = action()
            return result
        finally:
            requests = _requests(call, result).total()
            line_s = (call.sent_bytes + _received_bytes(call, result)) / self._bytes_s
            if call.verb == "get_ranges":
                trips = ceil(requests / self._parallel)
                waited_s = max(trips * self._latency_s, self._latency_s + line_s)
            else:
                waited_s = requests * self._latency_s + line_s
            if requests:
                self._wait(waited_s)

    def _wait(self, seconds: float) -> None:
        with self._lock:
            self.waited_s += seconds
        if self._sleep is not None:
            self._sleep(seconds)


@final
class FaultyFilesystem(Wrapper):
    """Fails by a seed, as stores do: before the effect, or after it with the answer lost.

    Attributes:
        is_down: while True every call fails before its effect.
        before: probability of a failure before the effect.
        after: probability of a failure after the effect.
        page: keys in one page of a listing; None for listings in one piece. Between pages
            `between_pages` is called, and each page shows the store as it then is, in key
            order, which is what real listings are.
        between_pages: what other clients do meanwhile.
    """

    def __init__(
        self, inner: Filesystem, *, seed: int, before: float = 0.0, after: float = 0.0
    ) -> None:
        """Wrap `inner`; equal seeds and equal calls fail equally."""
        super().__init__(inner)
        self.is_down = False
        self.before = before
        self.after = after
        self.page: int | None = None
        self.between_pages: Callable[[], None] = lambda: None
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def list(self, prefix: str) -> Entries:
        """Return a listing, page by page if so told."""
        return self.around(Call("list", (prefix,)), lambda: self._pages(prefix))

    def around(self, call: Call, action: Callable[[], T]) -> T:
        """Do it, unless it is its turn to fail."""
        before, after = self._random.random(), self._random.random()
        if self.is_down or before < self.before:
            raise self._failure(call, "before its effect")
        result = action()
        if after < self.after:
            raise self._failure(call, "after its effect")
        return result

    def _pages(self, prefix: str) -> Entries:
        if self.page is None:
            return self.inner.list(prefix)
        found: Entries = []
        while True:
            after = found[-1].key if found else ""
            rest = [entry for entry in self.inner.list(prefix) if entry.key > after]
            found += rest[: self.page]
            if len(rest) <= self.page:
                return found
            self.between_pages()

    def _failure(self, call: Call, when: str) -> StorageError:
        return StorageError(f"{call.verb} of {call.keys} was made to fail {when}.", url=self.url)


class SimulatedCrash(BaseException):
    """The process died here; nothing may catch it."""


@final
class CrashAt(Wrapper):
    """Dies at one call, and stays dead: no later call, also in a `finally`, has an effect.

    Attributes:
        calls: how many calls there were, so that a first run tells a test how many points
            there are to die at.
    """

    def __init__(self, inner: Filesystem, *, at: int | None, with_effect: bool = False) -> None:
        """Wrap `inner`.

        Args:
            inner: the filesystem that does the work.
            at: number of the call that dies, from 1; None: none.
            with_effect: True to die just after that call's effect, False just before it.
        """
        super().__init__(inner)
        self.calls = 0
        self._at = at
        self._with_effect = with_effect

    def around(self, call: Call, action: Callable[[], T]) -> T:
        """Do it, while alive."""
        self.calls += 1
        if self._at is None or self.calls < self._at:
            return action()
        if self.calls == self._at and self._with_effect:
            action()
        raise SimulatedCrash(f"died at call {self._at}, now {call.verb} of {call.keys}")


def _requests(call: Call, result: object) -> Counter[str]:
    """Return what a far store is asked for one call that returned `result`, None if it failed."""
    size = len(call.keys)
    if call.verb == "list":
        found = len(result) if isinstance(result, list) else 0
        return Counter(LIST=max(1, ceil(found / _PAGE)))
    if call.verb == "put_absent":
        return Counter(PUT=1, GET=1) if result is False else Counter(PUT=1)
    if call.verb == "delete_many":
        return Counter(DELETE=ceil(size / _PAGE))
    if call.verb == "get_ranges":
        return Counter(GET=size)
    return Counter(_REQUESTS.get(call.verb, {}))


def _received_bytes(call: Call, result: object) -> int:
    """Return what came from the store for one call that returned `result`."""
    if call.verb == "download" and isinstance(result, int):
        return result
    if isinstance(result, bytes):
        return len(result)
    if call.verb == "get_ranges" and isinstance(result, list):
        return sum(map(len, result))
    return 0


_REQUESTS: Final = {
    "get": {"GET": 1},
    "download": {"LIST": 1, "GET": 1},
    "put": {"PUT": 1},
    "upload": {"PUT": 1},
    "copy": {"LIST": 1, "COPY": 1},
    "probe": {"PUT": 2, "GET": 1, "DELETE": 1},
}
