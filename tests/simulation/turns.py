"""Actors that take turns: each a thread, of which one runs at a time, chosen by the seed.

An actor gives its turn away at every request that it makes. So a world is replayed by its
number, however many threads it has.
"""

from __future__ import annotations

import threading
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from runlake.testing.filesystems import SimulatedCrash

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

_MOST_STEPS: Final = 50_000


@dataclass(eq=False)
class Actor:
    """Somebody who acts: a process on some host.

    Attributes:
        name: for the trace.
        weight: how fast it is.
        skew_us: how far its clock is from the true time.
        crash_in: requests until it dies; None: it does not.
        is_dead: no call of its has an effect any more.
        is_vacuum: it deletes what nobody needs, and so must keep to the grace.
        vacuum_us: since when.
    """

    name: str
    weight: float = 1.0
    skew_us: int = 0
    crash_in: int | None = None
    is_dead: bool = False
    is_vacuum: bool = False
    vacuum_us: int = 0
    wakes_at: int = 0
    thread: int = 0
    baton: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.baton.acquire()


@final
class Turns:
    """Says whose turn it is, and what time.

    Attributes:
        now_us: the true time.
        steps: turns so far.
        current: whose turn it is; None while no actor is at work.
        failure: what went wrong first, with the actor's traceback.
    """

    def __init__(self, chance: random.Random, *, start_us: int, step_us: int, haste: float) -> None:
        """Begin without actors.

        Args:
            chance: decides everything.
            start_us: the time at the beginning.
            step_us: how long a step takes on average.
            haste: probability that an actor goes on at once with its next step.
        """
        self.now_us = start_us
        self.steps = 0
        self.current: Actor | None = None
        self.failure: BaseException | None = None
        self.story = ""
        self._chance, self._step_us, self._haste = chance, step_us, haste
        self._actors: list[Actor] = []
        self._late: list[tuple[int, Callable[[], object]]] = []
        self._done = threading.Lock()
        self._done.acquire()

    def add(self, actor: Actor, work: Callable[[], None]) -> None:
        """Let an actor take part, from its first turn on."""
        self._actors.append(actor)
        thread = threading.Thread(target=self._live, args=(actor, work), daemon=True)
        thread.start()

    def run(self) -> None:
        """Let all actors act until each has ended.

        Raises:
            BaseException: what an actor failed with.
        """
        if self._actors:
            self._hand_over(self._choose())
            self._done.acquire()
        self.current = None
        self.settle()
        if self.failure is not None:
            raise self.failure

    def pause(self) -> None:
        """Give the turn away; return when it is this actor's again."""
        me = self.current
        if me is None:
            return
        if threading.get_ident() != me.thread:
            raise AssertionError(f"a thread without a turn acts beside {me.name}")
        self._tick()
        if self._chance.random() >= self._haste or me.wakes_at > self.steps:
            following = self._choose()
            if following is not me:
                self._hand_over(following)
                me.baton.acquire()
        if self.failure is not None:
            raise SimulatedCrash

    def sleep(self, steps: int) -> None:
        """Let others act for a while."""
        if self.current is not None:
            self.current.wakes_at = self.steps + steps
            self.pause()

    def later(self, steps: int, effect: Callable[[], object]) -> None:
        """Let a request that is under way arrive after some steps."""
        self._late.append((self.steps + steps, effect))

    def settle(self) -> None:
        """Let everything arrive that is under way."""
        self._arrive(_MOST_STEPS * 2)

    def wait_us(self, time_us: int) -> None:
        """Let time pass."""
        self.now_us += time_us

    def _tick(self) -> None:
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise AssertionError("the world does not come to an end")
        self.now_us += int(self._chance.expovariate(1.0) * self._step_us)
        if self._late:
            self._arrive(self.steps)

    def _arrive(self, step: int) -> None:
        due = [effect for at, effect in self._late if at <= step]
        self._late = [pair for pair in self._late if pair[0] > step]
        for effect in due:
            effect()

    def _choose(self) -> Actor:
        awake = [actor for actor in self._actors if actor.wakes_at <= self.steps]
        if not awake:
            actor = min(self._actors, key=lambda one: one.wakes_at)
            self.steps = actor.wakes_at
            return actor
        if len(awake) == 1:
            return awake[0]
        at = self._chance.random() * sum(actor.weight for actor in awake)
        for actor in awake:
            at -= actor.weight
            if at <= 0:
                return actor
        return awake[-1]

    def _hand_over(self, following: Actor) -> None:
        self.current = following
        following.baton.release()

    def _live(self, actor: Actor, work: Callable[[], None]) -> None:
        actor.baton.acquire()
        actor.thread = threading.get_ident()
        try:
            if self.failure is None:
                work()
        except SimulatedCrash:
            pass
        except BaseException as error:  # noqa: BLE001 - handed over to the thread that runs the world
            if self.failure is None:
                self.failure = error
                self.story = f"{actor.name}:\n{traceback.format_exc()}"
        self._actors.remove(actor)
        if self._actors:
            self._hand_over(self._choose())
        else:
            self._done.release()
