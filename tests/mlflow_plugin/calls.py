"""What tests of MLflow's stores share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mlflow.exceptions import MlflowException

from runlake import clock

if TYPE_CHECKING:
    from collections.abc import Callable


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """Return MLflow's code and text of what a call raises."""
    with pytest.raises(MlflowException) as caught:
        call()
    return str(caught.value.error_code), str(caught.value.message)


def next_ms() -> int:
    """Return the time in milliseconds, later than any that was told before."""
    now_ms = clock.now_us() // 1000
    while clock.now_us() // 1000 == now_ms:
        pass
    return now_ms + 1
