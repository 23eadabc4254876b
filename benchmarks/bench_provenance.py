"""What does a run pay for saying where it comes from?

A script in a git repository with 10,000 files, one of them changed, begins a run: how much later
is it at its first value, and at its end, than without provenance? And what does each of many short
runs of one process pay? Rounds with and without take turns, so that both see the same machine.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.harness import Figure, scratch, shown_rounds

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.harness import Options

_SCRIPT = """
import json, sys, time
began = time.perf_counter()
import runlake
lake = runlake.open(sys.argv[1])
runs = int(sys.argv[2])
params = {f"p{n}": n * 0.5 for n in range(20)}
values = {f"m{n}": n * 0.5 for n in range(20)}
imported = time.perf_counter()
run = lake.start_run()
started = time.perf_counter()
run.log_params(params)
run.log(values)
logged = time.perf_counter()
run.finish()
lake.flush()
warm, cpu = time.perf_counter(), time.process_time()
for _ in range(runs):
    with lake.start_run() as run:
        run.log_params(params)
        run.log(values)
done = time.perf_counter()
lake.close()
closed = time.perf_counter()
print(json.dumps({
    "start": started - imported, "first value": logged - imported,
    "short": (closed - warm) / max(1, runs), "cpu": (time.process_time() - cpu) / max(1, runs),
}))
"""
_WAYS = ("off", "on")


def measure(options: Options) -> list[Figure]:
    """Return milliseconds that provenance adds to a start, and milliseconds a short run."""
    files, runs = options.size(10_000, quick=50), options.size(1000, quick=3)
    rounds = [0] * options.size(9, quick=1) + [runs] * options.size(3, quick=1)
    found: dict[str, dict[str, list[float]]] = {way: {} for way in _WAYS}
    with scratch() as folder:
        script = _repository(folder / "repository", files)
        for number, each in enumerate(rounds):
            for way in _WAYS if number % 2 else _WAYS[::-1]:
                told = _run(script, folder / f"{way}-{number}", each, way)
                for name, value in told.items():
                    found[way].setdefault(name, []).append(value * 1e3)
    figures = []
    for name, what in (
        ("start", "start_run, added by provenance"),
        ("first value", "start to first values, added by provenance"),
        ("process", "a process with one run, added by provenance"),
    ):
        on, off = (statistics.median(found[way][name]) for way in ("on", "off"))
        note = f"{files:,} files; {on:.1f} with, {off:.1f} without"
        bound = None if name == "process" else 30.0
        figures.append(Figure(what, on - off, "ms", bound=bound, note=note))
    for way in ("on", "off"):
        spans, cpu = found[way]["short"], statistics.median(found[way]["cpu"])
        note = f"{runs:,} runs; {cpu:.2f} ms of processor; {shown_rounds(spans)}"
        what = f"a short run, provenance {way}"
        figures.append(Figure(what, statistics.median(spans), "ms", bound=2.0, note=note))
    return figures


def _run(script: Path, folder: Path, runs: int, way: str) -> dict[str, float]:
    environ = os.environ | {"RUNLAKE_PROVENANCE": way, "RUNLAKE_JOURNAL": str(folder / "journal")}
    command = [sys.executable, str(script), str(folder / "lake"), str(runs)]
    began = os.times().elapsed
    finished = subprocess.run(
        command, cwd=script.parent, env=environ, capture_output=True, text=True, check=True
    )
    told: dict[str, float] = json.loads(finished.stdout)
    if runs:
        return {name: told[name] for name in ("short", "cpu")}
    spent = os.times().elapsed - began
    return {"start": told["start"], "first value": told["first value"], "process": spent}


def _repository(folder: Path, files: int) -> Path:
    """Make a repository of many files, one of them changed; return its script."""
    for number in range(files):
        file = folder / f"part{number % 100}" / f"file{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"value = {number}\n" * 20)
    script = folder / "train.py"
    script.write_text(_SCRIPT)
    git = str(shutil.which("git"))
    for arguments in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "All"],
    ):
        subprocess.run([git, *arguments], cwd=folder, check=True)
    (folder / "part0" / "file0.py").write_text("value = 1\n" * 20)
    return script
