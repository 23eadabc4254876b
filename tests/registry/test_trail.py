"""The audit trail, and polling for changes: each once, whatever clocks say and whoever dies."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from runlake import schema
from runlake.errors import InvalidInputError, NotFoundError
from runlake.query.bookmark import Cursor
from runlake.testing.filesystems import SimulatedCrash
from tests.registry.hosts import Host
from tests.registry.test_worlds import World, settle
from tests.writing.drains import memory_filesystem

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from runlake.lake import Lake

pytestmark = pytest.mark.filesystems("local", "memory", "s3")

CLAIMS = (schema.REGISTRY_MODEL_CREATE, schema.REGISTRY_MODEL_RENAME)


def deeds(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Return what rows tell of: a claim is one deed, whoever traced it."""
    found: list[tuple[Any, ...]] = []
    for row in frame.to_dicts():
        if row["kind"] == schema.REGISTRY_VERSION_CREATE:
            found.append((row["kind"], row["model_id"], row["version"]))
        elif row["kind"] in CLAIMS:
            found.append((row["kind"], json.loads(row["about"])["nonce"]))
        else:
            found.append((row["writer"], row["seq"]))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_poller_has_each_change_once_among_hosts_with_wrong_clocks_that_die(
    seed: int, tmp_path: Path
) -> None:
    world = World(seed, tmp_path)
    cursor: str | None = None
    had: list[tuple[Any, ...]] = []
    for _ in range(40):
        world.step()
        if world.chance.random() < 0.5:
            poller = Host(world.fs, tmp_path)
            frame, cursor = poller.registry.changes(cursor)
            had += deeds(frame)
    host = settle(world)
    frame, cursor = host.registry.changes(cursor)
    had += deeds(frame)
    assert [deed for deed, count in Counter(had).items() if count > 1] == []
    everything, _ = host.registry.changes()
    assert Counter(had) == Counter(deeds(everything))
    told = {row["reason"] for row in everything.to_dicts()}
    assert set(world.told.done) <= told
    again, same = host.registry.changes(cursor)
    assert (again.height, same) == (0, cursor)


def test_claim_that_its_dead_maker_traces_late_is_given_once(tmp_path: Path) -> None:
    late = 0
    for calls in range(10):
        fs = memory_filesystem()
        maker, finder = Host(fs, tmp_path / "a"), Host(fs, tmp_path / "b")
        finder.registry.create_registered_model("digits")
        maker.registry.get_registered_model("digits")
        maker.fs.dies_in = calls
        with contextlib.suppress(SimulatedCrash):
            maker.registry.create_model_version("digits", "s3://models/1")
        maker.die()
        finder.registry.create_model_version("digits", "s3://models/2")
        frame, cursor = finder.registry.changes()
        before = fs.list("log/")
        Host(fs, tmp_path / "a").recover()
        more, _ = finder.registry.changes(cursor)
        late += fs.list("log/") != before
        had = [*deeds(frame), *deeds(more)]
        assert len(had) == len(set(had)), calls
        everything, _ = finder.registry.changes()
        assert set(had) == set(deeds(everything)), calls
    assert late


def test_changes_of_a_lake_that_is_not_there_are_none(lake: Lake) -> None:
    frame, cursor = lake.registry.changes()
    assert frame.height == 0
    lake.registry.create_registered_model("digits", reason="to begin with")
    frame, after = lake.registry.changes(cursor)
    assert frame["reason"].to_list() == ["to begin with"]
    assert after != cursor


@pytest.mark.filesystems("local")
@pytest.mark.parametrize("text", ["", "nonsense", "a1.AAAA", "r1.A", "r1.AAAAAAAAAAAAAAA", "r1.ä"])
def test_text_that_is_no_cursor_is_refused(lake: Lake, text: str) -> None:
    with pytest.raises(InvalidInputError, match="no cursor"):
        lake.registry.changes(text)


def test_cursor_comes_back_from_its_text() -> None:
    start = Cursor("r1.", {})
    cursor = start.after({"A" * 26: 0, "B" * 26: 300, "C" * 26: 1 << 40})
    assert start.read(f" {cursor}\n") == cursor
    assert [cursor.floor(letter * 26) for letter in "ABCD"] == [0, 300, 1 << 40, -1]
    assert cursor.after({"B" * 26: 7}) == cursor


def test_history_tells_who_did_what_and_why(lake: Lake) -> None:
    registry = lake.registry
    registry.create_registered_model("digits", reason="new")
    registry.create_model_version("digits", "s3://models/1", reason="trained")
    registry.set_registered_model_alias("digits", "champion", 1, reason="best so far")
    registry.create_registered_model("other")
    trail = registry.history("digits")
    assert trail.columns == lake.sql("FROM registry_events").columns
    assert trail["reason"].to_list() == ["new", "trained", "best so far"]
    assert trail["version"].to_list() == [None, 1, 1]
    assert trail["user_id"].null_count() == 0
    with pytest.raises(NotFoundError, match="digits"):
        registry.history("digit")


@pytest.mark.filesystems("local")
def test_history_of_a_deleted_model_stays_beside_that_of_its_successor(lake: Lake) -> None:
    lake.registry.create_registered_model("digits", reason="first")
    lake.registry.delete_registered_model("digits", reason="a mistake")
    assert lake.registry.history("digits")["reason"].to_list() == ["first", "a mistake"]
    lake.registry.create_registered_model("digits", reason="second")
    trail = lake.registry.history("digits")
    assert trail["reason"].to_list() == ["first", "a mistake", "second"]
    assert trail["model_id"].n_unique() == 2
