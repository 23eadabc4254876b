from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.cli import _output
from runlake.cli._output import Column


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.0, "0.0s"),
        (0.00534, "5.34ms"),
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


def test_aligned_columns_count_wide_characters_twice(capsys: pytest.CaptureFixture[str]) -> None:
    _output.print_table([Column("name", ["日本", "ab"]), Column("n", [1, 22])])
    assert capsys.readouterr().out == "name   n\n日本   1\nab    22\n"


def test_a_table_as_json_has_a_row_a_line() -> None:
    assert (
        _output.json_text([{"a": 1}, {"a": float("inf")}]) == '[\n{"a": 1},\n{"a": "Infinity"}\n]'
    )
    assert _output.json_text([]) == "[]"


def test_an_object_of_objects_is_a_table_of_its_values() -> None:
    parts = {"id": "x", "params": {"a": {"b": 1}}, "files": [{"p": 1}, {"p": None}], "tags": {}}
    assert _output.parts_table(parts).to_pylist() == [
        {"part": "", "key": "id", "value": "x"},
        {"part": "params", "key": "a.b", "value": "1"},
        {"part": "files", "key": "0.p", "value": "1"},
        {"part": "files", "key": "1.p", "value": None},
    ]


@given(
    st.lists(
        st.tuples(st.text(max_size=12), st.text(max_size=40), st.booleans()), min_size=1, max_size=9
    ),
    st.integers(20, 120),
)
def test_a_table_in_a_terminal_fits_it_if_any_could(
    given_: list[tuple[str, str, bool]], width: int
) -> None:
    columns = [Column(title, [value], is_extra=extra) for title, value, extra in given_]
    kept, widths = _output.fitted(columns, [len(value) for _, value, _ in given_], width)
    used = sum(widths[place] for place in kept) + 2 * (len(kept) - 1)
    least = sum(min(6, widths[place]) for place in kept) + 2 * (len(kept) - 1)
    assert used <= max(width, least)
    if sum(len(value) for _, value, _ in given_) + 2 * (len(given_) - 1) <= width:
        assert kept == list(range(len(given_)))
    left_out = [place for place in range(len(given_)) if place not in kept]
    assert all(given_[place][2] for place in left_out)
