"""Large files in a lake on this host's disk: the call copies, and the digest comes behind it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import polars as pl
import pytest

from runlake import disks
from runlake.errors import RunlakeWarning, StateError
from runlake.lake import open_lake
from runlake.storage import later, localcopy, localfs
from tests.emulators.waiting import wait_until
from tests.meta.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from runlake.lake import Lake
    from runlake.storage.source import Source

SIZE = later.LEAST_BYTES + 99

# Logs a file whose digest is never made.
KILLED = """
import json, os, sys, threading
import runlake
from runlake.storage import later
begin = later._Making.begin
later._Making.begin = lambda self, make: begin(self, lambda: threading.Event().wait())
url, *files = json.loads(sys.argv[1])
with runlake.open(url).start_run() as run:
    for file in files:
        run.log_artifact(file)
    run.log_param("after", 1)
    print(run.run_id, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with open_lake(tmp_path / "lake") as opened:
        yield opened


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hold digests back until it is set."""
    begin, opened = later._Making.begin, threading.Event()

    def held(self: later._Making, make: Callable[[], str]) -> Future[str] | None:
        def wait() -> str:
            opened.wait()
            return make()

        return begin(self, wait)

    monkeypatch.setattr(later._Making, "begin", held)
    yield opened
    opened.set()


def written(file: Path, size: int = SIZE, *, seed: int = 1) -> Path:
    file.write_bytes(random.Random(seed).randbytes(size))  # noqa: S311 - repeatable
    return file


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def stored(lake: Path) -> list[str]:
    """Return the kinds of the rows that others can see, read without runlake."""
    kinds: list[str] = []
    for file in lake.glob("log/*/*.parquet"):
        with suppress(FileNotFoundError):  # a longer one has taken its place
            found = pl.read_parquet(file.read_bytes())["kind"].to_list()
            kinds = max(kinds, found, key=len)
    return kinds


def logged(lake: Lake) -> dict[str, str | None]:
    """Return the digests that the store has, by path."""
    rows = lake.sql("SELECT path, sha256 FROM artifacts").rows()
    return dict(rows)


def test_the_file_is_there_at_once_and_is_logged_with_its_digest(
    lake: Lake, gate: threading.Event, tmp_path: Path
) -> None:
    file = written(tmp_path / "big.bin")
    with lake.start_run() as run:
        run.log_artifact(file, "model")
        (there,) = (tmp_path / "lake" / "artifacts").rglob("*.bin")
        assert there.read_bytes() == file.read_bytes()
        flushing = threading.Thread(target=lake.flush)
        flushing.start()
        assert "artifact" not in stored(tmp_path / "lake")
        assert flushing.is_alive()
        gate.set()
        flushing.join()
        assert logged(lake) == {"model/big.bin": sha256(file)}
        out = lake.artifacts.download(run.run_id, "model/big.bin", target=tmp_path / "out")
        assert out.read_bytes() == file.read_bytes()
    texts = lake.sql("SELECT value FROM events WHERE kind = 'artifact'").rows()
    assert [sorted(json.loads(text)) for (text,) in texts] == [["media_type", "sha256"]]


def test_the_end_of_a_run_waits_for_digests(lake: Lake, tmp_path: Path) -> None:
    files = [written(tmp_path / f"{number}.bin", seed=number) for number in range(5)]
    folder = tmp_path / "in"
    folder.mkdir()
    for file in files:
        os.link(file, folder / file.name)
    with lake.start_run() as run:
        run.log_artifacts(folder, "all")
        run.log_artifact(files[0])
    found = logged(lake)
    wanted = {f"all/{file.name}": sha256(file) for file in files}
    assert found == wanted | {"0.bin": sha256(files[0])}
    assert lake.maintain.verify(artifacts=True).is_sound


def test_others_see_what_was_logged_before_a_file_whose_digest_is_being_made(
    lake: Lake, gate: threading.Event, tmp_path: Path
) -> None:
    with lake.start_run() as run:
        for step in range(100):
            run.log({"loss": 1 / (step + 1)}, step=step)
        run.log_artifact(written(tmp_path / "big.bin"))
        run.log({"loss": 0.0}, step=100)

        folder = tmp_path / "lake"
        wait_until(lambda: stored(folder).count("metric") == 100, seconds=30)
        assert "artifact" not in stored(folder)
        gate.set()
        wait_until(lambda: "artifact" in stored(folder), seconds=30)
    assert lake.get_run(run.run_id).data.metrics == {"loss": 0.0}


def test_a_file_under_a_name_that_is_taken_is_synced_before_it_replaces_the_other(
    lake: Lake, gate: threading.Event, tmp_path: Path
) -> None:
    file = written(tmp_path / "last.ckpt")
    with lake.start_run() as run:
        run.log_artifact(file)  # its digest is held back
        written(file, seed=2)
        run.log_artifact(file)  # this one's is made in the call, though nobody makes others
        second = sha256(file)
        gate.set()
        lake.flush()
        assert logged(lake) == {"last.ckpt": second}
        lake.artifacts.download(run.run_id, "last.ckpt", target=tmp_path / "out")
    assert sha256(tmp_path / "out" / "last.ckpt") == second


def test_a_file_deleted_before_its_digest_was_made_stays_deleted(
    lake: Lake, gate: threading.Event, tmp_path: Path
) -> None:
    with lake.start_run() as run:
        run.log_artifact(written(tmp_path / "big.bin"))
        run.log_text("stays", "notes.txt")
        deleting = threading.Thread(target=lake.artifacts.delete, args=(run.run_id, "big.bin"))
        deleting.start()
        gate.set()
        deleting.join()
    assert sorted(logged(lake)) == ["notes.txt"]
    assert [each.path for each in lake.artifacts.list(run.run_id)] == ["notes.txt"]


def test_a_file_that_cannot_be_brought_to_the_disk_is_said_and_keeps_nothing_back(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: later.Digest) -> str:
        raise OSError(5, "the disk is ill")

    monkeypatch.setattr(later.Digest, "_hashed", refuse)
    with lake.start_run() as run:
        run.log_artifact(written(tmp_path / "big.bin", 3 * SIZE))
        run.log_param("after", "1")
        with pytest.warns(RunlakeWarning, match=r"big\.bin.*the disk is ill.*without a digest"):
            lake.flush()
    assert logged(lake) == {"big.bin": None}
    assert lake.get_run(run.run_id).data.params == {"after": "1"}


def test_a_file_that_changes_meanwhile_is_refused_and_leaves_nothing(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path / "big.bin")
    copy = localcopy.copy_only

    def change(source: Source, handle: int) -> None:
        os.utime(file, ns=(1, random.randrange(1, 1 << 60)))  # noqa: S311 - no secret
        copy(source, handle)

    monkeypatch.setattr(localcopy, "copy_only", change)
    with lake.start_run() as run, pytest.raises(StateError, match="written to while"):
        run.log_artifact(file)
    assert not list((tmp_path / "lake" / "artifacts").rglob("*big*"))
    assert not list((tmp_path / "lake" / "artifacts").rglob(".*"))


def test_more_than_may_wait_is_hashed_in_the_call(
    lake: Lake, gate: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later, "_MOST_FILES", 1)
    file = written(tmp_path / "big.bin")
    with lake.start_run() as run:
        run.log_artifact(file, "first")
        run.log_artifact(file, "second")
        waiting = [future.done() for future, _ in later._making._kept.values()]
        assert waiting.count(False) == 1
        gate.set()
    assert logged(lake) == dict.fromkeys(("first/big.bin", "second/big.bin"), sha256(file))


@pytest.mark.parametrize("where", ["a disk of another host", "Windows"])
def test_where_nothing_can_come_behind_it_the_call_waits(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "Windows":
        monkeypatch.setattr(localfs, "_RENAMES_OPEN", False)
    else:
        monkeypatch.setattr(disks, "filesystem_type", lambda _: "nfs4")
    monkeypatch.setattr(later._Making, "begin", pytest.fail)
    file = written(tmp_path / "big.bin")
    with lake.start_run() as run:
        run.log_artifact(file)
    assert logged(lake) == {"big.bin": sha256(file)}


def test_without_threads_the_digest_is_made_in_the_call(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(later._Making, "begin", lambda *_: None)
    file = written(tmp_path / "big.bin")
    with lake.start_run() as run:
        run.log_artifact(file)
    assert logged(lake) == {"big.bin": sha256(file)}


def killed_after_logging(lake: Path, *files: Path) -> str:
    """Log files in a process that is killed before their digests are made; return the run."""
    about = json.dumps([str(lake), *map(str, files)])
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, about],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    ) as process:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    return run_id


def test_a_killed_process_loses_no_file_and_no_digest(lake: Lake, tmp_path: Path) -> None:
    first, second = written(tmp_path / "first.bin"), written(tmp_path / "second.bin", seed=2)
    run_id = killed_after_logging(tmp_path / "lake", first, second)
    assert logged(lake) == {}
    assert [each.problem for each in lake.maintain.recover()] == [None]
    assert logged(lake) == {"first.bin": sha256(first), "second.bin": sha256(second)}
    run = lake.get_run(run_id)
    assert (run.info.status, run.data.params) == ("KILLED", {"after": "1"})
    assert lake.maintain.verify(artifacts=True).is_sound


@pytest.mark.parametrize("deed", ["replaced", "deleted", "started anew"])
def test_of_a_file_that_is_not_surely_what_a_killed_process_put_no_digest_is_said(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    killed_after_logging(tmp_path / "lake", written(tmp_path / "big.bin"))
    (there,) = (tmp_path / "lake" / "artifacts").rglob("*.bin")
    if deed == "started anew":
        monkeypatch.setattr(disks, "boot_id", lambda: "another")
    elif deed == "deleted":
        there.unlink()
    else:
        written(there, seed=2)
    assert [each.problem for each in lake.maintain.recover(force=True)] == [None]
    assert logged(lake) == {"big.bin": None}
