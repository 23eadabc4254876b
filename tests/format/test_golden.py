"""Lakes that an early runlake wrote, read for ever: `make_golden.py` tells their stories."""

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
from runlake.upkeep.compact import Compactor
from runlake.upkeep.work import Limits
from tests.format.make_golden import (
    DATA,
    DEFAULT,
    GOLDEN,
    LAKE,
    LAKE_ID,
    LIKE,
    QUESTIONS,
    age,
    answers,
    kept,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy of the lake, long at rest."""
    lake = tmp_path / "golden"
    shutil.copytree(LAKE, lake)
    age(lake)
    return lake


@pytest.mark.parametrize("name", [*GOLDEN, *LIKE])
def test_answers_are_what_they_always_were(tmp_path: Path, name: str) -> None:
    lake = tmp_path / "golden"
    shutil.copytree(DATA / name, lake)
    age(lake)
    expected, found = kept(LIKE.get(name, name)), answers(lake)
    assert found.keys() == expected.keys() == QUESTIONS.keys()
    for question, rows in expected.items():
        assert found[question] == rows, question


def test_what_was_set_stands_however_it_is_compacted(tmp_path: Path) -> None:
    expected = kept("v1-set")
    runs = [json.loads(row) for row in expected["runs"]]
    assert sorted((run["run_name"], run["status"], bool(run["end_time"])) for run in runs) == [
        ("auto-01", "FAILED", True),
        ("auto-02", "KILLED", False),
        ("auto-03", "FINISHED", True),
        ("auto-04", "SCHEDULED", False),
    ]
    lake = tmp_path / "golden"
    shutil.copytree(DATA / "v1-set", lake)
    age(lake)  # a checkout is young, and compaction writes down when each writer was last seen
    fs = LocalFilesystem(lake)
    Compactor(fs, lake=LAKE_ID, limits=Limits(is_full=True)).compact(DEFAULT)
    age(lake)
    assert not Storage(fs, Settings()).snapshot().segments
    assert answers(lake) == expected


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
