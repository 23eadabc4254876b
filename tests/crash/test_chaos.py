"""Writers, recoverers, compactors, vacuums and readers at once, all killed at random instants.

Vacuum leaves no grace, or one of a second, and readers hold what they see against what they saw
before. In the end every row that a writer was told is safe is there once, and nothing is broken.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from runlake.lake import open_lake
from runlake.storage import layout, manifests
from runlake.upkeep.compact import Compactor
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Limits
from tests.crash.lakes import Found, check_columns, check_sweep, check_training, kill_processes
from tests.crash.victims import Order
from tests.emulators.fixtures import BUCKET

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.lake import Lake
    from tests.emulators.fixtures import Cloud

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(300)]

CHECKS = {"train": check_training, "sweep": check_sweep, "columns": check_columns}


def orders(url: str, grace_s: float, *, kills: int, pace: float = 1.0) -> list[Order]:
    """Return what is to live and die at once; `pace` is how much longer lives are."""
    known: dict[str, Any] = {"url": url, "grace_s": grace_s}
    return [
        Order(deed="train", kills=kills, seed=21, at_once=2, longest_s=0.6 * pace, **known),
        Order(deed="sweep", kills=kills, seed=22, at_once=1, longest_s=0.8 * pace, **known),
        Order(deed="columns", kills=kills, seed=23, at_once=1, longest_s=0.4 * pace, **known),
        Order(deed="recover", kills=kills, seed=24, at_once=1, longest_s=0.3 * pace, **known),
        Order(deed="tend", kills=kills, seed=25, at_once=2, longest_s=1.5 * pace, **known),
        Order(
            deed="read",
            kills=4,
            seed=26,
            at_once=2,  # as long as somebody writes, and no longer
            shortest_s=0.5 * pace,
            longest_s=2.0 * pace,
            **known,
        ),
    ]


def check(lake: Lake, wanted: list[Order]) -> None:
    """Let all live and die, then bring in what is left, and look at every row."""
    with ThreadPoolExecutor(len(wanted)) as pool:
        deeds = [order.deed for order in wanted]
        lives = dict(zip(deeds, pool.map(kill_processes, wanted), strict=True))
    for deed in ("tend", "read"):
        assert sum(life.steps[0] for life in lives[deed]), f"nobody has come to {deed}"
    assert manifests.newest(lake._storage.fs, lake=lake._storage.require_lake()).number
    for recovered in lake.maintain.recover():
        assert recovered.problem is None, recovered
    for is_compacted in (False, True):
        if is_compacted:
            compact_all(lake)
        found = Found(lake)
        steps = sum(
            check_deed(found, life) for deed, check_deed in CHECKS.items() for life in lives[deed]
        )
        assert steps > len(lives["train"])
        report = lake.maintain.verify()
        assert not [finding for finding in report.findings if finding.is_fault]


def compact_all(lake: Lake) -> None:
    """Compact what there is, and take away what that replaced."""
    storage = lake._storage
    keeper = Compactor(storage.fs, lake=storage.require_lake(), limits=Limits(is_full=True))
    for experiment_id in keeper.experiments():
        keeper.compact(experiment_id)
    vacuum(storage.fs, lake=storage.require_lake(), grace_s=0, is_dry_run=False)
    assert storage.fs.list(layout.TABLES)
    lake.refresh()


def test_nothing_is_lost_doubled_or_broken_on_a_disk(lake_path: str, journals: Path) -> None:
    with open_lake(lake_path) as lake:
        check(lake, orders(lake_path, 1.0, kills=12))  # each vacuum draws a grace of 0 s or 1 s
    assert not [journal for journal in journals.glob("*/*") if not journal.name.startswith(".")]


@pytest.mark.s3
def test_nothing_is_lost_doubled_or_broken_in_a_bucket(
    s3_cloud: Cloud, lake_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lake_path  # journals lie beside it
    monkeypatch.setenv("RUNLAKE_STORAGE_OPTIONS", json.dumps(dict(s3_cloud.storage_options)))
    url = f"s3://{BUCKET}/chaos"
    with open_lake(url) as lake:
        check(lake, orders(url, 0.0, kills=4, pace=6.0))
