"""What SQL may say; what a locked connection adds is in `test_confine.py`."""

from __future__ import annotations

import enum
import math
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import PurePosixPath

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from runlake.errors import InvalidInputError, LimitExceededError
from runlake.query.confine import Watch
from runlake.query.statement import MAX_CHARACTERS, MAX_DEPTH, read_statement
from runlake.query.views import VIEWS

# A statement, and the views that it needs.
READING = [
    ("FROM runs", {"runs"}),
    ("TABLE runs", {"runs"}),
    ('SELECT "Run_Id" FROM RUNS', {"runs"}),
    ("SELECT 1;", set()),
    (";;SELECT 1;; -- done", set()),
    ("/* EXPLAIN */ VALUES (1)", set()),
    ("SELECT * FROM main.runs JOIN memory.main.tags USING (run_id)", {"runs", "tags"}),
    ("WITH best AS (FROM metric_summary) FROM best", {"metric_summary"}),
    ("WITH runs AS (FROM runs WHERE run_id = 'a') FROM runs", {"runs"}),
    ("WITH metrics(a) AS (SELECT 1) SELECT a FROM metrics", {"metrics"}),
    ("WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) FROM t", set()),
    ("SELECT (SELECT count(*) FROM params), EXISTS (FROM events)", {"params", "events"}),
    ("SELECT ARRAY(SELECT key FROM tags)", {"tags"}),
    ("FROM runs r, LATERAL (SELECT r.run_id FROM inputs)", {"runs", "inputs"}),
    ("FROM runs UNION ALL (FROM runs EXCEPT FROM runs)", {"runs"}),
    ("FROM runs ASOF JOIN metrics USING (run_id)", {"runs", "metrics"}),
    ("FROM runs TABLESAMPLE 10%", {"runs"}),
    ("PIVOT metric_summary ON key IN ('loss') USING first(last) GROUP BY run_id", None),
    ("UNPIVOT metric_summary ON min, max", {"metric_summary"}),
    ("SELECT x FROM range(3) r(x), unnest([1, 2]), json_each('[1]'), repeat('a', 2)", set()),
    ("SELECT list_transform([1], lambda x: x + 1), [x FOR x IN [1]]", set()),
    ("SELECT rank(min ORDER BY key) OVER w FROM metric_summary WINDOW w AS ()", None),
    ("SELECT run_name.upper(), random(), now(), uuid() FROM runs", {"runs"}),
    ("DESCRIBE runs", {"runs"}),
    ("DESC runs", {"runs"}),
    ("SHOW runs", {"runs"}),
    ("SUMMARIZE metrics", {"metrics"}),
    ("DESCRIBE SELECT * FROM tags", {"tags"}),
    ("SHOW TABLES", set(VIEWS)),
    ("SHOW ALL TABLES", set(VIEWS)),
    ("DESCRIBE", set(VIEWS)),
    ("SELECT * FROM information_schema.columns", set(VIEWS)),
    ("EXPLAIN FROM runs", {"runs"}),
    ("-- why\n explain analyze FROM runs", {"runs"}),
    ("EXPLAIN (FORMAT json) FROM runs", {"runs"}),
    ("EXPLAIN (ANALYZE, FORMAT json) FROM runs", {"runs"}),
    ("EXPLAIN (FROM runs)", {"runs"}),
]

# What is refused before anything runs, and a word of the reason.
REFUSED = [
    ("", "no statement"),
    (" -- nothing", "no statement"),
    ("SEELCT 1", "line 1, column 1"),
    ("SELECT 1; SELECT 2", "2 statements"),
    ("SELECT 1; DROP TABLE runs", "several"),
    ("DROP TABLE runs", "DROP"),
    ("/* SELECT */ DELETE FROM runs", "DELETE"),
    ("INSERT INTO runs VALUES (1)", "INSERT"),
    ("UPDATE runs SET run_id = 1", "UPDATE"),
    ("MERGE INTO runs USING runs r ON true WHEN MATCHED THEN DELETE", "MERGE"),
    ("TRUNCATE runs", "TRUNCATE"),
    ("WITH g AS (DELETE FROM runs RETURNING *) FROM g", "DELETE"),
    ("WITH g AS (INSERT INTO runs VALUES (1) RETURNING *) FROM g", "INSERT"),
    ("WITH g AS (UPDATE runs SET run_id = 1 RETURNING *) FROM g", "UPDATE"),
    ("SELECT * FROM (WITH g AS (DELETE FROM runs RETURNING *) FROM g)", "DELETE"),
    ("EXPLAIN ANALYZE DELETE FROM runs", "DELETE"),
    ("EXPLAIN ANALYZE WITH g AS (DELETE FROM runs RETURNING *) FROM g", "DELETE"),
    ("EXPLAIN COPY runs TO 'x.csv'", "COPY"),
    ("EXPLAIN SELECT 1; DROP TABLE runs", "several"),
    ("COPY runs TO 'x.csv'", "COPY"),
    ("COPY (SELECT 1) TO 'x.parquet' (FORMAT parquet)", "COPY"),
    ("EXPORT DATABASE 'x'", "EXPORT"),
    ("IMPORT DATABASE 'x'", "IMPORT"),
    ("ATTACH 'x.db' AS x", "ATTACH"),
    ("DETACH memory", "DETACH"),
    ("USE memory", "USE"),
    ("INSTALL httpfs", "INSTALL"),
    ("LOAD httpfs", "LOAD"),
    ("UPDATE EXTENSIONS", "UPDATE"),
    ("SET threads = 1", "SET"),
    ("SET VARIABLE x = 1", "SET"),
    ("RESET memory_limit", "RESET"),
    ("PRAGMA database_list", "PRAGMA"),
    ("PRAGMA enable_profiling", "PRAGMA"),
    ("CALL enable_logging()", "CALL"),
    ("CALL range(1)", "CALL"),
    ("CREATE TABLE x (a INTEGER)", "CREATE"),
    ("CREATE TEMP VIEW x AS FROM runs", "CREATE"),
    ("CREATE MACRO x() AS TABLE FROM runs", "CREATE"),
    ("CREATE SECRET x (TYPE http)", "CREATE"),
    ("ALTER TABLE runs ADD x INTEGER", "ALTER"),
    ("COMMENT ON TABLE runs IS 'x'", "COMMENT"),
    ("PREPARE x AS SELECT 1", "PREPARE"),
    ("EXECUTE x", "EXECUTE"),
    ("DEALLOCATE x", "DEALLOCATE"),
    ("BEGIN", "BEGIN"),
    ("COMMIT", "COMMIT"),
    ("CHECKPOINT", "CHECKPOINT"),
    ("VACUUM", "VACUUM"),
    ("PIVOT metrics ON key USING first(value)", "which values become columns"),
    ("FROM nothing", "no view 'nothing'"),
    ("FROM rnus", "Did you mean 'runs'?"),
    ("FROM inside.run_facts", "no view 'inside.run_facts'"),
    ("FROM other.runs", "no view 'other.runs'"),
    ("FROM 'secret.csv'", "no view 'secret.csv'"),
    ('FROM "secret.parquet"', "no view 'secret.parquet'"),
    ("FROM 'https://example.com/x.parquet'", "no view"),
    ("DESCRIBE 'secret.csv'", "no view 'secret.csv'"),
    ("SUMMARIZE 'secret.csv'", "no view 'secret.csv'"),
    ("SHOW memory_limit", "no view 'memory_limit'"),
    ("SHOW DATABASES", "no view 'databases'"),
    ("FROM pg_catalog.pg_settings", "no view"),
    ("FROM duckdb_settings", "no view"),
    ("FROM sqlite_master", "no view"),
    ("FROM information_schema.schemata", "no view"),
    ("SELECT * FROM runs WHERE run_id IN (FROM 'secret.csv')", "no view"),
    ("FROM runs WHERE run_id = (SELECT content FROM read_text('secret.csv'))", "read_text"),
    *(
        (f"SELECT * FROM {function}", function.partition("(")[0])
        for function in (
            "read_text('secret.csv')",
            "READ_BLOB('secret.csv')",
            "read_csv('secret.csv')",
            "read_csv_auto('secret.csv')",
            "read_json('secret.json')",
            "read_ndjson_objects('secret.json')",
            "read_parquet('secret.parquet')",
            "parquet_scan('secret.parquet')",
            "parquet_metadata('secret.parquet')",
            "parquet_kv_metadata('secret.parquet')",
            "read_duckdb('secret.db')",
            "sniff_csv('secret.csv')",
            "glob('*')",
            "query('FROM runs')",
            "query_table('runs')",
            "json_execute_serialized_sql('{}')",
            "histogram('runs', run_id)",
            "duckdb_settings()",
            "duckdb_secrets()",
            "which_secret('s3://x', 's3')",
            "duckdb_views()",
            "duckdb_variables()",
            "duckdb_logs()",
            "duckdb_temporary_files()",
            "pragma_database_size()",
            "enable_logging(storage := 'file')",
            "enable_profiling(save_location := 'x.json')",
            "arrow_scan(1, 2, 3)",
            "python_map_function(1)",
            "checkpoint()",
            "no_such_function()",
        )
    ),
    ("SELECT * FROM main.read_text('secret.csv')", "read_text"),
    ("SELECT * FROM system.main.glob('*')", "glob"),
    *(
        (f"SELECT {call}", call.partition("(")[0])
        for call in (
            "current_setting('secret_directory')",
            "getvariable('x')",
            "getenv('HOME')",
            "sleep_ms(100000)",
            "PG_SLEEP(100000)",
            "pg_get_viewdef(1)",
            "write_log('x')",
            "nextval('x')",
            "setseed(0.5)",
            "json_serialize_plan('SELECT 1')",
            "json_execute_serialized_sql('x')",
            "finalize('x')",
            "__internal_decompress_string('x')",
        )
    ),
    ("SELECT (100000).sleep_ms()", "sleep_ms"),
    ("SELECT list_transform([1], lambda x: sleep_ms(100000))", "sleep_ms"),
    ("SELECT system.main.sleep_ms(100000)", "sleep_ms"),
    ("SELECT 1 ORDER BY sleep_ms(100000)", "sleep_ms"),
    ("SELECT sum(1) FILTER (sleep_ms(100000) IS NULL)", "sleep_ms"),
    ("SELECT\0 1", "null character"),
    ("SELECT '\ud800'", "no Unicode text"),
    ("SELECT a" + ".a" * 10_000, "more than 16 parts"),
    ("SELECT " + "(" * 10_000 + "1" + ")" * 10_000, f"{MAX_DEPTH} brackets"),
    ("FROM " + "(FROM " * 40_000 + "runs" + ")" * 40_000, "characters"),
    ("SELECT " + "NOT " * 60_000 + "true", "Max expression depth"),
    ("SELECT 1 " + "JOIN" * MAX_CHARACTERS, "Bind long lists"),
    ("SELECT $1 + $name", "Mixing"),
    ("DROP\u00a0TABLE runs", "DROP"),
    ("\u2003DELETE\u3000FROM\u2009runs", "DELETE"),
    ("EXPLAIN\u00a0ANALYZE\u00a0DELETE FROM runs", "DELETE"),
    ("FROM read_text\u00a0('secret.csv')", "read_text"),
    ("FROM \uff52\uff55\uff4e\uff53", "no view"),
    ("SELECT 1\uff1bDROP TABLE runs", "cannot read"),
    ("\ufeffDROP TABLE runs", ""),
    ("DR\u200bOP TABLE runs", ""),
    ("SELECT 1 /* ; */ ; /* */ DROP TABLE runs", "several"),
    ("SELECT 1 -- \n; DROP TABLE runs", "several"),
    ("SELECT ';'; DROP TABLE runs", "several"),
    ("SELECT $$;$$; DROP TABLE runs", "several"),
    ("SELECT E'\\'; DROP TABLE runs; --", "cannot read"),
]


@pytest.mark.parametrize(("query", "views"), READING)
def test_a_statement_that_reads_is_taken_with_the_views_that_it_names(
    query: str, views: set[str] | None
) -> None:
    found = read_statement(query)
    assert found.views == ({"metric_summary"} if views is None else views)


@pytest.mark.parametrize(("query", "said"), REFUSED, ids=lambda text: str(text)[:40])
def test_a_statement_that_does_more_than_read_is_refused_with_the_reason(
    query: str, said: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_statement(query)
    assert said.lower() in str(refused.value).lower()
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("query", [None, 1, b"SELECT 1", ["SELECT 1"]])
def test_a_query_that_is_no_text_is_refused(query: object) -> None:
    with pytest.raises(InvalidInputError, match="must be a text"):
        read_statement(query)  # type: ignore[arg-type] # as a notebook would


def test_no_macro_of_duckdb_that_may_be_called_does_what_may_not() -> None:
    with duckdb.connect() as connection:
        macros = connection.sql(
            "SELECT DISTINCT function_name, macro_definition FROM duckdb_functions() "
            "WHERE function_type = 'macro'"
        ).fetchall()
    assert len(macros) > 100
    open_doors = []
    for name, definition in macros:
        try:
            read_statement(f"SELECT {definition}")
        except InvalidInputError:
            with suppress(InvalidInputError):
                read_statement(f"SELECT {name}()")
                open_doors.append(name)
    assert open_doors == []


def test_a_text_of_nothing_but_comments_is_read_at_once() -> None:
    with pytest.raises(InvalidInputError, match="DROP"):
        read_statement("/**/" * 5_000 + "DROP TABLE runs")


def test_a_wrong_query_is_shown_with_a_caret_below_the_place() -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_statement("SELECT 'é' AS ü,\n  run_id FORM runs AS x y")
    lines = str(refused.value).splitlines()
    assert lines[-2] == "      run_id FORM runs AS x y"
    assert lines[-1] == " " * lines[-2].index("runs") + "^"


def test_the_parser_is_stopped_when_the_time_is_over() -> None:
    with pytest.raises(LimitExceededError, match="stopped after 0 s"):
        read_statement("SELECT " + "1," * 120_000 + "1", Watch(0.0))


def test_explain_explains_what_was_checked() -> None:
    assert read_statement("/* a */ EXPLAIN /* b */ ANALYZE FROM runs").text.split() == [
        *("EXPLAIN", "ANALYZE", "FROM", "runs")
    ]


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("given", "bound"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(1), True),
        (Color.RED, "red"),
        (PurePosixPath("a/b"), os.fspath(PurePosixPath("a/b"))),
        ((1, np.int8(2)), [1, 2]),
        ({7}, [7]),
        (range(3), [0, 1, 2]),
        ({"a": np.float64(1.0)}, {"a": 1.0}),
        (pl.Series([1, 2]), [1, 2]),
        (pa.array(["x"]), ["x"]),
        (pa.scalar(5), 5),
        (None, None),
        (datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
    ],
)
def test_values_of_other_libraries_are_bound_as_pythons_own(given: object, bound: object) -> None:
    assert read_statement("SELECT ?").bind([given]) == [bound]
    assert read_statement("SELECT $x").bind({"x": given}) == {"x": bound}


def test_a_value_that_is_exact_in_numpy_only_stays_as_it_is() -> None:
    moment = np.datetime64("2026-01-02T03:04:05.123456789")
    assert read_statement("SELECT ?").bind([moment]) == [moment]
    found = read_statement("SELECT ?").bind([math.nan])
    assert isinstance(found, list)
    assert math.isnan(found[0])


@pytest.mark.parametrize(
    ("query", "params", "said"),
    [
        ("SELECT ?", None, r"no value for \$1"),
        ("SELECT $a, $b", {"a": 1}, r"no value for \$b"),
        ("SELECT $a", [1], r"no value for \$a"),
        ("SELECT ?", {"a": 1}, r"no value for \$1"),
        ("SELECT ?", [1, 2], r"gives \$2, and the query has \$1"),
        ("SELECT $a", {"a": 1, "z": 2}, r"gives \$z, and the query has \$a"),
        ("SELECT 1", [1], r"gives \$1, and the query has none"),
        ("SELECT ?", "x", "give a list"),
        ("SELECT ?", b"x", "give a list"),
        ("SELECT ?", {1}, "give a list"),
        ("SELECT ?", 5, "give a list"),
    ],
)
def test_params_that_do_not_fit_the_placeholders_are_refused(
    query: str, params: object, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        read_statement(query).bind(params)  # type: ignore[arg-type] # as a notebook would


def test_params_may_come_from_any_sequence() -> None:
    statement = read_statement("SELECT $2, $1")
    assert statement.bind(iter([1, 2])) == statement.bind(np.array([1, 2])) == [1, 2]  # type: ignore[arg-type]
