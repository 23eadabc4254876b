from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import schema
from runlake.errors import FormatError, NewerFormatError
from runlake.storage import segments
from runlake.storage.segments import TAIL_BYTES, Header
from tests.storage.lakes import named, rows_of, segment, state_at

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = named(1, 0, 99)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "run_id": st.sampled_from(["a", "b", ""]),
            "kind": st.sampled_from([schema.METRIC, schema.PARAM, "unheard-of"]),
            "key": _TEXT,
            "step": st.none() | _INT64,
            "timestamp": st.integers(0, 2**50),
            "num": st.none() | st.floats(),
            "str": st.none() | _TEXT,
        }
    ),
    min_size=1,
    max_size=12,
)


def _table(made: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(made, schema=segments.segment_schema())


def _header(table: pa.Table, **other: object) -> Header:
    fields: dict[str, Any] = {
        "writer": _NAME.writer,
        "experiment_id": _NAME.experiment_id,
        "experiment_name": "Ünïcode \n name",
        "first": 0,
        "last": table.num_rows - 1,
        "digest": segments.digest(table),
        "nonce": "n",
        "host": "h",
        "pid": 1,
        "boot_id": "b",
        "version": "0",
    }
    return Header(**{**fields, **other})


@settings(max_examples=30, deadline=None)
@given(made=rows)
def test_segment_read_back_has_the_same_rows_footer_and_digest(made: list[dict[str, Any]]) -> None:
    table = _table(made)
    header = _header(table)
    data = segments.encode(table, header, state_at(_NAME))
    back, footer = segments.decode(data, key="k")
    assert footer.header == header
    assert footer.row_count == len(made)
    assert footer.state.summaries.to_pylist() == state_at(_NAME).summaries.to_pylist()
    assert repr(back.to_pylist()) == repr(table.to_pylist())
    assert segments.digest(back) == header.digest


@settings(max_examples=30, deadline=None)
@given(made=rows, cut=st.integers(0, 12))
def test_digest_hangs_on_the_rows_and_not_on_chunks_or_dictionaries(
    made: list[dict[str, Any]], cut: int
) -> None:
    whole = segments.digest(_table(made))
    parts = [part for part in (made[:cut], made[cut:]) if part]
    chunked = pa.concat_tables([_table(part) for part in parts])
    assert segments.digest(chunked) == whole
    assert segments.digest(chunked.unify_dictionaries().combine_chunks()) == whole
    # The same rows with a dictionary that holds more, in another order.
    padded = pa.concat_tables(
        [_table([{**made[0], "run_id": "zzz", "kind": "zzz", "key": "zzz"}]), _table(made)]
    )
    padded = padded.unify_dictionaries().combine_chunks().slice(1)
    assert segments.digest(padded) == whole


_CHANGES: list[Callable[[dict[str, Any]], dict[str, Any]]] = [
    lambda row: {**row, "run_id": "other"},
    lambda row: {**row, "kind": "other"},
    lambda row: {**row, "key": "other"},
    lambda row: {**row, "step": None},
    lambda row: {**row, "step": 8},
    lambda row: {**row, "timestamp": row["timestamp"] + 1},
    lambda row: {**row, "num": None},
    lambda row: {**row, "num": 0.5},
    lambda row: {**row, "num": math.nan},
    lambda row: {**row, "str": ""},
    lambda row: {**row, "str": "x"},
]


@pytest.mark.parametrize("change", _CHANGES)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_digest_of_rows_that_differ_anywhere_differs(
    change: Callable[[dict[str, Any]], dict[str, Any]], place: int
) -> None:
    row: dict[str, Any] = {
        "run_id": "r", "kind": "metric", "key": "k", "step": 0, "timestamp": 1, "num": 0.0,
        "str": None,
    }  # fmt: skip
    made = [dict(row) for _ in range(3)]
    before = segments.digest(_table(made))
    made[place] = change(made[place])
    assert segments.digest(_table(made)) != before


def test_segment_file_has_the_columns_encodings_and_checksums_that_the_format_names() -> None:
    data = segment(_NAME)
    metadata = pq.read_metadata(pa.BufferReader(data))
    group = metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(7)}
    assert list(columns) == [name for name, _ in schema.SEGMENT_COLUMNS]
    assert all(column.compression == "ZSTD" for column in columns.values())
    for name in ("run_id", "kind", "key"):
        assert "RLE_DICTIONARY" in columns[name].encodings
    for name in ("step", "timestamp"):
        assert "DELTA_BINARY_PACKED" in columns[name].encodings
    assert "BYTE_STREAM_SPLIT" in columns["num"].encodings
    assert str(metadata.schema.to_arrow_schema().field("timestamp").type) == "timestamp[us, tz=UTC]"
    assert b"ARROW:schema" not in (metadata.metadata or {})


@pytest.mark.parametrize("name", [segments.FACTS_KEY, segments.SUMMARIES_KEY])
def test_segment_with_a_changed_byte_in_its_state_is_refused(name: bytes) -> None:
    data = segment(_NAME)
    text = (pq.read_metadata(pa.BufferReader(data)).metadata or {})[name]
    first = data.index(text)
    for place in range(first, first + len(text)):
        damaged = bytearray(data)
        damaged[place] ^= 0x01
        with pytest.raises(FormatError, match="damaged"):
            segments.read_footer(bytes(damaged), key="k")


@pytest.mark.parametrize("part", range(8))
def test_segment_with_a_changed_byte_in_its_rows_is_refused_or_has_the_same_rows(
    part: int,
) -> None:
    data = segment(_NAME)
    whole = segments.read_footer(data, key="k").header.digest
    ends = len(data) - segments.footer_size(data, key="k")
    refused = 0
    for place in range(4 + part, ends, 8):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        try:
            table, _ = segments.decode(bytes(damaged), key="k")
        except FormatError:
            refused += 1
        else:
            # What no checksum covers is what no value hangs on: statistics in page headers.
            assert segments.digest(table) == whole
    assert refused


@pytest.mark.parametrize("size", [0, 3, 7, 8, 100, 2000])
def test_segment_that_is_cut_short_is_refused(size: int) -> None:
    with pytest.raises(FormatError):
        segments.read_footer(segment(_NAME)[:size], key="k")


def test_segment_that_is_no_parquet_file_is_refused() -> None:
    with pytest.raises(FormatError, match="k: the file does not end with PAR1"):
        segments.decode(b"hello" * 100, key="k")


def test_parquet_file_without_our_footer_is_refused() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(rows_of(_NAME), sink)
    with pytest.raises(FormatError, match="no readable runlake footer"):
        segments.decode(sink.getvalue().to_pybytes(), key="k")


def test_segment_of_a_newer_format_is_refused_with_the_pip_line() -> None:
    data = segment(_NAME, version=schema.FORMAT_VERSION + 1)
    with pytest.raises(NewerFormatError, match="pip install --upgrade runlake"):
        segments.read_footer(data, key="k")


def test_header_with_fields_of_a_later_version_is_read_without_them() -> None:
    table = rows_of(_NAME)
    sink = pa.BufferOutputStream()
    facts, summaries = state_at(_NAME).encode()
    header = _header(table)
    fields = {name: getattr(header, name) for name in Header.__slots__}
    with pq.ParquetWriter(sink, table.schema) as writer:
        writer.write_table(table)
        texts: Any = {
            schema.FOOTER_KEY: json.dumps({**fields, "later": 1}).encode(),
            segments.FACTS_KEY: facts,
            segments.SUMMARIES_KEY: summaries,
        }
        writer.add_key_value_metadata(texts)
    assert segments.read_footer(sink.getvalue().to_pybytes(), key="k").header == header


def test_footer_is_read_from_the_last_bytes_alone() -> None:
    data = segment(_NAME)
    size = segments.footer_size(data[-8:], key="k")
    assert size < min(len(data), TAIL_BYTES)
    footer = segments.read_footer(data[-size:], key="k")
    assert footer.header == segments.read_footer(data, key="k").header
    assert footer.row_count == 100
    with pytest.raises(FormatError):
        segments.read_footer(data[-size + 1 :], key="k")
