"""One event loop in one thread of this process, on which all far stores are asked.

It is runlake's own and not fsspec's, for three reasons: a forked child must get a new one;
it must work while the interpreter exits, when no thread can be started and no thread pool
takes work (asyncio would look up host names in one); and other users of fsspec keep theirs.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, final
from weakref import finalize

from runlake.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterator

T = TypeVar("T")
P = ParamSpec("P")

_HELPERS: Final = 4
_LOOK_AFTER_S: Final = 1.0


@final
class _Helpers(ThreadPoolExecutor):
    """A pool whose threads all exist from the start and that never refuses work.

    The standard pool refuses work as soon as the interpreter begins to exit, which is when
    the last rows of a run are sent. asyncio insists on the standard pool's class.
    """

    def __init__(self) -> None:
        super().__init__(max_workers=1)
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        for number in range(_HELPERS):
            name = f"runlake-io-{number}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Give a call to one of the threads."""
        future: Future[T] = Future()

        def task() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
                future.set_exception(error)
            else:
                future.set_result(result)

        self._tasks.put(task)
        return future

    def _serve(self) -> None:
        while True:
            self._tasks.get()()


@final
class _Io:
    """The loop and its thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.SelectorEventLoop()
        self.loop.set_default_executor(_Helpers())
        self.thread = threading.Thread(target=self.loop.run_forever, name="runlake-io", daemon=True)
        self.thread.start()


_lock = threading.Lock()
_making = threading.RLock()
_io: _Io | None = None
# A parent's loops and connections, kept in the child: closed there, they would take the
# parent's sockets out of the kernel's poll set, which both share.
_buried: list[object] = []
# One of each for the life of the process: connections are shared by all lakes, and adlfs
# never lets go of an instance anyway.
_shared: dict[Hashable, Any] = {}


def start() -> asyncio.AbstractEventLoop:
    """Return the loop of this process, started if it is not running yet."""
    global _io  # noqa: PLW0603 - one loop for the process is this module's purpose
    with _lock:
        if _io is None:
            _io = _Io()
        return _io.loop


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and wait for it; callable from any other thread."""
    loop = start()
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        while True:
            try:
                return future.result(_LOOK_AFTER_S)
            except TimeoutError:
                if future.done():
                    return future.result()
            _check_alive()
    except BaseException:
        future.cancel()
        raise


def _check_alive() -> None:
    if _io is None or not _io.thread.is_alive():
        raise StorageError("the process is ending, and the thread that asks the store has ended.")


def bury(thing: object) -> None:
    """Keep something of the parent process for as long as this child lives."""
    _buried.append(thing)


def shared(name: Hashable, make: Callable[[], T]) -> T:
    """Return what `make` made for this name in this process; a forked child makes its own."""
    with _making:
        if name not in _shared:
            _shared[name] = make()
        found: T = _shared[name]
        return found


def _forget_parent() -> None:
    """Let a forked child begin without its parent's loop and connections, but not close them."""
    global _io, _lock, _making  # noqa: PLW0603 - a child has one thread, and no lock is held
    _lock, _making = threading.Lock(), threading.RLock()
    if _io is None:
        return
    # At the child's exit, libraries would close their connections on a loop whose thread
    # exists in the parent only, and adlfs would wait for it without an end.
    for finalizer in list(getattr(finalize, "_registry", ())):
        alive = finalizer.peek()
        if alive is not None and any(part is _io.loop for part in _parts(alive)):
            finalizer.detach()
    bury((_io, dict(_shared)))
    _shared.clear()
    _io = None


def _parts(alive: tuple[Any, ...]) -> Iterator[object]:
    """Yield what a finalizer holds: its object, its function, and that function's arguments."""
    holder, function, arguments, _ = alive
    yield from (holder, function, getattr(holder, "_loop", None), *arguments)


os.register_at_fork(after_in_child=_forget_parent)
