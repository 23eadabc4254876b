"""The module functions: the same deeds on the active run and the current lake.

A line each; the only state is the current lake, the current experiment and the stack of
active runs, a context variable. A thread that has not started a run of its own logs to the
run that its process started last.
"""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runlake.errors import InvalidInputError, StateError
from runlake.lake import Lake, open_lake
from runlake.query import export
from runlake.schema import FINISHED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import polars as pl

    from runlake.query.entities import Experiment, RunRecord
    from runlake.run import Run

_stack: ContextVar[tuple[Run, ...]] = ContextVar("runlake_active_runs", default=())


@dataclass(slots=True)
class _Current:
    """What the module functions act on."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    url: str | None = None
    lake: Lake | None = None
    experiment_id: str | None = None
    runs: list[Run] = field(default_factory=list)
    last: Run | None = None
    resumed: bool = False


_current = _Current()


def set_tracking_uri(uri: str | Path) -> None:
    """Choose the lake that the module functions act on.

    Args:
        uri: any fsspec URL or path; a server's address is refused.

    Raises:
        InvalidInputError: the scheme is unknown, or the address is a server's.
        StateError: a run is active in another lake.
    """
    with _current.lock:
        active = active_run()
        if active is not None and os.fspath(uri) != _current.url:
            raise StateError(f"run {active.run_id} is active; end it before changing the lake.")
        lake = open_lake(uri)
        old, _current.lake = _current.lake, lake
        _current.url, _current.experiment_id = os.fspath(uri), None
    if old is not None:
        old.close()


def get_tracking_uri() -> str:
    """Return the URL of the lake that the module functions act on."""
    return current_lake().url


def current_lake() -> Lake:
    """Return the lake that the module functions act on, opened at first use.

    Raises:
        InvalidInputError: the setting names no lake that can be opened.
    """
    with _current.lock:
        if _current.lake is None:
            _current.lake = open_lake(_current.url)
        return _current.lake


def _after_fork_in_child() -> None:
    """Take a new lock: another thread of the parent may have held the old one."""
    _current.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def forget() -> None:
    """Close the current lake and begin anew, as a fresh process does; tests use it."""
    global _current  # noqa: PLW0603 - the module's one state
    for run in reversed(_current.runs):
        run.finish()
    if _current.lake is not None:
        _current.lake.close()
    _current = _Current()
    _stack.set(())


# Runs.


def start_run(
    run_id: str | None = None,
    experiment_id: str | None = None,
    run_name: str | None = None,
    nested: bool = False,  # noqa: FBT001, FBT002 - MLflow's signature
    parent_run_id: str | None = None,
    tags: Mapping[str, object] | None = None,
    description: str | None = None,
) -> Run:
    """Begin a run, resume one, or join one that other processes write; it becomes active.

    Args:
        run_id: an existing run to go on with; an unknown id makes the run.
        experiment_id: its experiment; None takes `set_experiment`'s, else `Default`.
        run_name: chosen by a person; None derives one from the id.
        nested: begin below the active run.
        parent_run_id: begin below this run.
        tags: its first tags.
        description: kept as the tag `mlflow.note.content`.

    Returns:
        The run; as a context manager it ends with its block.

    Raises:
        StateError: a run is active and `nested` is False.
        InvalidInputError: a name, id or tag is wrong; nothing was written.
    """
    stack = _live_stack()
    if stack and not nested:
        raise StateError(
            f"run {stack[-1].run_id} is active already. End it with runlake.end_run(), or begin "
            "below it: runlake.start_run(nested=True)."
        )
    lake = current_lake()
    if run_id is None and not _current.resumed and lake.settings.run_id is not None:
        _current.resumed, run_id = True, lake.settings.run_id
    if parent_run_id is None and nested and stack:
        parent_run_id = stack[-1].run_id
    run = lake.start_run(
        run_name,
        experiment_id=experiment_id or _current.experiment_id,
        run_id=run_id,
        parent_run_id=parent_run_id,
        tags=tags,
        description=description,
    )
    _stack.set((*stack, run))
    with _current.lock:
        _current.runs.append(run)
        _current.last = run
    return run


def end_run(status: str = FINISHED) -> None:
    """End the active run; without one, nothing happens.

    Args:
        status: FINISHED, FAILED or KILLED.

    Raises:
        InvalidInputError: there is no such status.
    """
    run = active_run()
    if run is not None:
        run.finish(status)


def active_run() -> Run | None:
    """Return the run that log calls go to, None if there is none."""
    stack = _live_stack()
    if stack:
        return stack[-1]
    runs = _current.runs
    if not runs:
        return None
    with _current.lock:
        _current.runs[:] = [run for run in runs if run.is_open]
        return _current.runs[-1] if _current.runs else None


def last_active_run() -> Run | None:
    """Return the active run, else the one that this process started last."""
    return active_run() or _current.last


def _live_stack() -> tuple[Run, ...]:
    """Return this context's active runs, those that have ended left out."""
    stack = _stack.get()
    if stack and not stack[-1].is_open:
        stack = tuple(run for run in stack if run.is_open)
        _stack.set(stack)
    return stack


def _run() -> Run:
    """Return the active run; open one where there is none, as MLflow does."""
    stack = _stack.get()
    if stack and stack[-1].is_open:
        return stack[-1]
    return active_run() or start_run()


# Logging.


def log_metric(key: str, value: object, step: int = 0, timestamp: object = None) -> None:
    """Log one point of one metric to the active run. As `Run.log_metric`."""
    _run().log_metric(key, value, step, timestamp)


def log_metrics(metrics: Mapping[str, object], step: int = 0, timestamp: object = None) -> None:
    """Log one point of each of several metrics. As `Run.log_metrics`."""
    _run().log_metrics(metrics, step, timestamp)


def log(metrics: Mapping[str, object], step: int | None = None) -> None:
    """Log one point of each of several metrics, the step counting on. As `Run.log`."""
    _run().log(metrics, step)


def log_batch(
    metrics: Sequence[object] = (),
    params: Mapping[str, object] | Sequence[object] = (),
    tags: Mapping[str, object] | Sequence[object] = (),
) -> None:
    """Log metrics, params and tags together. As `Run.log_batch`."""
    _run().log_batch(metrics, params, tags)


def log_history(data: object) -> None:
    """Log whole columns of points at once. As `Run.log_history`."""
    _run().log_history(data)


def log_param(key: str, value: object) -> object:
    """Log one param and return its value. As `Run.log_param`."""
    return _run().log_param(key, value)


def log_params(params: Mapping[str, object]) -> None:
    """Log params. As `Run.log_params`."""
    _run().log_params(params)


def set_tag(key: str, value: object) -> None:
    """Set a tag. As `Run.set_tag`."""
    _run().set_tag(key, value)


def set_tags(tags: Mapping[str, object]) -> None:
    """Set several tags. As `Run.set_tags`."""
    _run().set_tags(tags)


def delete_tag(key: str) -> None:
    """Take a tag away. As `Run.delete_tag`."""
    _run().delete_tag(key)


def log_artifact(local_path: str | Path, artifact_path: str | None = None) -> None:
    """Upload one file or folder. As `Run.log_artifact`."""
    _run().log_artifact(local_path, artifact_path)


def log_artifacts(local_dir: str | Path, artifact_path: str | None = None) -> None:
    """Upload all files below a folder. As `Run.log_artifacts`."""
    _run().log_artifacts(local_dir, artifact_path)


def log_text(text: str, artifact_file: str) -> None:
    """Write text as an artifact. As `Run.log_text`."""
    _run().log_text(text, artifact_file)


def log_dict(dictionary: Mapping[str, Any] | list[Any], artifact_file: str) -> None:
    """Write a mapping or list as an artifact. As `Run.log_dict`."""
    _run().log_dict(dictionary, artifact_file)


def get_artifact_uri(artifact_path: str | None = None) -> str:
    """Return where the active run's artifacts lie.

    Args:
        artifact_path: a path below the run; None is the run's own folder.
    """
    uri = _run().info.artifact_uri
    return f"{uri}/{artifact_path}" if artifact_path else uri


def flush(timeout_s: float | None = None) -> None:
    """Return when every row logged before is in the store. As `Lake.flush`."""
    current_lake().flush(timeout_s)


# Experiments.


def set_experiment(
    experiment_name: str | None = None, experiment_id: str | None = None
) -> Experiment:
    """Choose the experiment that runs go to; a name that is new makes it.

    Args:
        experiment_name: its name.
        experiment_id: its id, instead of the name.

    Returns:
        The experiment.

    Raises:
        InvalidInputError: neither or both are given, or the name is none.
        NotFoundError: there is no experiment with this id.
        StateError: the experiment is deleted.
    """
    lake = current_lake()
    if experiment_name is not None and experiment_id is None:
        found = lake.ensure_experiment(experiment_name)
    elif experiment_id is not None and experiment_name is None:
        found = lake.get_experiment(experiment_id).experiment_id
    else:
        raise InvalidInputError("give set_experiment a name or an experiment_id, one of them.")
    _current.experiment_id = found
    return lake.describe_experiment(found)


def create_experiment(
    name: str,
    artifact_location: str | None = None,
    tags: Mapping[str, object] | None = None,
) -> str:
    """Make an experiment and return its id. As `Lake.create_experiment`."""
    return current_lake().create_experiment(name, artifact_location, tags=tags)


def get_experiment(experiment_id: str) -> Experiment:
    """Return an experiment by id. As `Lake.get_experiment`."""
    return current_lake().get_experiment(experiment_id)


def get_experiment_by_name(name: str) -> Experiment | None:
    """Return an experiment by name, None if there is none."""
    return current_lake().get_experiment_by_name(name)


def search_experiments(view_type: str = "ACTIVE_ONLY") -> list[Experiment]:
    """Return experiments, the newest first. As `Lake.search_experiments`."""
    return current_lake().search_experiments(view_type)


def set_experiment_tag(key: str, value: object) -> None:
    """Set a tag of the current experiment. As `Lake.set_experiment_tags`."""
    set_experiment_tags({key: value})


def set_experiment_tags(tags: Mapping[str, object]) -> None:
    """Set tags of the current experiment. As `Lake.set_experiment_tags`."""
    lake = current_lake()
    experiment_id = _current.experiment_id
    if experiment_id is None:
        experiment_id = lake.ensure_experiment(lake.settings.experiment or "Default")
    lake.set_experiment_tags(experiment_id, tags)


def delete_experiment(experiment_id: str) -> None:
    """Hide an experiment. As `Lake.delete_experiment`."""
    current_lake().delete_experiment(experiment_id)


def restore_experiment(experiment_id: str) -> None:
    """Show a deleted experiment again. As `Lake.restore_experiment`."""
    current_lake().restore_experiment(experiment_id)


# Asking.


def get_run(run_id: str) -> RunRecord:
    """Return a run: info, params, last metrics and tags. As `Lake.get_run`."""
    return current_lake().get_run(run_id)


def delete_run(run_id: str) -> None:
    """Hide a run. As `Lake.delete_run`."""
    current_lake().delete_run(run_id)


def restore_run(run_id: str) -> None:
    """Show a deleted run again. As `Lake.restore_run`."""
    current_lake().restore_run(run_id)


def search_runs(
    experiment_ids: Sequence[str] | None = None,
    filter_string: str = "",
    run_view_type: str = "ACTIVE_ONLY",
    max_results: int = 100_000,
    order_by: Sequence[str] | None = None,
    output_format: str = "polars",
    search_all_experiments: bool = False,  # noqa: FBT001, FBT002 - MLflow's signature
    experiment_names: Sequence[str] | None = None,
) -> pl.DataFrame | pd.DataFrame | list[RunRecord]:
    """Find runs, with MLflow's arguments and column names.

    Args:
        experiment_ids: only in these; with no names either: the current experiment.
        filter_string: like `metrics.acc > 0.9 and params.lr = '0.1'`.
        run_view_type: ACTIVE_ONLY, DELETED_ONLY or ALL.
        max_results: greatest number of runs.
        order_by: like `["metrics.acc DESC"]`; None means the newest first.
        output_format: `polars`, `pandas` or `list` (of run records).
        search_all_experiments: look in all experiments.
        experiment_names: only in these.

    Returns:
        One row or record each; frames have columns `metrics.*`, `params.*` and `tags.*`.

    Raises:
        InvalidInputError: the filter or an argument cannot be read.
        NotFoundError: an experiment's name is unknown.
        StorageError: the store cannot be read.
    """
    if output_format not in {"polars", "pandas", "list"}:
        raise InvalidInputError(f"output_format is polars, pandas or list, not {output_format!r}.")
    lake = current_lake()
    if not (experiment_ids or experiment_names or search_all_experiments):
        experiment_ids = [_current.experiment_id or _environment_experiment(lake)]
    frame = lake.search_runs(
        filter_string,
        experiment_ids=None if search_all_experiments else experiment_ids,
        experiment_names=experiment_names,
        order_by=order_by,
        limit=max_results,
        run_view_type=run_view_type,
    )
    if output_format == "list":
        return [lake.get_run(run_id) for run_id in frame["run_id"]]
    return export.to_pandas(frame.to_arrow()) if output_format == "pandas" else frame


def _environment_experiment(lake: Lake) -> str:
    name = lake.settings.experiment
    found = None if name is None else lake.get_experiment_by_name(name)
    return "0" if found is None else found.experiment_id
