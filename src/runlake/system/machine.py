"""CPU, memory, disk and network of the machine, or of what a container may use of it.

Megabytes are a million bytes, as MLflow's are. Network and disk transfer count from the first
reading on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from runlake import clock
from runlake._lazy import lazy
from runlake.system.cgroup import Cgroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import psutil
else:
    psutil = lazy("psutil")

MEGABYTE: Final = 1e6
_LOOPBACK: Final = ("lo", "lo0")


class Machine:
    """The readings of one run; rates are over the time since the reading before."""

    def __init__(self, cgroup: Cgroup | None = None, folder: str | None = None) -> None:
        """Take the state that differences are taken from.

        Args:
            cgroup: of this process; None looks it up.
            folder: of the disk that is told about; None is the working folder.
        """
        self.cgroup = Cgroup.of_this_process() if cgroup is None else cgroup
        self._folder = _working_folder() if folder is None else folder
        self._cpus = _own_cpus()
        self._busy = self._busy_s()
        self._before: dict[str, float] = {}
        with suppress(Exception):  # a kernel that does not tell it now does not tell it later
            self._transfer()

    @property
    def cores(self) -> float:
        """How many cores' worth of time this process may use."""
        quota = self.cgroup.quota()
        allowed = len(self._cpus) or os.cpu_count() or 1
        return allowed if quota is None else min(quota.cores, allowed)

    @property
    def memory_bytes(self) -> int:
        """How much memory this process may use."""
        limit, total = self.cgroup.memory_limit(), int(psutil.virtual_memory().total)
        return total if limit is None else min(limit.limit, total)

    def close(self) -> None:
        """Nothing is held."""

    def parts(self) -> Iterable[Callable[[], dict[str, float]]]:
        """Return the readings, each of which may fail alone."""
        return self._cpu, self._memory, self._disk, self._transfer

    def _cpu(self) -> dict[str, float]:
        """Return how much of the CPU time that may be used was used."""
        before, self._busy = self._busy, self._busy_s()
        (kind, busy, possible), (old_kind, old_busy, old_possible) = self._busy, before
        if kind != old_kind or possible <= old_possible:
            return {}  # a quota has changed, or no time has passed
        part = (busy - old_busy) / (possible - old_possible)
        return {"cpu_utilization_percentage": 100 * min(1.0, max(0.0, part))}

    def _busy_s(self) -> tuple[str, float, float]:
        """Return of what, seconds at work, and seconds that there were."""
        quota = self.cgroup.quota()
        if quota is not None and quota.cores < (len(self._cpus) or os.cpu_count() or 1):
            return f"{quota.cores} cores", quota.used_s, quota.cores * clock.monotonic_s()
        times = psutil.cpu_times(percpu=True)
        chosen = [times[cpu] for cpu in self._cpus if cpu < len(times)] or times
        total = idle = 0.0
        for each in chosen:
            counted = each._asdict()
            # The time of guests is in `user` and `nice` already.
            guests = counted.get("guest", 0.0) + counted.get("guest_nice", 0.0)
            total += sum(counted.values()) - guests
            idle += counted["idle"] + counted.get("iowait", 0.0)
        return "cpus", total - idle, total

    def _memory(self) -> dict[str, float]:
        limit = self.cgroup.memory_limit()
        found = psutil.virtual_memory()
        total, used = found.total, found.total - found.available
        if limit is not None and limit.limit < total:
            total, used = limit.limit, limit.used
        return {
            "system_memory_usage_megabytes": used / MEGABYTE,
            "system_memory_usage_percentage": 100 * used / total,
        }

    def _disk(self) -> dict[str, float]:
        found = psutil.disk_usage(self._folder)
        return {
            "disk_usage_percentage": found.percent,
            "disk_usage_megabytes": found.used / MEGABYTE,
            "disk_available_megabytes": found.free / MEGABYTE,
        }

    def _transfer(self) -> dict[str, float]:
        """Return what went over the network, loopback left out, and to and from disks."""
        now: dict[str, float] = {}
        # Without `nowrap` there is no lock that a forked child would find held for ever.
        every = psutil.net_io_counters(pernic=True, nowrap=False)
        cards = [counts for name, counts in every.items() if name not in _LOOPBACK]
        if cards:
            now["network_receive_megabytes"] = sum(each.bytes_recv for each in cards) / MEGABYTE
            now["network_transmit_megabytes"] = sum(each.bytes_sent for each in cards) / MEGABYTE
        disks = None
        with suppress(Exception):  # in some containers disks are not to be seen
            disks = psutil.disk_io_counters(nowrap=False)
        if disks is not None:
            now["disk_read_megabytes"] = disks.read_bytes / MEGABYTE
            now["disk_write_megabytes"] = disks.write_bytes / MEGABYTE
        # What was there before the first reading is not the run's.
        for key, count in now.items():
            self._before.setdefault(key, count)
        return {key: max(0.0, count - self._before[key]) for key, count in now.items()}


def _own_cpus() -> tuple[int, ...]:
    """Return the CPUs that this process may run on; none where they are not known."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return ()


def _working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a text is all
    except OSError:  # it was deleted
        return os.sep
