"""Processes that log: the real drain, writers and journals, moved step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import pyarrow as pa

from runlake import clock, schema
from runlake.errors import ConflictError, StorageError
from runlake.settings import Settings
from runlake.storage.engine import Storage
from runlake.testing.filesystems import SimulatedCrash
from runlake.upkeep import automatic
from runlake.writing import columns
from runlake.writing.writer import Writer
from tests.simulation.store import Client
from tests.simulation.truth import Row
from tests.writing.drains import StillDrain

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.writing.events import Event
    from runlake.writing.lanes import Lane
    from tests.simulation.truth import Log
    from tests.simulation.turns import Actor
    from tests.simulation.world import World

_VALUES = (1.0, 2.5, -3.0, 0.0, -0.0, float("nan"), float("inf"))


def storage_of(
    world: World, actor: Actor | None, journals: Path | None = None, *, compact: str = "off"
) -> Storage:
    """Return an actor's storage."""
    settings = Settings(
        journal=str(journals or world.folder), cache=str(world.folder / "cache"), compact=compact
    )
    return Storage(Client(world.store, actor), settings)


@final
class Host(StillDrain):
    """A process that logs to some experiments."""

    def __init__(self, world: World, actor: Actor) -> None:
        """Start nothing."""
        storage = storage_of(world, actor, compact="auto" if world.compacts_itself else "off")
        super().__init__(storage, storage._settings)
        self.world, self.actor = world, actor
        self.conflict: Exception | None = None
        self._open: set[tuple[str, str]] = set()
        self._step = 0

    def live(self) -> None:
        """Log and serve for a while, then end well or leave everything where it is."""
        chance = self.world.chance
        try:
            for _ in range(self.world.draw("deeds", [2, 3, 4, 5, 6, 7])):
                self._act()
            if chance.random() < 0.75:
                self._close()
            else:
                self.die()
        except SimulatedCrash:
            self._note()
            self._lanes = [lane for lane in self._lanes if not lane.done]
            self.die()

    def _act(self) -> None:
        chance = self.world.chance
        if self.world.logs_columns and chance.random() < 0.3:
            self._say_columns(chance.choice(self.world.experiments))
        if self.world.compacts_itself and chance.random() < 0.2:
            self._tend()
        deed = chance.random()
        if deed < 0.5:
            for _ in range(chance.choice([1, 1, 2, 4])):
                self._say(chance.choice(self.world.experiments))
        if deed < 0.85:
            self.serve_all()
        elif deed < 0.9:
            for lane in self._lanes:  # as a large state does
                lane.writer.must_end = isinstance(lane.writer, Writer)
        else:
            self.world.turns.sleep(chance.randint(1, 60))

    def _say(self, experiment: str) -> None:
        """Log something, as runs do."""
        chance = self.world.chance
        name, run_id = f"Name of {experiment}", f"run-{experiment}-{chance.randrange(3)}"
        writer = self.writer(experiment, name)
        if run_id in writer.ended_runs:  # its state is not saved any more
            writer = self.fresh_writer(experiment, name)
            self._note()
        journal = writer.journal
        log = self.world.truth.log(writer.writer_id, experiment)
        if (experiment, run_id) not in self._open:
            self._open.add((experiment, run_id))
            self._tell(writer, log, (run_id, schema.RUN, schema.RUN_START, 1.0, None))
            self._tell(writer, log, (run_id, schema.STATUS, "", 1.0, schema.RUNNING))
        self._step += 1
        kind = chance.random()
        if kind < 0.6:
            key, value = chance.choice(["loss", "acc"]), chance.choice(_VALUES)
            step, time_us = chance.randrange(6), self.world.turns.now_us
            assert journal.point(journal.key_id(run_id, key), step, time_us, value)
            log.say([Row(run_id, schema.METRIC, key, step, time_us, value, None)])
        elif kind < 0.7:
            self._tell(writer, log, (run_id, schema.STATUS, "", 2.0, schema.FINISHED))
            self._open.discard((experiment, run_id))
        else:
            what = chance.choice([schema.PARAM, schema.TAG, schema.NOTE, "kind-of-later"])
            self._tell(writer, log, (run_id, what, "key", None, f"text {self._step}"))

    def _say_columns(self, experiment: str) -> None:
        """Log whole columns to a run, as `log_history` does."""
        chance = self.world.chance
        values = [chance.choice(_VALUES) for _ in range(chance.randint(1, 4))]
        steps = range(self._step, self._step + len(values))
        points = columns.points_of(
            {"step": list(steps), "loss": values, "acc": values[::-1]}, now_us=clock.now_us()
        )
        run_id = f"run-{experiment}-{chance.randrange(3)}"
        writer = self.columns(experiment, f"Name of {experiment}")
        assert writer.add(run_id, points)
        said = pa.Table.from_arrays(points.columns, ["key", "step", "timestamp", "num"])
        self.world.truth.log(writer.writer_id, experiment).say(
            Row(run_id, schema.METRIC, str=None, **row) for row in said.to_pylist()
        )

    def _tend(self) -> None:
        """Do what waits, as the thread of a process does that compacts in the background."""
        session = automatic.take_over()
        if session is not None:
            session.hurry()
            session.__dict__["sleep"] = lambda s: self.world.turns.sleep(int(s * 10))
            automatic.serve(session)

    def _tell(self, writer: Writer, log: Log, row: Any) -> None:  # noqa: ANN401 - a row as the journal takes it
        assert writer.journal.events([row])
        log.say([row_of(writer.journal._events[-1])])

    def serve_all(self) -> None:
        """Let the drain do its work once, and note what it says is in the store."""
        lanes = [lane for lane in list(self._lanes) if not lane.done]
        for lane in lanes:
            self._serve(lane)
            self._note()
            self._log(lane).store(lane.writer.uploaded_rows, self.world.turns.now_us)
            if isinstance(lane.error, AssertionError):  # of those who watch the store
                raise lane.error
            if self.conflict is not None:
                raise AssertionError("a conflict without a twin") from self.conflict
            if lane.error is not None and not isinstance(lane.error, StorageError):
                raise AssertionError(f"{lane.writer.writer_id} cannot go on") from lane.error
        self._lanes = [lane for lane in self._lanes if not lane.done]

    def _close(self) -> None:
        self.end()
        self._note()
        for _ in range(30):
            self.serve_all()
            if not self._lanes:
                self._tend()
                return
        self.die()

    def _note(self) -> None:
        """Note what writers say of themselves: that they end."""
        for lane in self._lanes:
            if not isinstance(lane.writer, Writer):  # columns never say that they end
                continue
            log, journal = self._log(lane), lane.writer.journal
            if journal.is_retired and not log.is_ended and journal._events:
                last = journal._events[-1]
                assert last.kind == schema.CLOSE
                log.say([row_of(last)])
                log.is_ended = True
            elif journal.is_retired:
                log.is_ended = True

    def _log(self, lane: Lane[Any]) -> Log:
        return self.world.truth.log(lane.writer.writer_id, lane.writer.experiment_id)

    def _rekey(self, lane: Lane[Any], error: ConflictError) -> None:
        """Take no other id: nobody shares ours in these worlds."""
        del lane
        self.conflict = error


def row_of(event: Event) -> Row:
    """Return the row that an event becomes."""
    return Row(event.run_id, event.kind, event.key, None, event.clock, event.num, event.str)
