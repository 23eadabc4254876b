"""Histograms: every value is counted once, whatever it is."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runlake.errors import InvalidInputError
from runlake.writing import histograms
from runlake.writing.histograms import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = sys.float_info.max
FLOATS = st.floats(allow_nan=True, allow_infinity=True)


def told(*given_: Any, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever callers give
    """Return what a histogram's text says."""
    found: dict[str, Any] = json.loads(text_of("w", *given_, **more))
    return found


@given(values=st.lists(FLOATS, max_size=50), bins=st.integers(1, 70))
@example(values=[-MOST, MOST], bins=64)
@example(values=[MOST], bins=64)
@example(values=[0.0, MOST], bins=3)
@example(values=[MOST / 2, -MOST / 2], bins=7)
@example(values=[0.0, 5e-324], bins=64)
@example(values=[1e16, 1e16 + 2], bins=64)
@example(values=[0.0, -0.0], bins=1)
def test_every_value_is_counted_once(values: list[float], bins: int) -> None:
    said = told(np.array(values), bins=bins)
    edges, counts = np.array(said["edges"]), said["counts"]
    finite = np.array(values)[np.isfinite(values)]
    assert said["nan_count"] == np.isnan(values).sum()
    assert said["below"] == values.count(-np.inf)
    assert said["above"] == values.count(np.inf)
    assert sum(counts) == len(finite)
    if not len(finite):
        assert said["edges"] == counts == []
        return
    assert len(counts) == bins == len(edges) - 1
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= finite.min()
    assert edges[-1] >= finite.max()


@given(
    values=st.lists(FLOATS, max_size=50),
    edges=st.lists(st.floats(-10, 10), min_size=2, max_size=9, unique=True).map(sorted),
)
def test_between_given_edges_the_counts_are_numpys(values: list[float], edges: list[float]) -> None:
    said = told(values, edges=edges)
    numbers = np.array(values, np.float64)
    finite = numbers[np.isfinite(numbers)]
    assert said["edges"] == edges
    assert said["counts"] == np.histogram(finite, edges)[0].tolist()
    assert said["below"] == (numbers < edges[0]).sum()
    assert said["above"] == (numbers > edges[-1]).sum()


@given(
    values=st.lists(st.floats(width=32), max_size=50),
    edges=st.lists(st.floats(-10, 10), min_size=2, max_size=9, unique=True).map(sorted),
)
@example(values=[0.1], edges=[0.1, 1.0])
def test_values_of_32_bits_are_counted_as_those_of_64(
    values: list[float], edges: list[float]
) -> None:
    narrow = np.array(values, np.float32)
    assert told(narrow, edges=edges) == told(narrow.astype(np.float64), edges=edges)
    assert told(narrow, bins=7) == told(narrow.astype(np.float64), bins=7)


def test_pieces_make_the_same_histogram_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=(100, 7)).astype(np.float32)
    whole = told(values)
    monkeypatch.setattr(histograms, "_PIECE", 10)
    assert told(values) == whole


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3],
        (1.0, 2.0, 3.0),
        range(1, 4),
        np.array([[1], [2], [3]], np.int8),
        np.array([1, 2, 3], np.float16),
        pl.Series([1, 2, 3]),
        np.ma.array([1, 2, 3, 9], mask=[False, False, False, True]),
    ],
    ids=lambda values: type(values).__name__,
)
def test_values_may_be_anything_with_numbers(values: object) -> None:
    assert told(values, bins=2, step=-5) == {
        "step": -5,
        "edges": [1.0, 2.0, 3.0],
        "counts": [1, 2],
        "below": 0,
        "above": 0,
        "nan_count": 0,
    }


def test_counts_from_elsewhere_are_kept_as_they_are() -> None:
    said = told(edges=[0, 1, 2.5], counts=np.array([3, 4]))
    assert (said["edges"], said["counts"]) == ([0.0, 1.0, 2.5], [3, 4])
    assert told(edges=[0, 1], counts=[0.5])["counts"] == [0.5]


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: text_of("w"), "takes values, or edges and counts; got neither"),
    (lambda: text_of("w", [1], edges=[0, 1], counts=[1]), "got both"),
    (lambda: text_of("w", counts=[1]), "give its edges too"),
    (lambda: text_of("w", [1], bins=0), "from 1 to 16384, got 0"),
    (lambda: text_of("w", [1], bins=[0, 1]), r"got \[0, 1\].*edges"),
    (lambda: text_of("w", [1], edges=[1, 1]), "each greater than the one before"),
    (lambda: text_of("w", [1], edges=[0, np.inf]), "finite"),
    (lambda: text_of("w", [1], edges=[0]), "two or more"),
    (lambda: text_of("w", edges=[0, 1], counts=[-1]), "counts of histogram 'w' are 1 numbers"),
    (lambda: text_of("w", edges=[0, 1], counts=[1, 2]), "are 1 numbers"),
    (lambda: text_of("w", ["a"]), "values of histogram 'w' are numbers"),
    (lambda: text_of("w", [[1], [1, 2]]), "values of histogram 'w'"),
    (lambda: text_of("w", [1j]), "complex128"),
    (lambda: text_of("w", [None]), "object"),
    (lambda: text_of("", [1]), "empty"),
    (lambda: text_of("w", [1], step="x"), "a step is"),
    (
        lambda: text_of("w", edges=np.linspace(0, 1, 60_000) ** 0.5, counts=np.ones(59_999)),
        "take fewer bins",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_is_no_histogram_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call()
