"""The trackers that are measured, each behind the same verbs.

An adapter does what the tracker's own documentation tells a user to do, with what makes it
quietest and fastest, and imports nothing of runlake but in `ours`, so that it also runs in an
environment that holds the rivals only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.data import Sweep

OURS: Final = "ours"
BARE: Final = "parquet"
NAMES: Final = ("mlflow", "tensorboardx", "trackio", "wandb")
ASKABLE: Final = ("mlflow",)


class Tracker(ABC):
    """One tracker, writing below one folder."""

    @abstractmethod
    def __init__(self, folder: Path) -> None:
        """Do what a script does once."""

    @abstractmethod
    def start(self, name: str) -> None:
        """Begin a run."""

    @abstractmethod
    def params(self, params: Mapping[str, object]) -> None:
        """Log hyperparameters of the run."""

    @abstractmethod
    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log one point of each of several metrics."""

    @abstractmethod
    def finish(self) -> None:
        """End the run."""

    def close(self) -> None:  # noqa: B027 - where `finish` has waited there is nothing to do
        """Return when everything is in the store."""


class Askable(Tracker):
    """A tracker that answers the questions that runlake is asked."""

    @abstractmethod
    def fill(self, sweep: Sweep) -> None:
        """Bring many runs in, by whatever way is quickest."""

    @abstractmethod
    def search(self, filter_string: str, order_by: Sequence[str], limit: int) -> list[str]:
        """Return the names of the runs that match, in order."""

    @abstractmethod
    def history(self, key: str) -> int:
        """Read the whole curve of a metric of the run `run-0`, and return its points."""


def tracker(name: str, folder: Path) -> Tracker:
    """Open one tracker by the name of its adapter."""
    made: Tracker = import_module(f"benchmarks.rivals.{name}").Adapter(folder)
    return made
