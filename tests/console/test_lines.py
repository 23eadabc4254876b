from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from runlake.console import lines
from runlake.console.lines import LAST_LINES, LINE_CHARS, LINES_PER_SECOND, Fold, Line, Ration

if TYPE_CHECKING:
    import pytest

texts = st.text(st.characters(exclude_characters="\r\n\b\x1b", exclude_categories=["Cc", "Cs"]))


def folded(*pieces: str) -> list[str]:
    """Return the lines of some pieces, the last without an end too."""
    fold = Fold()
    found = [line for piece in pieces for line in fold.feed(piece)]
    rest = fold.rest()
    return [*found, rest] if rest else found


def told(ration: Ration, count: int, *, now_s: float = 0.0) -> list[Line]:
    """Return what is kept of so many lines that are printed at one moment."""
    return [line for n in range(count) for line in ration.take("stdout", f"{n}", now_s=now_s)]


@given(written=st.lists(texts, max_size=20), cuts=st.lists(st.integers(1, 30), max_size=20))
def test_lines_come_out_as_printed_wherever_the_pieces_are_cut(
    written: list[str], cuts: list[int]
) -> None:
    whole = "".join(f"{line}\n" for line in written)
    pieces = []
    for cut in cuts:
        pieces.append(whole[:cut])
        whole = whole[cut:]
    assert folded(*pieces, whole) == written


@given(
    states=st.lists(texts.filter(bool), min_size=1, max_size=9), end=st.sampled_from(["\n", "\r\n"])
)
def test_a_progress_bar_leaves_its_last_state(states: list[str], end: str) -> None:
    assert folded(*(f"\r{state}" for state in states), end) == [states[-1]]


def test_a_line_that_ends_with_a_carriage_return_before_its_end_is_kept() -> None:
    assert folded("50%\r", "100%\r", "\nnext\r\n") == ["100%", "next"]


def test_an_erased_bar_leaves_nothing_of_itself_before_the_next_line() -> None:
    assert folded("100%|####|\r", "          \r", "done\n") == ["done"]


def test_a_line_that_never_ends_is_kept_at_the_end() -> None:
    assert folded("first\nbegun") == ["first", "begun"]


def test_a_long_line_keeps_its_beginning_and_says_how_much_is_missing() -> None:
    (line,) = folded("a" * LINE_CHARS, "b" * 2000, "\n")
    assert line == "a" * LINE_CHARS + "… [2,000 characters more]"


def test_memory_of_a_line_without_end_is_bounded() -> None:
    fold = Fold()
    for _ in range(100):
        assert list(fold.feed("x" * LINE_CHARS)) == []
    assert len(fold._now) == LINE_CHARS


def test_colours_and_moves_of_the_cursor_are_left_out() -> None:
    assert folded("\x1b[1;31mred\x1b[0m \x1b]0;title\x07and \x1b[2K\x1b(Bplain\n") == [
        "red and plain"
    ]


def test_backspaces_take_back_what_stands_before_them() -> None:
    assert folded("|\b/\b-\b done\n") == [" done"]


def test_control_characters_are_left_out_and_tabs_stay() -> None:
    assert folded("a\x00\tb\x07\x7f\n") == ["a\tb"]


def test_half_a_character_becomes_a_question_mark() -> None:
    assert folded("half \udc80\n") == ["half ?"]


@given(st.text())
def test_whatever_is_printed_becomes_lines_that_can_be_stored(text: str) -> None:
    for line in folded(text):
        line.encode()
        assert "\n" not in line


def test_lines_within_the_ration_are_kept_and_numbered_from_one() -> None:
    kept = told(Ration(), LINES_PER_SECOND)
    assert [line.number for line in kept] == list(range(1, LINES_PER_SECOND + 1))


def test_of_a_flood_the_first_and_the_last_lines_are_kept_with_the_count_between() -> None:
    ration = Ration()
    count = LINES_PER_SECOND + LAST_LINES + 5
    kept = [*told(ration, count), *ration.tell()]
    assert [line.text for line in kept] == [
        *(f"{n}" for n in range(LINES_PER_SECOND)),
        "[runlake left out 5 lines here]",
        *(f"{n}" for n in range(count - LAST_LINES, count)),
    ]
    numbers = [line.number for line in kept]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == count


def test_the_next_second_begins_with_the_last_lines_of_the_flood_before_it() -> None:
    ration = Ration()
    told(ration, LINES_PER_SECOND + 1)
    kept = told(ration, 1, now_s=1.0)
    assert [line.number for line in kept] == [LINES_PER_SECOND + 1, LINES_PER_SECOND + 2]


def test_a_run_that_has_printed_enough_keeps_only_its_last_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lines, "LINES_PER_RUN", 10)
    ration = Ration()
    kept = [line for second in range(50) for line in told(ration, 5, now_s=second)]
    assert [line.number for line in kept] == list(range(1, 11))
    last = list(ration.tell())
    assert last[0].text == "[runlake left out 140 lines here]"
    assert [line.number for line in last[1:]] == list(range(151, 251))


@given(
    st.lists(st.tuples(st.integers(0, 2500), st.integers(0, 3)), max_size=8),
    st.integers(0, 50),
)
def test_no_line_is_unaccounted_for(bursts: list[tuple[int, int]], missed: int) -> None:
    ration, kept, now_s, printed = Ration(), [], 0, 0
    for count, pause in bursts:
        kept += told(ration, count, now_s=now_s)
        now_s += pause
        printed += count
    ration.miss(missed)
    kept += ration.tell()
    printed += missed
    left_out = sum(
        int(line.text.split()[3].replace(",", "")) for line in kept if line.text[:1] == "["
    )
    notes = sum(line.text[:1] == "[" for line in kept)
    assert len(kept) - notes + left_out == printed
    assert [line.number for line in kept] == sorted({line.number for line in kept})
    assert all(len(list(same)) == 1 for _, same in groupby(line.number for line in kept))
