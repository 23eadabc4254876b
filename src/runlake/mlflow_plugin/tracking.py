"""MLflow's tracking store on a lake, put together of its parts."""

from __future__ import annotations

from mlflow.store.tracking.abstract_store import AbstractStore

from runlake.mlflow_plugin.experiments import ExperimentStore
from runlake.mlflow_plugin.generative import GenerativeStore
from runlake.mlflow_plugin.histories import HistoryStore
from runlake.mlflow_plugin.inputs import InputStore
from runlake.mlflow_plugin.logged_models import LoggedModelStore
from runlake.mlflow_plugin.points import PointStore
from runlake.mlflow_plugin.refusals import refusing


@refusing
class TrackingStore(
    PointStore,
    HistoryStore,
    ExperimentStore,
    InputStore,
    LoggedModelStore,
    GenerativeStore,
    AbstractStore,  # type: ignore[misc]  # MLflow's classes have no types
):
    """What `mlflow.set_tracking_uri("runlake:...")` leads to.

    What is not here raises MLflow's own error that it is not implemented.
    """
