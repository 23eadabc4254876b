"""This process with its children: what they use of CPU and memory.

Data loaders and other helpers are children; training is the sum. Memory that processes share
is counted in each of them, as `rss` is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runlake import clock
from runlake._lazy import lazy
from runlake.system.machine import MEGABYTE, Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import psutil
else:
    psutil = lazy("psutil")

_PROC: Final = Path("/proc")


class Tree:
    """The readings of one run; rates are over the time since the reading before."""

    def __init__(self, machine: Machine) -> None:
        """Take the state that differences are taken from.

        Args:
            machine: tells what this process may use.
        """
        self._machine = machine
        self._used_s, self._at_s = self._look()[0], clock.monotonic_s()

    def close(self) -> None:
        """Nothing is held."""

    def parts(self) -> Iterable[Callable[[], dict[str, float]]]:
        """Return the readings, each of which may fail alone."""
        return (self._read,)

    def _read(self) -> dict[str, float]:
        used_s, memory, threads, processes = self._look()
        now_s = clock.monotonic_s()
        # Of a child that nobody waited for the time is lost when it ends.
        busy_s, passed_s = max(0.0, used_s - self._used_s), now_s - self._at_s
        self._used_s, self._at_s = used_s, now_s
        found = {
            "process/memory_usage_megabytes": memory / MEGABYTE,
            "process/memory_usage_percentage": 100 * memory / self._machine.memory_bytes,
            "process/threads": float(threads),
            "process/processes": float(processes),
        }
        if passed_s > 0:
            cores = busy_s / passed_s
            found["process/cpu_cores"] = cores
            found["process/cpu_utilization_percentage"] = 100 * cores / self._machine.cores
        return found

    @staticmethod
    def _look() -> tuple[float, int, int, int]:
        """Return seconds of CPU, bytes of memory, threads and number of the processes."""
        used_s, memory, threads, count = 0.0, 0, 0, 0
        for process in _family(os.getpid()):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    used_s += times.user + times.system
                    # Those of children that have ended and were waited for.
                    used_s += getattr(times, "children_user", 0.0)
                    used_s += getattr(times, "children_system", 0.0)
                    memory += process.memory_info().rss
                    threads += process.num_threads()
            except psutil.Error:  # it has just ended
                continue
            count += 1
        return used_s, memory, threads, count


def _family(pid: int) -> Iterator[psutil.Process]:
    """Yield a process and all below it."""
    own = psutil.Process(pid)
    yield own
    if not (_PROC / str(pid) / "task" / str(pid) / "children").exists():
        # Reads of every process of the machine who its parent is.
        yield from own.children(recursive=True)
        return
    waiting = _children(pid)
    while waiting:
        child = waiting.pop()
        try:
            yield psutil.Process(child)
        except psutil.Error:
            continue
        waiting += _children(child)


def _children(pid: int) -> list[int]:
    """Return the children of a process as the kernel lists them, by the thread that made each."""
    found: list[int] = []
    try:
        for thread in (_PROC / str(pid) / "task").iterdir():
            found += map(int, (thread / "children").read_text("ascii").split())
    except OSError:  # it ends meanwhile
        pass
    return found
