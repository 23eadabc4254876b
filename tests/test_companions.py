from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

import runlake
from runlake import schema
from runlake.errors import RunlakeWarning
from runlake.lake import open_lake
from runlake.settings import Settings
from runlake.storage.engine import Storage
from tests.writing.drains import StillDrain, memory_filesystem, read_all, start_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runlake.run import Run
    from tests.writing.drains import Row


class Desk:
    """A run, and what it has written."""

    def __init__(self, folder: Path) -> None:
        """Begin the run."""
        self.settings = Settings(journal=str(folder / "journals"), cache=str(folder / "cache"))
        self._fs = memory_filesystem()
        self._drain = StillDrain(Storage(self._fs, self.settings), self.settings)
        self.run = start_run(self._drain, self.settings)

    def rows(self) -> list[Row]:
        """Return what is in the store, after bringing it there."""
        self._drain.serve()
        return read_all(self._fs, self.settings)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A run whose rows a test may read."""
    return Desk(tmp_path)


class Companion:
    """Something that runs beside a run, and does as it is told at the end."""

    def __init__(self, end: Callable[[], object]) -> None:
        """Know what to do."""
        self._end = end

    def end(self) -> None:
        """Do it."""
        self._end()


def test_companions_end_with_the_run_the_last_first_and_may_still_log(desk: Desk) -> None:
    for name in ("first", "second"):
        note = (desk.run.run_id, schema.NOTE, name, None, "bye")
        desk.run._accompany(Companion(partial(desk.run._log.events, [note])))
    desk.run.finish()
    desk.run.finish()
    said = [(row.kind, row.key, row.str) for row in desk.rows() if row.kind != schema.RUN]
    assert said == [
        ("status", "", "RUNNING"),
        ("note", "second", "bye"),
        ("note", "first", "bye"),
        ("status", "", "FINISHED"),
    ]


def test_a_companion_that_cannot_end_is_told_and_the_others_and_the_run_end(desk: Desk) -> None:
    ended: list[int] = []

    def fail() -> None:
        raise OSError("no")

    desk.run._accompany(Companion(lambda: ended.append(1)))
    desk.run._accompany(Companion(fail))
    with pytest.warns(RunlakeWarning, match="OSError: no"):
        desk.run.finish()
    assert (ended, desk.run.is_open) == ([1], False)


def test_two_threads_that_end_a_run_end_it_once(desk: Desk) -> None:
    begun, others_turn = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert others_turn.wait(30)

    desk.run._accompany(Companion(wait))
    thread = threading.Thread(target=desk.run.finish, args=(schema.FAILED,))
    thread.start()
    assert begun.wait(30)
    desk.run.finish(schema.KILLED)
    others_turn.set()
    thread.join(30)
    statuses = [row.str for row in desk.rows() if row.kind == schema.STATUS]
    assert statuses == ["RUNNING", "KILLED"]


def test_a_forked_child_that_finishes_the_run_ends_nothing_of_it(desk: Desk) -> None:
    reading, writing = os.pipe()
    desk.run._accompany(Companion(lambda: os.write(writing, b"ended")))
    child = os.fork()
    if child == 0:
        desk.run.finish()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    os.write(writing, b".")
    assert os.read(reading, 10) == b"."
    desk.run.finish()
    assert os.read(reading, 10) == b"ended"


@pytest.mark.filterwarnings("default")
def test_a_run_begins_although_what_should_run_beside_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("runlake.companions.system.Sampler", fail)
    monkeypatch.setattr("runlake.companions.console.Console", fail)
    with open_lake(tmp_path / "lake") as lake:
        with pytest.warns(RunlakeWarning, match="cannot be logged: RuntimeError") as caught:
            run = lake.start_run(log_system_metrics=True, log_console=True)
        assert len(caught) == 2
        run.finish()


def test_the_module_function_passes_on_what_shall_run_beside(tmp_path: Path) -> None:
    def names(run: Run) -> list[str]:
        return [type(each).__name__ for each in run._companions]

    runlake.set_tracking_uri(tmp_path / "lake")
    with runlake.start_run(log_system_metrics=True, log_console=True) as run:
        assert names(run) == ["Sampler", "Console"]
        with runlake.start_run(nested=True) as inner:
            assert names(inner) == []
