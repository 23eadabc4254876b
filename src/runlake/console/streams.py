"""What is written to `sys.stdout` and `sys.stderr`, handed on to those who want to know.

The streams stay the very same objects: only their attribute `write` is another one meanwhile.
So whoever holds a stream, as the handler of a logger does, is heard, and `isatty`, `encoding`,
`fileno` and all else are what they were. What goes past the streams is not heard: C libraries,
child processes, and bytes written to `sys.stdout.buffer`.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

# Gets the stream's name and the text; it must not wait, nor raise.
Taker: TypeAlias = "Callable[[str, str], None]"

NAMES: Final = ("stdout", "stderr")
_lock = threading.RLock()
_takers: tuple[Taker, ...] = ()
_taps: list[_Tap] = []


class _Tap:
    """One stream whose `write` also tells the takers."""

    def __init__(self, name: str, stream: Any) -> None:  # noqa: ANN401 - whatever stands for a file
        self.stream = stream
        self._held = vars(stream)
        self._before = self._held.get("write")
        self._is_live = True
        pass_on: Callable[[str], Any] = stream.write

        def write(text: str, /) -> Any:  # noqa: ANN401 - what the stream returns
            count = pass_on(text)  # the terminal comes first; what it raises, it raises
            if self._is_live:
                for take in _takers:
                    take(name, text)
            return count

        self._write = self._held["write"] = write

    @property
    def is_on_top(self) -> bool:
        """Whether nobody has put another `write` over this one."""
        return self._held.get("write") is self._write

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
    heard = []
    with _lock:
        for name in NAMES:
            stream = getattr(sys, name)
            if stream is not None and _tap(name, stream):
                heard.append(name)
        _takers = (*_takers, taker)
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
            while _taps:
                _taps.pop().close()


def _tap(name: str, stream: Any) -> bool:  # noqa: ANN401 - as above
    """Hear a stream; False if its kind does not let us."""
    for tap in list(_taps):
        if tap.stream is stream:
            if tap.is_on_top:
                return True
            # It may be heard through another's `write` or not at all; twice it must not be.
            tap.close()
            _taps.remove(tap)
    try:
        _taps.append(_Tap(name, stream))
    except (TypeError, AttributeError):
        return False
    return True


def _after_fork_in_child() -> None:
    """Put the streams right: what a child prints is not its parent's."""
    global _lock, _takers
    _lock, _takers = threading.RLock(), ()
    while _taps:
        _taps.pop().close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
