"""Compacts a lake with little memory; prints what that took above what a small one takes.

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
from runlake.upkeep.compact import Compactor
from runlake.upkeep.work import Limits
from tests.storage.lakes import EXPERIMENT
from tests.upkeep.peak import peak_bytes

SMALL: Final = "small"


def main() -> None:
    """Compact a small experiment, then the other; print the bytes and what was done as JSON."""
    fs = LocalFilesystem(Path(sys.argv[1]))
    lake = json.loads(fs.get(layout.LAKE_FILE))["lake"]
    limits = Limits(budget_bytes=int(sys.argv[2]), is_full=True)
    keeper = Compactor(fs, lake=lake, limits=limits)
    keeper.compact(SMALL)
    before = peak_bytes()
    done = keeper.compact(EXPERIMENT)
    found = {"bytes": peak_bytes() - before, "rows": done.rows, "commits": done.commits}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
