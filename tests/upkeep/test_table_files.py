from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import schema
from runlake.errors import FormatError, NewerFormatError
from runlake.storage import arrays
from runlake.storage.state import earliest_stands
from runlake.storage.table_files import (
    CODED,
    EVENTS,
    FACTS,
    METRICS,
    PLAIN,
    SUMMARIES,
    TABLES,
    WRITERS,
    Table,
    TableHeader,
    arrow_schema,
    read_groups,
    read_header,
    values_among,
)
from runlake.upkeep.fold import folded
from runlake.upkeep.merge import merged
from runlake.upkeep.order import in_order, sort_order
from runlake.upkeep.table_writer import (
    FILE_BYTES,
    GROUP_TEXT_BYTES,
    MOST_FILE_BYTES,
    TableWriter,
    Written,
)
from tests.storage.lakes import START_US
from tests.upkeep.made import _exact, _order_of, _plain

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

HEADER = TableHeader(lake="lake", table="metrics", experiment_id="exp", n=7, commit="nonce")


def table_of(table: Table, rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Return rows with the columns of a table."""
    wanted = arrow_schema(table)
    plain = pa.Table.from_pylist(list(rows), schema=_plain(wanted))
    return plain.cast(wanted)


def listed(rows: pa.Table) -> list[dict[str, Any]]:
    """Return rows as Python has them, doubles by their bits."""
    plain = rows.cast(_plain(rows.schema)).to_pylist()
    return [{name: _exact(value) for name, value in row.items()} for row in plain]


def points(counts: dict[tuple[str, str], int]) -> pa.Table:
    """Return so many points of each run and key, in order."""
    rows = [
        {
            "run_id": run_id,
            "key": key,
            "step": step,
            "timestamp": START_US + step,
            "value": step / 7,
            "writer": "w",
        }
        for (run_id, key), count in sorted(counts.items())
        for step in range(count)
    ]
    return table_of(METRICS, rows)


def write(
    table: Table,
    pieces: Iterable[pa.Table],
    folder: Path,
    *,
    file_bytes: tuple[int, int] = (FILE_BYTES, MOST_FILE_BYTES),
) -> list[Written]:
    """Write rows as files."""
    made: list[Written] = []
    header = replace(HEADER, table=table.name)
    writer = TableWriter(table, header, folder, finished=made.append, file_bytes=file_bytes)
    for piece in pieces:
        writer.write(piece)
    writer.close()
    assert sum(each.rows for each in made) == writer.rows
    return made


def group_sizes(written: Written) -> list[int]:
    """Return the rows of each row group of a file."""
    found = pq.read_metadata(written.path)
    return [found.row_group(place).num_rows for place in range(found.num_row_groups)]


# --- row groups and files ---


def cut_in_two(rows: pa.Table, at: int) -> list[pa.Table]:
    """Return rows in two pieces."""
    return [rows.slice(0, at), rows.slice(at)]


def test_short_runs_share_row_groups_that_end_between_them(tmp_path: Path) -> None:
    small = replace(METRICS, group_rows=100)
    rows = points({(f"run-{number:02d}", "loss"): 9 for number in range(30)})
    (made,) = write(small, [rows], tmp_path)
    assert group_sizes(made) == [99, 99, 72]
    assert (made.least, made.greatest) == ("run-00", "run-29")


def test_a_long_curve_begins_a_row_group_of_its_own(tmp_path: Path) -> None:
    small = replace(METRICS, group_rows=80)
    counts = {("run-a", "a"): 5, ("run-a", "b"): 20, ("run-a", "c"): 5, ("run-b", "a"): 3}
    (made,) = write(small, [points(counts)], tmp_path)
    # run-a is long, and so is its curve b; run-b is short, and follows in the group of b and c.
    assert group_sizes(made) == [5, 28]


def test_a_curve_longer_than_a_row_group_is_cut(tmp_path: Path) -> None:
    small = replace(METRICS, group_rows=64)
    (made,) = write(small, [points({("run-a", "loss"): 150})], tmp_path)
    assert group_sizes(made) == [64, 64, 22]


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    at=st.integers(0, 300),
)
@settings(max_examples=30)
def test_row_groups_do_not_hang_on_how_rows_come_in(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], at: int
) -> None:
    small = replace(METRICS, group_rows=32)
    counts = {(f"run-{place // 3:02d}", f"k{place % 3}"): size for place, size in enumerate(sizes)}
    rows, folder = points(counts), tmp_path_factory.mktemp("files")
    (whole,) = write(small, [rows], folder)
    expected = group_sizes(whole)
    assert max(expected) <= 32
    assert listed(pa.concat_tables(read_groups(whole.path, METRICS, key="k"))) == listed(rows)
    (pieces,) = write(small, cut_in_two(rows, min(at, rows.num_rows)), folder)
    assert group_sizes(pieces) == expected


def test_a_row_group_ends_before_it_holds_too_much_text(tmp_path: Path) -> None:
    text = "x" * (GROUP_TEXT_BYTES // 3)
    rows = [
        {"run_id": f"run-{number}", "kind": "note", "key": "", "timestamp": number, "str": text,
         "writer": "w", "seq": number}
        for number in range(8)
    ]  # fmt: skip
    (made,) = write(EVENTS, [table_of(EVENTS, rows)], tmp_path)
    assert group_sizes(made) == [3, 3, 2]


def test_facts_of_many_runs_are_in_row_groups_of_one_kind_each(tmp_path: Path) -> None:
    counts = {"close": 3, "delete": 2, "param": 40_000, "run": 4_000, "status": 600, "tag": 5}
    rows = [
        {"writer": "w", "run_id": f"{number:06d}", "kind": kind, "key": "k", "clock": 1, "seq": 1}
        for kind, count in counts.items()
        for number in range(count)
    ]
    whole = table_of(FACTS, rows)
    (written,) = write(FACTS, cut_in_two(whole, 20_000), tmp_path)
    footer = pq.read_metadata(written.path)
    groups = range(footer.num_row_groups)
    said: list[Any] = [footer.row_group(group).column(2).statistics for group in groups]
    assert [(each.min, each.max) for each in said] == [
        ("close", "delete"),  # of few rows
        ("param", "param"),
        ("param", "param"),
        ("run", "run"),
        ("status", "status"),
        ("tag", "tag"),
    ]
    assert (written.least, written.greatest) == ("000000", "039999")


def test_files_end_between_runs_once_they_are_large_and_anywhere_at_the_limit(
    tmp_path: Path,
) -> None:
    small = replace(METRICS, group_rows=50)
    counts = {(f"run-{number}", "loss"): 50 for number in range(4)} | {("run-9", "loss"): 500}
    made = write(small, [points(counts)], tmp_path, file_bytes=(1, 6_000))
    assert [each.rows for each in made[:4]] == [50] * 4
    assert {each.least for each in made[4:]} == {"run-9"}
    assert len(made) > 5
    assert all(each.size_bytes < 12_000 for each in made)
    assert all(each.path.stat().st_size == each.size_bytes for each in made)


def test_no_rows_make_no_file(tmp_path: Path) -> None:
    assert write(METRICS, [], tmp_path) == []
    assert write(METRICS, [arrow_schema(METRICS).empty_table()], tmp_path) == []


def test_bounds_of_a_file_pass_over_rows_about_no_run(tmp_path: Path) -> None:
    rows = [
        {"run_id": run_id, "writer": "w", "kind": "close", "key": "", "clock": 1, "seq": number}
        for number, run_id in enumerate(["", "run-a", "run-b"])
    ]
    (made,) = write(FACTS, [table_of(FACTS, rows)], tmp_path)
    assert (made.least, made.greatest) == ("run-a", "run-b")
    (made,) = write(FACTS, [table_of(FACTS, rows[:1])], tmp_path)
    assert (made.least, made.greatest) == ("", "")


# --- what a file looks like ---

_VALUES: dict[str, Any] = {
    "VARCHAR": "text",
    "BIGINT": 3,
    "DOUBLE": 0.5,
    "BOOLEAN": True,
    "TIMESTAMP WITH TIME ZONE": START_US,
}


@pytest.mark.parametrize("table", TABLES.values(), ids=str)
def test_columns_have_the_types_and_encodings_that_are_promised(
    table: Table, tmp_path: Path
) -> None:
    row = {column.name: _VALUES[column.type] for column in table.columns}
    (made,) = write(table, [table_of(table, [row])], tmp_path)
    found = pq.read_metadata(made.path)
    group = found.row_group(0)
    for place, (name, _, encoding) in enumerate(table.columns):
        chunk = group.column(place)
        assert chunk.path_in_schema == name
        assert {CODED: "RLE_DICTIONARY", PLAIN: "PLAIN"}.get(encoding, encoding) in chunk.encodings
        assert (encoding == CODED) == chunk.has_dictionary_page
        assert chunk.compression == "ZSTD"
    assert [each.column_index for each in group.sorting_columns] == [
        [column.name for column in table.columns].index(name) for name in table.order
    ]
    assert {key for key in found.metadata or {} if key.startswith(b"ARROW")} == set()
    assert listed(next(read_groups(made.path, table, key="k"))) == listed(table_of(table, [row]))


def test_header_comes_back_with_the_count_of_rows(tmp_path: Path) -> None:
    header = replace(HEADER, inputs={"w": (3, 9)}, replaces=("a", "b"), version="1.2")
    made: list[Written] = []
    writer = TableWriter(METRICS, header, tmp_path, finished=made.append)
    writer.write(points({("run-a", "loss"): 7}))
    writer.close()
    assert read_header(made[0].path, key="k") == replace(header, rows=7)
    assert read_header(made[0].path.read_bytes(), key="k") == replace(header, rows=7)


def test_a_file_that_is_no_table_or_damaged_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"no table")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other")
    for name in ("text", "other"):
        with pytest.raises(FormatError, match="the/key"):
            read_header(tmp_path / name, key="the/key")
    (made,) = write(METRICS, [points({("run-a", "loss"): 3000})], tmp_path)
    data = bytearray(made.path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    made.path.write_bytes(bytes(data))
    with pytest.raises(FormatError, match="the/key"):
        list(read_groups(made.path, METRICS, key="the/key"))


def test_a_footer_that_gives_a_column_another_type_is_refused_and_not_asked(tmp_path: Path) -> None:
    (made,) = write(METRICS, [points({("run-a", "loss"): 30})], tmp_path)
    data = made.path.read_bytes()
    size = int.from_bytes(data[-8:-4], "little")
    rows, footer = data[: -8 - size], data[-8 - size :]
    # A text in a row group (type 6 of Thrift's field 1, then a list of encodings) becomes a number.
    assert b"\x15\x0c\x19" in footer
    made.path.write_bytes(rows + footer.replace(b"\x15\x0c\x19", b"\x15\x04\x19"))
    with pytest.raises(FormatError, match=r"the/key.*INT64"):
        values_among(made.path, "run_id", {"run-a"}, key="the/key")
    with pytest.raises(FormatError, match=r"the/key.*INT64"):
        list(read_groups(made.path, METRICS, key="the/key", between=("run-a", "run-a")))


def test_a_file_of_a_newer_format_is_refused_with_the_way_out(tmp_path: Path) -> None:
    rows = pa.table({"a": [1]})
    fields = {**json.loads(HEADER.encode()), "format": schema.FORMAT_VERSION + 1}
    metadata = {schema.FOOTER_KEY: json.dumps(fields).encode()}
    pq.write_table(rows.replace_schema_metadata(metadata), tmp_path / "newer")
    with pytest.raises(NewerFormatError, match="Upgrade"):
        read_header(tmp_path / "newer", key="k")


def test_runs_that_a_file_holds_are_told_exactly(tmp_path: Path) -> None:
    small = replace(METRICS, group_rows=16)
    counts = {(f"run-{number:02d}", "loss"): 9 for number in range(0, 30, 2)}
    (made,) = write(small, [points(counts)], tmp_path)
    asked = {"run-00", "run-01", "run-02", "run-27", "run-28", "run-99", ""}
    found = values_among(made.path, "run_id", asked, key="k")
    assert found == {"run-00", "run-02", "run-28"}
    assert values_among(made.path, "run_id", set(), key="k") == set()


# --- order, merge and fold ---

_texts = st.sampled_from(["", "a", "b", "ä", "\U0001f600", "\uffff"])
_numbers = st.integers(-3, 3) | st.sampled_from([-(2**63), 2**63 - 1])
_doubles = st.sampled_from([0.0, -0.0, 1.5, -1.5, math.nan, math.inf, -math.inf])
_by_type: dict[str, st.SearchStrategy[Any]] = {
    "VARCHAR": _texts,
    "BIGINT": _numbers,
    "DOUBLE": _doubles,
    "BOOLEAN": st.booleans(),
    "TIMESTAMP WITH TIME ZONE": st.integers(-5, 5),
}


def rows_of(table: Table) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Draw rows of a table."""
    columns = {column.name: _by_type[column.type] for column in table.columns}
    return st.lists(st.fixed_dictionaries(columns), max_size=20)


tables = st.sampled_from([METRICS, EVENTS, FACTS, SUMMARIES, WRITERS])


@given(data=st.data(), table=tables)
def test_rows_come_out_in_order_and_none_is_lost(data: st.DataObject, table: Table) -> None:
    rows = data.draw(rows_of(table))
    made = table_of(table, rows)
    pieces = list(in_order(made, table.order, size=3))
    assert all(piece.num_rows <= 3 for piece in pieces)
    found = [row for piece in pieces for row in _python(piece)]
    assert [_order_of(table, row) for row in found] == sorted(_order_of(table, row) for row in rows)
    assert _bag(found) == _bag(_python(made))


def test_rows_that_are_in_order_are_not_moved() -> None:
    rows = points({("run-a", "a"): 5, ("run-a", "b"): 5, ("run-b", "a"): 5})
    assert sort_order(rows, METRICS.order) is None


def test_curves_that_are_mixed_come_apart_by_more_texts_than_one_digit_counts() -> None:
    count = 70_000
    codes: Any = np.random.default_rng(0).permutation(count).astype(np.int32)
    names = pa.array([f"run-{number:06d}" for number in range(count)])
    runs = pa.DictionaryArray.from_arrays(arrays.numbers(codes), names)
    rows = pa.table({"run_id": runs, "step": arrays.numbers(np.zeros(count, np.int64))})
    (found,) = in_order(rows, ["run_id", "step"], size=count)
    assert found["run_id"].to_pylist() == names.to_pylist()


@given(data=st.data(), table=tables)
def test_merged_rows_are_all_rows_in_order_folded_where_the_table_is(
    data: st.DataObject, table: Table
) -> None:
    drawn = data.draw(st.lists(rows_of(table), min_size=1, max_size=4))
    sources, everything = [], []
    for rows in drawn:
        made = table_of(table, rows)
        ordered = folded(table, made) if table.is_folded else _sorted(table, made)
        everything += _python(ordered)
        size = data.draw(st.integers(1, 5))
        starts = range(0, ordered.num_rows, size)
        sources.append([ordered.slice(start, size) for start in starts])
    pieces = list(merged(table, map(iter, sources)))
    found = [row for piece in pieces for row in _python(piece)]
    orders = [_order_of(table, row) for row in found]
    assert orders == sorted(orders)
    if table.is_folded:
        assert len(set(orders)) == len(orders)
        assert set(orders) == {_order_of(table, row) for row in everything}
        for row in found:
            group = [each for each in everything if _order_of(table, each) == _order_of(table, row)]
            assert _rank(table, row) == max(_rank(table, each) for each in group)
    else:
        assert _bag(found) == _bag(everything)


@given(data=st.data(), table=st.sampled_from([FACTS, SUMMARIES, WRITERS]))
def test_folding_again_changes_nothing(data: st.DataObject, table: Table) -> None:
    once = folded(table, table_of(table, data.draw(rows_of(table))))
    assert listed(folded(table, once)) == listed(once)


@pytest.mark.parametrize(
    ("kind", "key", "stands"),
    [
        (schema.PARAM, "lr", "first"),
        (schema.TAG, "team", "last"),
        (schema.RUN, schema.RUN_START, "first"),
        (schema.RUN, schema.RUN_NAME, "last"),
        (schema.STATUS, "", "last"),
    ],
)
def test_of_a_writers_facts_the_one_stands_that_its_kind_says(
    kind: str, key: str, stands: str
) -> None:
    rows = [
        {"writer": "w", "run_id": "r", "kind": kind, "key": key, "clock": clock, "seq": seq,
         "str": text}
        for clock, seq, text in ((5, 0, "middle"), (5, 3, "last"), (4, 9, "first"))
    ]  # fmt: skip
    assert folded(FACTS, table_of(FACTS, rows))["str"].to_pylist() == [stands]


def _sorted(table: Table, rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows.slice(0, 0), *in_order(rows, table.order, size=100)])


def _python(rows: pa.Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rows.cast(_plain(rows.schema)).to_pylist()
    return found


def _bag(rows: Iterable[dict[str, Any]]) -> list[str]:
    return sorted(repr([_exact(value) for value in row.values()]) for row in rows)


def _rank(table: Table, row: dict[str, Any]) -> tuple[int, ...]:
    if table is SUMMARIES:
        return (row["n"],)
    if table is WRITERS:
        return (row["last"],)
    sign = -1 if earliest_stands(row["kind"], row["key"]) else 1
    return sign * row["clock"], sign * row["seq"]
