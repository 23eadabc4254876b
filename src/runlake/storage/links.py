"""Links on a disk, which make part of a run what lies elsewhere: the ways out of its folder.

Nothing that runlake writes is a link. Whoever else may write into a lake's folder could by one have
others read, hand out, write or delete what lies elsewhere on their disk. So what is behind a way
out belongs to no run. A link that stays in the run's folder is none, nor is that folder itself,
which somebody may have moved to a larger disk. Stores that are no folder have no links.
"""

from __future__ import annotations

import os
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from runlake.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runlake.storage.filesystem import Filesystem

# Of the key of a run's folder: `artifacts`, the experiment, the run.
_RUN_PARTS: Final = 3


def led_out(fs: Filesystem, keys: Iterable[str]) -> Iterator[str]:
    """Yield those keys that are a way out, or lie behind one; each folder is looked at once.

    Args:
        fs: the lake's storage.
        keys: of files and folders of runs, all below `artifacts/<experiment>/<run>`.

    Yields:
        Keys, in the order in which they were given.
    """
    if not fs.is_local:
        return
    homes: dict[str, str] = {}
    folders: dict[str, bool] = {}
    for key in keys:
        *above, file = accumulate(key.rstrip("/").split("/"), "{}/{}".format)
        run = [*above, file][_RUN_PARTS - 1]
        if run not in homes:
            homes[run] = os.path.realpath(fs.local_file(run))
        is_out = False
        for folder in above[_RUN_PARTS:]:
            if folder not in folders:
                folders[folder] = is_out or _leads_out(fs, folder, homes[run])
            is_out = folders[folder]
        if is_out or (file != run and _leads_out(fs, file, homes[run])):
            yield key


def refuse_ways_out(fs: Filesystem, keys: Iterable[str]) -> None:
    """Refuse files and folders that `led_out` would yield.

    Args:
        fs: the lake's storage.
        keys: likewise.

    Raises:
        FormatError: one of them lies elsewhere.
    """
    for key in led_out(fs, keys):
        message = (
            f"{fs.url}/{key} is no artifact: a link leads there, and the resolved path is outside "
            "the artifact directory of its run. Nothing is read, written or deleted through it."
        )
        raise FormatError(message, url=fs.url)


def links_below(fs: Filesystem, prefix: str) -> list[str]:
    """Return the keys of all links below a prefix, wherever they lead; none is followed.

    Args:
        fs: the lake's storage.
        prefix: of a run's folder, with a slash at its end.
    """
    if not fs.is_local:
        return []
    top = fs.local_file(prefix.rstrip("/"))
    return [
        prefix + os.path.relpath(path, top).replace(os.sep, "/")
        for folder, folders, files in os.walk(top)
        for path in (os.path.join(folder, name) for name in (*folders, *files))
        if os.path.islink(path)
    ]


def _leads_out(fs: Filesystem, key: str, home: str) -> bool:
    file = fs.local_file(key)
    if not os.path.islink(file):
        return False
    real = os.path.realpath(file)
    return real != home and not real.startswith(home + os.sep)
