"""What a process gets from its host, given by the world instead: time, chance, disk, Parquet."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, final

import pytest

from runlake import clock, ids
from runlake.errors import DataLossWarning, FormatError, RunlakeWarning, StorageError
from runlake.upkeep import automatic, commit, compact, ripe, sources, vacuum, work
from runlake.upkeep.commit import Committer
from runlake.upkeep.copies import belongings
from runlake.writing import places, recover, writer
from tests.simulation import codec
from tests.simulation.store import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType

    from runlake.settings import Settings
    from tests.simulation.turns import Actor, Turns
    from tests.simulation.world import World

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a world's files are its own, and fewer where there is none


@final
class Here:
    """The world that is being simulated."""

    world: World

    def __init__(self) -> None:
        """Begin outside of any world."""
        self.folder = Path()
        self.real_tempdir: str | None = None
        self.with_parquet: list[ModuleType] = []

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Let temporary files lie where they outlive the world."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", self.real_tempdir)
            yield

    @property
    def turns(self) -> Turns:
        """Whose turn it is."""
        return self.world.turns

    def now_us(self) -> int:
        """Return the clock of the host whose turn it is."""
        actor = self.turns.current
        return self.turns.now_us + (0 if actor is None else actor.skew_us)

    def monotonic_s(self) -> float:
        """Return a clock that no one sets."""
        return self.turns.now_us / 1e6

    def random_bytes(self, count: int) -> bytes:
        """Return what the seed says."""
        return self.world.bits.randbytes(count)


here: Final = Here()


@contextmanager
def simulated() -> Iterator[None]:
    """Let worlds rule time, chance and disk until the end of the block."""
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="runlake-worlds-", dir=parent) as folder,
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RunlakeWarning)
        warnings.simplefilter("error", DataLossWarning)
        here.folder, here.real_tempdir = Path(folder), tempfile.tempdir
        here.with_parquet = [
            module
            for name, module in sorted(sys.modules.items())
            if name.startswith("runlake.") and "pq" in vars(module)
        ]
        patch.setattr(tempfile, "tempdir", folder)
        patch.setattr(ids, "os", SimpleNamespace(urandom=here.random_bytes))
        patch.setattr(clock, "now_us", here.now_us)
        patch.setattr(clock, "monotonic_s", here.monotonic_s)
        for module in (sources, belongings):
            patch.setattr(module, "ThreadPoolExecutor", _OneByOne)
        patch.setattr(os, "fsync", lambda _: None)  # nothing loses its power here
        patch.setattr(places, "choose", _choose)
        patch.setattr(recover, "_alive_us", lambda *_: here.now_us())
        _watch(patch)
        yield


@contextmanager
def arranged(world: World) -> Iterator[None]:
    """Let one world happen: with its own limits, and tickets for Parquet unless it is exact."""
    here.world = world
    codec.forget()
    with pytest.MonkeyPatch.context() as patch:
        if not world.is_exact:
            for module in here.with_parquet:
                patch.setattr(module, "pq", codec.tickets)
        _shrink(patch, world)
        yield
    for entry in here.folder.iterdir():
        shutil.rmtree(entry, ignore_errors=True)


def _shrink(patch: pytest.MonkeyPatch, world: World) -> None:
    """Make limits so small that worlds meet them."""
    draw = world.draw
    patch.setattr(writer, "SEAL_UPLOADS", draw("uploads of a tail", [1, 2, 3]))
    patch.setattr(writer, "MAX_SEGMENT_ROWS", draw("rows of a segment", [1 << 18, 1 << 18, 6]))
    patch.setattr(commit, "HOT_WRITERS", draw("hot writers", [2000, 2000, 1, 2]))
    patch.setattr(vacuum, "KEPT_MANIFESTS", draw("kept manifests", [100, 1, 1, 2]))
    patch.setattr(ripe, "QUIET_S", draw("quiet", [900, -1, -1, -1]))
    patch.setattr(work, "_LEAST_BATCH_BYTES", 1)
    patch.setattr(automatic, "ONE_IN", 1)
    patch.setattr(compact, "DUE_SEGMENTS", 1)
    patch.setattr(automatic, "_background", _Backgrounds())


@final
class _OneByOne:
    """A pool that does all in the thread whose turn it is."""

    def __init__(self, threads: int) -> None:
        """Take note of nothing."""

    def __enter__(self) -> _OneByOne:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def map(self, work: Callable[..., Any], *parts: Iterable[Any]) -> list[Any]:
        """Do one piece after the other."""
        return list(map(work, *parts))


@final
class _Backgrounds:
    """What each process has for compaction in the background: here each actor."""

    def __init__(self) -> None:
        self._of: dict[Actor | None, automatic._Background] = {}

    @property
    def _mine(self) -> automatic._Background:
        return self._of.setdefault(here.turns.current, automatic._Background())

    def offer(self, task: automatic._Task, *, now: bool) -> None:
        """Keep it in mind; a thread of its own would have no turn."""
        del now
        self._mine.offer(task, now=False)

    def take_over(self) -> automatic.Session | None:
        """Return a session for the actor whose turn it is."""
        return self._mine.take_over()

    def serve(self, session: automatic.Session) -> None:
        """Do what waits for it."""
        self._mine.serve(session)


def _raise_unless_ill(self: automatic._Background, task: automatic._Task, error: Exception) -> None:
    """Pass over what a store does to an actor, and nothing else."""
    del self, task
    is_alarm = isinstance(error, FormatError) and here.world.thefts
    if not isinstance(error, StorageError) and not is_alarm:
        raise error


def _choose(settings: Settings) -> places.Place:
    root = Path(settings.journal or "") / "journal"
    root.mkdir(parents=True, exist_ok=True)
    return places.Place(root, "simulated", mapped=False)


def _watch(patch: pytest.MonkeyPatch) -> None:
    """Tell the world what was promised and what was read."""
    committed, loaded = Committer.commit, recover.load

    def commit_and_tell(self: Committer, *args: Any) -> Any:  # noqa: ANN401 - as the method
        found = committed(self, *args)
        if found is not None and self._fs.url == Client.URL:
            here.world.truth.won[found.nonce] = found.number
        return found

    def load_and_tell(folder: Path, owner: places.Owner) -> Any:  # noqa: ANN401 - as the function
        found = loaded(folder, owner)
        here.world.loaded(folder, found[0])
        return found

    patch.setattr(automatic._Background, "_say", _raise_unless_ill)
    patch.setattr(Committer, "commit", commit_and_tell)
    patch.setattr(recover, "load", load_and_tell)
