"""Processes are killed at random instants, and no row that they were told is safe is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from runlake.lake import open_lake
from tests.crash.lakes import Found, check_columns, check_sweep, check_training, kill_processes
from tests.crash.victims import EXPERIMENT, Order
from tests.emulators.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runlake.lake import Lake

pytestmark = [pytest.mark.crash, pytest.mark.slow, pytest.mark.timeout(180)]


def _left(journals: Path) -> list[Path]:
    """Return the journals that are there."""
    return [folder for folder in journals.glob("*/*") if not folder.name.startswith(".")]


def _recovered(lake: Lake) -> Found:
    for found in lake.maintain.recover():
        assert found.problem is None, found
    return Found(lake)


@pytest.fixture
def lake(lake_path: str) -> Iterator[Lake]:
    """The lake, opened here."""
    with open_lake(lake_path) as lake:
        yield lake


@pytest.mark.parametrize("threads", [1, 3])
def test_training_killed_at_any_instant_loses_no_row_that_was_logged(
    lake: Lake, lake_path: str, journals: Path, threads: int
) -> None:
    order = Order(url=lake_path, deed="train", kills=30, seed=threads, threads=threads)
    lives = kill_processes(order)
    found = _recovered(lake)
    assert sum(check_training(found, life) for life in lives) > order.kills
    assert _left(journals) == []
    assert not [found for found in lake.maintain.verify().findings if found.is_fault]


def test_sweep_killed_while_runs_end_and_close_loses_no_row_that_was_logged(
    lake: Lake, lake_path: str, journals: Path
) -> None:
    lives = kill_processes(Order(url=lake_path, deed="sweep", kills=30, seed=5, longest_s=0.4))
    found = _recovered(lake)
    assert sum(check_sweep(found, life) for life in lives) > len(lives)
    assert _left(journals) == []


def test_column_writer_killed_at_any_instant_loses_no_columns_that_were_logged(
    lake: Lake, lake_path: str, journals: Path
) -> None:
    lives = kill_processes(Order(url=lake_path, deed="columns", kills=15, seed=6))
    found = _recovered(lake)
    assert sum(check_columns(found, life) for life in lives) > len(lives)
    assert _left(journals) == []


def test_recovery_killed_at_any_instant_is_finished_by_the_next_one(
    lake: Lake, lake_path: str, journals: Path
) -> None:
    lives = kill_processes(Order(url=lake_path, deed="train", kills=8, seed=7, at_once=8))
    assert _left(journals)
    kill_processes(Order(url=lake_path, deed="recover", kills=15, seed=8, at_once=2, longest_s=0.1))
    found = _recovered(lake)
    for life in lives:
        check_training(found, life)
    assert _left(journals) == []


def test_recovery_by_several_at_once_is_the_same_as_by_one(
    lake: Lake, lake_path: str, journals: Path
) -> None:
    lives = kill_processes(Order(url=lake_path, deed="train", kills=8, seed=9, at_once=8))
    others = [open_lake(lake_path) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        reports = list(pool.map(lambda other: other.maintain.recover(), others))
    assert all(found.problem is None for report in reports for found in report)
    recovered = [found.writer for report in reports for found in report]
    assert len(recovered) == len(set(recovered))
    assert lake.maintain.recover() == []
    found = Found(lake)
    for life in lives:
        check_training(found, life)
    assert _left(journals) == []


def test_opening_a_lake_for_writing_recovers_what_the_dead_have_left(
    lake: Lake, lake_path: str, journals: Path
) -> None:
    [life] = kill_processes(Order(url=lake_path, deed="train", kills=1, seed=10, shortest_s=0.1))
    [dead] = _left(journals)
    with lake.start_run(experiment=EXPERIMENT):
        wait_until(lambda: not dead.exists(), seconds=20)
    check_training(Found(lake), life)
