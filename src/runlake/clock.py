"""The only place that asks what time it is, so that a test can decide it."""

from __future__ import annotations

import time


def now_us() -> int:
    """Return the wall clock in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def monotonic_s() -> float:
    """Return a clock in seconds that never goes back; only differences mean anything."""
    return time.monotonic()
