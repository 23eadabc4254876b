"""The manifests of a lake in its store: find the newest, and read those that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from runlake.errors import StorageError
from runlake.storage import layout, manifest
from runlake.storage.manifest import Manifest

if TYPE_CHECKING:
    from runlake.storage.filesystem import Filesystem

_TRIES: Final = 5


class Listed(NamedTuple):
    """A manifest in a listing.

    Attributes:
        number: its number.
        size_bytes: its length.
        time_us: when it was written, by the store's clock.
    """

    number: int
    size_bytes: int
    time_us: int


def listed(fs: Filesystem) -> list[Listed]:
    """Return the manifests that are there, by number.

    Raises:
        StorageError: the store cannot be read.
    """
    found = [
        Listed(number, entry.size_bytes, entry.time_us)
        for entry in fs.list(layout.MANIFESTS)
        if (number := layout.parse_manifest(entry.key)) is not None
    ]
    return sorted(found)


def read(fs: Filesystem, number: int, *, lake: str | None) -> Manifest:
    """Read one manifest.

    Args:
        fs: the lake's storage.
        number: which.
        lake: the lake's id; None where the manifest is to tell it.

    Returns:
        The manifest.

    Raises:
        FileNotFoundError: there is none of this number.
        StorageError: the store cannot be read.
        FormatError: it is damaged, another lake's, or newer than this runlake.
    """
    key = layout.manifest(number)
    return manifest.decode(fs.get(key), number=number, key=key, lake=lake, url=fs.url)


def newest(fs: Filesystem, *, lake: str | None) -> Manifest:
    """Return the first of `newest_of`: the manifest that stands."""
    return newest_of(fs, lake=lake)[0]


def newest_of(fs: Filesystem, *, lake: str | None) -> tuple[Manifest, list[Listed]]:
    """Read the newest manifest that a listing shows.

    Args:
        fs: the lake's storage.
        lake: the lake's id; None where the manifest is to tell it.

    Returns:
        The manifest, one with number 0 where there is none yet, whose lake is empty if `lake`
        is None; and the listing.

    Raises:
        StorageError: the store cannot be read, or manifests go faster than they are read.
        FormatError: it is damaged, another lake's, or newer than this runlake.
    """
    for _ in range(_TRIES):
        found = listed(fs)
        if not found:
            return Manifest(lake=lake or ""), found
        try:
            return read(fs, found[-1].number, lake=lake), found
        except FileNotFoundError:  # a newer one has come, and this one was vacuumed
            continue
    message = (
        f"the manifests of {fs.url} are listed but cannot be found, {_TRIES} times. Try again; "
        "`runlake verify` tells more."
    )
    raise StorageError(message, url=fs.url)
