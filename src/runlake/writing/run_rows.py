"""Rows of a run from whoever knows its id: open or ended, begun here or elsewhere.

Nothing is said about how the run stands. `runlake.run_log` is for the process that begins or
resumes a run; here every call finds the journal that takes its rows by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, final

from runlake.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runlake.writing.drain import Drain
    from runlake.writing.events import Row
    from runlake.writing.journal import Journal


class Point(NamedTuple):
    """One point of a metric.

    Attributes:
        key: of the metric, checked.
        step: 64 bits.
        time_us: microseconds since 1970.
        value: NaN and infinities are kept.
    """

    key: str
    step: int
    time_us: int
    value: float


@final
class RunRows:
    """Takes rows of one run; any thread may log."""

    def __init__(self, drain: Drain, run_id: str, experiment_id: str, experiment_name: str) -> None:
        """Write nothing yet.

        Args:
            drain: of this process.
            run_id: the run.
            experiment_id: where it lies.
            experiment_name: as far as known.
        """
        self._drain = drain
        self._run_id = run_id
        self._place = experiment_id, experiment_name
        # A key id means nothing in another journal, so both change in one step.
        self._bound: tuple[Journal, dict[str, int]] | None = None

    def events(self, rows: list[Row]) -> None:
        """Log rows that are no points; they are in the local journal when this returns.

        Args:
            rows: all of them are logged, or none.
        """
        self.log(rows)

    def log(self, rows: list[Row], points: Sequence[Point] = ()) -> None:
        """Log rows; they are in the local journal when this returns.

        Args:
            rows: no metric points; all of them or none.
            points: the points behind them.

        Raises:
            StorageError: the journal has reached its limit; points are missing.
        """
        is_done = not rows
        while not is_done or points:
            writer = self._drain.writer(*self._place)
            with writer.holding(self._run_id) as is_known:
                if not is_known:
                    self._drain.fresh_writer(*self._place)
                    continue
                if not is_done:
                    is_done = writer.journal.events(rows)
                if is_done and points:
                    points = points[self._put(writer.journal, points) :]

    def _put(self, journal: Journal, points: Sequence[Point]) -> int:
        """Log points to a journal; return how many it took before it retired."""
        bound = self._bound
        if bound is None or bound[0] is not journal:
            bound = self._bound = journal, {}
        known = bound[1]
        new = [point.key for point in points if point.key not in known]
        if new:
            found = journal.key_ids(self._run_id, new)
            known.update(zip(new, found, strict=False))
            if not found:
                return 0
        for taken, (key, step, time_us, value) in enumerate(points):
            if journal.point(known[key], step, time_us, value):
                continue
            if not journal.is_retired:
                self._drain.wake()
                message = (
                    f"{len(points) - taken} points of run {self._run_id} were refused: the "
                    "journal has reached its limit while the store does not answer."
                )
                raise StorageError(message)
            return taken
        return len(points)
