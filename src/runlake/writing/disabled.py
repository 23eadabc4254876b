"""Writing that writes nothing: `RUNLAKE_MODE=disabled`.

Input is still checked, so that a test run finds the errors that a real run would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runlake.writing.columns import ColumnWriter
from runlake.writing.drain import Drain
from runlake.writing.events import HybridClock
from runlake.writing.journal import Journal
from runlake.writing.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

    from runlake.storage.snapshot import Snapshot


class _Journal(Journal):
    """A journal that takes everything and keeps nothing."""

    def __init__(self) -> None:
        super().__init__(None, HybridClock(), mapped=False, limit_bytes=0)

    def point(self, key_id: int, step: int, time_us: int, value: float) -> bool:
        return True

    def points(
        self,
        key_ids: Sequence[int],
        numbers: Sequence[float],
        step: int,
        time_us: int,
    ) -> int:
        return len(key_ids)

    def events(
        self,
        rows: Iterable[tuple[str, str, str, float | None, str | None]],
        *,
        clock_us: int | None = None,
        after_us: int = 0,
    ) -> bool:
        return True

    def key_id(self, run_id: str, key: str) -> int:
        return 0


class _Columns(ColumnWriter):
    """A column writer that keeps nothing."""

    def __init__(self) -> None:
        super().__init__("", "", "", None)

    def add(self, run_id: str, points: pa.Table) -> bool:
        """Take the points and forget them."""
        return True


class DisabledDrain(Drain):
    """Stands for `Drain` where nothing is written: no thread, no file, no request."""

    @property
    def pending(self) -> int:
        """No row waits."""
        return 0

    @property
    def rows_logged(self) -> int:
        """No row was logged."""
        return 0

    def writer(self, experiment_id: str, experiment_name: str) -> Writer:
        """Return a writer whose journal keeps nothing."""
        return Writer("", experiment_id, experiment_name, _Journal())

    def fresh_writer(self, experiment_id: str, experiment_name: str) -> Writer:
        """As `writer`."""
        return self.writer(experiment_id, experiment_name)

    def columns(self, experiment_id: str, experiment_name: str) -> _Columns:
        """Return a column writer that keeps nothing."""
        return _Columns()

    def soon(self, within_s: float = 0.0) -> None:
        """Nothing is due."""

    def wake(self) -> None:
        """Nothing is due."""

    def saw(self, snapshot: Snapshot) -> None:
        """Nothing is compacted."""

    def flush(self, timeout_s: float) -> None:
        """Nothing is waiting."""

    def close(self, timeout_s: float) -> None:
        """Nothing is open."""
