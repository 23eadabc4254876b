"""Whole runs at once, straight into the store: no journal, because where they come from stays.

A bulk writer says what it has to say in one segment or a few, and ends. Its id follows from what
it says; so whoever was interrupted, and begins again, puts the same segments under the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from runlake import schema
from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.layout import SegmentName
from runlake.storage.state import Fact, FactBook, State, Summaries
from runlake.writing.events import Event, Position
from runlake.writing.putting import encode, put
from runlake.writing.rows import Points, build

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa

    from runlake.storage.engine import Storage
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")


class BulkRow(NamedTuple):
    """One row that is no metric point.

    Attributes:
        run_id: whom it is about.
        kind: what is said.
        key: about what.
        num: a number, or None.
        text: a text, or None.
        clock: when it was said, microseconds since 1970, UTC.
    """

    run_id: str
    kind: str
    key: str
    num: float | None
    text: str | None
    clock: int


class BulkWriter:
    """One writer whose segments go straight into the store."""

    def __init__(
        self, storage: Storage, writer_id: str, *, experiment_id: str, experiment_name: str
    ) -> None:
        """Begin without rows.

        Args:
            storage: of the lake.
            writer_id: see `runlake.ids.derived_writer_id`.
            experiment_id: the partition.
            experiment_name: of the experiment.
        """
        self._storage = storage
        self._writer_id = writer_id
        self._experiment_id = experiment_id
        self._experiment_name = experiment_name
        self._book = FactBook()
        self._summaries = Summaries()
        self._slots: dict[tuple[str, str], int] = {}
        self._rows = 0

    def put(
        self,
        rows: Sequence[BulkRow],
        points: Sequence[tuple[str, pa.Table]] = (),
        *,
        is_last: bool = True,
    ) -> None:
        """Put one segment; the rows are in the store when this returns.

        Args:
            rows: what is no point; they come first.
            points: runs, each with a table of its points: `key` string, `step` int64, `timestamp`
                timestamp[us, UTC], `value` float64.
            is_last: the writer says no more after this.

        Raises:
            ConflictError: other rows are there under this writer's id.
            StorageError: the store refused.
        """
        found = self._points(points)
        events = [Event(0, row.clock, *row[:5]) for row in rows]
        if is_last:
            end = max([row.clock for row in rows], default=0)
            events.append(Event(len(found), end, "", schema.CLOSE, "", None, None))
        first = self._rows
        for place, event in enumerate(events):
            seq = first + event.points + place
            fact = Fact(event.clock, seq, event.num, event.str)
            self._book.add(event.run_id, event.kind, event.key, fact)
        table = build(found, events, Position(0, 0), list(self._slots))
        if not table.num_rows:
            return
        self._rows += table.num_rows
        name = SegmentName(
            writer=self._writer_id,
            last=self._rows - 1,
            count=table.num_rows,
            merged=False,
            experiment_id=self._experiment_id,
        )
        data = encode(name, self._experiment_name, table, self._state())
        put(self._storage, name, data, table)

    def _points(self, given: Sequence[tuple[str, pa.Table]]) -> Points:
        """Number the keys of points, and count them."""
        columns: list[list[Any]] = [[], [], [], []]
        for run_id, table in given:
            if not table.num_rows:
                continue
            coded: Any = table["key"].combine_chunks().dictionary_encode()
            keys = coded.dictionary.to_pylist()
            slots = [self._slots.setdefault((run_id, key), len(self._slots)) for key in keys]
            columns[0].append(np.array(slots, np.int64)[arrays.values(coded.indices)])
            columns[1].append(arrays.values(table["step"].combine_chunks()))
            times: Any = table["timestamp"].combine_chunks().cast(pa.int64())
            columns[2].append(arrays.values(times))
            columns[3].append(arrays.values(table["value"].combine_chunks()))
        kinds = (np.int64, np.int64, np.int64, np.float64)
        joined = [
            np.concatenate(parts) if parts else np.zeros(0, kind)
            for parts, kind in zip(columns, kinds, strict=True)
        ]
        points = Points(*joined)
        self._summaries.add(points.key_ids, points.steps, points.times, points.values)
        return points

    def _state(self) -> State:
        """Return what the writer has said so far."""
        run_ids, keys = [run for run, _ in self._slots], [key for _, key in self._slots]
        summaries = self._summaries.table(np.arange(len(keys)), run_ids, keys)
        return State(self._book.table(self._book.all_runs()), summaries)
