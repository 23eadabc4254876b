"""Those who keep house: recoverers, compactors, vacuums, and who purges runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, final

from runlake.errors import ConflictError, FormatError, NotFoundError, StorageError
from runlake.storage import layout
from runlake.upkeep.compact import Compactor
from runlake.upkeep.purge import purge
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Limits
from runlake.writing import recover
from tests.simulation.hosts import storage_of
from tests.simulation.store import Client

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.layout import SegmentName
    from tests.simulation.turns import Actor
    from tests.simulation.world import World

_LAKE = "0" * 32


@final
class Recoverer:
    """Brings what the dead have left into the store."""

    def __init__(self, world: World, actor: Actor | None, journals: Path) -> None:
        """Look below a folder of journals."""
        self.world, self.journals = world, journals
        self.storage = storage_of(world, actor)

    def live(self) -> None:
        """Look now and then."""
        for _ in range(self.world.chance.randint(1, 4)):
            self.world.turns.sleep(self.world.chance.randint(1, 150))
            try:
                self.recover()
            except StorageError:
                continue

    def recover(self) -> None:
        """Recover every journal that nobody owns."""
        for found in recover.each(self.storage, self.journals / "journal"):
            assert found.problem is None, found.problem
            for log in self.world.truth.logs.values():
                if log.writer == found.writer:
                    log.store(len(log.rows), self.world.turns.now_us)


@final
class Keeper:
    """Compacts and vacuums."""

    def __init__(self, world: World, actor: Actor | None) -> None:
        """Begin with nothing done."""
        self.world, self.actor = world, actor
        self.fs: Filesystem = Client(world.store, actor)
        budget: int = world.draw("budget", [256 << 20, 256 << 20, 1])
        is_full: bool = world.draw("full merges", [True, True, False])
        limits = Limits(budget_bytes=budget, is_full=is_full)
        self.compactor = Compactor(self.fs, lake=_LAKE, limits=limits, sleep=self._sleep)

    def live(self) -> None:
        """Keep house now and then."""
        chance = self.world.chance
        rest = self.world.draw("rest of keepers", [80])
        for _ in range(self.world.draw("rounds", [1, 2, 3])):
            self.world.turns.sleep(chance.randint(1, rest))
            if chance.random() < 0.8:
                self.compact(chance.choice(self.world.experiments))
            if chance.random() < 0.8:
                self.tidy(chance.choice([None, *self.world.experiments]))

    def compact(self, experiment: str) -> None:
        """Compact one experiment."""
        try:
            done = self.compactor.compact(experiment)
        except (StorageError, ConflictError):
            return
        assert not done.problems, done.problems

    def tidy(self, experiment: str | None) -> None:
        """Vacuum, with the grace of this world."""
        if self.actor is not None:
            self.actor.is_vacuum, self.actor.vacuum_us = True, self.world.turns.now_us
        try:
            vacuum(
                self.fs,
                lake=_LAKE,
                experiment_id=experiment,
                grace_s=self.world.grace_s,
                is_dry_run=False,
            )
        except StorageError:
            return
        except FormatError:  # the alarm: what the newest manifest names is not there
            if not self.world.thefts:
                raise
        finally:
            if self.actor is not None:
                self.actor.is_vacuum = False

    def _sleep(self, seconds: float) -> None:
        self.world.turns.sleep(int(seconds * 10))


@final
class Purger:
    """Purges one run: never again is a row of it to be shown."""

    def __init__(self, world: World, actor: Actor | None) -> None:
        """Choose nothing yet."""
        self.world, self.actor = world, actor
        self.fs: Filesystem = Client(world.store, actor)

    def live(self) -> None:
        """Purge a run some time."""
        chance = self.world.chance
        self.world.turns.sleep(chance.randint(10, self.world.draw("rest of purgers", [200])))
        experiment = chance.choice(self.world.experiments)
        run_id = f"run-{experiment}-{chance.randrange(3)}"
        for _ in range(4):
            try:
                found = purge(self.fs, lake=_LAKE, run_ids=[run_id], sleep=self._sleep)
            except (StorageError, ConflictError):
                self.world.turns.sleep(chance.randint(1, 20))
            except NotFoundError:
                return
            except FormatError:
                if not self.world.thefts:
                    raise
            else:
                self.world.truth.purged.add(run_id)
                if not found.left:
                    self.world.removed(run_id)
                return

    def _sleep(self, seconds: float) -> None:
        self.world.turns.sleep(int(seconds * 10))


@final
class Thief:
    """Takes a compacted file away by accident, and brings it back from a backup."""

    def __init__(self, world: World) -> None:
        """Take nothing yet."""
        self.world = world

    def live(self) -> None:
        """Take something some time."""
        chance = self.world.chance
        for _ in range(5):
            self.world.turns.sleep(chance.randint(10, 120))
            paths = sorted(self.world.in_use())
            if paths:
                key = chance.choice(paths)
                self.world.thefts += 1
                stolen = self.world.steal(key)
                self.world.turns.sleep(chance.randint(50, 200))
                self.world.bring_back(key, stolen)
                return


@final
class Joiner:
    """Puts a segment of one that has ended once more, as joined: a join of one is allowed."""

    def __init__(self, world: World, actor: Actor) -> None:
        """Begin with nothing done."""
        self.world = world
        self.fs: Filesystem = Client(world.store, actor)

    def live(self) -> None:
        """Join one segment now and then."""
        world = self.world
        for _ in range(4):
            world.turns.sleep(world.chance.randint(5, 80))
            names = [layout.parse_segment(key) for key in sorted(world.store.objects)]
            logs = world.truth.logs
            ended = [each for each in names if each is not None and logs[each.writer].is_ended]
            alone = [each for each in ended if not each.merged]
            if alone:
                self._join(world.chance.choice(alone))

    def _join(self, name: SegmentName) -> None:
        joined = replace(name, merged=True)
        try:
            self.fs.put_absent(joined.key, self.fs.get(name.key))
        except (StorageError, FileNotFoundError):
            return
