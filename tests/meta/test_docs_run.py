"""Every Python block of the documentation runs, or says why not.

The blocks of one file run as one script, in an empty folder, as a user who has set nothing.
A block below `<!-- not run: reason -->` is left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.meta.tree import ROOT, run_python

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: \S.* -->\n+\Z")


def script_of(file: Path) -> str:
    """Return a file's Python blocks, each on the lines that it has in the file."""
    text = file.read_text("utf-8")
    script = ""
    for block in BLOCK.finditer(text):
        if NOT_RUN.search(text[: block.start()]) is None:
            script += "\n" * (text[: block.start(1)].count("\n") - script.count("\n")) + block[1]
    return script


PAGES = sorted((ROOT / "docs").rglob("*.md"))
# Their code runs in `test_docs_show`, and that of README.md in `test_readme`: both hold what is
# printed against the page.
SHOWING = [file for file in PAGES if "\n```text\n" in file.read_text("utf-8")]
DOCUMENTS = [file for file in PAGES if file not in SHOWING and script_of(file)]


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_documents_code_runs(file: Path, tmp_path: Path) -> None:
    # Named after its document and on the same lines, so that a traceback points there; but not
    # as a package that it imports.
    script = tmp_path / f"{file.stem}-page.py"
    script.write_text(script_of(file), "utf-8")
    run_python(script, folder=tmp_path)


def test_a_block_left_out_says_why(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(
        "a\n\n```python\nx = 1\n```\n\n<!-- not run: needs a bucket -->\n```python\ny = 2\n```\n"
        "\n<!-- not run: -->\n```python\nz = 3\n```\n"
    )
    assert script_of(file) == "\n" * 3 + "x = 1\n" + "\n" * 9 + "z = 3\n"
