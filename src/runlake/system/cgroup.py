"""What the control group of this process may use, and what it uses: Linux, versions 1 and 2.

A container's machine is its control group: 30 % of a host of 64 cores says nothing to somebody
who may use two of them. Limits may stand at any group above the process's own; the least counts,
and use is then read where that limit stands. They are read anew each time, because they may be
changed while a process runs.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

_MOUNT: Final = Path("/sys/fs/cgroup")
_SELF: Final = Path("/proc/self/cgroup")
# A group without a limit shows a number near this in version 1.
_NO_LIMIT: Final = 1 << 60


class Quota(NamedTuple):
    """CPU time: how many cores' worth may be used, and how many seconds were."""

    cores: float
    used_s: float


class Memory(NamedTuple):
    """Memory in bytes: the limit, and what is used without the cache that can be dropped."""

    limit: int
    used: int


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The folders of the groups that this process is in, each with those above it.

    Attributes:
        unified: of version 2.
        cpu: of the controller `cpu` of version 1.
        account: of the controller `cpuacct` of version 1.
        memory: of the controller `memory` of version 1.
    """

    unified: tuple[Path, ...] = ()
    cpu: tuple[Path, ...] = ()
    account: tuple[Path, ...] = ()
    memory: tuple[Path, ...] = ()

    @classmethod
    def of_this_process(cls, listed: Path = _SELF, mount: Path = _MOUNT) -> Cgroup:
        """Find the groups of this process.

        Args:
            listed: where the kernel lists them.
            mount: where the filesystems of the groups are.

        Returns:
            Their folders; none where there are no control groups.
        """
        found: dict[str, tuple[Path, ...]] = {}
        lines: list[str] = []
        with suppress(OSError):
            lines = listed.read_text("utf-8").splitlines()
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if not controllers:
                # Beside version 1, version 2 lies one folder deeper.
                roots = [mount, mount / "unified"]
                found["unified"] = tuple(
                    folder for root in roots for folder in _with_parents(root, path)
                )
            for controller in controllers.split(","):
                if controller in _FIELDS:
                    together = mount / controllers
                    root = together if together.is_dir() else mount / controller
                    found[_FIELDS[controller]] = _with_parents(root, path)
        return cls(**found)

    def quota(self) -> Quota | None:
        """Return the least quota of CPU time with what was used of it; None if there is none."""
        found = []
        for folder in self.unified:
            words = _words(folder / "cpu.max")
            if len(words) > 1 and words[0].isdigit():
                used = _stat(folder / "cpu.stat", "usage_usec")
                if used is not None:
                    found.append(Quota(int(words[0]) / int(words[1]), used / 1e6))
        is_parallel = len(self.cpu) == len(self.account)
        for place, folder in enumerate(self.cpu):
            limit = _number(folder / "cpu.cfs_quota_us")
            period = _number(folder / "cpu.cfs_period_us")
            account = self.account[place if is_parallel else 0] if self.account else folder
            used = _number(account / "cpuacct.usage")
            if limit is not None and limit > 0 and period and used is not None:
                found.append(Quota(limit / period, used / 1e9))
        return min(found, default=None)

    def memory_limit(self) -> Memory | None:
        """Return the least limit of memory with what is used of it; None if there is none."""
        found = []
        for folders, names in (
            (self.unified, ("memory.max", "memory.current", "inactive_file")),
            (
                self.memory,
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            ),
        ):
            for folder in folders:
                limit, used = _number(folder / names[0]), _number(folder / names[1])
                if limit is not None and limit < _NO_LIMIT and used is not None:
                    cache = _stat(folder / "memory.stat", names[2]) or 0
                    found.append(Memory(limit, max(0, used - cache)))
        return min(found, default=None)


_FIELDS: Final = {"cpu": "cpu", "cpuacct": "account", "memory": "memory"}


def _with_parents(root: Path, path: str) -> tuple[Path, ...]:
    """Return the folders from a group up to the root; those that are there.

    In a container the path may be the host's, while only the root is to be seen.
    """
    place = root / path.lstrip("/")
    upwards = [place, *place.parents]
    folders = upwards[: upwards.index(root) + 1] if root in upwards else [root]
    return tuple(folder for folder in folders if folder.is_dir())


def _words(file: Path) -> list[str]:
    with suppress(OSError):
        return file.read_text("utf-8").split()
    return []


def _number(file: Path) -> int | None:
    words = _words(file)
    with suppress(ValueError):
        return int(words[0]) if words else None
    return None


def _stat(file: Path, name: str) -> int | None:
    words = _words(file)
    with suppress(ValueError):
        return int(words[words.index(name) + 1])
    return None
