from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake.storage.index import PointIndex
from runlake.storage.states import StateRows
from runlake.storage.tables import summaries_schema

if TYPE_CHECKING:
    from collections.abc import Collection

Metric = tuple[str, str]

_runs = st.sampled_from(["run-a", "run-b", "r"])
_keys = st.sampled_from(["loss", "acc", "val/loss", ""])
_metrics = st.tuples(_runs, _keys)
_wanted_runs = st.none() | st.sets(st.sampled_from(["run-a", "run-b", "r", "absent"]))
_wanted_keys = st.none() | st.sets(st.sampled_from(["loss", "acc", "val/loss", "", "absent"]))


@dataclass
class Segment:
    """What a segment holds, and of what else its footer speaks."""

    writer: str
    points: dict[Metric, int]
    mentions: set[Metric] = field(default_factory=set)

    def holds(self, run_ids: Collection[str] | None, keys: Collection[str] | None) -> bool:
        return any(
            (run_ids is None or run_id in run_ids) and (keys is None or key in keys)
            for run_id, key in self.points
        )


@st.composite
def lakes(draw: st.DrawFn) -> list[Segment]:
    """Draw segments in the order of a snapshot."""
    segment = st.tuples(
        st.dictionaries(_metrics, st.integers(1, 3), max_size=4), st.sets(_metrics, max_size=4)
    )
    writers = draw(st.lists(st.lists(segment, max_size=4), max_size=4))
    return [
        Segment(f"W{number}", points, mentions)
        for number, segments in enumerate(writers)
        for points, mentions in segments
    ]


def index_of(segments: list[Segment], *, known: bool = True) -> PointIndex:
    """Return the index over the footers of segments."""
    counted: dict[str, Counter[Metric]] = {}
    rows: list[tuple[str, str, str, int]] = []
    counts = []
    for segment in segments:
        counter = counted.setdefault(segment.writer, Counter())
        counter.update(segment.points)
        metrics = sorted(set(segment.points) | (segment.mentions & set(counter)))
        rows += [(segment.writer, run, key, counter[run, key]) for run, key in metrics]
        counts.append(len(metrics))
    names = ("writer", "run_id", "key", "n")
    listed = [dict(zip(names, row, strict=True)) for row in rows]
    wanted = pa.schema([summaries_schema().field(name) for name in names])
    states = StateRows(pa.Table.from_pylist(listed, schema=wanted))
    return PointIndex(states, counts if known else None)


@settings(deadline=None)
@given(segments=lakes(), asked=st.lists(st.tuples(_wanted_runs, _wanted_keys), min_size=1))
def test_index_names_exactly_the_segments_that_hold_a_wanted_point(
    segments: list[Segment], asked: list[tuple[set[str] | None, set[str] | None]]
) -> None:
    index = index_of(segments)
    for run_ids, keys in asked:
        expected = [n for n, segment in enumerate(segments) if segment.holds(run_ids, keys)]
        assert index.places(index.rows(run_ids, keys)) == expected


@settings(deadline=None)
@given(segments=lakes(), gone=st.integers(1, 8), run_ids=_wanted_runs, keys=_wanted_keys)
def test_index_of_what_compaction_left_misses_no_segment(
    segments: list[Segment], gone: int, run_ids: set[str] | None, keys: set[str] | None
) -> None:
    whole = index_of(segments)
    counts = whole._counts or []
    cut = sum(counts[:gone])
    index = PointIndex(StateRows(whole._summaries.table().slice(cut)), counts[gone:])
    expected = {n for n, of in enumerate(segments[gone:]) if of.holds(run_ids, keys)}
    assert expected <= set(index.places(index.rows(run_ids, keys)))


@settings(deadline=None)
@given(segments=lakes(), run_ids=_wanted_runs, keys=_wanted_keys)
def test_index_without_segments_still_tells_the_writers(
    segments: list[Segment], run_ids: set[str] | None, keys: set[str] | None
) -> None:
    index = index_of(segments, known=False)
    expected = {segment.writer for segment in segments if segment.holds(run_ids, keys)}
    assert expected <= index.writers(index.rows(run_ids, keys))
    mentioned = {segment.writer for segment in segments if segment.points}
    assert index.writers(index.rows(run_ids, keys)) <= mentioned
