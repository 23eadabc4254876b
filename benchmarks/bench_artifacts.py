"""How fast do large files go into a lake and come out, and in how much memory?

Beside it what plain fsspec takes to put and get the same file. It makes no digest, keeps no
event, and cannot go on where it was. On a disk its call leaves the bytes in the system's cache, and
so does ours; our digest and the way to the disk come behind it. So there is a second figure of
both: fsspec with its bytes brought to the disk, ours until the log says the digest. Nobody who
makes a digest is faster than SHA-256 on one core, and nobody whose bytes are safe from a power loss
faster than the disk: the slower of the two is the limit of that. Rounds of all alternate, because
disks and neighbours have moods; the best of each counts. CPU time has no such moods.

The far store is moto's server on this machine, which takes most of the time: what is compared is
the way there. On the second way each connection is slow, as those to a store far away are.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import fsspec

from benchmarks.harness import (
    AT_LEAST,
    ROOT,
    Figure,
    forget_peak,
    rss_bytes,
    scratch,
    shown_rounds,
)
from runlake.lake import open_lake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from benchmarks.harness import Options
    from runlake.lake import Lake
    from runlake.run import Run

_MIB: Final = 1 << 20
_ROUNDS: Final = 5
_LEAST_SHARE: Final = 0.8
_MOST_MIB: Final = 100.0
_BUCKET: Final = "lake-bucket"
_BLOCK_BYTES: Final = 8 * _MIB
_LINE_MIB_S: Final = 8
_OURS: Final = "runlake"
_LOGGED: Final = "runlake, until it is on the disk and logged"
_SYNCED: Final = "fsspec, synced"
_DIGEST: Final = "SHA-256 alone"
_LIMIT: Final = "the slower of SHA-256 alone and fsspec, synced"

Seconds: TypeAlias = dict[str, list[float]]
Ways: TypeAlias = "dict[str, Callable[[], object]]"


def measure(options: Options) -> list[Figure]:
    """Return MiB a second into and out of a folder and S3, and MiB of memory."""
    rounds = options.size(_ROUNDS, quick=1)
    figures = _compared("a disk", options.size(2048, quick=9), rounds)
    figures += _compared("S3 (moto)", options.size(128, quick=9), rounds)
    figures += _compared("S3 (moto), a slow line", options.size(512, quick=8), rounds)
    figures.append(_many(options.size(2000, quick=5)))
    return figures


def _compared(where: str, mib: int, rounds: int) -> list[Figure]:
    """Measure one place in a process of its own, so that its memory is told apart."""
    command = [sys.executable, "-m", "benchmarks.bench_artifacts", where, str(mib), str(rounds)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    figures = []
    for deed, seconds in found["seconds"].items():
        what = f"{deed} {mib} MiB, {where}"
        figures += _speeds(what, mib, seconds, bound=_LEAST_SHARE if "put" in deed else None)
        for who, spent in found["cpu"][deed].items():
            value = 1024 * min(spent) / mib
            figures.append(Figure(f"{what}, CPU", value, "s/GiB", who=who, note="the least"))
        note = "above the process before"
        memory = found["memory"][deed] / _MIB
        figures.append(Figure(f"{what}, memory", memory, "MiB", bound=_MOST_MIB, note=note))
    return figures


def _speeds(what: str, mib: int, seconds: Seconds, *, bound: float | None) -> list[Figure]:
    """Return the best speed of everybody, and ours as a share of theirs."""
    speeds = {who: mib / min(rounds) for who, rounds in seconds.items()}
    figures = []
    for who, rounds in seconds.items():
        note = f"the best of {shown_rounds([mib / each for each in rounds])}"
        figures.append(Figure(what, speeds[who], "MiB/s", who=who, sense=AT_LEAST, note=note))
    pairs = [(_OURS, "fsspec", bound)]
    if _LOGGED in speeds:
        pairs.append((_LOGGED, _SYNCED, None))
    if _DIGEST in speeds:
        speeds[_LIMIT] = min(speeds[_DIGEST], speeds[_SYNCED])
        pairs += [(_LOGGED, _LIMIT, None), (_LOGGED, _DIGEST, None)]
    for who, other, least in pairs:
        share, name = speeds[who] / speeds[other], f"{what}, of {other}"
        figures.append(Figure(name, share, "x", who=who, bound=least, sense=AT_LEAST))
    return figures


def _many(count: int) -> Figure:
    """Put a folder of small files into a lake on the disk."""
    with scratch() as folder, open_lake(folder / "lake") as lake:
        (folder / "in").mkdir()
        for number in range(count):
            (folder / "in" / f"{number:05}.txt").write_bytes(b"%d" % number * 1000)
        with lake.start_run() as run:
            began = time.perf_counter()
            run.log_artifacts(folder / "in")
            took = time.perf_counter() - began
    return Figure("small files put, a disk", count / took, "files/s", sense=AT_LEAST)


class _Bench:
    """One place: runlake and plain fsspec, one after the other."""

    def __init__(self, folder: Path, lake: Lake, run: Run, plain: Any, root: str) -> None:  # noqa: ANN401, PLR0917 - fsspec has no types
        self.folder, self.lake, self.run, self.plain, self.root = folder, lake, run, plain, root
        self.file = folder / "big.bin"

    def put(self) -> None:
        self.run.log_artifact(self.file, f"round-{os.urandom(4).hex()}")

    def put_logged(self) -> None:
        self.put()
        self.lake.flush()

    def put_plain(self) -> str:
        # A new one each time, as ours is: to write over blocks that a disk has is less work.
        name = f"{self.root}/round-{os.urandom(4).hex()}.bin"
        self.plain.put_file(str(self.file), name)
        return name

    def put_synced(self) -> None:
        handle = os.open(self.put_plain(), os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)

    def get(self) -> None:
        target = self.folder / f"out-{os.urandom(4).hex()}"
        self.lake.artifacts.download(self.run.run_id, "kept/big.bin", target=target)
        (target / "kept" / "big.bin").unlink()

    def get_plain(self) -> None:
        self.plain.get_file(f"{self.root}/plain.bin", str(self.folder / "plain-out.bin"))
        (self.folder / "plain-out.bin").unlink()

    def clear(self) -> None:
        """Take away what rounds have put, so that the disk does not fill up."""
        for each in self.lake.artifacts.list(self.run.run_id):
            if each.path.startswith("round-"):
                self.lake.artifacts.delete(self.run.run_id, each.path)

        for name in self.plain.ls(self.root, detail=False):
            if "round-" in name:
                self.plain.rm_file(name)

    def forget(self) -> None:
        """Let the system's cache go of the file."""
        handle = os.open(self.file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)

    def digest(self) -> None:
        """Hash as many bytes as the file has, over and over the same."""
        block, digest = memoryview(os.urandom(_BLOCK_BYTES)), hashlib.sha256()
        piece = block[: 512 << 10]
        for _ in range(self.file.stat().st_size // len(piece)):
            digest.update(piece)

    def measured(self, deeds: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
        """Return seconds and CPU seconds of each round, by deed and who, and our memory."""
        puts: Ways = {_OURS: self.put, "fsspec": self.put_plain}
        gets: Ways = {_OURS: self.get, "fsspec": self.get_plain}
        ways = {"put": puts, "put cold": puts, "get": gets}
        if self.root.startswith("/"):
            ways["put cold"] = puts | {_LOGGED: self.put_logged, _SYNCED: self.put_synced}
            ways["put"] = ways["put cold"] | {_DIGEST: self.digest}
        # The libraries that write rows are loaded once, and are no part of a file's memory.
        self.run.log_text("warm", "warm.txt")
        self.lake.flush()
        if "get" in deeds:
            self.run.log_artifact(self.file, "kept")
            self.plain.put_file(str(self.file), f"{self.root}/plain.bin")
        found: dict[str, dict[str, Any]] = {"seconds": {}, "cpu": {}, "memory": {}}
        for deed in deeds:
            for kind, value in zip(found, self._rounds(ways[deed], rounds, deed=deed), strict=True):
                found[kind][deed] = value
        return found

    def _rounds(self, ways: Ways, rounds: int, *, deed: str) -> tuple[Seconds, Seconds, int]:
        seconds: Seconds = {who: [] for who in ways}
        cpu: Seconds = {who: [] for who in ways}
        memory = 0
        order = deque(ways.items())
        for _ in range(rounds):
            order.rotate(-1)  # whoever is first meets a disk that is busy with what was deleted
            for who, way in order:
                if rounds > 1:  # one round compares nothing, and a busy disk takes a minute
                    os.sync()
                if deed.endswith("cold"):
                    self.forget()
                forget_peak()
                before, spent = rss_bytes(), time.process_time()
                began = time.perf_counter()
                way()
                seconds[who].append(time.perf_counter() - began)
                cpu[who].append(time.process_time() - spent)
                if who in {_OURS, _LOGGED}:
                    self.lake.flush()  # what comes behind a call is nobody else's time
                    memory = max(memory, rss_bytes(peak=True) - before)
            self.clear()
        return seconds, cpu, memory


@contextmanager
def _far() -> Iterator[dict[str, object]]:
    """Lend an S3 in a process of its own."""
    program = (
        "import sys\n"
        "from moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)\n"
        "server.start()\n"
        "print(server.get_host_and_port()[1], flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        options: dict[str, object] = {
            "endpoint_url": f"http://127.0.0.1:{port}",
            "key": "key",
            "secret": "secret",
        }
        fsspec.filesystem("s3", **options).mkdir(_BUCKET)
        yield options
        server.kill()


@contextmanager
def _slow(options: dict[str, object]) -> Iterator[dict[str, object]]:
    """Lend the same S3 at the end of a line whose connections are slow."""
    port = str(options["endpoint_url"]).rpartition(":")[2]
    command = [sys.executable, "-m", "benchmarks.line", port, str(_LINE_MIB_S)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as line:
        assert line.stdout is not None
        yield options | {"endpoint_url": f"http://127.0.0.1:{int(line.stdout.readline())}"}
        line.kill()


def _write(file: Path, mib: int) -> None:
    block = os.urandom(_BLOCK_BYTES)
    with file.open("wb") as opened:
        for number in range(-(-mib * _MIB // _BLOCK_BYTES)):
            opened.write(number.to_bytes(8, "little") + block[8:])


def _alone(where: str, mib: int, rounds: int) -> None:
    with scratch() as folder:
        _write(folder / "big.bin", mib)
        if where == "a disk":
            with open_lake(folder / "lake") as lake, lake.start_run() as run:
                root = folder / "plain"
                root.mkdir()
                bench = _Bench(folder, lake, run, fsspec.filesystem("file"), str(root))
                print(json.dumps(bench.measured(("put", "put cold", "get"), rounds)))
            return
        is_slow = where.endswith("line")
        with (
            _far() as near,
            _slow(near) if is_slow else nullcontext(near) as options,
            open_lake(f"s3://{_BUCKET}/lake", storage_options=options) as lake,
            lake.start_run() as run,
        ):
            plain = fsspec.filesystem("s3", **options)
            bench = _Bench(folder, lake, run, plain, f"{_BUCKET}/plain")
            print(json.dumps(bench.measured(("put",) if is_slow else ("put", "get"), rounds)))


if __name__ == "__main__":
    _alone(sys.argv[1], *map(int, sys.argv[2:]))
