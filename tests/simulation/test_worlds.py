"""Worlds, seed by seed: what one of them checks stands in `tests/simulation/world.py`.

A failure says its seed; `python -m tests.simulation --seed N --worlds 1 --trace` shows it again.
"""

from __future__ import annotations

import pytest

from tests.simulation.running import run_worlds
from tests.simulation.surroundings import simulated
from tests.simulation.world import World

_BATCH = 25


@pytest.mark.timeout(300)
def test_worlds_keep_every_invariant() -> None:
    _, reads, commits = run_worlds(range(_BATCH))
    assert reads > 2 * _BATCH
    assert commits > _BATCH


@pytest.mark.timeout(300)
def test_worlds_with_copies_columns_and_processes_that_compact_keep_them_too() -> None:
    who = dict.fromkeys(["copies", "columns", "itself", "joins"], True)
    _, reads, commits = run_worlds(range(6), theme=who)
    assert reads > 6
    assert commits > 6


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(1000, 1000 + 80 * _BATCH, _BATCH))
def test_many_more_worlds_keep_every_invariant(first: int) -> None:
    run_worlds(range(first, first + _BATCH))


def test_world_of_the_same_seed_is_the_same_world() -> None:
    def trace_of(seed: int) -> list[str]:
        with simulated():
            world = World(seed)
            world.trace = []
            world.run()
        return world.trace

    for seed in (3, 7):
        assert trace_of(seed) == trace_of(seed)
    assert trace_of(3) != trace_of(7)
