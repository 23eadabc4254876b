"""What MLflow's pages look for and no lake holds: traces, evaluation sets, judges, reviews.

Whoever makes one gets MLflow's own error that it is not implemented. Whoever looks for some finds
none, as in any store where none were made: the pages of an experiment begin with its traces, and
with an error in their place they never finish loading.
"""

from __future__ import annotations

from typing import Any

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
