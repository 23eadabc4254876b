"""Histories that were exported from W&B: a table with `_step` and a column for each metric.

Such files come from `run.history()`, from `run.scan_history()`, from the artifact that W&B keeps
of each run's history, and from the download button of a chart, which has one column for each run
and metric (`name - metric`), thinned by W&B.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from runlake._lazy import lazy
from runlake.importers import histories
from runlake.importers.source import (
    Note,
    Source,
    SourceError,
    SourceExperiment,
    SourceFile,
    SourceRun,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import csv
else:
    pa, csv, pq = lazy("pyarrow"), lazy("pyarrow.csv"), lazy("pyarrow.parquet")

SUFFIXES: Final = frozenset({".parquet", ".csv"})
_STEP: Final = "_step"
_CHART_STEP: Final = "Step"
_OWN: Final = ("_step", "_runtime", "_timestamp")
_PART: Final = re.compile(r"\d+")
_OTHERS: Final = "wandb/history.jsonl"
_BATCH_ROWS: Final = 1 << 14
_CHART_NOTE: Final = "downloaded from a chart: W&B thins those to a few hundred points"
_BOUNDS: Final = "columns with the least and greatest of a group (__MIN, __MAX) are left out"
_NO_TIME: Final = "rows have no time: all stand at the begin of 1970"
_RUNTIME_TIME: Final = "rows have a running time only: it is counted from 1970"
_RUNTIME: Final = "the running time of each row (_runtime) is left out: points have their time"
_INDEX: Final = "the file has no steps: rows are counted from 0"


class ExportedHistories(Source):
    """Exported histories below a folder: one run a file, or one a folder of numbered parts."""

    kind = "wandb"

    def __init__(self, root: Path, files: Sequence[Path], experiment: str | None) -> None:
        """See `runlake.importers.wandb.open_source`."""
        self.name = str(root)
        self._experiment = experiment or (root.stem if root.is_file() else root.resolve().name)
        self._root = root if root.is_dir() else root.parent
        self._groups: dict[Path, list[Path]] = {}
        for file in files:
            named = file.parent if _PART.fullmatch(file.stem) else file
            self._groups.setdefault(named, []).append(file)

    def runs(self) -> Iterator[SourceRun]:
        """Yield the runs by path; of a chart each of its runs."""
        for named, files in sorted(self._groups.items()):
            path = named.relative_to(self._root).with_suffix("").as_posix()
            try:
                yield from self._of_files(path, [_Table(file) for file in files])
            except SourceError as error:
                where = SourceExperiment(self._experiment)
                yield histories.unreadable(f"{self._experiment}/{path}", where, error)

    def _of_files(self, path: str, tables: Sequence[_Table]) -> Iterator[SourceRun]:
        """Yield the runs of one file, or of the parts of one."""
        name = self._root.resolve().name if path == "." else path
        found = _chart_runs(tables[0].columns)
        for run, columns in found.items() if found else [(name, None)]:
            source_id = path if run == name else f"{path}/{run}"
            sketch = SourceRun(
                source_id=f"{self._experiment}/{source_id}",
                experiment=SourceExperiment(self._experiment),
                name=run,
                version=histories.version_of(table.file for table in tables),
            )
            yield replace(sketch, read=partial(_read, tables, columns, sketch))


def _read(tables: Sequence[_Table], columns: dict[str, str] | None, sketch: SourceRun) -> SourceRun:
    return _ExportedRun(tables, columns).run(sketch)


def _chart_runs(columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the columns and keys of each run of a chart; nothing for another file."""
    if _STEP in columns or _CHART_STEP not in columns:
        return {}
    runs: dict[str, dict[str, str]] = {}
    for column in columns:
        run, dash, key = column.rpartition(" - ")
        if dash and not key.startswith("_") and not key.endswith(("__MIN", "__MAX")):
            runs.setdefault(run, {})[column] = key
    return runs


class _Table:
    """One file of either format, read in batches."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.is_csv = file.suffix.lower() == ".csv"
        try:
            if self.is_csv:
                with csv.open_csv(file) as opened:
                    self.columns: list[str] = opened.schema.names
            else:
                self.columns = pq.read_schema(file).names
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            if self.is_csv:
                # What a type is guessed from is the first block: later texts must not fail.
                types = dict.fromkeys(self.columns, pa.string())
                options = csv.ConvertOptions(column_types=types, strings_can_be_null=True)
                with csv.open_csv(self.file, convert_options=options) as opened:
                    yield from opened
            else:
                with pq.ParquetFile(self.file) as opened:
                    yield from opened.iter_batches(_BATCH_ROWS)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> SourceError:
        return SourceError(f"{self.file} cannot be read as an exported history: {error}")


class _ExportedRun:
    """One run of one or more files."""

    def __init__(self, tables: Sequence[_Table], columns: dict[str, str] | None) -> None:
        names = tables[0].columns
        self._tables = tables
        self._is_chart = columns is not None
        self._columns = columns or {name: name for name in names if name not in _OWN}
        step = _CHART_STEP if self._is_chart else _STEP
        self._step = step if step in names else None
        self._time = next((name for name in ("_timestamp", "_runtime") if name in names), None)
        self._found = histories.survey(self._rows())

    def run(self, sketch: SourceRun) -> SourceRun:
        """Return it as the importer takes it."""
        return replace(
            sketch,
            points=lambda: histories.points(self._rows()),
            artifacts=self._files,
            events=lambda: histories.histogram_events(self._rows()),
            notes=self._notes,
        )

    def _rows(self) -> Iterator[histories.Row]:
        count = 0
        for table in self._tables:
            for batch in table.batches():
                for cells in batch.to_pylist():
                    step = cells.get(self._step) if self._step else None
                    found = {
                        key: _value(cells[column], is_text=table.is_csv)
                        for column, key in self._columns.items()
                        if cells.get(column) not in {None, ""} or not table.is_csv
                    }
                    found = {key: value for key, value in found.items() if value is not None}
                    moment = _time_us(cells.get(self._time)) if self._time else 0
                    yield histories.Row(count if step is None else _whole(step), moment, found)
                    count += 1

    def _files(self) -> Iterator[SourceFile]:
        if self._found.others:
            yield SourceFile(
                _OTHERS,
                lambda folder: histories.write_others(self._rows(), folder / "history.jsonl"),
            )

    def _notes(self) -> Iterator[Note]:
        yield from self._found.notes(_OTHERS)
        names = self._tables[0].columns
        if self._is_chart:
            yield Note(_CHART_NOTE)
            if any(name.endswith(("__MIN", "__MAX")) for name in names):
                yield Note(_BOUNDS)
        if self._step is None:
            yield Note(_INDEX)
        if self._time is None:
            yield Note(_NO_TIME)
        elif self._time == "_runtime":
            yield Note(_RUNTIME_TIME)
        elif "_runtime" in names:
            yield Note(_RUNTIME)


def _value(cell: object, *, is_text: bool) -> object:
    """Return a cell as JSON has it; the cells of a CSV file are texts."""
    if isinstance(cell, (datetime, date)):
        return cell.isoformat()
    if isinstance(cell, bytes):
        return cell.decode(errors="replace")
    if is_text and isinstance(cell, str):
        return _spelled(cell)
    return cell


def _spelled(cell: str) -> object:
    """Return what a text spells: a bool, a number, JSON, or itself."""
    if cell.lower() in {"true", "false"}:
        return cell.lower() == "true"
    readers: list[Callable[[str], object]] = [int, float]
    if cell[0] in {"{", "["}:
        readers = [json.loads]
    for read in readers:
        try:
            return read(cell)
        except ValueError:
            continue
    return cell


def _whole(cell: object) -> int:
    return histories.whole_step(_spelled(cell) if isinstance(cell, str) and cell else cell)


def _time_us(cell: object) -> int:
    """Return microseconds since 1970 of seconds, or of a time; 0 without."""
    if isinstance(cell, datetime):
        known = cell if cell.tzinfo else cell.replace(tzinfo=UTC)
        return round(known.timestamp() * 1e6)
    spelled = _spelled(cell) if isinstance(cell, str) and cell else cell or 0
    return histories.moment_us(spelled)
