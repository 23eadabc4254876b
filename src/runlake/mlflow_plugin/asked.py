"""Who asks: MLflow's server for its clients and pages, or a program directly.

MLflow's pages ask in GraphQL, which knows no infinity: one infinite value, and the page of a run
shows an error in place of the run. MLflow's own databases keep the greatest finite number
instead of infinity, so that its pages never meet one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from runlake._lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")


def over_http() -> bool:
    """Return whether this thread answers a request to MLflow's server."""
    flask = sys.modules.get("flask")
    return flask is not None and flask.has_request_context()


def by_pages() -> bool:
    """Return whether this thread answers a GraphQL request, as only MLflow's pages send."""
    return over_http() and sys.modules["flask"].request.path.endswith("/graphql")


def shown(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values of metrics as whoever asks can read them.

    Args:
        values: of the lake.

    Returns:
        The same; for MLflow's pages with the greatest finite numbers in place of infinities.
    """
    if not by_pages():
        return values
    most = np.finfo(np.float64).max
    found: NDArray[np.float64] = np.clip(values, -most, most)
    return found
