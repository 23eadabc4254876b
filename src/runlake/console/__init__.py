"""The console: what a process prints while a run is open, kept line by line.

`Console` is the companion of one run. The terminal comes first: a text is handed to the stream
it was written to, and only then put aside, without waiting for anything.
"""

from __future__ import annotations

from runlake.console.capture import Console

__all__ = ["Console"]
