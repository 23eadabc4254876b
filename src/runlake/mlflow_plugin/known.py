"""What this process knows of runs, so that logging to one reads no lake.

MLflow's rules ask of every call that its run is there, that it is active, and that a param has
no other value. What this process did to a run it knows at once. What others did it knows when
it looks again: which runs are deleted, of all that it knows at once and once in a while; what
else stands of a run, when a call depends on it.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runlake import clock, schema
from runlake.errors import RunlakeError
from runlake.lake_parts import storage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from runlake.lake import Lake
    from runlake.writing.events import Row
    from runlake.writing.run_rows import Point, RunRows

# So long what others may have changed is taken for what it was: in a lake near by, and in one far
# away, where a look takes as long as hundreds of log calls.
_OWN_S: Final = (10.0, 60.0)
_OTHERS_S: Final = (1.0, 30.0)
_REMEMBERED: Final = 10_000


@dataclass(slots=True)
class KnownRun:
    """A run, as this process last saw it or left it.

    Attributes:
        run_id: the run.
        experiment_id: where it lies.
        run_name: the latest.
        user_id: who started it.
        start_time: milliseconds since 1970.
        artifact_uri: where its artifacts lie.
        rows: takes its rows.
        status: how it stands.
        end_time: milliseconds since 1970, None where none was given.
        lifecycle_stage: `active` or `deleted`.
        params: text by key.
        seen_s: when it was looked at, on the monotonic clock.
        staged_s: when this process last changed how it stands.
        is_own: this process made it.
        lock: held while params are checked and logged.
    """

    run_id: str
    experiment_id: str
    run_name: str | None
    user_id: str
    start_time: int
    artifact_uri: str
    rows: RunRows
    status: str
    end_time: int | None
    lifecycle_stage: str
    params: dict[str, str]
    seen_s: float
    staged_s: float = -math.inf
    is_own: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def events(self, rows: list[Row]) -> None:
        """Log rows that are no points; they are in the journal when this returns.

        Args:
            rows: all of them are logged, or none.
        """
        self.rows.log(rows)

    def log(self, rows: list[Row], points: list[Point]) -> None:
        """Log rows and points; they are in the journal when this returns.

        Args:
            rows: no points.
            points: the points behind them.
        """
        self.rows.log(rows, points)


class KnownRuns:
    """The runs that one process knows of one lake. Threads may share it."""

    def __init__(self, *, is_local: bool) -> None:
        """Know nothing.

        Args:
            is_local: the lake is on this machine's disks.
        """
        self._own_s, self._others_s = _OWN_S[not is_local], _OTHERS_S[not is_local]
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, KnownRun] = OrderedDict()
        self._has_others = False
        self._staged_s = -math.inf
        self._staging = threading.Lock()
        self._is_doubtful = False

    def get(self, run_id: str, *, is_fresh: bool = False) -> KnownRun | None:
        """Return a run if it is known.

        Args:
            run_id: the run.
            is_fresh: only where it was seen lately, with its params and its status.
        """
        with self._lock:
            known = self._runs.get(run_id)
            if known is None:
                return None
            limit_s = self._own_s if known.is_own else self._others_s
            if is_fresh and clock.monotonic_s() - known.seen_s > limit_s:
                return None
            self._runs.move_to_end(run_id)
            return known

    def stage(self, find: Callable[[list[KnownRun]], Collection[str]]) -> None:
        """Have it looked up again which runs are deleted, where that was not done lately.

        The caller does not wait for the store, unless this process knows that something
        changed.

        Args:
            find: given runs, returns the ids of those that are deleted.
        """
        limit_s = self._others_s if self._has_others else self._own_s
        if self._is_doubtful:
            self._is_doubtful = False
            with self._staging:
                self._stage(find)
        elif clock.monotonic_s() - self._staged_s > limit_s and self._staging.acquire(
            blocking=False
        ):
            # Also where it fails: a store that is away is not asked by each call.
            self._staged_s = clock.monotonic_s()
            try:
                threading.Thread(
                    target=self._stage_aside, args=(find,), name="runlake-stages", daemon=True
                ).start()
            except RuntimeError:  # the process ends
                self._staging.release()

    def doubt(self) -> None:
        """Look before the next call which runs are deleted."""
        self._is_doubtful = True

    def _stage_aside(self, find: Callable[[list[KnownRun]], Collection[str]]) -> None:
        try:
            self._stage(find)
        except (RunlakeError, OSError):  # what was known stands, until the next look
            return
        finally:
            self._staging.release()

    def _stage(self, find: Callable[[list[KnownRun]], Collection[str]]) -> None:
        """Look which runs are deleted; the caller holds the lock for it."""
        with self._lock:
            listed = list(self._runs.values())
        began_s = clock.monotonic_s()
        deleted = find(listed)
        for known in listed:
            if known.staged_s < began_s:  # else this process has changed it meanwhile
                is_deleted = known.run_id in deleted
                known.lifecycle_stage = schema.DELETED if is_deleted else schema.ACTIVE
        self._staged_s = began_s

    def put(self, seen: KnownRun) -> KnownRun:
        """Keep what was seen of a run.

        Args:
            seen: as the lake has it, with all that this process has logged.

        Returns:
            The run; the same object as before where it was known before.
        """
        with self._lock:
            known = self._runs.get(seen.run_id)
            if known is None:
                known = self._runs[seen.run_id] = seen
                self._has_others = self._has_others or not seen.is_own
                if len(self._runs) == 1:
                    self._staged_s = clock.monotonic_s()
            elif known.staged_s < seen.seen_s:
                known.run_name = seen.run_name
                known.status, known.end_time = seen.status, seen.end_time
                known.lifecycle_stage = seen.lifecycle_stage
                known.params.update(seen.params)
                known.seen_s = seen.seen_s
            self._runs.move_to_end(seen.run_id)
            while len(self._runs) > _REMEMBERED:
                self._runs.popitem(last=False)
            return known

    def forget(self, run_id: str | None = None) -> None:
        """Look again at the next call.

        Args:
            run_id: only this run; None: all of them.
        """
        with self._lock:
            if run_id is None:
                self._runs.clear()
                self._has_others = False
            else:
                self._runs.pop(run_id, None)


_known: weakref.WeakKeyDictionary[Lake, tuple[int, KnownRuns]] = weakref.WeakKeyDictionary()


def known_runs(lake: Lake) -> KnownRuns:
    """Return what this process knows of the runs of a lake; all its stores share it.

    Args:
        lake: as `runlake.mlflow_plugin.lakes.lake_of` returns it.
    """
    pid, found = _known.get(lake, (0, None))
    if found is None or pid != os.getpid():
        found = KnownRuns(is_local=storage_of(lake).fs.is_local)
        _known[lake] = os.getpid(), found
    return found
