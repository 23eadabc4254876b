"""Runs of a snapshot as MLflow's entities, many at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mlflow.entities import (
    Metric,
    Param,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
    RunTag,
)
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_USER

from runlake import schema
from runlake._lazy import lazy
from runlake.mlflow_plugin import asked, inputs
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    from runlake.query.engine import Query
    from runlake.query.held import Holding
    from runlake.storage.tables import SnapshotTables
else:
    np = lazy("numpy")
    pc = lazy("pyarrow.compute")

_RUN_COLUMNS: Final = (
    "run_id",
    "experiment_id",
    "run_name",
    "status",
    "is_set",
    "start_us",
    "end_us",
    "user_id",
    "is_deleted",
)
_RUN_STAGES: Final = (schema.DELETE, schema.RESTORE)
_STAGES: Final = (schema.EXPERIMENT_DELETE, schema.EXPERIMENT_RESTORE)
_METRIC_COLUMNS: Final = ("last", "last_step", "last_time")


def find_place(query: Query, run_id: str) -> int | None:
    """Return the place of a run, None where the snapshot holds none.

    Args:
        query: the snapshot.
        run_id: the run.
    """
    place = pc.index(query.folded.runs["run_id"], value=arrays.text(run_id)).as_py()
    return None if place < 0 else int(place)


def read_entities(
    query: Query, places: NDArray[np.int64], *, locate: Callable[[str, str], str]
) -> list[Run]:
    """Return runs as MLflow has them.

    Args:
        query: the snapshot.
        places: the runs, in the order wanted.
        locate: given an experiment's id and a run's, returns where the run's artifacts lie.

    Returns:
        The runs. One that no MLflow client made has the tags `mlflow.runName` and
        `mlflow.user` all the same.
    """
    if not len(places):
        return []
    infos = _read_infos(query, places, locate)
    metrics = _read_metrics(query, places)
    params = _read_texts(query.folded.params, places, Param)
    tags = _read_texts(query.folded.tags, places, RunTag)
    held = inputs.read_inputs(query, [info.run_id for info, _ in infos])
    found = []
    for place, (info, is_native) in enumerate(infos):
        data = RunData(metrics[place], params[place], tags[place])
        if is_native:
            for key, text in ((MLFLOW_RUN_NAME, info.run_name), (MLFLOW_USER, info.user_id)):
                if text:
                    data.tags.setdefault(key, text)
        read, made = held.get(info.run_id) or (RunInputs([]), RunOutputs([]))
        found.append(Run(info, data, read, made))
    return found


def _read_infos(
    query: Query, places: NDArray[np.int64], locate: Callable[[str, str], str]
) -> list[tuple[RunInfo, bool]]:
    """Return what runs are, and whether no MLflow client said how they stand."""
    rows = query.folded.runs.select(list(_RUN_COLUMNS)).take(arrays.numbers(places))
    hidden = query.once("hidden_experiments", partial(_hidden_experiments, query.tables))
    found = []
    for run_id, home, name, status, is_set, start_us, end_us, user, is_deleted in zip(
        *(column.to_pylist() for column in rows.columns), strict=True
    ):
        has_end = end_us is not None and (is_set or status in schema.ENDED)
        info = RunInfo(
            run_id=run_id,
            experiment_id=home,
            user_id=user or "",
            status=status,
            start_time=start_us // 1000,
            end_time=end_us // 1000 if has_end else None,
            lifecycle_stage=schema.DELETED if is_deleted or home in hidden else schema.ACTIVE,
            artifact_uri=locate(home, run_id),
            run_name=name,
        )
        found.append((info, not is_set))
    return found


def deleted_runs(tables: SnapshotTables, homes: Mapping[str, str]) -> set[str]:
    """Return which of some runs are deleted, without folding what else is said of runs.

    Args:
        tables: the snapshot.
        homes: the experiment of each run.
    """
    facts = tables.facts.of_kinds(_RUN_STAGES)
    runs, places = facts.coded("run_id"), arrays.strings(list(homes))
    is_asked = arrays.is_valid(pc.index_in(runs.values, value_set=places))[runs.codes]
    rows = facts.table().filter(arrays.flags(is_asked))
    latest = _latest(rows.to_pylist())
    hidden = _hidden_experiments(tables)
    found = {run_id for run_id, kind in latest.items() if kind == schema.DELETE}
    return found | {run_id for run_id, home in homes.items() if home in hidden}


def _hidden_experiments(tables: SnapshotTables) -> frozenset[str]:
    """Return the experiments that are deleted, and so are their runs."""
    events = tables.lake_events
    is_stage = pc.is_in(events["kind"], value_set=arrays.strings(_STAGES))
    latest = _latest(events.filter(is_stage).to_pylist())
    return frozenset(home for home, kind in latest.items() if kind == schema.EXPERIMENT_DELETE)


def _latest(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return the kind of the latest row about each thing."""
    rows.sort(key=lambda row: (row["clock"], row["writer"], row["seq"]))
    return {row["run_id"]: row["kind"] for row in rows}


def _read_metrics(query: Query, places: NDArray[np.int64]) -> list[list[Metric]]:
    """Return the last point of each metric of some runs."""
    found: list[list[Metric]] = [[] for _ in places]
    held = query.folded.metrics.about(places)
    rows, owners = held.of_page(places)
    names: list[Any] = held.names.to_pylist()
    values, *places_of = (arrays.values(held.values(name, rows)) for name in _METRIC_COLUMNS)
    columns = (column.tolist() for column in (asked.shown(values), *places_of))
    keys = held.keys[rows].tolist()
    for owner, key, value, step, time_us in zip(owners.tolist(), keys, *columns, strict=True):
        found[owner].append(Metric(names[key], value, time_us // 1000, step))
    return found


def _read_texts(
    holding: Holding, places: NDArray[np.int64], make: Callable[[str, str], Any]
) -> list[list[Any]]:
    """Return the params or tags of some runs."""
    found: list[list[Any]] = [[] for _ in places]
    held = holding.about(places)
    rows, owners = held.of_page(places)
    names: list[Any] = held.names.to_pylist()
    texts: list[Any] = held.values("value", rows).to_pylist()
    keys = held.keys[rows].tolist()
    for owner, key, text in zip(owners.tolist(), keys, texts, strict=True):
        found[owner].append(make(names[key], text))
    return found
