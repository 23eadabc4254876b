"""What the tests of upkeep share."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - folders of a few kilobytes, gone at once


@pytest.fixture
def scratch_in_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary folders in memory where there is one: to loops their disk is the longest part."""
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="runlake-upkeep-", dir=parent) as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield
