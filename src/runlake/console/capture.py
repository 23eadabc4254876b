"""One run's console: texts are put aside in order, and a thread makes rows of them.

Who prints waits for nothing: the text goes into a queue that takes no lock of ours, so that
printing from a signal handler, from a finalizer or while a row is logged stays as safe as it
was. The rows are in the journal a twentieth of a second later.
"""

from __future__ import annotations

import threading
from itertools import groupby
from operator import itemgetter
from queue import Empty, SimpleQueue
from threading import get_ident
from typing import TYPE_CHECKING, Final

from runlake import clock, schema
from runlake.console import streams
from runlake.console.lines import Fold, Ration
from runlake.errors import RunlakeError, StateError
from runlake.writing.notices import tell

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runlake.console.lines import Line
    from runlake.run_log import RunLog
    from runlake.writing.events import Row

GATHER_S: Final = 0.05
"""So long texts are gathered before rows are made of them."""
WAITING_CHARS: Final = 1 << 23
"""Texts past this wait for no thread: their lines are counted and left out."""
# After so long without a word it is told what was left out.
_QUIET_S: Final = 1.0
# So long the end of a run waits for the thread.
_END_S: Final = 5.0
_AT_ONCE: Final = 4096


class Console:
    """What is printed while one run is open."""

    def __init__(self, log: RunLog) -> None:
        """Begin.

        Args:
            log: takes the lines.

        Raises:
            StateError: neither stream can be heard.
        """
        self._log = log
        self._texts: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        # A lock that its own thread may take again: a signal handler may print while it is held.
        self._lock = threading.RLock()
        self._missed = 0
        # Without a lock: what two threads make of it at once is put right when nothing waits.
        self._waiting = 0
        self._ended = threading.Event()
        self._folds = {name: Fold() for name in streams.NAMES}
        self._ration = Ration()
        self._thread = threading.Thread(target=self._serve, name="runlake-console", daemon=True)
        self._thread.start()
        self._own = self._thread.ident
        heard = streams.listen(self._take)
        if not heard:
            self.end()
            raise StateError("neither stdout nor stderr can be heard.")

    def end(self) -> None:
        """Hear no more; return when what was printed before is in the journal."""
        streams.leave(self._take)
        self._texts.put(None)
        self._ended.set()
        self._thread.join(_END_S)
        if self._thread.is_alive():
            tell("the last lines of the console could not be logged in time.")

    def _take(self, stream: str, text: str) -> None:
        """Put a text aside; any thread, at any moment."""
        if get_ident() == self._own:
            return  # what is said about the console would go round for ever
        waiting = self._waiting + len(text)
        if waiting <= WAITING_CHARS:
            self._waiting = waiting
            self._texts.put((stream, text))
        else:
            with self._lock:
                self._missed += text.count("\n") or 1

    # The thread.

    def _serve(self) -> None:
        is_last = False
        while not is_last:
            try:
                first = self._texts.get(timeout=_QUIET_S if self._ration.holds_back else None)
            except Empty:
                is_last = not self._keep([] if self._ration.is_used_up else self._ration.tell())
                continue
            self._ended.wait(GATHER_S)
            texts = [first, *self._gathered()]
            is_last = None in texts
            lines = list(self._lines(text for text in texts if text is not None))
            if is_last:
                lines += self._rest()
            is_last = not self._keep(lines) or is_last

    def _gathered(self) -> Iterable[tuple[str, str] | None]:
        for _ in range(_AT_ONCE):
            try:
                yield self._texts.get_nowait()
            except Empty:
                return

    def _lines(self, texts: Iterable[tuple[str, str]]) -> Iterable[Line]:
        """Yield the lines to be kept that these texts end."""
        now_s = clock.monotonic_s()
        for stream, pieces in groupby(texts, itemgetter(0)):
            text = "".join(piece for _, piece in pieces)
            self._waiting -= len(text)
            for line in self._folds[stream].feed(text):
                yield from self._ration.take(stream, line, now_s=now_s)
        if self._texts.empty():
            self._waiting = 0
        with self._lock:
            missed, self._missed = self._missed, 0
        if missed:
            self._ration.miss(missed)
            for fold in self._folds.values():
                fold.drop()

    def _rest(self) -> Iterable[Line]:
        """Yield what was begun and not ended, and what was held back."""
        now_s = clock.monotonic_s()
        for stream, fold in self._folds.items():
            line = fold.rest()
            if line:
                yield from self._ration.take(stream, line, now_s=now_s)
        yield from self._ration.tell()

    def _keep(self, lines: Iterable[Line]) -> bool:
        """Log lines; False if the run takes no more."""
        run_id = self._log.run_id
        rows: list[Row] = [
            (run_id, schema.CONSOLE, line.stream, float(line.number), line.text) for line in lines
        ]
        try:
            self._log.events(rows)
        except RunlakeError:
            return False
        return True
