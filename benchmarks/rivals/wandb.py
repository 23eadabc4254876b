"""Weights & Biases, offline: everything goes to files only."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.rivals import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Adapter(Tracker):
    """A folder of offline runs."""

    def __init__(self, folder: Path) -> None:
        """Choose the folder and be quiet."""
        self._wandb: Any = import_module("wandb")
        folder.mkdir(parents=True, exist_ok=True)
        self._options: dict[str, Any] = {
            "project": "benchmark",
            "dir": str(folder),
            "mode": "offline",
            "settings": self._wandb.Settings(
                silent=True, console="off", x_disable_stats=True, x_disable_meta=True
            ),
        }
        self._run: Any = None

    def start(self, name: str) -> None:
        """Begin a run."""
        self._run = self._wandb.init(name=name, **self._options)

    def params(self, params: Mapping[str, object]) -> None:
        """Log hyperparameters."""
        self._run.config.update(dict(params))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log one step."""
        self._run.log(metrics, step=step)

    def finish(self) -> None:
        """End the run; returns when it is on the disk."""
        self._run.finish()
