from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.storage.standing import coded, occurs_once, standing

# Close together, where groups are counted in place, and far apart, where they are not.
groups = st.integers(0, 5) | st.sampled_from([10**12, 10**12 + 1])
rows = st.lists(st.tuples(groups, st.integers(0, 3), st.floats(width=16, allow_nan=False)))


@pytest.mark.parametrize("latest", [True, False])
@given(rows=rows)
def test_standing_chooses_the_least_or_greatest_row_of_each_group(
    *, rows: list[tuple[int, int, float]], latest: bool
) -> None:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    group, first, second = (np.array(column) for column in columns)
    found = standing(group.astype(np.int64), [first, second], latest=latest).tolist()
    assert found == sorted(found)
    choose = max if latest else min
    expected = {group: choose(row[1:] for row in rows if row[0] == group) for group, *_ in rows}
    assert {rows[place][0]: rows[place][1:] for place in found} == expected
    assert len(found) == len(expected)


def test_standing_takes_nan_for_the_greatest() -> None:
    order = [np.array([np.nan, 1.0, np.inf])]
    same = np.zeros(3, np.int64)
    assert standing(same, order, latest=True).tolist() == [0]
    assert standing(same, order, latest=False).tolist() == [1]


@given(found=st.lists(groups))
def test_occurs_once_tells_rows_that_are_alone_in_their_group(found: list[int]) -> None:
    expected = [found.count(group) == 1 for group in found]
    assert occurs_once(np.array(found, np.int64)).tolist() == expected


@pytest.mark.parametrize("numbered", [True, False])
@given(parts=st.lists(st.lists(st.sampled_from(["", "a", "b", "ä"]))))
def test_coded_texts_are_the_texts_and_hold_no_others(
    *, parts: list[list[str]], numbered: bool
) -> None:
    chunks = [pa.array(part, pa.string()) for part in parts]
    column = pa.chunked_array(chunks, pa.string())
    if numbered:
        is_kept = [text != "a" for text in column.to_pylist()]
        column = column.dictionary_encode().filter(pa.array(is_kept, pa.bool_()))
    texts = column.to_pylist()
    found = coded(column)
    values = [str(value) for value in found.values.to_pylist()]
    assert [values[code] for code in found.codes] == texts
    assert sorted(values) == sorted({str(text) for text in texts})
    assert [found.code_of(text) for text in values] == list(range(len(values)))
    assert found.code_of("none of them") == -1
    assert [value for _, value in sorted(zip(found.ranks(), values, strict=True))] == sorted(values)
