"""One writer: moves the rows of one journal into segments, oldest first.

Only one thread at a time calls a writer's methods: the drain thread, or a recovery. Each
upload covers the rows behind the last sealed segment under a name that covers the upload
before it; a seal fixes the rows, saves the cumulative state beside the journal, and trims.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from runlake import clock, schema
from runlake._lazy import lazy
from runlake.errors import RunlakeError
from runlake.storage import segments, state
from runlake.storage.layout import SegmentName
from runlake.storage.state import Fact, FactBook, State, Summaries
from runlake.writing import marks, places
from runlake.writing.events import Position
from runlake.writing.holds import Holds
from runlake.writing.journal import MAX_POINTS
from runlake.writing.putting import encode, put
from runlake.writing.rows import build, read_points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.storage.engine import Storage
    from runlake.writing.events import Event, Row
    from runlake.writing.journal import Journal
    from runlake.writing.rows import Points
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

SEAL_BYTES: Final = 256 << 10
SEAL_UPLOADS: Final = 32
MAX_SEGMENT_ROWS: Final = 1 << 18
STATE_LIMIT_BYTES: Final = 128 << 10
MAX_KEYS: Final = 100_000
SUPERSEDED_S: Final = 60.0
# At close, neighbours below this are read back and joined; larger ones are worth their name.
SMALL_BYTES: Final = 512 << 10
_MERGED_BYTES: Final = 8 << 20


@dataclass(slots=True)
class _Tail:
    """What has happened to the rows behind the last sealed segment."""

    uploads: int = 0
    size_bytes: int = 0
    name: SegmentName | None = None
    tried: set[SegmentName] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)


class Writer:
    """The rows of one writer id on their way into the store."""

    def __init__(
        self, writer_id: str, experiment_id: str, experiment_name: str, journal: Journal
    ) -> None:
        """Begin at the start of an empty journal; see `resume` for one that is not."""
        self.writer_id = writer_id
        self.experiment_id = experiment_id
        self.experiment_name = experiment_name
        self.journal = journal
        self.book = FactBook()
        self.summaries = Summaries()
        self.sealed = Position(0, 0)
        self.uploaded = Position(0, 0)
        self.ended_runs: set[str] = set()
        self._holds = Holds()
        self.must_end = False
        self.objects = 0
        self._folded = Position(0, 0)
        self._tail = _Tail()
        self._keys_of: dict[str, list[int]] = {}
        self._keys_known = 0
        self._small: list[tuple[SegmentName, int]] = []
        self._superseded: list[tuple[float, SegmentName]] = []

    @property
    def pending(self) -> int:
        """Rows that no upload holds yet."""
        return self.journal.position().rows - self.uploaded.rows

    @property
    def rows(self) -> int:
        """Rows that were logged under this writer's id."""
        return self.journal.position().rows

    @property
    def uploaded_rows(self) -> int:
        """Rows of this writer that the store holds."""
        return self.uploaded.rows

    @property
    def refused(self) -> int:
        """Rows that the journal did not take because it had reached its limit."""
        return self.journal.refused

    @contextmanager
    def holding(self, run_id: str) -> Iterator[bool]:
        """Keep what is known of a run while rows of it are logged, also where it has ended.

        Any thread may.

        Args:
            run_id: the run.

        Yields:
            Whether it is known. If not, what it has said is no longer saved beside the
            journal, and rows of it go to a fresh writer.
        """
        with self._holds.of(run_id):
            yield run_id not in self.ended_runs

    def retire(self) -> None:
        """Take no more rows, and say that this writer ends."""
        self.journal.retire(close=True)

    def close(self) -> None:
        """Let go of the journal's files."""
        self.journal.close()

    def abandon_in_child(self) -> None:
        """Let go of everything in a forked child."""
        self.journal.abandon_in_child()

    def sync(self) -> None:
        """Bound what a power loss takes."""
        self.journal.sync()

    def beat(self) -> None:
        """Show readers that this process lives, while a run is open and has nothing new."""
        if self.book.open_runs():
            self.journal.events([("", schema.HEARTBEAT, "", None, None)])

    def resume(self, sealed: Position, facts: pa.Table, summaries: pa.Table) -> None:
        """Begin behind rows that were sealed before, from the state saved beside the journal.

        Rows counted again without it would give wrong counts, because summaries are cumulative.

        Args:
            sealed: where the state stands.
            facts: as `State.facts`.
            summaries: as `State.summaries`.
        """
        self.sealed = self.uploaded = self._folded = sealed
        self.book.load(facts)
        slots = {pair: number for number, pair in enumerate(self.journal.keys)}
        self.summaries.load(summaries, slots)

    def upload(self, storage: Storage, *, seal: bool = False) -> None:
        """Bring every row that the journal holds now into the store.

        Those from the first on that speaks of a file whose digest is being made come later.

        Args:
            storage: of the lake.
            seal: fix the rows also where they are few, and wait for digests.

        Raises:
            StorageError: the store refused; everything stays in the journal.
            ConflictError: another process wrote other rows under this writer's id.
        """
        while True:
            end = self.journal.position()
            if not seal:
                end = marks.before_waiting(self.journal, self.uploaded, end)
            cut = self.journal.cut(self.sealed, end, rows=MAX_SEGMENT_ROWS)
            if cut.rows > self.uploaded.rows:
                self._put(storage, cut)
            sealable = cut.rows > self.sealed.rows
            if sealable and (seal or cut != end or self._tail.uploads >= SEAL_UPLOADS):
                self._seal(cut)
            if cut == end:
                return

    def settle(self) -> None:
        """Return when the digests are made of all files that rows speak of."""
        marks.wait(self.journal, self.uploaded)

    def delete_superseded(self, storage: Storage, *, at_once: bool = False) -> None:
        """Delete names of ours that a later name covers, 60 s after they were covered.

        The wait keeps a local listing whole, in which names do not come in order.

        Args:
            storage: of the lake.
            at_once: do not wait: the process ends.
        """
        before = clock.monotonic_s() - (0 if at_once else SUPERSEDED_S)
        due = [name.key for moment, name in self._superseded if moment <= before]
        if due:
            try:
                storage.fs.delete_many(due)
            except RunlakeError:
                return  # they do no harm; the next call tries again, and at last vacuum does
            self._superseded = [pair for pair in self._superseded if pair[0] > before]

    def merge(self, storage: Storage) -> None:
        """Join neighbouring small sealed segments, once the writer has ended.

        They are read back in ascending order; after one that is gone (consumed and vacuumed)
        what was read is forgotten, because a merged segment must not have a gap.

        Raises:
            StorageError: the store refused; the segments stay as they are.
        """
        group: list[tuple[SegmentName, bytes]] = []
        for name, _ in sorted(self._small):
            if group and not _may_join(group, name):
                self._join(storage, group)
                group = []
            try:
                group.append((name, storage.fs.get(name.key)))
            except FileNotFoundError:
                group = []
        self._join(storage, group)
        self._small.clear()

    def move_unsealed(self, successor: Callable[[], Writer]) -> Writer:
        """Log every row behind the last seal again under another writer's id.

        Args:
            successor: gives a writer that takes rows; asked again when one takes no more.

        Returns:
            The writer that took the last of them.
        """
        end = self.journal.retire()
        move = _Move(successor)
        for run_id, fact in self.book.open_facts():
            move.event((run_id, schema.STATUS, "", fact.num, fact.str), fact.clock)
        for event in self.journal.read_events(self.sealed, end):
            # That this writer lives, or ends, is not true of its successor.
            if event.kind not in {schema.CLOSE, schema.HEARTBEAT}:
                move.event(event[2:], event.clock)
        points = read_points(self.journal.read_points(self.sealed, end))
        columns = (points.key_ids, points.steps, points.times, points.values)
        for key_id, *point in zip(*map(_plain, columns), strict=True):
            move.point(self.journal.keys[key_id], *point)
        return move.target

    # Inside.

    def _put(self, storage: Storage, cut: Position) -> None:
        """Upload the rows from the last seal to `cut`."""
        points = read_points(self.journal.read_points(self.sealed, cut))
        events = marks.settled(
            self.journal, self.sealed, cut, storage=storage, experiment_id=self.experiment_id
        )
        self._fold(points, events, cut)
        table = build(points, events, self.sealed, self.journal.keys)
        name = SegmentName(
            writer=self.writer_id,
            last=cut.rows - 1,
            count=cut.rows - self.sealed.rows,
            merged=False,
            experiment_id=self.experiment_id,
        )
        current = self._state()
        data = encode(name, self.experiment_name, table, current)
        # A put whose answer was lost may be there all the same.
        self._tail.tried.add(name)
        put(storage, name, data, table)
        covered = sorted(self._tail.tried - {name})
        self._superseded += [(clock.monotonic_s(), old) for old in covered]
        self._tail.tried = {name}
        self._tail.name = name
        self.objects += self._tail.uploads == 0
        self._tail.uploads += 1
        self.uploaded = cut
        self._tail.size_bytes = len(data)
        if len(data) >= SEAL_BYTES:
            self._seal(cut)
        self.must_end = self.must_end or self._should_end(current)

    def _fold(self, points: Points, events: list[Event], cut: Position) -> None:
        """Take the rows between `_folded` and `cut` into the cumulative state."""
        new_points = points.behind(self._folded.points - self.sealed.points)
        self.summaries.add(
            new_points.key_ids, new_points.steps, new_points.times, new_points.values
        )
        skipped = self._folded.events - self.sealed.events
        for place, event in enumerate(events[skipped:], self._folded.events):
            fact = Fact(event.clock, event.points + place, event.num, event.str)
            self.book.add(event.run_id, event.kind, event.key, fact)
            self._tail.touched.add(event.run_id)
        if len(new_points):
            used = np.flatnonzero(np.bincount(new_points.key_ids))
            self._tail.touched.update(self.journal.keys[key_id][0] for key_id in used)
        self._folded = cut

    def _state(self) -> State:
        """Return the cumulative state of the runs that are open or touched since the seal."""
        for number in range(self._keys_known, len(self.journal.keys)):
            self._keys_of.setdefault(self.journal.keys[number][0], []).append(number)
            self._keys_known = number + 1
        return self._state_of(self.book.open_runs() | self._tail.touched)

    def _state_of(self, wanted: set[str]) -> State:
        """Return the cumulative state of some runs."""
        numbers = [number for run in sorted(wanted) for number in self._keys_of.get(run, ())]
        named = [self.journal.keys[number] for number in numbers]
        summaries = self.summaries.table(
            np.array(numbers, dtype=np.int64), [run for run, _ in named], [key for _, key in named]
        )
        return State(self.book.table(wanted), summaries)

    def _should_end(self, current: State) -> bool:
        """Tell whether a new writer id would keep footers fast and memory small.

        A new writer says no fact again, but of metrics that change all the time it would have
        to carry as many.
        """
        if len(self.journal.keys) > MAX_KEYS or self.uploaded.points > MAX_POINTS:
            return True
        if current.facts.nbytes > STATE_LIMIT_BYTES:
            return len(current.encode()[0]) > STATE_LIMIT_BYTES
        if len(self.journal.keys) < MAX_KEYS // 100:
            return False
        open_runs = self.book.open_runs()
        carried = len(open_runs - self._tail.touched)
        is_large = sum(map(len, current.encode())) > STATE_LIMIT_BYTES
        return is_large and carried * 2 > len(open_runs)

    def _seal(self, cut: Position) -> None:
        """Fix the rows before `cut`: they are in the store for good."""
        if self._tail.name is not None and self._tail.size_bytes < SMALL_BYTES:
            self._small.append((self._tail.name, self._tail.size_bytes))
        self._forget_ended(cut)
        self.sealed = cut
        self._tail = _Tail()
        if self.journal.folder is not None:
            try:
                self._save()
            except OSError:
                return  # recovery starts from the seal before; the next one trims for both
        self.journal.trim(cut)

    def _forget_ended(self, cut: Position) -> None:
        """Drop from the state what has ended before `cut`; `ended_runs` tells who resumes.

        A run with rows behind `cut` stays, and one that is held. Whoever resumes or holds it
        does so first and looks into `ended_runs` after, and here it is the other way round, so
        that one sees the other.
        """
        ended = {run for run in self._tail.touched if self.book.has_ended(run)}
        self.ended_runs |= ended
        if ended:
            kept = self._holds.runs() | self._runs_behind(cut)
            self.ended_runs -= kept
            ended -= kept
        self.book.forget(ended)

    def _runs_behind(self, cut: Position) -> set[str]:
        """Return the runs with rows that the journal has taken behind a place."""
        end = self.journal.position()
        points = read_points(self.journal.read_points(cut, end))
        used = np.flatnonzero(np.bincount(points.key_ids)) if len(points) else ()
        runs = {self.journal.keys[key_id][0] for key_id in used}
        return runs | {event.run_id for event in self.journal.read_events(cut, end)}

    def _save(self) -> None:
        """Write the cumulative state beside the journal: where recovery starts."""
        assert self.journal.folder is not None
        # Also runs that this writer says no status of, as a forked child's: rows that follow
        # would else be counted from the start again.
        known = self.book.all_runs() | self._keys_of.keys()
        facts, summaries = self._state_of(known - self.ended_runs).encode()
        saved = {
            "points": self.sealed.points,
            "events": self.sealed.events,
            "facts": facts.decode(),
            "summaries": summaries.decode(),
        }
        target = self.journal.folder / places.SEALED
        temporary = target.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(json.dumps(saved).encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)

    def _join(self, storage: Storage, group: list[tuple[SegmentName, bytes]]) -> None:
        """Put one segment in the place of several; the inputs go only after the put returned."""
        if len(group) < 2:  # noqa: PLR2004 - one alone needs no join
            return
        inputs = [(name, *segments.decode(data, key=name.key)) for name, data in group]
        assert all(before.last + 1 == after.first for (before, *_), (after, *_) in pairwise(inputs))
        table = pa.concat_tables([rows for _, rows, _ in inputs]).unify_dictionaries()
        joined = state.join(footer.state for _, _, footer in inputs)
        first, last = inputs[0][0].first, inputs[-1][0].last
        if table.num_rows != last - first + 1 or sum(map(len, joined.encode())) > STATE_LIMIT_BYTES:
            return
        name = SegmentName(
            writer=self.writer_id,
            last=last,
            count=table.num_rows,
            merged=True,
            experiment_id=self.experiment_id,
        )
        table = table.combine_chunks()
        put(storage, name, encode(name, self.experiment_name, table, joined), table)
        storage.fs.delete_many([old.key for old, _ in group])


def _may_join(group: Sequence[tuple[SegmentName, bytes]], name: SegmentName) -> bool:
    """Tell whether a segment joins the neighbours before it.

    Memory has to hold them all: as many rows as one upload may have, however few their bytes.
    """
    rows = name.count + sum(before.count for before, _ in group)
    size = sum(len(data) for _, data in group)
    is_next = group[-1][0].last + 1 == name.first
    return is_next and rows <= MAX_SEGMENT_ROWS and size < _MERGED_BYTES


class _Move:
    """Rows on their way from one writer to another.

    Attributes:
        target: the writer that takes them now.
    """

    def __init__(self, successor: Callable[[], Writer]) -> None:
        """Begin with the first successor."""
        self._successor = successor
        self.target = successor()

    def event(self, row: Row, clock_us: int) -> None:
        """Say again what was said at a time."""
        while not self.target.journal.events([row], clock_us=clock_us):
            self.target = self._successor()

    def point(self, key: tuple[str, str], step: int, time_us: int, value: float) -> None:
        """Log a point again; one that a full journal refuses is counted."""
        while True:
            journal = self.target.journal
            number = journal.key_id(*key)
            if number >= 0 and journal.point(number, step, time_us, value):
                return
            if not journal.is_retired:
                journal.refuse(1)
                return
            self.target = self._successor()


def _plain(column: NDArray[Any]) -> list[Any]:
    """Return a column as Python numbers."""
    plain: list[Any] = column.tolist()
    return plain


def saved_state(text: bytes) -> tuple[Position, State]:
    """Read what a seal saved beside the journal.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        saved = json.loads(text)
        decoded = State.decode(saved["facts"].encode(), saved["summaries"].encode())
        return Position(int(saved["points"]), int(saved["events"])), decoded
    except (KeyError, TypeError, AttributeError) as error:
        message = f"the state saved beside a journal is damaged: {error!r}"
        raise ValueError(message) from error
