"""Whole lakes at once, for questions over more runs than one would log in a benchmark.

The rows, states and names are made by the code that writers use, so that such a lake is what
runs would have left behind: writers that ended, one segment after another, within the limits
of size and state that real writers keep. Only the journals, the clock and the waiting are left
out. The same shape gives the same bytes.

    python -m benchmarks.lakes runs100k points10m --into /some/folder
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks import data
from runlake import __version__, ids, run_names, schema
from runlake.storage import layout, names, segments
from runlake.storage.layout import SegmentName
from runlake.storage.names import Claim
from runlake.storage.state import Fact, FactBook, State, Summaries
from runlake.writing.events import Event, Position
from runlake.writing.rows import Points, build
from runlake.writing.writer import MAX_SEGMENT_ROWS, STATE_LIMIT_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BEGAN_US: Final = 1_750_000_000_000_000
_STEP_US: Final = 50_000
_APART_US: Final = 2_000_000
# A fact of a run takes about this much of a state, compressed.
_FACT_BYTES: Final = 20
_RUN_FACTS: Final = 7
_FEW_WRITERS: Final = 8
_USER: Final = "benchmark"
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a lake holds.

    Attributes:
        sweep: its runs.
        experiments: how many share the runs.
        runs_per_writer: None for as many as a real writer takes before its state is full.
        long_points: one more run, the last, has so many points of each metric; 0 for none.
        seed: of ids.
    """

    sweep: data.Sweep
    experiments: int = 1
    runs_per_writer: int | None = None
    long_points: int = 0
    seed: int = 0

    @property
    def runs(self) -> int:
        """The number of runs, the long one among them."""
        return self.sweep.runs + bool(self.long_points)

    @property
    def writer_runs(self) -> int:
        """The number of runs that a writer carries."""
        facts = _RUN_FACTS + len(self.sweep.params_of(0))
        return self.runs_per_writer or max(1, STATE_LIMIT_BYTES // (_FACT_BYTES * facts))

    @property
    def writers(self) -> int:
        """The number of writers; the long run has one of its own."""
        return -(-self.sweep.runs // self.writer_runs) + bool(self.long_points)

    def runs_of(self, writer: int) -> range:
        """Return the runs of one writer."""
        if self.long_points and writer == self.writers - 1:
            return range(self.sweep.runs, self.runs)
        first = writer * self.writer_runs
        return range(first, min(first + self.writer_runs, self.sweep.runs))


@dataclass(frozen=True, slots=True)
class Made:
    """A lake that was written, or found where it had been written.

    Attributes:
        folder: where it lies.
        shape: what it holds.
        rows: in all segments.
        segments: how many.
        size_bytes: of all files.
    """

    folder: Path
    shape: Shape
    rows: int
    segments: int
    size_bytes: int

    def run_id(self, number: int) -> str:
        """Return the id of run `number`."""
        return run_id(self.shape, number)


def _points(runs: int) -> Shape:
    """Return runs of 10 metrics with 10,000 points each, and one of 100,000 points."""
    sweep = data.Sweep(runs=runs, params=5, metrics=10, points=10_000)
    return Shape(sweep=sweep, runs_per_writer=10, long_points=100_000)


SHAPES: Final[dict[str, Shape]] = {
    "runs100": Shape(sweep=data.Sweep(runs=100)),
    "runs1k": Shape(sweep=data.Sweep(runs=1_000)),
    "runs10k": Shape(sweep=data.Sweep(runs=10_000), experiments=10),
    # Writers that end a little sooner, so that about 500 segments are live.
    "runs100k": Shape(sweep=data.Sweep(runs=100_000), experiments=20, runs_per_writer=194),
    "runs1m": Shape(sweep=data.Sweep(runs=1_000_000), experiments=50),
    "seeds10k": Shape(sweep=data.Sweep(runs=10_000, seeds=5), experiments=10),
    "keys10k": Shape(sweep=data.Sweep(runs=10_000, strange_keys=5_000), experiments=10),
    "points100k": Shape(
        sweep=data.Sweep(runs=10, params=5, metrics=2, points=2_500), long_points=25_000
    ),
    "points1m": _points(9),
    "points10m": _points(100),
    "points100m": _points(990),
    "points1b": _points(9_990),
}


def made(name: str, folder: Path) -> Made:
    """Return a lake of `SHAPES`; it is written unless it is there already.

    Args:
        name: of the shape; the lake lies below `folder` under this name.
        folder: where lakes are kept.
    """
    target = folder / name
    note = folder / f"{name}.json"
    if not is_made(name, folder):
        written = write(target, SHAPES[name])
        counts = {key: getattr(written, key) for key in ("rows", "segments", "size_bytes")}
        note.write_text(json.dumps(counts), "utf-8")
    return Made(target, SHAPES[name], **json.loads(note.read_text("utf-8")))


def is_made(name: str, folder: Path) -> bool:
    """Tell whether a lake is there already; some are too large to be made by the way."""
    return (folder / f"{name}.json").exists()


def write(folder: Path, shape: Shape) -> Made:
    """Write a lake into a folder that is empty or not there.

    Args:
        folder: where.
        shape: what it holds.
    """
    lake = _bits("lake", shape, 0).hex()
    fields = {"format": schema.FORMAT_VERSION, "lake": lake, "conditional_create": True}
    files = _Files(folder)
    files.write(layout.LAKE_FILE, json.dumps(fields, separators=(",", ":")).encode())
    homes = [_home(number) for number in range(shape.experiments)]
    _write_experiments(files, shape, homes)
    parts = [files]
    work = partial(_write_runs, folder, shape)
    writers = range(shape.writers)
    if len(writers) < _FEW_WRITERS:
        parts += map(work, writers)
    else:
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            parts += pool.map(work, writers)
    return Made(
        folder,
        shape,
        rows=sum(part.rows for part in parts),
        segments=sum(part.segments for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
    )


def run_id(shape: Shape, number: int) -> str:
    """Return the id of run `number` of a lake of this shape: a UUIDv7 of its start."""
    random = int.from_bytes(_bits("run", shape, number)[:10])
    value = (
        (_start_us(shape, number) // 1000) << 80
        | 0x7 << 76
        | (random >> 62 & 0xFFF) << 64
        | 0b10 << 62
        | random & 0x3FFF_FFFF_FFFF_FFFF
    )
    return f"{value:032x}"


def _home(number: int) -> tuple[str, str]:
    """Return id and name of an experiment."""
    name = f"sweep-{number}"
    return ids.derived_experiment_id(name), name


def _start_us(shape: Shape, number: int) -> int:
    """Return when a run begins: behind the run before it of the same writer."""
    writer, place = divmod(number, shape.writer_runs)
    span = shape.sweep.points * _STEP_US + _APART_US
    return _BEGAN_US + writer * _APART_US + place * span


def _bits(what: str, shape: Shape, number: int) -> bytes:
    """Return 16 bytes that are the same for the same question about the same shape."""
    return hashlib.blake2b(f"{what} {shape} {number}".encode(), digest_size=16).digest()


@dataclass(slots=True)
class _Files:
    """The files of a lake, and how much was written."""

    folder: Path
    rows: int = 0
    segments: int = 0
    size_bytes: int = 0

    def write(self, key: str, content: bytes) -> None:
        file = self.folder / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self.size_bytes += len(content)


def _write_experiments(files: _Files, shape: Shape, homes: list[tuple[str, str]]) -> None:
    """Claim the names, and leave the trace of it in the reserved partition."""
    partition = schema.RESERVED_PARTITION
    writer = _Writer(files, (partition, partition), number=-1, shape=shape)
    for number, (experiment_id, name) in enumerate(homes):
        claim = Claim(
            name=name,
            experiment_id=experiment_id,
            time_us=_BEGAN_US + number,
            user=_USER,
            nonce=_bits("claim", shape, number).hex()[:16],
            tags={},
        )
        files.write(layout.claim(ids.name_hash(name), claim.number), names.encode(claim))
        about = {
            "time_us": claim.time_us,
            "user": _USER,
            "artifact_location": None,
            "tags": {},
        }
        text = json.dumps(about, separators=(",", ":"))
        writer.say(claim.time_us, (experiment_id, schema.EXPERIMENT_CREATE, name, None, text))
    writer.end(_BEGAN_US + len(homes))


def _write_runs(folder: Path, shape: Shape, number: int) -> _Files:
    """Write the runs of one writer."""
    files = _Files(folder)
    writer = _Writer(files, _home(number % shape.experiments), number=number, shape=shape)
    end_us = max(_write_run(writer, shape, run) for run in shape.runs_of(number))
    writer.end(end_us + 1)
    return files


def _write_run(writer: _Writer, shape: Shape, number: int) -> int:
    """Write one run, and return when it ended."""
    run, start_us = run_id(shape, number), _start_us(shape, number)
    rows: list[tuple[str, str, float | None, str | None]] = [
        (schema.RUN, schema.RUN_START, float(start_us), None),
        (schema.RUN, schema.RUN_AUTO_NAME, None, run_names.auto_name(run)),
        (schema.RUN, schema.RUN_USER, None, _USER),
        (schema.RUN, schema.RUN_SOURCE, None, "train.py"),
        (schema.STATUS, "", float(start_us), schema.RUNNING),
        (schema.RUN, schema.RUN_NAME, None, f"run-{number}"),
    ]
    for key, value in shape.sweep.params_of(number).items():
        is_number = isinstance(value, (int, float))
        rows.append((schema.PARAM, key, float(str(value)) if is_number else None, str(value)))
    for place, row in enumerate(rows):
        writer.say(start_us + place, (run, *row))
    is_long = number == shape.sweep.runs
    values = shape.sweep.values_of(number, points=shape.long_points if is_long else None)
    moments = data.moments(len(values), seed=number)
    times = start_us + len(rows) + moments - moments[0]
    writer.log(run, shape.sweep.metrics_of(number), times, values)
    end_us = int(times[-1]) + 1_000 * (number * 7_919 % 1_000) + 1
    status = schema.FAILED if shape.sweep.has_failed(number) else schema.FINISHED
    writer.say(end_us, (run, schema.STATUS, "", float(end_us), status))
    return end_us


@dataclass(slots=True)
class _Pending:
    """Rows behind the last segment."""

    start: Position
    points: list[Points] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    point_count: int = 0

    @property
    def rows(self) -> int:
        return self.point_count + len(self.events)


class _Writer:
    """One writer that ran to its end: what `runlake.writing.writer` uploads, without waiting."""

    def __init__(self, files: _Files, home: tuple[str, str], *, number: int, shape: Shape) -> None:
        """Begin without rows.

        Args:
            files: of the lake.
            home: id and name of the experiment.
            number: of the writer.
            shape: of the lake.
        """
        self._files = files
        self._experiment_id, self._experiment_name = home
        self._shape = shape
        self._number = number
        self._id = _writer_id(shape, number)
        self._keys: list[tuple[str, str]] = []
        self._key_ids: dict[str, list[int]] = defaultdict(list)
        self._book = FactBook()
        self._summaries = Summaries()
        self._pending = _Pending(Position(0, 0))

    def say(self, clock_us: int, row: tuple[str, str, str, float | None, str | None]) -> None:
        """Take an event in: run_id, kind, key, num, str."""
        pending = self._pending
        points = pending.start.points + pending.point_count
        seq = points + pending.start.events + len(pending.events)
        pending.events.append(Event(points, clock_us, *row))
        run, kind, key, num, text = row
        self._book.add(run, kind, key, Fact(clock_us, seq, num, text))
        pending.touched.add(run)

    def log(
        self, run: str, metrics: list[str], times: NDArray[np.int64], values: NDArray[np.float64]
    ) -> None:
        """Take the points of a run in, step after step.

        Args:
            run: its id.
            metrics: the keys.
            times: shape (steps,), microseconds since 1970.
            values: shape (steps, metrics).
        """
        first = len(self._keys)
        self._keys += [(run, key) for key in metrics]
        self._key_ids[run] += range(first, len(self._keys))
        steps, width = values.shape
        points = Points(
            np.tile(np.arange(first, first + width), steps),
            np.repeat(np.arange(steps), width),
            np.repeat(times, width),
            values.ravel(),
        )
        while len(points):
            room = MAX_SEGMENT_ROWS - self._pending.rows
            if room <= 0:
                self.cut()
                continue
            head = _head(points, room)
            self._pending.points.append(head)
            self._pending.point_count += len(head)
            self._pending.touched.add(run)
            points = points.behind(room)

    def end(self, clock_us: int) -> None:
        """Say that the writer ends, and write what is left."""
        self.say(clock_us, ("", schema.CLOSE, "", None, None))
        self.cut()

    def cut(self) -> None:
        """Write one segment."""
        pending = self._pending
        points = _joined(pending.points)
        table = build(points, pending.events, pending.start, self._keys)
        self._summaries.add(points.key_ids, points.steps, points.times, points.values)
        end = Position(
            pending.start.points + len(points), pending.start.events + len(pending.events)
        )
        name = SegmentName(
            writer=self._id,
            last=end.rows - 1,
            count=table.num_rows,
            merged=False,
            experiment_id=self._experiment_id,
        )
        header = segments.Header(
            writer=self._id,
            experiment_id=self._experiment_id,
            experiment_name=self._experiment_name,
            first=name.first,
            last=name.last,
            digest=segments.digest(table),
            nonce=_bits(name.key, self._shape, 0).hex()[:16],
            host=_USER,
            pid=1,
            boot_id=_USER,
            version=__version__,
        )
        self._files.write(name.key, segments.encode(table, header, self._state()))
        self._files.rows += table.num_rows
        self._files.segments += 1
        ended = {run for run in pending.touched if self._book.status(run) in schema.ENDED}
        self._book.forget(ended)
        self._pending = _Pending(end)

    def _state(self) -> State:
        """Return the state of the runs that are open or have rows in this segment."""
        wanted = self._book.open_runs() | self._pending.touched
        slots = [slot for run in sorted(wanted) for slot in self._key_ids.get(run, ())]
        summaries = self._summaries.table(
            np.array(slots, dtype=np.int64),
            [self._keys[slot][0] for slot in slots],
            [self._keys[slot][1] for slot in slots],
        )
        return State(self._book.table(wanted), summaries)


def _writer_id(shape: Shape, number: int) -> str:
    """Return a ULID of the time when a writer began."""
    began_us = _BEGAN_US + max(0, number) * _APART_US
    random = int.from_bytes(_bits("writer", shape, number)[:10])
    value = (began_us // 1000) << 80 | random
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def _head(points: Points, count: int) -> Points:
    """Return the first points."""
    return Points(
        points.key_ids[:count], points.steps[:count], points.times[:count], points.values[:count]
    )


def _joined(pieces: list[Points]) -> Points:
    """Return pieces as one."""
    if not pieces:
        return Points(
            np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        )
    return Points(
        np.concatenate([piece.key_ids for piece in pieces]),
        np.concatenate([piece.steps for piece in pieces]),
        np.concatenate([piece.times for piece in pieces]),
        np.concatenate([piece.values for piece in pieces]),
    )


def main() -> None:
    """Write lakes by name, and say how long each took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lakes", description=__doc__)
    parser.add_argument("names", nargs="+", choices=SHAPES, metavar="NAME")
    parser.add_argument("--into", type=Path, required=True, help="folder of the lakes")
    wanted = parser.parse_args()
    wanted.into.mkdir(parents=True, exist_ok=True)
    for name in wanted.names:
        began = time.perf_counter()
        lake = made(name, wanted.into)
        seconds = time.perf_counter() - began
        size = f"{lake.size_bytes / 2**20:,.0f} MiB, {lake.rows:,} rows, {lake.segments:,} segments"
        print(f"{name}: {lake.shape.runs:,} runs, {size}, {seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
