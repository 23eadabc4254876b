"""A lake that processes are killed in, with journals of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def lake_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a lake that is not there yet; this process and its children journal beside."""
    monkeypatch.setenv("RUNLAKE_JOURNAL", str(tmp_path / "journals"))
    return str(tmp_path / "lake")


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    """The folder of all journals."""
    return tmp_path / "journals" / "journal"
