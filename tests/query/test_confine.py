"""A locked connection, and queries that want too much."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runlake.errors import InvalidInputError, LimitExceededError
from runlake.query import Query, confine
from runlake.query.confine import Limits, Watch
from runlake.query.views import VIEWS
from tests.query.builders import NOW_US, Fact, Point, facts_of, snapshot, summaries_of, write_points

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "a" * 32
SECRET = "the-secret-that-nobody-may-read"  # noqa: S105 - planted to be looked for
SMALL = Limits(memory_bytes=64 << 20, threads=2)


@pytest.fixture
def query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Query:
    """A lake of one run, a secret beside it, and little memory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RUNLAKE_TEST_SECRET", SECRET)
    (tmp_path / "secret.csv").write_text(f"a\n{SECRET}\n")
    pq.write_table(pa.table({"a": [SECRET]}), tmp_path / "secret.parquet")
    file = write_points(tmp_path / "x.parquet", [(RUN, "metric", "loss", 0, NOW_US, 1.0, None)])
    facts = facts_of(Fact(RUN, "param", "lr", "0.1", 0.1), Fact(RUN, "tag", "team", "vision"))
    tables = snapshot(facts, summaries_of([Point(RUN, "loss", 0, 1.0)]), points=(file,))
    return Query(tables, limits=SMALL)


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[duckdb.DuckDBPyConnection]:
    """A locked connection that may read one file; no statement is checked before it runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.csv").write_text(f"a\n{SECRET}\n")
    for name in ("own", "secret"):
        pq.write_table(pa.table({"a": [SECRET]}), tmp_path / f"{name}.parquet")
    connection = duckdb.connect(config=confine.config(SMALL, confined=True))
    confine.lock(connection, [str(tmp_path / "own.parquet")])
    yield connection
    connection.close()


# What the lock alone refuses, should the check of statements ever let it through.
LOCKED_OUT = [
    "FROM 'secret.csv'",
    "FROM 'secret.parquet'",
    "FROM '../*/secret.parquet'",
    "FROM read_text('secret.csv')",
    "FROM read_blob('secret.csv')",
    "FROM read_csv('secret.csv')",
    "FROM read_csv(['own.parquet', 'secret.csv'])",
    "FROM read_json('secret.csv')",
    "FROM read_parquet('secret.parquet')",
    "FROM parquet_metadata('secret.parquet')",
    "FROM sniff_csv('secret.csv')",
    "FROM glob('*')",
    "FROM read_duckdb('x.db')",
    "FROM query('FROM read_text(''secret.csv'')')",
    "FROM query_table('secret.parquet')",
    "FROM histogram('secret.parquet', a)",
    "FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''secret.csv'')'))",
    "FROM 'https://127.0.0.1:1/x.parquet'",
    "FROM read_csv('s3://bucket/x.csv')",
    "CREATE MACRO m() AS TABLE FROM read_text('secret.csv')",
    "COPY (SELECT 1) TO 'out.csv'",
    "COPY (SELECT 1) TO 'own.parquet'",
    "EXPORT DATABASE 'out'",
    "IMPORT DATABASE 'out'",
    "ATTACH 'out.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD 'x.duckdb_extension'",
    "UPDATE EXTENSIONS",
    "CREATE PERSISTENT SECRET s (TYPE http, BEARER_TOKEN 'x')",
    "SET enable_external_access = true",
    "SET allowed_paths = ['secret.csv']",
    "SET allowed_directories = ['/']",
    "SET allowed_configs = ['threads']",
    "SET lock_configuration = false",
    "SET memory_limit = '1TB'",
    "SET threads = 64",
    "SET temp_directory = 'out'",
    "SET python_enable_replacements = true",
    "SET log_query_path = 'out.log'",
    "SET profiling_output = 'out.json'",
    "RESET memory_limit",
    "PRAGMA enable_profiling",
    "FROM enable_profiling(format := 'json', save_location := 'out.json')",
    "FROM enable_logging(storage := 'file', storage_path := 'out')",
    "CALL enable_logging()",
    "FROM hidden_frame",
]


@pytest.mark.parametrize("statement", LOCKED_OUT)
def test_a_locked_connection_refuses_what_leaves_the_lake(
    locked: duckdb.DuckDBPyConnection, statement: str, tmp_path: Path
) -> None:
    hidden_frame = pa.table({"a": [SECRET]})
    with pytest.raises(duckdb.Error) as refused:
        locked.cursor().sql(statement).to_arrow_table()
    assert SECRET not in str(refused.value)
    assert hidden_frame.num_rows == 1
    assert {file.name for file in tmp_path.iterdir()} == {
        *("secret.csv", "secret.parquet", "own.parquet")
    }


def test_a_locked_connection_reads_its_own_files_and_names_its_own_tables(
    locked: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    locked.execute("CREATE SCHEMA inside; CREATE TABLE inside.t AS SELECT 1 AS a")
    cursor = locked.cursor()
    cursor.execute("SET search_path = 'inside,main'")
    assert cursor.sql("FROM t").fetchall() == [(1,)]
    own = f"FROM read_parquet('{tmp_path / 'own.parquet'}')"
    assert cursor.sql(own).fetchall() == [(SECRET,)]


# Queries that would never end, or need more than there is; what they are refused for.
GREEDY = [
    ("SELECT count(*) FROM range(100000000000)", "stopped"),
    ("SELECT count(*) FROM range(10000000) a, range(10000000) b", "stopped"),
    ("SELECT count(*) FROM metrics a, range(100000000000) b", "stopped"),
    ("SELECT sum(a.range % b.range) FROM range(1, 9999999) a, range(1, 9999999) b", "stopped"),
    ("WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT max(x) FROM t", "sto"),
    ("EXPLAIN ANALYZE SELECT count(*) FROM range(100000000000)", "stopped"),
    ("SELECT max(md5(range::VARCHAR)) FROM range(10000000000)", "stopped"),
    ("SELECT list(range) FROM range(1000000000)", "memory"),
    ("SELECT string_agg(range::VARCHAR) FROM range(1000000000)", "memory"),
    ("SELECT quantile_cont(range, 0.5) FROM range(10000000000)", "memory"),
    ("SELECT json_group_array(range) FROM range(1000000000)", "memory"),
    ("WITH RECURSIVE t(x) AS (SELECT 'x' UNION ALL SELECT x || x FROM t) FROM t", "memory"),
    ("FROM range(100000000000)", "more than 1,000 rows"),
    ("FROM range(1000000) a, range(1000000) b", "more than 1,000 rows"),
    ("FROM generate_series(1, 100000000000)", "more than 1,000 rows"),
    ("FROM repeat('x', 100000000000)", "more than 1,000 rows"),
    ("SELECT unnest(range(2000))", "more than 1,000 rows"),
    ("FROM metrics, range(2000)", "more than 1,000 rows"),
    ("EXPLAIN SELECT " + "1," * 1000 + "1", None),
]
# One function over one huge value; only the process itself can be bounded.
HUGE = [
    "SELECT repeat('x', 1000000000)",
    "SELECT length(repeat('x', 4000000000))",
    "SELECT len(range(4000000000))",
    "SELECT unnest(range(1000000000))",
    "SELECT rpad('x', 1000000000, 'y')",
    "SELECT format('{:1000000000}', 1)",
    "SELECT printf('%1000000000d', 1)",
    "SELECT bitstring('1', 2000000000)",
    "SELECT list_sort(range(1000000000))",
    "SELECT array_to_string(range(1000000000), ',')",
    "SELECT [x FOR x IN range(1000000000)]",
    "SELECT map_from_entries([{'k': x, 'v': x} FOR x IN range(1000000000)])",
    "SELECT repeat('x', 50000000) FROM range(2000)",
    "SELECT range(1000000 + range) FROM range(3000)",
]


@pytest.mark.parametrize(("greedy", "said"), GREEDY)
def test_a_query_that_wants_too_much_is_stopped_and_the_next_one_answered(
    query: Query, greedy: str, said: str | None
) -> None:
    if said is None:
        assert query.sql(greedy, watch=Watch(5.0, 1000)).num_rows <= 1000
    else:
        with pytest.raises(LimitExceededError, match=said):
            query.sql(greedy, watch=Watch(0.5 if said.startswith("sto") else 20.0, 1000))
    assert query.sql("SELECT count(*) AS n FROM metrics")["n"].to_pylist() == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds what a process may add")
@pytest.mark.parametrize("huge", HUGE)
def test_a_huge_value_is_refused_in_a_process_that_bounds_itself(query: Query, huge: str) -> None:
    query.sql("FROM metrics")
    with confine.bounded_memory(256 << 20), pytest.raises(LimitExceededError, match="memory"):
        query.sql(huge, watch=Watch(20.0, 1000))
    assert query.sql("SELECT count(*) AS n FROM runs")["n"].to_pylist() == [1]


def test_a_process_that_has_bounded_itself_is_free_again_afterwards() -> None:
    with confine.bounded_memory(1 << 20):
        pass
    assert len(bytes(64 << 20)) == 64 << 20


def test_nothing_that_sql_can_say_tells_the_secrets_of_the_program(query: Query) -> None:
    hidden_frame = pa.table({"a": [SECRET]})
    for statement in [
        "FROM 'secret.csv'",
        "FROM hidden_frame",
        "FROM runs WHERE run_name = getenv('RUNLAKE_TEST_SECRET')",
        "SELECT content FROM read_text('/proc/self/environ')",
        "SELECT current_query()",
        "SHOW TABLES",
        "EXPLAIN ANALYZE FROM metrics",
        "SELECT error('x')",
        "SELECT version(), current_user, current_database()",
        *(f"FROM {view}" for view in VIEWS),
        "FROM information_schema.tables",
        "FROM information_schema.columns",
    ]:
        try:
            told = str(query.sql(statement, watch=Watch(5.0, 10_000)).to_pylist())
        except InvalidInputError as error:
            told = str(error)
        assert SECRET not in told
    assert hidden_frame.num_rows == 1


def test_rows_up_to_the_limit_are_all_given(query: Query) -> None:
    watch = Watch(max_rows=100_000)
    found = query.sql("SELECT range AS n FROM range(100000)", watch=watch)
    assert found["n"].to_pylist() == list(range(100_000))
    assert query.sql("FROM range(0)", watch=Watch(max_rows=0)).num_rows == 0
    with pytest.raises(LimitExceededError, match="more than 0 rows"):
        query.sql("FROM runs", watch=Watch(max_rows=0))


def test_an_error_in_the_middle_of_the_rows_is_told_like_any_other(query: Query) -> None:
    late = "SELECT CASE WHEN range < 70000 THEN range ELSE error('too late') END FROM range(80000)"
    for watch in (Watch(), Watch(max_rows=100_000)):
        with pytest.raises(InvalidInputError, match="too late"):
            query.sql(late, watch=watch)


def test_stopping_one_query_leaves_those_of_other_threads_alone(query: Query) -> None:
    begun, stopped = threading.Event(), threading.Event()

    def greedy() -> None:
        begun.set()
        with pytest.raises(LimitExceededError):
            query.sql("SELECT count(*) FROM range(100000000000)", watch=Watch(1.0))
        stopped.set()

    thread = threading.Thread(target=greedy)
    thread.start()
    begun.wait()
    answers = 0
    while not stopped.is_set():
        assert query.sql("SELECT count(*) AS n FROM metrics")["n"].to_pylist() == [1]
        answers += 1
    thread.join()
    assert answers > 0


def test_the_time_is_counted_over_all_that_is_watched() -> None:
    watch = Watch(0.3)
    with duckdb.connect() as connection:
        with pytest.raises(LimitExceededError), watch.over(connection):
            connection.execute("SELECT count(*) FROM range(100000000000)").fetchall()
        with pytest.raises(LimitExceededError), watch.over(connection):
            connection.execute("SELECT count(*) FROM range(100000000000)").fetchall()
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


@pytest.mark.timeout(10)  # the query takes longer
@pytest.mark.parametrize("watch", [Watch(), Watch(60.0)])
@pytest.mark.parametrize("interrupts", [True, False])
def test_ctrl_c_stops_a_query_as_it_stops_everything(
    query: Query, watch: Watch, *, interrupts: bool
) -> None:
    query.sql("SELECT 1")
    # An event loop that watches for signals has them restart what they interrupt.
    signal.siginterrupt(signal.SIGINT, interrupts)
    main = threading.main_thread().ident
    assert main is not None
    pressed = threading.Timer(0.3, signal.pthread_kill, [main, signal.SIGINT])
    pressed.start()
    with pytest.raises(KeyboardInterrupt):
        query.sql("SELECT count(*) FROM range(10000000000000)", watch=watch)
    pressed.join()
    signal.siginterrupt(signal.SIGINT, True)  # noqa: FBT003 - the function takes it so
    assert query.sql("SELECT 1 AS one")["one"].to_pylist() == [1]


def test_a_query_of_too_many_parts_is_refused_by_whoever_sees_it_first(query: Query) -> None:
    # Python's JSON up to 3.11, and later DuckDB, which would otherwise plan for hours.
    parts = "".join(f", range(1) t{n}" for n in range(1500))
    with pytest.raises(InvalidInputError, match=r"one inside the other|Max expression depth"):
        query.sql(f"SELECT count(*) FROM range(1) {parts}")


def test_the_memory_error_names_the_setting(query: Query) -> None:
    with pytest.raises(LimitExceededError, match=r"64 MiB.*RUNLAKE_QUERY_MEMORY_BYTES"):
        query.sql("SELECT list(range) FROM range(1000000000)")


def test_what_does_not_fit_into_memory_goes_to_a_folder_of_ours_and_back() -> None:
    limits = Limits(memory_bytes=32 << 20, threads=1)
    with duckdb.connect(config=confine.config(limits, confined=True)) as connection:
        confine.lock(connection, [])
        shown = connection.sql("SELECT current_setting('temp_directory')").fetchall()
        assert shown == [(str(confine.spill_folder(os.getpid())),)]
        found = connection.sql(
            "SELECT range, hash(range) AS h FROM range(4000000) ORDER BY h LIMIT 1 OFFSET 3999999"
        )
        assert found.fetchall()[0][1] > 0


def test_the_folder_for_what_does_not_fit_is_private_and_goes_with_its_process(
    tmp_path: Path,
) -> None:
    program = """
import os, stat
from runlake.query.confine import spill_folder
folder = spill_folder(os.getpid())
(folder / "x").write_text("x")
if os.fork() == 0:
    raise SystemExit(0)
os.wait()
assert (folder / "x").exists(), "the child took it away"
print(folder, oct(stat.S_IMODE(folder.stat().st_mode)))
"""
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    folder, mode = done.stdout.split()
    assert mode == "0o700"
    assert Path(folder).parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_spilled_goes_with_the_next_and_a_living_ones_stays(
    tmp_path: Path,
) -> None:
    program = """
import os, signal
from runlake.query.confine import spill_folder
folder = spill_folder(os.getpid())
(folder / "x").write_text("x")
print(folder, flush=True)
input()
"""
    environ = {**os.environ, "TMPDIR": str(tmp_path)}

    def begin() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    killed, left = begin()
    killed.kill()
    killed.communicate()
    assert (left / "x").exists()
    living, kept = begin()
    assert not left.exists()
    other, own = begin()
    assert (kept / "x").exists()
    assert (own / "x").exists()
    for process in (living, other):
        process.communicate("\n")
    assert list(tmp_path.iterdir()) == []


def test_the_memory_is_by_default_a_share_of_what_the_process_may_have() -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < confine.default_memory_bytes() <= max(physical // 2, 128 << 20)


def test_the_limits_of_a_cgroup_and_of_those_above_it_count(tmp_path: Path) -> None:
    below = tmp_path / "system.slice" / "job"
    below.mkdir(parents=True)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "system.slice" / "memory.max").write_text("1000\n")
    (below / "memory.max").write_text("2000\n")
    assert confine._cgroup_limits(tmp_path, "system.slice/job", "memory.max") == [2000, 1000]
    assert confine._cgroup_limits(tmp_path, "gone/away", "memory.max") == []
    assert confine._cgroup_limits(tmp_path, "", "memory.max") == []
