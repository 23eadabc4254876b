from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from runlake.query.held import Held

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUNS = 6
KEYS = ["b", "a", "c"]
held_rows = st.dictionaries(
    st.tuples(st.integers(-1, RUNS - 1), st.sampled_from(KEYS)), st.none() | st.integers(0, 9)
)
HeldRows = dict[tuple[int, str], int | None]


def _held(rows: HeldRows) -> Held:
    column = pa.array(list(rows.values()), pa.int64())

    def values(name: str, at: NDArray[np.int64]) -> pa.Array[Any]:
        assert name == "value"
        return column.take(pa.array(at, pa.int64()))

    return Held(
        np.array([place for place, _ in rows], np.int32),
        np.array([KEYS.index(key) for _, key in rows], np.int32),
        pa.array(KEYS),
        values=values,
        run_count=RUNS,
    )


@given(rows=held_rows, key=st.sampled_from([*KEYS, "d"]))
def test_a_column_holds_one_key_of_every_run(rows: HeldRows, key: str) -> None:
    column = _held(rows).column(key, ["value"])["value"].to_pylist()
    assert column == [rows.get((place, key)) for place in range(RUNS)]


@given(rows=held_rows, wanted=st.lists(st.integers(0, RUNS - 1), unique=True))
def test_of_runs_finds_the_rows_of_these_runs_one_after_the_other(
    rows: HeldRows, wanted: list[int]
) -> None:
    found = list(rows)
    places = _held(rows).of_runs(np.array(wanted, np.int64)).tolist()
    assert [found[place][0] for place in places] == [
        run for run in wanted for place, _ in found if place == run
    ]
    assert len(set(places)) == len(places)


@given(rows=held_rows, wanted=st.lists(st.integers(0, RUNS - 1), unique=True))
def test_of_page_finds_the_same_by_key_and_says_whose_each_is(
    rows: HeldRows, wanted: list[int]
) -> None:
    said = list(rows)
    held, of = _held(rows), np.array(wanted, np.int64)
    found, owners = held.of_page(of)
    assert sorted(found) == sorted(held.of_runs(of))
    assert [said[row][0] for row in found] == [wanted[owner] for owner in owners]
    told = [(said[row][1], owner) for row, owner in zip(found, owners, strict=True)]
    assert told == sorted(told)


@given(rows=held_rows)
def test_maps_hold_all_keys_of_each_run_in_their_order(rows: HeldRows) -> None:
    expected = [
        [(key, rows[place, key]) for key in sorted(KEYS) if (place, key) in rows]
        for place in range(RUNS)
    ]
    maps: Any = _held(rows).maps("value")
    assert maps.to_pylist() == expected


@given(rows=held_rows)
def test_a_table_holds_every_row(rows: HeldRows) -> None:
    table = _held(rows).table(["value"]).to_pylist()
    assert {(row["place"], row["key"]): row["value"] for row in table} == rows
