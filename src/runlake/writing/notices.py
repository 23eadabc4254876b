"""What the drain thread tells people: rows wait, rows are lost, the disk refuses."""

from __future__ import annotations

import sys
import warnings

from runlake.errors import DataLossWarning, RunlakeWarning


def tell(message: str, category: type[Warning] = RunlakeWarning) -> None:
    """Warn from a thread that a filter which makes warnings errors must not end."""
    try:
        warnings.warn(message, category, stacklevel=3)
    except Warning:
        sys.stderr.write(f"runlake: {message}\n")


def tell_refused(count: int, *, limit_bytes: int) -> None:
    """Say that rows were refused because the journal is full."""
    tell(
        f"{count} rows were refused because the journal reached its limit of {limit_bytes:,} "
        "bytes (RUNLAKE_JOURNAL_LIMIT_BYTES) while the store did not answer. They are lost.",
        DataLossWarning,
    )


def tell_left(url: str, *, root: object, kept: int, gone: int) -> None:
    """Say what could not be brought out in time.

    Args:
        url: the lake.
        root: where the journals lie.
        kept: rows that a journal keeps.
        gone: rows that nothing keeps.
    """
    if kept:
        tell(
            f"{kept} rows did not reach {url!r} in time. They are kept in {root} and go out at "
            "the next opening of the lake on this host for writing, or now: runlake recover."
        )
    if gone:
        tell(
            f"{gone} rows did not reach {url!r} in time, and no journal could keep them. They "
            "are lost.",
            DataLossWarning,
        )
