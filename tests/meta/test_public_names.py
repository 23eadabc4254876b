"""The public door: which names there are, where each comes from, and how few."""

from __future__ import annotations

import ast
import importlib
import sys

import pytest

import runlake
from tests.meta.tree import SRC, parse

# Adding a name is a decision, and taking one away breaks a user's script.
NAMES = [
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


_ERRORS = ("Error", "Warning")


def declared() -> dict[str, tuple[str, str]]:
    """Return what type checkers are told: each name with its module and its name there."""
    door = next(node for node in parse(SRC / "__init__.py").body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in door.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def public(owner: type) -> list[str]:
    """Return the names that a class shows its users."""
    return [name for name in dir(owner) if not name.startswith("_")]


def test_public_names_are_pinned() -> None:
    assert sorted(runlake.__all__) == NAMES
    assert dir(runlake) == NAMES


def test_public_names_stay_few() -> None:
    assert len([name for name in runlake.__all__ if not name.endswith(_ERRORS)]) <= 70
    assert len(public(runlake.Run)) <= 30
    # Of these two move a lake or hand it to other engines, `copy_to` and `files`; four are doors
    # to more: `artifacts`, `maintain`, `registry` and `load_table`.
    assert len(public(runlake.Lake)) <= 31


def test_type_checkers_see_every_name() -> None:
    assert sorted([*declared(), "__version__"]) == NAMES


def test_each_name_comes_from_where_type_checkers_are_told() -> None:
    strays = [
        name
        for name, (module, attribute) in declared().items()
        if getattr(runlake, name) is not getattr(importlib.import_module(module), attribute)
    ]
    assert strays == []


def test_a_name_once_used_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(runlake), "NotFoundError", raising=False)
    assert runlake.NotFoundError is vars(runlake)["NotFoundError"]


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'runlake' has no attribute 'no_such_name'"):
        runlake.no_such_name  # type: ignore[attr-defined] # noqa: B018


def test_the_module_itself_is_importable_under_mlflows_name() -> None:
    mlflow = importlib.import_module("runlake")
    assert mlflow is sys.modules["runlake"]
    assert callable(mlflow.start_run)
    assert callable(mlflow.log_metric)
