"""A lake behind MLflow's unchanged client, server and pages.

`mlflow.set_tracking_uri("runlake:///path")`, `runlake+s3://bucket/prefix`, `runlake+gs://`,
`runlake+az://` and `runlake+memory://` lead here: MLflow looks for entry points by the scheme.
It does so while it is itself being imported, so this module must not import it.
"""

from __future__ import annotations

from typing import Any

from runlake._lazy import lazy
from runlake.mlflow_plugin.serving import artifact_root, settle_destination

artifacts = lazy("runlake.mlflow_plugin.artifacts")
registry = lazy("runlake.mlflow_plugin.registry")
tracking = lazy("runlake.mlflow_plugin.tracking")

settle_destination()


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> Any:  # noqa: ANN401 - MLflow's
    """Return MLflow's tracking store on a lake.

    Args:
        store_uri: of the lake, `runlake:///path` or `runlake+s3://bucket/prefix`.
        artifact_uri: where new experiments keep artifacts; None: where this process, if it is
            MLflow's server on this lake, has them, else in the lake.
    """
    return tracking.TrackingStore(store_uri, artifact_uri or artifact_root(store_uri))


def registry_store(store_uri: str, tracking_uri: str | None = None) -> Any:  # noqa: ANN401 - as above
    """Return MLflow's model registry store on a lake.

    Args:
        store_uri: of the lake.
        tracking_uri: where the runs are; None: in the same lake.
    """
    return registry.RegistryStore(store_uri, tracking_uri)


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> Any:  # noqa: ANN401 - as above
    """Return MLflow's artifact repository for a place in a lake.

    Args:
        artifact_uri: as `runlake.mlflow_plugin.uris.artifact_uri` makes them.
        tracking_uri: MLflow's current one.
        registry_uri: MLflow's current one.
    """
    return artifacts.LakeArtifactRepository(artifact_uri, tracking_uri, registry_uri)
