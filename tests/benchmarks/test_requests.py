"""What the design document says of requests is what was counted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "design" / "001-requests-and-money.md"
RESULT = ROOT / "benchmarks" / "results" / "requests.json"


def test_the_documents_table_holds_what_was_counted() -> None:
    figures = json.loads(RESULT.read_text("utf-8"))["figures"]
    counted = {each["what"]: each["value"] for each in figures}
    _, _, text = DOCUMENT.read_text("utf-8").partition("<!-- table: requests -->\n")
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \|$", text, flags=re.MULTILINE)
    assert len(rows) > 10
    said = {what: float(number) for what, number in rows}
    # Names of hosts and nonces make some bytes more or fewer, and requests never.
    assert said == pytest.approx({what: counted[what] for what in said}, rel=0.005)


def test_the_reckoning_uses_what_was_counted() -> None:
    figures = json.loads(RESULT.read_text("utf-8"))["figures"]
    (uploads,) = [e["value"] for e in figures if e["what"] == "uploads of a writer in 24 hours"]
    assert f"UPLOADS, TAILS = {uploads}, {uploads} / 32" in DOCUMENT.read_text("utf-8")
