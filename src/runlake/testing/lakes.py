"""Lakes over a filesystem that the caller brings: slow, counting, failing, or a plug-in's own."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from runlake import settings
from runlake.errors import InvalidInputError
from runlake.lake import Lake

if TYPE_CHECKING:
    from runlake.storage.filesystem import Filesystem


def open_lake(
    fs: Filesystem,
    *,
    read_only: bool = False,
    **knobs: Any,  # noqa: ANN401 - of any type
) -> Lake:
    """Open a lake over a filesystem of your own; nothing is read before it is needed.

    Args:
        fs: where the lake lies, for example a `SlowFilesystem` around a folder. Where it is
            not local, readers go by what they may ask of a far store and use the local cache.
        read_only: refuse to write.
        **knobs: fields of `runlake.settings.Settings`, which beat the environment, for example
            `cache`, so that a test starts with an empty one.

    Returns:
        The lake; its URL is the filesystem's.

    Raises:
        InvalidInputError: there is no such knob.

    Example:
        >>> from runlake.settings import Settings
        >>> from runlake.storage.fs import open_filesystem
        >>> from runlake.testing import CountingFilesystem, SlowFilesystem, open_lake
        >>> inner = open_filesystem("memory://far", storage_options={}, settings=Settings())
        >>> slow = SlowFilesystem(inner, latency_s=0.05)
        >>> counting = CountingFilesystem(slow)
        >>> lake = open_lake(counting)
        >>> lake.search_runs().height
        0
    """
    known = {knob.name for knob in fields(settings.Settings)} - {"url"}
    if knobs.keys() - known:
        message = (
            f"{', '.join(sorted(knobs.keys() - known))}: no such knob; there are "
            f"{', '.join(sorted(known))}."
        )
        raise InvalidInputError(message)
    resolved, origin = settings.resolve(url=fs.url, **knobs)
    return Lake(resolved, origin=origin, read_only=read_only, filesystem=fs)
