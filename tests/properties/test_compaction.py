"""Every answer is the same before and after any compaction.

The worlds are those of `test_splits`. Some segments are held back while others are compacted,
as if they came late; compactions have little memory, so that they take many commits and merge;
and what they replaced is vacuumed at once, or left.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

import runlake
from runlake.storage import layout
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.manifests import newest
from runlake.testing import SlowFilesystem, open_lake
from runlake.upkeep import ripe, work
from runlake.upkeep.compact import Compactor
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Limits
from tests.properties.test_splits import World, answers
from tests.query.splits import put_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runlake.lake import Lake

# What is held back leaves holes.
pytestmark = pytest.mark.filterwarnings(r"ignore:row \d+ of writer:runlake.errors.RunlakeWarning")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let little fit into one commit, and no writer count as one that will come back soon."""
    monkeypatch.setattr(work, "_LEAST_BATCH_BYTES", 1)
    monkeypatch.setattr(ripe, "QUIET_S", 0)


def compact_in_parts(folder: Path, chance: random.Random) -> None:
    """Compact a lake while some of its segments are not there yet, several times."""
    fs = LocalFilesystem(folder)
    lake = runlake.open(folder, read_only=True)._storage.require_lake()
    limits = Limits(budget_bytes=chance.choice([1, 1 << 22]))
    for _ in range(chance.randint(1, 3)):
        held_back = dict(_late(fs, chance))
        fs.delete_many(held_back)
        keeper = Compactor(fs, lake=lake, limits=limits)
        for experiment_id in keeper.experiments():
            if chance.random() < 0.8:
                keeper.compact(experiment_id)
        if chance.random() < 0.5:
            vacuum(fs, lake=lake, grace_s=0, is_dry_run=False)
        for key, data in held_back.items():
            fs.put(key, data)
    if chance.random() < 0.5:
        full = Compactor(fs, lake=lake, limits=Limits(is_full=True))
        for experiment_id in full.experiments():
            full.compact(experiment_id)


def _late(fs: LocalFilesystem, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield the segments of each writer behind a row of its own."""
    ends: dict[str, int] = {}
    for entry in fs.list(layout.LOG):
        name = layout.parse_segment(entry.key)
        assert name is not None
        end = ends.setdefault(name.writer, chance.choice([-1, 5, 20, 1 << 20]))
        if name.last > end:
            yield entry.key, fs.get(entry.key)


def check(seed: int, folder: Path, *, asked: Callable[[], random.Random | None]) -> None:
    """Hold what a lake answers after compactions against what it answered before."""
    world, chance = World(seed), random.Random(seed)  # noqa: S311 - repeatable on purpose
    put_split(folder, world.rows, chance, homes=world.homes)
    with runlake.open(folder, read_only=True, refresh=1e9) as lake:
        before = answers(lake, asked=asked())
    compact_in_parts(folder, chance)
    assert newest(LocalFilesystem(folder), lake=lake._storage.require_lake()).tables

    def agree(lake: Lake) -> None:
        after = answers(lake, asked=asked())
        for question, said in before.items():
            assert after[question] == said, question

    with runlake.open(folder, read_only=True, refresh=1e9) as lake:
        agree(lake)
    far = SlowFilesystem(LocalFilesystem(folder), latency_s=0)
    with open_lake(far, read_only=True, cache=str(folder.with_name("cache"))) as lake:
        agree(lake)


@pytest.mark.parametrize("seed", range(2))
def test_answers_do_not_hang_on_what_is_compacted(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path / "lake", asked=lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200, 206))
def test_answers_of_many_more_worlds_do_not_hang_on_it_either(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path / "lake", asked=lambda: random.Random(seed))  # noqa: S311 - as above
