from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil
import pytest

from runlake import clock
from runlake.system.cgroup import Cgroup
from runlake.system.machine import Machine
from runlake.system.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.system.sampler import Reader

MLFLOWS = {
    "cpu_utilization_percentage",
    "system_memory_usage_megabytes",
    "system_memory_usage_percentage",
    "disk_usage_percentage",
    "disk_usage_megabytes",
    "disk_available_megabytes",
}


def read(reader: Reader) -> dict[str, float]:
    """Return one reading of everything."""
    return {key: value for part in reader.parts() for key, value in part().items()}


def burn(seconds: float) -> None:
    """Use CPU time."""
    start = sum(os.times()[:2])
    while sum(os.times()[:2]) < start + seconds:
        sum(range(10_000))


def test_a_machine_without_limits_tells_what_mlflow_tells() -> None:
    machine = Machine(Cgroup())
    burn(0.05)
    found = read(machine)
    assert found.keys() >= MLFLOWS
    for key, value in found.items():
        assert value >= 0, key
        if key.endswith("_percentage"):
            assert value <= 100, key
    assert found["cpu_utilization_percentage"] > 0
    memory = psutil.virtual_memory()
    assert found["system_memory_usage_megabytes"] < memory.total / 1e6


def test_cpu_use_is_relative_to_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)
    (tmp_path / "cpu.max").write_text("50000 100000")  # half a core
    (tmp_path / "cpu.stat").write_text("usage_usec 1000000")
    machine = Machine(Cgroup(unified=(tmp_path,)))
    assert machine.cores == 0.5
    now_s = 110.0
    (tmp_path / "cpu.stat").write_text("usage_usec 3000000")
    assert read(machine)["cpu_utilization_percentage"] == pytest.approx(100 * 2 / (0.5 * 10))


def test_cpu_use_is_left_out_of_the_sample_after_a_quota_has_changed(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("50000 100000")
    (tmp_path / "cpu.stat").write_text("usage_usec 1000000")
    machine = Machine(Cgroup(unified=(tmp_path,)))
    (tmp_path / "cpu.max").write_text("max 100000")
    assert "cpu_utilization_percentage" not in read(machine)
    burn(0.05)
    assert "cpu_utilization_percentage" in read(machine)


def test_memory_use_is_relative_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("8000000")
    (tmp_path / "memory.current").write_text("3000000")
    (tmp_path / "memory.stat").write_text("inactive_file 1000000")
    machine = Machine(Cgroup(unified=(tmp_path,)))
    found = read(machine)
    assert found["system_memory_usage_megabytes"] == 2
    assert found["system_memory_usage_percentage"] == 25
    assert machine.memory_bytes == 8_000_000


def test_transfer_counts_from_the_first_reading_and_without_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 5_000_000

    def cards(*, pernic: bool, nowrap: bool) -> dict[str, SimpleNamespace]:
        assert pernic
        assert not nowrap
        loopback = SimpleNamespace(bytes_recv=1000 * count, bytes_sent=1000 * count)
        return {"eth0": SimpleNamespace(bytes_recv=count, bytes_sent=2 * count), "lo": loopback}

    monkeypatch.setattr("runlake.system.machine.psutil.net_io_counters", cards)
    machine = Machine(Cgroup())
    count = 8_000_000
    found = read(machine)
    assert found["network_receive_megabytes"] == 3
    assert found["network_transmit_megabytes"] == 6


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A child that has used CPU time and 30 MB, and has a child of its own."""
    script = """
import subprocess, sys
held = bytearray(b"x" * 30_000_000)
sum(range(10_000_000))
below = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"])
below.wait()
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
        process.communicate(b"\n")


def test_a_process_is_told_of_with_all_its_children(child: subprocess.Popen[bytes]) -> None:
    tree = Tree(Machine(Cgroup()))
    burn(0.1)
    found = read(tree)
    own = psutil.Process().memory_info().rss / 1e6
    assert found["process/memory_usage_megabytes"] > own + 30
    assert found["process/processes"] >= 3
    assert found["process/threads"] >= 3
    assert found["process/cpu_cores"] > 0
    assert found["process/cpu_utilization_percentage"] > 0
    assert child.poll() is None


def test_cpu_time_of_a_child_that_has_ended_is_kept() -> None:
    tree = Tree(Machine(Cgroup()))
    subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
    before_s = tree._used_s
    read(tree)
    assert tree._used_s > before_s + 0.05


def test_a_folder_that_is_gone_does_not_keep_a_machine_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert "disk_usage_percentage" in read(Machine(Cgroup()))
    monkeypatch.chdir(Path(tmp_path))
