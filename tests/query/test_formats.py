from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.errors import InvalidInputError
from runlake.query import cells, formats
from runlake.query.formats import Form, form_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COLUMNS: list[tuple[str, pa.DataType]] = [
    ("text", pa.string()),
    ("number", pa.float64()),
    ("whole", pa.int64()),
    ("yes", pa.bool_()),
    ("moment", pa.timestamp("us", "UTC")),
    ("map", pa.map_(pa.string(), pa.float64())),
]
SCHEMA = pa.schema(COLUMNS)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ROWS = st.fixed_dictionaries(
    {
        "text": st.none() | TEXTS,
        "number": st.none() | st.floats(),
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
        "yes": st.none() | st.booleans(),
        "moment": st.none() | st.datetimes(timezones=st.just(UTC)),
        "map": st.none() | st.dictionaries(TEXTS, st.none() | st.floats(), max_size=3),
    }
)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    columns = [
        pa.array(
            [
                list(each[name].items()) if isinstance(each[name], dict) else each[name]
                for each in rows
            ],
            SCHEMA.field(name).type,
        )
        for name in SCHEMA.names
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


TABLES = st.lists(ROWS, max_size=8).map(table_of)


def written(table: pa.Table, name: str, compression: formats.Compression | None = None) -> bytes:
    """Write a table in batches of three rows."""
    sink = io.BytesIO()
    kept = sink.getvalue
    if compression is not None:  # which closes the sink
        sink.close = lambda: None  # type: ignore[method-assign]
    count = formats.write(
        table.to_batches(max_chunksize=3), table.schema, sink=sink, form=Form(name, compression)
    )
    assert count == table.num_rows
    return kept()


def rows_of(table: pa.Table) -> str:
    """Return all values as text, so that NaN equals NaN and -0.0 differs from 0.0."""
    return repr(table.to_pylist())


def strictly(text: str) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


@given(TABLES)
def test_parquet_comes_back_as_it_was(table: pa.Table) -> None:
    back = pq.read_table(io.BytesIO(written(table, "parquet")))
    assert back.schema == table.schema
    assert rows_of(back) == rows_of(table)


@given(TABLES)
def test_arrow_comes_back_as_it_was(table: pa.Table) -> None:
    back = pa.ipc.open_file(io.BytesIO(written(table, "arrow"))).read_all()
    assert back.schema == table.schema
    assert rows_of(back) == rows_of(table)


@given(TABLES)
def test_json_lines_hold_every_value(table: pa.Table) -> None:
    lines = written(table, "jsonl").decode().split("\n")
    assert lines.pop() == ""
    assert [strictly(line) for line in lines] == [
        cells.plain(row) for row in table.to_pylist(maps_as_pydicts="strict")
    ]


def unwrap(text: str | None, read: Callable[[str], object]) -> object:
    return None if text is None else read(text)


@given(TABLES)
def test_csv_holds_every_value_and_tells_null_from_empty(table: pa.Table) -> None:
    data = written(table, "csv")
    frame = pl.read_csv(io.BytesIO(data), infer_schema=False)
    assert frame.columns == SCHEMA.names
    back = [
        {
            "text": row["text"],
            "number": unwrap(row["number"], float),
            "whole": unwrap(row["whole"], int),
            "yes": {None: None, "true": True, "false": False}[row["yes"]],
            "moment": unwrap(row["moment"], datetime.fromisoformat),
            "map": unwrap(row["map"], strictly),
        }
        for row in frame.to_dicts()
    ]
    wanted = table.to_pylist(maps_as_pydicts="strict")
    for row in wanted:
        row["map"] = cells.plain(row["map"])
        row["moment"] = row["moment"] and row["moment"].astimezone(UTC)
    assert repr(back) == repr(wanted)


@given(TABLES)
def test_csv_is_what_pythons_own_reader_takes_it_for(table: pa.Table) -> None:
    text = written(table, "csv").decode()
    _, *rows = csv.reader(io.StringIO(text, newline=""))
    assert [row[0] for row in rows] == [text or "" for text in table["text"].to_pylist()]
    assert {len(row) for row in rows} <= {len(SCHEMA)}


def test_duckdb_reads_every_format(tmp_path: Path) -> None:
    values = [1.5, math.nan, math.inf, -math.inf, None, 0.1]
    moment = datetime(2026, 1, 2, 3, 4, 5, 600000, UTC)
    table = pa.table(
        {
            "text": ["", None, 'a,"b"', "line\nline", "NULL", "é"],
            "number": pa.array(values, pa.float64()),
            "moment": pa.array([moment] * 6, pa.timestamp("us", "UTC")),
        }
    )
    for name in ("csv", "parquet"):
        file = tmp_path / f"x.{name}"
        file.write_bytes(written(table, name))
        statement = f"SELECT text, number, epoch_us(moment) AS moment FROM '{file}'"
        rows = duckdb.execute(statement).fetchall()
        assert repr([row[1] for row in rows]) == repr(values)
        assert {row[2] for row in rows} == {1767323045600000}
        if name == "parquet":  # DuckDB's CSV reader takes "" for null
            assert [row[0] for row in rows] == table["text"].to_pylist()


@pytest.mark.parametrize("name", formats.FORMATS)
def test_no_rows_make_a_file_that_still_says_its_columns(name: str) -> None:
    data = written(SCHEMA.empty_table(), name)
    if name == "csv":
        assert data == b"text,number,whole,yes,moment,map\n"
    elif name == "jsonl":
        assert data == b""
    else:
        read = pl.read_parquet if name == "parquet" else pl.read_ipc
        assert read(io.BytesIO(data)).columns == SCHEMA.names


def test_a_null_alone_on_its_line_is_a_row_of_csv() -> None:
    assert written(pa.table({"a": [None, "", "x"]}), "csv") == b'a\n""\n""\nx\n'


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_type_of_duckdb_can_be_written(name: str) -> None:
    statement = """
        SELECT 5::HUGEINT AS huge, 1.50::DECIMAL(9, 2) AS cents, 'inf'::FLOAT AS single,
            'ab'::BLOB AS bytes, '101'::BIT AS bits, DATE '2026-01-02' AS day,
            TIME '01:02:03' AS clock, TIMESTAMP '2026-01-02 03:04:05.6' AS naive,
            TIMESTAMP_NS '2026-01-02 03:04:05.000000007' AS fine, INTERVAL '1 day 2.5 s' AS span,
            [1, NULL] AS list, {'a': 'nan'::DOUBLE} AS struct, [MAP {'k': 1}] AS maps,
            MAP {1: 'x'} AS numbered, 'a'::ENUM ('a', 'b') AS choice, '{"j": 1}'::JSON AS json,
            uuid() AS uuid, 255::UTINYINT AS tiny, NULL AS nothing, 1 AS a, 2 AS a, 3 AS a_1
    """
    table = duckdb.connect().sql(statement).to_arrow_table()
    data = written(table, name)
    if name != "jsonl":
        return
    row = strictly(data.decode())
    del row["uuid"]
    assert row == {
        "huge": 5,
        "cents": 1.5,
        "single": "Infinity",
        "bytes": "6162",
        "bits": table["bits"][0].as_py().hex(),
        "day": "2026-01-02",
        "clock": "01:02:03",
        "naive": "2026-01-02T03:04:05.600000",
        "fine": "2026-01-02T03:04:05.000000007",
        "span": 86402.5,
        "list": [1, None],
        "struct": {"a": "NaN"},
        "maps": [{"k": 1}],
        "numbered": {"1": "x"},
        "choice": "a",
        "json": '{"j": 1}',
        "tiny": 255,
        "nothing": None,
        "a": 1,
        "a_2": 2,
        "a_1": 3,
    }


def test_parts_are_written_as_row_groups_of_bounded_size() -> None:
    table = pa.table({"a": range(300_000), "text": ["x" * 10] * 300_000})
    sink = io.BytesIO()
    formats.write(
        table.to_batches(max_chunksize=10_000), table.schema, sink=sink, form=Form("parquet")
    )
    meta = pq.ParquetFile(sink).metadata
    groups = [meta.row_group(place).num_rows for place in range(meta.num_row_groups)]
    assert sum(groups) == 300_000
    assert max(groups) < 150_000


def test_a_compressed_file_holds_the_same_text() -> None:
    table = pa.table({"a": [1, 2]})
    for compression in ("gzip", "zstd"):
        packed = written(table, "csv", compression)
        assert pa.input_stream(io.BytesIO(packed), compression=compression).read() == b"a\n1\n2\n"


@pytest.mark.parametrize(
    ("file_name", "form"),
    [
        ("x.csv", Form("csv")),
        ("x.CSV.gz", Form("csv", "gzip")),
        ("a.b/x.jsonl.zst", Form("jsonl", "zstd")),
        ("x.ndjson", Form("jsonl")),
        ("x.parquet", Form("parquet")),
        ("x.feather", Form("arrow")),
    ],
)
def test_a_suffix_tells_the_form(file_name: str, form: Form) -> None:
    assert form_of(file_name) == form


def test_a_format_that_is_given_beats_the_suffix() -> None:
    assert form_of("x.txt", "csv") == Form("csv")
    assert form_of("x.csv", "jsonl") == Form("jsonl")


@pytest.mark.parametrize(
    ("file_name", "name"),
    [("x", None), ("x.xlsx", None), ("x.csv", "excel"), ("x.parquet.gz", None)],
)
def test_a_form_that_cannot_be_told_is_refused(file_name: str, name: str | None) -> None:
    with pytest.raises(InvalidInputError):
        form_of(file_name, name)
