"""The most memory that this process has taken."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BESIDE_BYTES: Final = 40 << 20
"""What decoders and the allocator take beside the rows that a budget is about, at any size."""


def peak_bytes() -> int:
    """Return it; `getrusage` tells that of the process which started this one, if it is more."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])
