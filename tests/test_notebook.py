"""A notebook: cells run one by one, fail, are run again, and the kernel goes on."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

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


PRINTING = """
import asyncio

from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()


async def main():
    for cell in CELLS:
        shell.run_cell(cell)
        await asyncio.sleep(0)
        print("after", cell[-2:])


if LOOP:
    asyncio.run(main())
else:
    for cell in CELLS:
        shell.run_cell(cell)
"""


@pytest.mark.parametrize("has_loop", [True, False], ids=["kernel", "shell"])
def test_a_run_that_a_cell_begins_keeps_what_later_cells_print(
    tmp_path: Path, *, has_loop: bool
) -> None:
    cells = [
        "import runlake; run = runlake.open('lake').start_run('r', log_console=True); print('a')",
        "import sys; print('b'); print('c', file=sys.stderr)",
        *[f"print({number})" for number in range(3)],
        "run.finish(); print('over')",
    ]
    program = f"CELLS, LOOP = {cells!r}, {has_loop}\n{PRINTING}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    rows = open_lake(tmp_path / "lake", read_only=True).sql(
        "SELECT stream, text FROM console ORDER BY line"
    )
    printed = [text for _, text in rows.rows() if not text.startswith("after")]
    assert printed == ["a", "b", "c", "0", "1", "2"]
    # What is printed between the cells is heard where a loop tells that a cell is over.
    between = [text for _, text in rows.rows() if text.startswith("after")]
    assert len(between) == (5 if has_loop else 0)
    assert rows.filter(stream="stderr").height == 1
    shown = [line for line in done.stdout.splitlines() if not line.startswith("after")]
    assert shown == ["a", "b", "0", "1", "2", "over"]
