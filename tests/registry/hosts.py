"""Hosts that share one registry: each with its own journals, clock and view of the store.

A host may die at any call of the store, and in between two calls of one host another may do
whatever it likes: so every interleaving of two is tried, one after another, by a seed.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, cast, final

from runlake.query.engine import Query
from runlake.registry.book import Book
from runlake.registry.reading import House
from runlake.registry.registry import Registry
from runlake.settings import Settings
from runlake.storage.engine import Storage
from runlake.testing.filesystems import Call, SimulatedCrash, Wrapper
from runlake.writing import recover
from runlake.writing.events import HybridClock
from tests.writing.drains import StillDrain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    from runlake.query.registered import Registered
    from runlake.storage.filesystem import Filesystem

    T = TypeVar("T")


class SkewedClock(HybridClock):
    """A hybrid clock over a wall clock that is wrong."""

    def __init__(self, skew_us: int) -> None:
        """Keep how wrong it is."""
        super().__init__()
        self.skew_us = skew_us

    def tick(self) -> int:
        """Return a time that is above all before."""
        last_us = self.last_us
        self.last_us = 0
        self.last_us = max(super().tick() + self.skew_us, last_us + 1)
        return self.last_us


class PromptDrain(StillDrain):
    """A drain that brings rows out when it is asked to."""

    def flush(self, timeout_s: float) -> None:
        """Bring all rows out."""
        del timeout_s
        self.serve()
        assert not self.errors


@final
class Disturbed(Wrapper):
    """Lets others do something before calls, and dies at one."""

    def __init__(self, inner: Filesystem) -> None:
        """Disturb nothing yet."""
        super().__init__(inner)
        self.between: Callable[[], None] = lambda: None
        self.dies_in: int | None = None
        self.with_effect = False
        self.is_dead = False

    def around(self, call: Call, action: Callable[[], T]) -> T:
        """Do it, while alive."""
        if self.is_dead:
            raise SimulatedCrash(call.verb)
        self.between()
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                self.is_dead = True
                if self.with_effect:
                    action()
                raise SimulatedCrash(call.verb)
        return action()


class Host:
    """One process, with the registry as it sees it."""

    def __init__(self, fs: Filesystem, folder: Path, *, skew_us: int = 0) -> None:
        """Open the lake; no request is made.

        Args:
            fs: the store, which all hosts share.
            folder: for its journals.
            skew_us: how far its clock is wrong.
        """
        # No compaction starts by itself: its draw is no seed's, its thread would meet the death.
        self.settings = Settings(
            journal=str(folder / "journals"), cache=str(folder / "cache"), compact="off"
        )
        self.fs = Disturbed(fs)
        self.storage = Storage(self.fs, self.settings)
        self.drain = PromptDrain(self.storage, self.settings)
        self.drain._journals.reserved = SkewedClock(skew_us)
        house = House(
            ask=self._ask,
            get_run=cast("Any", None),
            artifacts=cast("Any", None),
            check_writable=lambda: None,
            is_read_only=lambda: False,
            settings=self.settings,
        )
        self.book = Book(self.storage, self.drain, 1.0)
        self.registry = Registry(house, self.book)

    def _ask(self, answer: Callable[[Query], T]) -> T:
        query = Query(self.storage.read()[1])
        try:
            return answer(query)
        finally:
            query.close()

    def read(self) -> Registered:
        """Return what stands, as a process that has just begun sees it."""
        return Host(self.fs.inner, self.drain.place.root or cast("Any", None)).book.read()

    def sql(self, text: str) -> list[dict[str, Any]]:
        """Ask the views."""
        rows: list[dict[str, Any]] = self._ask(lambda query: query.sql(text).to_pylist())
        return rows

    def die(self) -> None:
        """Do what a kill does."""
        self.fs.is_dead = True
        self.drain.die()

    def recover(self) -> None:
        """Bring out what dead processes of this machine have left."""
        root = self.drain.place.root
        assert root is not None
        for found in recover.each(self.storage, root):
            assert found is not None


def describe(known: Registered) -> dict[str, Any]:
    """Return all that stands, as plain values."""
    return {
        name: {
            "model_id": model.model_id,
            "description": model.description,
            "tags": model.tags,
            "aliases": dict(sorted(model.aliases.items())),
            "updated_us": model.updated_us,
            "versions": {
                version.number: (
                    version.stage,
                    version.description,
                    version.tags,
                    version.fact("source"),
                    version.created_us,
                    version.updated_us,
                )
                for version in model.shown
            },
            "numbers": sorted(model.versions),
        }
        for name, model in known.by_name.items()
    }


def dice(seed: int) -> random.Random:
    """Return a repeatable source of chance."""
    return random.Random(seed)  # noqa: S311 - repeatable on purpose
