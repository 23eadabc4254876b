"""One run's rows on their way into whichever journal takes them now.

A journal may end while the run goes on (its disk is full, its writer handed over, the process
was forked); the rows then go to its successor, and none is lost in between.
"""

from __future__ import annotations

import os
import struct
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from runlake import arguments, clock, schema
from runlake.errors import InvalidInputError, StateError, StorageError
from runlake.writing import values

if TYPE_CHECKING:
    from runlake.run_plan import RunPlan
    from runlake.settings import Settings
    from runlake.writing.drain import Drain
    from runlake.writing.events import Row
    from runlake.writing.journal import Journal

_ONLY_FLOATS: Final = {float}
# A journal, and the ids that keys of this run have in it.
Bound: TypeAlias = tuple["Journal", dict[str, int]]


class RunLog:
    """The rows of one run; any thread may log.

    Attributes:
        status: RUNNING, or how the run ended.
        bound: the journal that takes the rows now, with the ids of known keys; read and
            replaced in one step.
    """

    def __init__(self, plan: RunPlan, drain: Drain, settings: Settings) -> None:
        """Belong to no journal yet; see `begin`."""
        self._plan = plan
        self._drain = drain
        self._settings = settings
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.status = schema.RUNNING
        self.bound: Bound
        _logs.add(self)

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._plan.run_id

    @property
    def is_open(self) -> bool:
        """Whether the run takes more rows."""
        return self.status == schema.RUNNING

    @property
    def is_ours(self) -> bool:
        """Whether this process began the run, and so ends it; a forked child never does."""
        return os.getpid() == self._pid

    def begin(self, rows: list[Row]) -> None:
        """Join the process's writer with the run's first rows."""
        with self._lock:
            self._join(rows)
        self._drain.soon()

    def end(self, status: str) -> None:
        """Take no more rows."""
        self.status = status
        self.bound = self.bound[0], {}
        self._drain.soon()

    def check_open(self) -> None:
        """Refuse rows for a run that has ended.

        Raises:
            StateError: it has; the message says how to go on.
        """
        if self.status != schema.RUNNING:
            run_id = self._plan.run_id
            message = (
                f"run {run_id} has ended ({self.status}). To log more, resume it: "
                f"runlake.start_run(run_id={run_id!r})."
            )
            raise StateError(message)

    def events(self, rows: list[Row]) -> None:
        """Log rows that are no metric points, all of them or none.

        Raises:
            StateError: the run has ended.
        """
        self.check_open()
        while rows and not (journal := self.bound[0]).events(rows):
            self._rejoin(journal)

    def late(self, rows: list[Row], *, clock_us: int | None = None) -> None:
        """Log rows that are no metric points, whether the run is open or has ended.

        Args:
            rows: must not be of kind `status`, nor such that the run would be open again.
            clock_us: when it was so, where that was before now.
        """
        plan = self._plan
        if self.is_open:
            while not (journal := self.bound[0]).events(rows, clock_us=clock_us):
                self._rejoin(journal)
            return
        while True:
            writer = self._drain.writer(plan.experiment_id, plan.experiment_name)
            if writer.journal.events(rows, clock_us=clock_us):
                break
        self._drain.soon()

    def metrics(self, metrics: Mapping[str, object], step: int, moment: int) -> None:
        """Log one point of each of several metrics, all or none.

        Args:
            metrics: values by key.
            step: of all of them.
            moment: of all of them, microseconds since 1970.

        Raises:
            InvalidInputError: one of them is wrong; none is logged.
            StateError: the run has ended.
        """
        try:
            # All values are floats of known keys, nearly always.
            journal, known = self.bound
            key_ids = list(map(known.__getitem__, metrics))
            numbers = list(metrics.values())
            if {*map(type, numbers)} == _ONLY_FLOATS:
                taken = journal.points(key_ids, numbers, step, moment)  # type: ignore[arg-type]
                if taken == len(numbers):
                    return
                metrics = dict(list(metrics.items())[taken:])
        except (KeyError, TypeError, AttributeError, OverflowError, struct.error):
            pass
        given: object = metrics
        if not isinstance(given, Mapping):
            message = f"metrics are a mapping of keys to numbers, got {arguments.kind(given)}."
            raise InvalidInputError(message)
        checked = [(key, values.number(key, value)) for key, value in metrics.items()]
        self.points(checked, values.step(step), moment)

    def points(self, points: list[tuple[str, float]], step: int, moment: int) -> None:
        """Log checked points the careful way: define keys, follow a successor, count refusals.

        Args:
            points: key and value of each.
            step: of all of them.
            moment: of all of them, microseconds since 1970.

        Raises:
            InvalidInputError: a key is wrong; none is logged.
            StateError: the run has ended.
            StorageError: only when strict, and the journal is full.
        """
        self.check_open()
        for key, _ in points:
            try:
                is_known = key in self.bound[1]
            except TypeError:  # a list, for one
                is_known = False
            if not is_known:
                values.name("metric", key)
        while points:
            journal, known = self.bound
            key_ids = self._define(journal, known, points)
            numbers = [number for _, number in points[: len(key_ids)]]
            taken = journal.points(key_ids, numbers, step, moment)
            points = points[taken:]
            if points and journal.is_retired:
                self._rejoin(journal)
            elif points:
                self._refuse(journal, len(points))
                return

    def renew_lock(self) -> None:
        """Take a new lock in a forked child, where another thread may have held the old one."""
        self._lock = threading.Lock()

    # Inside.

    def _join(self, rows: list[Row]) -> None:
        """Take the process's writer, and say in it what it must know of the run."""
        plan = self._plan
        writer = self._drain.writer(plan.experiment_id, plan.experiment_name)
        if plan.run_id in writer.ended_runs:
            # What it has said is no longer saved beside the journal, so a new writer goes on.
            writer = self._drain.fresh_writer(plan.experiment_id, plan.experiment_name)
        # Looked at again behind the rows: the drain may have let go of the run meanwhile.
        while (rows and not writer.journal.events(rows)) or plan.run_id in writer.ended_runs:
            ended = plan.run_id in writer.ended_runs
            renew = self._drain.fresh_writer if ended else self._drain.writer
            writer = renew(plan.experiment_id, plan.experiment_name)
        # In one step, because other threads read it: a key id means nothing in another journal.
        self.bound = writer.journal, {}

    def _rejoin(self, journal: Journal) -> None:
        """Go on with the successor of a journal that takes no more."""
        with self._lock:
            if self.bound[0] is not journal:
                return
            rows: list[Row] = []
            if self.is_ours and self.is_open:
                now = float(clock.now_us())
                rows = [(self._plan.run_id, schema.STATUS, "", now, schema.RUNNING)]
            self._join(rows)

    def _define(
        self, journal: Journal, known: dict[str, int], points: list[tuple[str, float]]
    ) -> list[int]:
        """Return the points' key ids in one journal; empty if it is retired."""
        new = [key for key, _ in points if key not in known]
        if new:
            found = journal.key_ids(self._plan.run_id, new)
            if not found:
                return []
            known.update(zip(new, found, strict=True))
        return [known[key] for key, _ in points]

    def _refuse(self, journal: Journal, count: int) -> None:
        """Give up points because the journal is at its limit; the drain thread warns of them."""
        journal.refuse(count)
        if self._settings.strict:
            message = (
                f"{count} points were refused: the journal has reached its limit of "
                f"{self._settings.journal_limit_bytes:,} bytes while the store does not answer."
            )
            raise StorageError(message)
        self._drain.wake()


_logs: weakref.WeakSet[RunLog] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for log in list(_logs):
        log.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
