"""The command: run benchmarks, each in a process of its own, print and keep what they found."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks import harness
from benchmarks.rivals import NAMES as RIVALS

HERE: Final = Path(__file__).parent
NAMES: Final = tuple(sorted(file.stem.removeprefix("bench_") for file in HERE.glob("bench_*.py")))


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says; exits with 1 if a benchmark could not run."""
    wanted = _parser().parse_args(arguments)
    out = Path(wanted.out)
    if wanted.alone:
        _measure(wanted.names[0], _options(wanted), out)
        return
    failed = []
    with TemporaryDirectory(prefix="runlake-lakes-") as folder:
        lakes = str(Path(wanted.lakes or folder).absolute())
        for name in wanted.names or NAMES:
            command = [sys.executable, "-m", "benchmarks", name, "--alone", "--out", str(out)]
            command += ["--against", wanted.against, "--rival-python", wanted.rival_python]
            command += ["--lakes", lakes, *(["--quick"] if wanted.quick else [])]
            finished = subprocess.run(command, cwd=HERE.parent, check=False)
            if finished.returncode:
                failed.append(name)
                continue
            print(harness.table(harness.read(out / f"{name}.json")), end="\n\n", flush=True)
    if failed:
        sys.exit(f"could not run: {', '.join(failed)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", default=[])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it work at all?")
    parser.add_argument("--against", default="", help=f"rivals, of {','.join(RIVALS)}")
    parser.add_argument("--rival-python", default=sys.executable, help="interpreter with rivals")
    parser.add_argument("--out", default=str(HERE / "results"), help="folder of the results")
    parser.add_argument("--lakes", help="folder that keeps generated lakes for the next time")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser


def _options(wanted: argparse.Namespace) -> harness.Options:
    against = tuple(name for name in wanted.against.split(",") if name)
    unknown = set(against) - set(RIVALS)
    if unknown:
        sys.exit(f"unknown rivals: {', '.join(sorted(unknown))}; there are {', '.join(RIVALS)}")
    return harness.Options(wanted.quick, against, wanted.rival_python, Path(wanted.lakes))


def _measure(name: str, options: harness.Options, out: Path) -> None:
    """Run one benchmark in this process."""
    module = import_module(f"benchmarks.bench_{name}")
    before = os.getloadavg()[0]
    figures = module.measure(options)
    result = harness.Result(
        name=name,
        question=(module.__doc__ or "").partition("\n")[0].rstrip("."),
        quick=options.quick,
        load_before=round(before, 2),
        load_after=round(os.getloadavg()[0], 2),
        machine=harness.machine(),
        versions=harness.versions(options),
        figures=figures,
    )
    harness.write(result, out)
