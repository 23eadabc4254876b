"""A lake that an early runlake wrote, read for ever: `make_golden.py` tells its stories."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from runlake.settings import Settings
from runlake.storage.engine import Storage
from runlake.storage.localfs import LocalFilesystem
from runlake.upkeep.checks import findings
from runlake.upkeep.checks.verify import verify
from tests.format.make_golden import ANSWERS, LAKE, QUESTIONS, age, answers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy of the lake, long at rest."""
    lake = tmp_path / "golden"
    shutil.copytree(LAKE, lake)
    age(lake)
    return lake


def test_answers_are_what_they_always_were(golden: Path) -> None:
    expected: dict[str, list[str]] = json.loads(ANSWERS.read_text("utf-8"))
    found = answers(golden)
    assert found.keys() == expected.keys() == QUESTIONS.keys()
    for name, rows in expected.items():
        assert found[name] == rows, name


def test_answers_do_not_hang_on_superseded_segments(golden: Path) -> None:
    before = answers(golden)
    storage = Storage(LocalFilesystem(golden), Settings())
    superseded = [
        finding.key
        for finding in verify(storage.fs).findings
        if finding.kind == findings.SUPERSEDED
    ]
    assert len(superseded) == 5
    storage.fs.delete_many(superseded)
    assert answers(golden) == before


def test_lake_is_sound(golden: Path) -> None:
    report = verify(LocalFilesystem(golden))
    assert report.is_sound
    assert {finding.kind for finding in report.findings} == {findings.SUPERSEDED}


def test_snapshot_holds_the_manifest_that_consumed_nothing(golden: Path) -> None:
    snapshot = Storage(LocalFilesystem(golden), Settings()).snapshot()
    assert (snapshot.manifest.number, snapshot.manifest.consumed) == (1, {})
    assert snapshot.is_complete
    assert [segment.skip_rows for segment in snapshot.segments] == [0] * len(snapshot.segments)
