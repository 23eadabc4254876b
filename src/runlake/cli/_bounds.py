"""Bounds for a process that runs somebody's SQL: it stops, even where DuckDB cannot.

DuckDB neither counts nor interrupts one function over one huge value. The process can: it
takes no more memory than twice what queries may hold, and it ends when the time is long over.
So whoever answers strangers runs `runlake sql` as a process of its own.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from runlake._lazy import lazy
from runlake.cli import _output
from runlake.errors import LimitExceededError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.query import confine
    from runlake.settings import Settings
else:
    confine = lazy("runlake.query.confine")

# Rows on their way out need as much as the query itself may hold.
_TIMES: Final = 2
# What DuckDB can stop has stopped by then.
_GRACE_S: Final = 2.0
_LIMIT_EXCEEDED: Final = 8  # as in `runlake.cli.EXIT_CODES`


@contextmanager
def bounded(settings: Settings, timeout_s: float | None) -> Iterator[None]:
    """Bound this process while a query runs.

    Args:
        settings: say what queries may hold in memory.
        timeout_s: seconds that the query may take; None: no limit.

    Yields:
        Nothing.

    Raises:
        LimitExceededError: there was no memory.
    """
    memory_bytes = settings.query_memory_bytes or confine.default_memory_bytes()
    timer = None
    if timeout_s is not None:
        timer = threading.Timer(timeout_s + _GRACE_S, _end, [timeout_s])
        timer.daemon = True
        timer.start()
    try:
        with confine.bounded_memory(_TIMES * memory_bytes):
            yield
    except MemoryError as error:
        message = f"the answer needs more memory than there is ({_TIMES * memory_bytes:,} bytes)."
        raise LimitExceededError(message) from error
    finally:
        if timer is not None:
            timer.cancel()
            timer.join()


def _end(timeout_s: float) -> None:
    """End the process: it does nothing but run the query, and that does not stop."""
    _output.talk(f"error: the query was stopped after {timeout_s:g} s, which is the limit.")
    sys.stderr.flush()
    os._exit(_LIMIT_EXCEEDED)
