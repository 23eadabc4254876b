"""The project's own files, as the tests of the house read them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "runlake"

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> list[Path]:
    """Return every module of the package."""
    return sorted(SRC.rglob("*.py"))


def shown(file: Path, node: ast.AST | None = None) -> str:
    """Return `file:line` as an editor takes it."""
    return f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


@cache
def parse(file: Path) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(file.read_text(encoding="utf-8"))


def functions(node: ast.AST) -> Iterator[Function]:
    """Yield every function and method below a node, nested ones too."""
    for below in ast.walk(node):
        if isinstance(below, ast.FunctionDef | ast.AsyncFunctionDef):
            yield below


def tracked() -> list[Path]:
    """Return the files that are, or would be, under version control."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listing.splitlines() if (ROOT / line).is_file()]


def run_python(*arguments: str | Path, folder: Path, given: str | None = None) -> str:
    """Run Python as a user who has set nothing, at home in a folder of the test.

    Warnings are errors, as in the tests themselves. What is given is its standard input.

    Returns:
        What it printed.
    """
    own = ("RUNLAKE_", "XDG_", "PYTEST_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(own)}
    finished = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env=kept | {"HOME": str(folder)},
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout
