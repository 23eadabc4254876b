"""An experiment tracker without a server: a folder or a bucket is all it needs.

Every public name is found here and nowhere else. A name loads its module when it is first
used, so that `import runlake` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from runlake._version import __version__

if TYPE_CHECKING:
    from runlake.dataset import Dataset
    from runlake.errors import (
        AlreadyExistsError,
        ConflictError,
        DataLossWarning,
        FilterSyntaxError,
        FormatError,
        InvalidInputError,
        LimitExceededError,
        MissingDependencyError,
        NewerFormatError,
        NotFoundError,
        RunlakeError,
        RunlakeWarning,
        StateError,
        StorageError,
    )
    from runlake.fluent import (
        active_run,
        alert,
        create_experiment,
        delete_experiment,
        delete_run,
        delete_tag,
        end_run,
        flush,
        get_artifact_uri,
        get_experiment,
        get_experiment_by_name,
        get_run,
        get_tracking_uri,
        last_active_run,
        load_table,
        log,
        log_artifact,
        log_artifacts,
        log_batch,
        log_dict,
        log_figure,
        log_histogram,
        log_history,
        log_image,
        log_input,
        log_metric,
        log_metrics,
        log_param,
        log_params,
        log_table,
        log_text,
        restore_experiment,
        restore_run,
        search_experiments,
        search_runs,
        set_experiment,
        set_experiment_tag,
        set_experiment_tags,
        set_tag,
        set_tags,
        set_tracking_uri,
        start_run,
    )
    from runlake.lake import Lake
    from runlake.lake import open_lake as open
    from runlake.models_fluent import (
        copy_model_version,
        create_model_version,
        create_registered_model,
        delete_registered_model_alias,
        get_model_version_by_alias,
        register_model,
        search_model_versions,
        search_registered_models,
        set_model_version_tag,
        set_registered_model_alias,
        transition_model_version_stage,
    )
    from runlake.run import Run

__all__ = [
    "AlreadyExistsError",
    "ConflictError",
    "DataLossWarning",
    "Dataset",
    "FilterSyntaxError",
    "FormatError",
    "InvalidInputError",
    "Lake",
    "LimitExceededError",
    "MissingDependencyError",
    "NewerFormatError",
    "NotFoundError",
    "Run",
    "RunlakeError",
    "RunlakeWarning",
    "StateError",
    "StorageError",
    "__version__",
    "active_run",
    "alert",
    "copy_model_version",
    "create_experiment",
    "create_model_version",
    "create_registered_model",
    "delete_experiment",
    "delete_registered_model_alias",
    "delete_run",
    "delete_tag",
    "end_run",
    "flush",
    "get_artifact_uri",
    "get_experiment",
    "get_experiment_by_name",
    "get_model_version_by_alias",
    "get_run",
    "get_tracking_uri",
    "last_active_run",
    "load_table",
    "log",
    "log_artifact",
    "log_artifacts",
    "log_batch",
    "log_dict",
    "log_figure",
    "log_histogram",
    "log_history",
    "log_image",
    "log_input",
    "log_metric",
    "log_metrics",
    "log_param",
    "log_params",
    "log_table",
    "log_text",
    "open",
    "register_model",
    "restore_experiment",
    "restore_run",
    "search_experiments",
    "search_model_versions",
    "search_registered_models",
    "search_runs",
    "set_experiment",
    "set_experiment_tag",
    "set_experiment_tags",
    "set_model_version_tag",
    "set_registered_model_alias",
    "set_tag",
    "set_tags",
    "set_tracking_uri",
    "start_run",
    "transition_model_version_stage",
]

# Where a name lives, if not in `fluent`: (module, name there).
_ELSEWHERE = {
    "Dataset": ("runlake.dataset", "Dataset"),
    "Lake": ("runlake.lake", "Lake"),
    "Run": ("runlake.run", "Run"),
    "open": ("runlake.lake", "open_lake"),
    **{
        name: ("runlake.models_fluent", name)
        for name in __all__
        if name.endswith(("_model", "_models", "_alias")) or "model_version" in name
    },
}

if not TYPE_CHECKING:  # type checkers would take every name for a public one

    def __getattr__(name: str) -> object:
        """Import the module that holds a public name, and keep the name."""
        if name not in __all__:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}", name=name, obj=None
            )
        home = "runlake.errors" if name.endswith(("Error", "Warning")) else "runlake.fluent"
        module, attribute = _ELSEWHERE.get(name, (home, name))
        value: object = getattr(import_module(module), attribute)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
