"""The only place that asks what time it is, so that a test can decide it."""

from __future__ import annotations

import time
from typing import Final


def now_us() -> int:
    """Return the wall clock in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


now_ns: Final = time.time_ns
"""The wall clock in nanoseconds: without a call in between, for each logged value."""


def monotonic_s() -> float:
    """Return a clock in seconds that never goes back; only differences mean anything."""
    return time.monotonic()
