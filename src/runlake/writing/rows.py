"""Journal records and events become the Arrow rows of a segment, in sequence order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runlake import schema
from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.segments import segment_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.writing.events import Event, Position
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")


@dataclass(frozen=True, slots=True)
class Points:
    """Metric points as columns, each of shape (n,).

    Attributes:
        key_ids: the (run, key) of each, as its journal numbers them.
        steps: as given.
        times: microseconds since 1970, UTC.
        values: NaN and infinities as they are.
    """

    key_ids: NDArray[np.int64]
    steps: NDArray[np.int64]
    times: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.key_ids)

    def behind(self, count: int) -> Points:
        """Return what follows the first `count` points."""
        return Points(
            self.key_ids[count:], self.steps[count:], self.times[count:], self.values[count:]
        )


def read_points(pieces: Sequence[memoryview]) -> Points:
    """Copy records out of journal pages; the pieces are released."""
    record = np.dtype(
        [("step", "<i8"), ("time", "<i8"), ("value", "<f8"), ("key", "<u4"), ("mark", "<u4")]
    )
    columns: dict[str, list[NDArray[Any]]] = {"key": [], "step": [], "time": [], "value": []}
    for piece in pieces:
        records = np.frombuffer(piece, dtype=record)
        for name, parts in columns.items():
            parts.append(np.ascontiguousarray(records[name]))
        del records
        piece.release()
    joined = {
        name: np.concatenate(parts) if parts else np.zeros(0, record[name])
        for name, parts in columns.items()
    }
    key_ids = joined["key"].astype(np.int64)
    return Points(key_ids, joined["step"], joined["time"], joined["value"])


def build(
    points: Points, events: Sequence[Event], start: Position, keys: Sequence[tuple[str, str]]
) -> pa.Table:
    """Join points and events into rows.

    Args:
        points: all points from `start` on.
        events: all events from `start` on.
        start: the place of the first row.
        keys: (run_id, key) of each key id.

    Returns:
        shape (points + events, 7), columns of `segment_schema`.
    """
    total = len(points) + len(events)
    is_point = np.ones(total, dtype=bool)
    places = [event.points - start.points + place for place, event in enumerate(events)]
    is_point[places] = False
    used = np.flatnonzero(np.bincount(points.key_ids)) if len(points) else np.zeros(0, int)
    named = [keys[int(key_id)] for key_id in used]

    def coded(of_points: list[str], of_events: list[str]) -> pa.DictionaryArray[Any, Any]:
        """Code a text column whose point values hang on the key id."""
        values = list(dict.fromkeys([*of_points, *of_events]))
        number = {value: code for code, value in enumerate(values)}
        by_key = np.zeros(int(used[-1]) + 1 if len(used) else 0, dtype=np.int32)
        by_key[used] = [number[value] for value in of_points]
        codes = np.empty(total, dtype=np.int32)
        codes[is_point] = by_key[points.key_ids]
        codes[places] = [number[value] for value in of_events]
        return pa.DictionaryArray.from_arrays(arrays.numbers(codes), arrays.strings(values))

    def spread(column: NDArray[Any], of_events: Sequence[Any]) -> NDArray[Any]:
        """Put the points' values and the events' where they belong."""
        if not events:
            return column
        out = np.empty(total, dtype=column.dtype)
        out[is_point] = column
        out[places] = of_events
        return out

    nums = [event.num for event in events]
    no_num = np.zeros(total, dtype=bool)
    no_num[places] = [num is None for num in nums]
    times = spread(points.times, [event.clock for event in events])
    columns = [
        coded([run for run, _ in named], [event.run_id for event in events]),
        coded([schema.METRIC] * len(named), [event.kind for event in events]),
        coded([key for _, key in named], [event.key for event in events]),
        arrays.numbers(spread(points.steps, [0] * len(events)), mask=~is_point),
        arrays.numbers(times).cast(pa.timestamp("us", tz="UTC")),
        arrays.numbers(
            spread(points.values, [0.0 if num is None else num for num in nums]), mask=no_num
        ),
        arrays.scattered(total, places, [event.str for event in events]),
    ]
    return pa.Table.from_arrays(columns, schema=segment_schema())
