from __future__ import annotations

from collections import Counter

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake.query.split import split

keys = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))


# Arrow and NumPy load in the first example.
@settings(deadline=None)
@given(rows=st.lists(keys, max_size=20))
def test_split_tells_rows_whose_key_occurs_once_from_all_others(
    rows: list[tuple[str, str]],
) -> None:
    table = pa.table(
        {
            "one": pa.array([row[0] for row in rows], pa.string()),
            "two": pa.array([row[1] for row in rows], pa.string()),
            "place": pa.array(range(len(rows)), pa.int64()),
        }
    )
    once, again = split(table, ("one", "two"))
    counts = Counter(rows)
    single = [place for place, row in enumerate(rows) if counts[row] == 1]
    assert once["place"].to_pylist() == single
    assert again["place"].to_pylist() == sorted(set(range(len(rows))) - set(single))
