"""A program that forks processes, which wait for a byte each and then start runs.

`python -m tests.crash.crowd <lake> <processes> <runs> <steps>`; the bytes come by its input.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Final

# Loaded before the processes fork: they are about the lake, not about importing.
import numpy  # noqa: F401, ICN001
import pyarrow.compute  # noqa: F401
import pyarrow.parquet  # noqa: F401

from runlake.lake import open_lake

EXPERIMENT: Final = "crowd"


def _work(url: str, runs: int, steps: int) -> None:
    with open_lake(url) as lake:
        for _ in range(runs):
            with lake.start_run(experiment=EXPERIMENT) as run:
                run.log_param("pid", os.getpid())
                for step in range(steps):
                    run.log({"loss": float(step)}, step=step)


def main(url: str, processes: int, runs: int, steps: int) -> None:
    """Fork, and end well only if all do."""
    children = []
    for _ in range(processes):
        pid = os.fork()
        if not pid:
            try:
                os.read(0, 1)
                _work(url, runs, steps)
                os._exit(0)
            except BaseException:  # noqa: BLE001 - the child must end here whatever it was
                traceback.print_exc()
                os._exit(1)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    sys.exit(any(codes))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
