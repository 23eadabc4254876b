"""Runs that threads are logging to at this moment."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterator


@final
class Holds:
    """Who is held, and how many times. Any thread may use it."""

    def __init__(self) -> None:
        """Hold nobody."""
        self._lock = threading.Lock()
        self._counts = Counter[str]()

    @contextmanager
    def of(self, run_id: str) -> Iterator[None]:
        """Hold a run as long as the block lasts."""
        with self._lock:
            self._counts[run_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._counts[run_id] -= 1
                if not self._counts[run_id]:
                    del self._counts[run_id]

    def runs(self) -> set[str]:
        """Return the runs that are held."""
        with self._lock:
            return set(self._counts)
