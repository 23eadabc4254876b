"""One run of an export of Neptune: its attributes, series and files."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy
from runlake.artifacts import media
from runlake.importers import histories
from runlake.importers.source import (
    PIECE_ROWS,
    Note,
    SourceError,
    SourceEvent,
    SourceExperiment,
    SourceFile,
    SourceRun,
    point_schema,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
else:
    pa, pc, pq = lazy("pyarrow"), lazy("pyarrow.compute"), lazy("pyarrow.parquet")

_MICRO: Final = 1_000_000
_SYSTEM: Final = "sys/"
_POINTS: Final = "float_series"
_HISTOGRAMS: Final = "histogram_series"
_FILES: Final = {"file", "file_series", "file_set", "artifact"}
_VALUES: Final = {
    "float": "float_value",
    "int": "int_value",
    "string": "string_value",
    "bool": "bool_value",
    "datetime": "datetime_value",
    "string_set": "string_set_value",
}
_OTHERS: Final = "neptune/values.jsonl"
_IMAGES: Final = {".png", ".jpg", ".jpeg", ".gif", ".webp"}
_NO_FILE: Final = "a file of it is not in the export"
_OUTSIDE: Final = "a file of it lies outside of the export's folder of files: it is left out"
_NO_TIME: Final = "points without a time: they have the time at which the run was made"
_NO_STEP: Final = "points without a step: theirs is 0"
_TYPES_LEFT: Final = "attributes of the type {!r} are left out"


class RunFiles(NamedTuple):
    """Where a run stands.

    Attributes:
        project: as `workspace/project`.
        run_id: unique there.
        parquet: the files with its rows, in order; they may have others' as well.
        files: the folder that paths of files start from.
        scale: what steps are multiplied by.
    """

    project: str
    run_id: str
    parquet: Sequence[Path]
    files: Path
    scale: int


def micros(steps: pa.Array[Any]) -> pa.Array[Any]:
    """Return steps, decimals or other numbers, as int64 millionths."""
    if pa.types.is_decimal(steps.type):
        known = steps.cast(pa.decimal128(18, 6))
        factor = pa.scalar(Decimal(_MICRO), pa.decimal128(7, 0))
        return pc.multiply(known, factor).cast(pa.int64())
    if pa.types.is_integer(steps.type):
        return pc.multiply(steps.cast(pa.int64()), _MICRO)
    return pc.round(pc.multiply(steps.cast(pa.float64()), _MICRO)).cast(pa.int64())


def _of_type(*types: str) -> pc.Expression:
    return pc.field("attribute_type").isin(types)


def _stamp() -> pa.TimestampType[Any, Any]:
    return pa.timestamp("us", tz="UTC")


class NeptuneRun:
    """One run, its attributes read when it is asked for and its series later."""

    def __init__(self, files: RunFiles) -> None:
        """Read the attributes; see `RunFiles`."""
        self._files = files
        self._attributes: dict[str, object] = {}
        self._counts: Counter[str] = Counter()
        self._timeless: Counter[str] = Counter()
        self._stepless: Counter[str] = Counter()
        self._missing: list[Note] = []
        for batch in self._batches():
            self._survey(batch)
        made = self._attributes.get("sys/creation_time")
        self._start_us = _time_us(made) if isinstance(made, datetime) else None

    def _survey(self, batch: pa.RecordBatch) -> None:
        kinds = pa.table({"kind": batch["attribute_type"]}).group_by("kind")
        for counted in kinds.aggregate([([], "count_all")]).to_pylist():
            self._counts[str(counted["kind"])] += counted["count_all"]
        simple = batch.filter(_of_type(*_VALUES))
        for row in simple.to_pylist():
            value = row.get(_VALUES[row["attribute_type"]])
            # The exporter writes a row without value where only other runs have the attribute.
            if value is not None:
                self._attributes[row["attribute_path"]] = value
        points = batch.filter(_of_type(_POINTS))
        for column, counts in (("timestamp", self._timeless), ("step", self._stepless)):
            if points[column].null_count:
                lacking = points.filter(pc.field(column).is_null())
                counts.update(str(path) for path in lacking["attribute_path"].to_pylist())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows of this run.

        Raises:
            SourceError: a file is damaged.
        """
        own = (pc.field("run_id") == self._files.run_id) & (
            pc.field("project_id") == self._files.project
        )
        for file in self._files.parquet:
            try:
                with pq.ParquetFile(file) as opened:
                    for batch in opened.iter_batches(PIECE_ROWS):
                        yield batch.filter(own)
            except (pa.ArrowException, OSError) as error:
                raise SourceError(f"{file} cannot be read as Parquet: {error}") from error

    def run(self, experiment: str | None, *, known: Collection[tuple[str, str]]) -> SourceRun:
        """Return it as the importer takes it.

        Args:
            experiment: where all runs go; None: to their projects.
            known: projects and ids of all runs of the export, for parents.
        """
        project, run_id, *_ = self._files
        found = self._attributes
        parent = project, str(found.get("sys/forking/parent"))
        pinged, user = found.get("sys/ping_time"), found.get("sys/owner")
        script = found.get("source_code/entrypoint")
        return SourceRun(
            source_id=f"{project}/{run_id}",
            experiment=SourceExperiment(experiment or project),
            name=str(found.get("sys/name") or found.get("sys/custom_run_id") or run_id),
            status=schema.FAILED if found.get("sys/failed") else schema.FINISHED,
            start_us=self._start_us,
            end_us=_time_us(pinged) if isinstance(pinged, datetime) else None,
            user=user if isinstance(user, str) else None,
            source_name=script if isinstance(script, str) else None,
            parent_id="/".join(parent) if parent in known else None,
            is_deleted=bool(found.get("sys/trashed")),
            params={
                path: value if isinstance(value, (bool, int, float, str)) else _text(value)
                for path, value in found.items()
                if not path.startswith(_SYSTEM)
            },
            tags=self._tags(),
            points=self._points,
            artifacts=self._artifacts,
            events=self._events,
            notes=self._notes,
            version=self._version(),
        )

    def _tags(self) -> dict[str, str]:
        tags = {"neptune.project": self._files.project, "neptune.run_id": self._files.run_id}
        for path, value in self._attributes.items():
            if path.startswith(_SYSTEM):
                tags[f"neptune.{path}"] = _text(value)
        description = self._attributes.get("sys/description")
        if isinstance(description, str) and description:
            tags["mlflow.note.content"] = description
        return tags

    def _steps(self, steps: pa.Array[Any]) -> pa.Array[Any]:
        """Return steps as whole numbers, multiplied as the import does; 0 where there is none."""
        fine = micros(steps).fill_null(0).to_numpy(zero_copy_only=False) * self._files.scale
        if (fine % _MICRO).any():
            message = (
                f"steps of {self._files.run_id} are no whole numbers when they are multiplied by "
                f"{self._files.scale}. Leave step_multiplier out, and one is found that fits."
            )
            raise SourceError(message)
        whole: pa.Array[Any] = pa.array(fine // _MICRO)
        return whole

    def _points(self) -> Iterator[pa.Table]:
        for batch in self._batches():
            rows = batch.filter(_of_type(_POINTS))
            if rows.num_rows:
                yield self._table(rows)

    def _table(self, rows: pa.RecordBatch) -> pa.Table:
        try:
            moments = rows["timestamp"].cast(_stamp()).cast(pa.int64())
            columns: list[pa.Array[Any]] = [
                rows["attribute_path"].cast(pa.string()),
                self._steps(rows["step"]),
                moments.fill_null(self._start_us or 0).cast(_stamp()),
                # pandas, which the exporter writes with, has no null but NaN.
                rows["float_value"].cast(pa.float64()).fill_null(math.nan),
            ]
        except pa.ArrowException as error:
            message = f"points of {self._files.run_id} are of types that no export has: {error}"
            raise SourceError(message) from error
        return pa.Table.from_arrays(columns, schema=point_schema())

    def _rows(self, *types: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of some types, their steps whole and their times in microseconds."""
        if not any(self._counts[one] for one in types):
            return
        for batch in self._batches():
            rows = batch.filter(_of_type(*types))
            steps = self._steps(rows["step"]).to_pylist()
            for row, step, raw in zip(rows.to_pylist(), steps, rows["step"], strict=True):
                stamp = row["timestamp"]
                moment = None if stamp is None else _time_us(stamp)
                yield row | {"whole": step if raw.is_valid else None, "time_us": moment}

    def _histogram(self, row: dict[str, Any]) -> str | None:
        found = row.get("histogram_value")
        if not found or str(found.get("type", "")).upper() != "COUNTING":
            return None
        path, step = row["attribute_path"], row["whole"] or 0
        return histories.counted(path, found["edges"], found["values"], step)

    def _events(self) -> Iterator[SourceEvent]:
        for row in self._rows(_HISTOGRAMS):
            text = self._histogram(row)
            if text is not None:
                path = row["attribute_path"]
                yield SourceEvent(schema.HISTOGRAM, path, None, text, row["time_us"])

    def _artifacts(self) -> Iterator[SourceFile]:
        self._missing = []
        for row in self._rows(*sorted(_FILES)):
            yield from self._files_of(row)
        if any(True for _ in self._others()):
            yield SourceFile(_OTHERS, partial(_write, self))

    def _files_of(self, row: dict[str, Any]) -> Iterator[SourceFile]:
        attribute, value = row["attribute_path"], row.get("file_value")
        if not value or not value.get("path"):
            return
        root = self._files.files.resolve()
        file = Path(root, value["path"])
        if not file.resolve().is_relative_to(root):
            self._missing.append(Note(_OUTSIDE, attribute))
        elif file.is_dir():
            for folder, _, names in sorted(os.walk(file)):
                for name in sorted(names):
                    inside = Path(folder, name)
                    path = f"{attribute}/{inside.relative_to(file).as_posix()}"
                    yield SourceFile.local(path, inside)
        elif not file.is_file():
            self._missing.append(Note(_NO_FILE, attribute))
        elif row["attribute_type"] != "file_series":
            ending = "" if Path(attribute).suffix else file.suffix
            yield SourceFile.local(attribute + ending, file)
        else:
            step, suffix = row["whole"] or 0, file.suffix
            about: dict[str, object] = {"key": attribute, "step": step, "time_us": row["time_us"]}
            if suffix.lower() in _IMAGES:
                about["media"] = "image"
            path = f"{attribute}/{media.step_text(step)}{suffix}"
            yield SourceFile.local(path, file, about)

    def _others(self) -> Iterator[dict[str, Any]]:
        """Yield what has no place of its own, as JSON."""
        for row in self._rows("string_series"):
            yield _told(row, row.get("string_value"))
        for row in self._rows(_HISTOGRAMS):
            if self._histogram(row) is None:
                yield _told(row, row.get("histogram_value"))

    def _notes(self) -> Iterator[Note]:
        count = sum(1 for _ in self._others())
        if count:
            yield Note(histories.OTHER_VALUES.format(_OTHERS), count=count)
        for path, count in self._timeless.items():
            yield Note(_NO_TIME, path, count)
        for path, count in self._stepless.items():
            yield Note(_NO_STEP, path, count)
        known = {*_VALUES, *_FILES, _POINTS, _HISTOGRAMS, "string_series"}
        for kind, count in self._counts.items():
            if kind not in known:
                yield Note(_TYPES_LEFT.format(kind), count=count)
        yield from self._missing

    def _version(self) -> str:
        seen = hashlib.sha256(str(self._files.scale).encode())
        for file in self._files.parquet:
            stat = file.stat()
            seen.update(f"{file.name}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
        return seen.hexdigest()

    def write_others(self, file: Path) -> None:
        """Write what has no place of its own, one JSON object a line."""
        with file.open("w", encoding="utf-8", newline="\n") as lines:
            for said in self._others():
                lines.write(json.dumps(said, ensure_ascii=False) + "\n")


def _write(run: NeptuneRun, folder: Path) -> Path:
    file = folder / "values.jsonl"
    run.write_others(file)
    return file


def _told(row: dict[str, Any], value: object) -> dict[str, Any]:
    return {
        "attribute": row["attribute_path"],
        "type": row["attribute_type"],
        "step": row["whole"],
        "time_us": row["time_us"],
        "value": value,
    }


def _text(value: object) -> str:
    """Return an attribute as text: a time as ISO 8601, a set as JSON."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return json.dumps(sorted(value), ensure_ascii=False)
    return str(value)


def _time_us(moment: datetime) -> int:
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * _MICRO + since.microseconds
