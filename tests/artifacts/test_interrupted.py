"""Uploads of processes that are killed, and the memory that large files take."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from runlake.lake import Lake, open_lake
from tests.emulators.proxy import Fault
from tests.emulators.waiting import wait_until
from tests.meta.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Place
    from tests.emulators.fixtures import Cloud

MIB = 1 << 20
PART = 5 * MIB
# Which requests carry parts, and how many bytes: one of Google's is over when the next begins.
PARTS = {
    "s3": ("PUT", "partNumber", 3, PART),
    "az": ("PUT", "comp=block&", 3, PART),
    "gs": ("PUT", "/resumable/", 1, 16 * MIB),
}

PROGRAM = """
import json, sys
import runlake
url, options, run_id, folder = json.loads(sys.argv[1])
lake = runlake.open(url, storage_options=options)
with lake.start_run(run_id=run_id) as run:
    run.log_artifacts(folder)
"""
MEASURED = """
import json, os, sys, threading
from pathlib import Path

import runlake
from runlake.storage import objectstores  # so that its libraries are not counted


def high() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


url, options, big, out = json.loads(sys.argv[1])
lake = runlake.open(url, storage_options=options)
small = Path(out).with_name("small.bin")
small.write_bytes(bytes(100_000))
with lake.start_run() as run:
    run.log_artifact(small)
    lake.flush()
    lake.artifacts.download(run.run_id, "small.bin", target=out)
    Path("/proc/self/clear_refs").write_text("5")
    before = high()
    run.log_artifact(big)
    up = high()
    lake.flush()
    Path("/proc/self/clear_refs").write_text("5")
    lake.artifacts.download(run.run_id, Path(big).name, target=out)
    down = high()
    Path("/proc/self/clear_refs").write_text("5")
    with lake.artifacts.open(run.run_id, Path(big).name) as file:
        while file.read(1 << 20):
            pass
    print(json.dumps({"up": up - before, "down": down - before, "open": high() - before}))
"""


def program(text: str, *about: object) -> subprocess.Popen[bytes]:
    """Start a program of its own, with the environment of this test."""
    command = [sys.executable, "-c", text, json.dumps(about)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "RUNLAKE_PROVENANCE": "0"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


def write(file: Path, size: int, *, seed: int) -> Path:
    """Write a file that is nowhere in memory as a whole."""
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    block = chance.randbytes(PART)
    with file.open("wb") as opened:
        for number in range(size // PART):
            opened.write(number.to_bytes(8, "little") + block[8:])
        opened.write(block[: size % PART])
    return file


def test_a_killed_upload_goes_on_in_the_next_process(
    lake_url: Place, lake: Lake, cloud: Cloud | None, tmp_path: Path
) -> None:
    if cloud is None:
        pytest.skip("a near upload begins anew")
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(name)
    big = write(folder / "c.bin", 6 * PART + 99, seed=1)
    run = lake.start_run()
    lake.flush()
    about = lake_url.url, dict(lake_url.storage_options), run.run_id, str(folder)
    process = program(PROGRAM, *about)
    method, path, parts, part = PARTS[cloud.scheme]
    enough = cloud.proxy.sent_bytes + parts * part

    def kill() -> None:
        wait_until(lambda: cloud.proxy.sent_bytes >= enough, seconds=30)
        process.kill()

    killing = Fault(method, times=1, status=503, after=parts, path=path, deed=kill)
    with cloud.proxy.fault(killing):
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not [e for e in lake._storage.fs.list("artifacts/") if e.key.endswith("c.bin")]
    # What the dead process had on its way still comes to its end.
    wait_until(lambda: not cloud.proxy.under_way, seconds=30)
    before = cloud.proxy.sent_bytes
    process = program(PROGRAM, *about)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert cloud.proxy.sent_bytes - before < 6 * PART - parts * part + MIB
    run.finish()
    found = lake.sql("SELECT path, sha256 FROM artifacts WHERE run_id = ?", [run.run_id])
    said = dict(found.rows())
    assert said["c.bin"] == hashlib.sha256(big.read_bytes()).hexdigest()
    assert {"a.txt", "b.txt"} <= set(said)
    assert lake.maintain.verify(artifacts=True).is_sound
    assert lake._storage.fs.leftovers() == []


def test_a_killed_folder_is_not_sent_twice(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(40):
        write(folder / f"{number:02}.bin", 3 * MIB, seed=number)
    with open_lake(tmp_path / "lake") as lake:
        run = lake.start_run()
        lake.flush()
        process = program(PROGRAM, str(tmp_path / "lake"), {}, run.run_id, str(folder))
        store = lake._storage.fs
        while len(store.list("artifacts/")) < 5:
            assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()
        about: tuple[object, ...] = (str(tmp_path / "lake"), {}, run.run_id, str(folder))
        process = program(PROGRAM, *about)  # brings the journal of the one before
        process.communicate()
        times = {entry.key: entry.time_us for entry in store.list("artifacts/")}
        assert len(times) == 40
        process = program(PROGRAM, *about)
        process.communicate()
        assert {entry.key: entry.time_us for entry in store.list("artifacts/")} == times
        left = store.leftovers()
        lake.maintain.vacuum(dry_run=False, grace_s=0)
        assert store.leftovers() == left  # somebody may be writing it at this moment
        for each in left:
            os.utime(tmp_path / "lake" / each.key, (0, 0))
        lake.maintain.vacuum(dry_run=False)
        assert store.leftovers() == []
        run.finish()
        assert lake.maintain.verify(artifacts=True).is_sound


@pytest.mark.timeout(180)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the greatest memory")
def test_a_large_file_takes_little_memory_up_and_down(lake_url: Place, tmp_path: Path) -> None:
    if lake_url.url.startswith("memory:"):
        pytest.skip("its lake is the memory")
    size = (256 if lake_url.url.startswith("/") else 64) * MIB
    big = write(tmp_path / "big.bin", size, seed=1)
    process = program(
        MEASURED, lake_url.url, dict(lake_url.storage_options), str(big), str(tmp_path / "out")
    )
    shown, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    found: dict[str, Any] = json.loads(shown)
    assert max(found.values()) < 100 * 1024, found
    assert (tmp_path / "out" / "big.bin").stat().st_size == size
