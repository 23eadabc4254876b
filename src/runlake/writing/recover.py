"""Publish what dead processes of this host left in their journals.

The end of the run is decided once and written to the journal, under the journal's lock,
before anything is uploaded: a second recoverer then finds the same rows and uploads the same.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runlake import clock, schema
from runlake._lazy import lazy
from runlake.errors import RunlakeError, StorageError
from runlake.storage import segments
from runlake.storage.state import Fact, FactBook, State
from runlake.writing import columns, places
from runlake.writing.events import Event, HybridClock, Position, event_line
from runlake.writing.journal import Journal
from runlake.writing.pages import PAGE_BYTES
from runlake.writing.places import Owner, OwnerLock
from runlake.writing.putting import put
from runlake.writing.records import PAGE_SHIFT, RECORD_BYTES
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
        if folder.name.startswith(places.GONE):
            shutil.rmtree(folder, ignore_errors=True)
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
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001 - one bad journal must not keep the others
        known = isinstance(error, RunlakeError | ValueError)
        problem = str(error) if known else f"it cannot be read: {error!r}"
        return Recovered(str(folder), folder.name, 0, problem=problem)
    finally:
        lock.release(remove=done)


def _upload_columns(storage: Storage, folder: Path, owner: Owner) -> int:
    rows = 0
    for name, file in columns.waiting_files(folder, owner.experiment_id):
        data = file.read_bytes()
        # A power loss may have left a file that is not whole.
        table, _ = segments.decode(data, key=name.key)
        put(storage, name, data, table)
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
    keys = _read_keys(folder)
    pages, point_count = _read_pages(folder, sealed, len(keys))
    events = _read_events(folder, sealed, point_count)
    book = FactBook()
    book.load(saved.facts)
    for place, event in enumerate(events, sealed.events):
        fact = Fact(event.clock, event.points + place, event.num, event.str)
        book.add(event.run_id, event.kind, event.key, fact)
    end = Position(point_count, sealed.events + len(events))
    killed: tuple[str, ...] = ()
    # Where it died while it tidied up, its last seal holds that it had closed.
    kinds = [*saved.facts["kind"].to_pylist(), *(event.kind for event in events[-1:])]
    if end.rows and schema.CLOSE not in kinds:
        killed = tuple(sorted(book.open_runs()))
        alive_us = _alive_us(folder, pages, point_count)
        clocks = [event.clock for event in events]
        clocks += [int(moment) for moment in saved.facts["clock"].to_numpy()]
        spoken_us = max(clocks, default=alive_us)
        events += _Ending(spoken_us, max(spoken_us, alive_us)).append(folder, end, killed)
    journal = Journal(None, HybridClock(), mapped=False, limit_bytes=_NO_LIMIT)
    journal.restore(keys, pages, Position(point_count, sealed.events), events)
    writer = Writer(owner.writer, owner.experiment_id, owner.experiment_name, journal)
    writer.resume(sealed, saved.facts, saved.summaries)
    return writer, killed


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a dead writer ends.

    Attributes:
        spoken_us: clock of its last event; what follows says so 1 us later, and so gives way
            to whatever another writer has said since.
        alive_us: when it was last seen to write: the end of its open runs.
    """

    spoken_us: int
    alive_us: int

    def append(self, folder: Path, end: Position, killed: tuple[str, ...]) -> list[Event]:
        """Append the end of the open runs and of the writer to the journal itself."""
        first_us = self.spoken_us + 1
        ended = float(self.alive_us)
        events = [
            Event(end.points, first_us + place, run, schema.STATUS, "", ended, schema.KILLED)
            for place, run in enumerate(killed)
        ]
        close_us = first_us + len(killed)
        events.append(Event(end.points, close_us, "", schema.CLOSE, "", None, None))
        lines = [event_line(end.events + place, event) for place, event in enumerate(events)]
        newest = max(_event_files(folder), default=(0, folder / places.events_name(0)))[1]
        with newest.open("ab") as file:
            # Behind a line that the crash cut off, a new one must begin.
            file.write(("\n" + "\n".join(lines) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        return events


def _alive_us(folder: Path, pages: dict[int, bytearray], points: int) -> int:
    """Return when a dead process last wrote: by its files, and by its last point."""
    newest = max(int(file.stat().st_mtime_ns // 1000) for file in folder.iterdir())
    page = pages.get((points - 1) >> PAGE_SHIFT)
    if page is None:
        return newest
    # The time of a mapped file may lag; the user's time of a point may lie ahead of us.
    place = ((points - 1) & ((1 << PAGE_SHIFT) - 1)) * RECORD_BYTES
    return max(newest, min(int.from_bytes(page[place + 8 : place + 16], "little"), clock.now_us()))


def _lines(file: Path) -> list[list[Any]]:
    """Read lines of JSON; what a crash cut off at the end is passed over."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_bytes().split(b"\n"):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, list) and row and isinstance(row[0], int):
                rows.append(row)
    return rows


def _read_keys(folder: Path) -> list[tuple[str, str]]:
    """Read the (run_id, key) of each key id, up to the first that is missing."""
    # A number met twice was given again after an interrupt; the later line was taken.
    found = {number: tuple(pair) for number, *pair in _lines(folder / places.KEYS)}
    keys: list[tuple[str, str]] = []
    while len(pair := found.get(len(keys), ())) == len(("run_id", "key")):
        keys.append((str(pair[0]), str(pair[1])))
    return keys


def _event_files(folder: Path) -> list[tuple[int, Path]]:
    found = ((places.events_first(file.name), file) for file in folder.iterdir())
    return sorted((first, file) for first, file in found if first is not None)


def _read_events(folder: Path, sealed: Position, points: int) -> list[Event]:
    """Read the events behind the last seal, up to the first hole."""
    found: dict[int, Event] = {}
    for _, file in _event_files(folder):
        for number, *fields in _lines(file):
            # A number met twice was given again after an interrupt; the later line was taken.
            if len(fields) == len(Event._fields):
                found[number] = Event(*fields)
    events: list[Event] = []
    before = sealed.points
    while (event := found.get(sealed.events + len(events))) is not None:
        # Fewer points before it than before its predecessor: an interrupted call left it.
        if not before <= event.points <= points:
            break
        before = event.points
        events.append(event)
    return events


def _read_pages(folder: Path, sealed: Position, key_count: int) -> tuple[dict[int, bytearray], int]:
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
