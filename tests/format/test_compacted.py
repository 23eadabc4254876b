"""Compaction and vacuum change no answer: bare DuckDB reads the old lake before and after."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Final

import pytest

from runlake.storage import layout, manifests
from runlake.storage.localfs import LocalFilesystem
from runlake.upkeep.compact import Compactor
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Limits
from tests.format import bare_duckdb, spec
from tests.format.make_golden import LAKE, LAKE_ID, age

if TYPE_CHECKING:
    from pathlib import Path

LIMITS: Final = {"by-and-by": Limits(budget_bytes=1), "fully": Limits(is_full=True)}


def answers(
    lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[str]]:
    """Return what a bare reader says; numbers to nine digits, because sums hang on the order."""
    monkeypatch.chdir(lake)
    bare_duckdb.main(lake, spec.FILE)
    said = capsys.readouterr().out
    found: dict[str, list[object]] = json.loads(said, parse_float=lambda text: f"{float(text):.9g}")
    return {name: sorted(map(json.dumps, rows)) for name, rows in found.items()}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("is_quiet", [True, False], ids=["quiet", "fresh"])
def test_bare_reader_sees_the_same_lake_before_and_after(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    limits: Limits,
    *,
    is_quiet: bool,
) -> None:
    lake = tmp_path / "lake"
    shutil.copytree(LAKE, lake, copy_function=shutil.copyfile)
    if is_quiet:
        age(lake)
    before = answers(lake, capsys, monkeypatch)
    fs = LocalFilesystem(lake)
    keeper = Compactor(fs, lake=LAKE_ID, limits=limits)
    for experiment_id in keeper.experiments():
        keeper.compact(experiment_id)
    vacuum(fs, lake=LAKE_ID, grace_s=0, is_dry_run=False)
    assert manifests.newest(fs, lake=LAKE_ID).number > 1
    assert bool(fs.list(layout.LOG)) != is_quiet
    assert answers(lake, capsys, monkeypatch) == before
