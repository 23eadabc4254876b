from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.storage import arrays

if TYPE_CHECKING:
    from pathlib import Path

texts = st.lists(st.none() | st.text(max_size=20))


@given(given=texts)
def test_strings_are_what_pyarrow_makes_of_them(given: list[str | None]) -> None:
    made = arrays.strings(given)
    made.validate(full=True)
    assert made.equals(pa.array(given, pa.string()))
    assert arrays.is_valid(made).tolist() == [text is not None for text in given]


@given(given=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)), skip=st.integers(0, 9))
def test_numbers_are_what_pyarrow_makes_of_them_and_come_back(
    given: list[int | None], skip: int
) -> None:
    mask = np.array([item is None for item in given], dtype=bool)
    made = arrays.numbers(np.array([item or 0 for item in given], np.int64), mask=mask)
    made.validate(full=True)
    assert made.equals(pa.array(given, pa.int64()))
    rest = made.slice(skip)
    assert arrays.is_valid(rest).tolist() == [item is not None for item in given[skip:]]
    assert arrays.values(rest).tolist() == [item or 0 for item in given[skip:]]


def test_floats_keep_nan_and_the_sign_of_zero() -> None:
    back = arrays.values(arrays.numbers(np.array([math.nan, -0.0, math.inf])))
    assert math.isnan(back[0])
    assert math.copysign(1, back[1]) == -1
    assert back[2] == math.inf


def test_array_of_nulls_only_has_no_valid_place() -> None:
    assert arrays.is_valid(pa.nulls(3, pa.string())).tolist() == [False] * 3


def test_scattered_texts_stand_at_their_places() -> None:
    assert arrays.scattered(4, [1, 3], ["a", "é"]).to_pylist() == [None, "a", None, "é"]


def test_texts_past_two_gibibytes_are_refused() -> None:
    with pytest.raises(OverflowError):
        arrays.strings(["x" * (1 << 20)] * (1 << 11))


_LOGS = """
import sys, runlake
with runlake.open(sys.argv[1]) as lake, lake.start_run() as run:
    run.log_params({"a": 1, "b": "x"})
    for step in range(10):
        run.log({"loss": 0.5, "acc": 0.1}, step=step)
    run.flush()
assert "pyarrow" in sys.modules
assert "pandas" not in sys.modules
"""


def test_logging_does_not_load_pandas(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LOGS, str(tmp_path / "lake")]
    environment = os.environ | {"RUNLAKE_JOURNAL": str(tmp_path / "journal")}
    subprocess.run(command, check=True, env=environment)
