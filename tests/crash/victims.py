"""A program that starts processes which log, and kills them at random instants.

`python -m tests.crash.victims '<JSON>'` prints one line of JSON for each process killed. It loads
the libraries once and forks, so that a life costs what it does and not what it imports.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import signal
import sys
import threading
import time
import traceback
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from runlake.errors import ConflictError
from runlake.lake import open_lake
from runlake.storage.snapshot import SnapshotExpiredError
from runlake.upkeep.compact import Compactor
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Limits
from runlake.writing import drain, writer

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.lake import Lake
    from runlake.run import Run

EXPERIMENT: Final = "crash"
SWEEP_STEPS: Final = 12
COLUMN_ROWS: Final = 500
_SLOTS: Final = 64
_PARAMS_SLOT: Final = 32
_RUNS_SLOT: Final = 40
_DONE_SLOT: Final = 48
BUDGETS: Final = (1, 1 << 20, 256 << 20)
_CURVES: Final = """
    SELECT run_id, key, count(*), count(DISTINCT step), min(step), max(step)
    FROM metrics GROUP BY ALL
"""
# The share of lives that are ended without waiting for the first step.
EARLY: Final = 0.1


@dataclass(frozen=True)
class Order:
    """What the program is to do.

    Attributes:
        url: the lake.
        deed: what each process does, see `DEEDS`.
        kills: processes to start and kill.
        seed: of the instants.
        threads: that log in each process.
        at_once: processes that live at the same time.
        shortest_s: of a life, from its first step on.
        longest_s: of a life, from its first step on.
        grace_s: of vacuum, at most; 0 takes away at once.
    """

    url: str
    deed: str
    kills: int
    seed: int
    threads: int = 1
    at_once: int = 4
    shortest_s: float = 0.0
    longest_s: float = 0.25
    grace_s: float = 0.0


@dataclass(frozen=True)
class Life:
    """What a process had been told is safe when it was killed.

    Attributes:
        run_id: its run; where there are many, the prefix of their ids.
        steps: for each thread the number of steps whose call had returned.
        params: number of params whose call had returned.
        runs: number of runs whose end had returned.
    """

    run_id: str
    steps: list[int] = field(default_factory=list)
    params: int = 0
    runs: int = 0


class Board:
    """Numbers in shared memory that outlive the process which writes them; never torn."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._numbers = (ctypes.c_int64 * _SLOTS).from_buffer(mmap.mmap(-1, _SLOTS * 8))

    def __getitem__(self, slot: int) -> int:
        return self._numbers[slot]

    def __setitem__(self, slot: int, number: int) -> None:
        self._numbers[slot] = number


def _hurry() -> None:
    """Let a short life hold many uploads, seals and trims."""
    writer.SEAL_UPLOADS = 3  # type: ignore[misc]
    writer.SEAL_BYTES = 8 << 10  # type: ignore[misc]
    drain.SOON_S = 0.01  # type: ignore[misc]


def _log_steps(run: Run, thread: int, board: Board) -> None:
    step = 0
    key, other = f"loss/{thread}", f"acc/{thread}"
    while True:
        if step % 2:
            run.log_metric(key, float(step), step)
        else:
            run.log({key: float(step), other: -float(step)}, step=step)
        step += 1
        board[thread] = step


def _flush_for_ever(lake: Lake) -> None:
    while True:
        lake.flush()


def _train(order: Order, life: Life, board: Board) -> None:
    """Log metrics in some threads and params in another while the rows are uploaded."""
    lake = open_lake(order.url)
    run = lake.start_run(run_id=life.run_id, experiment=EXPERIMENT)
    for thread in range(order.threads):
        threading.Thread(target=_log_steps, args=(run, thread, board), daemon=True).start()
    threading.Thread(target=_flush_for_ever, args=(lake,), daemon=True).start()
    for number in range(1 << 30):
        run.log_param(f"p{number}", number)
        run.set_tag("latest", number)
        board[_PARAMS_SLOT] = number + 1
        time.sleep(0.001)  # else the lines of params are all that a life is spent on


def _sweep(order: Order, life: Life, board: Board) -> None:
    """Run after run, each ended, and the lake closed behind it."""
    lake = open_lake(order.url)
    for number in range(1 << 30):
        board[0] = 0
        run = lake.start_run(run_id=f"{life.run_id}{number:04d}", experiment=EXPERIMENT)
        for step in range(SWEEP_STEPS):
            run.log({"loss": float(step)}, step=step)
            board[0] = step + 1
            if step % 5 == 0:
                lake.flush()
        run.finish()
        board[_RUNS_SLOT] = number + 1
        lake.close()


def _columns(order: Order, life: Life, board: Board) -> None:
    """Log whole columns at once."""
    lake = open_lake(order.url)
    run = lake.start_run(run_id=life.run_id, experiment=EXPERIMENT)
    size = COLUMN_ROWS
    for number in range(1 << 30):
        steps = np.arange(number * size, (number + 1) * size)
        run.log_history({"step": steps, "loss/0": steps.astype(float)})
        board[0] = (number + 1) * size


def _recover(order: Order, life: Life, board: Board) -> None:  # noqa: ARG001 - as the others
    """Bring in what the dead have left."""
    open_lake(order.url).maintain.recover()


def _tend(order: Order, life: Life, board: Board) -> None:
    """Compact in small pieces, and vacuum, again and again."""
    chance = random.Random(life.run_id)  # noqa: S311 - repeatable on purpose
    storage = open_lake(order.url, read_only=True)._storage
    lake = storage.require_lake()
    while True:
        keeper = Compactor(
            storage.fs, lake=lake, limits=Limits(budget_bytes=chance.choice(BUDGETS))
        )
        for experiment_id in keeper.experiments():
            with suppress(ConflictError):
                keeper.compact(experiment_id)
            board[0] += 1
            grace_s = chance.choice([0.0, order.grace_s])
            vacuum(storage.fs, lake=lake, grace_s=grace_s, is_dry_run=False)


def _read(order: Order, life: Life, board: Board) -> None:  # noqa: ARG001 - as the others
    """Take snapshots: of every curve a prefix without a gap, that never becomes shorter."""
    lake = open_lake(order.url, read_only=True, refresh=0)
    seen: dict[tuple[str, str], int] = {}
    while True:
        try:
            rows = lake.sql(_CURVES).rows()
        except SnapshotExpiredError:  # objects go faster than they are read
            continue
        for run_id, key, count, steps, lowest, highest in rows:
            # Steps of two keys that are logged in turn lie two apart.
            if (steps, lowest) != (count, 0) or highest >= 2 * count:
                sys.exit(f"{run_id} {key}: {count} rows, {steps} steps, {lowest} to {highest}")
            if count < seen.get((run_id, key), 0):
                sys.exit(f"{run_id} {key} had {seen[run_id, key]} rows, now {count}")
            seen[run_id, key] = count
        if len(seen) > len(rows):
            sys.exit(f"{len(seen) - len(rows)} curves are gone")
        board[0] += 1


DEEDS: Final[dict[str, Callable[[Order, Life, Board], None]]] = {
    "train": _train,
    "sweep": _sweep,
    "columns": _columns,
    "recover": _recover,
    "tend": _tend,
    "read": _read,
}


def _start(order: Order, life: Life, board: Board) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        _hurry()
        DEEDS[order.deed](order, life, board)
        status = 0
    except BaseException:  # noqa: BLE001 - the process ends here
        traceback.print_exc()
    finally:
        board[_DONE_SLOT] = 1
        os._exit(status)


def _live_and_die(order: Order, chance: random.Random) -> Life:
    """Start one process, wait for a random while, kill it, and return what it was told."""
    board = Board()
    # The prefix of many runs' ids leaves room for their numbers.
    life = Life(uuid.UUID(int=chance.getrandbits(128)).hex[:28])
    pid = _start(order, life, board)
    if chance.random() > EARLY:
        while not (board[0] or board[_PARAMS_SLOT] or board[_DONE_SLOT]):
            time.sleep(0.002)
    time.sleep(chance.uniform(order.shortest_s, order.longest_s))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) not in {-signal.SIGKILL, 0}:
        raise RuntimeError(f"a process ended by itself: {os.waitstatus_to_exitcode(status)}")
    return Life(
        life.run_id,
        [board[thread] for thread in range(order.threads)],
        board[_PARAMS_SLOT],
        board[_RUNS_SLOT],
    )


def main(order: Order) -> None:
    """Start and kill until the number is reached."""
    # Loads what writing needs, and makes the experiment.
    with open_lake(order.url) as lake:
        lake.start_run(experiment=EXPERIMENT).finish()
    lock = threading.Lock()
    left = order.kills

    def work(number: int) -> None:
        nonlocal left
        chance = random.Random(order.seed * 1000 + number)  # noqa: S311 - repeatable on purpose
        while True:
            with lock:
                if not left:
                    return
                left -= 1
            life = _live_and_die(order, chance)
            with lock:
                print(json.dumps(asdict(life)), flush=True)  # noqa: T201 - its result

    workers = [threading.Thread(target=work, args=(number,)) for number in range(order.at_once)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if left:
        sys.exit(1)  # one of them has failed, and said so


if __name__ == "__main__":
    main(Order(**json.loads(sys.argv[1])))
