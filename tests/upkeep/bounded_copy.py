"""Copies a lake with little memory; prints what that took above what a small one takes.

Called with the folders of two lakes and the budget in bytes. A process of its own, because a
peak that a process has reached once stays.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from runlake.settings import Settings
from runlake.storage.engine import Storage
from runlake.storage.localfs import LocalFilesystem
from runlake.upkeep.copies.copying import copy_lake
from runlake.upkeep.work import Limits
from tests.upkeep.peak import peak_bytes

SMALL_RUN: Final = "small-run"


def main() -> None:
    """Copy a small run, then everything; print the bytes and what was done as JSON."""
    source, target = (
        Storage(LocalFilesystem(Path(folder)), Settings()) for folder in sys.argv[1:3]
    )
    limits = Limits(budget_bytes=int(sys.argv[3]))
    copy_lake(source, target, run_ids=[SMALL_RUN], limits=limits)
    before = peak_bytes()
    done = copy_lake(source, target, limits=limits)
    found = {"bytes": peak_bytes() - before, "rows": done.rows, "commits": done.commits}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
