"""Real processes that import are killed, and the import is made again."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runlake.importers import import_from
from runlake.lake import open_lake
from tests.importers.made import everything

if TYPE_CHECKING:
    from pathlib import Path

# Dies by its own hand, as by the kernel's, at the n-th object that it puts: before or after.
_PROGRAM = """
import importlib, os, signal, sys
from runlake.importers import import_from
from runlake.lake import open_lake
from runlake.storage.localfs import LocalFilesystem

bring = importlib.import_module("runlake.importers.bring")
bring.GROUP_ROWS, bring.SEGMENT_ROWS, bring.GROUP_RUNS = 100, 60, 2
left = int(sys.argv[3])
put = LocalFilesystem.put_absent

def dies(self, key, data):
    global left
    left -= key.startswith("log/experiment_id=") and "_lake" not in key
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    made = put(self, key, data)
    if left == 1 and sys.argv[4] == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return made

LocalFilesystem.put_absent = dies
with open_lake(sys.argv[2]) as lake:
    import_from("csv", sys.argv[1], lake)
"""


@pytest.mark.crash
@pytest.mark.parametrize(("at", "when"), [(4, "after")])
def test_import_that_was_killed_is_gone_on_with_and_nothing_comes_twice(
    at: int, when: str, tmp_path: Path
) -> None:
    file = tmp_path / "runs.csv"
    rows = [f"small{number},{step},{number}.5" for number in range(3) for step in range(20)]
    rows += [f"large,{step},{step}" for step in range(200)]
    file.write_text("\n".join(["run,step,loss", *rows]))
    command = [sys.executable, "-c", _PROGRAM, str(file), str(tmp_path / "lake"), str(at), when]
    killed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with open_lake(str(tmp_path / "lake"), refresh=0) as lake:
        # The settings of the program decide how the large run is cut; another cut is no doubling.
        report = import_from("csv", str(file), lake)
        assert report.problems == []
        assert report.brought + report.already == 4
        found = everything(lake)
    with open_lake(f"memory://killed-{at}", refresh=0) as whole:
        import_from("csv", str(file), whole)
        assert found == everything(whole)
