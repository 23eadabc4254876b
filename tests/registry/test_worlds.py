"""Many hosts, any interleaving, crashes: every reader ends in the same state, nothing is lost."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from runlake import schema
from runlake.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
)
from runlake.storage import layout, model_claims
from runlake.testing.filesystems import SimulatedCrash
from runlake.upkeep import compact, vacuum, work
from tests.registry.hosts import Host, describe, dice
from tests.writing.drains import memory_filesystem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runlake.registry.registry import Registry

NAMES = ("a", "b", "c")
ALIASES = ("champion", "challenger")
HOUR_US = 3_600_000_000
EXPECTED = (AlreadyExistsError, ConflictError, NotFoundError)


@dataclass
class Told:
    """What callers were told.

    Attributes:
        done: changes that were acknowledged, by their reason.
        open: changes whose caller died.
        numbers: versions that were given out, by model id.
    """

    done: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    numbers: list[tuple[str, int]] = field(default_factory=list)


class World:
    """Hosts over one store in memory, and what they were told."""

    def __init__(self, seed: int, folder: Path) -> None:
        """Make an empty lake; everything else follows from the seed."""
        self.chance = dice(seed)
        self.folder = folder
        self.fs = memory_filesystem()
        self.told = Told()
        self.depth = 0
        self.changes = 0
        self.crashes = 0
        self.is_calm = False
        self.busy: list[Host] = []
        self.hosts = [self.begin() for _ in range(3)]

    def begin(self) -> Host:
        """Start a process, on a machine whose clock may be hours off."""
        skew_us = self.chance.choice([0, 0, HOUR_US, -HOUR_US, 30 * HOUR_US])
        host = Host(self.fs, self.folder, skew_us=skew_us)
        host.fs.between = self.interrupt
        return host

    def interrupt(self) -> None:
        """Let another host do something between two calls of one."""
        if not self.is_calm and self.depth < 2 and self.chance.random() < 0.05:
            self.step()

    def step(self) -> None:
        """Have a host change something; it may die on the way."""
        host = self.chance.choice([each for each in self.hosts if each not in self.busy])
        self.busy.append(host)
        self.changes += 1
        reason = f"change {self.changes}"
        if self.crashes < 6 and self.chance.random() < 0.1:
            host.fs.dies_in = self.chance.randrange(8)
            host.fs.with_effect = self.chance.random() < 0.5
        self.depth += 1
        try:
            self.change(host.registry, reason)
            self.told.done.append(reason)
        except EXPECTED:
            pass
        except SimulatedCrash:
            self.told.open.append(reason)
            self.crashes += 1
            host.die()
            self.hosts[self.hosts.index(host)] = self.begin()
        finally:
            host.fs.dies_in = None
            self.busy.remove(host)
            self.depth -= 1
        if self.chance.random() < 0.05:
            self.chance.choice([each for each in self.hosts if each not in self.busy]).recover()

    def change(self, registry: Registry, reason: str) -> None:
        """Do one thing that changes something, or refuses to."""
        name, other = self.chance.choice(NAMES), self.chance.choice(NAMES)
        version = self.chance.randint(1, 5)
        alias = self.chance.choice(ALIASES)
        stage = self.chance.choice(schema.STAGES)
        deeds: list[tuple[int, Callable[[], Any]]] = [
            (3, lambda: registry.create_registered_model(name, reason=reason)),
            (8, lambda: self.register(registry, name, reason)),
            (1, lambda: self.rename(registry, name, other, reason)),
            (1, lambda: registry.delete_registered_model(name, reason=reason)),
            (2, lambda: registry.delete_model_version(name, version, reason=reason)),
            (
                4,
                lambda: registry.set_registered_model_alias(name, alias, version, reason=reason),
            ),
            (
                3,
                lambda: registry.transition_model_version_stage(
                    name,
                    version,
                    stage,
                    archive_existing_versions=stage in {"Staging", "Production"},
                    reason=reason,
                ),
            ),
            (2, lambda: registry.set_model_version_tag(name, version, "t", reason, reason=reason)),
            (2, lambda: registry.set_registered_model_tag(name, "t", reason, reason=reason)),
            (2, lambda: registry.update_registered_model(name, reason, reason=reason)),
        ]
        weights = [weight for weight, _ in deeds]
        (deed,) = self.chance.choices([deed for _, deed in deeds], weights)
        deed()

    def register(self, registry: Registry, name: str, reason: str) -> None:
        """Make a version, and keep its number."""
        before = registry.get_registered_model(name).model_id
        made = registry.create_model_version(name, f"s3://{reason}", reason=reason)
        assert made.source == f"s3://{reason}"
        after = self.hosts[0].read()
        of = [
            model_id
            for model_id, model in after.models.items()
            if made.version in model.versions
            and model.versions[made.version].fact("reason") == reason
        ]
        assert len(of) == 1
        assert of == [before] or self.depth > 1 or before not in after.by_name
        self.told.numbers.append((of[0], made.version))

    @staticmethod
    def rename(registry: Registry, name: str, other: str, reason: str) -> None:
        """Rename, unless it is the same name, which changes nothing."""
        if name == other:
            raise NotFoundError("nothing to do")
        registry.rename_registered_model(name, other, reason=reason)


def settle(world: World) -> Host:
    """Bring out what the dead have left, and touch everything once."""
    world.is_calm = True
    host = Host(world.fs, world.folder)
    host.recover()
    for name in NAMES:
        try:
            host.registry.get_registered_model(name)
        except NotFoundError:
            continue
    for name in list(host.book.read().by_name):
        host.registry.create_model_version(name, "s3://last")
    return host


def check_claims(host: Host) -> None:
    """Every number up to the greatest is claimed once, and every claim is known."""
    known = host.read()
    claimed: dict[str, list[int]] = defaultdict(list)
    for entry in host.fs.inner.list(layout.MODEL_NAMES):
        found = layout.parse_version_claim(entry.key)
        if found is not None:
            claimed[found[0]].append(found[1])
        else:
            assert layout.parse_model_claim(entry.key) is not None, entry.key
    homes = {model.home: model for model in known.models.values()}
    assert claimed.keys() <= homes.keys()
    for home, model in homes.items():
        numbers = sorted(claimed[home])
        assert numbers == list(range(1, len(numbers) + 1))
        if not model.is_deleted:
            assert sorted(model.versions) == numbers
    for name, model in known.by_name.items():
        if name != model.claimed:
            continue
        number, owner = known.claims[name]
        assert model_claims.read_model(host.fs.inner, name, number + 1) is None
        assert owner == model.model_id or known.models[owner].claimed != name


def check_trail(world: World, host: Host) -> None:
    """Every change that was acknowledged is in the trail once, every other at most once."""
    rows = host.sql("FROM registry_events")
    reasons = Counter(row["reason"] for row in rows if row["reason"] is not None)
    assert [reason for reason in world.told.done if reasons[reason] != 1] == []
    assert [reason for reason, count in reasons.items() if count != 1] == []
    assert len({(row["writer"], row["seq"]) for row in rows}) == len(rows)
    known = host.read()
    assert {row["model_id"] for row in rows} == known.models.keys()
    for row in rows:
        assert json.loads(row["about"])["user"] == row["user_id"]


def check_readers(world: World, host: Host) -> None:
    """All who look see the same, in the views as in the objects."""
    wanted = describe(host.read())
    for each in world.hosts:
        assert describe(each.book.read()) == wanted
    assert host.sql("SELECT name FROM registered_models ORDER BY name") == [
        {"name": name} for name in wanted
    ]
    versions = host.sql("SELECT name, version, stage FROM model_versions ORDER BY ALL")
    assert versions == [
        {"name": name, "version": number, "stage": about[0]}
        for name, model in sorted(wanted.items())
        for number, about in sorted(model["versions"].items())
    ]
    aliases = host.sql("SELECT name, alias, version FROM model_aliases ORDER BY ALL")
    assert aliases == [
        {"name": name, "alias": alias, "version": number}
        for name, model in sorted(wanted.items())
        for alias, number in model["aliases"].items()
    ]
    for model in wanted.values():
        assert set(model["aliases"].values()) <= model["versions"].keys()


def check(world: World) -> None:
    """Check all that must hold, now and after the lake is compacted."""
    host = settle(world)
    assert max(Counter(world.told.numbers).values(), default=1) == 1
    before = describe(host.read())
    for _ in range(2):
        check_claims(host)
        check_trail(world, host)
        check_readers(world, host)
        assert describe(host.read()) == before
        compact_and_vacuum(host)


def compact_and_vacuum(host: Host) -> None:
    """Compact the reserved partition, and take away what is left over."""
    lake = host.storage.require_lake()
    limits = work.Limits(is_full=True)
    compact.Compactor(host.fs, lake=lake, limits=limits).compact(schema.RESERVED_PARTITION)
    vacuum.vacuum(host.fs, lake=lake, grace_s=0.0, is_dry_run=False)


@pytest.mark.parametrize("seed", range(12))
def test_hosts_that_interleave_and_die_end_in_one_state_with_nothing_lost(
    seed: int, tmp_path: Path
) -> None:
    world = World(seed, tmp_path)
    for _ in range(60):
        world.step()
    check(world)
