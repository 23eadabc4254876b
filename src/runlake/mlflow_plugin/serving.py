"""What MLflow's server must be told to keep the artifacts that pass through it in the lake.

`mlflow server` gives its workers the destination of artifacts in a variable, `./mlartifacts`
where nobody named another: a folder of its own, beside a lake that may be a bucket.
"""

from __future__ import annotations

import os
from typing import Final

from runlake.mlflow_plugin.uris import SCHEMES, artifact_uri

# MLflow's names, the same since 2.0.
_STORE: Final = "_MLFLOW_SERVER_FILE_STORE"
_DESTINATION: Final = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
_ROOT: Final = "_MLFLOW_SERVER_ARTIFACT_ROOT"
_DEFAULT: Final = "./mlartifacts"


def settle_destination() -> None:
    """In a worker of MLflow's server on a lake, have artifacts go into the lake.

    A destination that was named stays. A worker may be asked for an artifact before it has
    opened the lake, so this is done as soon as MLflow looks for plugins.
    """
    store_uri = os.environ.get(_STORE, "")
    if store_uri.partition(":")[0] in SCHEMES and os.environ.get(_DESTINATION) == _DEFAULT:
        os.environ[_DESTINATION] = artifact_uri(store_uri)


def artifact_destination() -> str | None:
    """Return where this process, if it is MLflow's server, hands artifacts on to; else None."""
    return os.environ.get(_DESTINATION) or None


def tracked_at() -> str | None:
    """Return where this process, if it is MLflow's server, tracks runs; else None."""
    return os.environ.get(_STORE) or None


def artifact_root(store_uri: str) -> str | None:
    """Return where artifacts of a lake are told to lie, if this process is its server; else None.

    MLflow's server makes clients of its own, as for a registry that is kept elsewhere, and hands
    on what they find. They too must name what the server's clients can reach.

    Args:
        store_uri: of the lake.
    """
    return (os.environ.get(_ROOT) or None) if tracked_at() == store_uri else None
