"""Processes of one host see at once what another one has acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from runlake import settings
from runlake.errors import RunlakeWarning
from runlake.mlflow_plugin import siblings
from runlake.mlflow_plugin.lakes import SharedLake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets")

# Logs a point for each line that it reads, and says so when the call has returned.
_WORKER = """
import os, sys, time
from runlake.mlflow_plugin.lakes import lake_of
run = lake_of(sys.argv[1]).start_run()
print(run.info.run_id, flush=True)
for step, line in enumerate(sys.stdin):
    run.log_metric("m", float(step), step=step)
    if line.strip() == "fork" and os.fork() == 0:
        time.sleep(10)
        os._exit(0)
    print(step, flush=True)
"""


class Worker:
    """A process that logs one point to its run whenever it is told to."""

    def __init__(self, folder: Path) -> None:
        """Start it, with a run in the lake below a folder."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, f"runlake://{folder / 'lake'}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.run_id = self._line()

    def log(self, word: str = "") -> float:
        """Have it log; return the value that it has acknowledged."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return float(self._line())

    def end(self, number: int = signal.SIGCONT) -> None:
        """Have it end, or kill it."""
        self.process.send_signal(number)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait(timeout=30)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedLake]:
    # So long that the address of no socket can hold it.
    monkeypatch.setenv("RUNLAKE_JOURNAL", str(tmp_path / ("journals" * 12)))
    monkeypatch.setattr(siblings, "LIMIT_S", 0.5)
    with _open(tmp_path) as lake:
        yield lake


def _open(folder: Path) -> SharedLake:
    resolved, origin = settings.resolve(url=str(folder / "lake"), refresh_s=0.0)
    return SharedLake(resolved, origin=origin)


def _last(lake: SharedLake, worker: Worker) -> float:
    return lake.get_run(worker.run_id).data.metrics["m"]


def _sockets(folder: Path) -> list[str]:
    return [file.name for file in folder.glob("journals*/journal/*/.near/*")]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the journals' path is too long")
def test_reader_sees_what_another_process_has_just_acknowledged(
    lake: SharedLake, tmp_path: Path
) -> None:
    workers = [Worker(tmp_path), Worker(tmp_path)]
    for _ in range(10):
        for worker in workers:
            assert worker.log() == _last(lake, worker)
    # One is killed with a point that it has acknowledged, and lives on in a forked child.
    killed, ended = workers
    said = killed.log("fork")
    killed.end(signal.SIGKILL)
    assert _last(lake, killed) == said
    ended.log()
    ended.end()
    assert len(_sockets(tmp_path)) == 1
    lake.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the journals' path is too long")
def test_sibling_that_does_not_answer_is_waited_for_once(lake: SharedLake, tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    said = worker.log()
    assert _last(lake, worker) == said
    worker.process.send_signal(signal.SIGSTOP)
    os.waitpid(worker.process.pid, os.WUNTRACED)  # until it stands still
    before = time.monotonic()
    with pytest.warns(RunlakeWarning, match=f"process {worker.process.pid}.* did not answer"):
        assert _last(lake, worker) == said
    assert time.monotonic() - before > 0.5
    # Asking it again would warn again, which fails a test.
    assert _last(lake, worker) == said
    assert len(_sockets(tmp_path)) == 2
    worker.end()


def test_last_one_to_end_brings_out_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLAKE_JOURNAL", str(tmp_path / "j"))
    lake = _open(tmp_path)
    worker = Worker(tmp_path)
    said = worker.log()
    worker.end(signal.SIGKILL)
    lake._siblings.close()
    assert not [*tmp_path.glob("j/journal/*/.near/*")]
    monkeypatch.setenv("RUNLAKE_JOURNAL", str(tmp_path / "elsewhere"))
    with _open(tmp_path) as other:
        assert _last(other, worker) == said


def test_lake_without_a_folder_for_journals_has_no_siblings(tmp_path: Path) -> None:
    alone = siblings.Siblings(os.fspath(tmp_path), None, recover=list)
    assert not alone.bring()
    alone.close()
