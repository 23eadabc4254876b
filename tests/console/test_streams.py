from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from runlake.console import streams

if TYPE_CHECKING:
    from collections.abc import Iterator


class Heard(list[tuple[str, str]]):
    """What a taker was handed."""

    def take(self, stream: str, text: str) -> None:
        """Keep it."""
        self.append((stream, text))

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(text for _, text in self)


def replaced(monkeypatch: pytest.MonkeyPatch) -> io.TextIOWrapper:
    """Put a stream of the interpreter's own kind in the place of stdout.

    Not a fixture: pytest puts its own streams in place between a test's setup and the test.
    """
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


@pytest.fixture
def heard() -> Iterator[Heard]:
    """A taker that listens."""
    taker = Heard()
    yield taker
    streams.leave(taker.take)
    assert streams._taps == []


def shown(stream: io.TextIOWrapper) -> bytes:
    """Return what the terminal would show."""
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue()


def test_what_is_printed_is_shown_and_handed_on(
    monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    out = replaced(monkeypatch)
    assert streams.listen(heard.take) == ["stdout", "stderr"]
    print("loss", 0.5)
    sys.stdout.writelines(["a\n", "b\n"])
    print("bad", file=sys.stderr)
    assert shown(out) == b"loss 0.5\na\nb\n"
    assert heard.text == "loss 0.5\na\nb\nbad\n"
    assert heard[-1][0] == "stderr"


def test_the_streams_stay_the_same_objects_with_all_that_they_are(
    monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    out = replaced(monkeypatch)
    streams.listen(heard.take)
    assert sys.stdout is out
    assert (out.isatty(), out.encoding, out.writable()) == (False, "ascii", True)
    streams.leave(heard.take)
    assert "write" not in vars(out)


def test_a_handler_that_holds_the_stream_since_before_is_heard(
    monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    out = replaced(monkeypatch)
    handler = logging.StreamHandler(out)
    streams.listen(heard.take)
    handler.emit(logging.makeLogRecord({"msg": "warned"}))
    assert heard.text == "warned\n"


def test_a_text_that_the_terminal_refuses_raises_as_ever_and_is_not_handed_on(
    monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    out = replaced(monkeypatch)
    streams.listen(heard.take)
    with pytest.raises(UnicodeEncodeError):
        out.write("ä")
    wrong: Any = b"bytes"
    with pytest.raises(TypeError):
        out.write(wrong)
    assert heard == []


def test_two_listeners_hear_each_text_once(monkeypatch: pytest.MonkeyPatch, heard: Heard) -> None:
    out = replaced(monkeypatch)
    other = Heard()
    streams.listen(heard.take)
    streams.listen(other.take)
    out.write("both\n")
    streams.leave(heard.take)
    out.write("one\n")
    streams.leave(other.take)
    out.write("none\n")
    assert (heard.text, other.text) == ("both\n", "both\none\n")
    assert "write" not in vars(out)


def test_a_stream_that_takes_the_place_of_another_is_heard_by_the_next_listener(
    monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    out = replaced(monkeypatch)
    streams.listen(heard.take)
    new = io.StringIO()
    monkeypatch.setattr(sys, "stdout", new)
    print("elsewhere")
    assert heard == []
    other = Heard()
    streams.listen(other.take)
    print("new")
    out.write("old\n")
    streams.leave(other.take)
    assert heard.text == "new\nold\n"


def test_what_others_have_put_over_the_stream_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    out = replaced(monkeypatch)
    streams.listen(heard.take)
    ours, loud = out.write, []

    def theirs(text: str) -> int:
        loud.append(text)
        return ours(text)

    vars(out)["write"] = theirs
    streams.leave(heard.take)
    assert vars(out)["write"] is theirs
    print("after")
    assert (heard.text, "".join(loud), shown(out)) == ("", "after\n", b"after\n")
    streams.listen(heard.take)
    print("again")
    assert heard.text == "again\n"  # once, though our old one lies below theirs
    streams.leave(heard.take)
    assert vars(out)["write"] is theirs
    del vars(out)["write"]


def test_what_stood_before_comes_back(monkeypatch: pytest.MonkeyPatch, heard: Heard) -> None:
    out = replaced(monkeypatch)
    before = out.write
    vars(out)["write"] = before
    streams.listen(heard.take)
    streams.leave(heard.take)
    assert vars(out)["write"] is before


def test_a_program_without_streams_has_nothing_to_hear(
    monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", object())
    assert streams.listen(heard.take) == []
