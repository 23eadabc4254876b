"""No tracker at all: rows in lists, and one bare Parquet file for each run. The physical limit."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.rivals import Tracker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Adapter(Tracker):
    """A folder of files."""

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        self._arrow: Any = import_module("pyarrow")
        self._parquet: Any = import_module("pyarrow.parquet")
        self._arrow.array([0])  # loads pandas where it is installed
        self._folder = folder / "parquet"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._columns: tuple[list[str], list[int], list[float]] = ([], [], [])
        self._params: dict[str, str] = {}
        self._name = ""

    def start(self, name: str) -> None:
        """Begin a file."""
        self._name = name
        self._columns = ([], [], [])

    def params(self, params: Mapping[str, object]) -> None:
        """Keep them for the file's metadata."""
        self._params = {key: str(value) for key, value in params.items()}

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep one step."""
        keys, steps, values = self._columns
        keys.extend(metrics)
        steps.extend([step] * len(metrics))
        values.extend(metrics.values())

    def finish(self) -> None:
        """Write the file."""
        table = self._arrow.table(self._columns, names=["key", "step", "value"])
        table = table.replace_schema_metadata(self._params)
        self._parquet.write_table(table, self._folder / f"{self._name}.parquet", compression="zstd")
