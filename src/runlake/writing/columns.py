"""Many points at once: whole columns become finished segments in the journal folder.

A column writer has a writer id of its own and no open tail. A call returns when its segments
lie, whole and under their final names, in the journal folder; the drain thread uploads them,
and so does recovery after a crash.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runlake import arguments, schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.storage import arrays, segments
from runlake.storage.layout import SegmentName, parse_segment, partition
from runlake.storage.state import State, Summaries, fact_schema
from runlake.writing import values
from runlake.writing.putting import encode, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.storage.engine import Storage
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

SEGMENT_ROWS: Final = 1 << 20
_PACKERS: Final = 2
_STEP: Final = "step"
_TIME: Final = "timestamp"


@dataclass(frozen=True, slots=True)
class _Finished:
    """A segment that waits for its upload: in a file, or in memory where there is no folder."""

    name: SegmentName
    data: bytes
    file: Path | None

    @classmethod
    def write(cls, name: SegmentName, data: bytes, folder: Path | None) -> _Finished:
        """Keep a segment, in a folder under a name that does not show yet.

        Raises:
            OSError: the disk is full; nothing is left of it.
        """
        if folder is None:
            return cls(name, data, None)
        made = cls(name, b"", folder / name.key.rpartition("/")[2])
        try:
            made._hidden.write_bytes(data)
        except OSError:
            made.drop()
            raise
        return made

    @property
    def _hidden(self) -> Path:
        return Path(f"{self.file}.tmp")

    def show(self) -> None:
        """Give the file its name: from now on it survives a crash of the process."""
        if self.file is not None:
            self._hidden.replace(self.file)

    def read(self) -> bytes:
        """Return the segment."""
        return self.data if self.file is None else self.file.read_bytes()

    def drop(self) -> None:
        """Leave nothing on the disk."""
        if self.file is not None:
            self._hidden.unlink(missing_ok=True)
            self.file.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Ready:
    """The rows of one segment, and what its footer will say."""

    name: SegmentName
    experiment_name: str
    table: pa.Table
    state: State

    def pack(self, folder: Path | None) -> _Finished:
        """Encode the segment; it does not show yet."""
        return _Finished.write(
            self.name, encode(self.name, self.experiment_name, self.table, self.state), folder
        )


class ColumnWriter:
    """Finished segments of one experiment on their way into the store."""

    must_end = False
    refused = 0

    def __init__(
        self, writer_id: str, experiment_id: str, experiment_name: str, folder: Path | None
    ) -> None:
        """Begin without rows; without a folder, segments wait in memory."""
        self.writer_id = writer_id
        self.experiment_id = experiment_id
        self.experiment_name = experiment_name
        self._folder = folder
        self._lock = threading.Lock()
        self._rows = 0
        self._retired = False
        self._slots: dict[tuple[str, str], int] = {}
        self._summaries = Summaries()
        self._waiting: list[_Finished] = []
        self.uploaded_rows = 0
        self.objects = 0

    @property
    def rows(self) -> int:
        """Rows that were logged under this writer's id."""
        return self._rows

    @property
    def pending(self) -> int:
        """Rows that the store does not hold yet."""
        return self._rows - self.uploaded_rows

    @property
    def is_retired(self) -> bool:
        """Whether columns go to another writer now."""
        return self._retired

    def add(self, run_id: str, points: pa.Table) -> bool:
        """Write points as finished segments; returns when they survive a crash of the process.

        Args:
            run_id: the run.
            points: what `points_of` returns.

        Returns:
            False if the writer is retired and took nothing.

        Raises:
            OSError: the disk is full; nothing was taken, and the writer is retired.
        """
        with self._lock:
            if self._retired:
                return False
            made: list[Future[_Finished]] = []
            try:
                # Packing lets go of the interpreter, so one segment is counted while another
                # is packed.
                with ThreadPoolExecutor(_PACKERS) as pool:
                    for start in range(0, points.num_rows, SEGMENT_ROWS):
                        part = points.slice(start, SEGMENT_ROWS)
                        ready = self._prepare(run_id, part, self._rows + start)
                        made.append(pool.submit(ready.pack, self._folder))
                for one in [each.result() for each in made]:
                    # They appear together, or as good as: renaming needs no space.
                    one.show()
            except BaseException:
                # The summaries hold what the rows do not.
                self._retired = True
                for each in made:
                    if each.exception() is None:
                        each.result().drop()
                raise
            self._waiting += [each.result() for each in made]
            self._rows += points.num_rows
        return True

    def _prepare(self, run_id: str, points: pa.Table, first: int) -> _Ready:
        """Count one segment's points, and lay out its rows."""
        count = points.num_rows
        coded, keys = _used(points["key"].combine_chunks())
        slots = np.array(
            [self._slots.setdefault((run_id, key), len(self._slots)) for key in keys], np.int64
        )
        times: Any = points["time"].combine_chunks()
        numbers: Any = points["value"].combine_chunks()
        steps: Any = points["step"].combine_chunks()
        self._summaries.add(
            slots[arrays.values(coded.indices)],
            arrays.values(steps),
            arrays.values(times),
            arrays.values(numbers),
        )
        zeros: Any = arrays.numbers(np.zeros(count, np.int32))
        columns = [
            pa.DictionaryArray.from_arrays(zeros, pa.array([run_id])),
            pa.DictionaryArray.from_arrays(zeros, pa.array([schema.METRIC])),
            coded,
            steps,
            times.cast(pa.timestamp("us", tz="UTC")),
            numbers,
            pa.nulls(count, pa.string()),
        ]
        table = pa.Table.from_arrays(columns, schema=segments.segment_schema())
        name = SegmentName(
            writer=self.writer_id,
            last=first + count - 1,
            count=count,
            merged=False,
            experiment_id=self.experiment_id,
        )
        summaries = self._summaries.table(slots, [run_id] * len(keys), keys)
        state = State(fact_schema().empty_table(), summaries)
        return _Ready(name, self.experiment_name, table, state)

    def settle(self) -> None:
        """Wait for nothing: columns speak of no files."""

    def upload(self, storage: Storage, *, seal: bool = False) -> None:  # noqa: ARG002 - all are sealed
        """Bring every waiting segment into the store, oldest first.

        Raises:
            StorageError: the store refused; what waits stays.
            ConflictError: another process wrote other rows under this writer's id.
        """
        while self._waiting:
            oldest = self._waiting[0]
            data = oldest.read()
            if not storage.append(oldest.name, data):
                table, _ = segments.decode(data, key=oldest.name.key)
                put(storage, oldest.name, data, table)
            self._waiting.pop(0)
            self.uploaded_rows = oldest.name.last + 1
            self.objects += 1
            oldest.drop()

    def move_waiting(self, successor: Callable[[], ColumnWriter]) -> ColumnWriter:
        """Write every waiting segment again under another writer's id.

        Args:
            successor: gives a writer that takes columns; asked again when one takes no more.

        Returns:
            The writer that took the last of them.

        Raises:
            OSError: the disk is full; the segments stay where they are.
        """
        self.retire()
        target = successor()
        while self._waiting:
            oldest = self._waiting[0]
            rows, _ = segments.decode(oldest.read(), key=oldest.name.key)
            time = rows["timestamp"].cast(pa.int64())
            columns = [rows["key"], rows["step"], time, rows["num"]]
            points = pa.Table.from_arrays(columns, names=["key", "step", "time", "value"])
            while not target.add(str(rows["run_id"][0].as_py()), points):
                target = successor()
            self._waiting.pop(0)
            oldest.drop()
        return target

    def delete_superseded(self, storage: Storage, *, at_once: bool = False) -> None:
        """Nothing to do: a finished segment covers none before it."""

    def merge(self, storage: Storage) -> None:
        """Nothing to do: segments are large."""

    def retire(self) -> None:
        """Take no more columns."""
        with self._lock:
            self._retired = True

    def close(self) -> None:
        """Nothing to do: no file is open."""

    def sync(self) -> None:
        """Bound what a power loss takes."""
        for one in list(self._waiting):
            if one.file is not None:
                # It may have been uploaded and deleted since.
                with suppress(FileNotFoundError), one.file.open("rb") as file:
                    os.fsync(file.fileno())

    def beat(self) -> None:
        """Nothing to do: the run's own writer shows that the process lives."""

    def abandon_in_child(self) -> None:
        """Forget in a forked child what the parent uploads."""
        self._lock = threading.Lock()
        self._retired = True
        self._waiting = []


def points_of(data: object, *, now_us: int) -> pa.Table:
    """Turn columns into points.

    Args:
        data: an Arrow table, Polars or pandas frame, or a mapping of names to NumPy arrays or
            lists. Long: columns `key`, `step`, `value`. Wide: `step` and one numeric column
            per metric. Either may have `timestamp` (an Arrow timestamp, or int64 milliseconds).
            A null is no point; NaN is one.
        now_us: the time of points that have none.

    Returns:
        shape (n, 4): `key` string, as a dictionary; `step` int64; `time` int64 (microseconds
        since 1970); `value` float64; wide columns one after another.

    Raises:
        InvalidInputError: columns are missing, of the wrong type, or of unequal length.
    """
    table = _arrow(data)
    names = table.column_names
    if _STEP not in names:
        message = f"log_history needs a column 'step'; there are {names}."
        raise InvalidInputError(message)
    steps = _cast(table, _STEP, pa.int64())
    if steps.null_count:
        message = f"column 'step' has {steps.null_count} nulls; every point needs its step."
        raise InvalidInputError(message)
    times = _times(table, now_us)
    if {"key", "value"} <= set(names):
        keys = _cast(table, "key", pa.string()).combine_chunks().dictionary_encode()
        for key in keys.dictionary.to_pylist() + [None] * bool(keys.null_count):
            values.name("metric", key)
        parts = [(keys, steps, times, _cast(table, "value", pa.float64()))]
    else:
        metrics = [name for name in names if name not in {_STEP, _TIME}]
        if not metrics:
            message = "log_history found no metric: no column besides 'step' and 'timestamp'."
            raise InvalidInputError(message)
        parts = []
        dictionary = pa.array(metrics, pa.string())
        for code, name in enumerate(metrics):
            values.name("metric", name)
            codes = arrays.numbers(np.full(table.num_rows, code, np.int32))
            keys = pa.DictionaryArray.from_arrays(codes, dictionary)
            parts.append((keys, steps, times, _cast(table, name, pa.float64())))
    schema_ = ["key", "step", "time", "value"]
    tables = [pa.Table.from_arrays(list(part), names=schema_) for part in parts]
    joined = pa.concat_tables(tables)
    if joined["value"].null_count:
        joined = joined.filter(joined["value"].is_valid())
    return joined


def _used(coded: Any) -> tuple[Any, list[str]]:  # noqa: ANN401 - a dictionary array
    """Return coded keys without those that no row has, and the keys in order of their codes."""
    codes = arrays.values(coded.indices)
    used = np.flatnonzero(np.bincount(codes, minlength=len(coded.dictionary)))
    if len(used) < len(coded.dictionary):
        renumber = np.zeros(len(coded.dictionary), np.int32)
        renumber[used] = np.arange(len(used), dtype=np.int32)
        dictionary = coded.dictionary.take(arrays.numbers(used))
        coded = pa.DictionaryArray.from_arrays(arrays.numbers(renumber[codes]), dictionary)
    return coded, coded.dictionary.to_pylist()


def _arrow(data: object) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    columns: Any = data
    try:
        table: pa.Table = pa.table(columns)
    except (pa.ArrowException, TypeError, ValueError) as error:
        message = (
            "log_history takes an Arrow table, a Polars or pandas frame, or a mapping of names "
            f"to arrays, got {arguments.kind(data)}: {error}"
        )
        raise InvalidInputError(message) from error
    return table


def _cast(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray[Any]:
    try:
        return table[name].cast(kind)
    except pa.ArrowException as error:
        message = f"column {name!r} of type {table[name].type} cannot be read as {kind}: {error}"
        raise InvalidInputError(message) from error


def _times(table: pa.Table, now_us: int) -> pa.ChunkedArray[Any]:
    """Return the points' times in microseconds."""
    if _TIME not in table.column_names:
        return pa.chunked_array([pa.array(np.full(table.num_rows, now_us, np.int64))])
    column: Any = table[_TIME]
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            message = "column 'timestamp' has no time zone; make it UTC."
            raise InvalidInputError(message)
        # Nanoseconds, as pandas has them, are cut.
        column = column.cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64())
    else:
        milliseconds = _cast(table, _TIME, pa.int64())
        try:
            column = pc.multiply_checked(milliseconds, 1000)
        except pa.ArrowException as error:
            message = "column 'timestamp' holds milliseconds that no 64 bits of microseconds hold."
            raise InvalidInputError(message) from error
    times: pa.ChunkedArray[Any] = column.fill_null(now_us) if column.null_count else column
    return times


def waiting_files(folder: Path, experiment_id: str) -> Iterator[tuple[SegmentName, Path]]:
    """Yield the finished segments that a dead process left in its journal folder.

    Args:
        folder: the journal's.
        experiment_id: the experiment of its writer.
    """
    for file in sorted(folder.glob("*.parquet")):
        name = parse_segment(partition(experiment_id) + file.name)
        if name is not None:
            yield name, file
