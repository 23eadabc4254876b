"""Lazy frames: the same rows as SQL, and no more read than the plan asks for."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from runlake.errors import InvalidInputError
from runlake.lake import open_lake
from runlake.query import Query
from runlake.query.event_views import EVENT_VIEWS
from runlake.query.export import to_polars
from runlake.query.scan import _READERS, _conjuncts, scan
from runlake.query.views import VIEWS
from runlake.storage import layout
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.tables import PointFile
from runlake.testing import CountingFilesystem
from runlake.testing import open_lake as open_over
from tests.query.builders import (
    NOW_US,
    Point,
    facts_of,
    lake_event,
    snapshot,
    summaries_of,
    write_points,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runlake.storage.tables import SnapshotTables

RUNS = ("a" * 32, "b" * 32, "c" * 32)
KEYS = ("acc", "loss")
ABOUT = '{"sha256":"00","type":"text/plain"}'
HISTOGRAM = '{"step":-1,"edges":[-1e300,0.5,2],"counts":[1,2.5],"below":0,"above":3,"nan_count":4}'
Row = tuple[str, str, str, int, int, float | None, str | None]


def rows_of(run: str, count: int) -> list[Row]:
    """Return rows of every kind."""
    return [
        (run, "run", "start", 0, NOW_US, float(NOW_US), None),
        *((run, "metric", key, n, NOW_US + n, n / 7, None) for n in range(count) for key in KEYS),
        (run, "metric", "loss", count, NOW_US + count, math.nan, None),
        (run, "metric", "loss", count + 1, NOW_US + count, math.inf, None),
        (run, "artifact", "a.txt", 0, NOW_US, 1.0, ABOUT),
        (run, "artifact", "a.txt", 0, NOW_US, 2.0, '{"media_type":"text/html","sha256":7}'),
        (run, "artifact", "b.txt", 0, NOW_US, 3.0, "no JSON"),
        (run, "artifact", "c.txt", 0, NOW_US, None, None),
        (run, "note", "", 0, NOW_US, None, "hello"),
        (run, "artifact", "images/x", 0, NOW_US, 4.0, '{"media":"image","key":"x","step":3}'),
        (run, "artifact", "images/x", 0, NOW_US, 5.0, '{"media":"image","key":"x","step":4}'),
        (run, "artifact", "gone.png", 0, NOW_US, 4.0, '{"media":"image","key":"y","step":1}'),
        (run, "artifact", "gone.png", 0, NOW_US, None, None),
        (run, "artifact", "odd.png", 0, NOW_US, 4.0, '{"media":"image","key":7,"step":"1x"}'),
        (run, "histogram", "w", 0, NOW_US, None, HISTOGRAM),
        (run, "histogram", "w", 0, NOW_US, None, '{"step":null,"edges":"no","counts":[1,null]}'),
        (run, "histogram", "w", 0, NOW_US, None, "[]"),
        (run, "console", "stdout", 0, NOW_US, 7.0, "epoch 1"),
        (run, "console", "stderr", 0, NOW_US, math.nan, ""),
        (run, "alert", "WARN", 0, NOW_US, None, '{"title":"diverged","text":"loss is NaN"}'),
        (run, "alert", "ERROR", 0, NOW_US, None, "no JSON"),
        (run, "provenance", "git", 0, NOW_US, None, '{"commit":"00"}'),
    ]


def tables_of(files: Sequence[PointFile], *, purged: tuple[str, ...] = ()) -> SnapshotTables:
    """Return a snapshot of files whose points all runs may have."""
    points = [
        Point(run, key, 0, 0.0, writer=file.writer)
        for file, run in zip(files, RUNS * len(files), strict=False)
        for key in KEYS
    ]
    events = [lake_event("1", "experiment_tag", "team", "vision")]
    tables = snapshot(facts_of(), summaries_of(points), lake_events=events, points=tuple(files))
    return replace(tables, purged=purged)


@pytest.fixture
def files(tmp_path: Path) -> list[PointFile]:
    """Files of three writers in two experiments; one begins below the watermark."""
    return [
        write_points(tmp_path / "a.parquet", rows_of(RUNS[0], 5), writer="W1"),
        write_points(tmp_path / "b.parquet", rows_of(RUNS[1], 7), writer="W2", experiment_id="2"),
        write_points(tmp_path / "c.parquet", rows_of(RUNS[2], 9), writer="W3", skip_rows=4),
    ]


@pytest.mark.parametrize("view", VIEWS)
def test_a_lazy_view_holds_what_sql_says(view: str, files: list[PointFile]) -> None:
    query = Query(tables_of(files))
    wanted = to_polars(query.sql(f"FROM {view} ORDER BY ALL"))
    lazy = scan(query, view)
    assert lazy.collect_schema() == wanted.schema
    assert_frame_equal(lazy.collect().sort(pl.all()), wanted.sort(pl.all()))


@pytest.mark.parametrize("view", VIEWS)
def test_a_lazy_view_of_an_empty_lake_is_empty_with_its_columns(view: str) -> None:
    query = Query(snapshot())
    frame = scan(query, view).collect()
    assert frame.schema == to_polars(query.sql(f"FROM {view}")).schema
    assert frame.height == 0


@pytest.mark.parametrize("view", sorted({*_READERS, *EVENT_VIEWS}))
def test_purged_runs_and_rows_below_the_watermark_do_not_show(
    view: str, files: list[PointFile]
) -> None:
    query = Query(tables_of(files, purged=(RUNS[0],)))
    frame = scan(query, view).collect()
    assert RUNS[0] not in frame["run_id"]
    wanted = to_polars(query.sql(f"FROM {view}"))
    assert_frame_equal(frame.sort(pl.all()), wanted.sort(pl.all()))
    assert frame.height < scan(Query(tables_of(files)), view).collect().height


FILTERS = [
    pl.col("run_id") == RUNS[1],
    pl.col("run_id").is_in([RUNS[0], RUNS[2], "nobody"]),
    (pl.col("run_id") == RUNS[0]) & (pl.col("key") == "loss") & (pl.col("step") > 2),
    (pl.col("run_id") == RUNS[0]) | (pl.col("key") == "loss"),
    pl.col("key").str.starts_with("a"),
    pl.col("key") == "nothing",
    pl.col("writer") == "W3",
    (pl.col("experiment_id") == "2") & pl.col("value").is_not_nan(),
    pl.col("value") > pl.col("value").mean(),
    pl.col("value").is_nan(),
    pl.col("value") > 5,
    ~(pl.col("value") < 5),
    pl.col("value").eq_missing(float("nan")),
    pl.col("step").is_not_null() & (pl.col("run_id") != RUNS[1]),
    ~(pl.col("run_id") == RUNS[1]),
    pl.col("timestamp") > pl.lit(NOW_US + 3).cast(pl.Datetime("us", "UTC")),
    pl.lit(value=True),
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_a_filter_of_a_lazy_view_leaves_what_it_leaves_of_all_rows(
    wanted: pl.Expr, files: list[PointFile]
) -> None:
    lazy = scan(Query(tables_of(files)), "metrics")
    order = ["writer", "step", "key"]
    assert_frame_equal(
        lazy.filter(wanted).collect().sort(order), lazy.collect().filter(wanted).sort(order)
    )
    some = lazy.filter(wanted).select("value", "key").head(3).collect()
    assert some.height == min(3, lazy.collect().filter(wanted).height)
    assert some.columns == ["value", "key"]


@pytest.mark.parametrize("wanted", [pl.col("path") == "a.txt", pl.col("size") == 1.0], ids=str)
def test_a_filter_of_artifacts_sees_the_latest_only(
    wanted: pl.Expr, files: list[PointFile]
) -> None:
    lazy = scan(Query(tables_of(files)), "artifacts")
    assert_frame_equal(
        lazy.filter(wanted).collect().sort("run_id"),
        lazy.collect().filter(wanted).sort("run_id"),
    )


@pytest.mark.parametrize(
    "wanted",
    [
        pl.col("path") == "gone.png",
        pl.col("path") == "images/x",
        pl.col("key") == "x",
        pl.col("step") == 3,
        (pl.col("run_id") == RUNS[1]) & (pl.col("size") == 5),
    ],
    ids=str,
)
def test_a_filter_of_media_sees_the_latest_only(wanted: pl.Expr, files: list[PointFile]) -> None:
    lazy = scan(Query(tables_of(files)), "media")
    assert_frame_equal(
        lazy.filter(wanted).collect().sort("run_id", "path"),
        lazy.collect().filter(wanted).sort("run_id", "path"),
    )


def test_rows_of_a_writer_come_in_the_order_of_logging(files: list[PointFile]) -> None:
    steps = scan(Query(tables_of(files)), "metrics").filter(writer="W2").collect()["step"].to_list()
    assert steps == [n for n in range(7) for _ in KEYS] + [7, 8]


def test_only_files_that_may_hold_the_points_are_opened(files: list[PointFile]) -> None:
    lazy = scan(Query(tables_of(files)), "metrics")
    Path(files[0].path).unlink()
    Path(files[2].path).unlink()
    assert lazy.filter(pl.col("run_id") == RUNS[1]).collect().height == 16
    with pytest.raises((FileNotFoundError, pl.exceptions.PolarsError)):
        lazy.collect()


@pytest.mark.parametrize("view", sorted(_READERS))
def test_filters_and_columns_reach_the_parquet_reader(view: str, files: list[PointFile]) -> None:
    wanted = pl.col("run_id") == RUNS[0]
    rows = _READERS[view](tables_of(files), wanted).filter(wanted)
    plan = rows.select("run_id").explain()
    scans = [part for part in plan.split("Parquet SCAN")[1:] if "a.parquet" in part]
    assert scans
    for part in scans:
        selection = part.partition("SELECTION: ")[2].partition("\n")[0]
        assert f'col("run_id") == "{RUNS[0]}"' in selection
        assert 'col("kind")' in selection
        if view not in {"artifacts", "media"}:
            assert "PROJECT 2/" in part


def test_row_groups_that_a_filter_rules_out_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_points(path, rows_of(RUNS[0], 400))
    first = pq.read_table(path)
    write_points(path, rows_of(RUNS[1], 400))
    second = pq.read_table(path)
    # As segments are written: readers take the columns from Parquet's own types.
    with pq.ParquetWriter(path, first.schema, store_schema=False) as writer:
        writer.write_table(first)
        writer.write_table(second)
    with pq.ParquetFile(path) as opened:
        group = opened.metadata.row_group(1)
        start = group.column(0).dictionary_page_offset or group.column(0).data_page_offset
        length = sum(group.column(n).total_compressed_size for n in range(group.num_columns))
    data = bytearray(path.read_bytes())
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    points = [Point(run, "loss", 0, 0.0) for run in RUNS[:2]]
    tables = snapshot((), summaries_of(points), points=(PointFile(str(path), "W1", "1", 0, 0),))
    lazy = scan(Query(tables), "metrics")
    assert lazy.filter(run_id=RUNS[0], key="loss").select("step").collect().height == 402
    with pytest.raises(pl.exceptions.PolarsError):
        lazy.filter(run_id=RUNS[1]).collect()


def test_parts_of_a_filter_are_told_apart() -> None:
    one, two, three = pl.col("a") == 1, pl.col("b").is_in([2]), (pl.col("c") > 0) | pl.col("d")
    found = _conjuncts(one & two & three)
    assert [part.meta.root_names() for part in found] == [["a"], ["b"], ["c", "d"]]
    assert all(part.meta.eq(wanted) for part, wanted in zip(found, (one, two, three), strict=True))
    assert _conjuncts(None) == []
    assert [part.meta.eq(three) for part in _conjuncts(three)] == [True]


numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(10**18), 10**18).map(float),
    st.sampled_from([0.0, -0.0, 1e16, 1e17, -1e17, 1e-5, 123456789.125, math.pi]),
)


@settings(max_examples=25, deadline=None)  # each example is a file
@given(values=st.lists(numbers, min_size=1, max_size=200))
def test_numbers_of_events_are_the_same_texts_as_in_sql(
    values: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("events") / "x.parquet"
    rows: list[Row] = [(RUNS[0], "gauge", "x", n, NOW_US, v, None) for n, v in enumerate(values)]
    query = Query(snapshot(points=(write_points(path, rows),)))
    wanted = query.sql("SELECT value FROM events")["value"].to_pylist()
    assert scan(query, "events").collect()["value"].to_list() == wanted


def test_a_view_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidInputError, match="there are experiments, runs"):
        scan(Query(snapshot()), "metric")


def test_a_frame_is_read_long_after_its_files_were_replaced(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake", refresh=1e9) as lake:
        run = lake.start_run()
        run.log({"loss": 1.0})
        run.flush()
        lazy = lake.scan("metrics").filter(key="loss")
        fs = lake._storage.fs
        fs.delete_many([entry.key for entry in fs.list(layout.LOG)])
        assert lazy.collect()["value"].to_list() == [1.0]
        run.finish()


def test_a_filter_of_a_far_lake_fetches_only_what_may_hold_its_points(tmp_path: Path) -> None:
    counting = CountingFilesystem(LocalFilesystem(tmp_path / "store"))
    counting.is_local = False
    noise = np.random.default_rng(0).normal(size=150_000)
    with open_over(counting, cache=str(tmp_path / "cache"), refresh_s=1e9) as lake:
        runs = []
        for number in range(4):
            with lake.start_run(experiment=f"e{number}") as run:
                run.log_history({"step": np.arange(len(noise)), "noise": noise + number})
            runs.append(run.run_id)
        lake.flush()
        lake.search_runs()
        counting.reset()
        lazy = lake.scan("metrics")
        assert counting.total == 0
        found = lazy.filter(pl.col("run_id") == runs[2]).select(pl.col("value").mean()).collect()
        assert found.item() == pytest.approx(noise.mean() + 2)
        assert 1 <= counting.requests["GET"] <= 2
        counting.reset()
        assert lazy.select(pl.len()).collect().item() == 4 * len(noise)
        assert counting.requests["GET"] <= 4


wholes = st.integers(-(2**70), 2**70)
fields = st.one_of(
    st.none(),
    st.booleans(),
    wholes,
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "x", "a b", "é"]),
    st.lists(st.one_of(st.none(), wholes, st.booleans()), max_size=3),
    st.dictionaries(st.sampled_from("ab"), wholes, max_size=2),
)
NAMES = ("media", "key", "step", "media_type", "sha256", "edges", "counts", "below", "nan_count")


@settings(max_examples=50, deadline=None)  # each example is a file
@given(said=st.lists(st.dictionaries(st.sampled_from(NAMES), fields), min_size=1, max_size=20))
def test_whatever_json_says_the_lazy_views_say_what_sql_says(
    said: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("events") / "x.parquet"
    texts = [json.dumps(each) for each in said]
    rows: list[Row] = [
        (RUNS[0], kind, str(n), 0, NOW_US, None, text)
        for n, text in enumerate([*texts, "NaN", '{"step":NaN}', "[]", ""])
        for kind in ("histogram", "artifact")
    ]
    query = Query(snapshot(points=(write_points(path, rows),)))
    for view in ("media", "histograms"):
        wanted = to_polars(query.sql(f"FROM {view}"))
        assert_frame_equal(scan(query, view).collect().sort(pl.all()), wanted.sort(pl.all()))
