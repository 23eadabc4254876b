from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import duckdb
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from runlake.query import Query
from runlake.query.cells import csv_texts, json_texts
from runlake.query.export import distinct, to_pandas, to_polars, to_rows, to_values
from tests.query.builders import Fact, facts_of, snapshot

RUN = "a" * 32


@given(st.lists(st.sampled_from(["a", "a_1", "a_2", "a_1_1", "b"]), max_size=12))
def test_distinct_names_keep_the_first_of_each_and_never_clash(names: list[str]) -> None:
    found = distinct(names)
    assert len(set(found)) == len(names)
    assert all(new.startswith(old) for old, new in zip(names, found, strict=True))
    assert [found[names.index(name)] for name in names] == names


def test_a_join_that_names_a_column_twice_gives_a_frame() -> None:
    tables = snapshot(facts_of(Fact(RUN, "param", "lr", "0.1", 0.1)))
    found = Query(tables).sql("SELECT p.run_id, r.run_id FROM params p JOIN runs r USING (run_id)")
    assert to_polars(found).to_dicts() == [{"run_id": RUN, "run_id_1": RUN}]


def test_a_difference_of_times_is_a_duration_in_every_frame() -> None:
    statement = "SELECT TIMESTAMPTZ '2026-01-02' - TIMESTAMPTZ '2026-01-01' AS span"
    frame = to_polars(duckdb.connect().sql(statement).to_arrow_table())
    assert frame["span"].to_list() == [timedelta(days=1)]
    assert frame.to_arrow().schema.field("span").type == pa.duration("us")
    assert frame.to_pandas()["span"].to_list() == [timedelta(days=1)]


def test_maps_and_times_survive_the_way_to_arrow_and_pandas() -> None:
    tables = snapshot(facts_of(Fact(RUN, "param", "lr", "0.1", 0.1)))
    frame = to_polars(
        Query(tables).sql(
            "SELECT params, make_timestamptz(1700000000123456) AS at, 'nan'::DOUBLE AS nan, "
            "NULL::DOUBLE AS nothing FROM runs"
        )
    )
    moment = datetime.fromtimestamp(1700000000.123456, UTC)
    assert frame.to_dicts()[0]["params"] == {"lr": "0.1"}
    arrow = frame.to_arrow()
    assert arrow["params"].to_pylist(maps_as_pydicts="strict") == [{"lr": "0.1"}]
    assert arrow["at"].to_pylist() == [moment]
    assert (arrow["nan"].null_count, arrow["nothing"].null_count) == (0, 1)
    pandas = frame.to_pandas()
    assert dict(pandas["params"][0]) == {"lr": "0.1"}
    assert pandas["at"][0] == moment


def test_times_and_dates_behind_the_years_of_python_are_counts_since_1970() -> None:
    table = (
        duckdb.connect()
        .sql("""
        SELECT * FROM (VALUES
            (DATE '2026-01-31', TIMESTAMP '2026-01-31 12:00:00'),
            (DATE '0044-03-15 (BC)', TIMESTAMP 'infinity'),
            (NULL, NULL)
        ) AS t(day, moment)
    """)
        .to_arrow_table()
    )
    days = ["-735160 d since 1970", None]
    moments = ["9223372036854775807 us since 1970", None]
    assert to_values(table["day"]) == [date(2026, 1, 31), *days]
    assert to_values(table["moment"]) == [datetime(2026, 1, 31, 12), *moments]  # noqa: DTZ001
    texts = [csv_texts(column.combine_chunks()).to_list() for column in table.columns]
    assert texts == [["2026-01-31", *days], ["2026-01-31T12:00:00.000000", *moments]]
    assert json_texts(table["day"].combine_chunks()).to_list() == [
        '"2026-01-31"',
        '"-735160 d since 1970"',
        "null",
    ]


def test_rows_have_maps_as_dictionaries() -> None:
    table = duckdb.connect().sql("SELECT MAP {'a': 1.5} AS m").to_arrow_table()
    assert to_rows(table) == [{"m": {"a": 1.5}}]
    assert to_pandas(table)["m"].tolist() == [[("a", 1.5)]]
