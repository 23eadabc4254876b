from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from runlake import schema
from runlake.console import capture, streams
from runlake.console.lines import LAST_LINES, LINES_PER_SECOND
from runlake.errors import RunlakeWarning
from runlake.lake import open_lake
from tests.meta.tree import run_python

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.lake import Lake

LINES = """
SELECT stream, line, text FROM console WHERE run_id = ? ORDER BY "at", line
"""


def printed(url: Path | str, run_id: str | None = None) -> list[tuple[Any, ...]]:
    """Return stream, number and text of the lines that a lake holds of its (only) run."""
    with open_lake(url, read_only=True) as lake:
        if run_id is None:
            ((run_id,),) = lake.sql("SELECT run_id FROM runs").rows()
        return lake.sql(LINES, [run_id]).rows()


def consoles() -> list[str]:
    """Return the threads of consoles."""
    return [each.name for each in threading.enumerate() if each.name == "runlake-console"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A local lake."""
    return open_lake(tmp_path / "lake")


def test_what_is_printed_on_either_stream_is_kept_in_order(lake: Lake) -> None:
    with lake.start_run(log_console=True) as run:
        print("one")
        print("two", file=sys.stderr)
        print("three\nfour", end="")
    lake.close()
    assert printed(lake.url, run.run_id) == [
        ("stdout", 1, "one"),
        ("stderr", 2, "two"),
        ("stdout", 3, "three"),
        ("stdout", 4, "four"),
    ]


def test_nothing_is_kept_unless_somebody_asks(lake: Lake) -> None:
    with lake.start_run() as run:
        print("mine")
        assert consoles() == []
    lake.close()
    assert printed(lake.url, run.run_id) == []


def test_a_setting_asks_for_all_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNLAKE_CONSOLE", "1")
    with open_lake(tmp_path / "lake") as lake:
        with lake.start_run() as kept:
            print("kept")
        with lake.start_run(log_console=False) as not_kept:
            print("not kept")
    assert printed(lake.url, kept.run_id) == [("stdout", 1, "kept")]
    assert printed(lake.url, not_kept.run_id) == []


def test_two_open_runs_each_keep_what_is_printed_while_they_are_open(lake: Lake) -> None:
    outer = lake.start_run(log_console=True)
    print("outer")
    inner = lake.start_run(log_console=True)
    print("both")
    outer.finish()
    print("inner")
    inner.finish()
    print("none")
    lake.close()
    assert [text for *_, text in printed(lake.url, outer.run_id)] == ["outer", "both"]
    assert [text for *_, text in printed(lake.url, inner.run_id)] == ["both", "inner"]
    assert consoles() == []
    assert streams._taps == []


def test_many_threads_that_print_lose_nothing(lake: Lake) -> None:
    def work(name: int) -> None:
        for n in range(50):
            sys.stdout.write(f"{name} {n}\n")

    with lake.start_run(log_console=True) as run:
        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lake.close()
    found = [text for *_, text in printed(lake.url, run.run_id)]
    assert sorted(found) == sorted(f"{name} {n}" for name in range(8) for n in range(50))
    for name in range(8):
        own = [text for text in found if text.startswith(f"{name} ")]
        assert own == [f"{name} {n}" for n in range(50)]


def test_a_flood_is_bounded_and_its_end_is_kept(lake: Lake) -> None:
    count = 200 * LINES_PER_SECOND
    with lake.start_run(log_console=True) as run:
        for n in range(count):
            sys.stdout.write(f"{n}\n")
    lake.close()
    kept = printed(lake.url, run.run_id)
    assert len(kept) < count / 2
    assert kept[-1] == ("stdout", count, f"{count - 1}")
    assert [text for *_, text in kept[-LAST_LINES:]] == [
        f"{n}" for n in range(count - LAST_LINES, count)
    ]
    left_out = [text for *_, text in kept if text.startswith("[runlake left out ")]
    gone = sum(int(text.split()[3].replace(",", "")) for text in left_out)
    assert len(kept) - len(left_out) + gone == count


def test_texts_that_wait_for_the_thread_are_bounded(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "WAITING_CHARS", 1000)
    with lake.start_run(log_console=True) as run:
        sys.stdout.write("first\n" + "x\n" * 2000)
        print("last")
    lake.close()
    texts = [text for *_, text in printed(lake.url, run.run_id)]
    assert "[runlake left out 2,001 lines here]" in texts
    assert "first" not in texts


def test_a_signal_that_prints_while_a_row_is_logged_does_not_hang(lake: Lake) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: print("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        with lake.start_run(log_console=True) as run:
            for n in range(20_000):
                run.log_metric("loss", 0.5, n)
                if n % 100 == 0:
                    print("main")
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    lake.close()
    joined = "".join(text for *_, text in printed(lake.url, run.run_id))
    assert joined.count("main") == 200
    assert "alarm" in joined


def test_a_warning_of_the_console_itself_does_not_go_round(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loud(self: capture.Console, lines: object) -> bool:
        print("from the thread", file=sys.stderr)
        return keep(self, lines)  # type: ignore[arg-type]

    keep = capture.Console._keep
    monkeypatch.setattr(capture.Console, "_keep", loud)
    with lake.start_run(log_console=True) as run:
        print("once")
    lake.close()
    assert printed(lake.url, run.run_id) == [("stdout", 1, "once")]


def test_streams_that_cannot_be_heard_are_told_and_the_run_goes_on(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = lake.start_run(log_console=True)
    run.log({"loss": 0.5})
    run.finish()
    lake.close()
    assert [each.category for each in caught] == [RunlakeWarning]
    assert consoles() == []


def test_a_run_that_has_ended_otherwise_ends_its_console_in_peace(lake: Lake) -> None:
    run = lake.start_run(log_console=True)
    run._log.end(schema.FINISHED)
    print("too late")
    run._end_companions()
    assert consoles() == []


# Real processes.

SCRIPT = """
import runlake, sys
runlake.start_run(log_console=True)
print("begun")
{body}
"""


def environment(folder: Path) -> dict[str, str]:
    """Return what a user has who has set nothing."""
    own = ("RUNLAKE_", "XDG_", "PYTEST_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(own)}
    return kept | {"HOME": str(folder)}


def ended(body: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script with some lines more, and let it end as it likes."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_traceback_that_ends_a_script_is_kept(tmp_path: Path) -> None:
    process = ended("raise ValueError('no')", tmp_path)
    found = printed(tmp_path / "lake")
    assert found[0] == ("stdout", 1, "begun")
    assert found[-1][::2] == ("stderr", "ValueError: no")
    assert (process.returncode, process.stdout) == (1, "begun\n")


def test_what_a_forked_child_prints_is_not_its_parents(tmp_path: Path) -> None:
    body = """
import os, warnings
warnings.simplefilter('ignore', DeprecationWarning)  # Python 3.12 warns of any thread
child = os.fork()
if child == 0:
    print("child", flush=True)
    assert "write" not in vars(sys.stdout)
    runlake.log_metric("child", 1.0)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent")
"""
    process = ended(body, tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    assert "child" in process.stdout
    assert [text for *_, text in printed(tmp_path / "lake")] == ["begun", "parent"]


def test_a_child_may_keep_what_it_prints_in_a_run_of_its_own(tmp_path: Path) -> None:
    body = """
import os, warnings
warnings.simplefilter('ignore', DeprecationWarning)  # Python 3.12 warns of any thread
child = os.fork()
if child == 0:
    with runlake.start_run(run_id="child", nested=True, log_console=True):
        print("in child")
    runlake.flush()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    process = ended(body, tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    assert printed(tmp_path / "lake", "child") == [("stdout", 1, "in child")]


def test_sigterm_ends_the_run_with_its_last_line(tmp_path: Path) -> None:
    body = "import os, signal; print('last', end=''); os.kill(os.getpid(), signal.SIGTERM)"
    assert ended(body, tmp_path).returncode == 128 + signal.SIGTERM
    assert [text for *_, text in printed(tmp_path / "lake")] == ["begun", "last"]


def test_lines_of_a_killed_process_are_recovered(tmp_path: Path) -> None:
    body = """
import os, signal, time
log = runlake.active_run()._log
while not any(event.kind == "console" for event in log.bound[0]._events):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert ended(body, tmp_path).returncode == -signal.SIGKILL
    run_python("-m", "runlake", "recover", "--lake", "lake", folder=tmp_path)
    assert printed(tmp_path / "lake") == [("stdout", 1, "begun")]


def test_a_stream_that_is_closed_at_the_other_end_breaks_as_it_would_without_us(
    tmp_path: Path,
) -> None:
    body = "import time\nwhile True: print('y' * 1000)"
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(tmp_path),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"begun\n"
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait() != 0
    assert b"BrokenPipeError" in said
