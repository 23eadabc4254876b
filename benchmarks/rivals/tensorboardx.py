"""TensorBoardX: one event file for each run."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.rivals import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Adapter(Tracker):
    """A folder of event files."""

    def __init__(self, folder: Path) -> None:
        """Choose the folder."""
        self._library: Any = import_module("tensorboardX")
        self._folder = folder / "events"
        self._writer: Any = None

    def start(self, name: str) -> None:
        """Begin a run."""
        self._writer = self._library.SummaryWriter(str(self._folder / name))

    def params(self, params: Mapping[str, object]) -> None:
        """Log hyperparameters as text, which is what its users do with them."""
        for key, value in params.items():
            self._writer.add_text(key, str(value))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log one step, a call for each metric."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)

    def finish(self) -> None:
        """Write what is left."""
        self._writer.close()
