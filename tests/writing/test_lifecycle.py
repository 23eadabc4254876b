from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from runlake.writing import lifecycle
from runlake.writing.lifecycle import Terminated

if TYPE_CHECKING:
    from collections.abc import Iterator


class Witness:
    """A run and a drain that note what is asked of them."""

    def __init__(self, name: str, said: list[object]) -> None:
        """Note under a name."""
        self.name = name
        self.said = said

    def _finish_with(self, error: BaseException | None) -> None:
        """Note how the run ends."""
        self.said.append((self.name, "finish", type(error)))
        lifecycle.forget_run(self)

    def begin_close(self) -> float:
        """Note that the drain is told to end."""
        self.said.append((self.name, "begin"))
        return 1.0

    def end_close(self, timeout_s: float) -> None:
        """Note that the drain is waited for."""
        assert 0.0 <= timeout_s <= 1.0
        self.said.append((self.name, "end"))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What witnesses have noted; the process's own record is set aside."""
    handler = signal.getsignal(signal.SIGTERM)
    process = lifecycle._Process()
    process.is_registered = True
    monkeypatch.setattr(lifecycle, "_process", process)
    yield []
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize("is_terminated", [False, True])
def test_what_is_late_is_settled_when_runs_have_ended_and_before_drains_close(
    said: list[object], *, is_terminated: bool
) -> None:
    lifecycle.watch_drain(Witness("drain", said))
    lifecycle.watch_late(lambda is_hurried: said.append(("late", is_hurried)))
    lifecycle.watch_run(Witness("run", said))
    if is_terminated:
        lifecycle._process.terminated = Terminated(143)
    lifecycle.end()
    lifecycle.end()
    assert [each[:2] for each in said if isinstance(each, tuple)] == [
        ("run", "finish"),
        ("late", is_terminated),
        ("drain", "begin"),
        ("drain", "end"),
    ]


def test_end_finishes_open_runs_then_closes_all_drains_at_once(said: list[object]) -> None:
    run, left = Witness("run", said), Witness("left", said)
    lifecycle.watch_run(run)
    lifecycle.watch_run(left)
    lifecycle.forget_run(left)
    for name in ("one", "two"):
        lifecycle.watch_drain(Witness(name, said))
    lifecycle.end()
    assert said[0] == ("run", "finish", type(None))
    assert {*said[1:3]} == {("one", "begin"), ("two", "begin")}
    assert {*said[3:]} == {("one", "end"), ("two", "end")}
    said.clear()
    lifecycle.end()
    assert said == []


def test_sigterm_unwinds_blocks_and_ends_runs_as_killed(said: list[object]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    lifecycle.watch_run(Witness("run", said))
    with pytest.raises(Terminated) as raised:
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a second one kills at once
    lifecycle.end()
    assert said == [("run", "finish", Terminated)]


def test_sigterm_that_somebody_else_handles_is_left_to_them(said: list[object]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lifecycle.watch_run(Witness("run", said))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_record_of_the_parent_is_not_the_childs(
    said: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    lifecycle.watch_run(Witness("parent", said))
    parent = lifecycle._process
    monkeypatch.setattr(os, "getpid", lambda: -1)
    lifecycle.end()
    assert said == []
    child = lifecycle._Process()
    child.is_registered = True
    monkeypatch.setattr(lifecycle, "_process", child)
    lifecycle.watch_run(Witness("child", said))
    lifecycle.end()
    assert said == [("child", "finish", type(None))]
    assert len(parent.runs) == 1
