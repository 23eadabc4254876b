"""The local journal of one writer: the crash log that is also the buffer.

A row is safe from `kill -9` when the call that logged it returns, because it then lies in a
shared memory map (points) or was written to a file (events). The drain thread reads rows from
here; recovery reads the same files after the process is gone.

Points are 32-byte records in files of 1 MiB: step, timestamp, value, key id, and as a mark
written last the low 32 bits of the point's number + 1. Events are lines of JSON in a second
file; each holds its own number and how many points came before it. The sequence number of a
row is the number of points and events before it, so each of the two counters is advanced by
one assignment and an interrupt between two assignments cannot tear them.
"""

from __future__ import annotations

import errno
import os
import threading
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake._lazy import lazy
from runlake.writing import places
from runlake.writing.events import Event, HybridClock, Position, event_line, to_json
from runlake.writing.pages import PAGE_BYTES, Page
from runlake.writing.records import (
    MANY,
    PAGE_POINTS,
    PAGE_SHIFT,
    RECORD_BYTES,
    flat,
    pack,
    packer,
    record_type,
)

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy as np
else:
    np = lazy("numpy")

_IN_PAGE: Final = PAGE_POINTS - 1
_PACK: Final = pack
# What the last column of an event may hold.
_TEXT: Final = (str, type(None))
# A writer ends here and a new one goes on, so that a mark is never used twice.
MAX_POINTS: Final = 1 << 31
# An events file is begun anew at a seal when it has grown past this.
EVENTS_BYTES: Final = 1 << 20


class Journal:
    """The rows of one writer that are not yet sealed in the store.

    Any thread may append; one thread drains. `retire` ends it: appends then return False and
    the caller goes on with `successor`.
    """

    def __init__(
        self, folder: Path | None, hybrid: HybridClock, *, mapped: bool, limit_bytes: int
    ) -> None:
        """Make an empty journal.

        Args:
            folder: an existing, empty folder that this process owns; None keeps rows in memory
                only, for machines where no folder can be written.
            hybrid: the clock shared by the journals of one process.
            mapped: records go through a memory map; else through `os.write`, for filesystems
                where a map is not safe (network, copy-on-write).
            limit_bytes: bytes of pages past which rows are refused.

        Attributes:
            refused: how many points were not taken because the limit was reached, as callers
                that gave up on them have counted with `refuse`.
            failure: why the disk refused, where it did; the journal is then retired.
            keys: the (run_id, key) of each key id.
            on_page: called, under the lock, when a page begins; it must not block.
        """
        self.folder = folder
        self.lock = threading.Lock()
        self.refused = 0
        self.failure: OSError | None = None
        self.on_page: Callable[[], None] = _nothing
        self._clock = hybrid
        self._mapped = mapped
        self._limit_pages = max(1, limit_bytes // PAGE_BYTES)
        self._points = 0
        self._page_end = 0
        self._page: mmap.mmap | bytearray = bytearray()
        self._page_fd = -1
        self._pages: dict[int, Page] = {}
        self._events: list[Event] = []
        self._events_before = 0
        self._event_files: list[tuple[Path, int]] = []
        self._events_fd = -1
        self._keys_fd = -1
        self._retired = False
        self._closed = False
        self.keys: list[tuple[str, str]] = []
        self._key_ids: dict[tuple[str, str], int] = {}
        if folder is not None:
            self._keys_fd = _open_lines(folder / places.KEYS)
            self._open_events(0)

    # Appending: any thread.

    def point(self, key_id: int, step: int, time_us: int, value: float) -> bool:
        """Append one metric point.

        Args:
            key_id: of its run and key, see `key_id`.
            step: of 64 bits.
            time_us: microseconds since 1970.
            value: NaN and infinities are kept.

        Returns:
            False if it was not taken: the journal is retired (go on with its successor), or
            at its limit.
        """
        with self.lock:
            number = self._points
            if number >= self._page_end and not self._turn_page():
                return False
            # The mark comes last in the record; the counter moves after the record is whole.
            _PACK(self._page, (number & _IN_PAGE) << 5, step, time_us, value, key_id, number + 1)
            if self._page_fd >= 0 and not self._write_through(number, 1):
                return False
            self._points = number + 1
        return True

    def points(
        self, key_ids: Sequence[int], numbers: Sequence[float], step: int, time_us: int
    ) -> int:
        """Append points of one step and time.

        Args:
            key_ids: shape (n,).
            numbers: shape (n,), the value of each.
            step: of all.
            time_us: of all, microseconds since 1970.

        Returns:
            How many were taken, from the first on.

        Raises:
            struct.error: the step does not fit 64 bits; nothing was taken.
            OverflowError: as struct.error.
        """
        taken, count = 0, len(key_ids)
        with self.lock:
            number = self._points
            if count < MANY and number + count <= self._page_end and self._page_fd < 0:
                # Nearly every call: all fit into the page, and no slice need be cut.
                fields = flat(number, key_ids, numbers, step=step, time_us=time_us)
                packer(count)(self._page, (number & _IN_PAGE) << 5, *fields)
                self._points = number + count
                return count
            while taken < count:
                number = self._points
                if number >= self._page_end and not self._turn_page():
                    break
                size = min(count - taken, self._page_end - number)
                first = number & _IN_PAGE
                part = slice(taken, taken + size)
                if size < MANY:
                    fields = flat(number, key_ids[part], numbers[part], step=step, time_us=time_us)
                    packer(size)(self._page, first << 5, *fields)
                else:
                    records = np.frombuffer(self._page, record_type(), size, first << 5)
                    records["step"], records["time"] = step, time_us
                    records["value"], records["key"] = numbers[part], key_ids[part]
                    records["mark"] = np.arange(number + 1, number + size + 1)
                    del records
                if self._page_fd >= 0 and not self._write_through(number, size):
                    break
                self._points = number + size
                taken += size
        return taken

    def events(
        self,
        rows: Iterable[tuple[str, str, str, float | None, str | None]],
        *,
        clock_us: int | None = None,
        after_us: int = 0,
    ) -> bool:
        """Append events in one write: all of them or none.

        Args:
            rows: run_id, kind, key, num, str of each.
            clock_us: their clock where they were said before; None means now.
            after_us: a clock that theirs must be above.

        Returns:
            False if the journal is retired, or the disk refused (then it is retired now).

        Raises:
            TypeError: a key or str is no text; nothing is appended. The drain could take neither
                it nor what comes behind it.
        """
        with self.lock:
            if self._retired:
                return False
            number = self._events_before + len(self._events)
            before = self._points
            self._clock.raise_to(after_us)
            taken = [
                Event(before, self._clock.tick() if clock_us is None else clock_us, *row)
                for row in rows
            ]
            for event in taken:
                texts: tuple[Any, Any] = event.key, event.str
                if not isinstance(texts[0], str) or not isinstance(texts[1], _TEXT):
                    message = f"a row of run {event.run_id} holds what is no text: {event[3:]!r}"
                    raise TypeError(message)
            lines = [event_line(number + place, event) for place, event in enumerate(taken)]
            if not self._write_lines(self._events_fd, lines):
                return False
            self._events.extend(taken)
        return True

    def key_id(self, run_id: str, key: str) -> int:
        """Return the id of one (run, key), see `key_ids`; -1 if the journal is retired."""
        return (self.key_ids(run_id, [key]) or [-1])[0]

    def key_ids(self, run_id: str, keys: Iterable[str]) -> list[int]:
        """Return the ids of a run's keys, defined at first use in one write.

        One pair has one id, also when its run is resumed: else its points would be counted in
        two summaries.

        Args:
            run_id: the run.
            keys: of its metrics.

        Returns:
            An id for each; none at all if the journal is retired.
        """
        with self.lock:
            if self._retired:
                return []
            wanted = [(run_id, key) for key in keys]
            new = [pair for pair in dict.fromkeys(wanted) if pair not in self._key_ids]
            if new:
                first = len(self.keys)
                lines = [to_json([first + place, *pair]) for place, pair in enumerate(new)]
                if not self._write_lines(self._keys_fd, lines):
                    return []
                self.keys.extend(new)
                self._key_ids.update(zip(new, range(first, len(self.keys)), strict=True))
            return [self._key_ids[pair] for pair in wanted]

    def refuse(self, count: int) -> None:
        """Count points that their caller gives up, because the limit was reached."""
        with self.lock:
            self.refused += count

    def retire(self, *, close: bool = False) -> Position:
        """Take no more rows.

        Args:
            close: append the event that says that this writer ends here, if it is not there.

        Returns:
            The final position.
        """
        with self.lock:
            if close and not self._closed:
                self._closed = True
                number = self._events_before + len(self._events)
                event = Event(self._points, self._clock.tick(), "", schema.CLOSE, "", None, None)
                # A disk that refuses here loses nothing but the word that nothing follows.
                self._write_lines(self._events_fd, [event_line(number, event)])
                self._events.append(event)
            self._retired = True
            self._page_end = 0
            return Position(self._points, self._events_before + len(self._events))

    @property
    def is_retired(self) -> bool:
        """Whether appends go elsewhere now."""
        return self._retired

    # Draining: one thread.

    def position(self) -> Position:
        """Return the place behind the last row taken."""
        with self.lock:
            return Position(self._points, self._events_before + len(self._events))

    def cut(self, start: Position, end: Position, *, rows: int) -> Position:
        """Return the last place from `start` on that is at most `rows` rows on, up to `end`.

        Args:
            start: a place that is not trimmed.
            end: a place behind it.
            rows: at least 1.
        """
        if end.rows - start.rows <= rows:
            return end
        with self.lock:
            events = self._events[
                start.events - self._events_before : end.events - self._events_before
            ]
        # Row number of each event, counted from start; how many fall below the limit?
        numbers = [event.points - start.points + place for place, event in enumerate(events)]
        inside = bisect_right(numbers, rows - 1)
        return Position(start.points + rows - inside, start.events + inside)

    def read_events(self, start: Position, end: Position) -> list[Event]:
        """Return the events between two places."""
        with self.lock:
            base = self._events_before
            return self._events[start.events - base : end.events - base]

    def amend(self, number: int, event: Event) -> None:
        """Put an event in the place of another; recovery takes the later line of a number.

        Args:
            number: of an event that is not trimmed.
            event: what it is now.
        """
        with self.lock:
            self._events[number - self._events_before] = event
            # A disk that refuses here keeps what was said first, which can be amended again.
            self._write_lines(self._events_fd, [event_line(number, event)])

    def read_points(self, start: Position, end: Position) -> list[memoryview]:
        """Return the records between two places, as pieces of pages.

        Release the pieces before the pages are trimmed.
        """
        pieces = []
        place = start.points
        while place < end.points:
            number = place >> PAGE_SHIFT
            stop = min(end.points, (number + 1) << PAGE_SHIFT)
            low, high = place & _IN_PAGE, stop - (number << PAGE_SHIFT)
            with self.lock:  # the page may be sent to rest meanwhile
                page = self._pages[number]
                held = None if page.buffer is None else memoryview(page.buffer)
            span = slice(low * RECORD_BYTES, high * RECORD_BYTES)
            pieces.append(page.read(span.start, span.stop) if held is None else held[span])
            place = stop
        return pieces

    def trim(self, sealed: Position) -> None:
        """Drop what lies before a place that is sealed in the store and saved beside."""
        with self.lock:
            old = [n for n in self._pages if (n + 1) << PAGE_SHIFT <= sealed.points]
            dropped = [self._pages.pop(n) for n in old]
            del self._events[: sealed.events - self._events_before]
            self._events_before = sealed.events
            stale = [path for path, end in self._event_files[:-1] if end <= sealed.events]
            self._event_files = [pair for pair in self._event_files if pair[0] not in stale]
            if self._events_fd >= 0 and os.fstat(self._events_fd).st_size > EVENTS_BYTES:
                self._roll_events()
        for page in dropped:
            page.drop(delete=True)
        for path in stale:
            path.unlink(missing_ok=True)

    def sync(self) -> None:
        """Bound what a power loss takes: force all files to the disk.

        `fdatasync` and not `mmap.flush`, which holds the interpreter's lock meanwhile.
        """
        with self.lock:
            resting = [page for page in self._pages.values() if page.fd < 0]
            fds = [os.dup(page.fd) for page in self._pages.values() if page.fd >= 0]
            fds += [os.dup(fd) for fd in (self._events_fd, self._keys_fd) if fd >= 0]
        for fd in fds:
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
        for page in resting:
            page.sync()
        if self.folder is not None:
            _sync_folder(self.folder)

    @property
    def size_bytes(self) -> int:
        """Bytes of pages in use."""
        return len(self._pages) * PAGE_BYTES

    def restore(
        self,
        keys: list[tuple[str, str]],
        pages: dict[int, bytearray],
        end: Position,
        events: list[Event],
    ) -> None:
        """Become the retired journal that recovery has read from a dead process's files.

        Args:
            keys: (run_id, key) of each key id.
            pages: whole pages by number.
            end: the number of points, and of events before the first of `events`.
            events: those behind the last seal.
        """
        self.keys = keys
        self._pages = {number: Page(page) for number, page in pages.items()}
        self._points = end.points
        self._events = events
        self._events_before = end.events
        self._retired = self._closed = True

    def abandon_in_child(self) -> None:
        """Let go of everything in a forked child, where the parent's rows are not ours.

        The lock is a new one: another thread of the parent may have held the old one.
        """
        self.lock = threading.Lock()
        self.close()

    def close(self) -> None:
        """Let go of all files; they stay on disk."""
        self.retire()
        with self.lock:
            pages, self._pages = list(self._pages.values()), {}
            self._page = bytearray()
            fds = [fd for fd in (self._events_fd, self._keys_fd) if fd >= 0]
            self._events_fd = self._keys_fd = -1
        for page in pages:
            page.drop(delete=False)
        for fd in fds:
            os.close(fd)

    # Inside, under the lock.

    def _turn_page(self) -> bool:
        """Begin a new page; False if the journal is retired or full."""
        if self._retired:
            return False
        number = self._points >> PAGE_SHIFT
        # It is there already where an interrupt came between these lines before.
        page = self._pages.get(number)
        if page is None:
            if len(self._pages) >= self._limit_pages:
                return False
            path = None if self.folder is None else self.folder / places.page_name(number)
            try:
                page = Page.create(path, mapped=self._mapped)
            except OSError as error:
                self._fail(error)
                return False
        assert page.buffer is not None
        self._pages[number] = page
        self._page = page.buffer
        self._page_fd = -1 if self._mapped else page.fd
        self._page_end = (number + 1) << PAGE_SHIFT
        before = self._pages.get(number - 1)
        if before is not None:
            before.rest()
        self.on_page()
        return True

    def _fail(self, error: OSError) -> None:
        """End the journal because its disk refuses; what it holds stays good."""
        self.failure = error
        self._retired = True
        self._page_end = 0

    def _write_through(self, number: int, count: int) -> bool:
        """Write records to their file where no map does it; False if the disk refused."""
        offset = (number & _IN_PAGE) << 5
        records = self._page[offset : offset + count * RECORD_BYTES]
        try:
            if os.pwrite(self._page_fd, records, offset) == len(records):
                return True
            self._fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        except OSError as error:
            self._fail(error)
        # A torn record has no whole mark behind it, so recovery stops before it.
        return False

    def _open_events(self, first: int) -> None:
        assert self.folder is not None
        path = self.folder / places.events_name(first)
        self._events_fd = _open_lines(path)
        self._event_files.append((path, first))

    def _roll_events(self) -> None:
        end = self._events_before + len(self._events)
        old = self._events_fd
        path, _ = self._event_files[-1]
        try:
            self._open_events(end)
        except OSError:
            return
        self._event_files[-2] = (path, end)
        os.close(old)

    def _write_lines(self, fd: int, lines: list[str]) -> bool:
        """Append whole lines to a file; False if the disk refused."""
        if fd < 0:
            return True
        data = ("\n".join(lines) + "\n").encode()
        before = os.fstat(fd).st_size
        written = 0
        try:
            while written < len(data):
                written += os.write(fd, data[written:])
        except OSError as error:
            os.ftruncate(fd, before)
            self._fail(error)
            return False
        except BaseException:
            # A line cut off by an interrupt would spoil the one that follows it.
            os.ftruncate(fd, before)
            raise
        return True


def _nothing() -> None:
    """Stand where nobody wants to know."""


def _sync_folder(folder: Path) -> None:
    """Force the names of a folder's files to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _open_lines(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
