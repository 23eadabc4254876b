"""Measure, judge against a bound, and keep what was found.

A benchmark returns figures; this module turns repeated measurements into one number (the
median of rounds), says on what machine and under what load they were taken, writes them as
JSON, and prints them as a table. Results name no machine, user or folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from benchmarks.rivals import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

AT_MOST: Final = "<="
AT_LEAST: Final = ">="
_LIBRARIES: Final = ("runlake", "duckdb", "fsspec", "numpy", "polars", "pyarrow")
_RIVALS: Final = ("mlflow-skinny", "mlflow", "tensorboardX", "trackio", "wandb")
ROOT: Final = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        what: what was measured; figures with the same `what` are compared with each other.
        value: the median of the rounds.
        unit: of `value` and `bound`.
        who: `runlake`, a rival, or the physical limit that was measured beside it.
        bound: what it has to keep; None where nothing was promised.
        sense: `<=` or `>=`: how `value` keeps `bound`, and which way is better.
        note: sizes, spread, or what to know.
    """

    what: str
    value: float
    unit: str
    who: str = "runlake"
    bound: float | None = None
    sense: str = AT_MOST
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether the bound is kept; None without one."""
        if self.bound is None:
            return None
        return self.value <= self.bound if self.sense == AT_MOST else self.value >= self.bound


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller asked for.

    Attributes:
        quick: tiny sizes, to see that everything works.
        against: names of rivals.
        rival_python: the interpreter of the environment that holds the rivals.
        lakes: folder of lakes that several benchmarks ask; see `benchmarks.lakes`.
    """

    quick: bool = False
    against: tuple[str, ...] = ()
    rival_python: str = sys.executable
    lakes: Path = Path("lakes")

    def size(self, full: int, *, quick: int) -> int:
        """Return how much to do."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of many spans, in the unit they were given in."""

    least: float
    p50: float
    p99: float
    greatest: float


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark found, and where."""

    name: str
    question: str
    quick: bool
    load_before: float
    load_after: float
    machine: dict[str, Any]
    versions: dict[str, str]
    figures: list[Figure] = field(default_factory=list)


# Measuring.


def spread(spans: Sequence[float] | NDArray[Any]) -> Spread:
    """Return the distribution of spans, at least one."""
    column = np.asarray(spans, dtype=np.float64)
    p50, p99 = np.quantile(column, [0.5, 0.99])
    return Spread(float(column.min()), float(p50), float(p99), float(column.max()))


def middle(spreads: Sequence[Spread]) -> Spread:
    """Return the median of rounds, number by number; the extremes are those of all rounds."""
    return Spread(
        min(each.least for each in spreads),
        statistics.median(each.p50 for each in spreads),
        statistics.median(each.p99 for each in spreads),
        max(each.greatest for each in spreads),
    )


def rounds(measure: Callable[[], float], *, count: int, warm_up: int = 1) -> list[float]:
    """Measure again and again, after rounds that warm caches and do not count."""
    for _ in range(warm_up):
        measure()
    return [measure() for _ in range(count)]


def shown_rounds(values: Sequence[float], digits: int = 3) -> str:
    """Return the spread of rounds for a figure's note."""
    low, high = min(values), max(values)
    return f"{len(values)} rounds, {low:.{digits}g} to {high:.{digits}g}"


def rss_bytes(*, peak: bool = False) -> int:
    """Return the memory of this process, or its greatest since `forget_peak`; 0 if unknown."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return 0
    found = [line.split() for line in lines if line.startswith(wanted)]
    return int(found[0][1]) * 1024 if found else 0


def forget_peak() -> None:
    """Begin the greatest memory of this process anew, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder that goes away, with the journals of this process below it.

    Provenance is off meanwhile, as it is in what was measured before there was any; what it
    costs `bench_provenance` measures.
    """
    with tempfile.TemporaryDirectory(prefix="runlake-benchmark-") as name:
        folder = Path(name)
        ours = {"RUNLAKE_JOURNAL": str(folder / "journal"), "RUNLAKE_PROVENANCE": "off"}
        before = {variable: os.environ.get(variable) for variable in ours}
        os.environ.update(ours)
        try:
            yield folder
        finally:
            for variable, text in before.items():
                if text is None:
                    del os.environ[variable]
                else:
                    os.environ[variable] = text


def run_task(
    name: str, task: str, folder: Path, *, options: Options, **sizes: int
) -> dict[str, float]:
    """Let a tracker do a task in a process of its own, and return what it measured.

    Raises:
        RuntimeError: the process failed; the message has the end of what it said.
    """
    finished = subprocess.run(
        task_command(name, task, folder, options=options, **sizes),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        message = f"{name} could not do {task}: {finished.stderr[-2000:]}"
        raise RuntimeError(message)
    found: dict[str, float] = json.loads(finished.stdout.strip().splitlines()[-1])
    return found


def task_command(
    name: str, task: str, folder: Path, *, options: Options, **sizes: int
) -> list[str]:
    """Return the command of a task."""
    python = options.rival_python if name in options.against else sys.executable
    return [python, "-m", "benchmarks.tasks", name, task, str(folder), json.dumps(sizes)]


def shown_name(tracker: str) -> str:
    """Return how a tracker is called in figures."""
    return "runlake" if tracker == OURS else tracker


# Where it was measured.


def machine() -> dict[str, Any]:
    """Say what matters about this machine, and not which one it is."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "processor": processor,
        "python": platform.python_version(),
        "system": platform.system(),
    }


def versions(options: Options) -> dict[str, str]:
    """Return the versions of what was measured."""
    found = {name: metadata.version(name) for name in _LIBRARIES}
    if options.against:
        script = (
            "import importlib.metadata as m, json, sys;"
            "print(json.dumps({d.name: d.version for d in m.distributions()"
            " if d.name in sys.argv[1:]}))"
        )
        command = [options.rival_python, "-c", script, *_RIVALS]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found |= json.loads(printed)
    return dict(sorted(found.items()))


# Keeping and showing.


def write(result: Result, folder: Path) -> None:
    """Keep a result as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(result), indent=1, ensure_ascii=False)
    (folder / f"{result.name}.json").write_text(text + "\n", "utf-8")


def read(file: Path) -> Result:
    """Read what `write` wrote."""
    fields = json.loads(file.read_text("utf-8"))
    figures = [Figure(**each) for each in fields.pop("figures")]
    return Result(**fields, figures=figures)


def ratio(ours: Figure, theirs: Figure) -> float:
    """Return how many times better ours is; below 1 it is worse."""
    better, worse = (theirs, ours) if ours.sense == AT_MOST else (ours, theirs)
    return better.value / worse.value if worse.value else float("inf")


def table(result: Result) -> str:
    """Return a result as text: ours with its bound, the others with how far ours is ahead."""
    header = ("what", "who", "measured", "bound", "", "runlake is", "note")
    lines = [header]
    ours = {each.what: each for each in result.figures if each.who == "runlake"}
    for each in result.figures:
        bound = "" if each.bound is None else f"{each.sense} {each.bound:,.4g} {each.unit}"
        met = {None: "", True: "met", False: "MISSED"}[each.is_met]
        own = ours.get(each.what)
        ahead = "" if own is None or each is own else f"{ratio(own, each):.3g} x as good"
        measured = f"{each.value:,.4g} {each.unit}"
        lines.append((each.what, each.who, measured, bound, met, ahead, each.note))
    widths = [max(len(line[place]) for line in lines) for place in range(len(header))]
    shown = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    load = f"load {result.load_before:.1f} before, {result.load_after:.1f} after"
    return "\n".join([f"{result.name}: {result.question} ({load})", *shown])
