"""Snapshots made by hand, and the plain-Python fold that says what their views must hold."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from runlake.storage.segments import segment_schema
from runlake.storage.tables import (
    PointFile,
    SnapshotTables,
    facts_schema,
    lake_events_schema,
    summaries_schema,
    writers_schema,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

NOW_US = 1_700_000_000_000_000
STALE_S = 900.0
URL = "/lakes/team"

# In a class with a field `str`, the type needs another name.
Text = str


@dataclass(frozen=True)
class Fact:
    """One fact as one writer said it."""

    run_id: Text
    kind: Text
    key: Text = ""
    str: Text | None = None
    num: float | None = None
    clock: int = NOW_US - 1_000_000
    writer: Text = "W1"
    seq: int = 0
    experiment_id: Text = "1"


@dataclass(frozen=True)
class Point:
    """One metric point."""

    run_id: str
    key: str
    step: int
    value: float
    time: int = NOW_US
    writer: str = "W1"
    experiment_id: str = "1"


def facts_of(*facts: Fact) -> list[Fact]:
    """Give each fact the next number of its writer."""
    counts: dict[str, int] = defaultdict(int)
    numbered = []
    for fact in facts:
        numbered.append(replace(fact, seq=counts[fact.writer]))
        counts[fact.writer] += 1
    return numbered


def snapshot(
    facts: Iterable[Fact] = (),
    summaries: Iterable[dict[str, Any]] = (),
    *,
    writers: Sequence[dict[str, Any]] | None = None,
    lake_events: Iterable[dict[str, Any]] = (),
    points: tuple[PointFile, ...] = (),
) -> SnapshotTables:
    """Build a snapshot; writers that are not named put their newest object just now."""
    rows = [asdict(fact) for fact in facts]
    states = list(summaries)
    if writers is None:
        homes = {row["writer"]: row["experiment_id"] for row in [*rows, *states]}
        writers = [writer_row(name, home) for name, home in homes.items()]
    return SnapshotTables(
        facts=pa.Table.from_pylist(rows, schema=facts_schema()),
        summaries=pa.Table.from_pylist(states, schema=summaries_schema()),
        writers=pa.Table.from_pylist(list(writers), schema=writers_schema()),
        lake_events=pa.Table.from_pylist(list(lake_events), schema=lake_events_schema()),
        points=points,
        now_us=NOW_US,
        stale_s=STALE_S,
        root_url=URL,
    )


def writer_row(
    writer: str, experiment_id: str = "1", *, age_s: float = 0, name: str = "digits"
) -> dict[str, Any]:
    """Return a row of `writers` whose newest object is `age_s` old."""
    return {
        "writer": writer,
        "experiment_id": experiment_id,
        "experiment_name": name,
        "last": 0,
        "object_time_us": NOW_US - int(age_s * 1e6),
        "host": "host",
        "pid": 1,
    }


def lake_event(
    experiment_id: str,
    kind: str,
    key: str = "",
    str: str | None = None,  # noqa: A002 - the column's name
    *,
    clock: int = NOW_US,
    seq: int = 0,
) -> dict[str, Any]:
    """Return a row of `lake_events`."""
    return {
        "run_id": experiment_id,
        "kind": kind,
        "key": key,
        "clock": clock,
        "num": None,
        "str": str,
        "writer": "L1",
        "seq": seq,
    }


def _last_rank(point: Point) -> tuple[int, int, bool, float]:
    is_nan = math.isnan(point.value)
    return point.step, point.time, not is_nan, 0.0 if is_nan else point.value


def _first_rank(point: Point) -> tuple[int, int, bool, float]:
    is_nan = math.isnan(point.value)
    return point.step, point.time, is_nan, 0.0 if is_nan else point.value


def summarize(points: Sequence[Point]) -> dict[str, Any]:
    """Return the state of points of one run, key and writer, or of several writers."""
    numbers = [point for point in points if not math.isnan(point.value)]
    last, first = max(points, key=_last_rank), min(points, key=_first_rank)
    least = min(numbers, key=lambda p: (p.value, p.step, p.time), default=None)
    greatest = min(numbers, key=lambda p: (-p.value, p.step, p.time), default=None)
    state: dict[str, Any] = {
        "writer": points[0].writer,
        "experiment_id": points[0].experiment_id,
        "run_id": points[0].run_id,
        "key": points[0].key,
        "n": len(points),
        "sum": sum(point.value for point in numbers),
        "nan_count": len(points) - len(numbers),
    }
    for name, point in (("last", last), ("first", first), ("min", least), ("max", greatest)):
        state[name] = None if point is None else point.value
        state[f"{name}_step"] = None if point is None else point.step
        state[f"{name}_time"] = None if point is None else point.time
    return state


def summaries_of(points: Iterable[Point]) -> list[dict[str, Any]]:
    """Return one state for each run, key and writer."""
    groups: dict[tuple[str, str, str], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.run_id, point.key, point.writer].append(point)
    return [summarize(group) for group in groups.values()]


def write_points(
    path: Path,
    rows: Sequence[tuple[str, str, str, int, int, float | None, str | None]],
    *,
    writer: str = "W1",
    experiment_id: str = "1",
    first: int = 0,
    skip_rows: int = 0,
) -> PointFile:
    """Write a segment's rows: run_id, kind, key, step, microseconds, num, str."""
    schema = segment_schema()
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)
    return PointFile(str(path), writer, experiment_id, first, skip_rows)
