"""Runs and experiments as objects that read like MLflow's.

Times are milliseconds since 1970, as MLflow's clients expect; everything else in runlake
counts microseconds. `metrics` holds last values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runlake.errors import NotFoundError
from runlake.query.data import read_data

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    from runlake.query.engine import Query

_Found = TypeVar("_Found")

_RUN_SQL: Final = """
SELECT
    rowid AS place,
    * EXCLUDE (start_time, end_time),
    epoch_ms(start_time) AS start_time,
    epoch_ms(end_time) AS end_time
FROM inside.run_facts
"""
_EXPERIMENT_SQL: Final = """
SELECT * EXCLUDE (creation_time, last_update_time), epoch_ms(creation_time) AS creation_time,
    epoch_ms(last_update_time) AS last_update_time
FROM experiments
"""
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
    """

    info: RunInfo
    data: RunData


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
    """Return one run, deleted or not.

    Raises:
        NotFoundError: the snapshot holds no such run; the message names the nearest.
    """
    statement = f"{_RUN_SQL}WHERE run_id = $run_id"
    found = query.read(statement, {"run_id": run_id}, needs=("run_facts",))
    if not found.num_rows:
        raise _not_found(query, "run", run_id, table="run_facts", column="run_id")
    return _records(query, found)[0]


def get_runs(query: Query, places: pa.ChunkedArray[Any]) -> list[RunRecord]:
    """Return the runs at some places of `inside.run_facts`, in the order of the places."""
    statement = f"{_RUN_SQL}WHERE rowid IN (SELECT unnest(CAST($places AS BIGINT[])))"
    listed: list[Any] = places.to_pylist()
    found = query.read(statement, {"places": listed}, needs=("run_facts",))
    records = dict(zip(found["place"].to_pylist(), _records(query, found), strict=True))
    return [records[place] for place in listed]


def _records(query: Query, found: pa.Table) -> list[RunRecord]:
    """Return rows of `_RUN_SQL` as records, with what the runs hold."""
    names = RunInfo.__slots__
    records = {
        row["place"]: RunRecord(
            RunInfo(**{name: row[name] for name in names}),
            RunData(params={}, metrics={}, tags={}),
        )
        for row in found.to_pylist()
    }
    data = read_data(query, found["place"])
    held = (data[name].to_pylist() for name in ("prefix", "place", "key", "num", "str"))
    for prefix, place, key, number, text in zip(*held, strict=True):
        getattr(records[place].data, prefix)[key] = number if prefix == "metrics" else text
    return list(records.values())


def get_experiment(query: Query, experiment_id: str) -> Experiment:
    """Return one experiment, deleted or not.

    Raises:
        NotFoundError: the snapshot holds no such experiment; the message names the nearest.
    """
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
    """Return one experiment, None where the snapshot holds none."""
    return next(
        iter(read_experiments(query, "WHERE experiment_id = $1", params=[experiment_id])), None
    )


def find_experiment_by_name(query: Query, name: str) -> Experiment | None:
    """Return the experiment of a name, None where the snapshot holds none.

    Two lakes merged by a plain copy may hold a name twice; the active, then the oldest, rules.
    """
    clause = "WHERE name = $1 ORDER BY lifecycle_stage, creation_time, experiment_id LIMIT 1"
    return next(iter(read_experiments(query, clause, params=[name])), None)


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
