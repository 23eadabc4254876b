"""Format, lint, types and layers are tests like any other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.tree import ROOT

COMMANDS = {
    "format": ["ruff", "format", "--check", "--diff", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy"],
    "layers": ["lint-imports"],
}


@pytest.mark.timeout(300)  # types without a cache, on a slow machine
@pytest.mark.parametrize("name", COMMANDS)
def test_the_tree_passes(name: str) -> None:
    program, *arguments = COMMANDS[name]
    beside_python = Path(sys.executable).parent / program
    finished = subprocess.run(
        [beside_python, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
