"""Every method that MLflow may call of a tracking store is decided, one way or another."""

from __future__ import annotations

import dis
import inspect
from typing import Any, Final

import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.abstract_store import AbstractStore

from runlake.mlflow_plugin.tracking import TrackingStore

pytestmark = pytest.mark.filterwarnings("ignore:::mlflow")

# Called by MLflow's client, handlers or `mlflow gc`, and not declared by its base class.
UNDECLARED: Final = (
    "_get_deleted_logged_models",
    "_get_deleted_runs",
    "_hard_delete_experiment",
    "_hard_delete_logged_model",
    "_hard_delete_run",
    "_search_datasets",
    "delete_tag",
    "get_metric_history_bulk",
    "log_logged_model_params",
)
# What the base class does by means of other methods is right as it is.
BUILT_ON_OTHERS: Final = frozenset(
    {
        "_evenly_spaced_indices",
        "delete_traces",
        "end_async_logging",
        "filter_active_experiment_ids",
        "flush_async_logging",
        "list_scorers_across_experiments",
        "log_batch_async",
        "log_metric_async",
        "log_param_async",
        "log_spans_async",
        "resolve_trace_archival_config",
        "search_runs",
        "set_model_versions_tags",
        "set_tag_async",
        "shut_down_async_logging",
    }
)
# The base class says nothing, and nothing is right: there are no traces to link and no
# workspaces.
SILENT: Final = frozenset({"link_traces_to_run", "supports_trace_archival", "supports_workspaces"})
# What is left out is about one of these; MLflow's own error says so.
LEFT_OUT: Final = (
    "assessment",
    "budget",
    "dataset",
    "endpoint",
    "gateway",
    "guardrail",
    "issue",
    "label_schema",
    "mcp",
    "prompts",
    "queue",
    "scorer",
    "scoring",
    "secret",
    "sessions",
    "spans",
    "trace",
)


def _inherited() -> dict[str, Any]:
    """Return what the store takes from MLflow's base class as it is."""
    names = [name for name in dir(AbstractStore) if not name.startswith("__")]
    found = {name: inspect.getattr_static(AbstractStore, name) for name in names}
    return {
        name: member.fget if isinstance(member, property) else member
        for name, member in found.items()
        if inspect.unwrap(inspect.getattr_static(TrackingStore, name)) is member
    }


def _does_nothing(function: Any) -> bool:  # noqa: ANN401 - a method or a static one
    plain = getattr(function, "__func__", function)
    steps = [step.opname for step in dis.get_instructions(plain) if step.opname != "RESUME"]
    return steps[-1].startswith("RETURN") and set(steps[:-1]) <= {"LOAD_CONST", "NOP"}


def _only_refuses(function: Any) -> bool:  # noqa: ANN401 - a method or a static one
    return inspect.isfunction(function) and "NotImplemented" in inspect.getsource(function)


def test_no_method_of_mlflows_base_class_is_undecided() -> None:
    undecided = []
    for name, function in _inherited().items():
        if name in BUILT_ON_OTHERS | SILENT:
            continue
        is_refused = "NotImplemented" in inspect.getsource(function)
        is_meant = any(word in name for word in LEFT_OUT)
        if not (is_refused and is_meant):
            undecided.append(name)
    assert undecided == []


def test_only_the_methods_named_here_do_nothing_silently() -> None:
    silent = {name for name, function in _inherited().items() if _does_nothing(function)}
    assert silent <= SILENT


def test_methods_that_mlflow_calls_undeclared_are_there() -> None:
    assert [name for name in UNDECLARED if not callable(getattr(TrackingStore, name, None))] == []


@pytest.mark.filesystems("local")
def test_what_is_left_out_answers_with_an_error_that_mlflows_server_hands_on(
    store: TrackingStore,
) -> None:
    left_out = [name for name, function in _inherited().items() if _only_refuses(function)]
    assert {"create_dataset", "create_gateway_endpoint", "set_trace_tag"} <= set(left_out)
    for name in [*left_out, "start_trace"]:
        method = getattr(store, name)
        needed = [
            given.name
            for given in inspect.signature(method).parameters.values()
            if given.default is given.empty and not given.name.startswith("kw")
        ]
        with pytest.raises(MlflowException) as refused:
            method(**dict.fromkeys(needed))
        assert (name, refused.value.error_code) == (name, "NOT_IMPLEMENTED")


@pytest.mark.filesystems("local")
def test_what_is_left_out_answers_tracers_with_the_error_that_they_pass_over(
    store: TrackingStore,
) -> None:
    with pytest.raises(NotImplementedError, match="log_spans is not implemented on lakes"):
        store.log_spans("0", [])


@pytest.mark.filesystems("local")
def test_searches_of_what_is_left_out_find_nothing_so_that_pages_load(
    store: TrackingStore,
) -> None:
    assert store.search_traces(experiment_ids=["0"]) == ([], None)
    assert store.list_scorers("0") == []
    searches = (
        store.query_trace_metrics(["0"], None, "count", []),
        store.search_datasets(experiment_ids=["0"]),
        store.list_label_schemas("0"),
        store.list_review_queues("0"),
    )
    assert [(list(found), found.token) for found in searches] == [([], None)] * 4
