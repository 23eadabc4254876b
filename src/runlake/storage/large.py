"""A large object on its way into a far store, in parts that travel side by side.

The file is read once, part after part; each part is hashed in a helper thread and sent while
the next is read. All uploads of a process share one bound of memory. What the store already
has, from an upload that was interrupted, is compared and not sent again; whatever fails leaves
the parts that are there, for the next try.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from io import BytesIO
    from mmap import mmap

    from runlake.storage.source import Source

Part = TypeVar("Part", bound="BytesIO | mmap")

ONE_BODY_BYTES: Final = 16 << 20
"""A file up to this size goes in one request."""
HELD_BYTES: Final = 40 << 20
"""Bytes of files that may be in memory at once."""
# The least that S3 takes: the smaller, the more connections share the same memory.
_PART_BYTES: Final = 5 << 20
# Where one waits for the other, each costs a way there and back.
_PART_IN_ORDER_BYTES: Final = 16 << 20
_PARTS: Final = 9_500  # S3 takes 10,000
_MIB: Final = 1 << 20


def part_bytes(size_bytes: int, *, is_in_order: bool) -> int:
    """Return the size of the parts of a file; the same for the same size, at every try."""
    least = -(-size_bytes // _PARTS)
    usual = _PART_IN_ORDER_BYTES if is_in_order else _PART_BYTES
    return max(usual, -(-least // _MIB) * _MIB)


@final
class Budget:
    """Bytes that may be in memory; used on one event loop."""

    def __init__(self, size_bytes: int = HELD_BYTES) -> None:
        """Lend nothing yet."""
        self._size_bytes = size_bytes
        self._lent_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, count: int) -> None:
        """Wait for room for `count` bytes; more than there ever is waits to be alone."""
        if not self._waiting and self._has_room(count):
            self._lent_bytes += count
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(count)
            raise

    def give(self, count: int) -> None:
        """Give it back."""
        self._lent_bytes -= count
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.done() and not self._has_room(wanted):
                return
            self._waiting.popleft()
            if not turn.done():
                self._lent_bytes += wanted
                turn.set_result(None)

    def _has_room(self, count: int) -> bool:
        return not self._lent_bytes or self._lent_bytes + count <= self._size_bytes


class Large(ABC, Generic[Part]):
    """How one store takes a large object; one for each try."""

    is_in_order = False
    """Whether each part must have arrived before the next is sent."""

    @abstractmethod
    async def begin(self, *, anew: bool) -> None:
        """Begin, or find what an earlier try has left.

        Args:
            anew: leave what is there alone.
        """

    @abstractmethod
    def hold(self, source: Source, count: int) -> Part:
        """Take the next bytes of the file into memory; called in a helper thread."""

    @abstractmethod
    def has(self, number: int, data: Part, mark: str) -> bool:
        """Tell whether the store has a part already; called in a helper thread.

        Args:
            number: of the part, from 1.
            data: the part.
            mark: SHA-256 of the file up to the end of this part, in hex.
        """

    @abstractmethod
    async def send(self, number: int, data: Part, mark: str) -> None:
        """Send a part, from its beginning; again if it fails."""

    @abstractmethod
    async def end(self) -> None:
        """Let the object appear."""

    def close(self) -> None:
        """Let go of what this host keeps of the upload, ended or not."""


async def send_all(
    large: Large[Any],
    source: Source,
    *,
    budget: Budget,
    ask: Callable[[Callable[[], Awaitable[None]], int], Awaitable[None]],
    anew: bool,
) -> None:
    """Send a file in parts, and let the object appear.

    Args:
        large: the store's way.
        source: the file, at its beginning.
        budget: for the parts in memory.
        ask: makes a request of so many bytes, again if it fails.
        anew: do not go on with what an earlier try left.

    Raises:
        FileChangedError: the file was written to meanwhile; there is no new object.
        StorageError: the store refused.
    """
    await ask(lambda: large.begin(anew=anew), 0)
    loop = asyncio.get_running_loop()
    left, number = source.size_bytes, 0
    size = part_bytes(left, is_in_order=large.is_in_order)
    wait_s = None if large.is_in_order else 0
    under_way: set[asyncio.Task[None]] = set()

    async def settle(number: int, data: BytesIO | mmap, count: int, mark: str) -> None:
        try:
            is_there = await loop.run_in_executor(None, large.has, number, data, mark)
            if not is_there:
                await ask(lambda: large.send(number, data, mark), count)
        finally:
            # Some clients hold what they sent until Python collects circles: closed, it is let go.
            with suppress(BufferError):
                data.close()
        source.watch.arrived(count, was_there=is_there)

    def take(count: int) -> tuple[BytesIO | mmap, str]:
        data: BytesIO | mmap = large.hold(source, count)
        if count == left:  # all is read, and some stores end with the last part
            source.finish()
        return data, source.watch.sha256

    try:
        while left:
            count, number = min(size, left), number + 1
            await budget.take(count)
            try:
                data, mark = await loop.run_in_executor(None, take, count)
                under_way = await _still(under_way, wait_s)
            except BaseException:
                budget.give(count)
                raise
            task = asyncio.create_task(settle(number, data, count, mark))
            task.add_done_callback(lambda _, count=count: budget.give(count))  # type: ignore[misc]
            under_way.add(task)
            del data, task
            left -= count
        await asyncio.gather(*under_way)
        await ask(large.end, 0)
    except BaseException:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        raise


async def _still(
    tasks: set[asyncio.Task[None]], timeout_s: float | None
) -> set[asyncio.Task[None]]:
    """Return those that are under way after a while; raise the failure of another."""
    if not tasks:
        return tasks
    done, others = await asyncio.wait(tasks, timeout=timeout_s)
    for task in done:
        task.result()
    return others
