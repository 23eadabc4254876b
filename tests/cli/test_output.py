from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.cli import _output
from runlake.cli._output import Column


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.00534, "0.00534s"),
        (1.25, "1.2s"),
        (59.9, "59.9s"),
        (200, "3m 20s"),
        (7500, "2h 05m"),
        (93600, "1d 02h"),
    ],
)
def test_a_duration_is_told_in_two_units_at_most(seconds: float | None, shown: str) -> None:
    assert _output.duration(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, "0s ago"), (59, "59s ago"), (60, "1m ago"), (9e4, "1d ago")]
)
def test_an_age_is_told_in_one_unit(seconds: float, shown: str) -> None:
    assert _output.age(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 40, "3072.0 GiB"),
    ],
)
def test_a_size_is_told_in_binary_units(count: int, shown: str) -> None:
    assert _output.size(count) == shown


@given(st.text())
def test_printable_text_is_one_line_that_no_terminal_obeys(line: str) -> None:
    shown = _output.printable(line)
    assert shown.isprintable()
    assert shown == line or not line.isprintable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(json_values)
def test_plain_values_are_strict_json(value: object) -> None:
    json.dumps(_output.plain(value), allow_nan=False)


def test_aligned_columns_count_wide_characters_twice(capsys: pytest.CaptureFixture[str]) -> None:
    _output.print_table([Column("name", ["日本", "ab"]), Column("n", [1, 22])])
    assert capsys.readouterr().out == "name   n\n日本   1\nab    22\n"
