"""What a page shows below its code is what the code prints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.meta.test_docs_run import NOT_RUN, SHOWING
from tests.meta.test_readme import settled
from tests.meta.tree import ROOT, run_python

if TYPE_CHECKING:
    from pathlib import Path

# A Python block, and the block of output that may follow it at once.
SHOWN = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", flags=re.MULTILINE | re.DOTALL
)
END = "<end of block>\n"


def blocks_of(text: str) -> list[tuple[str, str | None]]:
    """Return code and shown output of each block that runs."""
    return [
        (block[1], block[2])
        for block in SHOWN.finditer(text)
        if NOT_RUN.search(text[: block.start()]) is None
    ]


@pytest.mark.parametrize("page", SHOWING, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_code_prints_what_the_page_shows(page: Path, tmp_path: Path) -> None:
    blocks = blocks_of(page.read_text("utf-8"))
    script = tmp_path / "page.py"
    script.write_text("".join(f"{code}\nprint({END.strip()!r})\n" for code, _ in blocks), "utf-8")
    printed = run_python(script, folder=tmp_path).split(END)
    for (code, shown), found in zip(blocks, printed[:-1], strict=True):
        if shown is not None:
            assert settled(found) == settled(shown), code


def test_blocks_are_found_with_and_without_their_output() -> None:
    text = (
        "```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\n```text\n1\n```\n"
        "\n<!-- not run: needs a bucket -->\n```python\ny = 2\n```\n"
    )
    assert blocks_of(text) == [("x = 1\n", None), ("print(x)\n", "1\n")]
