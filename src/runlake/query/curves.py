"""Points as curves: read from files once, then from memory.

A segment holds the rows of all metrics as they were logged, side by side, so that reading one
metric is decoding all of them: what was decoded of a metric is kept, file by file. A compacted
file holds curve after curve, so only curves that are asked for are read, and kept one by one.
All within a bound of memory. Files never change: a question that is asked again decodes
nothing, and one about a run that went on only what is new.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from contextlib import contextmanager
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import StorageError
from runlake.storage import arrays
from runlake.storage.standing import coded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.storage.tables import PointFile, SnapshotTables
else:
    duckdb = lazy("duckdb")
    np = lazy("numpy")
    pa = lazy("pyarrow")

_KEPT_BYTES: Final = 256 << 20
# What keeping a file, and a run in it, costs besides its points.
_CHUNK_BYTES: Final = 1 << 10
_RUN_BYTES: Final = 1 << 7
# Files that are read at once: enough for every thread, few enough to be held as DuckDB gives
# rows, with their texts, which is four times what is kept. Compacted files are large.
_SCANNED_FILES: Final = 16
_SCANNED_COMPACTED: Final = 2
# Longer lists take DuckDB longer to plan than they save.
_LISTED: Final = 100
# Numbers that NumPy sorts by counting.
_FEW: Final = 1 << 16

_SCAN: Final = """
SELECT p.file_index AS file, p.run_id, {key}p.step, p.timestamp, p.{value} AS value
FROM read_parquet($files, hive_partitioning = false, union_by_name = false) AS p
WHERE {where}
"""

_Columns: TypeAlias = "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]"
# The file, rows skipped in it or the run, and the key.
_Name = tuple[str, int | str, str]


class Window(NamedTuple):
    """A range of points that files are searched for, both ends included.

    Attributes:
        column: `step`, or `timestamp` in microseconds since 1970.
        low: None for no bound.
        high: None for no bound.
    """

    column: Literal["step", "timestamp"]
    low: int | None
    high: int | None


class Points(NamedTuple):
    """Points of several curves, ordered by curve; the parts that files hold by step.

    Attributes:
        curves: shape (n,), int64, which curve each belongs to.
        steps: shape (n,), int64.
        times: shape (n,), int64, microseconds since 1970.
        values: shape (n,), float64.
    """

    curves: NDArray[np.int64]
    steps: NDArray[np.int64]
    times: NDArray[np.int64]
    values: NDArray[np.float64]

    def take(self, rows: NDArray[Any]) -> Points:
        """Return some rows, by place or by flag."""
        return Points(*(column[rows] for column in self))


class _Chunk(NamedTuple):
    """All points of one key in one file: run after run, in a run by step."""

    runs: list[str]
    ends: list[int]
    columns: _Columns

    @property
    def size_bytes(self) -> int:
        points = sum(column.nbytes for column in self.columns)
        return _CHUNK_BYTES + _RUN_BYTES * len(self.runs) + points

    def by_run(self) -> Mapping[int | str, _Chunk]:
        """Return it cut into runs; copies, because a part would keep the whole alive."""
        return {
            run: _Chunk([run], [end - start], _copied(self.columns, start, end))
            for run, start, end in zip(self.runs, [0, *self.ends], self.ends, strict=False)
        }


_Chunks = dict[_Name, _Chunk]


class _Asked(NamedTuple):
    """What is wanted of one file.

    Attributes:
        file: the file.
        parts: of a segment its skipped rows, because all of it is read; of a compacted file
            the runs wanted that it may hold.
    """

    file: PointFile
    parts: Sequence[int | str]

    @classmethod
    def of(cls, file: PointFile, runs: Iterable[str]) -> _Asked:
        if not file.table:
            return cls(file, [file.skip_rows])
        least, greatest = file.runs
        return cls(file, [run for run in runs if least <= run <= greatest])

    def cut(self, chunk: _Chunk, key: str) -> _Chunks:
        """Cut all points of one key into the parts wanted."""
        parts = chunk.by_run() if self.file.table else dict.fromkeys(self.parts, chunk)
        nothing = _Chunk([], [], _no_columns())
        return {(self.file.path, part, key): parts.get(part, nothing) for part in self.parts}


class Curves:
    """Reads points of one lake, and remembers what it has read. Threads may share it.

    Attributes:
        kept_bytes: of points in memory.
    """

    def __init__(self, *, limit_bytes: int = _KEPT_BYTES) -> None:
        """Start without memory.

        Args:
            limit_bytes: of points to keep; those that were not asked for the longest go first.
        """
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[_Name, _Chunk] = OrderedDict()
        self.kept_bytes = 0
        self._lock = threading.Lock()
        self._root: duckdb.DuckDBPyConnection | None = None
        _all.add(self)

    def read(
        self,
        tables: SnapshotTables,
        runs: Mapping[str, int],
        keys: Sequence[str],
        *,
        window: Window | None = None,
    ) -> Points:
        """Return the points of some runs and keys.

        Args:
            tables: the snapshot.
            runs: the runs wanted, each with its number.
            keys: the metrics wanted, each once.
            window: leave out files and row groups that hold nothing of this range; the caller
                leaves out single points.

        Returns:
            The points; the curve of run number `r` and `keys[k]` is `r * len(keys) + k`.

        Raises:
            FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
            StorageError: a file of the snapshot cannot be read.
        """
        if not runs or not keys:
            return Points(np.zeros(0, np.int64), *_no_columns())
        found = tables.select_points(runs.keys(), keys)
        chunks: _Chunks = {}
        missing = self._take_kept([_Asked.of(file, runs) for file in found.files], keys, chunks)
        if missing:
            try:
                read = self._scan(missing, keys, window)
            except duckdb.InterruptException:
                raise
            except duckdb.Error as error:
                files = [asked.file for asked in missing]
                raise _explain(error, files, tables.root_url) from error
            chunks |= read
            if window is None:
                self._keep(read)
        if found.rows is not None:
            nowhere = arrays.numbers(np.zeros(found.rows.num_rows, np.int64))
            table = found.rows.append_column("file", nowhere)
            chunks |= {("", 0, keys[code]): part for (_, code), part in _cut(table, keys).items()}
        return _gather(chunks, runs, keys)

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a connection of a database of our own, for statements of our own only.

        To open a database takes longer than most questions, so there is one, and it holds
        nothing. Unlike those over a snapshot it may open any file.
        """
        with self._lock:
            if self._root is None:
                # DuckDB's own choice for what does not fit into memory is the working directory.
                spill = os.path.join(tempfile.gettempdir(), f"runlake-{os.getpid()}")  # noqa: PTH118 - a text
                self._root = duckdb.connect(
                    config={"python_enable_replacements": False, "temp_directory": spill}
                )
            cursor = self._root.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    def clear(self) -> None:
        """Free the memory; the next question takes it again."""
        with self._lock:
            self._kept.clear()
            self.kept_bytes = 0
            self._root = None

    def abandon_in_child(self) -> None:
        """Keep the connection for ever in a forked child: see `Database.abandon_in_child`."""
        if self._root is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._root))

    def _take_kept(
        self, wanted: Iterable[_Asked], keys: Sequence[str], chunks: _Chunks
    ) -> list[_Asked]:
        """Take what is in memory of every key; return what is not."""
        missing: dict[PointFile, list[int | str]] = {}
        with self._lock:
            for file, part in ((file, part) for file, parts in wanted for part in parts):
                names = [(file.path, part, key) for key in keys]
                if not all(name in self._kept for name in names):
                    missing.setdefault(file, []).append(part)
                    continue
                for name in names:
                    chunks[name] = self._kept[name]
                    self._kept.move_to_end(name)
        return list(starmap(_Asked, missing.items()))

    def _keep(self, chunks: _Chunks) -> None:
        with self._lock:
            for name, chunk in chunks.items():
                if name not in self._kept:
                    self._kept[name] = chunk
                    self.kept_bytes += chunk.size_bytes
            while self.kept_bytes > self._limit_bytes:
                _, chunk = self._kept.popitem(last=False)
                self.kept_bytes -= chunk.size_bytes

    def _scan(
        self, wanted: Sequence[_Asked], keys: Sequence[str], window: Window | None
    ) -> _Chunks:
        """Read all points of some keys from files."""
        chunks: _Chunks = {}
        nothing = _Chunk([], [], _no_columns())
        for some in _together(wanted):
            statement, params = _scan_sql(some, keys, window)
            with self.cursor() as cursor:
                found = _cut(cursor.sql(statement, params=params).to_arrow_table(), keys)
            for place, asked in enumerate(some):
                for code, key in enumerate(keys):
                    chunks |= asked.cut(found.get((place, code), nothing), key)
        return chunks


def find_order(columns: Sequence[NDArray[Any]]) -> NDArray[np.int64] | None:
    """Return the order of rows by columns, the first first; None where they lie in order.

    Points nearly always do, and to look is a fraction of sorting.

    Args:
        columns: two or more of shape (n,), without NaN; the first not negative.
    """
    if _is_sorted(columns):
        return None
    first, second = columns[:2]
    # Small numbers are sorted by counting them.
    coarse = first.astype(np.uint16) if int(first.max()) < _FEW else first
    order = np.lexsort([second, coarse])
    is_tied = (first[order][1:] == first[order][:-1]) & (second[order][1:] == second[order][:-1])
    if is_tied.any():
        places = np.flatnonzero(np.r_[is_tied, False] | np.r_[False, is_tied])
        tied = order[places]
        order[places] = tied[np.lexsort([column[tied] for column in reversed(columns)])]
    return order


def value_order(values: NDArray[np.float64]) -> list[NDArray[Any]]:
    """Return columns that order values, NaN before all numbers."""
    is_nan = np.isnan(values)
    return [~is_nan, np.where(is_nan, 0.0, values)] if is_nan.any() else [values]


def _is_sorted(columns: Sequence[NDArray[Any]]) -> bool:
    is_tied = np.ones(max(0, len(columns[0]) - 1), bool)
    for column in columns:
        before, after = column[:-1], column[1:]
        if (is_tied & (after < before)).any():
            return False
        is_tied &= after == before
        if not is_tied.any():
            break
    return True


def _together(wanted: Sequence[_Asked]) -> Iterator[Sequence[_Asked]]:
    """Cut into what is read at once: segments, then compacted files."""
    for is_compacted, size in ((False, _SCANNED_FILES), (True, _SCANNED_COMPACTED)):
        alike = [asked for asked in wanted if bool(asked.file.table) is is_compacted]
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


def _scan_sql(
    wanted: Sequence[_Asked], keys: Sequence[str], window: Window | None
) -> tuple[str, dict[str, Any]]:
    """Return the statement that reads all points of some keys, and its values.

    Args:
        wanted: files of one kind, segments or compacted; of the latter the runs wanted.
        keys: the keys.
        window: as in `Curves.read`.
    """
    files = [asked.file for asked in wanted]
    params: dict[str, Any] = {"files": [file.path for file in files]}
    where = [_is_among("key", keys, params)]
    is_compacted = bool(files[0].table)
    if is_compacted:
        runs = sorted({str(run) for asked in wanted for run in asked.parts})
        where.append(_is_among("run_id", runs, params))
        if len(runs) > _LISTED:  # DuckDB passes row groups over by bounds and not by a list
            params |= {"least": runs[0], "greatest": runs[-1]}
            where.append("p.run_id BETWEEN $least AND $greatest")
    else:
        where.append(f"p.kind = '{schema.METRIC}'")
    if any(file.skip_rows for file in files):
        params["skips"] = [file.skip_rows for file in files]
        where.append("p.file_row_number >= ($skips::BIGINT[])[p.file_index::BIGINT + 1]")
    if window is not None:
        make = "make_timestamptz" if window.column == "timestamp" else ""
        for name, sign, bound in (("low", ">=", window.low), ("high", "<=", window.high)):
            if bound is not None:
                params[name] = bound
                where.append(f"p.{window.column} {sign} {make}(CAST(${name} AS BIGINT))")
    key = "p.key, " if len(keys) > 1 else ""
    value = "value" if is_compacted else "num"
    return _SCAN.format(key=key, value=value, where=" AND ".join(where)), params


def _is_among(column: str, texts: Sequence[str], params: dict[str, Any]) -> str:
    """Return SQL that is true of rows with one of some texts; the texts go into `params`."""
    if len(texts) <= _LISTED:
        names = [f"{column}{place}" for place in range(len(texts))]
        params |= dict(zip(names, texts, strict=True))
        return f"p.{column} IN ({', '.join(f'${name}' for name in names)})"
    params[f"{column}s"] = list(texts)
    return f"list_contains(CAST(${column}s AS VARCHAR[]), p.{column})"


def _cut(table: pa.Table, keys: Sequence[str]) -> dict[tuple[int, int], _Chunk]:
    """Cut points into chunks, by file and by place in `keys`."""
    if any(column.null_count for column in table.columns):
        table = table.drop_null()  # neither a point without a step or a value
    if not table.num_rows:
        return {}
    files, steps, times, values = (
        arrays.values(table[name].cast(kind).combine_chunks())
        for name, kind in (
            ("file", pa.int64()),
            ("step", pa.int64()),
            ("timestamp", pa.int64()),
            ("value", pa.float64()),
        )
    )
    runs, names = coded(table["run_id"])
    units = files * len(keys)
    if len(keys) > 1:
        codes, found = coded(table["key"])
        places = {key: place for place, key in enumerate(keys)}
        texts: list[Any] = found.to_pylist()
        units = units + np.array([places[text] for text in texts])[codes]
    groups = units * len(names) + runs
    order = find_order([groups, steps, times, *value_order(values)])
    if order is not None:
        groups, steps, times, values = (of[order] for of in (groups, steps, times, values))
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    ends = np.r_[starts[1:], len(groups)]
    units, runs = np.divmod(groups[starts], len(names))
    # Stretches of one run, from here to there, make up a chunk.
    edges = np.flatnonzero(np.r_[True, units[1:] != units[:-1], True])
    texts = names.to_pylist()
    chunks: dict[tuple[int, int], _Chunk] = {}
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        start, end = int(starts[first]), int(ends[last - 1])
        chunks[divmod(int(units[first]), len(keys))] = _Chunk(
            [texts[run] for run in runs[first:last].tolist()],
            (ends[first:last] - start).tolist(),
            # Copies, because a part would keep the whole alive.
            _copied((steps, times, values), start, end),
        )
    return chunks


def _gather(chunks: _Chunks, runs: Mapping[str, int], keys: Sequence[str]) -> Points:
    """Put the parts of each curve one behind the other, by the step that they begin with."""
    places = {key: place for place, key in enumerate(keys)}
    parts: list[tuple[int, int, int]] = []
    columns: list[list[NDArray[Any]]] = []
    for (_, _, key), chunk in chunks.items():
        start = 0
        for run, end in zip(chunk.runs, chunk.ends, strict=True):
            number = runs.get(run)
            if number is not None:
                curve = number * len(keys) + places[key]
                parts.append((curve, int(chunk.columns[0][start]), len(columns)))
                columns.append([column[start:end] for column in chunk.columns])
            start = end
    if not parts:
        return Points(np.zeros(0, np.int64), *_no_columns())
    parts.sort()
    ordered = [columns[place] for _, _, place in parts]
    curves = np.array([curve for curve, _, _ in parts], np.int64)
    lengths = [len(steps) for steps, _, _ in ordered]
    steps, times, values = (np.concatenate(column) for column in zip(*ordered, strict=True))
    return Points(np.repeat(curves, lengths), steps, times, values)


def _copied(columns: _Columns, start: int, end: int) -> _Columns:
    steps, times, values = columns
    return steps[start:end].copy(), times[start:end].copy(), values[start:end].copy()


def _no_columns() -> _Columns:
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64)


def _explain(
    error: duckdb.Error, files: Sequence[PointFile], url: str
) -> FileNotFoundError | StorageError:
    """Return our error for one of DuckDB's."""
    for file in files:
        if not os.path.exists(file.path):  # noqa: PTH110 - thousands of files, no objects
            return FileNotFoundError(f"{file.path} of this snapshot is gone; take a new snapshot.")
    return StorageError(f"DuckDB cannot read a file of this snapshot: {error}", url=url)


_all: weakref.WeakSet[Curves] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for curves in list(_all):
        curves.abandon_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
