from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from runlake.errors import InvalidInputError
from runlake.query import Query
from runlake.query.export import to_pandas, to_rows
from runlake.query.registry_views import REGISTRY_VIEWS
from runlake.query.scan import scan
from runlake.query.views import VIEWS
from runlake.storage.tables import PointFile
from tests.query.builders import (
    NOW_US,
    URL,
    Fact,
    Point,
    facts_of,
    snapshot,
    summaries_of,
    write_points,
)

if TYPE_CHECKING:
    from pathlib import Path

RUN = "a" * 32
GONE = PointFile("/nowhere/segment.parquet", "W1", "1", 0, 0)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_an_empty_lake_is_empty_with_its_columns_and_types(view: str) -> None:
    query = Query(snapshot())
    described = query.sql(f"DESCRIBE {view}")
    columns = zip(
        described["column_name"].to_pylist(), described["column_type"].to_pylist(), strict=True
    )
    assert tuple(columns) == VIEWS[view]
    assert query.sql(f"FROM {view}").num_rows == 0


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_of_a_full_lake_has_its_columns_and_types(view: str, tmp_path: Path) -> None:
    file = write_points(
        tmp_path / "x.parquet",
        [
            (RUN, "metric", "loss", 0, NOW_US, 0.5, None),
            (RUN, "artifact", "model.png", 0, NOW_US, 9.0, '{"sha256":"00","media":"image"}'),
            (RUN, "histogram", "w", 0, NOW_US, None, '{"step":0,"edges":[0,1],"counts":[2]}'),
            (RUN, "console", "stdout", 0, NOW_US, 1.0, "epoch 1"),
            (RUN, "alert", "WARN", 0, NOW_US, None, '{"title":"diverged"}'),
            (RUN, "provenance", "git", 0, NOW_US, None, '{"commit":"33fb"}'),
        ],
    )
    facts = facts_of(
        Fact(RUN, "param", "lr", "0.1", 0.1),
        Fact(RUN, "tag", "team", "vision"),
        Fact(RUN, "input", "iris@1f", '{"name":"iris","digest":"1f"}'),
        Fact(RUN, "model", "m-1", '{"name":"svm"}'),
    )
    tables = snapshot(facts, summaries_of([Point(RUN, "loss", 0, 0.5)]), points=(file,))
    query = Query(tables)
    described = query.sql(f"DESCRIBE {view}")
    columns = zip(
        described["column_name"].to_pylist(), described["column_type"].to_pylist(), strict=True
    )
    assert tuple(columns) == VIEWS[view]
    # Of registered models there is nothing here; tests/registry has lakes with some.
    wanted = 0 if view in REGISTRY_VIEWS else {"events": 5}.get(view, 1)
    assert query.sql(f"FROM {view}").num_rows == wanted


def test_a_run_level_query_opens_no_point_file() -> None:
    tables = snapshot(facts_of(Fact(RUN, "param", "lr", "0.1", 0.1)), points=(GONE,))
    found = Query(tables).sql(
        "SELECT r.params['lr'] AS lr, r.metrics FROM runs r WHERE $1 = 1", [1]
    )
    assert found["lr"].to_pylist() == ["0.1"]


def test_a_run_level_query_does_not_ask_for_the_point_files() -> None:
    def fetch() -> tuple[PointFile, ...]:
        pytest.fail("fetched")

    tables = snapshot(facts_of(Fact(RUN, "tag", "team", "vision")))
    object.__setattr__(tables, "points", fetch)
    assert Query(tables).sql("FROM tags")["value"].to_pylist() == ["vision"]


def test_a_query_of_a_vanished_file_raises_file_not_found() -> None:
    with pytest.raises(FileNotFoundError, match="take a new snapshot"):
        Query(snapshot(points=(GONE,))).sql("FROM metrics")


def test_rows_below_the_watermark_are_not_shown(tmp_path: Path) -> None:
    rows = [(RUN, "metric", "loss", step, NOW_US, float(step), None) for step in range(10)]
    files = (
        write_points(tmp_path / "a.parquet", rows, first=5, skip_rows=7),
        write_points(tmp_path / "b.parquet", rows, writer="W2"),
    )
    query = Query(snapshot(points=files))
    shown = query.sql("SELECT writer, list(step) AS steps FROM metrics GROUP BY ALL ORDER BY ALL")
    assert to_rows(shown) == [
        {"writer": "W1", "steps": [7, 8, 9]},
        {"writer": "W2", "steps": list(range(10))},
    ]
    lazy = scan(query, "metrics").collect()
    assert lazy.columns == [name for name, _ in VIEWS["metrics"]]
    assert sorted(lazy["step"].to_list()) == sorted([7, 8, 9, *range(10)])


def test_names_and_paths_with_quotes_and_wildcards_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s [a] "lake"*?'
    folder.mkdir()
    key = "los's\"`;--"
    file = write_points(folder / "x'y.parquet", [(RUN, "metric", key, 0, NOW_US, 1.0, None)])
    facts = facts_of(Fact(RUN, "param", key, "v'"), Fact(RUN, "tag", key, 'w"'))
    tables = snapshot(facts, summaries_of([Point(RUN, key, 0, 1.0)]), points=(file,))
    query = Query(tables)
    assert query.sql("SELECT value FROM metrics WHERE key = $k", {"k": key}).num_rows == 1
    assert to_rows(query.sql("SELECT params, metrics, tags FROM runs")) == [
        {"params": {key: "v'"}, "metrics": {key: 1.0}, "tags": {key: 'w"'}}
    ]
    assert scan(query, "metrics").collect()["value"].to_list() == [1.0]


def test_not_a_number_and_infinities_come_through_every_way(tmp_path: Path) -> None:
    values = [math.nan, math.inf, -math.inf, 0.5]
    rows = [(RUN, "metric", "x", step, NOW_US, value, None) for step, value in enumerate(values)]
    query = Query(snapshot(points=(write_points(tmp_path / "x.parquet", rows),)))
    shown: list[Any]
    for shown in (
        query.sql("SELECT value FROM metrics ORDER BY step")["value"].to_pylist(),
        scan(query, "metrics").sort("step").collect()["value"].to_list(),
        to_pandas(query.sql("SELECT value FROM metrics ORDER BY step"))["value"].to_list(),
    ):
        assert math.isnan(shown[0])
        assert shown[1:] == values[1:]


def test_events_show_everything_but_metric_points(tmp_path: Path) -> None:
    file = write_points(
        tmp_path / "x.parquet",
        [
            (RUN, "metric", "loss", 0, NOW_US, 1.0, None),
            (RUN, "run", "start", 0, NOW_US, float(NOW_US), None),
            (RUN, "param", "lr", 0, NOW_US, 0.1, "1e-1"),
            (RUN, "gauge", "x", 0, NOW_US, 0.25, None),
        ],
    )
    query = Query(snapshot(points=(file,)))
    shown = query.sql("SELECT kind, key, value FROM events ORDER BY kind")
    assert to_rows(shown) == [
        {"kind": "gauge", "key": "x", "value": "0.25"},
        {"kind": "param", "key": "lr", "value": "1e-1"},
        {"kind": "run", "key": "start", "value": str(NOW_US)},
    ]


def test_of_an_artifact_logged_twice_the_latest_stands(tmp_path: Path) -> None:
    about = '{"sha256":"%s","type":"text/plain"}'
    file = write_points(
        tmp_path / "x.parquet",
        [
            (RUN, "artifact", "a/b.txt", 0, NOW_US, 1.0, about % "00"),
            (RUN, "artifact", "a/b.txt", 0, NOW_US, 2.0, about % "11"),
            (RUN, "artifact", "c.bin", 0, NOW_US, 3.0, "{}"),
            (RUN, "artifact", "deleted.bin", 0, NOW_US, 4.0, "{}"),
            (RUN, "artifact", "deleted.bin", 0, NOW_US, None, None),
        ],
    )
    shown = Query(snapshot(points=(file,))).sql(
        "SELECT path, size, media_type, sha256 FROM artifacts ORDER BY path"
    )
    assert to_rows(shown) == [
        {"path": "a/b.txt", "size": 2, "media_type": "text/plain", "sha256": "11"},
        {"path": "c.bin", "size": 3, "media_type": None, "sha256": None},
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE runs",
        "DELETE FROM inside.run_facts",
        "WITH gone AS (DELETE FROM inside.run_facts RETURNING *) SELECT * FROM gone, runs",
        "EXPLAIN ANALYZE DELETE FROM inside.run_facts",
        "COPY (SELECT 1) TO 'x.csv'",
        "ATTACH 'x.db'",
        "SET threads = 1",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM nothing",
        "SELECT nothing FROM runs",
        "SEELCT 1",
        "",
    ],
)
def test_sql_refuses_what_does_more_than_read(statement: str) -> None:
    query = Query(snapshot(facts_of(Fact(RUN, "tag", "team", "vision"))))
    query.sql("FROM runs")
    with pytest.raises(InvalidInputError):
        query.sql(statement)
    assert query.sql("FROM runs").num_rows == 1


def test_sql_never_sees_variables_of_the_program() -> None:
    secrets = pa.table({"a": [1]})
    with pytest.raises(InvalidInputError, match="secrets"):
        Query(snapshot()).sql("FROM secrets")
    assert secrets.num_rows == 1


def test_an_error_about_a_name_lists_the_views() -> None:
    with pytest.raises(InvalidInputError, match="The views are experiments, runs"):
        Query(snapshot()).sql("SELECT * FROM run")


@pytest.mark.parametrize(
    "statement",
    [
        "FROM runs",
        "DESCRIBE runs",
        "SUMMARIZE runs",
        "EXPLAIN FROM runs",
        "SHOW TABLES",
        "VALUES (1)",
    ],
)
def test_sql_takes_every_form_of_reading(statement: str) -> None:
    assert isinstance(Query(snapshot()).sql(statement), pa.Table)


def test_sql_binds_values_by_place_and_by_name() -> None:
    query = Query(snapshot(facts_of(Fact(RUN, "param", "lr", "0.1", 0.1))))
    assert query.sql("SELECT key FROM params WHERE number = ?", [0.1]).num_rows == 1
    assert query.sql("SELECT key FROM params WHERE key = $k", {"k": "lr"}).num_rows == 1


def test_a_connection_of_ones_own_has_all_views_and_changes_nothing_else(tmp_path: Path) -> None:
    file = write_points(tmp_path / "x.parquet", [(RUN, "metric", "loss", 0, NOW_US, 1.0, None)])
    query = Query(snapshot(facts_of(Fact(RUN, "tag", "team", "vision")), points=(file,)))
    connection = query.connect()
    names = connection.sql("SHOW TABLES").to_arrow_table()["name"].to_pylist()
    assert sorted(str(name) for name in names) == sorted(VIEWS)
    for view in VIEWS:
        connection.sql(f"FROM {view}").to_arrow_table()
    connection.execute("DROP TABLE runs")
    assert query.sql("FROM runs").num_rows == 1
    assert query.connect().cursor().sql("FROM runs").to_arrow_table().num_rows == 1


def test_threads_share_a_query(tmp_path: Path) -> None:
    rows = [(RUN, "metric", "loss", step, NOW_US, 1.0, None) for step in range(100)]
    file = write_points(tmp_path / "x.parquet", rows)
    points = [Point(RUN, "loss", step, 1.0) for step in range(100)]
    facts = facts_of(Fact(RUN, "param", "lr", "0.1", 0.1))
    query = Query(snapshot(facts, summaries_of(points), points=(file,)))
    found: list[object] = []

    def ask() -> None:
        for _ in range(5):
            found.append(query.sql("SELECT count(*) AS n FROM metrics")["n"][0].as_py())
            found.append(query.sql("SELECT count AS n FROM metric_summary")["n"][0].as_py())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [100] * 80


def test_a_closed_query_answers_again() -> None:
    query = Query(snapshot(facts_of(Fact(RUN, "tag", "team", "vision"))))
    query.sql("FROM runs")
    query.close()
    assert query.sql("SELECT artifact_uri FROM runs")["artifact_uri"].to_pylist() == [
        f"{URL}/artifacts/1/{RUN}"
    ]
