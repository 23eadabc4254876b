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
_DEFAULT: Final = "./mlartifacts"


def settle_destination() -> None:
    """In a worker of MLflow's server on a lake, have artifacts go into the lake.

    A destination that was named stays. A worker may be asked for an artifact before it has
    opened the lake, so this is done as soon as MLflow looks for plugins.
    """
    store_uri = os.environ.get(_STORE, "")
    if store_uri.partition(":")[0] in SCHEMES and os.environ.get(_DESTINATION) == _DEFAULT:
        os.environ[_DESTINATION] = artifact_uri(store_uri)
