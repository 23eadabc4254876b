"""A second lake in the world, those who copy runs into it, and what it must hold."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, final

from runlake.errors import ConflictError, FormatError, StorageError
from runlake.storage import layout, manifest
from runlake.upkeep.compact import Compactor
from runlake.upkeep.copies.copying import Place, copy
from runlake.upkeep.vacuum import vacuum
from tests.simulation import reading
from tests.simulation.store import Client, Nature, Store
from tests.simulation.truth import Fold, differing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runlake.storage.manifest import Manifest
    from runlake.upkeep.copies.copying import Copied
    from tests.simulation.truth import Item
    from tests.simulation.turns import Actor
    from tests.simulation.world import World

_SOURCE: Final = "0" * 32
_TARGET: Final = "1" * 32


@final
class Target:
    """The second lake. Nobody logs there: all that it holds was copied.

    Checked whenever a manifest is put there: of each run and writer it holds the rows up to the
    one that it names in `copied`, each once, and what stands of them; and it never goes back.
    """

    def __init__(self, world: World, lake_file: bytes) -> None:
        """Make the lake."""
        self.world = world
        self.store = Store(world.turns, world.chance, Nature(world.draw, step_us=world.step_us))
        self.store.put(layout.LAKE_FILE, lake_file.replace(_SOURCE.encode(), _TARGET.encode()))
        self.store.on_put, self.store.told = self._check, world.tell
        self._newest = manifest.Manifest(lake=_TARGET)

    def place(self, actor: Actor | None) -> Place:
        """Return it as an actor sees it."""
        return Place(Client(self.store, actor, url="memory://target"), _TARGET)

    def check_end(self) -> None:
        """Copy once more with nothing in the way: then all is there, and nothing is left to do."""
        self.store.is_quiet = True
        copier = Copier(self.world, None, self)
        copier.copy()
        again = copier.copy()
        assert not again.rows, f"{again.rows} rows were copied twice"
        assert not again.commits, "a copy of nothing was committed"
        newest = self.world.newest
        for log in self.world.truth.logs.values():
            for run_id in {row.run_id for row in log.rows} - newest.purged - {""}:
                ends = max(seq for seq, row in enumerate(log.rows) if row.run_id == run_id)
                last = self._newest.copied.get(run_id, {}).get(log.writer, -1)
                assert last >= ends, f"{run_id} of {log.writer} was copied up to {last} of {ends}"

    def _check(self, key: str) -> None:
        number = layout.parse_manifest(key)
        if number is None or number < self._newest.number:
            return
        before, data = self._newest, self.store.objects[key].data
        found = manifest.decode(data, number=number, key=key, lake=_TARGET, url="target")
        for run_id, lasts in before.copied.items():
            for writer, last in lasts.items():
                now = found.copied.get(run_id, {}).get(writer, -1)
                assert now >= last, f"{key}: {run_id} of {writer} went back"
        self._newest = found
        self._compare(found)

    def _compare(self, found: Manifest) -> None:
        """Hold the tables against the truth."""
        world = self.world
        pieces = {
            path: world.files.piece(path, self.store.objects[path].data) for path in found.paths()
        }
        rows: dict[tuple[str, str], Counter[Item]] = {}
        for piece in pieces.values():
            for writer, items in piece.items.items():
                for one, run_id in items:
                    rows.setdefault((run_id, writer), Counter())[one] += 1
        states = reading.compacted(found, pieces).states
        pairs = {(run, writer) for run, lasts in found.copied.items() for writer in lasts}
        stray = sorted(rows.keys() - pairs)
        assert not stray, f"rows of {stray} that nobody copied"
        for run_id, writer in sorted(pairs):
            log, count = world.truth.logs[writer], found.copied[run_id][writer] + 1
            there = rows.get((run_id, writer), Counter())
            others = {row.run_id for row in log.rows} - {run_id}
            expected = log.items(count, others)
            assert expected == there, (
                f"copy of {run_id} of {writer}, {count} rows: {differing(expected, there)}"
            )
            state = states.get(writer, Fold({}, {}))
            folded = log.fold(count)
            for wanted, known in zip(folded, state, strict=True):
                assert _of(run_id, wanted) == _of(run_id, known), f"state of {run_id} of {writer}"


def _of(run_id: str, of: Mapping[Item, Item]) -> dict[Item, Item]:
    return {name: value for name, value in of.items() if name[0] == run_id}


@final
class Copier:
    """Copies the one lake into the other, and keeps house there."""

    def __init__(self, world: World, actor: Actor | None, target: Target) -> None:
        """Begin with nothing done."""
        self.world, self.actor, self.target = world, actor, target
        self.source = Place(Client(world.store, actor), _SOURCE)
        self.place = target.place(actor)

    def live(self) -> None:
        """Copy now and then."""
        chance = self.world.chance
        for _ in range(chance.randint(1, 2)):
            self.world.turns.sleep(chance.randint(5, 150))
            try:
                self.copy()
                if chance.random() < 0.5:
                    self._tidy(chance.choice(self.world.experiments))
            except (StorageError, ConflictError):
                continue
            except FormatError:  # a file that was stolen
                if not self.world.thefts:
                    raise

    def copy(self) -> Copied:
        """Copy everything."""
        return copy(self.source, self.place, sleep=self._sleep)

    def _tidy(self, experiment: str) -> None:
        fs, lake = self.place
        Compactor(fs, lake=lake, sleep=self._sleep).compact(experiment)
        vacuum(fs, lake=lake, grace_s=0.0, is_dry_run=False)

    def _sleep(self, seconds: float) -> None:
        self.world.turns.sleep(int(seconds * 10))
