"""Every example runs offline, in an empty folder, and prints something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.meta.tree import ROOT, run_python

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LINES = 60


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: str(file.stem))
def test_example_runs_and_prints(file: Path, tmp_path: Path) -> None:
    assert run_python(file, folder=tmp_path).strip()


def test_examples_fit_on_a_screen() -> None:
    assert EXAMPLES
    long = [file.name for file in EXAMPLES if len(file.read_text("utf-8").splitlines()) > LINES]
    assert long == []
