"""Writers, crashes, recoveries, outages and readers in any order, against a plain model.

Each world is a seed; what happens follows from it, so a failure is replayed by its number. The
store is in memory and fails as stores do; the journals are real files. Checked at every read:

- I1 every row that must be there is there, and no row is there twice;
- I2 a reader never sees less than before;
- I3 each writer's rows are a prefix without holes;
- I4 the states in the footers, folded, equal what all rows say;
- I5 after a recovery every row that was acknowledged to a process that died is there;
- I9 recovering again changes nothing.
"""

from __future__ import annotations

import math
import random
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from runlake import clock, schema
from runlake.errors import RunlakeWarning, StorageError
from runlake.settings import Settings
from runlake.storage.engine import Storage
from runlake.storage.layout import SegmentName
from runlake.testing.filesystems import FaultyFilesystem
from runlake.writing import places, putting, recover, writer
from runlake.writing.rows import build, read_points
from tests.writing.drains import (
    EXPERIMENT,
    Row,
    StillDrain,
    check_sequences,
    memory_filesystem,
    rows_of,
    start_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa

    from runlake.run import Run

_Point = tuple[str, str, int, float]


class FakeTime:
    """A monotonic clock that a world moves."""

    def __init__(self) -> None:
        """Begin anywhere."""
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        """Return the time."""
        return self.now_s


@dataclass
class Process:
    """One process: its drain, its open runs, and what it was told is safe."""

    drain: StillDrain
    runs: dict[str, Run] = field(default_factory=dict)
    points: Counter[_Point] = field(default_factory=Counter)
    params: set[tuple[str, str]] = field(default_factory=set)

    def is_out(self) -> bool:
        """Whether the store holds all of it."""
        return self.drain.pending == 0


class World:
    """A lake, its processes, and the model of what it must hold."""

    def __init__(self, seed: int, folder: Path, time: FakeTime) -> None:
        """Make an empty lake; everything else follows from the seed."""
        self.chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self.time = time
        self.folder = folder
        self.settings = Settings(
            journal=str(folder / "journals"), cache=str(folder / "cache"), heartbeat_s=300.0
        )
        self.fs = memory_filesystem()
        failures = self.chance.choice([0.0, 0.1, 0.3])
        self.faulty = FaultyFilesystem(self.fs, seed=seed, before=failures, after=failures)
        self.processes: list[Process] = []
        # What was acknowledged, what must be in the next snapshot, and what is in doubt.
        self.points: Counter[_Point] = Counter()
        self.due: Counter[_Point] = Counter()
        self.params: set[tuple[str, str]] = set()
        self.due_params: set[tuple[str, str]] = set()
        self.dead: list[Process] = []
        self.twins = 0
        self.reader = Storage(self.fs, self.settings)
        self.reader.ensure_lake()
        self.seen: Counter[tuple[str, int]] = Counter()
        self.steps = 0
        self.runs_made = 0

    # What may happen.

    def begin_process(self) -> None:
        """Start a process."""
        if len(self.processes) < 3:
            drain = StillDrain(Storage(self.faulty, self.settings), self.settings)
            self.processes.append(Process(drain))

    def begin_run(self) -> None:
        """Start a new run, or resume any."""
        process = self._process()
        if self.runs_made and self.chance.random() < 0.3:
            run_id = f"run{self.chance.randrange(self.runs_made)}"
        else:
            run_id = f"run{self.runs_made}"
            self.runs_made += 1
        if run_id not in process.runs:
            process.runs[run_id] = start_run(process.drain, self.settings, run_id)

    def log_points(self) -> None:
        """Log some points in any of the ways."""
        process = self._process()
        run = self._run(process)
        for _ in range(self.chance.choice([1, 1, 5, 40])):
            key = f"m{self.chance.randrange(3)}"
            value = self.chance.choice([1.0, 2.5, -3.0, math.inf, math.nan, float(self.steps)])
            self.steps += 1
            step = self.steps
            if self.chance.random() < 0.5:
                run.log_metric(key, value, step)
                logged = [(run.run_id, key, step, value)]
            else:
                run.log({key: value, "other": 1.0}, step=step)
                logged = [(run.run_id, key, step, value), (run.run_id, "other", step, 1.0)]
            process.points.update(map(_plain, logged))

    def log_columns(self) -> None:
        """Log a few points as columns."""
        process = self._process()
        run = self._run(process)
        steps = list(range(self.steps + 1, self.steps + 4))
        self.steps += 3
        run.log_history({"step": steps, "c": [float(step) for step in steps]})
        process.points.update((run.run_id, "c", step, float(step)) for step in steps)

    def log_param(self) -> None:
        """Log a param and a tag."""
        process = self._process()
        run = self._run(process)
        self.steps += 1
        run.log_param(f"p{self.steps}", self.steps)
        run.set_tag("last", self.steps)
        process.params.add((run.run_id, f"p{self.steps}"))

    def end_run(self) -> None:
        """End a run."""
        process = self._process()
        if process.runs:
            run_id = self.chance.choice(sorted(process.runs))
            process.runs.pop(run_id).finish()

    def serve(self) -> None:
        """Let a drain do its work once."""
        process = self._process()
        process.drain.serve()
        if process.is_out():
            self._must_be_there(process)

    def close_writers(self) -> None:
        """Close a lake, its process living on."""
        process = self._process()
        process.drain.end()
        for _ in range(20):
            process.drain.serve()
        if process.is_out():
            self._must_be_there(process)

    def roll(self) -> None:
        """Let a writer go over to a new id, as a large state does."""
        process = self._process()
        for lane in list(process.drain._lanes):
            if isinstance(lane.writer, writer.Writer):
                lane.writer.must_end = True

    def meet_twin(self) -> None:
        """Let somebody else have written other rows under the name that comes next."""
        process = self._process()
        lanes = [lane for lane in process.drain._lanes if isinstance(lane.writer, writer.Writer)]
        if not lanes or self.chance.random() < 0.5:
            return
        own = self.chance.choice(lanes).writer
        assert isinstance(own, writer.Writer)
        end = own.journal.position()
        if end.rows in {own.uploaded.rows, own.sealed.rows}:
            return
        self.twins += 1
        events = own.journal.read_events(own.sealed, end)
        of_points = read_points(own.journal.read_points(own.sealed, end))
        of_points.values[:] = 77.0
        renamed = [("twin", key) for _, key in own.journal.keys]
        other = [event._replace(run_id="twin", kind="note") for event in events]
        table = build(of_points, other, own.sealed, renamed)
        count = end.rows - own.sealed.rows
        name = SegmentName(own.writer_id, end.rows - 1, count, False, EXPERIMENT)  # noqa: FBT003
        data = putting.encode(name, "Experiment", table, own._state())
        if self.fs.put_absent(name.key, data):
            self.seen.clear()  # what the twin replaces had been seen
            self._serve_in_peace(process)

    def crash(self) -> None:
        """Kill a process."""
        process = self._process()
        process.drain.die()
        self.processes.remove(process)
        self.dead.append(process)

    def recover(self) -> None:
        """Recover what the dead have left; the store may refuse."""
        storage = Storage(self.faulty, self.settings)
        root = places.choose(self.settings).root
        assert root is not None
        try:
            found = list(recover.each(storage, root))
        except StorageError:
            return
        if all(one.problem is None for one in found):
            for process in self.dead:
                self._must_be_there(process)
            self.dead.clear()

    def wait(self) -> None:
        """Let time pass."""
        self.time.now_s += self.chance.choice([1.0, 61.0, 301.0])

    def outage(self) -> None:
        """Take the store away, or give it back."""
        self.faulty.is_down = not self.faulty.is_down and self.chance.random() < 0.5

    # What must hold.

    def read(self) -> None:
        """Read everything and compare."""
        snapshot, tables = self.reader.read()
        assert snapshot.is_complete
        rows = rows_of(self.fs, snapshot)
        check_sequences(rows)
        lasts = Counter({(row.writer, 0): row.seq + 1 for row in rows})
        assert all(lasts[stream] >= seen for stream, seen in self.seen.items())
        self.seen = lasts
        own = [row for row in rows if row.run_id != "twin"]
        there = Counter(
            _plain((row.run_id, row.key, row.step or 0, row.num if row.num is not None else 0.0))
            for row in own
            if row.kind == schema.METRIC
        )
        known = self.points + sum((p.points for p in self._all()), Counter())
        assert not there - known, "a row is there twice, or was never logged"
        assert not self.due - there, "a row is lost"
        params = Counter((row.run_id, row.key) for row in own if row.kind == schema.PARAM)
        assert not params or max(params.values()) == 1
        assert self.due_params <= set(params)
        if not self.twins:
            _check_states(rows, tables.summaries.table())

    def settle(self) -> None:
        """End well: all is served, recovered and read; and recovering again changes nothing."""
        self.faulty.is_down = False
        self.faulty.before = self.faulty.after = 0.0
        for process in self.processes:
            for run in process.runs.values():
                run.finish()
            process.drain.end()
            for _ in range(3):
                process.drain.serve()
            assert process.is_out(), process.drain.errors
            self._must_be_there(process)
        self.recover()
        assert not self.dead
        self.read()
        keys = [entry.key for entry in self.fs.list("")]
        self.recover()
        assert [entry.key for entry in self.fs.list("")] == keys
        assert not list((self.folder / "journals" / "journal").glob("*/*"))
        assert self.points == self.due

    def _must_be_there(self, process: Process) -> None:
        """Note that the store now holds all that a process was told is safe."""
        self.points += process.points
        self.due += process.points
        self.params |= process.params
        self.due_params |= process.params
        process.points, process.params = Counter(), set()

    def _serve_in_peace(self, process: Process) -> None:
        """Serve while the store does what it should: until then the twin's rows hide ours."""
        faulty = self.faulty
        before = faulty.is_down, faulty.before, faulty.after
        faulty.is_down, faulty.before, faulty.after = False, 0.0, 0.0
        for _ in range(3):
            process.drain.serve()
        faulty.is_down, faulty.before, faulty.after = before

    def _all(self) -> list[Process]:
        return [*self.processes, *self.dead]

    def _process(self) -> Process:
        if not self.processes:
            self.begin_process()
        return self.chance.choice(self.processes)

    def _run(self, process: Process) -> Run:
        if not process.runs:
            process.runs[f"run{self.runs_made}"] = start_run(
                process.drain, self.settings, f"run{self.runs_made}"
            )
            self.runs_made += 1
        return process.runs[self.chance.choice(sorted(process.runs))]


def _plain(point: _Point) -> _Point:
    """Return a point that equals itself, NaN included."""
    run_id, key, step, value = point
    return run_id, key, step, -77e77 if math.isnan(value) else value


def _check_states(rows: list[Row], summaries: pa.Table) -> None:
    """Check that counts and sums in footers equal those of the rows."""
    counted: Counter[tuple[str, str, str]] = Counter()
    summed: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for row in rows:
        if row.kind == schema.METRIC:
            counted[row.writer, row.run_id, row.key] += 1
            if row.num is not None and math.isfinite(row.num):
                summed[row.writer, row.run_id, row.key] += row.num
    folded: dict[tuple[str, str, str], dict[str, Any]] = {}
    for state in summaries.to_pylist():
        name = state["writer"], state["run_id"], state["key"]
        if name not in folded or state["n"] > folded[name]["n"]:
            folded[name] = state
    assert {name: state["n"] for name, state in folded.items()} == counted
    for name, state in folded.items():
        if math.isfinite(state["sum"]):
            assert state["sum"] == pytest.approx(summed[name])


_DEEDS: list[tuple[int, Callable[[World], None]]] = [
    (2, World.begin_process),
    (3, World.begin_run),
    (12, World.log_points),
    (2, World.log_columns),
    (5, World.log_param),
    (3, World.end_run),
    (12, World.serve),
    (1, World.close_writers),
    (1, World.roll),
    (1, World.meet_twin),
    (2, World.crash),
    (2, World.recover),
    (4, World.wait),
    (1, World.outage),
    (5, World.read),
]


def _run_world(seed: int, folder: Path, monkeypatch: pytest.MonkeyPatch, deeds: int) -> None:
    monkeypatch.setattr(writer, "SEAL_UPLOADS", 3)
    time = FakeTime()
    monkeypatch.setattr(clock, "monotonic_s", time.monotonic_s)
    world = World(seed, folder, time)
    weights = [weight for weight, _ in _DEEDS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunlakeWarning)
        for _ in range(deeds):
            [(_, deed)] = world.chance.choices(_DEEDS, weights)
            deed(world)
        world.settle()


@pytest.mark.parametrize("seed", range(6))
def test_lake_in_any_world_holds_every_row_exactly_once(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_world(seed, tmp_path, monkeypatch, 120)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 120))
def test_lake_in_many_more_worlds_holds_every_row_exactly_once(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run_world(seed, tmp_path, monkeypatch, 200)
