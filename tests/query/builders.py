"""Snapshots made by hand, and the plain-Python fold that says what their views must hold."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from runlake.storage.filed import Filed
from runlake.storage.segments import segment_schema
from runlake.storage.states import StateRows
from runlake.storage.table_files import FACTS, SUMMARIES
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
        facts=StateRows(pa.Table.from_pylist(rows, schema=facts_schema())),
        summaries=StateRows(pa.Table.from_pylist(states, schema=summaries_schema())),
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


class Pieces:
    """Rows of a state as a compacted file has them, which notes what is read of them.

    Attributes:
        experiment_id: the partition.
        reads: for each row group that was read, its number and the columns.
    """

    def __init__(
        self, experiment_id: str, table: pa.Table, order: Sequence[str], size: int
    ) -> None:
        """Sort rows, and cut them into row groups.

        Args:
            experiment_id: the partition.
            table: its rows.
            order: what they are sorted by; a change of kind ends a row group.
            size: most rows of a row group.
        """
        self.experiment_id = experiment_id
        self.reads: list[tuple[int, tuple[str, ...]]] = []
        listed = sorted(table.to_pylist(), key=lambda row: tuple(row[name] for name in order))
        self._groups: list[list[dict[str, Any]]] = []
        for row in listed:
            group = self._groups[-1] if self._groups else []
            if not group or len(group) == size or group[-1].get("kind") != row.get("kind"):
                self._groups.append([])
            self._groups[-1].append(row)
        self._schema = table.schema

    @property
    def rows(self) -> list[int]:
        """The rows of each row group."""
        return [len(group) for group in self._groups]

    def spans(self, name: str) -> list[tuple[Any, Any] | None]:
        """Return the least and greatest value of a column in each row group."""
        return [
            (min(row[name] for row in group), max(row[name] for row in group))
            for group in self._groups
        ]

    def read(self, groups: Sequence[int], names: Sequence[str]) -> pa.Table:
        """Return some columns of some row groups, and note it."""
        self.reads += [(group, tuple(names)) for group in groups]
        wanted = pa.schema([self._schema.field(name) for name in names])
        return pa.concat_tables(
            pa.Table.from_pylist(
                [{name: row[name] for name in names} for row in self._groups[group]], schema=wanted
            )
            for group in groups
        )


def compacted(
    tables: SnapshotTables, *, size: int = 4, live: int = 0
) -> tuple[SnapshotTables, dict[str, list[Pieces]]]:
    """Return a snapshot of which most states lie in compacted files.

    Args:
        tables: the snapshot; every state is in live segments.
        size: most rows of a row group.
        live: this one of so many rows stays live.

    Returns:
        The snapshot, and the files of `facts` and `summaries`.
    """
    files: dict[str, list[Pieces]] = {}
    states = {}
    for table in (FACTS, SUMMARIES):
        rows = getattr(tables, table.name).table()
        place = np.arange(rows.num_rows)
        stays = pa.array(place % live == 0) if live else pa.array(np.zeros(len(place), bool))
        gone = rows.filter(pc.invert(stays))
        homes = sorted(set(gone["experiment_id"].to_pylist()))
        files[table.name] = [
            Pieces(home, gone.filter(pc.equal(gone["experiment_id"], home)), table.order, size)
            for home in homes
        ]
        filed = Filed(rows.schema, files[table.name], hidden=tables.purged)
        states[table.name] = StateRows(rows.filter(stays), filed)
    found = replace(tables, facts=states[FACTS.name], summaries=states[SUMMARIES.name])
    return found, files
