"""What README.md shows is what its code prints, and what its first commands do is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.meta.tree import ROOT, run_python

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text("utf-8")
# A Python block, and the block of output that follows it at once.
SHOWN = re.compile(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
# What differs from day to day: ids and times.
CHANGES = re.compile(r"\b[0-9a-f]{32}\b|\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?")
LINES = 150
FIRST_BLOCK_LINES = 14


def settled(text: str) -> str:
    """Replace what differs from day to day, and drop blanks at the ends of lines."""
    return "\n".join(line.rstrip() for line in CHANGES.sub("~", text).strip().splitlines())


def test_readmes_code_prints_what_readme_shows(tmp_path: Path) -> None:
    blocks = SHOWN.findall(README)
    assert len(blocks) == README.count("```python\n") == README.count("```text\n")
    script = "\n".join(f"{code}\nprint('<end of block>')" for code, _ in blocks)
    printed = run_python("-c", script, folder=tmp_path).split("<end of block>\n")
    assert [settled(text) for text in printed[:-1]] == [settled(shown) for _, shown in blocks]


def test_readme_is_short_and_begins_with_code_that_fits_on_a_screen() -> None:
    assert len(README.splitlines()) <= LINES
    code, _ = SHOWN.findall(README)[0]
    assert len(code.splitlines()) <= FIRST_BLOCK_LINES
    assert README.index("```python") < len(README) // 3


def test_every_file_that_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []
