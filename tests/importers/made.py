"""A source that holds what a test says, and what a lake holds of runs, to be compared."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from runlake.importers.source import (
    Note,
    Source,
    SourceEvent,
    SourceExperiment,
    SourceFile,
    SourceInput,
    SourceRun,
    point_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

    from runlake.lake import Lake

Point = tuple[str, int, int, float]


@dataclass(kw_only=True)
class Made:
    """A run as a test says it; times in microseconds."""

    id: str
    points: list[Point] = field(default_factory=list)
    params: dict[str, object] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    inputs: list[SourceInput] = field(default_factory=list)
    events: list[SourceEvent] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    experiment: str = "made"
    name: str | None = None
    status: str = "FINISHED"
    start_us: int | None = 1_700_000_000_000_000
    end_us: int | None = 1_700_000_100_000_000
    parent: str | None = None
    is_deleted: bool = False
    version: str = ""


class MadeSource(Source):
    """The runs of a test, points in pieces of three."""

    kind = "made"
    name = "a test"

    def __init__(self, runs: list[Made], folder: Path) -> None:
        """Hold them."""
        self.made, self._folder = runs, folder
        self.read = 0

    def runs(self) -> Iterator[SourceRun]:
        for run in self.made:
            yield self._run(run)

    def _run(self, run: Made) -> SourceRun:
        return SourceRun(
            source_id=run.id,
            experiment=SourceExperiment(run.experiment, source_id="7", tags={"of": "test"}),
            name=run.name,
            status=run.status,
            start_us=run.start_us,
            end_us=run.end_us,
            user="ada",
            source_name="train.py",
            parent_id=run.parent,
            is_deleted=run.is_deleted,
            params=run.params,
            tags=run.tags,
            inputs=run.inputs,
            points=lambda: self._points(run),
            artifacts=lambda: self._files(run),
            events=lambda: run.events,
            notes=lambda: run.notes,
            version=run.version,
        )

    def _points(self, run: Made) -> Iterator[pa.Table]:
        self.read += 1
        for start in range(0, len(run.points), 3):
            columns = zip(*run.points[start : start + 3], strict=True)
            yield point_table(*map(list, columns))

    def _files(self, run: Made) -> Iterator[SourceFile]:
        for path, data in run.files.items():
            yield SourceFile(path, partial(_written, data), len(data))


def whole(run: SourceRun) -> SourceRun:
    """Return all of a run, of which a source may have said little yet."""
    return run if run.read is None else run.read()


def _written(data: bytes, folder: Path) -> Path:
    file = folder / "content"
    file.write_bytes(data)
    return file


def points_in(lake: Lake, run_id: str) -> Counter[tuple[Any, ...]]:
    """Return the points of a run, as often as each is there; floats by their bits."""
    rows = lake.sql(
        "SELECT key, step, epoch_us(timestamp) AS time_us, value FROM metrics WHERE run_id = ?",
        [run_id],
    ).rows()
    return Counter((key, step, at, bits(value)) for key, step, at, value in rows)


def counted(points: list[Point]) -> Counter[tuple[Any, ...]]:
    """Return points as `points_in` does."""
    return Counter((key, step, at, bits(value)) for key, step, at, value in points)


def bits(value: float) -> bytes:
    """Return the bits of a float; NaN has one form."""
    return struct.pack("<d", float("nan") if value != value else value)  # noqa: PLR0124 - NaN


def everything(lake: Lake) -> dict[str, Any]:
    """Return all that a lake says of its runs, in a form that knows no order."""
    found: dict[str, Any] = {}
    for view, columns in {
        "runs": "run_id, experiment_name, run_name, status, start_time, end_time, user_id, "
        "source_name, parent_run_id, lifecycle_stage",
        "params": "run_id, key, value, number",
        "tags": "run_id, key, value",
        "inputs": "run_id, name, digest, context",
        "artifacts": "run_id, path, size, sha256",
        "metric_summary": "run_id, key, count, nan_count, last, first",
        "histograms": "run_id, key, step, counts",
    }.items():
        rows = lake.sql(f"SELECT {columns} FROM {view}").rows()
        found[view] = sorted(map(repr, rows))
    rows = lake.sql("SELECT run_id, key, step, timestamp, value FROM metrics").rows()
    found["metrics"] = sorted(map(repr, rows))
    return found
