"""One world: a store, those who act in it, and what is checked, all drawn from one seed.

Checked at every change of the store, by one who sees all of it:

- I6 a manifest that stands is never replaced or deleted, and what was said to be won stays won;
- I7 whatever the newest manifest names is there, and of every writer the rows that were said to
  be stored, in tables or in segments without a gap;
- I8 the tables of a manifest hold what the rows up to its watermarks say;
- while a file of the newest manifest is missing, no vacuum deletes anything.

Checked at every read, by a reader that sees what the store shows:

- I1 every row that was said to be stored is there once, and none of a purged run;
- I2 it never sees less than before;
- I3 what it sees of a writer are its first rows;
- I4 states folded from footers and tables equal the states of those rows;
- within the grace a vacuum takes nothing away that a snapshot needs.

At the end all that was logged is there (I5, I9, I11), and nothing is there that nobody needs. In
some worlds columns are logged, processes compact what they close, and runs are copied into a second
lake (`tests/simulation/copying.py`).
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from runlake import schema
from runlake.errors import StorageError
from runlake.query import Query
from runlake.query.export import to_rows
from runlake.storage import layout, manifest
from runlake.storage.filesystem import Range
from runlake.storage.manifest import Manifest
from runlake.storage.snapshot import Snapshots
from tests.simulation import reading
from tests.simulation.copying import Copier, Target
from tests.simulation.hosts import Host, row_of, storage_of
from tests.simulation.keepers import Joiner, Keeper, Purger, Recoverer, Thief
from tests.simulation.store import Client, Deed, Nature, Store, Stored
from tests.simulation.surroundings import arranged, here
from tests.simulation.truth import Truth, exact
from tests.simulation.turns import Actor, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from runlake.storage.snapshot import Snapshot
    from runlake.writing.writer import Writer
    from tests.simulation.reading import Held

T = TypeVar("T")

LAKE: Final = "0" * 32
_START_US: Final = 1_750_000_000_000_000
_HOUR_US: Final = 3_600_000_000
_READ_TRIES: Final = 40


@final
class World:
    """A lake and its surroundings."""

    def __init__(
        self, seed: int, *, is_exact: bool = False, theme: Mapping[str, object] | None = None
    ) -> None:
        """Draw the world.

        Args:
            seed: decides everything.
            is_exact: files are Parquet and not tickets for it.
            theme: what is not drawn but given, by the names that `draw` is asked for.
        """
        self.seed, self.is_exact, self.theme = seed, is_exact, theme or {}
        self.chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self.bits = random.Random(seed + 1)  # noqa: S311 - as above
        chance = self.chance
        # Drawn apart: a world without these is the same whether others have them or not.
        self._apart = random.Random(seed + 2)  # noqa: S311 - as above
        self.logs_columns = self._is_among("columns", one_in=10)
        self.compacts_itself = self._is_among("itself", one_in=6)
        self._copies = self._is_among("copies", one_in=20)
        self._joins = self._is_among("joins", one_in=12)
        step_us = self.draw("step_us", [50_000, 1_000_000, 30_000_000, 400_000_000])
        self.step_us = step_us
        haste = self.draw("haste", [0.3, 0.6, 0.9])
        self.turns = Turns(chance, start_us=_START_US, step_us=step_us, haste=haste)
        self.nature = Nature(self.draw, step_us=step_us)
        self.store = Store(self.turns, chance, self.nature)
        self._target: Target | None = None
        self.truth = Truth()
        self.files = reading.Files()
        self.experiments = ["exp-a", "exp-b"][: self.draw("experiments", [1, 1, 1, 2])]
        graces = [0, 0, 0, 60, 500]
        steps = self.draw("grace", graces[3:] if self.nature.lag_us else graces)
        self.grace_s = steps * step_us / 1e6
        self.folder = here.folder / f"world-{seed}"
        self.reads = self.thefts = 0
        self.trace: list[str] | None = None
        self._compacted: dict[str, Held] = {}
        self._runs: dict[str, frozenset[str]] = {}
        self._stolen: dict[str, tuple[Stored, int]] = {}
        self._manifests: dict[bytes, Manifest] = {}
        self._newest = Manifest(lake=LAKE)
        self._chain: list[str] = []

    def draw(self, name: str, choices: Sequence[T]) -> T:
        """Return one of some choices, or what the theme of this world says."""
        found = self.chance.choice(choices)
        given: Any = self.theme.get(name, found)
        drawn: T = given
        return drawn

    def _is_among(self, name: str, *, one_in: int) -> bool:
        """Tell whether something takes part: in one of some worlds, or as the theme says."""
        is_drawn = self._apart.randrange(one_in) == 0
        return bool(self.theme.get(name, is_drawn and not self.theme))

    def run(self) -> None:
        """Let everything happen, and check it.

        Raises:
            AssertionError: something is not as it must be.
        """
        with arranged(self):
            self.folder.mkdir()
            self.store.put(layout.LAKE_FILE, _lake_file())
            self.store.on_put, self.store.on_delete = self._check_put, self._check_delete
            readers = self._populate()
            self.turns.run()
            self._settle(readers)

    def loaded(self, folder: Path, writer: Writer) -> None:
        """Note what a recoverer has read from a journal; sometimes the disk is copied then."""
        log = self.truth.log(writer.writer_id, writer.experiment_id)
        count = writer.rows
        assert count >= len(log.rows), f"the journal of {log.writer} lost rows"
        extra = count - len(log.rows)
        assert not (extra and log.is_recovered), f"{log.writer} was ended twice"
        log.is_recovered = True
        if extra:
            log.say(row_of(event) for event in writer.journal._events[-extra:])
        log.is_ended = True
        copy = self.folder / "restored" / "journal" / folder.parent.name / folder.name
        if self.folder in folder.parents and not copy.exists() and self.chance.random() < 0.4:
            shutil.copytree(folder, copy)

    def removed(self, run_id: str) -> None:
        """Note that tables hold nothing of a run, and never will."""
        self.truth.removed.add(run_id)
        self._check_removed()

    def in_use(self) -> frozenset[str]:
        """Return the files that the newest manifest names."""
        return self._newest.paths()

    @property
    def newest(self) -> Manifest:
        """The manifest that stands."""
        return self._newest

    def steal(self, key: str) -> Stored:
        """Take an object away as no part of the protocol may."""
        stolen = self.store.objects.pop(key)
        self._stolen[key] = stolen, self.turns.now_us
        self.tell(f"stolen: {key}")
        return stolen

    def bring_back(self, key: str, stolen: Stored) -> None:
        """Bring a stolen object back."""
        self._stolen.pop(key)
        self.store.objects[key] = stolen
        self.tell(f"brought back: {key}")

    @property
    def is_robbed(self) -> bool:
        """Whether a file that is in use is away."""
        return not self._newest.paths().isdisjoint(self._stolen)

    def tell(self, what: str) -> None:
        """Write into the trace."""
        if self.trace is not None:
            self.trace.append(f"{self.turns.steps:5} {self.turns.now_us - _START_US:>14} {what}")

    # Who acts.

    def _populate(self) -> list[Reader]:
        if self.trace is not None:
            self.store.told = self.tell
        for number in range(self.draw("hosts", [1, 1, 2, 3])):
            actor = self._actor(f"host-{number}", dies=0.35)
            self.turns.add(actor, self._born(Host(self, actor).live))
        for number in range(self.draw("keepers", [1, 2, 2, 3])):
            actor = self._actor(f"keeper-{number}", dies=0.2)
            self.turns.add(actor, Keeper(self, actor).live)
        for number in range(self.draw("recoverers", [0, 1, 2])):
            actor = self._actor(f"recoverer-{number}", dies=0.3)
            self.turns.add(actor, Recoverer(self, actor, self.folder).live)
        for _ in range(self.draw("thieves", [0] * 9 + [1])):
            self.turns.add(self._actor("thief", dies=0.0), Thief(self).live)
        for _ in range(self.draw("purgers", [0, 0, 0, 1])):
            actor = self._actor("purger", dies=0.2)
            self.turns.add(actor, Purger(self, actor).live)
        for _ in range(self.draw("restorers", [0, 1])):
            actor = self._actor("restorer", dies=0.1)
            self.turns.add(actor, Recoverer(self, actor, self.folder / "restored").live)
        self._populate_apart()
        readers = []
        for number in range(self.draw("readers", [1, 1, 1, 2])):
            reader = Reader(self, self._actor(f"reader-{number}", dies=0.0))
            readers.append(reader)
            self.turns.add(reader.actor, reader.live)
        return readers

    def _populate_apart(self) -> None:
        if self._joins:
            actor = self._actor("joiner", dies=0.1)
            self.turns.add(actor, Joiner(self, actor).live)
        if self._copies:
            self._target = Target(self, _lake_file())
            for number in range(self.chance.randint(1, 2)):
                actor = self._actor(f"copier-{number}", dies=0.3)
                self.turns.add(actor, Copier(self, actor, self._target).live)

    def _actor(self, name: str, *, dies: float) -> Actor:
        chance = self.chance
        dies = self.draw(f"death of {name[:6]}", [dies])
        return Actor(
            name,
            weight=self.draw(f"weight of {name[:6]}", [1.0, 1.0, 0.3, 0.03]),
            skew_us=int(chance.choice([0, 0, 1, -1]) * chance.random() * 24 * _HOUR_US),
            crash_in=chance.randint(1, 60) if chance.random() < dies else None,
        )

    def _born(self, live: Callable[[], None]) -> Callable[[], None]:
        def work() -> None:
            self.turns.sleep(self.chance.randint(0, 60))
            live()

        return work

    # What is checked when the store changes.

    def _check_put(self, key: str) -> None:
        number = layout.parse_manifest(key)
        if number is None or number < self._newest.number:
            return
        assert number == self._newest.number + 1 or not self._newest.number, "numbers leave a gap"
        found, before = self._read(key), self._newest
        assert found.parent == (before.nonce if before.number else None), f"{key}: parent"
        held = self._tables(found)
        for writer, count in (self._tables(before).counts if before.number else {}).items():
            assert held.counts.get(writer, 0) >= count, f"{key}: the watermark of {writer} fell"
        assert before.purged <= found.purged, f"{key}: purged runs are back"
        for path in sorted(found.paths() - before.paths()):
            brought = self.files.piece(path, self.store.objects[path].data).runs & before.purged
            assert not brought, f"{key} brings in purged {sorted(brought)}"
        self._newest = found
        self._chain.append(found.nonce)
        self._check_removed()
        reading.compare(held, self.truth, found.purged)
        for writer in self.truth.logs:
            self._check_reach(writer)

    def _check_removed(self) -> None:
        held = self._runs.get(self._newest.nonce, frozenset()) & self.truth.removed
        assert not held, f"manifest {self._newest.number} holds purged {sorted(held)}"

    def _check_delete(self, key: str, deed: Deed) -> None:
        name = deed.name
        assert key != layout.manifest(self._newest.number), f"{name} deleted the newest manifest"
        assert key not in self._newest.paths(), f"{name} deleted {key}, which is in use"
        if self.is_robbed and deed.vacuum_us is not None:
            since_us = max(us for path, (_, us) in self._stolen.items() if path in self.in_use())
            assert deed.vacuum_us <= since_us, f"{name} deleted {key} in spite of a gap"
        segment = layout.parse_segment(key)
        if segment is not None and segment.writer in self.truth.logs:
            self._check_reach(segment.writer)

    def _check_reach(self, writer: str) -> None:
        """Check that all rows that were said to be stored can be reached without a gap."""
        log = self.truth.logs[writer]
        reached = self._tables(self._newest).counts.get(writer, 0) if self._newest.number else 0
        prefix = layout.partition(log.experiment) + writer
        names = [layout.parse_segment(key) for key in self.store.objects if key.startswith(prefix)]
        grew = True
        while grew:
            before = reached
            for name in names:
                if name is not None and name.first <= reached <= name.last:
                    reached = name.last + 1
            grew = reached > before
        assert reached >= log.stored, f"{writer}: {log.stored} rows stored, {reached} reachable"

    def _tables(self, found: Manifest) -> Held:
        if found.nonce not in self._compacted:
            pieces = {}
            for path in sorted(found.paths()):
                stored = self.store.objects.get(path) or self._stolen.get(path, (None,))[0]
                assert stored is not None, f"manifest {found.number} names {path}: gone"
                pieces[path] = self.files.piece(path, stored.data)
            self._compacted[found.nonce] = reading.compacted(found, pieces)
            self._runs[found.nonce] = reading.runs(pieces)
        return self._compacted[found.nonce]

    def _read(self, key: str) -> Manifest:
        data = self.store.objects[key].data
        number = layout.parse_manifest(key)
        assert number is not None
        return manifest.decode(data, number=number, key=key, lake=LAKE, url="sim")

    # The end.

    def _settle(self, readers: list[Reader]) -> None:
        """End well: everything arrives, the dead are recovered, all is compacted and tidy."""
        self.store.is_quiet = True
        self.turns.wait_us(2 * _HOUR_US)
        for folder in (self.folder, self.folder / "restored"):
            Recoverer(self, None, folder).recover()
        self._check_end(readers)
        if self._target is not None:
            self._target.check_end()
        if self.draw("ends tidy", [True, True, False, False, False]):
            keeper = Keeper(self, None)
            for experiment in self.experiments:
                keeper.compact(experiment)
            self.grace_s = 0.0
            keeper.tidy(None)
            self._check_end(readers)
            self._check_rest()
        assert set(self.truth.won) <= set(self._chain), "a commit was said to be won and is not"

    def _check_end(self, readers: list[Reader]) -> None:
        for log in self.truth.logs.values():
            assert log.stored == len(log.rows), f"{log.writer} has {log.stored} rows stored"
        fresh = Reader(self, Actor("last reader"))
        for reader in [*readers, fresh]:
            assert reader.read(), "the last reader did not succeed"
        if self.is_exact:
            self._check_answers()

    def _check_answers(self) -> None:
        """Check that a query over the whole lake answers with the points that were logged."""
        _, tables = storage_of(self, None).read()
        with here.outside():
            query = Query(tables)
            try:
                rows = to_rows(query.sql("SELECT run_id, key, step, value, writer FROM metrics"))
            finally:
                query.close()
        found = Counter((*map(exact, row.values()),) for row in rows)
        assert found == Counter(
            (row.run_id, row.key, row.step, exact(row.num), log.writer)
            for log in self.truth.logs.values()
            for row in log.rows
            if row.kind == schema.METRIC and row.run_id not in self._newest.purged
        )

    def _check_rest(self) -> None:
        """Check that vacuum has left nothing that nobody needs."""
        named, newest = self._newest.paths(), self._newest.number
        for key in self.store.objects:
            name = layout.parse_table_file(key)
            if name is not None and key not in named:
                assert name.number > newest, f"{key} is left over"
            segment = layout.parse_segment(key)
            if segment is not None and newest:
                count = self._tables(self._newest).counts.get(segment.writer, 0)
                assert segment.last >= count, f"{key} is consumed and left over"


@final
class Reader:
    """Reads the whole lake now and then."""

    def __init__(self, world: World, actor: Actor) -> None:
        """Begin without memory."""
        self.world, self.actor = world, actor
        self.fs = Client(world.store, actor)
        self.snapshots = Snapshots(self.fs, lake=LAKE)
        self.seen: dict[str, int] = {}
        self.number = 0

    def live(self) -> None:
        """Read now and then."""
        rest = self.world.draw("rest of readers", [60])
        for _ in range(self.world.draw("reads", [2, 3, 4])):
            self.world.turns.sleep(self.world.chance.randint(1, rest))
            self.read()

    def read(self) -> bool:
        """Read everything and compare; False if the store did not let us."""
        world = self.world
        begun_us = world.turns.now_us
        must = world.truth.stored(begun_us - world.nature.lag_us)
        hidden = set(world.truth.purged) if not world.nature.lag_us else set()
        for _ in range(_READ_TRIES):
            taken_us = world.turns.now_us
            try:
                snapshot = self.snapshots.take()
                if not snapshot.is_complete:
                    continue
                held = self._fetch(snapshot)
            except FileNotFoundError as error:
                self._check_grace(error, taken_us)
                continue
            except StorageError:
                return False
            self._compare(snapshot, held, must, hidden)
            world.reads += 1
            return True
        if world.is_robbed:
            return False
        raise AssertionError(f"{self.actor.name} found no snapshot that it could read")

    def _fetch(self, snapshot: Snapshot) -> Held:
        ranges = [Range(one.entry.key, 0, one.entry.size_bytes) for one in snapshot.segments]
        datas = self.fs.get_ranges(ranges)
        files = self.world.files
        segments = [files.segment(one.key, data) for one, data in zip(ranges, datas, strict=True)]
        paths = sorted(snapshot.manifest.paths())
        tables = self.fs.get_ranges([Range(path, 0, 1 << 40) for path in paths])
        pieces = {path: files.piece(path, data) for path, data in zip(paths, tables, strict=True)}
        held = reading.compacted(snapshot.manifest, pieces)
        reading.add_live(held, snapshot, segments)
        return held

    def _compare(
        self, snapshot: Snapshot, held: Held, must: dict[str, int], hidden: set[str]
    ) -> None:
        reading.compare(held, self.world.truth, snapshot.manifest.purged)
        for writer, count in must.items():
            assert held.counts.get(writer, 0) >= count, (
                f"{self.actor.name} sees {held.counts.get(writer, 0)} of {count} rows of {writer}"
            )
        for writer, count in self.seen.items():
            assert held.counts.get(writer, 0) >= count, f"{self.actor.name} went back: {writer}"
        assert snapshot.manifest.number >= self.number, f"{self.actor.name} went back"
        assert hidden <= snapshot.manifest.purged, f"{self.actor.name} sees a purged run"
        self.seen, self.number = held.counts, snapshot.manifest.number

    def _check_grace(self, error: FileNotFoundError, taken_us: int) -> None:
        """Check that it was no vacuum within its grace that took an object away."""
        world = self.world
        gone = world.store.deleted.get(str(error.filename).removeprefix("sim/"))
        slack_us = world.nature.lag_us + (2_000_000 if world.nature.is_coarse else 0)
        if gone is None or gone.deed.vacuum_us is None:
            return
        within = gone.time_us - taken_us < world.grace_s * 1e6 - slack_us
        assert not within, f"{gone.deed.name} deleted {error.filename} within the grace"


def _lake_file() -> bytes:
    return json.dumps({"format": 1, "lake": LAKE, "conditional_create": True}).encode()
