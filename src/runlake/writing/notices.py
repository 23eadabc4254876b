"""What the drain thread tells people: rows wait, rows are lost, the disk refuses."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

from runlake.errors import DataLossWarning, RunlakeError, RunlakeWarning, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runlake.writing.lanes import Lane


def tell(message: str, category: type[Warning] = RunlakeWarning) -> None:
    """Warn from a thread that a filter which makes warnings errors must not end."""
    try:
        warnings.warn(message, category, stacklevel=3)
    except Warning:
        sys.stderr.write(f"runlake: {message}\n")


def tell_failing(url: str, error: Exception) -> None:
    """Say that rows wait, and why."""
    known = isinstance(error, (RunlakeError, OSError))
    detail = f"{error}" if known else f"{type(error).__name__}: {error}"
    tell(
        f"rows cannot be brought to {url!r} now: {detail}. Logging goes on; they are kept in the "
        "local journal and go out when the store answers."
    )


def tell_unsettled(where: str, error: OSError) -> None:
    """Say that an artifact may not be what was put."""
    tell(
        f"the artifact {where!r} was copied, but could not be brought to the disk or read back: "
        f"{error}. It is logged without a digest; log it again."
    )


def not_flushed(url: str, count: int, why: str) -> StorageError:
    """Return the error that says that rows wait, and why.

    Args:
        url: the lake.
        count: how many rows.
        why: what the store said.

    Returns:
        The error, to be raised.
    """
    message = (
        f"{count} rows did not reach {url!r}: {why}. They are kept in the local journal and go "
        "out when the store answers."
    )
    return StorageError(message, url=url)


def tell_no_thread(url: str, error: Exception) -> None:
    """Say that rows wait for another process."""
    tell(
        f"the thread that brings rows to {url!r} cannot start ({error}). They are kept in the "
        "local journal and go out at the next opening of the lake."
    )


def tell_refused(count: int, *, limit_bytes: int) -> None:
    """Say that rows were refused because the journal is full."""
    tell(
        f"{count} rows were refused because the journal reached its limit of {limit_bytes:,} "
        "bytes (RUNLAKE_JOURNAL_LIMIT_BYTES) while the store did not answer. They are lost.",
        DataLossWarning,
    )


def tell_left(url: str, lanes: Iterable[Lane[Any]], *, root: object) -> None:
    """Say what could not be brought out in time.

    Args:
        url: the lake.
        lanes: whose rows.
        root: where the journals lie that keep them.
    """
    kept = gone = 0
    for lane in lanes:
        if lane.lock is None:
            gone += lane.writer.pending
        else:
            kept += lane.writer.pending
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
