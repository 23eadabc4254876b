"""The lakes that MLflow's stores of this process share."""

from __future__ import annotations

import os
import threading
from typing import Final

from runlake import settings
from runlake.lake import Lake
from runlake.mlflow_plugin.uris import lake_url

_lock = threading.Lock()
_open: Final[dict[tuple[int, str], Lake]] = {}


def lake_of(store_uri: str) -> Lake:
    """Return the lake of an address, the same one for all of this process.

    MLflow itself notes where runs come from and what the machine does, so these lakes do not;
    each of their answers is of the newest state.

    Args:
        store_uri: as MLflow has it.

    Raises:
        InvalidInputError: it is no address of a lake, or a variable `RUNLAKE_...` is wrong.
        MissingDependencyError: the filesystem's package is not installed.
    """
    url = lake_url(store_uri)
    with _lock:
        # What a parent process has opened stays its own.
        found = _open.get((os.getpid(), url))
        if found is None:
            resolved, origin = settings.resolve(
                url=url,
                provenance="off",
                system_metrics=False,
                console=False,
                refresh_s=0.0,
            )
            found = _open[os.getpid(), url] = Lake(resolved, origin=origin)
        return found


def _renew_lock() -> None:
    """Take a new lock in a forked child, where another thread may have held the old one."""
    global _lock  # noqa: PLW0603 - there is one for the process
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
