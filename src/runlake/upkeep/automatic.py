"""Compaction that starts by itself, in the background, so that nobody has to think of it.

Whoever puts a new object says so; one in six times it is looked whether so many are ripe that
their experiment should be compacted. One thread of the process does it, one experiment at
a time, in small pieces with pauses between them. It never delays who asked, never raises, and
may end at any instant: at the end of the process what is begun gets a few seconds, and the rest
is left to the next process.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from runlake import clock, ids, upkeep
from runlake._lazy import lazy
from runlake.errors import ConflictError, RunlakeError
from runlake.upkeep.stoppable import StoppableFilesystem, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runlake.storage.engine import Storage
    from runlake.storage.snapshot import Snapshot
    from runlake.upkeep import compact, tending, work
else:  # most processes never compact
    compact = lazy("runlake.upkeep.compact")
    tending = lazy("runlake.upkeep.tending")
    work = lazy("runlake.upkeep.work")

ONE_IN: Final = 6
"""Of so many new objects one is followed by a look at the log.

Processes know nothing of each other, and each may put one object and end. That none of 128
objects is followed by a look then has the probability (5/6)^128, which is below 1e-10.
"""
THOROUGH_ONE_IN: Final = 3
"""Of so many looks one looks for rows of purged runs too, which costs far more."""
MANY_LIVE: Final = 4096
"""Above so many live segments, which are those of open writers, looks are as much rarer.

A look has to list them all; so the listings of a day grow with the writers, not with their square.
"""
END_S: Final = 5.0
"""So long the end of a process waits for a compaction that has begun."""
# So long it waits for a request that does not answer, which may be left alone safely; and for a
# piece of work: a library that is cut off in the middle would end the process by a signal.
_STOP_S: Final = 1.0
_PIECE_S: Final = 10.0
_POLL_S: Final = 0.05
_SEEN_AGAIN_S: Final = 60.0
# After so long at work it pauses for as long.
_SPELL_S: Final = 0.02
BUDGET_BYTES: Final = 64 << 20
"""What a compaction in the background may hold in memory."""
# A merge of more is left to `runlake compact`: it would take a training job long.
_MERGE_BYTES: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class _Task:
    """An experiment that may be due; `tell` is None where a reader asks.

    `seen` is told how many live segments a look has shown.
    """

    storage: Storage
    experiment_id: str
    tell: Callable[[str], None] | None
    seen: Callable[[str, int], None]

    @property
    def key(self) -> tuple[str, str]:
        return self.storage.url, self.experiment_id


@final
class Session:
    """One thread's turn at what waits.

    Attributes:
        is_asking: it waits for the store now.
    """

    def __init__(self) -> None:
        """Begin."""
        self.is_asking = False
        self._since_s = clock.monotonic_s()
        self._hurried, self._stopped = threading.Event(), threading.Event()

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more may be begun."""
        return self._stopped.is_set()

    def hurry(self) -> None:
        """Pause no more: somebody waits."""
        self._hurried.set()

    def stop(self) -> None:
        """End what is under way at the next pause or request."""
        self._stopped.set()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask the store for something; not any more once this is to end."""
        if self.is_stopped:
            raise Stopped
        self.is_asking = True
        try:
            yield
        finally:
            self.is_asking = False

    def pause(self) -> None:
        """Leave half of the time to others; end here if told to."""
        if self.is_stopped:
            raise Stopped
        worked_s = clock.monotonic_s() - self._since_s
        if worked_s >= _SPELL_S:
            self._hurried.wait(worked_s)
            self._since_s = clock.monotonic_s()

    def sleep(self, seconds: float) -> None:
        """Wait for others, but not once this is to end."""
        self._stopped.wait(seconds)


@final
class _Background:
    """The one thread of a process that compacts what may be due, while there is something."""

    def __init__(self, *, is_barred: bool = False) -> None:
        self._is_barred = is_barred
        self._changed = threading.Condition()
        self._waiting: dict[tuple[str, str], _Task] = {}
        self._serving: Session | None = None
        self._failed: set[str] = set()

    @property
    def is_serving(self) -> bool:
        return self._serving is not None

    def offer(self, task: _Task, *, now: bool) -> None:
        """Keep an experiment in mind; start on it now, or when a thread takes over."""
        if self._is_barred or (task.tell is None and task.storage.url in self._failed):
            return
        with self._changed:
            self._waiting[task.key] = task
        session = self.take_over() if now else None
        if session is None:
            return
        thread = threading.Thread(
            target=self.serve, args=(session,), name="runlake-upkeep", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends
            with self._changed:
                self._serving = None

    def take_over(self) -> Session | None:
        """Return a session for a thread to serve; None if nothing waits, or another serves."""
        with self._changed:
            if self._serving is not None or not self._waiting:
                return None
            self._serving = session = Session()
            return session

    def serve(self, session: Session) -> None:
        """Do what waits, until nothing does or the session is stopped."""
        while True:
            with self._changed:
                if session.is_stopped or not self._waiting:
                    self._serving = None
                    self._changed.notify_all()
                    return
                task = self._waiting.pop(next(iter(self._waiting)))
            try:
                self._do(task, session)
            except BaseException:  # the thread ends, and nobody is to wait for it
                with self._changed:
                    self._serving = None
                    self._changed.notify_all()
                raise

    def end(self, timeout_s: float) -> None:
        """Let what is begun end in time; stop it then, and forget the rest."""
        with self._changed:
            session = self._serving
            if session is not None:
                session.hurry()
                self._changed.wait_for(lambda: self._serving is not session, timeout_s)
                session.stop()
                waited_s = 0.0
                while self._serving is session and waited_s < _PIECE_S:
                    if session.is_asking and waited_s >= _STOP_S:
                        break
                    self._changed.wait(_POLL_S)
                    waited_s += _POLL_S
            self._waiting.clear()

    def _do(self, task: _Task, session: Session) -> None:
        """Compact an experiment if it is due."""
        storage = task.storage
        try:
            lake = storage.lake_id()
            if lake is None or storage.conditional_create is False:
                return
            fs = StoppableFilesystem(storage.fs, asking=session.asking)
            compactor = compact.Compactor(
                fs,
                lake=lake,
                limits=work.Limits(budget_bytes=BUDGET_BYTES, merge_bytes=_MERGE_BYTES),
                pause=session.pause,
                sleep=session.sleep,
            )
            is_thorough = ids.jitter() * THOROUGH_ONE_IN < 1
            live, is_due = compactor.look(task.experiment_id, is_thorough=is_thorough)
            task.seen(task.experiment_id, live)
            if is_due:
                tending.tend(fs, compactor, task.experiment_id, lake=lake)
        except (Stopped, ConflictError):
            return
        except Exception as error:  # noqa: BLE001 - whoever logs or reads must not fail by it
            self._say(task, error)

    def _say(self, task: _Task, error: Exception) -> None:
        """Say once what keeps a lake from being compacted, to writers only."""
        url = task.storage.url
        if url not in self._failed and task.tell is not None:
            kind = "" if isinstance(error, RunlakeError) else f"{type(error).__name__}: "
            task.tell(
                f"{url!r} could not be compacted in the background: {kind}{error} Nothing is "
                "lost; it is tried again. RUNLAKE_COMPACT=off leaves it to `runlake compact`."
            )
        self._failed.add(url)


_background = _Background()


@final
class Keeper:
    """Of one lake in this process: notices when an experiment may be due. It never raises."""

    def __init__(self, storage: Storage, *, is_on: bool, tell: Callable[[str], None]) -> None:
        """Start nothing.

        Args:
            storage: of the lake.
            is_on: False: never start anything.
            tell: warns the user, at most once.
        """
        self._storage, self._is_on, self._tell = storage, is_on, tell
        self._until_look: dict[str, int] = {}
        self._live: dict[str, int] = {}
        self._seen_s: dict[str, float] = {}

    def put(self, experiment_id: str, count: int = 1, *, now: bool = True) -> None:
        """Hear that new objects were put; one in six times, have the log looked at.

        Called by one thread at a time.

        Args:
            experiment_id: the partition that they are in.
            count: how many.
            now: do it on a thread of its own; else when a thread calls `take_over`.
        """
        if not self._is_on or not count:
            return
        left = self._until_look.get(experiment_id)
        if left is None:  # where a process puts one object and ends, it looks 1 in 6 times
            left = int(ids.jitter() * ONE_IN)
        is_due = left < count
        live = self._live.get(experiment_id, 0)
        self._until_look[experiment_id] = (left - count) % every(live)
        if is_due:
            _background.offer(self._task(experiment_id, self._tell), now=now)

    def saw(self, snapshot: Snapshot) -> bool:
        """Hear what a reader saw; have experiments with many live segments looked at.

        Args:
            snapshot: just taken.

        Returns:
            Whether there are such experiments.
        """
        if not self._is_on or len(snapshot.segments) <= upkeep.SEEN_SEGMENTS:
            return False
        has_many = False
        counts = Counter(segment.name.experiment_id for segment in snapshot.segments)
        now_s = clock.monotonic_s()
        for experiment_id, count in counts.items():
            again_s = self._seen_s.get(experiment_id, now_s)
            if count > upkeep.SEEN_SEGMENTS and now_s >= again_s:
                has_many = True
                self._seen_s[experiment_id] = now_s + _SEEN_AGAIN_S
                _background.offer(self._task(experiment_id, None), now=True)
        return has_many

    def _task(self, experiment_id: str, tell: Callable[[str], None] | None) -> _Task:
        return _Task(self._storage, experiment_id, tell, self._live.__setitem__)


def every(live: int) -> int:
    """Return after how many new objects of a process it looks again.

    Args:
        live: live segments of the experiment at the last look.
    """
    return max(ONE_IN, ONE_IN * live // MANY_LIVE)


def take_over() -> Session | None:
    """Let the calling thread do what waits: pass the session to `serve`.

    Returns:
        None if there is nothing to do, or another thread does it.
    """
    return _background.take_over()


def serve(session: Session) -> None:
    """Do what waits, until nothing does."""
    _background.serve(session)


def end(timeout_s: float = END_S) -> None:
    """End what is under way: the process ends. It may begin anew after.

    Args:
        timeout_s: how long it may go on; to stop may take a second more, and as long as a
            piece of work that is under way.
    """
    _background.end(timeout_s)


def _after_fork_in_child() -> None:
    global _background  # noqa: PLW0603 - one for each process
    # What the parent's thread held locked stays locked here, so nothing like it is begun.
    _background = _Background(is_barred=_background.is_serving)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
