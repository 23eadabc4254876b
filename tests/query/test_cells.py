from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.query import cells

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_plain_values_are_strict_json(value: object) -> None:
    json.dumps(cells.plain(value), allow_nan=False)
    assert "\n" not in cells.to_json(value)


@given(st.floats())
def test_a_number_in_csv_reads_back_as_itself(value: float) -> None:
    text = cells.csv_text(value)
    assert text is not None
    assert repr(float(text)) == repr(value) or math.isnan(value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00.000000Z"),
        (datetime(2026, 1, 2, 3), "2026-01-02T03:00:00.000000"),  # noqa: DTZ001 - one without a zone
        (date(2026, 1, 2), "2026-01-02"),
        (time(1, 2, 3), "01:02:03"),
        (timedelta(days=1, milliseconds=500), 86400.5),
        (b"ab", "6162"),
        (Decimal("1.50"), 1.5),
        (Decimal(10) ** 20, 10**20),
        ({1: (None, math.inf)}, {"1": [None, "Infinity"]}),
    ],
)
def test_every_value_has_its_place_in_json(value: object, shown: object) -> None:
    assert cells.plain(value) == shown
