from __future__ import annotations

import errno
import math
import os
import struct
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runlake import clock, schema
from runlake.writing import places, recover
from runlake.writing.events import Event, HybridClock, Position, event_line
from runlake.writing.journal import Journal
from runlake.writing.pages import PAGE_BYTES
from runlake.writing.records import PAGE_POINTS
from runlake.writing.rows import read_points
from tests.writing.drains import memory_journal

if TYPE_CHECKING:
    from pathlib import Path

_MODES = ("memory", "mapped", "through")
_START = Position(0, 0)
_OWNER = places.Owner("url", "W" * 26, "exp", "Experiment", "host", 1, "boot")
_NOTE = ("run", schema.NOTE, "k", None, "text")


def _journal(mode: str, folder: Path, *, limit_bytes: int = 1 << 30) -> Journal:
    """Return an empty journal that keeps its rows in one of the three ways."""
    if mode == "memory":
        return memory_journal(limit_bytes=limit_bytes)
    return Journal(folder, HybridClock(), mapped=mode == "mapped", limit_bytes=limit_bytes)


@pytest.fixture(params=_MODES)
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    """An empty journal, kept in each way."""
    return _journal(request.param, tmp_path)


class Content(NamedTuple):
    """What a journal holds, in order: points as (key, step, value), events by their text."""

    rows: list[tuple[str, int, float] | str | None]


def _content(journal: Journal, start: Position = _START, end: Position | None = None) -> Content:
    end = journal.position() if end is None else end
    points = read_points(journal.read_points(start, end))
    events = journal.read_events(start, end)
    rows: list[tuple[str, int, float] | str | None] = []
    following = iter(events)
    event = next(following, None)
    for place in range(len(points)):
        while event is not None and event.points <= start.points + place:
            rows.append(event.str)
            event = next(following, None)
        key = journal.keys[int(points.key_ids[place])][1]
        rows.append((key, int(points.steps[place]), float(points.values[place])))
    while event is not None:
        rows.append(event.str)
        event = next(following, None)
    return Content(rows)


def _recovered(folder: Path) -> Content:
    """Return what recovery reads from a journal's files, without the end that it adds."""
    writer, _ = recover.load(folder, _OWNER)
    content = _content(writer.journal)
    # The last is the word that the writer ends; of nothing, recovery says nothing.
    assert content.rows[-1:] in ([], [None])
    return Content(content.rows[:-1])


_DEEDS = st.lists(
    st.one_of(
        st.tuples(st.just("point"), st.integers(0, 2), st.integers(-5, 5)),
        st.tuples(st.just("points"), st.integers(1, 3), st.integers(-5, 5)),
        st.tuples(st.just("events"), st.integers(1, 3), st.just(0)),
    ),
    max_size=30,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(deeds=_DEEDS, mode=st.sampled_from(_MODES), data=st.data())
def test_points_and_events_in_any_order_have_one_sequence_in_every_mode(
    tmp_path_factory: pytest.TempPathFactory, deeds: list[tuple[str, int, int]], mode: str,
    data: st.DataObject,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("journal")
    journal = _journal(mode, folder)
    ids = journal.key_ids("run", ["a", "b", "c"])
    assert ids == [0, 1, 2]
    expected: list[tuple[str, int, float] | str | None] = []
    for number, (deed, size, step) in enumerate(deeds):
        if deed == "point":
            assert journal.point(ids[size], step, number, float(number))
            expected.append(("abc"[size], step, float(number)))
        elif deed == "points":
            values = [float(number)] * size
            assert journal.points(ids[:size], values, step, number) == size
            expected += [("abc"[place], step, float(number)) for place in range(size)]
        else:
            texts = [f"{number} {place}" for place in range(size)]
            assert journal.events([("run", schema.NOTE, "k", None, text) for text in texts])
            expected += texts
    end = journal.position()
    assert end.rows == len(expected)
    assert _content(journal).rows == expected
    # Any cut is where it was asked, and the two halves are the whole.
    first = journal.cut(_START, end, rows=data.draw(st.integers(0, len(expected) + 2)))
    second = journal.cut(first, end, rows=data.draw(st.integers(0, len(expected) + 2)))
    parts = [
        _content(journal, *span).rows for span in ((_START, first), (first, second), (second, end))
    ]
    assert [row for part in parts for row in part] == expected
    journal.close()
    if mode != "memory":
        assert _recovered(folder).rows == expected


@settings(max_examples=50, deadline=None)
@given(deeds=_DEEDS, rows=st.integers(0, 40))
def test_cut_holds_as_many_rows_as_allowed_and_never_more(
    deeds: list[tuple[str, int, int]], rows: int
) -> None:
    journal = memory_journal()
    [key_id] = journal.key_ids("run", ["a"])
    for deed, size, _ in deeds:
        if deed == "events":
            journal.events([_NOTE] * size)
        else:
            journal.points([key_id] * size, [0.0] * size, 0, 0)
    end = journal.position()
    assert journal.cut(_START, end, rows=rows).rows == min(rows, end.rows)


def test_many_points_at_once_equal_one_by_one_across_pages(journal: Journal) -> None:
    [key_id] = journal.key_ids("run", ["a"])
    count = PAGE_POINTS + 1000
    values = [float(number) for number in range(count)]
    assert journal.points([key_id] * 10, values[:10], 1, 2) == 10
    assert journal.points([key_id] * (count - 10), values[10:], 1, 2) == count - 10
    points = read_points(journal.read_points(_START, journal.position()))
    assert points.values.tolist() == values
    assert set(points.steps.tolist()) == {1}
    assert set(points.times.tolist()) == {2}
    journal.close()


def test_values_of_every_kind_are_kept_bit_by_bit(journal: Journal) -> None:
    [key_id] = journal.key_ids("run", ["a"])
    values = [0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324]
    steps = [-(2**63), 2**63 - 1, 0, 1, -1, 7]
    for step, value in zip(steps, values, strict=True):
        assert journal.point(key_id, step, step, value)
    points = read_points(journal.read_points(_START, journal.position()))
    assert points.steps.tolist() == points.times.tolist() == steps
    packed = [struct.pack("<d", value) for value in points.values.tolist()]
    assert packed == [struct.pack("<d", value) for value in values]
    journal.close()


@pytest.mark.parametrize("step", [2**63, -(2**63) - 1, "x"])
def test_step_that_no_column_holds_is_refused_and_takes_no_place(
    journal: Journal, step: int
) -> None:
    [key_id] = journal.key_ids("run", ["a"])
    with pytest.raises(struct.error):
        journal.point(key_id, step, 0, 1.0)
    with pytest.raises((struct.error, OverflowError)):
        journal.points([key_id], [1.0], step, 0)
    assert journal.position() == _START
    assert journal.point(key_id, 5, 0, 1.0)
    assert _content(journal).rows == [("a", 5, 1.0)]
    journal.close()


@pytest.mark.parametrize("mode", _MODES)
def test_journal_at_its_limit_takes_no_more_points_until_it_is_trimmed(
    tmp_path: Path, mode: str
) -> None:
    journal = _journal(mode, tmp_path, limit_bytes=2 * PAGE_BYTES)
    [key_id] = journal.key_ids("run", ["a"])
    many = 2 * PAGE_POINTS + 5
    assert journal.points([key_id] * many, [1.0] * many, 0, 0) == 2 * PAGE_POINTS
    assert not journal.point(key_id, 0, 0, 1.0)
    assert not journal.is_retired
    assert journal.events([_NOTE])
    journal.refuse(6)
    assert journal.refused == 6
    assert journal.size_bytes == 2 * PAGE_BYTES
    journal.trim(Position(PAGE_POINTS + 1, 0))
    assert journal.size_bytes == PAGE_BYTES
    assert journal.point(key_id, 9, 0, 1.0)
    rest = _content(journal, Position(PAGE_POINTS + 1, 0))
    assert len(rest.rows) == PAGE_POINTS + 1
    assert rest.rows[-1] == ("a", 9, 1.0)
    journal.close()


def test_retired_journal_takes_nothing_and_keeps_what_it_has(journal: Journal) -> None:
    [key_id] = journal.key_ids("run", ["a"])
    journal.point(key_id, 1, 0, 1.0)
    end = journal.retire(close=True)
    assert end == Position(1, 1)
    assert journal.retire(close=True) == end
    assert not journal.point(key_id, 2, 0, 2.0)
    assert journal.points([key_id], [2.0], 2, 0) == 0
    assert not journal.events([_NOTE])
    assert journal.key_ids("run", ["b"]) == []
    assert journal.is_retired
    assert _content(journal).rows == [("a", 1, 1.0), None]
    journal.trim(end)
    assert journal.retire(close=True) == end
    journal.close()


@pytest.mark.parametrize("wrong", [(3, "text"), (None, "text"), ("k", 3)])
def test_event_that_is_no_text_is_refused_with_all_beside_it_and_blocks_nothing(
    journal: Journal, wrong: tuple[Any, Any]
) -> None:
    key, text = wrong
    with pytest.raises(TypeError, match="no text"):
        journal.events([_NOTE, ("run", schema.NOTE, key, None, text)])
    assert journal.events([_NOTE])
    assert _content(journal).rows == ["text"]
    journal.close()


def test_key_defined_twice_is_one_key_so_that_its_points_are_counted_once() -> None:
    journal = memory_journal()
    assert journal.key_ids("run", ["a", "b", "a"]) == [0, 1, 0]
    assert journal.key_ids("run", ["b"]) == [1]
    assert journal.key_ids("other", ["b"]) == [2]
    assert journal.keys == [("run", "a"), ("run", "b"), ("other", "b")]


def test_trim_drops_files_and_keeps_every_row_behind_it(tmp_path: Path) -> None:
    journal = _journal("through", tmp_path)
    [key_id] = journal.key_ids("run", ["a"])
    text = "x" * 1000
    for number in range(1500):
        journal.events([("run", schema.NOTE, "k", None, f"{number} {text}")])
    journal.points([key_id] * (PAGE_POINTS + 10), [1.0] * (PAGE_POINTS + 10), 0, 0)
    sealed = journal.position()
    journal.trim(sealed)
    for number in range(1500, 1510):
        journal.events([("run", schema.NOTE, "k", None, str(number))])
    journal.trim(Position(sealed.points, sealed.events + 5))
    assert sorted(file.name for file in tmp_path.glob("points-*")) == ["points-00000001.bin"]
    assert [file.name for file in tmp_path.glob("events-*")] == ["events-000000000001500.jsonl"]
    rest = _content(journal, Position(sealed.points, sealed.events + 5))
    assert rest.rows == [str(number) for number in range(1505, 1510)]
    journal.close()


@pytest.mark.parametrize("mode", ["mapped", "through"])
def test_disk_that_refuses_a_page_retires_the_journal_and_keeps_its_rows(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = _journal(mode, tmp_path)
    [key_id] = journal.key_ids("run", ["a"])
    journal.points([key_id] * PAGE_POINTS, [1.0] * PAGE_POINTS, 0, 0)

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setattr(os, "pwrite", refuse)
    assert not journal.point(key_id, 0, 0, 1.0)
    assert journal.is_retired
    assert journal.failure is not None
    assert journal.position() == Position(PAGE_POINTS, 0)
    monkeypatch.undo()
    journal.close()
    assert len(_recovered(tmp_path).rows) == PAGE_POINTS


def test_disk_that_takes_half_a_line_leaves_no_trace_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = _journal("through", tmp_path)
    journal.events([_NOTE])
    write = os.write

    def half(fd: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    assert not journal.events([_NOTE, _NOTE])
    assert journal.is_retired
    assert journal.position() == Position(0, 1)
    monkeypatch.undo()
    journal.close()
    assert _recovered(tmp_path).rows == ["text"]


def test_line_cut_off_by_an_interrupt_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = _journal("through", tmp_path)
    write, calls = os.write, iter(range(100))

    def interrupted(fd: int, data: bytes) -> int:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return write(fd, data[:10])

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        journal.events([_NOTE])
    monkeypatch.undo()
    assert journal.position() == _START
    assert journal.events([("run", schema.NOTE, "k", None, "next")])
    journal.close()
    assert _recovered(tmp_path).rows == ["next"]


def test_call_interrupted_behind_its_write_leaves_no_hole_and_no_wrong_key(
    tmp_path: Path,
) -> None:
    journal = _journal("through", tmp_path)
    [a] = journal.key_ids("run", ["a"])
    journal.point(a, 1, 0, 1.0)
    # What an interrupt leaves that came after the write and before the counter moved.
    cut_off = [Event(1, 5, "run", schema.NOTE, "k", None, text) for text in ("x", "y")]
    lines = [event_line(place, event) for place, event in enumerate(cut_off)]
    assert journal._write_lines(journal._events_fd, lines)
    assert journal._write_lines(journal._keys_fd, ['[1,"run","never"]'])
    [b] = journal.key_ids("run", ["b"])
    journal.point(b, 2, 0, 2.0)
    journal.events([("run", schema.NOTE, "k", None, "z")])
    journal.point(b, 3, 0, 3.0)
    journal.close()
    assert _recovered(tmp_path).rows == [("a", 1, 1.0), ("b", 2, 2.0), "z", ("b", 3, 3.0)]


def test_an_event_that_was_amended_is_recovered_as_it_is_now(tmp_path: Path) -> None:
    journal = _journal("through", tmp_path)
    for text in ("a", "b", "c"):
        journal.events([("run", schema.NOTE, "k", None, text)])
    (_, event, _) = journal.read_events(_START, journal.position())
    journal.amend(1, event._replace(str="B"))
    journal.events([("run", schema.NOTE, "k", None, "d")])
    assert [each.str for each in journal.read_events(_START, journal.position())] == [*"aBcd"]
    journal.close()
    assert _recovered(tmp_path).rows == ["a", "B", "c", "d"]


def test_page_that_an_interrupt_left_half_begun_is_taken_up(tmp_path: Path) -> None:
    journal = _journal("through", tmp_path)
    [key_id] = journal.key_ids("run", ["a"])
    journal.points([key_id] * PAGE_POINTS, [1.0] * PAGE_POINTS, 0, 0)
    page, end = journal._page, journal._page_end
    assert journal.point(key_id, 1, 0, 2.0)
    # As if the interrupt had come behind the page's making, before anything pointed to it.
    journal._page, journal._page_end = page, end
    journal._points = PAGE_POINTS
    assert journal.points([key_id, key_id], [3.0, 4.0], 1, 0) == 2
    journal.close()
    rows = _recovered(tmp_path).rows
    assert rows[0] == ("a", 0, 1.0)
    assert rows[PAGE_POINTS:] == [("a", 1, 3.0), ("a", 1, 4.0)]


def test_clock_never_gives_the_same_or_an_earlier_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100, 100, 50, 200])
    monkeypatch.setattr(clock, "now_us", lambda: next(times))
    hybrid = HybridClock()
    assert [hybrid.tick() for _ in range(4)] == [100, 101, 102, 200]


def test_events_said_before_keep_their_clock() -> None:
    journal = memory_journal()
    assert journal.events([_NOTE], clock_us=5)
    assert [event.clock for event in journal.read_events(_START, journal.position())] == [5]


def test_threads_that_append_at_once_lose_and_tear_nothing(journal: Journal) -> None:
    [*ids] = journal.key_ids("run", ["a", "b", "c"])
    each = 3000

    def work(key_id: int) -> None:
        for step in range(each):
            if step % 100:
                assert journal.point(key_id, step, key_id, float(step))
            else:
                assert journal.events([_NOTE])

    threads = [threading.Thread(target=work, args=(key_id,)) for key_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    points = read_points(journal.read_points(_START, journal.position()))
    for key_id in ids:
        own = points.steps[points.key_ids == key_id].tolist()
        assert own == [step for step in range(each) if step % 100]
    assert journal.position() == Position(3 * each * 99 // 100, 3 * each // 100)
    journal.close()


def test_sync_forces_every_file_to_the_disk_also_while_pages_come_and_go(journal: Journal) -> None:
    [key_id] = journal.key_ids("run", ["a"])
    journal.sync()
    journal.points([key_id] * (PAGE_POINTS + 1), [1.0] * (PAGE_POINTS + 1), 0, 0)
    journal.sync()
    journal.trim(Position(PAGE_POINTS, 0))
    journal.sync()
    journal.close()
