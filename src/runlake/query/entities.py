"""Runs and experiments as objects that read like MLflow's.

Times are milliseconds since 1970, as MLflow's clients expect; everything else in runlake
counts microseconds. `metrics` holds last values.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runlake import arguments
from runlake._lazy import lazy
from runlake.errors import NotFoundError, RunlakeError
from runlake.query import card
from runlake.query.data import read_data
from runlake.query.homes import fold_homes
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.query.engine import Query
    from runlake.query.homes import Home
else:
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

_Found = TypeVar("_Found")

_EXPERIMENT_SQL: Final = """
SELECT * EXCLUDE (creation_time, last_update_time), epoch_ms(creation_time) AS creation_time,
    epoch_ms(last_update_time) AS last_update_time
FROM experiments
"""
_TIMES: Final = ("start_time", "end_time")
# Names that a message may offer; more than this nobody reads, and comparing them takes long.
_NEAR_NAMES: Final = 50


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known of a run by itself.

    Attributes:
        run_id: the run.
        run_name: the chosen name, else the one derived from the id.
        experiment_id: the experiment of the run's earliest fact.
        status: RUNNING, SCHEDULED, FINISHED, FAILED or KILLED.
        is_stale: it is open, and nothing has come of it for long.
        start_time: milliseconds since 1970.
        end_time: milliseconds since 1970, None until the run ends.
        artifact_uri: where its artifacts lie.
        lifecycle_stage: `active` or `deleted`.
        user_id: who started it.
        source_name: the script that started it.
        parent_run_id: the run that it is nested in.
    """

    run_id: str
    run_name: str | None
    experiment_id: str
    status: str
    is_stale: bool
    start_time: int
    end_time: int | None
    artifact_uri: str
    lifecycle_stage: str
    user_id: str | None
    source_name: str | None
    parent_run_id: str | None


@dataclass(frozen=True, slots=True)
class RunData:
    """What was logged to a run.

    Attributes:
        params: text by key.
        metrics: last value by key.
        tags: text by key.
    """

    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as one snapshot knows it.

    Attributes:
        info: what is known of it by itself.
        data: what was logged to it.
        curves: reads curves for the sparklines of a notebook; None: there are none.
    """

    info: RunInfo
    data: RunData
    curves: card.ReadCurves | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[RunRecord], tuple[RunInfo, RunData]]:
        """Leave out of copies and pickles what reads the lake."""
        return RunRecord, (self.info, self.data)

    def _repr_html_(self) -> str:
        """Return it as notebooks show it; the sparklines read the lake."""
        curves: Mapping[str, card.Curve] = {}
        keys = card.keys_shown(self.data)
        if self.curves is not None and keys:
            with suppress(RunlakeError, OSError):  # to be looked at must not fail
                curves = self.curves(self.info.run_id, keys)
        return card.card(self.info, self.data, curves)


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment as one snapshot knows it.

    Attributes:
        experiment_id: stays when the name changes.
        name: what people call it.
        lifecycle_stage: `active` or `deleted`.
        artifact_location: where its runs' artifacts lie.
        creation_time: milliseconds since 1970.
        last_update_time: milliseconds since 1970.
        tags: text by key.
    """

    experiment_id: str
    name: str
    lifecycle_stage: str
    artifact_location: str
    creation_time: int | None
    last_update_time: int | None
    tags: dict[str, str]


class Page(list[_Found]):
    """One page of what was found: a list, and the token that leads to the next.

    Attributes:
        token: to be given as `page_token`, everything else as before; None on the last page.
    """

    def __init__(self, found: Iterable[_Found] = (), *, token: str | None = None) -> None:
        """Keep both."""
        super().__init__(found)
        self.token = token


def get_run(query: Query, run_id: str) -> RunRecord:
    """Return one run, deleted or not; DuckDB is not asked.

    Raises:
        NotFoundError: the snapshot holds no such run; the message names the nearest.
    """
    run_id = arguments.text("run_id", run_id)
    place = pc.index(query.folded.run_facts["run_id"], arrays.text(run_id)).as_py()
    if place < 0:
        raise _not_found(query, "run", run_id, table="run_facts", column="run_id")
    return get_runs(query, pa.chunked_array([[place]], pa.int64()))[0]


def get_runs(query: Query, places: pa.ChunkedArray[Any]) -> list[RunRecord]:
    """Return the runs at some places, in their order; DuckDB is not asked.

    Args:
        query: the snapshot.
        places: of the runs, see `runlake.query.folded`.
    """
    found = query.folded.run_facts.take(places)
    columns = [
        _milliseconds(found[name]) if name in _TIMES else found[name].to_pylist()
        for name in RunInfo.__slots__
    ]
    records = {
        place: RunRecord(RunInfo(*about), RunData(params={}, metrics={}, tags={}))
        for place, *about in zip(places.to_pylist(), *columns, strict=True)
    }
    data = read_data(query, places)
    held = (data[name].to_pylist() for name in ("prefix", "place", "key", "num", "str"))
    for prefix, place, key, number, text in zip(*held, strict=True):
        getattr(records[place].data, prefix)[key] = number if prefix == "metrics" else text
    return [records[place] for place in places.to_pylist()]


def _milliseconds(times: pa.ChunkedArray[Any]) -> list[int | None]:
    numbers: list[int | None] = times.cast(pa.int64()).to_pylist()
    return [None if number is None else number // 1000 for number in numbers]


def get_experiment(query: Query, experiment_id: str) -> Experiment:
    """Return one experiment, deleted or not.

    Raises:
        NotFoundError: the snapshot holds no such experiment; the message names the nearest.
    """
    experiment_id = arguments.text("experiment_id", experiment_id)
    found = find_experiment(query, experiment_id)
    if found is None:
        raise _not_found(
            query, "experiment", experiment_id, table="experiments", column="experiment_id"
        )
    return found


def get_experiment_by_name(query: Query, name: str) -> Experiment:
    """Return the experiment of a name, deleted or not.

    Raises:
        NotFoundError: the snapshot holds no such experiment; the message names the nearest.
    """
    found = find_experiment_by_name(query, name)
    if found is None:
        raise _not_found(query, "experiment", name, table="experiments", column="name")
    return found


def find_experiment(query: Query, experiment_id: str) -> Experiment | None:
    """Return one experiment, None where the snapshot holds none; no other is folded for it."""
    found = fold_homes(query.tables, query.folded.births, only=experiment_id)
    return _experiment(found[experiment_id]) if found else None


def find_experiment_by_name(query: Query, name: str) -> Experiment | None:
    """Return the experiment of a name, None where the snapshot holds none; DuckDB is not asked.

    Two lakes merged by a plain copy may hold a name twice; the active, then the oldest, rules.
    """
    name = arguments.text("name", name)

    def order(home: Home) -> tuple[str, float, str]:
        age = math.inf if home.created_us is None else home.created_us
        return home.lifecycle_stage, age, home.experiment_id

    named = [home for home in query.folded.homes.values() if home.name == name]
    return _experiment(min(named, key=order)) if named else None


def all_experiments(query: Query) -> list[Experiment]:
    """Return every experiment, deleted ones too, in the order of ids; DuckDB is not asked."""
    return [_experiment(home) for home in query.folded.homes.values()]


def _experiment(home: Home) -> Experiment:
    created, changed = (
        None if us is None else us // 1000 for us in (home.created_us, home.changed_us)
    )
    return Experiment(*home[:4], created, changed, home.tags)


def read_experiments(query: Query, clause: str, *, params: list[Any]) -> list[Experiment]:
    """Return the experiments that a clause of our own picks and orders.

    Args:
        query: the snapshot.
        clause: WHERE, ORDER BY and the like, over the view `experiments`.
        params: values for `$1`, `$2`, ...

    Returns:
        The experiments.
    """
    found = query.read(_EXPERIMENT_SQL + clause, params, needs=("experiments",))
    rows = found.to_pylist(maps_as_pydicts="strict")
    return [Experiment(**{name: row[name] for name in Experiment.__slots__}) for row in rows]


def _not_found(query: Query, what: str, name: str, *, table: str, column: str) -> NotFoundError:
    """Say what is missing, and offer the nearest names."""
    place = f"inside.{table}" if table == "run_facts" else table
    near = query.read(
        f"SELECT {column}, count(*) OVER () AS total FROM {place} "
        f"ORDER BY jaro_winkler_similarity({column}, $1) DESC, {column} LIMIT {_NEAR_NAMES}",
        [name],
        needs=(table,),
    )
    total = near["total"][0].as_py() if near.num_rows else 0
    known = [str(known) for known in near[column].to_pylist()]
    return NotFoundError.of(what, name, url=query.tables.root_url, known=known, count=total)
