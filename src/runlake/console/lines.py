"""From pieces of text to the lines that a terminal would show, and how many of them are kept.

Nothing here does I/O or asks for the time.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_CHARS: Final = 8192
"""Of a longer line the beginning is kept, and how much is missing."""
LINES_PER_SECOND: Final = 1000
"""Of more lines in one second the first are kept, and the last of those left out."""
LAST_LINES: Final = 100
"""So many of the lines left out are kept after all: the last ones."""
LINES_PER_RUN: Final = 1_000_000
"""What one process keeps of a run at most, the last lines not counted."""
CHARS_PER_RUN: Final = 1 << 28
"""What one process keeps of a run at most: a quarter of a billion characters."""

# Colours, moves of the cursor, titles of windows: a terminal obeys them and shows nothing.
_ESCAPES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?"
    r"|[ -/]*[0-~])"
)
_SILENT: Final = {code: None for code in (*range(32), 127) if chr(code) != "\t"}
_PLAIN: Final = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]*")


class Line(NamedTuple):
    """A line that was printed.

    Attributes:
        stream: `stdout` or `stderr`.
        number: among all lines that were printed while the run was open, from 1.
        text: without the line's end.
    """

    stream: str
    number: int
    text: str


class Fold:
    """The lines of one stream, as its pieces come.

    A carriage return begins the line anew, so that of a progress bar its last state is kept.
    """

    def __init__(self) -> None:
        """Begin at the start of a line."""
        self._now = ""  # what was written since the line began, or began anew
        self._before = ""  # what stood there before it began anew
        self._missing = 0

    def feed(self, text: str) -> Iterator[str]:
        """Take a piece of what was written.

        Args:
            text: of any length.

        Yields:
            The lines that it ends.
        """
        *ended, begun = text.split("\n")
        for piece in ended:
            self._write(piece)
            yield self._end()
        if begun:
            self._write(begun)

    def rest(self) -> str:
        """Return the line that was begun and not ended, empty if there is none."""
        return self._end()

    def drop(self) -> None:
        """Forget what was begun: the piece that follows is not its other half."""
        self._end()

    def _write(self, piece: str) -> None:
        if "\r" in piece:
            *over, piece = piece.split("\r")
            over[0] = self._now + over[0]
            self._before = next((each for each in reversed(over) if each), self._before)
            self._now, self._missing = "", 0
        room = LINE_CHARS - len(self._now)
        self._now += piece[:room]
        self._missing += max(0, len(piece) - room)

    def _end(self) -> str:
        shown = cleaned(self._now or self._before)
        if self._missing:
            shown += f"… [{self._missing:,} characters more]"
        self._now, self._before, self._missing = "", "", 0
        return shown


def cleaned(line: str) -> str:
    """Return what a terminal shows of a line: without escapes and control characters.

    Args:
        line: one line; lone surrogates in it become question marks.
    """
    if _PLAIN.fullmatch(line):
        return line
    line = _ESCAPES.sub("", line)
    if "\b" in line:
        kept: list[str] = []
        for char in line:
            if char != "\b":
                kept.append(char)
            elif kept:
                kept.pop()
        line = "".join(kept)
    return line.translate(_SILENT).encode(errors="replace").decode()


class Ration:
    """Which lines are kept: so many in a second, so many in all, and always the last."""

    def __init__(self) -> None:
        """Nothing was printed yet."""
        self._number = 0
        self._kept = self._chars = 0
        self._second = -1
        self._in_second = 0
        self._left_out = 0
        self._last: deque[Line] = deque(maxlen=LAST_LINES)

    @property
    def holds_back(self) -> bool:
        """Whether lines were left out that are not told of yet."""
        return self._left_out > 0

    @property
    def is_used_up(self) -> bool:
        """Whether nothing more is kept but the last lines."""
        return self._kept >= LINES_PER_RUN or self._chars >= CHARS_PER_RUN

    def take(self, stream: str, text: str, *, now_s: float) -> Iterator[Line]:
        """Count a line.

        Args:
            stream: it was printed on.
            text: of the line.
            now_s: seconds on a clock that never goes back.

        Yields:
            What is to be kept now.
        """
        if int(now_s) != self._second and not self.is_used_up:
            yield from self.tell()
            self._second, self._in_second = int(now_s), 0
        self._number += 1
        line = Line(stream, self._number, text)
        if self.is_used_up or self._in_second >= LINES_PER_SECOND:
            self._left_out += 1
            self._last.append(line)
            return
        self._in_second += 1
        self._kept += 1
        self._chars += len(text)
        yield line

    def miss(self, count: int) -> None:
        """Count lines that were printed and whose text is gone.

        Args:
            count: how many.
        """
        self._number += count
        self._left_out += count
        # Those before them are no longer the last.
        self._last.clear()

    def tell(self) -> Iterator[Line]:
        """Yield a line that says how many were left out, and the last of them."""
        gone = self._left_out - len(self._last)
        last, self._left_out = list(self._last), 0
        self._last.clear()
        if gone > 0:
            where = last[0] if last else Line("stdout", self._number + 1, "")
            lines = f"{gone:,} line{'s' if gone > 1 else ''}"
            yield Line(where.stream, where.number - 1, f"[runlake left out {lines} here]")
        yield from last
