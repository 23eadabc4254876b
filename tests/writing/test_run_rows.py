"""Rows of runs from whoever knows their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

from runlake import schema
from runlake.errors import StorageError
from runlake.query.engine import Query
from runlake.storage.engine import Storage
from runlake.testing.filesystems import CountingFilesystem
from runlake.writing import recover
from runlake.writing.run_rows import Point, RunRows
from tests.writing.drains import (
    EXPERIMENT,
    StillDrain,
    memory_filesystem,
    memory_journal,
    new_writer,
)

if TYPE_CHECKING:
    from runlake.settings import Settings

RUNNING = ("run", schema.STATUS, schema.STATUS_SET, None, schema.RUNNING)
FINISHED = ("run", schema.STATUS, schema.STATUS_SET, 5.0, schema.FINISHED)


def rows_of(drain: StillDrain, run_id: str = "run") -> RunRows:
    """Return what takes rows of a run."""
    return RunRows(drain, run_id, EXPERIMENT, "Experiment")


def counted(storage: Storage) -> list[tuple[object, ...]]:
    """Return how many points each metric has, and the last of them."""
    query = Query(storage.read()[1])
    found = query.sql("SELECT key, count, last FROM metric_summary ORDER BY key").to_pylist()
    return [tuple(row.values()) for row in found]


@how(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    turns=st.lists(st.sampled_from(["point", "end", "open", "upload", "seal", "die"]), max_size=25)
)
def test_every_point_is_counted_once_whenever_the_run_ends_and_the_process_dies(
    settings: Settings, turns: list[str]
) -> None:
    storage = Storage(CountingFilesystem(memory_filesystem()), settings)
    storage.ensure_lake()
    drain = StillDrain(storage, settings)
    logged = 0
    rows_of(drain).events([RUNNING])
    for turn in turns:
        match turn:
            case "point":
                rows_of(drain).log([], [Point("loss", logged, 1000, float(logged))])
                logged += 1
            case "end" | "open":
                rows_of(drain).events([FINISHED if turn == "end" else RUNNING])
            case "upload":
                drain.serve()
            case "seal":
                for lane in drain._lanes:
                    lane.writer.upload(storage, seal=True)
            case _:
                root = drain.place.root
                assert root is not None
                drain.die()
                assert all(found.problem is None for found in recover.each(storage, root))
    drain.serve()
    drain.die()
    assert counted(storage) == ([("loss", logged, float(logged - 1))] if logged else [])


def test_ended_run_stays_known_while_rows_lie_behind_the_cut_or_it_is_held(
    storage: Storage,
) -> None:
    for behind in ("point", "tag", "hold", "nothing"):
        writer = new_writer()
        writer.journal.events([RUNNING, FINISHED])
        cut = writer.journal.position()
        writer._put(storage, cut)
        if behind == "point":
            key_id = writer.journal.key_id("run", "loss")
            assert writer.journal.point(key_id, 0, 1, 0.5)
        if behind == "tag":
            writer.journal.events([("run", schema.TAG, "a", None, "b")])
        if behind == "hold":
            with writer.holding("run") as is_known:
                assert is_known
                writer._seal(cut)
        else:
            writer._seal(cut)
        with writer.holding("run") as is_known:
            assert is_known == (behind != "nothing")
        assert writer._holds.runs() == set()


def test_status_that_was_set_lets_recovery_leave_a_run_as_it_is(
    still: StillDrain, storage: Storage
) -> None:
    rows_of(still).events([RUNNING])
    root = still.place.root
    assert root is not None
    still.die()
    [found] = recover.each(storage, root)
    assert found.killed_runs == ()
    status = Query(storage.read()[1]).sql("SELECT status FROM runs").to_pylist()
    assert status == [{"status": schema.RUNNING}]


def test_points_that_a_full_journal_refuses_are_an_error(
    still: StillDrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = new_writer(memory_journal(limit_bytes=0))
    monkeypatch.setattr(still, "writer", lambda *_: full)
    points = [Point("loss", step, 1, 0.5) for step in range(40_000)]
    with pytest.raises(StorageError, match="points of run run were refused"):
        rows_of(still).log([], points)
