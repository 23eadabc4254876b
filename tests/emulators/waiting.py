"""Wait for a condition that another process or thread brings about."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_until(is_true: Callable[[], bool], *, seconds: float) -> None:
    """Return as soon as the condition holds; fail if it does not within `seconds`."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, f"nothing happened for {seconds} s"
        time.sleep(0.01)
