"""Tables: what goes into a part comes out of it, whatever it came in."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from polars.testing import assert_frame_equal
from polars.testing.parametric import dataframes

from runlake.artifacts.sheets import sheet
from runlake.errors import InvalidInputError
from runlake.query.export import to_polars
from runlake.query.united import unite

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
WANTED = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
KINDS: list[Any] = [
    pl.Boolean,
    pl.Int8,
    pl.Int64,
    pl.UInt64,
    pl.Float32,
    pl.Float64,
    pl.String,
    pl.Binary,
    pl.Date,
    pl.Time,
    pl.Datetime("us"),
    pl.Datetime("ns", "UTC"),
    pl.Duration("us"),
    pl.List(pl.Int32),
    pl.Struct({"x": pl.Int64, "y": pl.String}),
]


def back(data: object, *, step: int | None = None) -> pl.DataFrame:
    """Return a table as it comes out of its part."""
    medium = sheet(data, step=step)
    found = to_polars(pq.read_table(io.BytesIO(medium.data)))
    assert medium.details == {"rows": found.height, "columns": found.width}
    return found


@pytest.mark.parametrize(
    "data",
    [
        WANTED,
        WANTED.lazy(),
        WANTED.to_arrow(),
        WANTED.to_arrow().to_batches()[0],
        pd.DataFrame(ROWS),
        {"a": [1, 2], "b": ["x", None]},
        {"a": np.array([1, 2]), "b": ("x", None)},
        {"a": pl.Series([1, 2]), "b": pd.Series(["x", None])},
        ROWS,
    ],
    ids=lambda data: type(data).__name__,
)
def test_all_that_people_call_a_table_is_one(data: object) -> None:
    assert_frame_equal(back(data), WANTED)


@given(frame=dataframes(min_cols=1, max_cols=4, max_size=8, allowed_dtypes=KINDS))
def test_a_polars_frame_comes_back_as_it_is(frame: pl.DataFrame) -> None:
    assert_frame_equal(back(frame), frame)


def test_rows_may_lack_what_others_have() -> None:
    assert back([{"a": 1}, {"b": 2.5}]).to_dicts() == [{"a": 1, "b": None}, {"a": None, "b": 2.5}]


def test_a_dict_of_values_is_one_row() -> None:
    assert back({"prompt": "why?", "score": np.float32(0.5)}).rows() == [("why?", 0.5)]


def test_an_index_of_pandas_is_kept_where_it_has_a_name() -> None:
    frame = pd.DataFrame({"n": [1, 2]}, index=["x", "y"])
    assert back(frame).columns == ["n"]
    assert back(frame.rename_axis("who")).rows() == [("x", 1), ("y", 2)]
    assert back(pd.DataFrame(np.eye(2))).columns == ["0", "1"]


def test_a_column_of_vectors_is_a_column_of_lists() -> None:
    assert back({"v": np.eye(2)})["v"].to_list() == [[1.0, 0.0], [0.0, 1.0]]


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: {"a": [1, "x"]}, "values of one type"),
    (lambda: {"a": [1, 2], "b": [1]}, "cannot be kept"),
    (lambda: {"a": [object()]}, "cannot be kept"),
    (lambda: [{"a": 1}, {"a": "x"}], "values of one type"),
    (lambda: pd.DataFrame({"a": [1, "x"]}), "values of one type"),
    (lambda: pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), "the column 'a' twice"),
    (dict, "no columns"),
    (list, "no columns"),
    (lambda: [1, 2], "got a list of other things"),
    (lambda: 5, "got an int"),
    (lambda: "abc", "got a str"),
    (lambda: {"a": [2**70]}, "cannot be kept"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_is_no_table_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        sheet(make(), step=None)


def test_a_column_step_and_a_step_do_not_go_together() -> None:
    assert back({"step": [1]}).columns == ["step"]
    with pytest.raises(InvalidInputError, match="leave step= out"):
        sheet({"step": [1]}, step=1)


UNITED: list[tuple[list[Any], list[Any]]] = [
    ([1, 2], [0.5]),
    ([None], [3]),
    ([[1]], [[0.5], []]),
    ([{"x": 1}], [{"y": "s"}]),
    ([True], [None]),
]


@pytest.mark.parametrize(("one", "other"), UNITED)
def test_types_that_differ_are_united_without_loss(one: list[Any], other: list[Any]) -> None:
    tables = [pa.table({"a": one}), pa.table({"b": [1], "a": other[:1]}), pa.table({"a": other})]
    found = unite(tables, ["p", "q", "r"]).to_pylist()
    given_ = [*one, *other[:1], *other]
    assert [row["b"] for row in found] == [None] * len(one) + [1] + [None] * len(other)
    for row, wanted in zip(found, given_, strict=True):
        value = row["a"]
        if isinstance(wanted, dict):
            value = {key: each for key, each in value.items() if each is not None}
        assert value == wanted


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ([1], ["x"], "part q does not go together.*Field a has incompatible types: int64 vs str"),
        ([True], [1], "bool vs int64"),
        ([2**60 + 1], [0.5], "would change"),
    ],
)
def test_types_that_clash_are_refused_by_name(
    one: list[Any], other: list[Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        unite([pa.table({"a": one}), pa.table({"a": other})], ["part p", "part q"])


@given(
    frames=dataframes(
        min_cols=1, max_cols=3, max_size=6, allowed_dtypes=[pl.Int64, pl.String, pl.Boolean]
    ),
)
def test_parts_of_one_type_are_their_rows_in_order(frames: pl.DataFrame) -> None:
    parts = [frames.slice(start, 2) for start in range(0, max(1, frames.height), 2)]
    found = unite([part.to_arrow() for part in parts], [str(n) for n in range(len(parts))])
    assert_frame_equal(to_polars(found), frames)


def test_a_column_of_python_objects_is_refused_and_not_kept_as_addresses() -> None:
    frame = pl.DataFrame({"fine": [1], "thing": pl.Series([object()], dtype=pl.Object)})
    with pytest.raises(InvalidInputError, match="'thing' holds Python objects"):
        sheet(frame, step=None)


@pytest.mark.parametrize("series", [pd.Series([1, 2], name="a"), pl.Series("a", [1, 2])])
def test_a_single_column_is_no_table(series: object) -> None:
    with pytest.raises(InvalidInputError, match="a table is"):
        sheet(series, step=None)
