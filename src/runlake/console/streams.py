"""What is written to `sys.stdout` and `sys.stderr`, handed on to those who want to know.

The streams stay the very same objects: only their attribute `write` is another one meanwhile.
So whoever holds a stream, as the handler of a logger does, is heard, and `isatty`, `encoding`,
`fileno` and all else are what they were. What goes past the streams is not heard: C libraries,
child processes, and bytes written to `sys.stdout.buffer`.

IPython puts a `write` of its own over each stream for the length of a cell, and afterwards puts
back what was there before, also where a cell has put ours there meanwhile. So the streams are
looked at before and after each cell.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from runlake._lazy import lazy

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
else:
    # Wanted in a notebook only, and there it is loaded already.
    asyncio = lazy("asyncio")

# Gets the stream's name and the text; it must not wait, nor raise.
Taker: TypeAlias = "Callable[[str, str], None]"

NAMES: Final = ("stdout", "stderr")
_lock = threading.RLock()
_takers: tuple[Taker, ...] = ()
_taps: list[_Tap] = []
# The events of the shell of IPython that runs the cells; None where there is none.
_cells: Any = None


class _Tap:
    """One stream whose `write` also tells the takers."""

    def __init__(self, name: str, stream: Any) -> None:  # noqa: ANN401 - whatever stands for a file
        self.name = name
        self.stream = stream
        self._held = vars(stream)
        self._before = self._held.get("write")
        self._is_live = True
        self._was_passed = False
        pass_on: Callable[[str], Any] = stream.write

        def write(text: str, /) -> Any:  # noqa: ANN401 - what the stream returns
            count = pass_on(text)  # the terminal comes first; what it raises, it raises
            if self._is_live:
                if not text:
                    self._was_passed = True
                    return count
                for take in _takers:
                    take(name, text)
            return count

        self._write = self._held["write"] = write

    @property
    def is_on_top(self) -> bool:
        """Whether nobody has put another `write` over this one."""
        return self._held.get("write") is self._write

    def is_heard(self) -> bool:
        """Whether the stream is still heard here, if only through another `write`."""
        if self.is_on_top:
            return True
        self._was_passed = False
        with suppress(OSError, TypeError, ValueError):  # it may be closed, or no file at all
            self.stream.write("")  # shows nothing, and tells whether it comes by here
        return self._was_passed

    def close(self) -> None:
        """Put back what was there, if it is still ours to put back; else only pass on."""
        self._is_live = False
        if self.is_on_top:
            if self._before is None:
                del self._held["write"]
            else:
                self._held["write"] = self._before


def listen(taker: Taker) -> list[str]:
    """Hand on what is written from now on.

    Args:
        taker: gets it.

    Returns:
        The names of the streams that are heard.
    """
    global _takers  # noqa: PLW0603 - read for each text, so it is replaced in one step
    with _lock:
        heard = [name for name in NAMES if _tap(name, getattr(sys, name))]
        _takers = (*_takers, taker)
        _follow_cells()
    return heard


def leave(taker: Taker) -> None:
    """Hand on nothing more; the last one to leave has the streams put right.

    Args:
        taker: as it was given; one that is not there is fine.
    """
    global _takers  # noqa: PLW0603 - as above
    with _lock:
        _takers = tuple(other for other in _takers if other != taker)
        if not _takers:
            _leave_cells()
            while _taps:
                _taps.pop().close()


def _tap(name: str, stream: Any) -> bool:  # noqa: ANN401 - as above
    """Hear a stream; False if there is none, or its kind does not let us."""
    if stream is None:
        return False
    for tap in list(_taps):
        if tap.stream is stream:
            if tap.is_heard():
                return True
            # Twice it must not be heard, should the other `write` come back.
            tap.close()
            _taps.remove(tap)
    try:
        _taps.append(_Tap(name, stream))
    except (TypeError, AttributeError):
        return False
    return True


def _follow_cells() -> None:
    """Have IPython say when a cell begins and ends, if it runs this program."""
    global _cells  # noqa: PLW0603 - one shell for each process
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and _cells is None:
        _cells = shell.events
        _cells.register("pre_run_cell", _hear_again)
        _cells.register("post_run_cell", _hear_again_soon)


def _leave_cells() -> None:
    global _cells  # noqa: PLW0603 - as above
    if _cells is not None:
        _cells.unregister("pre_run_cell", _hear_again)
        _cells.unregister("post_run_cell", _hear_again_soon)
        _cells = None


def _hear_again(*_: object) -> None:
    """Hear the streams that IPython has put back as they were before."""
    with _lock:
        for tap in list(_taps) if _takers else ():
            _tap(tap.name, tap.stream)


def _hear_again_soon(*_: object) -> None:
    """Do so when the cell is over: its threads may print until the next begins."""
    with suppress(RuntimeError):  # no loop runs here, and so nothing tells of the end
        asyncio.get_running_loop().call_soon(_hear_again)


def _after_fork_in_child() -> None:
    """Put the streams right: what a child prints is not its parent's."""
    global _lock, _takers
    _lock, _takers = threading.RLock(), ()
    _leave_cells()
    while _taps:
        _taps.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
