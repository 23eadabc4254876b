from __future__ import annotations

import base64
import math
import sys
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import schema
from runlake.errors import FormatError
from runlake.storage import state
from runlake.storage.state import Fact, FactBook, State, Summaries

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

_RUNS = ("a", "b")
_KEYS = ("loss", "acc")
_SPECIAL = (0.0, -0.0, 1.0, 2.0, -3.5, math.inf, -math.inf, math.nan)


class Point(NamedTuple):
    """One point of one of four metrics."""

    slot: int
    step: int
    time: int
    value: float


points = st.builds(
    Point,
    slot=st.integers(0, 3),
    step=st.one_of(st.integers(-2, 3), st.sampled_from([-(2**63), 2**63 - 1])),
    time=st.integers(0, 3),
    value=st.sampled_from(_SPECIAL),
)
facts = st.builds(
    lambda run, kind, key, moment, text: (run, kind, key, moment, text),
    run=st.sampled_from(_RUNS),
    kind=st.sampled_from(
        [schema.PARAM, schema.TAG, schema.STATUS, schema.RUN, schema.NOTE, schema.CLOSE]
    ),
    key=st.sampled_from(["k", schema.RUN_NAME]),
    moment=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    text=st.sampled_from([None, "x", "é\n", schema.RUNNING, schema.FINISHED]),
)
_NAMES = [(run, key) for run in _RUNS for key in _KEYS]


def _add(summaries: Summaries, batch: list[Point]) -> None:
    summaries.add(
        np.array([point.slot for point in batch], np.int64),
        np.array([point.step for point in batch], np.int64),
        np.array([point.time for point in batch], np.int64),
        np.array([point.value for point in batch], np.float64),
    )


def _table(summaries: Summaries) -> list[dict[str, Any]]:
    runs, keys = zip(*_NAMES, strict=True)
    return summaries.table(np.arange(4), list(runs), list(keys)).to_pylist()


def _by_hand(seen: list[Point]) -> dict[str, Any]:
    """Compute the summary of one metric from all its points in plain Python."""
    numbers = [point for point in seen if not math.isnan(point.value)]

    def rank(point: Point) -> tuple[int, int, bool, float]:
        isnan = math.isnan(point.value)
        return point.step, point.time, not isnan, 0.0 if isnan else point.value

    last = max(seen, key=rank)
    first = min(seen, key=lambda point: (*rank(point)[:2], math.isnan(point.value), rank(point)[3]))
    spots: dict[str, Point | None] = {"last": last, "first": first}
    for name, best in (("min", min), ("max", max)):
        reached = best((point.value for point in numbers), default=None)
        there = [point for point in numbers if point.value == reached]
        spots[name] = min(there, key=lambda point: (point.step, point.time), default=None)
    summary: dict[str, Any] = {
        "n": len(seen),
        "sum": math.fsum(point.value for point in numbers)
        if not {math.inf, -math.inf} <= {point.value for point in numbers}
        else math.nan,
        "nan_count": len(seen) - len(numbers),
    }
    for name, point in spots.items():
        summary[name] = None if point is None else point.value
        summary[f"{name}_step"] = None if point is None else point.step
        summary[f"{name}_time"] = None if point is None else point.time
    return summary


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (math.isnan(one) and math.isnan(other))
    return one == other


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(points, max_size=8), max_size=6))
def test_summaries_equal_those_of_all_points_however_these_are_batched(
    batches: list[list[Point]],
) -> None:
    summaries = Summaries()
    for batch in batches:
        _add(summaries, batch)
    everything = [point for batch in batches for point in batch]
    found = {(row["run_id"], row["key"]): row for row in _table(summaries)}
    for slot, name in enumerate(_NAMES):
        seen = [point for point in everything if point.slot == slot]
        assert (name in found) == bool(seen)
        if seen:
            expected = _by_hand(seen)
            row = {key: value for key, value in found[name].items() if key in expected}
            assert all(_same(row[key], expected[key]) for key in expected), (row, expected)


@settings(max_examples=30, deadline=None)
@given(before=st.lists(points, max_size=8), behind=st.lists(points, max_size=8))
def test_summaries_loaded_from_a_saved_state_count_on_as_if_never_interrupted(
    before: list[Point], behind: list[Point]
) -> None:
    whole, first, second = Summaries(), Summaries(), Summaries()
    _add(whole, before)
    _add(whole, behind)
    _add(first, before)
    runs, keys = zip(*_NAMES, strict=True)
    saved = first.table(np.arange(4), list(runs), list(keys))
    second.load(saved, {name: slot for slot, name in enumerate(_NAMES)})
    _add(second, behind)
    for one, other in zip(_table(whole), _table(second), strict=True):
        assert all(_same(one[key], other[key]) for key in one), (one, other)


def test_summaries_of_many_slots_grow_without_losing_any() -> None:
    summaries = Summaries()
    for slot in (0, 300, 5000):
        _add(summaries, [Point(slot, 1, 1, float(slot))])
    found = summaries.table(np.array([0, 300, 5000, 9999]), ["r"] * 4, list("abcd")).to_pylist()
    assert [row["last"] for row in found] == [0.0, 300.0, 5000.0]


def _book(rows: list[Any]) -> FactBook:
    book = FactBook()
    for run, kind, key, (clock, seq), text in rows:
        book.add(run, kind, key, Fact(clock, seq, None, text))
    return book


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(facts, max_size=20, unique_by=lambda row: (row[0], row[3])))
def test_fact_that_stands_is_the_earliest_of_params_and_the_latest_of_tags(
    rows: list[Any],
) -> None:
    table = _book(rows).table(_RUNS).to_pylist()
    found = {(row["run_id"], row["kind"], row["key"]): row for row in table}
    assert len(found) == len(table)
    said: dict[Any, list[Any]] = {}
    for run, kind, key, moment, text in rows:
        if kind in state.FACT_KINDS:
            said.setdefault((run, kind, key), []).append((moment, text))
    assert set(found) == set(said)
    for name, standing in found.items():
        best = min if state.earliest_stands(name[1], name[2]) else max
        moment, text = best(said[name], key=lambda pair: pair[0])
        assert (standing["clock"], standing["seq"], standing["str"]) == (*moment, text)


def _states(rows: list[Any], batches: list[list[Point]]) -> list[State]:
    """Return the cumulative states of one writer, as its footers hold them."""
    summaries, states = Summaries(), []
    runs, keys = zip(*_NAMES, strict=True)
    for number, batch in enumerate(batches):
        _add(summaries, batch)
        said = _book(rows[: (number + 1) * 4])
        table = summaries.table(np.arange(4), list(runs), list(keys))
        states.append(State(said.table(_RUNS), table))
    return states


def _canonical(one: State) -> tuple[list[str], list[str]]:
    """Return a state's content as text, which is equal where NaN is."""
    return (
        sorted(map(repr, one.facts.to_pylist())),
        sorted(map(repr, one.summaries.to_pylist())),
    )


_rows = st.lists(facts, max_size=16, unique_by=lambda row: (row[0], row[3]))
_batches = st.lists(st.lists(points, max_size=4), min_size=3, max_size=4)


@settings(max_examples=25, deadline=None)
@given(rows=_rows, batches=_batches)
def test_join_is_associative_commutative_and_idempotent(
    rows: list[Any], batches: list[list[Point]]
) -> None:
    a, b, c, *_ = _states(rows, batches)
    joined = _canonical(state.join([a, b, c]))
    assert _canonical(state.join([state.join([a, b]), c])) == joined
    assert _canonical(state.join([a, state.join([b, c])])) == joined
    assert _canonical(state.join([c, a, b])) == joined
    assert _canonical(state.join([a, a, b, c, c])) == joined
    assert _canonical(state.join([state.join([a, b, c]), b])) == joined


@settings(max_examples=25, deadline=None)
@given(rows=_rows, batches=_batches)
def test_state_read_back_from_its_text_is_equal(
    rows: list[Any], batches: list[list[Point]]
) -> None:
    for one in _states(rows, batches):
        back = State.decode(*one.encode())
        assert _canonical(back) == _canonical(one)
        assert back.facts.schema.names == state.fact_schema().names
        assert back.summaries.schema.names == state.summary_schema().names


def _many_facts(count: int) -> State:
    book = FactBook()
    for number in range(count):
        fact = Fact(number, number, number / 7, None if number % 3 else f"é{number}")
        book.add(f"run-{number % 5}", schema.PARAM, f"key-{number}", fact)
    return State(book.table(book.all_runs()), State.empty().summaries)


@pytest.mark.parametrize("count", [1, 127, 128, 1_000])
def test_texts_read_back_are_numbered_however_they_were_written(count: int) -> None:
    one = _many_facts(count)
    back = State.decode(*one.encode())
    assert back.facts.to_pylist() == one.facts.to_pylist()
    assert State.decode(*back.encode()).facts.equals(back.facts)
    coded = pa.dictionary(pa.int32(), pa.string())
    for table in (back.facts, back.summaries):
        kinds = {field.name: field.type for field in table.schema}
        assert {kinds[name] for name in ("run_id", "kind", "key") if name in kinds} == {coded}
    # What another library sees, which takes the stream as Arrow has it.
    text = one.encode()[0]
    bare = pl.read_ipc_stream(zstd.decompress(base64.b64decode(text)))
    assert bare.to_dicts() == one.facts.to_pylist()


@pytest.mark.parametrize("compress", [zlib.compress, zstd.compress])
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.large_string())]
)
def test_texts_of_other_arrow_types_are_read_as_well(
    kind: pa.DataType, compress: Callable[[bytes], bytes]
) -> None:
    one = _many_facts(100)
    other = one.facts
    for place, name in ((0, "run_id"), (2, "key")):
        texts = other[name].to_pylist()
        other = other.set_column(place, name, pa.chunked_array([pa.array(texts).cast(kind)]))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, other.schema) as stream:
        for batch in other.to_batches(max_chunksize=30):
            stream.write_batch(batch)
    text = base64.b64encode(compress(sink.getvalue().to_pybytes()))
    back = State.decode(text, State.empty().encode()[1])
    assert back.facts.to_pylist() == one.facts.to_pylist()


def _ending_early() -> list[bytes]:
    packed = base64.b64decode(_many_facts(200).encode()[0])
    return [base64.b64encode(packed[:size]) for size in (4, 20, len(packed) // 2, len(packed) - 8)]


@pytest.mark.parametrize(
    "text", [b"", b"!!", b"AAAA", State.empty().encode()[0][:-8], *_ending_early()]
)
def test_state_whose_text_is_damaged_is_refused(text: bytes) -> None:
    good = State.empty().encode()[1]
    with pytest.raises(FormatError, match="damaged"):
        State.decode(text, good)


def test_open_facts_name_the_runs_without_an_end_in_order() -> None:
    book = FactBook()
    for run, word in (("b", schema.RUNNING), ("a", schema.RUNNING), ("c", schema.FINISHED)):
        book.add(run, schema.STATUS, "", Fact(1, 0, 5.0, word))
    book.add("d", schema.PARAM, "k", Fact(1, 0, None, "x"))
    assert [run for run, _ in book.open_facts()] == ["a", "b"]
    assert book.open_runs() == {"a", "b"}
    book.forget(["a"])
    assert book.all_runs() == {"b", "c", "d"}
