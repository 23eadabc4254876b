"""The test kit, for plug-ins and for runlake itself: bad filesystems and what good ones do.

`open_lake` opens a lake over any filesystem; the others are filesystems that wrap one.
"""

from __future__ import annotations

from runlake.testing.filesystems import (
    Call,
    CountingFilesystem,
    CrashAt,
    FaultyFilesystem,
    SimulatedCrash,
    SlowFilesystem,
    Wrapper,
)
from runlake.testing.lakes import open_lake

__all__ = [
    "Call",
    "CountingFilesystem",
    "CrashAt",
    "FaultyFilesystem",
    "SimulatedCrash",
    "SlowFilesystem",
    "Wrapper",
    "open_lake",
]
