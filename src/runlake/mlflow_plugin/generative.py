"""What MLflow's pages look for and no lake holds: traces, judges, reviews, gateways.

Whoever makes one gets MLflow's own error that it is not implemented. Whoever looks for some finds
none, as in any store where none were made: the pages of an experiment begin with its traces, and
with an error in their place they never finish loading.
"""

from __future__ import annotations

from typing import Any

from mlflow.exceptions import MlflowNotImplementedException
from mlflow.store.entities.paged_list import PagedList


class GenerativeStore:
    """The searches of MLflow's generative half, which find nothing."""

    def search_traces(self, *_: object, **__: object) -> tuple[list[Any], None]:
        """Return no trace, and no further page."""
        return [], None

    def query_trace_metrics(self, *_: object, **__: object) -> PagedList:
        """Return no figures of traces."""
        return PagedList([], None)

    def search_datasets(self, *_: object, **__: object) -> PagedList:
        """Return no evaluation set; the inputs of runs are something else."""
        return PagedList([], None)

    def list_scorers(self, *_: object, **__: object) -> list[Any]:
        """Return no judge."""
        return []

    def list_label_schemas(self, *_: object, **__: object) -> PagedList:
        """Return no schema of labels."""
        return PagedList([], None)

    def list_review_queues(self, *_: object, **__: object) -> PagedList:
        """Return no queue of reviews."""
        return PagedList([], None)

    def search_issues(self, *_: object, **__: object) -> PagedList:
        """Return no issue that was found in traces."""
        return PagedList([], None)

    def list_gateway_endpoints(self, *_: object, **__: object) -> list[Any]:
        """Return no endpoint of a gateway."""
        return []

    def list_gateway_model_definitions(self, *_: object, **__: object) -> list[Any]:
        """Return no model of a gateway."""
        return []

    def list_endpoint_bindings(self, *_: object, **__: object) -> list[Any]:
        """Return no use of an endpoint."""
        return []

    def list_secret_infos(self, *_: object, **__: object) -> list[Any]:
        """Return no key of a provider."""
        return []

    def list_budget_policies(self, *_: object, **__: object) -> PagedList:
        """Return no budget."""
        return PagedList([], None)

    def list_gateway_guardrails(self, *_: object, **__: object) -> PagedList:
        """Return no guardrail."""
        return PagedList([], None)

    def search_mcp_servers(self, *_: object, **__: object) -> PagedList:
        """Return no server of tools."""
        return PagedList([], None)

    def search_mcp_access_endpoints(self, *_: object, **__: object) -> PagedList:
        """Return no way to a server of tools."""
        return PagedList([], None)

    # MLflow's base class raises no error that its server could hand on, or lacks the method.

    def start_trace(self, *_: object, **__: object) -> None:
        """Refuse a trace.

        Raises:
            MlflowNotImplementedException: always.
        """
        raise _no_traces()

    def deprecated_start_trace_v2(self, *_: object, **__: object) -> None:
        """Refuse a trace of a client before MLflow 3.

        Raises:
            MlflowNotImplementedException: always.
        """
        raise _no_traces()

    def deprecated_end_trace_v2(self, *_: object, **__: object) -> None:
        """Refuse the end of a trace of a client before MLflow 3.

        Raises:
            MlflowNotImplementedException: always.
        """
        raise _no_traces()


def _no_traces() -> MlflowNotImplementedException:
    return MlflowNotImplementedException("Lakes keep no traces: tracing is not implemented.")
