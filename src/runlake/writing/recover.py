"""Publish what dead processes of this host left in their journals.

The end of the run is decided once and written to the journal, under the journal's lock,
before anything is uploaded: a second recoverer then finds the same rows and uploads the same.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import ConflictError, FormatError
from runlake.storage.state import Fact, FactBook, State
from runlake.writing import columns, places
from runlake.writing.journal import (
    PAGE_BYTES,
    PAGE_SHIFT,
    RECORD_BYTES,
    Event,
    HybridClock,
    Journal,
    Position,
    event_line,
)
from runlake.writing.places import Owner, OwnerLock
from runlake.writing.writer import Writer, saved_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    from runlake.storage.engine import Storage
else:
    np = lazy("numpy")

_NO_LIMIT: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found in one journal.

    Attributes:
        folder: the journal's.
        writer: the writer's id.
        rows: rows that were brought into the store.
        killed_runs: runs that were open and are now KILLED.
        problem: why it was left where it is, None if it is done and removed.
    """

    folder: str
    writer: str
    rows: int
    killed_runs: tuple[str, ...] = ()
    problem: str | None = None


def each(storage: Storage, root: Path, *, force: bool = False) -> Iterator[Recovered]:
    """Recover the journals of one lake, one at a time.

    Args:
        storage: of the lake.
        root: of the journals, see `places.choose`.
        force: take also journals of other hosts, and those that no lock protects.

    Yields:
        What was found in each journal whose owner is dead.

    Raises:
        StorageError: the store refused; the journal stays.
    """
    lake = places.lake_folder(root, storage.fs.url)
    if not lake.is_dir():
        return
    for folder in sorted(lake.iterdir()):
        if folder.name.startswith("."):
            continue
        lock = OwnerLock.take(folder, force=force)
        if lock is not None:
            yield _recover(storage, lock, force=force)


def _recover(storage: Storage, lock: OwnerLock, *, force: bool) -> Recovered:
    folder = lock.folder
    done = False
    try:
        owner = lock.owner()
        if owner.host != places.host() and not force:
            where = f"it belongs to host {owner.host}; `runlake recover --force` takes it"
            return Recovered(str(folder), owner.writer, 0, problem=where)
        storage.ensure_lake()
        rows = _upload_columns(storage, folder, owner)
        killed: tuple[str, ...] = ()
        if (folder / places.KEYS).exists():
            writer, killed = load(folder, owner)
            rows += writer.pending
            writer.upload(storage, seal=True)
            writer.close()
        done = True
        return Recovered(str(folder), owner.writer, rows, killed)
    except (ValueError, FormatError, ConflictError) as error:
        return Recovered(str(folder), folder.name, 0, problem=str(error))
    finally:
        lock.release(remove=done)


def _upload_columns(storage: Storage, folder: Path, owner: Owner) -> int:
    rows = 0
    for name, file in columns.waiting_files(folder, owner.experiment_id):
        storage.append(name, file.read_bytes())
        file.unlink()
        rows += name.count
    return rows


def load(folder: Path, owner: Owner) -> tuple[Writer, tuple[str, ...]]:
    """Read a dead process's journal into a writer that can upload it.

    Whoever calls holds the journal's lock. Runs that were open are ended first, in the journal.

    Args:
        folder: the journal's.
        owner: who wrote it.

    Returns:
        The writer, and the runs that were open.

    Raises:
        ValueError: a file is damaged beyond its unfinished end.
        FormatError: the saved state is damaged.
    """
    sealed, saved = Position(0, 0), State.empty()
    if (folder / places.SEALED).exists():
        sealed, saved = saved_state((folder / places.SEALED).read_bytes())
    keys = [(run_id, key) for _, run_id, key in _lines(folder / places.KEYS)]
    pages, point_count = _read_pages(folder, sealed, len(keys))
    events = _read_events(folder, sealed, point_count)
    book = FactBook()
    book.load(saved.facts)
    for place, event in enumerate(events, sealed.events):
        fact = Fact(event.clock, event.points + place, event.num, event.str)
        book.add(event.run_id, event.kind, event.key, fact)
    killed = tuple(sorted(book.open_runs()))
    events += _end(folder, sealed, events, killed, point_count)
    journal = Journal(None, HybridClock(), mapped=False, limit_bytes=_NO_LIMIT)
    journal.restore(keys, pages, Position(point_count, sealed.events), events)
    writer = Writer(owner.writer, owner.experiment_id, owner.experiment_name, journal)
    writer.resume(sealed, saved.facts, saved.summaries)
    return writer, killed


def _end(
    folder: Path, sealed: Position, events: list[Event], killed: tuple[str, ...], points: int
) -> list[Event]:
    """Append the end of the open runs and of the writer to the journal itself."""
    if events and events[-1].kind == schema.CLOSE:
        return []
    last_us = max((event.clock for event in events), default=0) or _newest_us(folder)
    end = [
        Event(points, last_us + 1 + place, run_id, schema.STATUS, "", float(last_us), schema.KILLED)
        for place, run_id in enumerate(killed)
    ]
    end.append(Event(points, last_us + 1 + len(killed), "", schema.CLOSE, "", None, None))
    first = sealed.events + len(events)
    lines = [event_line(first + place, event) for place, event in enumerate(end)]
    newest = max(_event_files(folder), default=(0, folder / places.events_name(0)))[1]
    with newest.open("ab") as file:
        # Behind a line that the crash cut off, a new one must begin.
        file.write(("\n" + "\n".join(lines) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
    return end


def _newest_us(folder: Path) -> int:
    """Return when the journal was last written, where no event tells."""
    return max(int(file.stat().st_mtime_ns // 1000) for file in folder.iterdir())


def _lines(file: Path) -> list[list[Any]]:
    """Read lines of JSON; what a crash cut off at the end is passed over."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_bytes().split(b"\n"):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return rows


def _event_files(folder: Path) -> list[tuple[int, Path]]:
    found = ((places.events_first(file.name), file) for file in folder.iterdir())
    return sorted((first, file) for first, file in found if first is not None)


def _read_events(folder: Path, sealed: Position, points: int) -> list[Event]:
    """Read the events behind the last seal, up to the first hole."""
    found: dict[int, Event] = {}
    for _, file in _event_files(folder):
        for number, *fields in _lines(file):
            # A number met twice was given again after an interrupt; the later line was taken.
            found[number] = Event(*fields)
    events = []
    number = sealed.events
    while number in found and found[number].points <= points:
        events.append(found[number])
        number += 1
    return events


def _read_pages(
    folder: Path, sealed: Position, key_count: int
) -> tuple[dict[int, bytearray], int]:
    """Read the points behind the last seal, up to the first mark that is not the next."""
    pages: dict[int, bytearray] = {}
    count = sealed.points
    number = sealed.points >> PAGE_SHIFT
    while (file := folder / places.page_name(number)).exists():
        page = bytearray(file.read_bytes()[:PAGE_BYTES].ljust(PAGE_BYTES, b"\0"))
        pages[number] = page
        words = np.frombuffer(page, dtype="<u4").reshape(-1, RECORD_BYTES // 4)
        start = number << PAGE_SHIFT
        expected = np.arange(start + 1, start + len(words) + 1, dtype="<u4")
        good = (words[:, 7] == expected) & (words[:, 6] < key_count)
        skip = max(0, sealed.points - start)
        good[:skip] = True
        holes = np.flatnonzero(~good)
        del words
        if len(holes):
            return pages, start + int(holes[0])
        count = start + len(expected)
        number += 1
    return pages, count

