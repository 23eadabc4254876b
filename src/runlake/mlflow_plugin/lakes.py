"""The lakes that MLflow's stores of this process share."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from runlake import settings
from runlake.lake import Lake
from runlake.mlflow_plugin.siblings import Siblings
from runlake.mlflow_plugin.uris import lake_url
from runlake.writing import places

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runlake.settings import Settings

_lock = threading.Lock()
_open: Final[dict[tuple[int, str], Lake]] = {}


class SharedLake(Lake):
    """A lake that sees at once what other processes of this host log to it through MLflow."""

    def __init__(self, resolved: Settings, *, origin: Mapping[str, str]) -> None:
        """Open a lake, and find the others.

        Args:
            resolved: every knob.
            origin: where each came from.
        """
        super().__init__(resolved, origin=origin)
        is_own = self.url.startswith("memory:") or resolved.is_disabled
        root = None if is_own else places.choose(resolved).root
        self._siblings = Siblings(self.url, root, recover=self.maintain.recover)

    def _bring_own(self) -> bool:
        """Bring out what this process and its siblings have logged."""
        own = super()._bring_own()
        return self._siblings.bring() or own


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
            found = _open[os.getpid(), url] = SharedLake(resolved, origin=origin)
        return found


def _renew_lock() -> None:
    """Take a new lock in a forked child, where another thread may have held the old one."""
    global _lock  # noqa: PLW0603 - there is one for the process
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
