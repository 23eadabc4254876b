"""Whether a lake's manifests are one history, and its names claimed as they must be."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from runlake import ids
from runlake.errors import FormatError, NewerFormatError
from runlake.storage import layout, manifest, names
from runlake.upkeep.checks.findings import DAMAGED, FOREIGN, HISTORY, MISSING, NEWER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runlake.storage.filesystem import Entry, Filesystem
    from runlake.storage.manifest import Manifest
    from runlake.upkeep.checks.findings import Notebook


@dataclass(slots=True)
class History:
    """The manifests of a lake.

    Attributes:
        numbers: of those that are listed, rising.
        read: those that can be read, by number.
        is_newer: the newest one is of a newer format.
    """

    numbers: list[int] = field(default_factory=list)
    read: dict[int, Manifest] = field(default_factory=dict)
    is_newer: bool = False

    @property
    def top(self) -> int:
        """The number of the newest, 0 if there is none."""
        return max(self.numbers, default=0)

    @property
    def newest(self) -> Manifest | None:
        """The newest, None if it cannot be read."""
        return self.read.get(self.top)


def read_history(
    fs: Filesystem, keys: Iterable[str], book: Notebook, *, lake: str | None
) -> History:
    """Read every manifest, and check that each follows the one before.

    Args:
        fs: the lake's storage.
        keys: of all objects.
        book: where findings go.
        lake: the lake's id, None if it is not known.

    Returns:
        What can be read of them.

    Raises:
        StorageError: the store cannot be read.
    """
    history = History()
    for number in sorted(number for key in keys if (number := layout.parse_manifest(key))):
        key = layout.manifest(number)
        try:
            data = fs.get(key)
        except FileNotFoundError:  # vacuumed since it was listed
            continue
        history.numbers.append(number)
        history.is_newer = False
        try:
            of = lake or str(json.loads(data)["lake"])
            history.read[number] = manifest.decode(
                data, number=number, key=key, lake=of, url=fs.url
            )
        except NewerFormatError as error:
            book.say(key, NEWER, str(error))
            history.is_newer = True
        except (FormatError, ValueError, KeyError, TypeError, RecursionError) as error:
            book.say(key, FOREIGN if _is_foreign(data, lake) else DAMAGED, str(error))
    _check_chain(history, book)
    return history


def _is_foreign(data: bytes, lake: str | None) -> bool:
    try:
        return lake is not None and str(json.loads(data)["lake"]) != lake
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _check_chain(history: History, book: Notebook) -> None:
    for before, after in pairwise(history.numbers):
        one, other = history.read.get(before), history.read.get(after)
        # A manifest that was rebuilt has no parent, and may leave numbers out.
        if after != before + 1 and not (other is not None and other.parent is None):
            book.say(layout.manifest(before + 1), MISSING, f"the next one there is {after}")
        elif one is not None and other is not None and other.parent is not None:
            problem = _break(one, other)
            if problem is not None:
                book.say(layout.manifest(after), HISTORY, problem)


def _break(one: Manifest, other: Manifest) -> str | None:
    """Tell why a manifest cannot follow another."""
    if other.parent != one.nonce:
        return f"its parent is {other.parent}, manifest {one.number} is {one.nonce}"
    if other.commit_us <= one.commit_us:
        return f"its time {other.commit_us} is not after that of manifest {one.number}"
    for writer, last in one.consumed.items():
        if other.consumed.get(writer, last) < last:
            return f"the watermark of writer {writer} went back from {last}"
    gone = one.purged - other.purged
    if gone:
        return f"run {min(gone)} was purged in manifest {one.number}, and is not any more"
    for run_id, lasts in one.copied.items():
        now = other.copied.get(run_id, {})
        lost = [writer for writer, last in lasts.items() if now.get(writer, -1) < last]
        if lost and run_id not in other.purged:
            return f"rows of run {run_id} that were copied of writer {lost[0]} went back"
    return None


def check_claims(fs: Filesystem, entries: Mapping[str, Entry], book: Notebook) -> None:
    """Check that every claim of a name can be read, lies where it must, and none is missing.

    Args:
        fs: the lake's storage.
        entries: all objects by key.
        book: where findings go.

    Raises:
        StorageError: the store cannot be read.
    """
    known: dict[str, list[int]] = {}
    for key in entries:
        number = layout.parse_claim(key)
        if number is None:
            continue
        known.setdefault(key.split("/")[-2], []).append(number)
        try:
            claim = names.decode(fs.get(key), number=number, key=key, url=fs.url)
        except FileNotFoundError:
            book.say(key, MISSING, "a claim was deleted while the lake was checked")
        except NewerFormatError as error:
            book.say(key, NEWER, str(error))
        except (FormatError, RecursionError) as error:
            book.say(key, DAMAGED, str(error))
        else:
            if ids.name_hash(claim.name) != key.split("/")[-2]:
                book.say(key, DAMAGED, f"it claims the name {claim.name!r}, whose key is another")
    for name_hash, numbers in known.items():
        for number in sorted(set(range(1, max(numbers))) - set(numbers)):
            key = layout.claim(name_hash, number)
            book.say(key, MISSING, "later claims of this name are there; claims are never deleted")
