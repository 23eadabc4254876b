"""The module functions: the same deeds on the active run and the current lake, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast, overload

from runlake import active, arguments
from runlake.active import (
    active_run,
    current_lake,
    end_run,
    get_tracking_uri,
    last_active_run,
    set_tracking_uri,
    start_run,
    the_run,
)
from runlake.errors import InvalidInputError
from runlake.lake_parts import describe_experiment, ensure_experiment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    import polars as pl

    from runlake.lake import Lake
    from runlake.query.entities import Experiment, Page, RunRecord

__all__ = [
    "active_run",
    "end_run",
    "get_tracking_uri",
    "last_active_run",
    "set_tracking_uri",
    "start_run",
]

# Logging.


def log_metric(key: str, value: object, step: int = 0, timestamp: object = None) -> None:
    """Log one point of one metric to the active run. As `Run.log_metric`."""
    the_run().log_metric(key, value, step, timestamp)


def log_metrics(metrics: Mapping[str, object], step: int = 0, timestamp: object = None) -> None:
    """Log one point of each of several metrics. As `Run.log_metrics`."""
    the_run().log_metrics(metrics, step, timestamp)


def log(metrics: Mapping[str, object], step: int | None = None) -> None:
    """Log one point of each of several metrics, the step counting on. As `Run.log`."""
    the_run().log(metrics, step)


def log_batch(
    metrics: Sequence[object] = (),
    params: Mapping[str, object] | Sequence[object] = (),
    tags: Mapping[str, object] | Sequence[object] = (),
) -> None:
    """Log metrics, params and tags together. As `Run.log_batch`."""
    the_run().log_batch(metrics, params, tags)


def log_history(data: object) -> None:
    """Log whole columns of points at once. As `Run.log_history`."""
    the_run().log_history(data)


def log_param(key: str, value: object) -> object:
    """Log one param and return its value. As `Run.log_param`."""
    return the_run().log_param(key, value)


def log_params(params: Mapping[str, object]) -> None:
    """Log params. As `Run.log_params`."""
    the_run().log_params(params)


def set_tag(key: str, value: object) -> None:
    """Set a tag. As `Run.set_tag`."""
    the_run().set_tag(key, value)


def set_tags(tags: Mapping[str, object]) -> None:
    """Set several tags. As `Run.set_tags`."""
    the_run().set_tags(tags)


def delete_tag(key: str) -> None:
    """Take a tag away. As `Run.delete_tag`."""
    the_run().delete_tag(key)


def alert(title: str, text: str = "", *, level: str = "info") -> None:
    """Say something that people or programs wait for. As `Run.alert`."""
    the_run().alert(title, text, level=level)


def log_input(dataset: object, context: str | None = None) -> None:
    """Log that the active run read a data set. As `Run.log_input`."""
    the_run().log_input(dataset, context)


def log_artifact(local_path: str | Path, artifact_path: str | None = None) -> None:
    """Upload one file or folder. As `Run.log_artifact`."""
    the_run().log_artifact(local_path, artifact_path)


def log_artifacts(local_dir: str | Path, artifact_path: str | None = None) -> None:
    """Upload all files below a folder. As `Run.log_artifacts`."""
    the_run().log_artifacts(local_dir, artifact_path)


def log_text(text: str, artifact_file: str) -> None:
    """Write text as an artifact. As `Run.log_text`."""
    the_run().log_text(text, artifact_file)


def log_dict(dictionary: Mapping[str, Any] | list[Any], artifact_file: str) -> None:
    """Write a mapping or list as an artifact. As `Run.log_dict`."""
    the_run().log_dict(dictionary, artifact_file)


def log_image(
    image: object,
    artifact_file: str | None = None,
    key: str | None = None,
    step: int | None = None,
    timestamp: object = None,
    *,
    caption: str | None = None,
) -> None:
    """Keep an image under a path, or by key and step. As `Run.log_image`."""
    the_run().log_image(
        image, artifact_file, key=key, step=step, timestamp=timestamp, caption=caption
    )


def log_figure(
    figure: object,
    artifact_file: str | None = None,
    *,
    key: str | None = None,
    step: int | None = None,
    save_kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Keep a figure of Matplotlib or Plotly. As `Run.log_figure`."""
    the_run().log_figure(figure, artifact_file, key=key, step=step, save_kwargs=save_kwargs)


def log_table(data: object, artifact_file: str, *, step: int | None = None) -> None:
    """Add rows to a table of the active run. As `Run.log_table`."""
    the_run().log_table(data, artifact_file, step=step)


def log_histogram(
    key: str,
    values: object = None,
    *,
    bins: int = 64,
    edges: object = None,
    counts: object = None,
    step: int = 0,
) -> None:
    """Log how values are distributed. As `Run.log_histogram`."""
    the_run().log_histogram(key, values, bins=bins, edges=edges, counts=counts, step=step)


def get_artifact_uri(artifact_path: str | None = None) -> str:
    """Return where the active run's artifacts lie.

    Args:
        artifact_path: a path below the run; None is the run's own folder.
    """
    uri = the_run().info.artifact_uri
    path = arguments.text_or_empty("artifact_path", artifact_path)
    return f"{uri}/{path}" if path else uri


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
        found = ensure_experiment(lake, experiment_name)
    elif experiment_id is not None and experiment_name is None:
        found = lake.get_experiment(experiment_id).experiment_id
    else:
        raise InvalidInputError("give set_experiment a name or an experiment_id, one of them.")
    active.current.experiment_id = found
    return describe_experiment(lake, found)


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


def search_experiments(
    view_type: str | int = "ACTIVE_ONLY",
    max_results: int | None = None,
    filter_string: str | None = None,
    order_by: Sequence[str] | None = None,
) -> Page[Experiment]:
    """Find experiments, with MLflow's arguments. As `Lake.search_experiments`."""
    return current_lake().search_experiments(
        filter_string, order_by=order_by, max_results=max_results, view_type=view_type
    )


def set_experiment_tag(key: str, value: object) -> None:
    """Set a tag of the current experiment. As `Lake.set_experiment_tags`."""
    set_experiment_tags({arguments.text("key", key): value})


def set_experiment_tags(tags: Mapping[str, object]) -> None:
    """Set tags of the current experiment. As `Lake.set_experiment_tags`."""
    lake = current_lake()
    experiment_id = active.current.experiment_id
    if experiment_id is None:
        experiment_id = ensure_experiment(lake, lake.settings.experiment or "Default")
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


@overload
def search_runs(
    experiment_ids: Sequence[str] | None = None,
    filter_string: str | None = "",
    run_view_type: str | int = "ACTIVE_ONLY",
    max_results: int | None = 100_000,
    order_by: Sequence[str] | None = None,
    output_format: Literal["polars"] = "polars",
    search_all_experiments: bool = False,  # noqa: FBT001, FBT002 - MLflow's signature
    experiment_names: Sequence[str] | None = None,
) -> pl.DataFrame: ...
@overload
def search_runs(
    experiment_ids: Sequence[str] | None = None,
    filter_string: str | None = "",
    run_view_type: str | int = "ACTIVE_ONLY",
    max_results: int | None = 100_000,
    order_by: Sequence[str] | None = None,
    *,
    output_format: Literal["pandas"],
    search_all_experiments: bool = False,
    experiment_names: Sequence[str] | None = None,
) -> pd.DataFrame: ...
@overload
def search_runs(
    experiment_ids: Sequence[str] | None = None,
    filter_string: str | None = "",
    run_view_type: str | int = "ACTIVE_ONLY",
    max_results: int | None = 100_000,
    order_by: Sequence[str] | None = None,
    *,
    output_format: Literal["list"],
    search_all_experiments: bool = False,
    experiment_names: Sequence[str] | None = None,
) -> Page[RunRecord]: ...
def search_runs(
    experiment_ids: Sequence[str] | None = None,
    filter_string: str | None = "",
    run_view_type: str | int = "ACTIVE_ONLY",
    max_results: int | None = 100_000,
    order_by: Sequence[str] | None = None,
    output_format: str = "polars",
    search_all_experiments: bool = False,  # noqa: FBT001, FBT002 - MLflow's signature
    experiment_names: Sequence[str] | None = None,
) -> pl.DataFrame | pd.DataFrame | Page[RunRecord]:
    """Find runs, with MLflow's arguments and column names.

    Args:
        experiment_ids: only in these; with no names either: the current experiment.
        filter_string: like `metrics.acc > 0.9 and params.lr = '0.1'`.
        run_view_type: ACTIVE_ONLY, DELETED_ONLY or ALL, or MLflow's `ViewType`.
        max_results: greatest number of runs; None means all.
        order_by: like `["metrics.acc DESC"]`; None means the newest first.
        output_format: `polars`, `pandas` or `list` (of run records).
        search_all_experiments: look in all experiments, if none are named.
        experiment_names: only in these; not together with `experiment_ids`.

    Returns:
        One row or record each; frames have columns `metrics.*`, `params.*` and `tags.*`.

    Raises:
        InvalidInputError: the filter or an argument cannot be read.
        NotFoundError: an experiment's name is unknown.
        StorageError: the store cannot be read.
    """
    for name, given in (("experiment_ids", experiment_ids), ("experiment_names", experiment_names)):
        if isinstance(given, str):
            raise InvalidInputError(
                f"{name} is a text; write a list: [{given!r}]. A filter has a name of its own: "
                "search_runs(filter_string=...)."
            )
    experiment_ids = arguments.several("experiment_ids", experiment_ids)
    experiment_names = arguments.texts("experiment_names", experiment_names)
    if experiment_ids and experiment_names:
        raise InvalidInputError("give search_runs experiment_ids or experiment_names, not both.")
    lake = current_lake()
    if not (experiment_ids or experiment_names or search_all_experiments):
        experiment_ids = [active.current.experiment_id or _environment_experiment(lake)]
    return lake.search_runs(
        filter_string,
        experiment_ids=experiment_ids or None,
        experiment_names=experiment_names or None,
        order_by=order_by,
        limit=max_results,
        run_view_type=run_view_type,
        output_format=cast("Literal['polars']", output_format),
    )


def load_table(
    artifact_file: str,
    run_ids: Sequence[str] | None = None,
    extra_columns: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Return a logged table of many runs as one frame, with MLflow's arguments.

    Args:
        artifact_file: the table, as it was logged.
        run_ids: of these runs; None means of all active runs of the current experiment.
        extra_columns: columns of `search_runs`, as `run_id` or `params.lr`, put beside the rows.

    Returns:
        As `Lake.load_table`.

    Raises:
        NotFoundError: there is no such run, or none has this table.
        InvalidInputError: the types of a column do not go together, or an argument is wrong.
        StorageError: the store cannot be read.
    """
    lake = current_lake()
    experiment_ids = None
    if run_ids is None:
        experiment_ids = [active.current.experiment_id or _environment_experiment(lake)]
    return lake.load_table(
        artifact_file,
        run_ids=run_ids,
        extra_columns=extra_columns,
        experiment_ids=experiment_ids,
    )


def _environment_experiment(lake: Lake) -> str:
    name = lake.settings.experiment
    found = None if name is None else lake.get_experiment_by_name(name)
    return "0" if found is None else found.experiment_id
