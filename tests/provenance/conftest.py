from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from runlake.provenance import start

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def wants_provenance(own_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provenance as users have it, and nothing of the launcher of these tests."""
    del own_environment
    monkeypatch.delenv("RUNLAKE_PROVENANCE")
    for name in list(os.environ):
        if name in start._NAMES or name.startswith(("GIT_", *start._PREFIXES)):
            monkeypatch.delenv(name)


class Repository:
    """A git repository of one test."""

    def __init__(self, folder: Path) -> None:
        """Make it, empty."""
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch", "trunk")
        self.git("config", "user.name", "Somebody")
        self.git("config", "user.email", "somebody@example.org")

    def git(self, *arguments: str) -> str:
        """Run git here, and return what it prints."""
        command = ["git", *arguments]
        finished = subprocess.run(
            command, cwd=self.folder, check=True, capture_output=True, text=True
        )
        return finished.stdout

    def write(self, name: str, text: str) -> Path:
        """Write a file."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
        return file

    def commit(self, name: str = "train.py", text: str = "lr = 0.1\n") -> str:
        """Commit a file, and return the commit."""
        self.write(name, text)
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "A change")
        return self.git("rev-parse", "HEAD").strip()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty repository."""
    return Repository(tmp_path / "repository")
