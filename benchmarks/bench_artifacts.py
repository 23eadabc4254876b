"""How fast do large files go into a lake and come out, and in how much memory?

Beside it what plain fsspec takes to put and get the same file. It makes no digest, keeps no event,
cannot go on where it was, and on a disk leaves the bytes in the system's cache; so there is a
second figure of it in which they are brought to the disk, as ours are. Rounds of both alternate,
because disks have moods. The far store is moto's server on this machine, which takes most of the
time: what is compared is the way there.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

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
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.harness import Options
    from runlake.lake import Lake
    from runlake.run import Run

_MIB: Final = 1 << 20
_ROUNDS: Final = 2
_LEAST_SHARE: Final = 0.8
_MOST_MIB: Final = 100.0
_BUCKET: Final = "lake-bucket"
_BLOCK_BYTES: Final = 8 * _MIB


def measure(options: Options) -> list[Figure]:
    """Return MiB a second into and out of a folder and S3, and MiB of memory."""
    near, far = options.size(2048, quick=24), options.size(64, quick=24)
    figures = _compared("a disk", near, far_store=False)
    figures += _compared("S3 (moto)", far, far_store=True)
    figures.append(_many(options.size(2000, quick=50)))
    return figures


def _compared(where: str, mib: int, *, far_store: bool) -> list[Figure]:
    """Measure one place in a process of its own, so that its memory is told apart."""
    command = [sys.executable, "-m", "benchmarks.bench_artifacts", str(mib), str(int(far_store))]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    figures = []
    for deed in ("put", "get"):
        what = f"{deed} {mib} MiB, {where}"
        rivals = {who: rounds for who, rounds in found[deed].items() if who != "runlake"}
        ours = found[deed]["runlake"]
        speed = mib / statistics.median(ours)
        figures.append(Figure(what, speed, "MiB/s", sense=AT_LEAST, note=_spread(mib, ours)))
        for who, rounds in rivals.items():
            value, note = mib / statistics.median(rounds), _spread(mib, rounds)
            figures.append(Figure(what, value, "MiB/s", who=who, sense=AT_LEAST, note=note))
            bound = _LEAST_SHARE if deed == "put" else None
            share = speed / value
            figures.append(Figure(f"{what}, of {who}", share, "x", bound=bound, sense=AT_LEAST))
        note = "above the process before"
        memory = found["memory"][deed] / _MIB
        figures.append(Figure(f"{what}, memory", memory, "MiB", bound=_MOST_MIB, note=note))
    return figures


def _spread(mib: int, seconds: list[float]) -> str:
    return shown_rounds([mib / each for each in seconds])


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

    def measured(self) -> dict[str, Any]:
        """Return seconds of each round, by deed and who, and the memory of ours."""
        puts: dict[str, Callable[[], object]] = {"runlake": self.put, "fsspec": self.put_plain}
        if self.root.startswith("/"):
            puts["fsspec, synced"] = self.put_synced
        self.run.log_artifact(self.file, "kept")
        self.plain.put_file(str(self.file), f"{self.root}/plain.bin")
        gets: dict[str, Callable[[], object]] = {"runlake": self.get, "fsspec": self.get_plain}
        memory: dict[str, int] = {}
        found = {
            deed: self._rounds(deed, ways, memory) for deed, ways in (("put", puts), ("get", gets))
        }
        return {**found, "memory": memory}

    def _rounds(
        self, deed: str, ways: dict[str, Callable[[], object]], memory: dict[str, int]
    ) -> dict[str, list[float]]:
        seconds: dict[str, list[float]] = {who: [] for who in ways}
        for _ in range(_ROUNDS):
            for who, way in ways.items():
                os.sync()
                forget_peak()
                before = rss_bytes()
                began = time.perf_counter()
                way()
                seconds[who].append(time.perf_counter() - began)
                if who == "runlake":
                    memory[deed] = max(memory.get(deed, 0), rss_bytes(peak=True) - before)
            self.clear()
        return seconds


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


def _write(file: Path, mib: int) -> None:
    block = os.urandom(_BLOCK_BYTES)
    with file.open("wb") as opened:
        for number in range(-(-mib * _MIB // _BLOCK_BYTES)):
            opened.write(number.to_bytes(8, "little") + block[8:])


def _alone(mib: int, *, far_store: bool) -> None:
    with scratch() as folder:
        _write(folder / "big.bin", mib)
        if not far_store:
            with open_lake(folder / "lake") as lake, lake.start_run() as run:
                root = folder / "plain"
                root.mkdir()
                bench = _Bench(folder, lake, run, fsspec.filesystem("file"), str(root))
                print(json.dumps(bench.measured()))
            return
        with (
            _far() as options,
            open_lake(f"s3://{_BUCKET}/lake", storage_options=options) as lake,
            lake.start_run() as run,
        ):
            plain = fsspec.filesystem("s3", **options)
            bench = _Bench(folder, lake, run, plain, f"{_BUCKET}/plain")
            print(json.dumps(bench.measured()))


if __name__ == "__main__":
    _alone(int(sys.argv[1]), far_store=bool(int(sys.argv[2])))
