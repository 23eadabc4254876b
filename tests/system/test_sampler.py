from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from runlake import clock
from runlake.errors import InvalidInputError, RunlakeWarning
from runlake.lake import open_lake
from runlake.settings import Settings
from runlake.storage.engine import Storage
from runlake.system import sampler as sampling
from runlake.system.gpu import Gpus
from runlake.system.machine import Machine
from runlake.system.sampler import Sampler, key_prefix, own_readers
from runlake.system.tree import Tree
from tests.meta.tree import run_python
from tests.writing.drains import StillDrain, memory_filesystem, points, read_all, start_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from runlake.run import Run


class Counter:
    """A reader that counts how often it is read."""

    def __init__(self, *, enough: float = math.inf, hangs: bool = False) -> None:
        """Know when somebody has waited long enough."""
        self.count = 0.0
        self.is_closed = False
        self.enough = threading.Event()
        self.may_go_on = threading.Event()
        self._target, self._hangs = enough, hangs

    def parts(self) -> Iterable[Callable[[], dict[str, float]]]:
        """Return a reading that fails, and one that counts."""
        return self._fail, self._read

    def close(self) -> None:
        """Be closed."""
        self.is_closed = True

    def _fail(self) -> dict[str, float]:
        raise OSError("the kernel does not tell")

    def _read(self) -> dict[str, float]:
        if self._hangs:
            self.enough.set()
            self.may_go_on.wait(30)
        self.count += 1
        if self.count >= self._target:
            self.enough.set()
        return {"count": self.count}


class Desk:
    """Runs whose rows a test may read."""

    def __init__(self, folder: Path) -> None:
        """Begin nothing yet."""
        self.settings = Settings(
            journal=str(folder / "journals"),
            cache=str(folder / "cache"),
            system_metrics_interval_s=1000.0,
        )
        self.fs = memory_filesystem()
        self.drain = StillDrain(Storage(self.fs, self.settings), self.settings)

    def run(self, name: str = "run") -> Run:
        """Begin a run."""
        return start_run(self.drain, self.settings, name)

    def points(self) -> list[tuple[str, int, float]]:
        """Return key, step and value of all points in the store."""
        self.drain.serve()
        return points(read_all(self.fs, self.settings))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Runs without a thread that drains them."""
    return Desk(tmp_path)


def accompany(run: Run, settings: Settings, *readers: Counter) -> Sampler:
    """Sample for a run with a test's readers."""
    made = Sampler(run._log, settings, readers=lambda: readers)
    run._accompany(made)
    return made


def often(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Settings:
    """Return settings that sample as often as can be."""
    monkeypatch.setattr(sampling, "LEAST_INTERVAL_S", 0.001)
    return dataclasses.replace(settings, system_metrics_interval_s=0.0)


def samplers() -> list[threading.Thread]:
    """Return the threads that sample."""
    return [each for each in threading.enumerate() if each.name == "runlake-system"]


def test_samples_are_numbered_and_a_reading_that_fails_is_left_out(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, counter = desk.run(), Counter(enough=3)
    accompany(run, often(monkeypatch, desk.settings), counter)
    assert counter.enough.wait(30)
    run.finish()
    found = desk.points()
    assert found[:3] == [("system/count", n, n + 1.0) for n in range(3)]
    assert counter.is_closed
    assert samplers() == []


def test_one_thread_serves_all_runs_of_a_process(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = often(monkeypatch, desk.settings)
    counters = [Counter(enough=2) for _ in range(5)]
    runs = [desk.run(f"run-{n}") for n in range(5)]
    for run, counter in zip(runs, counters, strict=True):
        accompany(run, settings, counter)
    for counter in counters:
        assert counter.enough.wait(30)
    assert len(samplers()) == 1
    for run in runs:
        run.finish()
    assert samplers() == []
    again, more = desk.run("again"), Counter(enough=1)
    accompany(again, settings, more)
    assert more.enough.wait(30)
    again.finish()
    assert samplers() == []


def test_a_run_shorter_than_the_interval_gets_one_sample_at_its_end(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, counter = desk.run(), Counter()
    sampler = accompany(run, desk.settings, counter)
    while sampler._readers is None:
        threading.Event().wait(0.001)
    now_s = clock.monotonic_s()
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s + 5)
    run.finish()
    assert desk.points() == [("system/count", 0, 1.0)]


def test_an_interval_without_end_leaves_only_the_last_sample(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_LEAST_LAST_S", 0.0)
    settings = dataclasses.replace(desk.settings, system_metrics_interval_s=math.inf)
    run, counter = desk.run(), Counter()
    sampler = accompany(run, settings, counter)
    while sampler._readers is None:
        threading.Event().wait(0.001)
    run.finish()
    assert desk.points() == [("system/count", 0, 1.0)]


def test_a_run_of_an_instant_gets_no_sample(desk: Desk) -> None:
    run, counter = desk.run(), Counter()
    accompany(run, desk.settings, counter)
    run.finish()
    assert desk.points() == []
    assert samplers() == []


def test_the_steps_of_a_run_that_logs_without_steps_are_its_own(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, counter = desk.run(), Counter(enough=2)
    accompany(run, often(monkeypatch, desk.settings), counter)
    run.log({"loss": 0.5})
    assert counter.enough.wait(30)
    run.log({"loss": 0.25})
    run.finish()
    assert [row for row in desk.points() if row[0] == "loss"] == [
        ("loss", 0, 0.5),
        ("loss", 1, 0.25),
    ]


def test_a_reading_that_hangs_does_not_hold_up_the_end_of_a_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_END_S", 0.01)
    run, counter = desk.run(), Counter(hangs=True)
    accompany(run, often(monkeypatch, desk.settings), counter)
    assert counter.enough.wait(30)
    thread = samplers()[0]
    with pytest.warns(RunlakeWarning, match="does not end"):
        run.finish()
    assert not run.is_open
    counter.may_go_on.set()
    thread.join(30)
    assert not thread.is_alive()


def test_readers_that_cannot_be_made_are_told_once_and_the_run_goes_on(desk: Desk) -> None:
    def fail() -> Sequence[Any]:
        raise RuntimeError("no such machine")

    run = desk.run()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sampler = Sampler(run._log, desk.settings, readers=fail)
        run._accompany(sampler)
        assert sampler.done.wait(30)
    run.log({"loss": 0.5})
    run.finish()
    assert [str(each.message) for each in caught] == [
        "no more system metrics: RuntimeError: no such machine."
    ]
    assert desk.points() == [("loss", 0, 0.5)]


@pytest.mark.parametrize(
    ("environ", "prefix"),
    [
        ({}, "system/"),
        ({"RANK": "3", "WORLD_SIZE": "8"}, "system/rank_3/"),
        ({"RANK": "0", "WORLD_SIZE": "8"}, "system/rank_0/"),
        ({"RANK": "0", "WORLD_SIZE": "1"}, "system/"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, "system/"),
        ({"SLURM_PROCID": "2"}, "system/rank_2/"),
    ],
)
def test_ranks_of_one_run_have_keys_of_their_own(environ: dict[str, str], prefix: str) -> None:
    assert key_prefix(environ=environ) == prefix


def test_a_node_that_was_given_a_name_goes_by_it() -> None:
    assert key_prefix("gpu-box", {"RANK": "3"}) == "system/gpu-box/"


@pytest.mark.parametrize(
    ("environ", "kinds"),
    [
        ({}, [Machine, Tree, Gpus]),
        ({"LOCAL_RANK": "0"}, [Machine, Tree, Gpus]),
        ({"LOCAL_RANK": "5"}, [Tree]),
        ({"SLURM_LOCALID": "1"}, [Tree]),
    ],
)
def test_only_the_first_rank_of_a_host_reads_the_machine(
    environ: dict[str, str], kinds: list[type]
) -> None:
    assert [type(reader) for reader in own_readers(environ)] == kinds


# The whole, as users have it.


def test_a_run_is_sampled_where_somebody_asks_and_not_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_LEAST_LAST_S", 0.0)
    with open_lake(tmp_path / "lake") as lake:
        with lake.start_run():
            assert samplers() == []
        with lake.start_run(log_system_metrics=True) as run:
            while sampling._rounds._samplers[0]._readers is None:
                threading.Event().wait(0.001)
        keys = {row[0] for row in lake.sql("SELECT DISTINCT key FROM metrics").rows()}
        owners = lake.sql("SELECT DISTINCT run_id FROM metrics").rows()
    assert keys >= {
        "system/system_memory_usage_percentage",
        "system/disk_usage_percentage",
        "system/process/memory_usage_megabytes",
    }
    assert owners == [(run.run_id,)]


def test_a_disabled_lake_has_nothing_beside_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLAKE_MODE", "disabled")
    with (
        open_lake(tmp_path / "lake") as lake,
        lake.start_run(log_system_metrics=True, log_console=True) as run,
    ):
        assert run._companions == []
        assert {each.name for each in threading.enumerate()} & {
            "runlake-system",
            "runlake-console",
        } == set()


def test_a_wrong_name_begins_nothing(tmp_path: Path) -> None:
    with open_lake(tmp_path / "lake") as lake, pytest.raises(InvalidInputError):
        lake.start_run(run_id="no id", log_system_metrics=True)
    assert samplers() == []


def test_a_process_that_is_sampled_ends_at_once_and_without_a_word(tmp_path: Path) -> None:
    script = """
import runlake, threading
run = runlake.start_run(log_system_metrics=True, log_console=True)
runlake.start_run(nested=True, log_system_metrics=True, log_console=True)
print("done")
"""
    assert run_python("-c", script, folder=tmp_path) == "done\n"
    with open_lake(tmp_path / "lake", read_only=True) as lake:
        assert lake.sql("SELECT status FROM runs").rows() == [("FINISHED",), ("FINISHED",)]


def ended(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a user who has set nothing, and let it end as it likes."""
    own = ("RUNLAKE_", "XDG_", "PYTEST_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(own)}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=kept | {"HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_forked_child_neither_samples_nor_hangs(tmp_path: Path) -> None:
    script = """
import os, sys, threading, warnings
import runlake
run = runlake.start_run(log_system_metrics=True)
warnings.simplefilter('ignore', DeprecationWarning)  # Python 3.12 warns of any thread
child = os.fork()
if child == 0:
    assert "runlake-system" not in {each.name for each in threading.enumerate()}
    run.finish()
    with runlake.start_run(nested=True, log_system_metrics=True):
        pass
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
run.finish()
assert "runlake-system" not in {each.name for each in threading.enumerate()}
"""
    process = ended(script, tmp_path)
    assert (process.returncode, process.stderr) == (0, "")


def test_sigterm_ends_a_run_that_is_sampled(tmp_path: Path) -> None:
    script = """
import os, signal, runlake
with runlake.start_run(log_system_metrics=True):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
"""
    process = ended(script, tmp_path)
    assert process.returncode == 128 + signal.SIGTERM
    with open_lake(tmp_path / "lake", read_only=True) as lake:
        assert lake.sql("SELECT status FROM runs").rows() == [("KILLED",)]
