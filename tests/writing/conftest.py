"""A lake in memory that counts and fails as told, with journals of its own and a clock to move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake import clock
from runlake.settings import Settings
from runlake.storage.engine import Storage
from runlake.testing.filesystems import CountingFilesystem, FaultyFilesystem
from tests.writing.drains import StillDrain, memory_filesystem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class FakeTime:
    """A monotonic clock that a test moves."""

    now_s = 1000.0

    def monotonic_s(self) -> float:
        """Return the time."""
        return self.now_s


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The monotonic clock of the test."""
    fake = FakeTime()
    monkeypatch.setattr(clock, "monotonic_s", fake.monotonic_s)
    return fake


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with journals and cache of the test's own, and nobody who compacts meanwhile."""
    return Settings(
        journal=str(tmp_path / "journals"),
        cache=str(tmp_path / "cache"),
        close_timeout_s=5.0,
        compact="off",
    )


@pytest.fixture
def counting() -> CountingFilesystem:
    """The store, which counts what it is asked."""
    return CountingFilesystem(memory_filesystem())


@pytest.fixture
def faulty(counting: CountingFilesystem) -> FaultyFilesystem:
    """The store, which fails as told."""
    return FaultyFilesystem(counting, seed=1)


@pytest.fixture
def storage(faulty: FaultyFilesystem, settings: Settings) -> Storage:
    """The lake's storage; the lake is there."""
    storage = Storage(faulty, settings)
    storage.ensure_lake()
    return storage


@pytest.fixture
def still(storage: Storage, settings: Settings, time: FakeTime) -> Iterator[StillDrain]:  # noqa: ARG001 - its clock
    """A drain that the test serves by hand."""
    drain = StillDrain(storage, settings)
    yield drain
    drain.die()
