"""Trackio, storing locally."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.rivals import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Adapter(Tracker):
    """A project in a folder."""

    def __init__(self, folder: Path) -> None:
        """Choose the folder."""
        os.environ["TRACKIO_DIR"] = str(folder / "trackio")
        self._trackio: Any = import_module("trackio")
        self._name = ""
        self._params: dict[str, object] = {}
        self._is_open = False

    def start(self, name: str) -> None:
        """Note the run; its params are given where it is made."""
        self._name, self._params, self._is_open = name, {}, False

    def params(self, params: Mapping[str, object]) -> None:
        """Note hyperparameters."""
        self._params = dict(params)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log one step."""
        if not self._is_open:
            self._is_open = True
            self._trackio.init(
                project="benchmark", name=self._name, config=self._params, embed=False
            )
        self._trackio.log(metrics, step=step)

    def finish(self) -> None:
        """End the run; returns when it is stored."""
        self._trackio.finish()
