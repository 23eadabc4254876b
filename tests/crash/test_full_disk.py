"""A disk that is full under the journal stops neither the training nor its rows."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from runlake.lake import open_lake
from tests.crash.programs import run_program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.crash, pytest.mark.slow]

_TRAIN = """
with lake.start_run(run_id="r") as run:
    {before}
    for step in range(100_000):
        run.log_metric("loss", 0.5, step)
    for number in range(300):
        run.log_param(f"p{{number}}", "x" * 2000)
"""
# Files may grow to 256 KiB: room for no page of points, and for a part of the events.
_QUOTA = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if done.returncode:
        pytest.skip(f"a disk of 2 MiB cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def _check(lake_path: str, said: str) -> None:
    assert "refuses to be written" in said
    assert "lost" not in said.replace("would lose", "")
    with open_lake(lake_path) as lake:
        steps = lake.sql("SELECT count(*) AS n, count(DISTINCT step) AS steps FROM metrics")
        assert steps.rows() == [(100_000, 100_000)]
        assert lake.sql("SELECT count(*) FROM params WHERE len(value) = 2000").item() == 300
        assert lake.sql("SELECT status FROM runs").item() == "FINISHED"


def test_training_over_a_full_disk_goes_on_and_every_row_arrives(
    lake_path: str, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLAKE_JOURNAL", str(small_disk))
    said = run_program(lake_path, _TRAIN.format(before="pass"))
    _check(lake_path, said)


def test_training_over_a_quota_goes_on_and_every_row_arrives(lake_path: str) -> None:
    # The store's own files stay below the quota, as long as segments do.
    said = run_program(lake_path, _TRAIN.format(before=_QUOTA))
    _check(lake_path, said)
