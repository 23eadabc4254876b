"""Runs side by side: one row for each thing that runs say, one column for each run.

All cells are text, because a param is one, and a column has one type. Texts stand exactly as
they were logged; numbers as the shortest text that reads back as the same number, so
`cast(pl.Float64)` of the rows of metrics loses nothing. Two cells are the same if their texts
are; what a run does not have is null, and no text is the same as null.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import arguments
from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.query.entities import get_run
from runlake.query.export import to_polars
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import numpy as np
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.query.engine import Query
    from runlake.query.held import Holding
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

SHOWS: Final = ("differing", "same", "all")
ATTRIBUTES: Final = (
    "run_id",
    "experiment_name",
    "status",
    "lifecycle_stage",
    "start_time",
    "duration",
    "user_id",
    "source_name",
    "parent_run_id",
)
KINDS: Final = (
    "attribute",
    "param",
    "metric",
    "metric.min",
    "metric.max",
    "metric.last_step",
    "input",
    "tag",
    "provenance",
)

_FIXED: Final = ("kind", "key")
_FEWEST: Final = 2
_SHORT_ID: Final = 8
_RUNS_SQL: Final = """
SELECT
    rowid AS place,
    run_name,
    {columns}
FROM inside.run_facts
WHERE run_id IN (SELECT unnest(CAST($run_ids AS VARCHAR[])))
"""
# Of several writers the first tells: the others run the same, or say in `provenance` what not.
_PROVENANCE_SQL: Final = """
SELECT run_id, key, min(struct_pack("at", writer, value)).value AS value
FROM provenance
WHERE run_id IN (SELECT unnest(CAST($run_ids AS VARCHAR[]))) AND key <> 'process.pid'
GROUP BY run_id, key
"""
# As ISO 8601 has it.
_SHOWN: Final = {"start_time": "strftime(start_time, '%Y-%m-%dT%H:%M:%S.%fZ')"}


class _Label(NamedTuple):
    """What a row is about; a data set's key has its context beside it."""

    kind: str
    key: str
    context: str | None = None

    @property
    def shown(self) -> str:
        return self.key if self.context is None else f"{self.key} ({self.context})"


_Cells = dict[_Label, list[str | None]]


def compare(
    query: Query, runs: object, *, show: str = "differing", provenance: bool = False
) -> pl.DataFrame:
    """Set runs side by side.

    Rows are, in this order: `attribute` (see `ATTRIBUTES`); `param`; `metric`, the last value,
    and where a run logged several points `metric.min`, `metric.max` and `metric.last_step`;
    `input`, the digests of a data set by its name and context; `tag`.

    Args:
        query: the snapshot.
        runs: two or more runs, deleted or not: see `read_run_ids`.
        show: `differing`: rows whose cells are not all the same; `same`: all others; `all`.
        provenance: in place of all these, `provenance`: where runs come from, as the first of
            the writers of each tells.

    Returns:
        `kind`, `key`, and a text column for each run, in their order, named by the run's name;
        where runs share a name, by the name and the beginning of the id.

    Raises:
        InvalidInputError: there are fewer than two runs, or an argument is none of these.
        NotFoundError: the snapshot holds no such run; the message names it and the nearest.
    """
    if arguments.text("show", show) not in SHOWS:
        raise InvalidInputError(f"show is {show!r}; it may be {', '.join(map(repr, SHOWS))}.")
    run_ids = list(dict.fromkeys(read_run_ids(runs)))
    if len(run_ids) < _FEWEST:
        given = f"only {run_ids[0]!r}" if run_ids else "none"
        raise InvalidInputError(f"compare takes two runs or more, got {given}.")
    places, names, cells = _attributes(query, run_ids)
    if provenance:
        cells = _provenance(query, run_ids)
    else:
        for read in (_params, _metrics, _inputs, _tags):
            cells |= read(query, places)
    rows = [
        (label, values)
        for label, values in sorted(cells.items(), key=_order)
        if show == "all" or (len(set(values)) > 1) == (show == "differing")
    ]
    columns = {
        "kind": arrays.strings([label.kind for label, _ in rows]),
        "key": arrays.strings([label.shown for label, _ in rows]),
    }
    for number, title in enumerate(_titles(names, run_ids)):
        columns[title] = pa.array([values[number] for _, values in rows], pa.string())
    return to_polars(pa.table(columns))


def read_run_ids(runs: object) -> list[str]:
    """Return the ids of runs, however they are given.

    Args:
        runs: ids; or runs, as `start_run` or `get_run` returns them; or a frame with a column
            `run_id`, of Polars, pandas or Arrow.

    Returns:
        The ids, in their order.

    Raises:
        InvalidInputError: it is none of these.
    """
    given: Any = runs
    columns = getattr(runs, "column_names", None) or getattr(runs, "columns", None)
    if columns is not None:
        if "run_id" not in list(columns):
            message = f"a {type(runs).__name__} of runs needs a column 'run_id'."
            raise InvalidInputError(message)
        given = given["run_id"]
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        message = f"runs are a list of ids or a frame with a column 'run_id', got {given!r:.80}."
        raise InvalidInputError(message)
    return [_run_id(each) for each in given]


def _run_id(run: Any) -> str:  # noqa: ANN401 - an id or anything that has one
    run = getattr(run, "info", run)
    found = getattr(run, "run_id", run)
    if callable(getattr(found, "as_py", None)):
        found = found.as_py()
    if isinstance(found, str):
        return found
    message = f"a run is given by its id, got {arguments.told(run)}."
    raise InvalidInputError(message)


def _attributes(
    query: Query, run_ids: Sequence[str]
) -> tuple[NDArray[np.int64], list[str | None], _Cells]:
    """Return the place of each run, its name, and what it is."""
    columns = [f"CAST({_SHOWN.get(name, name)} AS VARCHAR) AS {name}" for name in ATTRIBUTES]
    statement = _RUNS_SQL.format(columns=",\n    ".join(columns))
    found = query.read(statement, {"run_ids": list(run_ids)}, needs=("run_facts",))
    rows = {run_id: row for row, run_id in enumerate(found["run_id"].to_pylist())}
    for run_id in run_ids:
        if run_id not in rows:
            get_run(query, run_id)  # raises, with the nearest ids
    found = found.take(pa.array([rows[run_id] for run_id in run_ids]))
    cells = {_Label("attribute", name): found[name].to_pylist() for name in ATTRIBUTES}
    said = {label: values for label, values in cells.items() if set(values) != {None}}
    places = np.array(found["place"].to_pylist(), np.int64)
    return places, found["run_name"].to_pylist(), said


def _params(query: Query, places: NDArray[np.int64]) -> _Cells:
    return _texts(query.folded.params, places, kind="param")


def _tags(query: Query, places: NDArray[np.int64]) -> _Cells:
    return _texts(query.folded.tags, places, kind="tag")


def _provenance(query: Query, run_ids: Sequence[str]) -> _Cells:
    """Return where each run comes from."""
    cells = _blank(len(run_ids))
    found = query.read(_PROVENANCE_SQL, {"run_ids": list(run_ids)}, needs=("provenance",))
    for row in found.to_pylist():
        cells[_Label("provenance", row["key"])][run_ids.index(row["run_id"])] = row["value"]
    return cells


def _texts(holding: Holding, places: NDArray[np.int64], *, kind: str) -> _Cells:
    """Return what runs hold as text by key."""
    cells = _blank(len(places))
    for number, key, row in _read(holding, places, ["value"]):
        cells[_Label(kind, key)][number] = row["value"]
    return cells


def _metrics(query: Query, places: NDArray[np.int64]) -> _Cells:
    """Return the last value of each metric, and of one with several points what more there is."""
    cells, more = _blank(len(places)), _blank(len(places))
    several = set()
    columns = ["last", "min", "max", "last_step", "count"]
    for number, key, row in _read(query.folded.metrics, places, columns):
        cells[_Label("metric", key)][number] = repr(row["last"])
        for name in ("min", "max", "last_step"):
            if row[name] is not None:
                more[_Label(f"metric.{name}", key)][number] = repr(row[name])
        if row["count"] > 1:
            several.add(key)
    return cells | {label: values for label, values in more.items() if label.key in several}


def _inputs(query: Query, places: NDArray[np.int64]) -> _Cells:
    """Return the digests of each data set, by its name and context."""
    digests: dict[_Label, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for number, _, row in _read(query.folded.inputs, places, ["value"]):
        said = json.loads(row["value"])
        label = _Label("input", said["name"], said["context"])
        digests[label][number].append(said["digest"])
    cells = _blank(len(places))
    for label, by_run in digests.items():
        for number, found in by_run.items():
            cells[label][number] = ", ".join(sorted(found))
    return cells


def _blank(count: int) -> defaultdict[_Label, list[str | None]]:
    return defaultdict(lambda: [None] * count)


def _read(
    holding: Holding, places: NDArray[np.int64], columns: list[str]
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield what runs hold: the number of the run, the key, and the values."""
    held = holding.about(places)
    rows = held.of_runs(places)
    numbers = {place: number for number, place in enumerate(places.tolist())}
    keys: list[Any] = held.names.take(arrays.numbers(held.keys[rows])).to_pylist()
    values = [held.values(name, rows).to_pylist() for name in columns]
    for place, key, *row in zip(held.places[rows].tolist(), keys, *values, strict=True):
        yield numbers[place], key, dict(zip(columns, row, strict=True))


def _order(cell: tuple[_Label, Any]) -> tuple[Any, ...]:
    """Sort a metric's statistics behind its last value, and attributes as they are listed."""
    kind, key, context = cell[0]
    group, _, statistic = kind.partition(".")
    place = ATTRIBUTES.index(key) if kind == "attribute" else 0
    return KINDS.index(group), place, key, KINDS.index(kind) if statistic else 0, context or ""


def _titles(names: Sequence[str | None], run_ids: Sequence[str]) -> list[str]:
    """Return one title for each run, each another."""
    counts = Counter([*_FIXED, *names])
    shared = [run for name, run in zip(names, run_ids, strict=True) if counts[name] > 1]
    length = _telling_length(shared)

    def titles(length: int) -> list[str]:
        return [
            name if name and counts[name] == 1 else f"{name or 'run'} {run[:length]}"
            for name, run in zip(names, run_ids, strict=True)
        ]

    for found in (titles(length), titles(max(map(len, run_ids)))):
        # A run may be named as another is titled.
        if len({*found, *_FIXED}) == len(found) + len(_FIXED):
            return found
    return [f"run {run}" for run in run_ids]


def _telling_length(run_ids: Collection[str]) -> int:
    """Return how many characters tell ids apart; those made together begin alike."""
    longest = 0
    for first, second in pairwise(sorted(run_ids)):
        pairs = zip(first, second, strict=False)
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        longest = max(longest, alike)
    return max(_SHORT_ID, 1 + longest)
