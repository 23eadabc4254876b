"""The end of the process: open runs end, and what is logged goes out.

`atexit` serves ordinary ends, a finalizer serves multiprocessing workers (which run no
`atexit`), and SIGTERM becomes an exception that unwinds `with` blocks, where nobody else has
taken that signal. SIGKILL needs nothing: the journal is on disk.
"""

from __future__ import annotations

import atexit

# Loaded while it can still be: once the interpreter ends it refuses, and the libraries that
# the last upload of a short script loads would fail with it.
import concurrent.futures.thread  # noqa: F401 - for what loading it does
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Protocol

from runlake import clock
from runlake.upkeep import automatic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Endable(Protocol):
    """A run."""

    def _finish_with(self, error: BaseException | None) -> None:
        """End as the process ends."""


class Closable(Protocol):
    """A drain."""

    def begin_close(self) -> float:
        """End all writers; return the seconds that the rest may take."""

    def end_close(self, timeout_s: float) -> None:
        """Wait until everything is out, or say what is not."""


class Terminated(SystemExit):
    """SIGTERM asked this process to end; blocks unwind, and runs end as KILLED."""


class _Process:
    """What this process must do before it ends."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.runs: dict[int, Endable] = {}
        self.drains: dict[int, Closable] = {}
        self.late: dict[Callable[[bool], None], None] = {}
        self.terminated: Terminated | None = None
        self.is_registered = False


_process = _Process()


def watch_run(run: Endable) -> None:
    """End a run at the end of the process, if nobody has ended it before."""
    _here().runs[id(run)] = run
    _catch_sigterm()


def forget_run(run: Endable) -> None:
    """Let go of a run that has ended."""
    _here().runs.pop(id(run), None)


def watch_drain(drain: Closable) -> None:
    """Close a drain at the end of the process."""
    _here().drains[id(drain)] = drain


def watch_late(call: Callable[[bool], None]) -> None:
    """Call something at the end of the process, when runs have ended and before drains close.

    Args:
        call: told whether there is little time, because the process was told to end.
    """
    _here().late[call] = None


def _here() -> _Process:
    """Return this process's record: a forked child begins with an empty one."""
    global _process  # noqa: PLW0603 - one record for each process, renewed after a fork
    if _process.pid != os.getpid():
        _process = _Process()
    if not _process.is_registered:
        _process.is_registered = True
        atexit.register(end)
        util = sys.modules.get("multiprocessing.util")
        process = sys.modules.get("multiprocessing.process")
        if util is not None and process is not None and process.parent_process() is not None:
            util.Finalize(None, end, exitpriority=10)
    return _process


def end() -> None:
    """End all open runs, then close all drains, then end upkeep; twice is the same as once."""
    here = _process
    if here.pid != os.getpid():
        return
    error = here.terminated or _unhandled()
    while here.runs:
        _, run = here.runs.popitem()
        run._finish_with(error)  # noqa: SLF001 - a run says so to nobody else
    while here.late:
        call, _ = here.late.popitem()
        call(here.terminated is not None)
    drains = list(here.drains.values())
    here.drains.clear()
    # All end at once, so that a process with many lakes waits for the slowest, not for the sum.
    deadline_s = clock.monotonic_s() + max([drain.begin_close() for drain in drains], default=0.0)
    for drain in drains:
        drain.end_close(max(0.0, deadline_s - clock.monotonic_s()))
    # Who was told to end has little time.
    automatic.end(0.0 if here.terminated else automatic.END_S)


def _unhandled() -> BaseException | None:
    """Return the exception that ends a script; in a notebook an old one means nothing."""
    if hasattr(sys, "ps1") or "IPython" in sys.modules:
        return None
    error = getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None


def _catch_sigterm() -> None:
    """Take SIGTERM where it would just kill the process, in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    # A second SIGTERM kills at once, as it would have without us.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if not _process.runs or _process.pid != os.getpid():
        os.kill(os.getpid(), number)
        return
    _process.terminated = Terminated(128 + number)
    raise _process.terminated
