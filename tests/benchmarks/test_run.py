from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.run import NAMES

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="session")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the lakes lie that several benchmarks ask: made by the first that needs one."""
    return tmp_path_factory.mktemp("lakes")


@pytest.mark.slow
@pytest.mark.timeout(300)  # starts some hundred processes
@pytest.mark.parametrize("name", NAMES)
def test_benchmark_works_in_the_small_and_writes_its_result(
    name: str, tmp_path: Path, lakes: Path
) -> None:
    command = [sys.executable, "-m", "benchmarks", name, "--quick", "--alone"]
    command += ["--out", str(tmp_path), "--lakes", str(lakes)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    text = (tmp_path / f"{name}.json").read_text("utf-8")
    result = json.loads(text)
    assert result["quick"] is True
    assert {figure["who"] for figure in result["figures"]} >= {"runlake"}
    for secret in (str(tmp_path), str(lakes), str(ROOT), platform.node()):
        assert secret not in text


def test_every_benchmark_has_a_result_and_every_result_a_benchmark() -> None:
    assert sorted(file.stem for file in RESULTS.glob("*.json")) == sorted(NAMES)


def test_no_result_that_is_kept_comes_from_tiny_sizes() -> None:
    results = [json.loads(file.read_text("utf-8")) for file in RESULTS.glob("*.json")]
    assert [result["name"] for result in results if result["quick"]] == []
