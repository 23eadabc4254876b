"""Upkeep: compaction, vacuum, purge, copy and verification, while others write and read."""

from typing import Final

GRACE_S: Final = 3600.0
"""How long what was replaced stays for those who read it, unless somebody says otherwise."""

SEEN_SEGMENTS: Final = 256
"""A reader that sees more live segments of an experiment has it looked at."""
