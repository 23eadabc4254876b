"""Histories of JSON values, as W&B and Trackio keep them: what is a metric, and what is not.

One row is what one call logged: a step, a time and values by key, nested or not. Numbers become
points. Histograms become events where their edges rise. Files that a value names get the key
and the step. Every other value, and those that name files too, stands unchanged in one file of
JSON lines beside the run, so that nothing that was logged is lost.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake.errors import InvalidInputError
from runlake.importers.source import (
    PIECE_ROWS,
    Note,
    SourceError,
    SourceEvent,
    SourceExperiment,
    SourceRun,
    point_table,
)
from runlake.writing import histograms
from runlake.writing import values as checks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import pyarrow as pa

_SPELLED: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_SIMPLE: Final = (str, bool, int, float)
_LATEST_S: Final = 9_000_000_000_000.0
_EXACT: Final = 1 << 53
_MEDIA: Final = {
    "image": "image",
    "image-file": "image",
    "audio": "audio",
    "audio-file": "audio",
    "html-file": "html",
    "images/separated": "image",
    "html": "html",
}
TYPE_KEY: Final = "_type"
OTHER_VALUES: Final = "values that are no numbers stand in the artifact {!r}"
ROUNDED: Final = "whole numbers of more than 53 bits were rounded to a 64-bit float"


class Row(NamedTuple):
    """What one call logged.

    Attributes:
        step: of all of it.
        time_us: microseconds since 1970, UTC.
        values: as JSON gives them, by key.
    """

    step: int
    time_us: int
    values: Mapping[str, Any]


class Pieces:
    """Points on their way into tables."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._keys: list[str] = []
        self._steps: list[int] = []
        self._times: list[int] = []
        self._values: list[float] = []

    def add(self, key: str, step: int, time_us: int, value: float) -> None:
        """Take one point.

        Args:
            key: of the metric.
            step: any 64-bit whole number.
            time_us: microseconds since 1970, UTC.
            value: of it.
        """
        self._keys.append(key)
        self._steps.append(step)
        self._times.append(time_us)
        self._values.append(value)

    def full(self) -> Iterator[pa.Table]:
        """Yield a table once there are enough points for one."""
        if len(self._values) >= PIECE_ROWS:
            yield from self.rest()

    def rest(self) -> Iterator[pa.Table]:
        """Yield a table of whatever there is."""
        if self._values:
            yield point_table(self._keys, self._steps, self._times, self._values)
            self._keys, self._steps, self._times, self._values = [], [], [], []


@dataclass
class Survey:
    """What a history holds.

    Attributes:
        last: of each metric, its last value in the order of logging.
        rounded: how many values of each metric are no exact 64-bit float.
        others: how many values are neither numbers nor histograms.
        histograms: how many there are.
        files: what is known of the files that values name: key, step, time, caption.
        last_step: the greatest one; None without rows.
        last_us: the latest time; None without rows.
    """

    last: dict[str, float] = field(default_factory=dict)
    rounded: Counter[str] = field(default_factory=Counter)
    others: int = 0
    histograms: int = 0
    files: dict[str, dict[str, object]] = field(default_factory=dict)
    last_step: int | None = None
    last_us: int | None = None

    def notes(self, others_path: str) -> Iterator[Note]:
        """Yield what does not come as it was.

        Args:
            others_path: where the values that are no numbers stand, below the run.
        """
        if self.others:
            yield Note(OTHER_VALUES.format(others_path), count=self.others)
        for key, count in self.rounded.items():
            yield Note(ROUNDED, key, count)


def number_of(value: object) -> float | None:
    """Return the number that a JSON value is, None if it is none; texts may spell NaN."""
    if isinstance(value, (int, float)):
        try:
            return float(value)
        except OverflowError:
            return None
    return _SPELLED.get(value) if isinstance(value, str) else None


def params_of(config: Mapping[str, Any]) -> dict[str, object]:
    """Return a nested config as `log_params` takes it: flat, lists and nulls as texts."""
    flat = checks.flatten(config)
    return {key: value if isinstance(value, _SIMPLE) else str(value) for key, value in flat}


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is in nested mappings, keys joined by dots; a mapping with a type is one value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value and TYPE_KEY not in value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def moment_us(seconds: object) -> int:
    """Return a time in microseconds since 1970.

    Args:
        seconds: since 1970.

    Raises:
        SourceError: this is no such time.
    """
    if isinstance(seconds, (int, float)) and abs(seconds) < _LATEST_S:
        return round(seconds * 1e6)
    raise SourceError(f"a time of the history is none: {str(seconds)[:40]!r}.")


def whole_step(step: object) -> int:
    """Return a step.

    Args:
        step: a whole number of 64 bits, or such a float.

    Raises:
        SourceError: it is none.
    """
    try:
        return checks.step(step)
    except InvalidInputError:
        raise SourceError(f"a step is no whole number of 64 bits: {str(step)[:40]!r}.") from None


def survey(rows: Iterable[Row]) -> Survey:
    """Read a history once and return what it holds."""
    found = Survey()
    for row in rows:
        if found.last_us is None or found.last_step is None:
            found.last_us, found.last_step = row.time_us, row.step
        found.last_us = max(found.last_us, row.time_us)
        found.last_step = max(found.last_step, row.step)
        for key, value in leaves(row.values):
            number = number_of(value)
            if number is not None:
                found.last[key] = number
                if isinstance(value, int) and abs(value) > _EXACT and int(number) != value:
                    found.rounded[key] += 1
            elif histogram_text(key, value, row.step) is not None:
                found.histograms += 1
            else:
                found.others += 1
                found.files.update(_files_of(key, value, row))
    return found


def points(rows: Iterable[Row]) -> Iterator[pa.Table]:
    """Yield the numbers of a history, in pieces."""
    pieces = Pieces()
    for row in rows:
        for key, value in leaves(row.values):
            number = number_of(value)
            if number is not None:
                pieces.add(key, row.step, row.time_us, number)
        yield from pieces.full()
    yield from pieces.rest()


def histogram_events(rows: Iterable[Row]) -> Iterator[SourceEvent]:
    """Yield the histograms of a history."""
    for row in rows:
        for key, value in leaves(row.values):
            text = histogram_text(key, value, row.step)
            if text is not None:
                yield SourceEvent(schema.HISTOGRAM, key, None, text, row.time_us)


def histogram_text(key: str, value: object, step: int) -> str | None:
    """Return a histogram as our events say it.

    Args:
        key: of the histogram.
        value: any value of a history.
        step: at which it was logged.

    Returns:
        The text of the event; None if the value is no histogram that an event can say.
    """
    kind = value.get(TYPE_KEY) if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or kind not in {"histogram", "trackio.histogram"}:
        return None
    edges, counts = value.get("bins"), value.get("values")
    packed = value.get("packedBins")
    if edges is None and isinstance(packed, Mapping):
        low, width, bins = packed.get("min"), packed.get("size"), packed.get("count")
        if not isinstance(low, (int, float)) or not isinstance(width, (int, float)):
            return None
        edges = [low + width * bin_ for bin_ in range(int(bins or 0) + 1)]
    if edges is None or counts is None:
        return None
    return counted(key, edges, counts, step)


def unreadable(source_id: str, experiment: SourceExperiment, error: SourceError) -> SourceRun:
    """Return a run that cannot be read: the importer reports it, and goes on with the next.

    Args:
        source_id: of the run, as well as it is known.
        experiment: where it would lie.
        error: why it cannot be read.
    """

    def refuse() -> Iterator[pa.Table]:
        raise error

    return SourceRun(source_id=source_id, experiment=experiment, points=refuse)


def version_of(files: Iterable[Path]) -> str:
    """Return what changes when a file does: a digest of names, sizes and times of change.

    Args:
        files: in the same order each time.

    Raises:
        OSError: one is not there.
    """
    seen = hashlib.sha256()
    for file in files:
        stat = file.stat()
        seen.update(f"{file.name}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def counted(key: str, edges: object, counts: object, step: int) -> str | None:
    """Return counts between edges as our events say them.

    Args:
        key: of the histogram.
        edges: shape (n + 1,).
        counts: shape (n,).
        step: at which it was logged.

    Returns:
        The text of the event; None if edges do not rise, or no event holds them all.
    """
    try:
        return histograms.text_of(key, edges=edges, counts=counts, step=step)
    except InvalidInputError:
        return None


def write_others(rows: Iterable[Row], file: Path) -> Path:
    """Write each value that is neither a number nor a histogram, one JSON object a line.

    Args:
        rows: the history.
        file: what is made.

    Returns:
        The file.
    """
    with file.open("w", encoding="utf-8", newline="\n") as lines:
        for row in rows:
            for key, value in leaves(row.values):
                if number_of(value) is None and histogram_text(key, value, row.step) is None:
                    said = {"step": row.step, "time_us": row.time_us, "key": key, "value": value}
                    lines.write(json.dumps(said, ensure_ascii=False) + "\n")
    return file


def _files_of(key: str, value: object, row: Row) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield what is known of each file that a value names."""
    if not isinstance(value, Mapping):
        return
    kind = _MEDIA.get(str(value.get(TYPE_KEY, "")).removeprefix("trackio."))
    paths = value.get("filenames") or [value.get("path") or value.get("file_path")]
    captions = value.get("captions") or [value.get("caption")]
    for index, path in enumerate(paths):
        if kind is None or not isinstance(path, str):
            continue
        about: dict[str, object] = {
            "media": kind,
            "key": key,
            "step": row.step,
            "time_us": row.time_us,
        }
        caption = captions[index] if isinstance(captions, list) and index < len(captions) else None
        if isinstance(caption, str) and caption:
            about["caption"] = caption
        yield path, about
