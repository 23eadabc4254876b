"""Writing that writes nothing: `RUNLAKE_MODE=disabled`.

Input is still checked, so that a test run finds the errors that a real run would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runlake.writing.journal import HybridClock, Journal
from runlake.writing.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa


class _Journal(Journal):
    """A journal that takes everything and keeps nothing."""

    def __init__(self) -> None:
        super().__init__(None, HybridClock(), mapped=False, limit_bytes=0)

    def point(self, key_id: int, step: int, time_us: int, value: float) -> bool:  # noqa: ARG002
        return True

    def points(
        self,
        key_ids: Sequence[int],
        numbers: Sequence[float],  # noqa: ARG002
        step: int,  # noqa: ARG002
        time_us: int,  # noqa: ARG002
    ) -> int:
        return len(key_ids)

    def events(self, rows: Iterable[tuple[str, str, str, float | None, str | None]]) -> bool:  # noqa: ARG002
        return True

    def key_id(self, run_id: str, key: str) -> int:  # noqa: ARG002
        return 0


class _Columns:
    """A column writer that keeps nothing."""

    def add(self, run_id: str, points: pa.Table) -> None:
        """Take the points and forget them."""


class DisabledDrain:
    """Stands for `Drain` where nothing is written: no thread, no file, no request."""

    pending = 0
    rows_logged = 0

    def writer(self, experiment_id: str, experiment_name: str) -> Writer:
        """Return a writer whose journal keeps nothing."""
        return Writer("", experiment_id, experiment_name, _Journal())

    fresh_writer = writer

    def columns(self, experiment_id: str, experiment_name: str) -> _Columns:  # noqa: ARG002
        """Return a column writer that keeps nothing."""
        return _Columns()

    def soon(self) -> None:
        """Nothing is due."""

    wake = soon

    def flush(self, timeout_s: float) -> None:
        """Nothing is waiting."""

    close = flush
