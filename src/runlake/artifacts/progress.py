"""How far files on their way are: told to whoever asks, else shown in a terminal.

What takes less than a second is not shown, and nothing is where standard error is no terminal.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, final

from runlake import arguments, clock
from runlake._lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Callable

    import rich.console as rich_console
    import rich.progress as rich_progress
else:
    rich_console = lazy("rich.console")
    rich_progress = lazy("rich.progress")

_SHOWN_AFTER_S: Final = 1.0


class Progress(NamedTuple):
    """How far files are.

    Attributes:
        done_bytes: that have arrived, or were there already.
        all_bytes: of all the files.
        done_files: that have arrived.
        all_files: how many there are.
    """

    done_bytes: int
    all_bytes: int
    done_files: int
    all_files: int


@final
class Meter:
    """Counts what arrives, from any thread, and tells of it; a context manager."""

    def __init__(
        self,
        deed: str,
        *,
        all_bytes: int,
        all_files: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        """Begin at zero.

        Args:
            deed: shown before the bar, as `uploading`.
            all_bytes: of all files.
            all_files: how many.
            progress: called with each step; None shows a bar in a terminal.
        """
        self._deed, self._progress = deed, progress
        self._all_bytes, self._all_files = all_bytes, all_files
        self._done_bytes = self._done_files = 0
        self._lock = threading.Lock()
        progress = arguments.callback("progress", progress)
        self._is_shown = progress is None and sys.stderr.isatty()
        self._began_s = clock.monotonic_s()
        self._bar: Any = None

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        with self._lock:
            self._is_shown = False
            if self._bar is not None:
                self._bar[0].stop()

    def arrived(self, size_bytes: int) -> None:
        """Count bytes; fewer than none where a file begins anew."""
        self._step(size_bytes, 0)

    def finished(self) -> None:
        """Count a file."""
        self._step(0, 1)

    def _step(self, size_bytes: int, files: int) -> None:
        with self._lock:
            self._done_bytes += size_bytes
            self._done_files += files
            if self._progress is not None:
                self._progress(
                    Progress(self._done_bytes, self._all_bytes, self._done_files, self._all_files)
                )
            elif self._is_shown:
                self._show()

    def _show(self) -> None:
        if self._bar is None:
            if clock.monotonic_s() - self._began_s < _SHOWN_AFTER_S:
                return
            bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.DownloadColumn(binary_units=True),
                rich_progress.TransferSpeedColumn(),
                rich_progress.TimeRemainingColumn(),
                console=rich_console.Console(stderr=True),
                transient=True,
            )
            self._bar = bar, bar.add_task(self._deed, total=self._all_bytes)
            bar.start()
        bar, task = self._bar
        bar.update(task, completed=self._done_bytes)
