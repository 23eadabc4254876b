"""The artifacts of one run on their way: what is there already stays, the rest goes in groups."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from runlake.artifacts.paths import check_path
from runlake.artifacts.sending import Item, event, sha256_of
from runlake.errors import InvalidInputError
from runlake.importers.source import Note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from runlake.artifacts.sending import Place, Row
    from runlake.artifacts.store import Artifacts
    from runlake.importers.source import SourceFile

# So many files, or so many bytes, lie on the local disk at once.
_GROUP_FILES: Final = 64
_GROUP_BYTES: Final = 256 << 20


class Brought(NamedTuple):
    """The files of one run.

    Attributes:
        digests: by path the bytes, and the SHA-256 in hex, of all.
        rows: events of those that are new or others than before.
        size_bytes: of these.
        notes: what could not be kept.
    """

    digests: dict[str, tuple[int, str]]
    rows: list[Row]
    size_bytes: int
    notes: list[Note]


class _Fetched(NamedTuple):
    item: Item
    given: SourceFile
    sha256: str


def bring_files(
    given: Iterable[SourceFile],
    artifacts: Artifacts,
    place: Place,
    known: Mapping[str, tuple[int, str]],
) -> Brought:
    """Bring files into the lake; they are there when this returns, their events are not.

    Args:
        given: as the source has them.
        artifacts: of the lake.
        place: experiment and run.
        known: what the lake says of files of this run.

    Returns:
        What is there now.

    Raises:
        SourceError: a file cannot be read.
        StorageError: the store refused.
    """
    found = Brought({}, [], 0, [])
    size = 0
    for group in _groups(given):
        with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
            fetched = list(_fetch(group, Path(folder), found.notes))
            for each in fetched:
                found.digests[each.item.path] = each.item.size_bytes, each.sha256
            new = [each for each in fetched if _is_new(each, known)]
            # Files that say more of themselves are told one by one.
            plain = [each.item for each in new if not each.given.about]
            if plain:
                rows = {row[2]: row for row in artifacts.send(place, plain)}
                found.rows.extend(
                    rows.get(each.item.path) or _event(place, each)
                    for each in new
                    if not each.given.about
                )
            for each in new:
                if each.given.about:
                    path, about = each.item.path, each.given.about
                    row = artifacts.put_file(place, path, file=each.item.file, about=about)
                    found.rows.append(row)
            size += sum(each.item.size_bytes for each in new)
    return found._replace(size_bytes=size)


def _groups(given: Iterable[SourceFile]) -> Iterator[list[SourceFile]]:
    group: list[SourceFile] = []
    size = 0
    for each in given:
        group.append(each)
        size += each.size_bytes or 0
        if len(group) >= _GROUP_FILES or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _fetch(group: Iterable[SourceFile], folder: Path, notes: list[Note]) -> Iterator[_Fetched]:
    for number, each in enumerate(group):
        try:
            path = check_path(each.path)
        except InvalidInputError as error:
            notes.append(Note("artifact left out: its path cannot be kept", str(error)))
            continue
        aside = folder / str(number)
        aside.mkdir()
        file = each.fetch(aside)
        digest = sha256_of(file)
        if each.sha256 and each.sha256 != digest:
            notes.append(Note("artifact differs from the digest that its tracker kept", path))
        yield _Fetched(Item(file, path, file.stat().st_size), each, digest)


def _is_new(each: _Fetched, known: Mapping[str, tuple[int, str]]) -> bool:
    return known.get(each.item.path) != (each.item.size_bytes, each.sha256)


def _event(place: Place, each: _Fetched) -> Row:
    """Return the event of a file that was there, though nobody had said so."""
    return event(place, each.item.path, size=each.item.size_bytes, sha256=each.sha256)
