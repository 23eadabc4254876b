"""What table files say of themselves, whether a manifest names them or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runlake.errors import FormatError
from runlake.storage import segments
from runlake.storage.table_files import read_header
from runlake.upkeep.checks.chunks import distrusted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runlake.storage.filesystem import Entry, Filesystem
    from runlake.storage.table_files import TableHeader

QUARANTINE: Final = "quarantine/"
"""Below it lies what a repair took out of a lake, under the key that it had."""
_BATCH: Final = 64


def read_footers(
    fs: Filesystem, entries: Sequence[Entry]
) -> tuple[dict[str, TableHeader], dict[str, str]]:
    """Read the footers of table files; those that are gone meanwhile are left out.

    Args:
        fs: the lake's storage.
        entries: the files.

    Returns:
        By key what each says, and why it cannot be read.

    Raises:
        StorageError: the store cannot be read.
    """
    found: dict[str, TableHeader] = {}
    problems: dict[str, str] = {}
    for start in range(0, len(entries), _BATCH):
        batch = entries[start : start + _BATCH]
        for entry, tail in zip(batch, _tails(fs, batch), strict=True):
            try:
                with distrusted():
                    found[entry.key] = _header(fs, entry, tail)
            except FileNotFoundError:
                continue
            except FormatError as error:
                problems[entry.key] = f"; {error}"
    return found, problems


def _header(fs: Filesystem, entry: Entry, tail: bytes | None) -> TableHeader:
    """Read a footer; the last bytes are None where the file is gone."""
    if tail is None:
        raise FileNotFoundError(entry.key)
    needed = segments.footer_size(tail, key=entry.key)
    return read_header(_tail(fs, entry, needed) if needed > len(tail) else tail, key=entry.key)


def _tails(fs: Filesystem, batch: Sequence[Entry]) -> list[bytes | None]:
    try:
        return list(fs.get_ranges([entry.tail(segments.TAIL_BYTES) for entry in batch]))
    except FileNotFoundError:
        found: list[bytes | None] = []
        for entry in batch:
            try:
                found.append(_tail(fs, entry, segments.TAIL_BYTES))
            except FileNotFoundError:
                found.append(None)
        return found


def _tail(fs: Filesystem, entry: Entry, size: int) -> bytes:
    return fs.get_ranges([entry.tail(size)])[0]
