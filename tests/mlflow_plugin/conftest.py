"""MLflow's stores and clients on lakes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from runlake.mlflow_plugin import lakes
from tests.mlflow_plugin.addresses import mlflow_uri

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from runlake.mlflow_plugin.tracking import TrackingStore
    from tests.conftest import Place


@pytest.fixture(autouse=True)
def quiet_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow tells nobody that it runs."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")


@pytest.fixture
def store_uri(lake_url: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A lake's address as MLflow has it, on each store; nobody has written there yet."""
    monkeypatch.setenv("RUNLAKE_STORAGE_OPTIONS", json.dumps(dict(lake_url.storage_options)))
    yield mlflow_uri(lake_url.url)
    for place, lake in list(lakes._open.items()):
        lake.close()
        del lakes._open[place]


@pytest.fixture
def store(store_uri: str) -> TrackingStore:
    """MLflow's tracking store on a lake, on each store."""
    from runlake.mlflow_plugin.tracking import TrackingStore  # noqa: PLC0415 - takes seconds

    return TrackingStore(store_uri)


@pytest.fixture
def client(store_uri: str) -> Any:  # noqa: ANN401 - MLflow's client
    """MLflow's client on a lake, on each store."""
    import mlflow  # noqa: PLC0415 - takes seconds

    return mlflow.MlflowClient(tracking_uri=store_uri, registry_uri=store_uri)


@pytest.fixture
def experiment_id(store: TrackingStore) -> str:
    """An experiment of `store`."""
    made: str = store.create_experiment("digits")
    return made
