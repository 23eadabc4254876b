from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.errors import FormatError
from runlake.storage import ranges, segments
from runlake.storage.ranges import Group, Wanted
from runlake.storage.state import State
from tests.storage.curves import encoded
from tests.storage.lakes import named, rows_of, segment, writer_id

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY = "log/x.parquet"
COUNT = 40


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A segment of four row groups with ten rows each."""
    monkeypatch.setattr(segments, "_GROUP_ROWS", 10)
    return segment(named(1, 0, COUNT - 1))


def footer_of(data: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(data))


def bytes_of(data: bytes, groups: Sequence[Group]) -> dict[int, bytes]:
    """Return what would be fetched of some row groups."""
    return {
        start: data[start:end] for group in groups for start, end in (group.texts, group.numbers)
    }


def read(
    data: bytes, groups: Sequence[Group], fetched: dict[int, bytes], wanted: Wanted
) -> pa.Table:
    footer = footer_of(data)
    hits = ranges.find_rows(footer, groups, fetched, wanted, key=KEY)
    return ranges.read_points(footer, hits, fetched, key=KEY)


def test_plan_names_the_bytes_of_the_columns_needed_and_no_other(data: bytes) -> None:
    footer = footer_of(data)
    groups = ranges.plan(footer, Wanted(["run-1"], ["loss"]))
    assert [(group.place, group.first_row, group.row_count) for group in groups] == [
        (number, 10 * number, 10) for number in range(4)
    ]
    assert all(group.texts[1] == group.numbers[0] for group in groups)
    # Only `str`, the last column, and the footer are left out.
    for one, other in pairwise(groups):
        text = footer.row_group(one.place).column(6)
        assert one.numbers[1] == text.data_page_offset
        assert one.numbers[1] + text.total_compressed_size == other.texts[0]


@pytest.mark.parametrize(
    ("run_ids", "keys", "count"),
    [
        (None, None, 4),
        (["run-1", "run-9"], None, 4),
        (["run-0", "run-2"], None, 0),
        (None, ["lost", "lose"], 0),
        ([], None, 0),
        (None, [], 0),
    ],
)
def test_plan_passes_over_row_groups_whose_bounds_hold_nothing_wanted(
    data: bytes, run_ids: list[str] | None, keys: list[str] | None, count: int
) -> None:
    assert len(ranges.plan(footer_of(data), Wanted(run_ids, keys))) == count


def test_points_are_decoded_from_the_planned_bytes_alone(data: bytes) -> None:
    wanted = Wanted(["run-1"], ["loss"])
    groups = ranges.plan(footer_of(data), wanted)[1:3]
    rows = read(data, groups, bytes_of(data, groups), wanted)
    assert rows["row"].to_pylist() == list(range(10, 30))
    assert rows["step"].to_pylist() == list(range(10, 30))
    assert rows["value"].to_pylist() == [float(number) for number in range(10, 30)]


def test_numbers_are_needed_only_of_row_groups_that_hold_a_row_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segments, "_GROUP_ROWS", 10)
    rows = rows_of(named(1, 0, COUNT - 1))
    keys = ["a" if 10 <= place < 20 or place % 2 else "z" for place in range(COUNT)]
    keys[25] = "loss"
    texts = pa.array(keys).dictionary_encode()
    data = encoded(writer_id(1), 0, rows.set_column(2, "key", texts), State.empty())
    footer, wanted = footer_of(data), Wanted(None, ["loss"])
    groups = ranges.plan(footer, wanted)
    assert [group.place for group in groups] == [0, 2, 3]  # by their least and greatest key
    known = {group.texts[0]: data[slice(*group.texts)] for group in groups}
    hits = ranges.find_rows(footer, groups, known, wanted, key=KEY)
    assert [group.place for group in hits.groups] == [2]
    assert hits.rows.tolist() == [25]
    (group,) = hits.groups
    numbers = {group.numbers[0]: data[slice(*group.numbers)]}
    points = ranges.read_points(footer, hits, numbers, key=KEY)
    assert (points["row"].to_pylist(), points["value"].to_pylist()) == ([25], [25.0])


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize("part", ["texts", "numbers"])
def test_bytes_that_were_not_fetched_raise_and_are_never_zeros(
    data: bytes, missing: int, part: str
) -> None:
    wanted = Wanted(None, None)
    groups = ranges.plan(footer_of(data), wanted)[:2]
    start, end = getattr(groups[missing], part)
    for held in (data[start : end - 1], data[start : (start + end) // 2], None):
        fetched = bytes_of(data, groups)
        if held is None:
            del fetched[start]
        else:
            fetched[start] = held
        with pytest.raises(FormatError, match="cannot be read"):
            read(data, groups, fetched, wanted)


@pytest.mark.parametrize("part", ["texts", "numbers"])
def test_flipped_byte_in_a_page_is_noticed(data: bytes, part: str) -> None:
    wanted = Wanted(None, None)
    (group, *_) = ranges.plan(footer_of(data), wanted)
    last = getattr(group, part)[1] - 1
    spoilt = data[:last] + bytes([data[last] ^ 1]) + data[last + 1 :]
    with pytest.raises(FormatError, match="checksum"):
        read(data, [group], {0: spoilt}, wanted)


_spans = st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 300)), max_size=8)


@given(drawn=_spans, gap=st.sampled_from([0, 50, 5000]))
def test_stretches_cover_the_spans_and_little_else(drawn: list[tuple[int, int]], gap: int) -> None:
    spans, at = [], 0
    for distance, length in drawn:
        spans.append((at + distance, at + distance + length))
        at += distance + length
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "_GAP_BYTES", gap)
        found = ranges.stretches(reversed(spans))
    for first, last in spans:
        assert sum(start <= first and last <= end for start, end in found) == 1
    assert all(one[1] + gap < other[0] for one, other in pairwise(found))
    wanted = sum(end - start for start, end in spans)
    assert sum(end - start for start, end in found) <= wanted + gap * len(spans)


@given(start=st.integers(0, 10**9), size=st.integers(1, 50 << 20))
def test_pieces_are_the_bytes_in_order_none_too_long(start: int, size: int) -> None:
    found = ranges.pieces(KEY, start, start + size)
    assert (found[0].start, found[-1].end) == (start, start + size)
    assert all(one.end == other.start for one, other in pairwise(found))
    assert all(0 < piece.end - piece.start <= ranges.PIECE_BYTES for piece in found)
