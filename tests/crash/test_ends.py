"""However a process ends, its runs end as they should, with every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake.lake import open_lake
from tests.crash.programs import run_program

if TYPE_CHECKING:
    import polars as pl

pytestmark = [pytest.mark.crash, pytest.mark.slow]

_ROWS = "SELECT run_id, count(*) AS rows, count(DISTINCT step) AS steps FROM metrics GROUP BY 1"


def _runs(lake_path: str) -> dict[str, tuple[str, int]]:
    """Return status and number of points of each run of a lake; each point is there once."""
    with open_lake(lake_path) as lake:
        assert lake.maintain.recover() == []
        counts: pl.DataFrame = lake.sql(_ROWS)
        assert (counts["rows"] == counts["steps"]).all()
        rows = dict(counts.select("run_id", "rows").iter_rows())
        status = lake.sql("SELECT run_id, status FROM runs")
        return {run: (word, rows.get(run, 0)) for run, word in status.iter_rows()}


_BLOCK = """
with lake.start_run(run_id="r") as run:
    for step in range(1000):
        run.log_metric("loss", 0.5, step)
    {end}
"""
_NO_BLOCK = """
run = lake.start_run(run_id="r")
for step in range(1000):
    run.log_metric("loss", 0.5, step)
{end}
"""
_SIGTERM = "import signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)"


@pytest.mark.parametrize(
    ("program", "end", "code", "status"),
    [
        (_BLOCK, "pass", 0, "FINISHED"),
        (_BLOCK, "raise ValueError('diverged')", 1, "FAILED"),
        (_BLOCK, "sys.exit(0)", 0, "FINISHED"),
        (_BLOCK, "sys.exit(3)", 3, "FAILED"),
        (_BLOCK, "raise KeyboardInterrupt", 130, "KILLED"),
        (_BLOCK, _SIGTERM, 143, "KILLED"),
        (_NO_BLOCK, "pass", 0, "FINISHED"),
        (_NO_BLOCK, "raise ValueError('diverged')", 1, "FAILED"),
        (_NO_BLOCK, "sys.exit(0)", 0, "FINISHED"),
        (_NO_BLOCK, _SIGTERM, 143, "KILLED"),
    ],
)
def test_process_that_ends_in_any_way_has_all_rows_and_the_right_status_in_the_store(
    lake_path: str, program: str, end: str, code: int, status: str
) -> None:
    run_program(lake_path, program.format(end=end), expect=code)
    assert _runs(lake_path) == {"r": (status, 1000)}


def test_run_that_an_exception_ends_keeps_its_traceback(lake_path: str) -> None:
    run_program(lake_path, _BLOCK.format(end="raise ValueError('diverged')"), expect=1)
    with open_lake(lake_path) as lake:
        notes = lake.sql("SELECT value FROM events WHERE kind = 'note' AND key = 'traceback'")
    assert "ValueError: diverged" in notes["value"].item()


def test_process_with_a_handler_of_its_own_for_sigterm_keeps_it(lake_path: str) -> None:
    said = run_program(
        lake_path,
        """
        import signal
        signal.signal(signal.SIGTERM, lambda *_: print("mine"))
        with lake.start_run(run_id="r") as run:
            os.kill(os.getpid(), signal.SIGTERM)
            run.log_metric("loss", 0.5)
        """,
    )
    assert "mine" in said
    assert _runs(lake_path) == {"r": ("FINISHED", 1)}


def test_threads_that_log_to_one_run_lose_nothing_among_them(lake_path: str) -> None:
    run_program(
        lake_path,
        """
        import threading
        run = lake.start_run(run_id="r")
        def work(number):
            for step in range(5000):
                run.log_metric("loss", 0.5, number * 5000 + step)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """,
    )
    assert _runs(lake_path) == {"r": ("FINISHED", 20_000)}


_FORKS = {
    "os.fork": """
        pid = os.fork()
        if pid == 0:
            work(1)
            sys.exit(0)
        os.waitpid(pid, 0)
        """,
    "os._exit": """
        pid = os.fork()
        if pid == 0:
            work(1)
            os._exit(0)
        os.waitpid(pid, 0)
        """,
    "multiprocessing": """
        from multiprocessing import get_context
        child = get_context("fork").Process(target=work, args=(1,))
        child.start(); child.join(); assert child.exitcode == 0
        """,
    "killed worker": """
        import signal, threading
        from multiprocessing import get_context
        done = get_context("fork").Event()
        def stay(number):
            work(number); done.set(); threading.Event().wait()
        child = get_context("fork").Process(target=stay, args=(1,))
        child.start(); done.wait(20); child.kill(); child.join()
        """,
    "terminated worker": """
        import threading
        from multiprocessing import get_context
        done = get_context("fork").Event()
        def stay(number):
            work(number); done.set(); threading.Event().wait()
        child = get_context("fork").Process(target=stay, args=(1,))
        child.start(); done.wait(20); child.terminate(); child.join(20)
        assert child.exitcode == -15, child.exitcode
        """,
    "process pool": """
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context
        with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
            list(pool.map(work, [1]))
        """,
}


@pytest.mark.parametrize("way", _FORKS)
def test_forked_child_logs_to_the_parents_run_and_its_own_and_only_the_parent_ends_it(
    lake_path: str, way: str
) -> None:
    prologue = """
        run = lake.start_run(run_id="parent")
        def log(run, number):
            for step in range(500):
                run.log_metric("loss", 0.5, number * 500 + step)
        def work(number):
            log(run, number)
            run.finish()
            with lake.start_run(run_id=f"child{number}") as own:
                log(own, 0)
        log(run, 0)
        """
    epilogue = """
        log(run, 2)
        run.finish()
        """
    run_program(lake_path, prologue + _FORKS[way] + epilogue)
    with open_lake(lake_path) as lake:
        lake.maintain.recover()
    assert _runs(lake_path) == {"parent": ("FINISHED", 1500), "child1": ("FINISHED", 500)}


def test_children_forked_while_the_parent_loads_its_libraries_do_not_hang(lake_path: str) -> None:
    run_program(
        lake_path,
        """
        run = lake.start_run(run_id="r")
        children = []
        for number in range(12):
            pid = os.fork()
            if pid == 0:
                run.log_metric("loss", 0.5, number)
                run.flush()
                sys.exit(0)
            children.append(pid)
            __import__("time").sleep(0.03)  # through the imports of the drain thread
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0
        """,
    )
    assert _runs(lake_path) == {"r": ("FINISHED", 12)}


def test_spawned_workers_that_join_a_run_lose_nothing(lake_path: str) -> None:
    run_program(
        lake_path,
        """
        import subprocess
        text = '''
        import sys, runlake
        lake = runlake.open(sys.argv[1])
        run = lake.start_run(run_id="r", experiment="Default")
        for step in range(100):
            run.log_metric("loss", 0.5, int(sys.argv[2]) * 100 + step)
        '''
        import textwrap
        call = [sys.executable, "-c", textwrap.dedent(text), sys.argv[1]]
        workers = [subprocess.Popen([*call, str(number)]) for number in range(4)]
        assert [worker.wait() for worker in workers] == [0] * 4
        """,
    )
    assert _runs(lake_path) == {"r": ("FINISHED", 400)}
