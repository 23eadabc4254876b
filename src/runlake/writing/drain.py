"""The one thread that moves rows: journals in, objects in the store out.

It decides when (cadence, backlog, a flush, the end), holds on when the store is ill (back off,
keep journaling), and hands over from one writer id to the next when a writer must end. Calls
that log rows never wait for it.
"""

from __future__ import annotations

import math
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from runlake import clock, ids
from runlake.errors import ConflictError, RunlakeError
from runlake.upkeep import automatic
from runlake.writing import drains, lifecycle, notices, recover
from runlake.writing.columns import ColumnWriter
from runlake.writing.journals import Journals
from runlake.writing.lanes import FAR, LOCAL, Lane, Stop, Target, W, settled
from runlake.writing.notices import tell
from runlake.writing.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.settings import Settings
    from runlake.storage.engine import Storage
    from runlake.storage.snapshot import Snapshot
    from runlake.writing import places

# A run that has just ended is looked for; many that end at once share one upload.
SOON_S: Final = 0.25
SYNC_S: Final = 5.0
_BACKOFF_S: Final = 60.0


class Drain:
    """All writers of one process in one lake, and the thread that serves them."""

    def __init__(self, storage: Storage, settings: Settings) -> None:
        """Nothing starts before the first row."""
        self.storage = storage
        self._settings = settings
        self._cadence = LOCAL if storage.fs.is_local else FAR
        self._reset()
        drains.ALL.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._done = threading.Condition()
        self._lanes: list[Lane[Any]] = []
        self._current: dict[str, Lane[Writer]] = {}
        self._columns: dict[str, Lane[ColumnWriter]] = {}
        self._thread: threading.Thread | None = None
        self._stop = Stop()
        self._keeper = automatic.Keeper(
            self.storage, is_on=self._settings.compact == "auto", tell=tell
        )
        self._journals = Journals(self.storage.fs.url, self._settings)
        self._recovery: Iterator[object] | None = None
        self._synced_s = clock.monotonic_s()
        self._rows_done = 0

    @property
    def place(self) -> places.Place:
        """Where journals lie, chosen at first use."""
        return self._journals.place

    @property
    def pending(self) -> int:
        """Rows that the store does not hold yet."""
        return sum(lane.writer.pending for lane in list(self._lanes) if not lane.done)

    @property
    def rows_logged(self) -> int:
        """Rows that this process has logged so far."""
        lanes = list(self._lanes)
        rows: int = sum(lane.writer.rows for lane in lanes)
        return self._rows_done + rows

    # For runs: any thread.

    def writer(self, experiment_id: str, experiment_name: str) -> Writer:
        """Return the writer of this process for an experiment, made at first use."""
        with self._lock:
            lane = self._current.get(experiment_id)
            if lane is None or lane.writer.journal.is_retired:
                lane = self._replace(experiment_id, experiment_name)
            return lane.writer

    def fresh_writer(self, experiment_id: str, experiment_name: str) -> Writer:
        """Return a new writer: for a run that the current one has ended already."""
        with self._lock:
            return self._replace(experiment_id, experiment_name).writer

    def columns(self, experiment_id: str, experiment_name: str) -> ColumnWriter:
        """Return the writer for columns that are given at once."""
        with self._lock:
            lane = self._columns.get(experiment_id)
            if lane is None or lane.writer.is_retired:
                writer_id = ids.new_writer_id(clock.now_us())
                lock = self._journals.own(writer_id, experiment_id, experiment_name)
                folder = None if lock is None else lock.folder
                writer = ColumnWriter(writer_id, experiment_id, experiment_name, folder)
                lane = self._columns[experiment_id] = self._add(writer, lock)
            return lane.writer

    def soon(self, within_s: float = SOON_S) -> None:
        """Upload within a quarter of a second, or so many: a run has begun or ended, say."""
        limit = clock.monotonic_s() + within_s
        for lane in list(self._lanes):
            lane.hurried_s = min(lane.hurried_s, limit)
            lane.due_s = min(lane.due_s, limit)
        self._wake.set()

    def wake(self) -> None:
        """Look at once whether something is due."""
        self._wake.set()

    def saw(self, snapshot: Snapshot) -> None:
        """Have experiments compacted of which a reader has seen many objects.

        Args:
            snapshot: what it saw.
        """
        if self._keeper.saw(snapshot):
            lifecycle.watch_drain(self)

    def flush(self, timeout_s: float) -> None:
        """Return when every row logged before the call is in the store.

        Files that were copied are brought to the disk and hashed first, however long that takes.

        Args:
            timeout_s: seconds to wait for the store.

        Raises:
            StorageError: the store refused, or did not answer in time; the rows stay in the
                journal and go out later.
        """
        lanes = settled(self._lanes)
        targets = [Target(lane, lane.writer.rows, lane.attempts) for lane in lanes]
        for lane in lanes:
            lane.flush_wanted = True
        self._wake.set()

        def are_settled() -> bool:
            return all(target.is_settled() for target in targets)

        with self._done:
            in_time = self._done.wait_for(are_settled, timeout_s)
        left = sum(target.left for target in targets)
        if left:
            errors = [target.lane.error for target in targets if target.lane.error is not None]
            cause = errors[0] if errors else None
            why = f"{cause}" if in_time else f"no answer within {timeout_s:g} s"
            raise notices.not_flushed(self.storage.fs.url, left, why) from cause

    def close(self, timeout_s: float) -> None:
        """End all writers: upload, say that they end, join small segments.

        What could not be sent within the time stays in the journal, is said, and goes out at
        the next opening of the lake.

        Args:
            timeout_s: seconds to wait for the store.
        """
        self.begin_close()
        self.end_close(timeout_s)

    def begin_close(self) -> float:
        """End all writers without waiting; return the setting `close_timeout_s`."""
        limit_s = self._settings.close_timeout_s
        with self._lock:
            for lane in self._lanes:
                self._end(lane)
            self._current.clear()
            self._columns.clear()
            self._stop.until_s = clock.monotonic_s() + limit_s
            self._stop.wanted = True
        self._wake.set()
        return limit_s

    def end_close(self, timeout_s: float) -> None:
        """Wait until everything is out, or say what is not.

        Args:
            timeout_s: seconds to wait.
        """
        settled(self._lanes)
        thread, stop = self._thread, self._stop
        stop.until_s = clock.monotonic_s() + timeout_s
        self._wake.set()
        if thread is not None and stop.ended.wait(timeout_s) and not stop.is_keeping:
            thread.join()
        with self._lock:
            ended = [lane for lane in self._lanes if lane.ending]
            self._rows_done += sum(lane.writer.uploaded_rows for lane in ended)
            # What other threads have begun meanwhile goes on.
            self._lanes = [lane for lane in self._lanes if not lane.ending]
            self._thread, self._stop = None, Stop()
            if self._lanes:
                self._start()
        left = [lane for lane in ended if not lane.done]
        if left:
            notices.tell_left(self.storage.fs.url, left, root=self._journals.place.root)

    def abandon_in_child(self) -> None:
        """Drop the parent's writers in a forked child; the child's first row makes its own."""
        for lane in self._lanes:
            lane.writer.abandon_in_child()
            if lane.lock is not None and not lane.done:  # else its descriptor is closed
                lane.lock.abandon_in_child()
        self._reset()

    # Making and ending writers, under the lock.

    def _replace(self, experiment_id: str, experiment_name: str) -> Lane[Writer]:
        old = self._current.get(experiment_id)
        if old is not None:
            self._end(old)
            failure = old.writer.journal.failure
            if failure is not None:
                self._journals.disk_failed(failure)
        writer_id = ids.new_writer_id(clock.now_us())
        lock = self._journals.own(writer_id, experiment_id, experiment_name)
        try:
            journal = self._journals.open(lock, experiment_id=experiment_id)
        except OSError as error:
            self._journals.disk_failed(error)
            if lock is not None:
                lock.release(remove=True)
            lock, journal = None, self._journals.open(None, experiment_id=experiment_id)
        journal.on_page = self._wake.set
        lane = self._add(Writer(writer_id, experiment_id, experiment_name, journal), lock)
        self._current[experiment_id] = lane
        return lane

    def _add(self, writer: W, lock: places.OwnerLock | None) -> Lane[W]:
        now = clock.monotonic_s()
        lane = Lane(writer, lock, born_s=now, due_s=now + self._cadence.first_s, put_s=now)
        self._lanes.append(lane)
        if self._thread is None:
            self._start()
        return lane

    def _start(self) -> None:
        if self._journals.place.root is not None:
            self._recovery = recover.each(self.storage, self._journals.place.root)
        thread = threading.Thread(target=self._run, name="runlake-drain", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            notices.tell_no_thread(self.storage.fs.url, error)
            return
        self._thread = thread
        lifecycle.watch_drain(self)

    @staticmethod
    def _end(lane: Lane[Any]) -> None:
        lane.writer.retire()
        lane.ending = True

    # The thread.

    def _run(self) -> None:
        stop = self._stop
        try:
            self._move_rows(stop)
        finally:
            session = automatic.take_over()
            stop.is_keeping = session is not None
            stop.ended.set()
        if session is not None:
            automatic.serve(session)

    def _move_rows(self, stop: Stop) -> None:
        """Serve every writer when it is due, until told to end, and then bring all out."""
        while not stop.is_wanted():
            self._wake.wait(self._until_due_s())
            self._wake.clear()
            for lane in list(self._lanes):
                if not lane.done and not stop.is_wanted() and self._is_due(lane):
                    self._serve(lane)
            with self._lock:
                if not stop.is_wanted():
                    done = [lane for lane in self._lanes if lane.done]
                    self._rows_done += sum(lane.writer.uploaded_rows for lane in done)
                    self._lanes = [lane for lane in self._lanes if not lane.done]
            with self._done:
                self._done.notify_all()
            if not stop.is_wanted():
                self._upkeep()
        self._finish_all(stop)

    def _finish_all(self, stop: Stop) -> None:
        """Bring out all that ends, trying again until the time is over, and let go of it."""
        ours: list[Lane[Any]] = []
        is_first = True
        while True:
            with self._lock:
                if self._stop is stop:  # else others serve what came since
                    ours = [lane for lane in self._lanes if lane.ending]
            for lane in ours:
                if not lane.done and (is_first or self._is_due(lane)):
                    self._serve(lane)
            with self._done:
                self._done.notify_all()
            is_first = False
            left = [lane for lane in ours if not lane.done]
            moved = [lane.successor for lane in ours if lane.successor is not None]
            left += [lane for lane in moved if not lane.done]
            now = clock.monotonic_s()
            if not left or now >= stop.until_s:
                break
            if not any(self._is_due(lane) for lane in left):
                due_s = min(lane.due_s for lane in left)
                self._wake.wait(max(0.0, min(due_s, stop.until_s) - now))
                self._wake.clear()
        for lane in ours:
            if not lane.done:
                lane.writer.close()
                if lane.lock is not None:
                    lane.lock.release(remove=False)

    def _until_due_s(self) -> float:
        now = clock.monotonic_s()
        longest = SYNC_S if self._lanes else self._settings.heartbeat_s
        return min([longest, *(lane.wait_s(now, longest) for lane in list(self._lanes))])

    def _is_due(self, lane: Lane[Any]) -> bool:
        return lane.is_due(clock.monotonic_s())

    def _serve(self, lane: Lane[Any]) -> None:
        """Upload one writer's rows; an ill store makes it due again later."""
        lane.flush_wanted = False
        writer = lane.writer
        # Asked once: a writer that ends while this uploads has rows that this does not see.
        is_ending = lane.ending
        before = writer.uploaded_rows
        # What hurries while this uploads may have rows that this does not see.
        lane.hurried_s = math.inf
        try:
            self.storage.ensure_lake()
            writer.upload(self.storage, seal=is_ending)
            writer.delete_superseded(self.storage, at_once=is_ending)
            if is_ending:
                self._finish(lane)
        except ConflictError as error:
            try:
                self._rekey(lane, error)
            except Exception as refused:  # noqa: BLE001 - as below
                self._failed(lane, refused)
        except Exception as error:  # noqa: BLE001 - the thread must live: rows wait in the journal
            self._failed(lane, error)
        else:
            if lane.failures > 1:
                tell(f"the store {self.storage.fs.url!r} answers again.")
            new = lane.succeeded(clock.monotonic_s(), before=before, cadence=self._cadence)
            # At the end this thread does it itself: no other can be started then.
            self._keeper.put(writer.experiment_id, new, now=not self._stop.wanted)
        lane.attempts += 1
        untold = lane.writer.refused - lane.refused_told
        if untold:
            notices.tell_refused(untold, limit_bytes=self._settings.journal_limit_bytes)
            lane.refused_told += untold
        if writer.must_end and not lane.ending:
            with self._lock:
                if self._current.get(writer.experiment_id) is lane:
                    self._replace(writer.experiment_id, writer.experiment_name)

    def _finish(self, lane: Lane[Any]) -> None:
        """Let go of a writer whose rows are all in the store."""
        # Else its segments stay small, or two names hold the same rows until vacuum.
        with suppress(RunlakeError):
            lane.writer.merge(self.storage)
        self._let_go(lane)

    @staticmethod
    def _let_go(lane: Lane[Any]) -> None:
        lane.writer.close()
        if lane.lock is not None:
            lane.lock.release(remove=True)
        lane.done = True

    def _failed(self, lane: Lane[Any], error: Exception) -> None:
        lane.error = error
        lane.failures += 1
        wait = min(_BACKOFF_S, 2.0**lane.failures) * (0.5 + ids.jitter())
        lane.due_s = clock.monotonic_s() + wait
        if lane.failures == 1:
            notices.tell_failing(self.storage.fs.url, error)

    def _rekey(self, lane: Lane[Any], error: ConflictError) -> None:
        """Go on under a new writer id, because another process writes under ours."""
        tell(f"{error} The rows go on under a new writer id.")
        old = lane.writer
        experiment = old.experiment_id, old.experiment_name
        target: Writer | ColumnWriter
        with self._lock:
            self._end(lane)
            if self._current.get(old.experiment_id) is lane:
                del self._current[old.experiment_id]
        if isinstance(old, Writer):
            target = old.move_unsealed(lambda: self.writer(*experiment))
        else:
            target = old.move_waiting(lambda: self.columns(*experiment))
        with self._lock:
            fresh = next(other for other in self._lanes if other.writer is target)
            if self._stop.wanted:
                self._end(fresh)
        lane.successor, lane.moved_rows = fresh, target.rows
        fresh.flush_wanted = True
        self._wake.set()
        self._let_go(lane)

    def _upkeep(self) -> None:
        """Beat, sync, and recover one journal of a dead process, between uploads."""
        now = clock.monotonic_s()
        for lane in list(self._lanes):
            if now - lane.put_s >= self._settings.heartbeat_s and not lane.ending:
                lane.put_s = now
                lane.writer.beat()
        if now - self._synced_s >= SYNC_S:
            self._synced_s = now
            for lane in list(self._lanes):
                with suppress(OSError):  # a disk that cannot sync is no reason to stop
                    lane.writer.sync()
        if self._recovery is not None:
            try:
                next(self._recovery)
                self._wake.set()
            except StopIteration:
                self._recovery = None
            except Exception as error:  # noqa: BLE001 - the thread must live
                self._recovery = None
                tell(f"journals of earlier processes wait: {error}")


def _after_fork_in_child() -> None:
    for drain in list(drains.ALL):
        drain.abandon_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
