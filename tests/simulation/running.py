"""Running worlds: one after another, and what to say of one that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.surroundings import simulated
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EXACT_ONE_IN: Final = 40
"""Of so many worlds one has real Parquet files."""
_SHOWN: Final = 60


class WorldError(AssertionError):
    """A world in which something was not as it must be; says how to see it again.

    Attributes:
        seed: which world.
    """

    seed: int


def run_worlds(
    seeds: Iterable[int], *, theme: Mapping[str, object] | None = None, trace: bool = False
) -> tuple[int, int, int]:
    """Run worlds.

    Args:
        seeds: of each; the same seed is the same world.
        theme: what is given and not drawn.
        trace: print every request.

    Returns:
        The steps, reads and commits of all.

    Raises:
        WorldError: of the first that failed.
    """
    steps = reads = commits = 0
    with simulated():
        for seed in seeds:
            is_exact = not theme and seed % EXACT_ONE_IN == 0
            world = World(seed, is_exact=is_exact, theme=theme)
            world.trace = []
            try:
                world.run()
            except BaseException as error:
                failure = WorldError(_story(world, error))
                failure.seed = seed
                raise failure from error
            finally:
                if trace:
                    print("\n".join(world.trace))  # noqa: T201 - what was asked for
            steps += world.turns.steps
            reads += world.reads
            commits += len(world.truth.won)
    return steps, reads, commits


def _story(world: World, error: BaseException) -> str:
    last = "\n".join((world.trace or [])[-_SHOWN:])
    return (
        f"world {world.seed}: {type(error).__name__}: {error}\n{world.turns.story}\n"
        f"the last requests:\n{last}\n"
        f"again: python -m tests.simulation --seed {world.seed} --worlds 1 --trace"
    )
