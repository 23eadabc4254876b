"""Lakes with many points, written as segments whose footers count as a writer's do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from runlake import ids, schema
from runlake.storage import segments
from runlake.storage.state import State, Summaries, fact_schema
from runlake.storage.tables import PointRows
from tests.storage.lakes import START_US, named

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.tables import SnapshotTables

_TEXTS: Final = ("kind", "run_id", "key")


class Event(NamedTuple):
    """One row: of a metric, or a tag where `key` is None."""

    run_id: str
    key: str | None


class Found(NamedTuple):
    """One point of a snapshot."""

    writer: str
    run_id: str
    key: str
    step: int
    value: float


@dataclass
class WriterLog:
    """What one writer logs, in segments of given lengths; value and step are the number."""

    number: int
    events: Sequence[Event]
    lengths: Sequence[int]

    def put(self, fs: Filesystem) -> None:
        """Write the segments."""
        summaries, slots = Summaries(), dict[tuple[str, str], int]()
        first = 0
        for length in self.lengths:
            events = self.events[first : first + length]
            name = named(self.number, first, first + length - 1)
            rows = _rows(events, first)
            for number, (run_id, key) in enumerate(events, start=first):
                if key is not None:
                    slot = slots.setdefault((run_id, key), len(slots))
                    at = np.array([number])
                    summaries.add(np.array([slot]), at, START_US + at, at.astype(np.float64))
            listed = list(slots)
            state = State(
                fact_schema().empty_table(),
                summaries.table(
                    np.arange(len(listed)),
                    [run_id for run_id, _ in listed],
                    [key for _, key in listed],
                ),
            )
            fs.put(name.key, encoded(name.writer, first, rows, state))
            first += length


def _rows(events: Sequence[Event], first: int) -> pa.Table:
    listed = [
        {
            "run_id": run_id,
            "kind": schema.TAG if key is None else schema.METRIC,
            "key": "loss" if key is None else key,
            "step": None if key is None else number,
            "timestamp": START_US + number,
            "num": None if key is None else float(number),
            "str": "text" if key is None else None,
        }
        for number, (run_id, key) in enumerate(events, start=first)
    ]
    return pa.Table.from_pylist(listed, schema=segments.segment_schema())


def encoded(writer: str, first: int, rows: pa.Table, state: State) -> bytes:
    """Return the file of a segment."""
    header = segments.Header(
        writer=writer,
        experiment_id="exp",
        experiment_name="Made up",
        first=first,
        last=first + rows.num_rows - 1,
        digest=segments.digest(rows),
        nonce=ids.new_nonce(),
        host="host",
        pid=7,
        boot_id="boot",
        version="0",
    )
    return segments.encode(rows, header, state)


def put_columns(fs: Filesystem, number: int, *, keys: Sequence[str], points: int) -> str:
    """Write one large segment: `points` of each key, key after key; return its key."""
    count = len(keys) * points
    steps = np.tile(np.arange(points), len(keys))
    codes = np.repeat(np.arange(len(keys), dtype=np.int32), points)
    # Noise does not compress, so that the file has the size of real curves.
    values = np.random.default_rng(number).normal(size=count).astype(np.float32).astype(np.float64)
    run_id, times = f"run-{number}", START_US + np.arange(count)
    zeros: Any = pa.array(np.zeros(count, np.int32))
    key_codes: Any = pa.array(codes)
    columns: list[Any] = [
        pa.DictionaryArray.from_arrays(zeros, pa.array([run_id])),
        pa.DictionaryArray.from_arrays(zeros, pa.array([schema.METRIC])),
        pa.DictionaryArray.from_arrays(key_codes, pa.array(keys)),
        pa.array(steps),
        pa.array(times).cast(pa.timestamp("us", tz="UTC")),
        pa.array(values),
        pa.nulls(count, pa.string()),
    ]
    rows = pa.Table.from_arrays(columns, schema=segments.segment_schema())
    summaries = Summaries()
    summaries.add(codes.astype(np.int64), steps, times, values)
    table = summaries.table(np.arange(len(keys)), [run_id] * len(keys), list(keys))
    name = named(number, 0, count - 1)
    fs.put(name.key, encoded(name.writer, 0, rows, State(fact_schema().empty_table(), table)))
    return name.key


def points_in(
    found: PointRows, run_ids: Collection[str] | None, keys: Collection[str] | None
) -> list[Found]:
    """Return the points of a selection as a question reads them, sorted."""
    parts = [] if found.rows is None else [found.rows]
    for file in found.files:
        rows = pq.read_table(file.path)
        count = rows.num_rows
        kept = [
            place >= file.skip_rows
            and kind == schema.METRIC
            and (run_ids is None or run_id in run_ids)
            and (keys is None or key in keys)
            for place, kind, run_id, key in zip(
                range(count), *(rows[name].to_pylist() for name in _TEXTS), strict=True
            )
        ]
        rows = rows.rename_columns({"num": "value"})
        rows = rows.append_column("writer", pa.array([file.writer] * count))
        parts.append(rows.filter(pa.array(kept)))
    columns = [
        [value for part in parts for value in part[name].to_pylist()] for name in Found._fields
    ]
    return sorted(map(Found, *columns))


def all_points(
    tables: SnapshotTables, run_ids: Collection[str] | None, keys: Collection[str] | None
) -> list[Found]:
    """Return the same from all files of a snapshot."""
    return points_in(PointRows(tables.row_files("metrics")), run_ids, keys)
