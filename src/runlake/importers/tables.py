"""Runs in CSV and JSON lines: a row for each point, for each step, or for each run.

- *long*: columns for run, key, step, time and value; a row is one point of one metric.
- *wide*: columns for run, step and time, and one column for each metric; a row is a step.
- *runs*: no step; a row is a run, with its last values, as `search_runs` of MLflow gives them.

Which one it is, the columns tell. Rows of one run may lie anywhere: a file that is large is first
cut by run into smaller ones, so that only a part of it is ever in memory.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import NotFoundError
from runlake.importers.source import (
    PIECE_ROWS,
    Note,
    Source,
    SourceError,
    SourceExperiment,
    SourceRun,
    point_table,
)
from runlake.importers.table_rows import columns_of, read_csv, read_jsonl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
else:
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pq = lazy("pyarrow.parquet")

_PART_BYTES: Final = 128 << 20
_UNITS: Final = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_NO_TIME: Final = "points have no time: that of the run's start stands, or 1970"
_NO_NUMBER: Final = "value is no number: left out"
_STATUSES: Final = {"finished": schema.FINISHED, "failed": schema.FAILED, "killed": schema.KILLED}


def open_source(
    source: str,
    *,
    kind: str = "csv",
    experiment: str | None = None,
    columns: Mapping[str, str | Sequence[str]] | None = None,
    time_unit: str = "ms",
    delimiter: str | None = None,
) -> Source:
    """Open a file with runs.

    Args:
        source: the file; of CSV the first line names the columns.
        kind: `csv` or `jsonl`.
        experiment: of runs that name none; None takes the file's name.
        columns: what columns mean, by role: `run`, `name`, `experiment`, `key`, `value`, `step`,
            `time`, `status`, `start`, `end`, `user`, `parent`; and of `metrics`, `params`, `tags`
            and `left` (which are left out) a list, or names with commas between. Columns called
            as usual, and those that begin with `metrics.`, `params.` and `tags.`, explain
            themselves; all others are metrics where there are steps, else params.
        time_unit: of times that are numbers since 1970: `s`, `ms`, `us` or `ns`.
        delimiter: between columns of CSV; None: a comma, or a tab in `.tsv`.

    Returns:
        The source.

    Raises:
        NotFoundError: there is no such file.
        SourceError: it cannot be read so.
        InvalidInputError: a role, column or unit that was named is not there.
    """
    file = Path(source)
    if not file.is_file():
        raise NotFoundError(f"there is no file {source!r} to import from.")
    if time_unit not in _UNITS:
        message = f"times are numbers of {', '.join(_UNITS)}, got {time_unit!r}."
        raise SourceError(message)
    given = {
        role: each.split(",") if isinstance(each, str) else list(each)
        for role, each in (columns or {}).items()
    }
    delimiter = delimiter or ("\t" if file.suffix == ".tsv" else ",")
    return TableFile(
        kind, file, experiment or file.stem, given, unit=_UNITS[time_unit], delimiter=delimiter
    )


class TableFile(Source):
    """The runs of one file."""

    def __init__(
        self,
        kind: str,
        file: Path,
        experiment: str,
        given: Mapping[str, Sequence[str]],
        *,
        unit: float,
        delimiter: str,
    ) -> None:
        """Look at the columns.

        Args:
            kind: `csv` or `jsonl`.
            file: the file.
            experiment: of runs that name none.
            given: what columns mean, as far as the caller said.
            unit: microseconds in a unit of times.
            delimiter: of CSV.

        Raises:
            SourceError: it cannot be read so.
            InvalidInputError: a column that was named is not there.
        """
        self.kind = kind
        self.name = str(file)
        self._file, self._experiment, self._unit = file, experiment, unit
        self._delimiter = delimiter
        names = list(dict.fromkeys(name for each in self._rows() for name in each.column_names))
        self._columns = columns_of(names, given)
        self._names = names
        self._notes = [Note("column left out, as was said", name) for name in self._columns.left]

    def runs(self) -> Iterator[SourceRun]:
        """Yield the runs, in the order in which they first come."""
        with tempfile.TemporaryDirectory(prefix="runlake-import-") as folder:
            for part in self._parts(Path(folder)):
                yield from self._runs_of(part)

    def notes(self) -> list[Note]:
        """Return which columns are left out."""
        return self._notes

    def _rows(self) -> Iterator[pa.Table]:
        if self.kind == "csv":
            return read_csv(self._file, self._delimiter)
        return read_jsonl(self._file)

    def _whole(self) -> Iterator[pa.Table]:
        """Yield the rows, all with all columns."""
        for table in self._rows():
            columns = [
                table[name] if name in table.column_names else pa.nulls(len(table), pa.string())
                for name in self._names
            ]
            yield pa.Table.from_arrays(columns, names=self._names)

    def _parts(self, folder: Path) -> Iterator[pa.Table]:
        """Yield the rows in parts that fit into memory, each with all rows of its runs."""
        count = self._file.stat().st_size // _PART_BYTES + 1
        run = self._columns.roles.get("run")
        if count == 1 or run is None:
            tables = list(self._whole())
            if tables:
                yield pa.concat_tables(tables)
            return
        shape = pa.schema([(name, pa.string()) for name in self._names])
        files = [folder / f"{number}.parquet" for number in range(count)]
        writers = [pq.ParquetWriter(file, shape, compression="zstd") for file in files]
        for table in self._whole():
            coded: Any = table[run].combine_chunks().fill_null("").dictionary_encode()
            homes = [_home(name, count) for name in coded.dictionary.to_pylist()]
            of_row = pa.array(homes, pa.int32()).take(coded.indices)
            for number, writer in enumerate(writers):
                is_here = pc.equal(of_row, pa.scalar(number, pa.int32()))
                writer.write_table(table.filter(is_here))
        for writer in writers:
            writer.close()
        for file in files:
            yield pq.read_table(file, partitioning=None)

    def _runs_of(self, table: pa.Table) -> Iterator[SourceRun]:
        run = self._columns.roles.get("run")
        if run is None:
            if self._columns.has_points:
                yield self._run(self._file.stem, table)
                return
            for number in range(table.num_rows):
                yield self._run(f"{self._file.stem}-{number + 1}", table.slice(number, 1))
            return
        names: Any = table[run].combine_chunks()
        if names.null_count:
            message = f"{names.null_count} rows of {self.name} name no run in column {run!r}."
            raise SourceError(message)
        coded = names.dictionary_encode()
        order = pc.sort_indices(coded.indices)
        ordered = table.take(order)
        counts = pc.value_counts(coded.indices.take(order)).field(1).to_pylist()
        start = 0
        for name, count in zip(coded.dictionary.to_pylist(), counts, strict=True):
            if count > 1 and not self._columns.has_points:
                message = f"run {name!r} is in {count} rows, and no column tells the step."
                raise SourceError(message)
            yield self._run(name, ordered.slice(start, count))
            start += count

    def _run(self, name: str, table: pa.Table) -> SourceRun:
        columns = self._columns

        def said(role: str) -> str | None:
            column = columns.roles.get(role)
            return None if column is None else _first(table[column])

        notes: list[Note] = []
        experiment = said("experiment") or self._experiment
        start_us = self._moment(said("start"))
        status = said("status") or schema.FINISHED
        parent = said("parent")
        return SourceRun(
            source_id=_place(experiment, name),
            experiment=SourceExperiment(experiment),
            name=said("name") or name,
            status=_STATUSES.get(status.lower(), status.upper()),
            start_us=start_us,
            end_us=self._moment(said("end")),
            user=said("user"),
            parent_id=None if parent is None else _place(experiment, parent),
            params=dict(_facts(table, columns.params, notes)),
            tags=dict(_facts(table, columns.tags, notes)),
            points=lambda: self._points(table, start_us or 0, notes),
            notes=lambda: notes,
        )

    def _points(self, table: pa.Table, start_us: int, notes: list[Note]) -> Iterator[pa.Table]:
        columns = self._columns
        book = _Book()
        for start in range(0, table.num_rows, PIECE_ROWS):
            piece = table.slice(start, PIECE_ROWS)
            times = self._times(piece, start_us)
            steps = self._steps(piece, book.lost)
            if columns.is_long:
                names = piece[columns.roles["key"]].to_pylist()
                texts = piece[columns.roles["value"]].to_pylist()
                yield book.points(names, texts, steps, times)
                continue
            for key, column in columns.metrics.items():
                texts = piece[column].to_pylist()
                yield book.points([key] * len(texts), texts, steps, times)
        if "time" not in columns.roles and book.counted:
            notes.append(Note(_NO_TIME, count=book.counted.total()))
        notes += [Note(what, key, count) for (what, key), count in book.lost.items()]

    def _times(self, piece: pa.Table, start_us: int) -> list[int]:
        column = self._columns.roles.get("time")
        if column is None:
            return [start_us] * piece.num_rows
        return [
            start_us if (moment := self._moment(text)) is None else moment
            for text in piece[column].to_pylist()
        ]

    def _steps(self, piece: pa.Table, lost: Counter[tuple[str, str]]) -> list[int | None] | None:
        column = self._columns.roles.get("step")
        if column is None:
            return None if self._columns.is_long else [0] * piece.num_rows
        found: list[int | None] = []
        texts: list[str | None] = piece[column].to_pylist()
        for text in texts:
            try:
                step = None if text is None else int(text)
            except ValueError:
                step = self._cut(str(text), lost)
            found.append(step)
        return found

    def _cut(self, text: str, lost: Counter[tuple[str, str]]) -> int:
        try:
            number = float(text)
            step = int(number)
        except (ValueError, OverflowError) as error:
            raise SourceError(f"{self.name}: {text[:80]!r} is no step.") from error
        if step != number:
            lost["step was no whole number: what is behind the point is cut", ""] += 1
        return step

    def _moment(self, text: str | None) -> int | None:
        """Return a time in microseconds since 1970, UTC; one without a zone is in UTC."""
        if text is None:
            return None
        try:
            return round(int(text) * self._unit)
        except ValueError:
            pass
        try:
            return round(float(text) * self._unit)
        except (ValueError, OverflowError):
            pass
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            message = f"{self.name}: {text[:80]!r} is no time: neither ISO 8601 nor a number."
            raise SourceError(message) from error
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        since = aware - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


class _Book:
    """The points of one run, counted, and what does not make one."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.lost: Counter[tuple[str, str]] = Counter()

    def points(
        self,
        keys: Sequence[str | None],
        texts: Iterable[str | None],
        steps: Sequence[int | None] | None,
        times: Sequence[int],
    ) -> pa.Table:
        """Return rows as points; without steps they are counted."""
        found: list[tuple[str, int, int, float]] = []
        for place, (key, text) in enumerate(zip(keys, texts, strict=True)):
            value = self._value(key, text)
            if key is None or value is None:
                continue
            step = self.counted[key] if steps is None else steps[place]
            if step is None:
                self.lost["point without a step: left out", key] += 1
                continue
            self.counted[key] += 1
            found.append((key, step, times[place], value))
        columns = zip(*found, strict=True) if found else ((), (), (), ())
        return point_table(*map(list, columns))

    def _value(self, key: str | None, text: str | None) -> float | None:
        if text is None:
            return None
        if key is None:
            self.lost["point without a key: left out", ""] += 1
            return None
        try:
            return float(text)
        except ValueError:
            self.lost[_NO_NUMBER, key] += 1
            return None


def _facts(
    table: pa.Table, wanted: Mapping[str, str], notes: list[Note]
) -> Iterator[tuple[str, str]]:
    """Yield the first value of each column; one that changes within a run is noted."""
    for key, column in wanted.items():
        value = _first(table[column])
        if value is None:
            continue
        others = pc.count_distinct(table[column], mode="only_valid").as_py() - 1
        if others:
            what = "column changes within a run, where one value is kept: the first"
            notes.append(Note(what, column, others))
        yield key, value


def _first(column: pa.ChunkedArray[Any]) -> str | None:
    known = column.drop_null()
    return known[0].as_py() if len(known) else None


def _place(experiment: str, run: str) -> str:
    """Return what tells a run from others: an id by itself, a name in its experiment."""
    is_id = len(run) == 32 and set(run) <= set("0123456789abcdef")  # noqa: PLR2004 - hex digits
    return run if is_id else f"{experiment}/{run}"


def _home(run: str, count: int) -> int:
    return int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest()) % count
