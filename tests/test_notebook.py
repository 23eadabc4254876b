"""A notebook: cells run one by one, fail, are run again, and the kernel goes on."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from runlake.lake import open_lake

if TYPE_CHECKING:
    from pathlib import Path

KERNEL = """
import sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for cell in CELLS:
    result = shell.run_cell(cell)
    print("cell", type(result.error_in_exec).__name__)
"""


def run_cells(cells: list[str], folder: Path) -> list[str]:
    """Run cells in a shell of IPython in a process of its own; return how each ended."""
    program = f"CELLS = {cells!r}\n{KERNEL}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    return [line.removeprefix("cell ") for line in done.stdout.splitlines() if "cell " in line]


def test_a_cell_that_fails_leaves_a_kernel_that_goes_on(tmp_path: Path) -> None:
    ends = run_cells(
        [
            "import runlake\nrunlake.set_tracking_uri('lake')",
            "with runlake.start_run(run_name='broken'):\n    1 / 0",
            "runlake.start_run(run_name='open')",
            "runlake.start_run(run_name='again')",
            "runlake.log_metric('loss', 0.5)",
            "unknown_name",
        ],
        tmp_path,
    )
    assert ends == [
        "NoneType",
        "ZeroDivisionError",
        "NoneType",
        "StateError",
        "NoneType",
        "NameError",
    ]
    lake = open_lake(tmp_path / "lake", read_only=True)
    rows = lake.sql("SELECT run_name, status FROM runs ORDER BY start_time").rows()
    # The run that was left open ends with the kernel; a cell's error is not the kernel's.
    assert rows == [("broken", "FAILED"), ("open", "FINISHED")]
    assert lake.sql("SELECT value FROM metrics")["value"].to_list() == [0.5]
