from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import schema
from runlake.storage.segments import segment_schema
from runlake.writing.events import Event, Position
from runlake.writing.records import PAGE_POINTS
from runlake.writing.rows import Points, build, read_points
from tests.writing.drains import memory_journal

_KEYS = [("r1", "a"), ("r2", "a"), ("r1", "b")]


def _points(made: list[tuple[int, int, int, float]]) -> Points:
    keys, steps, times, values = zip(*made, strict=True) if made else ([], [], [], [])
    return Points(
        np.array(keys, np.int64),
        np.array(steps, np.int64),
        np.array(times, np.int64),
        np.array(values, np.float64),
    )


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_rows_stand_in_the_order_of_their_sequence_with_every_field(data: st.DataObject) -> None:
    start = Position(data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5)))
    kinds = data.draw(st.lists(st.sampled_from(["point", "event"]), min_size=1, max_size=15))
    points: list[tuple[int, int, int, float]] = []
    events: list[Event] = []
    expected: list[tuple[object, ...]] = []
    for number, kind in enumerate(kinds):
        if kind == "point":
            key = data.draw(st.integers(0, 2))
            points.append((key, number, number + 100, number / 2))
            run, name = _KEYS[key]
            expected.append((run, schema.METRIC, name, number, number + 100, number / 2, None))
        else:
            num = data.draw(st.sampled_from([None, 0.0, math.inf]))
            text = data.draw(st.sampled_from([None, "", "x"]))
            event = Event(start.points + len(points), number + 100, "r3", "tag", "k", num, text)
            events.append(event)
            expected.append(("r3", "tag", "k", None, number + 100, num, text))
    table = build(_points(points), events, start, _KEYS)
    assert table.schema == segment_schema()
    columns = [table[name].to_pylist() for name in table.column_names]
    columns[4] = table["timestamp"].cast(pa.int64()).to_pylist()
    assert list(zip(*columns, strict=True)) == expected


@pytest.mark.parametrize("count", [1, PAGE_POINTS, PAGE_POINTS + 3])
def test_points_are_copied_out_of_pages_which_may_then_go(count: int) -> None:
    journal = memory_journal()
    [key_id] = journal.key_ids("run", ["a"])
    journal.points([key_id] * count, [float(number) for number in range(count)], 5, 6)
    pieces = journal.read_points(Position(0, 0), journal.position())
    points = read_points(pieces)
    journal.close()
    assert points.values.tolist() == list(range(count))
    assert len(points.behind(1)) == count - 1
    with pytest.raises(ValueError, match="released"):
        bytes(pieces[0])


def test_no_pieces_are_no_points() -> None:
    assert len(read_points([])) == 0
