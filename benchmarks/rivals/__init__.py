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
    from collections.abc import Mapping
    from pathlib import Path

OURS: Final = "ours"
BARE: Final = "parquet"
NAMES: Final = ("mlflow", "tensorboardx", "trackio", "wandb")


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


def tracker(name: str, folder: Path) -> Tracker:
    """Open one tracker by the name of its adapter."""
    made: Tracker = import_module(f"benchmarks.rivals.{name}").Adapter(folder)
    return made
