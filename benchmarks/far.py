"""A question to a store far away, simulated: 50 ms for each round trip, 100 MB/s on the line.

What counts is the number of requests, and the seconds spent waiting for them. A process of its
own asks twice, so that the first time is cold; what the local cache holds then helps the next
process.

    python -m benchmarks.far LAKE CACHE QUESTION [RUN]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks import data
from benchmarks.harness import ROOT
from benchmarks.tasks import FILTER, LIMIT, ORDER
from runlake.settings import Settings
from runlake.storage.fs import open_filesystem
from runlake.testing import CountingFilesystem, SlowFilesystem, open_lake

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runlake.questions import Questions

LATENCY_S: Final = 0.05
_METRIC: Final = data.keys(1)[0]


class Asked(NamedTuple):
    """What one question took.

    Attributes:
        requests: sent to the store.
        waited_s: seconds spent waiting for them.
        seconds: from the question to the answer.
    """

    requests: int
    waited_s: float
    seconds: float


QUESTIONS: Final[dict[str, Callable[[Questions, str], object]]] = {
    "search": lambda lake, _: lake.search_runs(FILTER, order_by=ORDER, limit=LIMIT),
    "leaderboard": lambda lake, _: lake.leaderboard(_METRIC, goal="min"),
    "curve": lambda lake, run: lake.history(_METRIC, runs=[run]),
}


def ask(folder: Path, cache: Path, question: str, *, run: str = "") -> tuple[Asked, Asked]:
    """Ask a new process; it asks the store twice.

    Args:
        folder: a local lake.
        cache: of far lakes.
        question: of `QUESTIONS`.
        run: an id, for a question about a run.

    Returns:
        What the first and the second time took.
    """
    command = [sys.executable, "-m", "benchmarks.far", str(folder), str(cache), question, run]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    first, second = json.loads(finished.stdout.strip().splitlines()[-1])
    return Asked(*first), Asked(*second)


def main() -> None:
    """Ask twice in this process, and print what it took as JSON."""
    folder, cache, question, run = sys.argv[1:]
    inner = open_filesystem(folder, storage_options={}, settings=Settings())
    slow = SlowFilesystem(inner, latency_s=LATENCY_S, sleep=time.sleep)
    store = CountingFilesystem(slow)
    answers = []
    with open_lake(store, cache=cache, refresh_s=0.0, read_only=True) as lake:
        for _ in range(2):
            store.reset()
            slow.waited_s = 0.0
            began = time.perf_counter()
            QUESTIONS[question](lake, run)
            answers.append(Asked(store.total, slow.waited_s, time.perf_counter() - began))
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
