"""What this host says of its disks: of which type they are, and since when it runs."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

_NETWORK: Final = re.compile(r"nfs|cifs|smb|9p|fuse|lustre|ceph|gluster|beegfs|gpfs|afs|virtiofs")


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Return what tells this boot of the host from any other, empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def filesystem_type(path: Path) -> str:
    """Return the type of the filesystem that holds a path, empty where it cannot be told."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in mounts.splitlines():
        _, point, type_, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, type_
    return kind


def is_network(kind: str) -> bool:
    """Tell whether a filesystem of this type may lie on another host."""
    return _NETWORK.search(kind) is not None
