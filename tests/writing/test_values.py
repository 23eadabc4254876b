from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.errors import InvalidInputError
from runlake.writing import values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (True, 1.0),
        (2.5, 2.5),
        (Decimal("0.1"), 0.1),
        (Fraction(1, 4), 0.25),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3.0),
        (np.bool_(True), 1.0),  # noqa: FBT003
        (np.array(2.0), 2.0),
        (np.array(7), 7.0),
        (math.inf, math.inf),
        (Decimal("1e400"), math.inf),  # as float() has it
        (-math.inf, -math.inf),
    ],
)
def test_number_of_any_scalar_is_its_value(value: object, expected: float) -> None:
    found = values.number("k", value)
    assert type(found) is float
    assert found == expected


def test_number_that_is_nan_is_kept() -> None:
    assert math.isnan(values.number("k", math.nan))
    assert math.isnan(values.number("k", np.float32("nan")))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("1.0", "str"),
        (None, "got None"),
        ([1.0], "list"),
        (1j, "complex"),
        (np.array([1.0]), r"shape \(1,\)"),
        (np.array("x"), "ndarray"),
        (10**5000, "does not fit"),
    ],
    ids=["str", "None", "list", "complex", "array", "array of text", "huge"],
)
def test_number_that_is_none_is_refused_with_key_and_type(value: object, shown: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"'loss'.*{shown}"):
        values.number("loss", value)


@given(text=st.text(max_size=300))
def test_name_is_kept_as_it_is_or_refused(text: str) -> None:
    if 1 <= len(text) <= 250 and text.isprintable():
        assert values.name("metric", text) == text
    else:
        with pytest.raises(InvalidInputError, match="metric"):
            values.name("metric", text)


@pytest.mark.parametrize(
    ("key", "told"), [(None, "got None"), (5, "an int"), (b"k", "a bytes"), (("k",), "a tuple")]
)
def test_name_that_is_no_text_is_refused_with_its_type(key: object, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        values.name("tag", key)


def test_text_of_a_mebibyte_is_kept_and_one_byte_more_is_refused() -> None:
    assert len(values.text("param", "k", "x" * (1 << 20))) == 1 << 20
    for text in ("x" * ((1 << 20) + 1), "é" * ((1 << 19) + 1)):
        with pytest.raises(InvalidInputError, match="log_text"):
            values.text("param", "k", text)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="not Unicode"):
        values.text("tag", "k", "\ud800")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        ("0.10", 0.1),
        ("-1e3", -1000.0),
        (" 5 ", 5.0),
        (2.5, 2.5),
        (np.float64(2.0), 2.0),
        (np.int32(2), 2.0),
        (Decimal("1.5"), 1.5),
        (True, None),
        ("nan", None),
        ("inf", None),
        ("-Infinity", None),
        ("relu", None),
        ("", None),
        (None, None),
        ([1], None),
        (np.array([1.0]), None),
        (10**400, None),
    ],
)
def test_number_beside_a_param_is_what_it_spells(value: object, expected: float | None) -> None:
    assert values.number_beside(value) == expected


@dataclass
class Inner:
    """Params as some keep them."""

    gamma: float = 0.1


@dataclass
class Outer:
    """Params that hold params."""

    kernel: Inner
    c: int = 1


def test_nested_params_of_every_form_are_flattened_with_dots() -> None:
    found = dict(values.flatten({"a": {"b": {"c": 1}}, "d": 2, "empty": {}, "list": [1, 2]}))
    assert found == {"a.b.c": 1, "d": 2, "empty": {}, "list": [1, 2]}
    assert dict(values.flatten(Outer(Inner()))) == {"kernel.gamma": 0.1, "c": 1}
    assert dict(values.flatten(Namespace(lr=0.1, opt=Namespace(name="x")))) == {
        "lr": 0.1,
        "opt.name": "x",
    }


@pytest.mark.parametrize("params", [[1], "a", 5, None, Outer])
def test_params_that_are_no_mapping_are_refused(params: object) -> None:
    with pytest.raises(InvalidInputError, match="mapping"):
        dict(values.flatten(params))


@pytest.mark.parametrize(
    ("value", "expected"), [(5, 5), (-(2**63), -(2**63)), (3.0, 3), (np.int64(4), 4), (True, 1)]
)
def test_step_is_any_whole_number_of_64_bits(value: object, expected: int) -> None:
    assert values.step(value) == expected


def test_step_may_be_a_zero_dimensional_array() -> None:
    assert values.step(np.array(3)) == 3
    assert values.step(np.array(3.0)) == 3


@pytest.mark.parametrize("value", [2**63, 1.5, math.nan, math.inf, "1", None, [1], np.array([1.5])])
def test_step_that_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="a step is"):
        values.step(value)


def test_time_is_an_aware_datetime_or_milliseconds() -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    expected = 1_704_164_645_678_901
    assert values.time_us(moment) == expected
    assert values.time_us(moment.astimezone(timezone(timedelta(hours=5)))) == expected
    assert values.time_us(expected // 1000) == expected // 1000 * 1000
    assert values.time_us(1.5) == 1500
    assert values.time_us(np.int64(5)) == 5000


@pytest.mark.parametrize(
    "value",
    [datetime(2024, 1, 1), "2024", None, True, math.nan, math.inf, 2**62],  # noqa: DTZ001
)
def test_time_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError, match="timestamp"):
        values.time_us(value)
