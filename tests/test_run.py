from __future__ import annotations

import math
import threading
import warnings
from argparse import Namespace
from contextlib import nullcontext
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from runlake import clock, schema
from runlake.dataset import Dataset
from runlake.errors import InvalidInputError, RunlakeWarning, StateError
from runlake.settings import Settings
from runlake.storage import segments
from runlake.storage.engine import Storage
from tests.writing.drains import (
    StillDrain,
    memory_filesystem,
    points,
    read_all,
    start_run,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runlake.run import Run
    from tests.writing.drains import Row


class Desk:
    """A run, and a way to see what it has written."""

    def __init__(self, folder: Path) -> None:
        """Begin the run; journals and cache lie in `folder`."""
        self.settings = Settings(journal=str(folder / "journals"), cache=str(folder / "cache"))
        self.fs = memory_filesystem()
        self.drain = StillDrain(Storage(self.fs, self.settings), self.settings)
        self.run = start_run(self.drain, self.settings, tags={"first": 1})

    def rows(self) -> list[Row]:
        """Return what is in the store, after bringing it there."""
        self.drain.serve()
        return read_all(self.fs, self.settings)

    def points(self) -> list[tuple[str, int, float]]:
        """Return key, step and value of the run's points."""
        return points(self.rows())

    def said(self, kind: str) -> dict[str, str | None]:
        """Return the texts of one kind by key."""
        return {row.key: row.str for row in self.rows() if row.kind == kind}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A fresh run."""
    desk = Desk(tmp_path)
    yield desk
    desk.run.finish()
    desk.drain.end()
    desk.drain.serve()


_BAD: list[tuple[Callable[[Run], object], str]] = [
    (lambda run: run.log_metric("loss", "0.5"), "'loss'.*str"),
    (lambda run: run.log_metric("loss", None), "'loss'.*None"),
    (lambda run: run.log_metric("loss", [1.0]), "'loss'.*list"),
    (lambda run: run.log_metric("loss", np.array([1.0, 2.0])), r"'loss'.*shape \(2,\)"),
    (lambda run: run.log_metric("loss", 0.5, 1.5), r"a step is.*1\.5"),  # type: ignore[arg-type]
    (lambda run: run.log_metric("loss", 0.5, 2**63), "a step is"),
    (lambda run: run.log_metric("loss", 0.5, "1"), "a step is"),  # type: ignore[arg-type]
    (lambda run: run.log_metric("loss", 0.5, 1, "now"), "a timestamp is"),
    (lambda run: run.log_metric("loss", 0.5, 1, datetime(2024, 1, 1)), "no time zone"),  # noqa: DTZ001
    (lambda run: run.log_metric("", 0.5), "empty"),
    (lambda run: run.log_metric("a\nb", 0.5), "cannot be printed"),
    (lambda run: run.log_metric("x" * 251, 0.5), "251 characters"),
    (lambda run: run.log_metric(5, 0.5), "int"),  # type: ignore[arg-type]
    (lambda run: run.log_metrics({"acc": 1.0, "loss": "x"}), "'loss'.*str"),
    (lambda run: run.log_metrics({"acc": 1.0, "": 1.0}), "empty"),
    (lambda run: run.log_metrics({"acc": 1.0}, 2**63), "a step is"),
    (lambda run: run.log_metrics([("acc", 1.0)]), "list"),  # type: ignore[arg-type]
    (lambda run: run.log({"acc": 1.0, "loss": None}), "'loss'.*None"),
    (lambda run: run.log({"acc": 1.0}, step=2**64), "a step is"),
    (lambda run: run.log("acc"), "str"),  # type: ignore[arg-type]
    (lambda run: run.log_batch(metrics=[("acc", 1.0, 0), ("loss", "x", 0)]), "'loss'.*str"),
    (lambda run: run.log_batch(metrics=[("acc", 1.0)]), "key, value, step"),
    (lambda run: run.log_batch(metrics=[("acc", 1.0, 0)], params={"": 1}), "empty"),
    (lambda run: run.log_batch(metrics=[("acc", 1.0, 0)], params=[5]), "pairs"),
    (lambda run: run.log_batch(metrics=[("acc", 1.0, 0)], tags=["abc"]), "pairs"),
    (lambda run: run.log_param("", 1), "empty"),
    (lambda run: run.log_param("p", "x" * (1 << 21)), "'p'.*log_text"),
    (lambda run: run.log_params({"a": 1, "b\t": 2}), "cannot be printed"),
    (lambda run: run.log_params([1]), "mapping"),  # type: ignore[arg-type]
    (lambda run: run.set_tag("t", "\ud800"), "'t'.*not Unicode"),
    (lambda run: run.set_tags({"a": 1, "": 2}), "empty"),
    (lambda run: run.delete_tag(""), "empty"),
    (lambda run: run.log_history({"step": [1], "loss": ["x"]}), "'loss'"),
    (lambda run: run.log_input("digits"), "data set .digits. cannot be read.*runlake.Dataset"),
    (lambda run: run.log_input(Dataset(name="a", digest=""), "training"), "the digest"),
    (lambda run: run.finish("DONE"), "DONE"),
]


@pytest.mark.parametrize(("call", "message"), _BAD)
def test_wrong_input_is_refused_with_what_is_wrong_and_nothing_is_written(
    desk: Desk, call: Callable[[Run], object], message: str
) -> None:
    before = desk.rows()
    with pytest.raises(InvalidInputError, match=message):
        call(desk.run)
    assert desk.rows() == before
    # And the same behind a call that has made the keys known.
    desk.run.log({"loss": 0.5, "acc": 0.5})
    before = desk.rows()
    with pytest.raises(InvalidInputError, match=message):
        call(desk.run)
    assert desk.rows() == before


@pytest.mark.parametrize(
    "value",
    [2, True, np.float32(2.0), np.float64(2.0), np.int8(2), np.array(2.0), Decimal(2), 2.0],
)
def test_scalar_of_any_kind_is_logged_by_every_call(desk: Desk, value: object) -> None:
    expected = 1.0 if value is True else 2.0
    desk.run.log_metric("a", value)
    desk.run.log_metrics({"b": value, "c": 1.5}, step=3)
    desk.run.log({"d": value}, step=np.int64(4))  # type: ignore[arg-type]
    assert desk.points() == [
        ("a", 0, expected),
        ("b", 3, expected),
        ("c", 3, 1.5),
        ("d", 4, expected),
    ]


def test_infinities_and_nan_are_kept(desk: Desk) -> None:
    for step, value in enumerate([math.inf, -math.inf, math.nan]):
        desk.run.log_metric("a", value, step)
    values = [value for _, _, value in desk.points()]
    assert values[:2] == [math.inf, -math.inf]
    assert math.isnan(values[2])


def test_steps_count_on_by_themselves_and_any_order_is_fine(desk: Desk) -> None:
    for step in (None, None, 10, None, 3, None):
        desk.run.log({"a": 1.0}, step=step)
    steps = [row.step for row in desk.rows() if row.kind == schema.METRIC]
    assert steps == [0, 1, 10, 11, 3, 4]


def test_timestamps_are_kept_in_microseconds(desk: Desk) -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    desk.run.log_metric("a", 1.0, 0, moment)
    desk.run.log_metrics({"a": 1.0}, 1, 1_704_067_200_000)
    desk.drain.serve()
    [entry] = desk.fs.list("log/")
    table, _ = segments.decode(desk.fs.get(entry.key), key=entry.key)
    times = [row["timestamp"] for row in table.to_pylist() if row["kind"] == schema.METRIC]
    assert times == [moment, moment]


def test_param_with_the_same_value_again_is_fine_and_with_another_is_refused(desk: Desk) -> None:
    assert desk.run.log_param("lr", 0.1) == 0.1
    desk.run.log_param("lr", "0.1")
    before = desk.rows()
    with pytest.raises(InvalidInputError, match=r"'lr'.*'0\.1' already.*'0\.2'"):
        desk.run.log_params({"other": 1, "lr": 0.2})
    assert desk.rows() == before
    with pytest.raises(InvalidInputError, match="already"):
        desk.run.log_batch(metrics=[("a", 1.0, 0)], params=[("x", 1), ("x", 2)])
    assert desk.rows() == before


def test_nested_params_are_flattened_and_text_is_never_cut(desk: Desk) -> None:
    long = "x" * 100_000
    desk.run.log_params({"kernel": {"name": "rbf", "gamma": 0.1}, "long": long})
    desk.run.log_params(Namespace(c=1))  # type: ignore[arg-type]
    assert desk.said(schema.PARAM) == {
        "kernel.name": "rbf", "kernel.gamma": "0.1", "long": long, "c": "1",
    }  # fmt: skip
    numbers = {row.key: row.num for row in desk.rows() if row.kind == schema.PARAM}
    assert numbers == {"kernel.name": None, "kernel.gamma": 0.1, "long": None, "c": 1.0}


def test_tags_may_change_and_go(desk: Desk) -> None:
    desk.run.set_tags({"a": 1, "b": "x"})
    desk.run.set_tag("a", 2)
    desk.run.delete_tag("b")
    assert desk.said(schema.TAG) == {"first": "1", "a": "2", "b": None}


def test_batch_takes_tuples_mappings_and_objects(desk: Desk) -> None:
    metric = SimpleNamespace(key="c", value=3, timestamp=1_704_067_200_000, step=2)
    desk.run.log_batch(
        metrics=[("a", 1, 0), ("b", np.float32(2), 1, None), metric],
        params=[("p", 1), SimpleNamespace(key="q", value="x")],
        tags={"t": 5},
    )
    desk.run.log_batch(params={"r": 1}, tags=[("u", 6)])
    desk.run.log_batch()
    assert desk.points() == [("a", 0, 1.0), ("b", 1, 2.0), ("c", 2, 3.0)]
    assert desk.said(schema.PARAM) == {"p": "1", "q": "x", "r": "1"}
    assert desk.said(schema.TAG) == {"first": "1", "t": "5", "u": "6"}


_WIDE: dict[str, Any] = {"step": [0, 1, 2], "a": [0.0, 1.0, 2.0], "b": [5.0, None, 7.0]}
_LONG: dict[str, Any] = {
    "key": ["a", "a", "a", "b", "b"], "step": [0, 1, 2, 0, 2], "value": [0.0, 1.0, 2.0, 5.0, 7.0],
}  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        pa.table(_WIDE),
        pl.DataFrame(_WIDE),
        pd.DataFrame(_WIDE).convert_dtypes(),
        pa.table(_LONG),
        pd.DataFrame(_LONG),
        {name: np.array(column) for name, column in _LONG.items()},
    ],
)
def test_history_in_any_form_is_the_same_points(desk: Desk, data: object) -> None:
    desk.run.log_history(data)
    assert desk.points() == [
        ("a", 0, 0.0), ("a", 1, 1.0), ("a", 2, 2.0), ("b", 0, 5.0), ("b", 2, 7.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.log_metric("a", 1.0),
        lambda run: run.log({"a": 1.0}),
        lambda run: run.log_metrics({"a": 1.0}),
        lambda run: run.log_batch(metrics=[("a", 1.0, 0)]),
        lambda run: run.log_batch(),
        lambda run: run.log_param("p", 1),
        lambda run: run.set_tag("t", 1),
        lambda run: run.log_input(Dataset(name="a", digest="b")),
        lambda run: run.log_history({"step": [1], "a": [1.0]}),
        lambda run: run.log_text("x", "x.txt"),
    ],
)
def test_run_that_has_ended_takes_nothing_and_says_how_to_resume(
    desk: Desk, call: Callable[[Run], object]
) -> None:
    desk.run.log_metric("a", 0.5)
    desk.run.finish()
    before = desk.rows()
    with pytest.raises(StateError, match=r"has ended \(FINISHED\).*run_id='run'"):
        call(desk.run)
    assert desk.rows() == before


def test_end_of_a_run_is_said_once(desk: Desk) -> None:
    desk.run.finish(end_time=5)
    desk.run.finish("FAILED")
    rows = [row for row in desk.rows() if row.kind == schema.STATUS]
    assert [row.str for row in rows] == ["RUNNING", "FINISHED"]
    assert rows[1].num == 5000.0
    assert desk.run.info.status == "FINISHED"
    assert not desk.run.is_open


def _raise(error: BaseException | None) -> None:
    if error is not None:
        raise error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (ValueError("x"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(None), "FINISHED"),
        (SystemExit(2), "FAILED"),
    ],
)
def test_block_ends_its_run_as_it_ended(
    tmp_path: Path, error: BaseException | None, status: str
) -> None:
    desk = Desk(tmp_path)
    with nullcontext() if error is None else pytest.raises(type(error)), desk.run:
        _raise(error)
    assert desk.run.info.status == status
    notes = [row.str for row in desk.rows() if row.kind == schema.NOTE]
    assert len(notes) == (status == "FAILED")
    desk.drain.die()


def test_traceback_with_text_of_no_encoding_still_ends_the_run(desk: Desk) -> None:
    desk.run._finish_with(ValueError("bad \udcff file"))
    assert "bad ? file" in str(desk.said(schema.NOTE)["traceback"])
    assert desk.run.info.status == "FAILED"


def test_run_says_what_it_is(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(clock, "now_us", lambda: 7_000_000)
    other = start_run(desk.drain, desk.settings, "other")
    said = {row.key: (row.num, row.str) for row in desk.rows() if row.run_id == "other"}
    assert said[schema.RUN_START] == (7_000_000.0, None)
    assert said[schema.RUN_RANK] == (3.0, "3")
    assert said[schema.RUN_USER][1]
    other.finish()


def test_threads_that_log_while_the_writer_changes_lose_nothing_and_mix_no_keys(
    desk: Desk,
) -> None:
    count = 1000

    def work(number: int) -> None:
        for step in range(count):
            desk.run.log_metric(f"a{number}", float(number), step)
            desk.run.log({f"b{number}": float(number), f"c{number}": float(number)}, step=step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RunlakeWarning)
        while any(thread.is_alive() for thread in threads):
            desk.drain.writer("exp", "Experiment").must_end = True
            desk.drain.serve()
    for _ in range(3):
        desk.drain.serve()
    expected = sorted(
        (f"{letter}{number}", step, float(number))
        for letter in "abc"
        for number in range(4)
        for step in range(count)
    )
    assert desk.points() == expected
