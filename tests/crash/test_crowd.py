"""Many processes begin at once where nothing is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runlake.lake import open_lake
from tests.crash.crowd import EXPERIMENT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

_LAUNCHERS = 8
_PROCESSES = 8
_RUNS = 5
_STEPS = 20


def test_processes_that_begin_at_once_on_an_empty_lake_agree_and_lose_nothing(
    lake_path: str,
) -> None:
    call = [sys.executable, "-m", "tests.crash.crowd", lake_path]
    numbers = [str(number) for number in (_PROCESSES, _RUNS, _STEPS)]
    launchers = [
        subprocess.Popen(
            [*call, *numbers], stdin=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        for _ in range(_LAUNCHERS)
    ]
    for launcher in launchers:
        assert launcher.stdin is not None
        launcher.stdin.write(b"." * _PROCESSES)
    for launcher in launchers:
        _, errors = launcher.communicate(timeout=150)
        assert launcher.returncode == 0, errors.decode()
    with open_lake(lake_path) as lake:
        assert lake.maintain.recover() == []
        assert [found.name for found in lake.search_experiments()] == [EXPERIMENT]
        runs = _LAUNCHERS * _PROCESSES * _RUNS
        status = lake.sql("SELECT status, experiment_name, count(*) AS n FROM runs GROUP BY ALL")
        assert status.rows() == [("FINISHED", EXPERIMENT, runs)]
        points = lake.sql(
            "SELECT run_id, count(*) AS n, count(DISTINCT step) AS steps FROM metrics GROUP BY 1"
        )
        assert points.select("n", "steps").unique().rows() == [(_STEPS, _STEPS)]
        assert len(points) == runs
        pids = lake.sql("SELECT count(DISTINCT value) FROM params WHERE key = 'pid'").item()
        assert pids == _LAUNCHERS * _PROCESSES
        assert not [found for found in lake.maintain.verify().findings if found.is_fault]
