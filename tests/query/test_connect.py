"""Connections of the user's own: valid for their life, whatever becomes of the lake."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import polars as pl
import pytest

from runlake.lake import open_lake
from runlake.storage import layout
from runlake.storage.localfs import LocalFilesystem
from runlake.testing import CountingFilesystem
from runlake.testing import open_lake as open_over

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runlake.lake import Lake
    from runlake.run import Run

pytestmark = pytest.mark.filesystems("local", "memory", "s3")

POINTS = 200_000  # of noise: one segment of more than a MiB


def log(run: Run, count: int) -> None:
    """Log points of a metric, and bring them to the store."""
    for step in range(count):
        run.log({"loss": float(step)}, step=step)
    run.flush()


def points(connection: duckdb.DuckDBPyConnection) -> int:
    """Count the points that a connection shows."""
    ((count,),) = connection.sql("SELECT count(*) FROM metrics").fetchall()
    found: int = count
    return found


def delete_segments(lake: Lake) -> None:
    """Take every segment away, as writers and vacuum do with those that were replaced."""
    fs = lake._storage.fs
    fs.delete_many([entry.key for entry in fs.list(layout.LOG)])


def kept_files(tmp_path: Path) -> list[str]:
    """Return the names of what is kept for somebody."""
    return sorted(file.name for file in tmp_path.rglob("*.parquet") if "pins" in file.parts)


@pytest.fixture
def far(tmp_path: Path) -> Iterator[tuple[Lake, CountingFilesystem]]:
    """A far lake that counts its requests, with a small and a large segment."""
    counting = CountingFilesystem(LocalFilesystem(tmp_path / "store"))
    counting.is_local = False
    with open_over(counting, cache=str(tmp_path / "cache"), refresh_s=1e9) as lake:
        with lake.start_run("small", experiment="one") as run:
            log(run, 10)
        noise = np.random.default_rng(0).normal(size=POINTS)
        with lake.start_run("large", experiment="two") as run:
            run.log_history({"step": np.arange(POINTS), "noise": noise})
        lake.flush()
        lake.search_runs()
        yield lake, counting


def test_a_connection_shows_the_same_although_writers_go_on_and_files_go(lake: Lake) -> None:
    run = lake.start_run("first")
    log(run, 100)
    connection = lake.connect()
    events = connection.sql("SELECT count(*) FROM events").fetchall()
    log(run, 100)
    run.finish()
    lake.delete_run(run.run_id)
    delete_segments(lake)
    assert points(connection) == 100
    assert connection.sql("SELECT run_name, status FROM runs").fetchall() == [("first", "RUNNING")]
    assert connection.sql("SELECT count(*) FROM events").fetchall() == events


def test_a_connection_lives_beside_a_closed_lake(lake: Lake) -> None:
    with lake.start_run() as run:
        log(run, 5)
    connection = lake.connect()
    lake.close()
    delete_segments(lake)
    assert points(connection) == 5
    connection.execute("CREATE TABLE mine AS FROM metrics; DELETE FROM mine WHERE step > 0")
    assert connection.sql("SELECT count(*) FROM mine").fetchall() == [(1,)]


def test_a_connection_sees_the_frames_of_the_program(lake: Lake) -> None:
    with lake.start_run() as run:
        log(run, 5)
    steps = pl.DataFrame({"step": [1, 3]})
    found = lake.connect().sql("SELECT value FROM metrics JOIN steps USING (step) ORDER BY ALL")
    assert found.fetchall() == [(1.0,), (3.0,)]
    assert steps.height == 2


def test_the_files_of_a_connection_stay_for_its_cursors_and_relations_and_no_longer(
    tmp_path: Path,
) -> None:
    with open_lake(tmp_path / "lake") as lake:
        with lake.start_run() as run:
            log(run, 5)
        with lake.connect() as connection:
            assert points(connection) == 5
        del connection
        gc.collect()
        assert kept_files(tmp_path) == []
        # Nobody holds the connections: only what they made.
        relation = lake.connect().sql("SELECT count(*) FROM metrics")
        cursor = lake.connect().cursor()
        delete_segments(lake)
        gc.collect()
        assert relation.fetchall() == [(5,)]
        assert points(cursor) == 5
        assert len(kept_files(tmp_path)) == 2
        del relation, cursor
        gc.collect()
        assert kept_files(tmp_path) == []


def test_threads_share_a_connection_by_cursors(lake: Lake) -> None:
    with lake.start_run() as run:
        log(run, 50)
    connection = lake.connect()
    delete_segments(lake)
    found: list[int] = []

    def ask() -> None:
        with connection.cursor() as cursor:
            found.extend(points(cursor) for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [50] * 80


def test_an_empty_lake_gives_a_connection_with_empty_views(lake: Lake) -> None:
    connection = lake.connect()
    assert points(connection) == 0
    assert connection.sql("FROM runs").fetchall() == []


FORKING = """
import os, sys
import runlake
from runlake.query.confine import Watch

lake = runlake.open(sys.argv[1])
with lake.start_run() as run:
    run.log({"loss": 1.0})
connection = lake.connect()
count = lambda held: held.sql("SELECT count(*) FROM metrics").fetchall()[0][0]
assert count(connection) == 1

def ask(lake):  # Polars does not survive a fork
    return lake._ask(lambda query: query.sql("FROM metrics", watch=Watch(60.0))).num_rows

then = lake.at()
assert ask(lake) == ask(then) == 1
child = os.fork()
if child == 0:
    assert ask(lake) == ask(then) == 1
    assert count(lake.connect()) == 1
    then.close()
    sys.exit(7)  # as a program ends: everything is torn down
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert count(connection) == 1, "the child took the files along"
assert count(connection.cursor()) == 1
assert ask(then) == 1
"""


def test_a_forked_child_makes_its_own_connection_and_leaves_the_parents_alone(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "lake")],
        capture_output=True,
        text=True,
        check=False,
    )
    # DuckDB's binding says that the child did not tear down what was its parent's.
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert kept_files(tmp_path) == []


def test_a_connection_that_is_not_asked_for_rows_costs_no_request(
    far: tuple[Lake, CountingFilesystem], tmp_path: Path
) -> None:
    lake, counting = far
    counting.reset()
    connection = lake.connect()
    assert connection.sql("SELECT run_name FROM runs ORDER BY ALL").fetchall() == [
        ("large",),
        ("small",),
    ]
    assert counting.total == 0
    # What the cache may drop and writers may replace is kept; the large segment is neither.
    assert sum(name != "empty.parquet" for name in kept_files(tmp_path)) >= 1


def test_a_connection_fetches_rows_once_when_they_are_first_asked_for(
    far: tuple[Lake, CountingFilesystem],
) -> None:
    lake, counting = far
    connection = lake.connect()
    counting.reset()
    assert points(connection) == POINTS + 10
    assert counting.requests["GET"] == 1
    counting.reset()
    delete_segments(lake)
    counting.reset()
    assert points(connection) == POINTS + 10
    assert connection.sql("SELECT count(*) FROM events").fetchall()[0][0] > 0
    assert counting.total == 0


def test_a_connection_does_not_need_the_cache_once_it_has_the_rows(
    far: tuple[Lake, CountingFilesystem], tmp_path: Path
) -> None:
    lake, _ = far
    connection = lake.connect()
    wanted = connection.sql("SELECT key, count(*), sum(value) FROM metrics GROUP BY ALL").fetchall()
    for file in [*tmp_path.rglob("*.parquet"), *tmp_path.rglob("*.sum")]:
        if "pins" not in file.parts:
            file.unlink()
    delete_segments(lake)
    again = connection.sql("SELECT key, count(*), sum(value) FROM metrics GROUP BY ALL").fetchall()
    assert sorted((key, count) for key, count, _ in again) == [("loss", 10), ("noise", POINTS)]
    assert {key: total for key, _, total in again} == pytest.approx(
        {key: total for key, _, total in wanted}
    )


def test_threads_read_late_files_at_once_and_rightly(
    far: tuple[Lake, CountingFilesystem],
) -> None:
    lake, _ = far
    connection = lake.connect()
    wanted = float(np.random.default_rng(0).normal(size=POINTS).sum())
    found: list[float] = []

    def ask() -> None:
        with connection.cursor() as cursor:
            for _ in range(3):
                ((total,),) = cursor.sql(
                    "SELECT sum(value) FROM metrics WHERE key = 'noise'"
                ).fetchall()
                found.append(total)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == pytest.approx([wanted] * 12)


def test_late_files_that_are_gone_are_told_of(far: tuple[Lake, CountingFilesystem]) -> None:
    lake, _ = far
    connection = lake.connect()
    delete_segments(lake)
    with pytest.raises(duckdb.Error, match="is gone"):
        points(connection)
    assert connection.sql("SELECT count(*) FROM runs").fetchall() == [(2,)]


def test_late_files_take_no_writes(far: tuple[Lake, CountingFilesystem]) -> None:
    lake, _ = far
    with pytest.raises(duckdb.Error):
        lake.connect().execute("COPY (SELECT 1) TO 'runlake://0.parquet' (FORMAT parquet)")


KILLED = """
import os, signal, sys
import runlake

lake = runlake.open(sys.argv[1])
with lake.start_run() as run:
    run.log({"loss": 1.0})
connection = lake.connect()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_kept_goes_with_the_next_that_keeps_something(
    tmp_path: Path,
) -> None:
    url = str(tmp_path / "lake")
    done = subprocess.run([sys.executable, "-c", KILLED, url], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(kept_files(tmp_path)) == 1
    with open_lake(url) as lake:
        connection = lake.connect()
        assert len(kept_files(tmp_path)) == 1
        assert f"-{os.getpid()}-" in next((tmp_path / "cache" / "pins").iterdir()).name
        assert points(connection) == 1
