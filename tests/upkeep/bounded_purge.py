"""Purges a run with little memory; prints what that took above what a small one takes.

Called with the folder of the lake and the budget in bytes. A process of its own, because a peak
that a process has reached once stays.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from runlake.storage import layout
from runlake.storage.localfs import LocalFilesystem
from runlake.upkeep.purge import purge
from runlake.upkeep.work import Limits
from tests.upkeep.peak import peak_bytes

SMALL_RUN: Final = "small-run"
RUN: Final = "run-3"


def main() -> None:
    """Purge a small run, then a large one; print the bytes and what was done as JSON."""
    fs = LocalFilesystem(Path(sys.argv[1]))
    lake = json.loads(fs.get(layout.LAKE_FILE))["lake"]
    limits = Limits(budget_bytes=int(sys.argv[2]))
    purge(fs, lake=lake, run_ids=[SMALL_RUN], limits=limits)
    before = peak_bytes()
    done = purge(fs, lake=lake, run_ids=[RUN], limits=limits)
    sys.stdout.write(json.dumps({"bytes": peak_bytes() - before, "rows": done.rows}))


if __name__ == "__main__":
    main()
