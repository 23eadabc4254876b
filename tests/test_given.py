"""Arrays of other libraries, known by what they can do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from runlake.given import array


class Tensor:
    """A tensor of torch, of a type that NumPy knows after so many conversions."""

    def __init__(self, conversions: int) -> None:
        """Hold three numbers."""
        self.conversions = conversions

    def detach(self) -> Tensor:
        """Be without gradients."""
        return self

    def cpu(self) -> Tensor:
        """Be in memory."""
        return self

    def float(self) -> Tensor:
        """Be of 32 bits."""
        return Tensor(self.conversions - 1)

    def numpy(self) -> Any:  # noqa: ANN401 - an array
        """Turn into NumPy."""
        if self.conversions:
            raise TypeError("unsupported")
        return np.arange(3)


class OnDevice:
    """An array of CuPy."""

    def __array__(self) -> Any:  # noqa: ANN401 - an array
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def get(self) -> Any:  # noqa: ANN401 - an array
        """Bring it to memory."""
        return np.arange(3)


@pytest.mark.parametrize(
    "given",
    [np.arange(3), Tensor(0), Tensor(1), OnDevice(), pl.Series([0, 1, 2]), pd.Series([0, 1, 2])],
    ids=lambda given: type(given).__name__,
)
def test_arrays_of_all_libraries_become_numpys(given: object) -> None:
    found = array(given)
    assert found is not None
    assert found.tolist() == [0, 1, 2]


@pytest.mark.parametrize("given", [Tensor(2), [1, 2], 5, "abc", None, {"a": 1}, object()])
def test_what_is_no_array_is_none(given: object) -> None:
    assert array(given) is None
