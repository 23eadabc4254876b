"""Curves: what runs logged of some metrics, point by point.

A curve is all points of one metric in one run, whoever logged them: points of several writers at
one step all show. Curves come in the order that the runs were asked for, then by key; points by
x, then step, time and value, NaN before all numbers, so that the last row at the last step is
the last value. Many runs and many keys are one question, and only files that hold such points
are opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from operator import index
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from runlake import arguments, schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError, NotFoundError
from runlake.query.axis import RELATIVE, STEP, TIME, WORDS, Axis, follow
from runlake.query.compare import read_run_ids
from runlake.query.curves import Points, find_order, value_order
from runlake.query.entities import get_run
from runlake.query.export import to_polars
from runlake.query.thin import FEWEST, thin
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    from runlake.query.curves import Curves
    from runlake.query.engine import Query
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

# Curves of so many points are thinned at once, so that those of thousands of runs, each of them
# short enough in the end, need no more memory than this on the way.
_BATCH_POINTS: Final = 1 << 22
# Of a text in an Arrow array of views: its length, and itself or where it lies.
_VIEW_BYTES: Final = 16
_PATTERN: Final = re.compile(r"[*?\[]")
_ALL: Final = "*"
_ACTIVE: Final = f"""
SELECT rowid AS place
FROM inside.run_facts
WHERE lifecycle_stage = '{schema.ACTIVE}' AND {{only}}
ORDER BY rowid
"""
_IN_EXPERIMENTS: Final = "experiment_id IN (SELECT unnest(CAST($experiments AS VARCHAR[])))"


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSearch:
    """What is asked.

    Attributes:
        keys: keys of metrics and patterns, see `read_keys`.
        runs: deleted or not: see `runlake.query.compare.read_run_ids`; None means all active.
        x: `step`, `time`, `relative` or the key of another metric.
        max_points: greatest number of points of each curve, at least 4; None means all.
        start: least x, see `runlake.query.axis.Axis.of`.
        stop: greatest x.
        experiment_ids: only runs of these experiments; None means of all.
    """

    keys: Sequence[str]
    runs: object = None
    x: str = STEP
    max_points: int | None = None
    start: object = None
    stop: object = None
    experiment_ids: Sequence[str] | None = None


def read_keys(given: object) -> list[str]:
    """Return the keys and patterns that a caller gave.

    Args:
        given: one, or a list of such. In a pattern `*` stands for any text, `?` for one letter,
            and `[ab]` for one of these; a metric whose key is exactly that goes before.

    Raises:
        InvalidInputError: it is none of these.
    """
    if isinstance(given, str):
        return [given]
    listed: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    for key in listed:
        if not isinstance(key, str):
            raise InvalidInputError(
                f"keys are a text or a list of texts, got {arguments.told(key)}."
            )
    return listed


class _Runs(NamedTuple):
    """The runs asked for, in order, each with its number."""

    ids: pa.StringArray
    names: pa.StringArray
    places: NDArray[np.int64]
    starts_us: NDArray[np.int64]


class _Placed(NamedTuple):
    """Points, and the x of each."""

    points: Points
    x: NDArray[Any]

    def take(self, rows: NDArray[Any]) -> _Placed:
        return _Placed(self.points.take(rows), self.x[rows])


def history(query: Query, curves: Curves, wanted: CurveSearch) -> pl.DataFrame:
    """Return curves, one row for each point.

    Args:
        query: the snapshot.
        curves: reads the points, and remembers what it has read.
        wanted: what is asked.

    Returns:
        `run_id`, `run_name`, `key`, `x` (an integer for steps, a time, else a float), `step`,
        `timestamp`, `value`; runs as asked for, of all runs the newest first. A point whose x is
        not known is left out: one before the first value of the metric that x is. Thinned
        curves are made of rows of the whole ones, see `runlake.query.thin.thin`.

    Raises:
        InvalidInputError: an argument is none of what it may be.
        NotFoundError: the snapshot holds no such run or metric, or none that fits a pattern;
            the message names the nearest.
        FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
        StorageError: a file of the snapshot cannot be read.
    """
    axis = Axis.of(wanted.x, start=wanted.start, stop=wanted.stop)
    max_points = _read_max_points(wanted.max_points)
    keys = _find_keys(query, wanted.keys)
    if axis.metric is not None:
        _require(query, axis.metric, but=WORDS)
    runs = _find_runs(query, wanted)
    reading = _Reading(query, curves, axis, keys, runs)
    batches = _batches(query, runs, keys, size=None if max_points is None else _BATCH_POINTS)
    # Where there is nothing, nothing is read all the same: it has the right columns.
    parts = [reading.read(numbers, max_points) for numbers in batches or [np.arange(0)]]
    return to_polars(_table(parts, axis, keys, runs))


class _Reading(NamedTuple):
    """One question, read and refused where it is wrong."""

    query: Query
    curves: Curves
    axis: Axis
    keys: list[str]
    runs: _Runs

    def read(self, numbers: NDArray[np.int64], max_points: int | None) -> _Placed:
        """Return the curves of some runs, in order, each short enough."""
        names: list[Any] = self.runs.ids.take(arrays.numbers(numbers)).to_pylist()
        wanted = dict(zip(names, numbers.tolist(), strict=True))
        tables = self.query.tables
        points = self.curves.read(tables, wanted, self.keys, window=self.axis.window)
        placed = _Placed(points, self._x(points, wanted))
        is_there = self.axis.within(placed.x)
        if not is_there.all():
            placed = placed.take(is_there)
        points = placed.points
        by = [points.curves, placed.x, points.steps, points.times, *value_order(points.values)]
        order = find_order(by)
        if order is not None:
            placed = placed.take(order)
        return placed if max_points is None else self._thinned(placed, max_points)

    def _x(self, points: Points, wanted: dict[str, int]) -> NDArray[Any]:
        if self.axis.name == STEP:
            return points.steps
        if self.axis.name == TIME:
            return points.times
        if self.axis.name == RELATIVE:
            begun = self.runs.starts_us[points.curves // len(self.keys)]
            seconds: NDArray[np.float64] = (points.times - begun) / 1e6
            return seconds
        guides = self.curves.read(self.query.tables, wanted, [self.axis.name])
        return follow(points, guides, keys=len(self.keys))

    def _thinned(self, placed: _Placed, max_points: int) -> _Placed:
        points = placed.points
        kept = thin(points.curves, placed.x, points.values, max_points=max_points)
        return placed if kept is None else placed.take(kept)


def _read_max_points(given: object) -> int | None:
    if given is None:
        return None
    try:
        number = 0 if isinstance(given, bool) else index(given)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < FEWEST:
        raise InvalidInputError(
            f"max_points must be at least {FEWEST} (first, last, low, high), got {given!r:.80}."
        )
    return number


def _find_keys(query: Query, given: Sequence[str]) -> list[str]:
    """Return the keys asked for, in their order."""
    known = _known_keys(query)
    found: set[str] = set()
    for key in given:
        if key not in known and _PATTERN.search(key):
            fits = re.compile(translate(key)).match
            fitting = {name for name in known if fits(name)}
            found |= fitting
            if fitting or key == _ALL:
                continue
        _require(query, key)
        found.add(key)
    return sorted(found)


def _known_keys(query: Query) -> frozenset[str]:
    def find() -> frozenset[str]:
        names: list[Any] = query.folded.metrics.names.to_pylist()
        return frozenset(names)

    return query.once("metric_keys", find)


def _require(query: Query, key: str, *, but: Sequence[str] = ()) -> None:
    """Refuse a metric that no run of the snapshot has; `but` are words it may be meant for."""
    known = _known_keys(query)
    if key not in known:
        names = [*but, *sorted(known)]
        url = query.tables.root_url
        raise NotFoundError.of("metric", key, url=url, known=names, count=len(known))


def _find_runs(query: Query, wanted: CurveSearch) -> _Runs:
    """Return the runs asked for."""
    runs = query.folded.runs
    if wanted.runs is None:
        only, params = "true", None
        if wanted.experiment_ids is not None:
            only, params = _IN_EXPERIMENTS, {"experiments": list(wanted.experiment_ids)}
        found = query.read(_ACTIVE.format(only=only), params, needs=("run_facts",))
        places = arrays.values(found["place"].combine_chunks())
    else:
        run_ids = list(dict.fromkeys(read_run_ids(wanted.runs)))
        # Looked up from the other side, because of many runs few are asked for.
        numbers: Any = pc.index_in(
            runs["run_id"].combine_chunks(), value_set=arrays.strings(run_ids)
        )
        there = np.flatnonzero(arrays.is_valid(numbers))
        places = np.full(len(run_ids), -1)
        places[arrays.values(numbers)[there]] = there
        for run_id, place in zip(run_ids, places.tolist(), strict=True):
            if place < 0:
                get_run(query, run_id)  # raises, with the nearest ids
    chosen = runs.select(["run_id", "run_name", "start_us"]).take(arrays.numbers(places))
    ids, names, starts = (column.combine_chunks() for column in chosen.columns)
    starts_us = arrays.values(starts.cast(pa.int64()))
    return _Runs(cast("Any", ids), cast("Any", names), places, starts_us)


def _batches(
    query: Query, runs: _Runs, keys: Sequence[str], *, size: int | None
) -> list[NDArray[np.int64]]:
    """Return the numbers of the runs that have such points, in batches of about `size` points."""
    held = query.folded.metrics.about(runs.places)
    rows = held.of_runs(runs.places)
    asked = frozenset(keys)
    is_asked = np.array([name in asked for name in held.names.to_pylist()], bool)
    rows = rows[is_asked[held.keys[rows]]]
    counts = arrays.values(held.values("count", rows))
    of_place = np.zeros(held.run_count, np.int64)
    of_place[runs.places] = np.arange(len(runs.places))
    totals = np.bincount(of_place[held.places[rows]], weights=counts, minlength=len(runs.places))
    numbers = np.flatnonzero(totals)
    if size is None:
        return [numbers] if len(numbers) else []
    before = np.cumsum(totals[numbers]) - totals[numbers]
    edges = np.flatnonzero(np.diff(before // size)) + 1
    return [batch for batch in np.split(numbers, edges) if len(batch)]


def _table(parts: Sequence[_Placed], axis: Axis, keys: Sequence[str], runs: _Runs) -> pa.Table:
    """Put together what was read."""
    points = Points(*(_joined(of) for of in zip(*(part.points for part in parts), strict=True)))
    numbers, codes = np.divmod(points.curves, max(1, len(keys)))
    time = pa.timestamp("us", tz="UTC")
    x: Any = arrays.numbers(_joined([part.x for part in parts]))
    return pa.table(
        {
            "run_id": _spread(runs.ids, numbers),
            "run_name": _spread(runs.names, numbers),
            "key": _spread(arrays.strings(keys), codes),
            "x": x.view(time) if axis.name == TIME else x,
            "step": arrays.numbers(points.steps),
            "timestamp": arrays.numbers(points.times).view(time),
            "value": arrays.numbers(points.values),
        }
    )


def _spread(texts: pa.StringArray, places: NDArray[np.int64]) -> pa.Array[Any]:
    """Return texts by place, each of them once in memory: a fifth of the time of copying them."""
    if not len(texts):
        return texts
    shown: Any = texts.cast(pa.string_view())
    _, views, *data = shown.buffers()
    each = np.frombuffer(views, np.dtype((np.void, _VIEW_BYTES)), len(texts) + shown.offset)
    chosen: Any = each[shown.offset :][places]
    is_there = arrays.is_valid(shown)[places]
    valid: Any = None if is_there.all() else np.packbits(is_there, bitorder="little")
    buffers = [None if valid is None else pa.py_buffer(valid), pa.py_buffer(chosen.view(np.uint8))]
    return pa.Array.from_buffers(pa.string_view(), len(places), [*buffers, *data])


def _joined(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return columns[0] if len(columns) == 1 else np.concatenate(columns)
