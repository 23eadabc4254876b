"""runlake itself."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import runlake
from benchmarks.rivals import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Adapter(Tracker):
    """A local lake."""

    def __init__(self, folder: Path) -> None:
        """Open the lake, with what it loads at its first upload loaded, as the others have."""
        import_module("pyarrow.parquet")
        self._lake = runlake.open(folder / "lake")
        self._run: runlake.Run

    def start(self, name: str) -> None:
        """Begin a run."""
        self._run = self._lake.start_run(name)

    def params(self, params: Mapping[str, object]) -> None:
        """Log hyperparameters."""
        self._run.log_params(params)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log one step."""
        self._run.log(metrics, step)

    def finish(self) -> None:
        """End the run; its rows are on their way."""
        self._run.finish()

    def close(self) -> None:
        """Wait for the store."""
        self._lake.close()
