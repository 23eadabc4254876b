from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake import ids
from runlake.storage import layout, manifest, manifests
from runlake.storage.manifest import Manifest
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.snapshot import Snapshots
from runlake.upkeep.commit import Change, Committer
from runlake.upkeep.work import Limits, Work
from tests.storage.lakes import EXPERIMENT
from tests.upkeep.made import (
    LAKE,
    MadeWriter,
    compactor,
    expected,
    held,
    make_lake,
    point,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def memory() -> Iterator[MemoryFilesystem]:
    """A lake with two runs, of which run-a is compacted."""
    opened = MemoryFilesystem(f"test-{ids.new_nonce()}/lake")
    make_lake(opened)
    put(opened, 1, "run-a")
    compactor(opened).compact(EXPERIMENT)
    put(opened, 2, "run-b")
    yield opened
    opened.delete_many([entry.key for entry in opened.list("")])


def put(fs: MemoryFilesystem, number: int, run_id: str) -> MadeWriter:
    """Put two segments, of which the first can be taken."""
    writer = MadeWriter(number, [point(run_id, "loss", step, 1.0) for step in range(2)])
    writer.put(fs, 0, 0)
    writer.put(fs, 1, 1)
    return writer


def begun(fs: MemoryFilesystem, *, is_full: bool = False) -> tuple[Change, Manifest]:
    """Write the files of a change, and return it with the manifest that it began from."""
    snapshot = Snapshots(fs, lake=LAKE).take([EXPERIMENT])
    change = Work(fs, EXPERIMENT, Limits(is_full=is_full)).next_change(snapshot)
    assert change is not None
    return change, snapshot.manifest


def overtake(fs: MemoryFilesystem, **changed: object) -> None:
    """Commit another manifest, different in some fields."""
    newest = manifests.newest(fs, lake=LAKE)
    fields = {name: getattr(newest, name) for name in Manifest.__slots__}
    fields |= {"number": newest.number + 1, "nonce": ids.new_nonce(), "parent": newest.nonce}
    made = Manifest(**{**fields, **changed})
    assert fs.put_absent(layout.manifest(made.number), manifest.encode(made))


def table_files(fs: MemoryFilesystem) -> set[str]:
    """Return the compacted files that are there."""
    return {entry.key for entry in fs.list(layout.TABLES)}


def test_a_manifest_follows_its_parent_in_number_nonce_and_time(memory: MemoryFilesystem) -> None:
    overtake(memory, commit_us=2**60)
    change, base = begun(memory)
    won = Committer(memory, lake=LAKE).commit(change, base)
    assert won is not None
    assert won == manifests.newest(memory, lake=LAKE)
    assert (won.number, won.parent) == (base.number + 1, base.nonce)
    assert won.commit_us > base.commit_us == 2**60
    assert (won.purged, won.copied) == (base.purged, base.copied)


def test_the_first_manifest_has_no_parent(memory: MemoryFilesystem) -> None:
    found = manifests.read(memory, 1, lake=LAKE)
    assert (found.number, found.parent) == (1, None)


def test_files_move_on_under_fresh_names_where_nothing_has_changed_for_them(
    memory: MemoryFilesystem,
) -> None:
    change, base = begun(memory)
    overtake(memory)
    won = Committer(memory, lake=LAKE).commit(change, base)
    assert won is not None
    assert won.number == base.number + 2
    assert not table_files(memory) & {file.path for file in change.files}
    assert table_files(memory) == won.paths()
    numbers = {layout.parse_table_file(path).number for path in won.paths() - base.paths()}  # type: ignore[union-attr]
    assert numbers == {won.number}


@pytest.mark.parametrize(
    "changed",
    [
        {"purged": frozenset({"run-b"})},
        {"copied": {"run-b": {"w": 3}}},
        {"consumed": {MadeWriter(2, []).writer: 1}},
    ],
    ids=["purged", "copied", "consumed"],
)
def test_files_are_deleted_where_what_they_were_made_of_has_changed(
    memory: MemoryFilesystem, changed: dict[str, object]
) -> None:
    change, base = begun(memory)
    overtake(memory, **changed)
    assert Committer(memory, lake=LAKE).commit(change, base) is None
    assert table_files(memory) == base.paths()


@pytest.mark.parametrize(
    "changed",
    [
        {"purged": frozenset({"run-a", "run-aa", "run-z"})},
        {"copied": {"run-a": {"w": 3}}},
        {"consumed": {MadeWriter(2, []).writer: -1, MadeWriter(1, []).writer: 1}},
    ],
    ids=["purged", "copied", "consumed"],
)
def test_what_changes_about_other_runs_and_writers_does_not_matter(
    memory: MemoryFilesystem, changed: dict[str, object]
) -> None:
    change, base = begun(memory)
    overtake(memory, **changed)
    assert Committer(memory, lake=LAKE).commit(change, base) is not None


def test_a_merge_is_dropped_where_a_file_that_it_replaces_is_gone(memory: MemoryFilesystem) -> None:
    writer = MadeWriter(2, [point("run-b", "loss", step, 1.0) for step in range(2)])
    compactor(memory).compact(EXPERIMENT)
    change, base = begun(memory, is_full=True)
    compactor(memory, limits=Limits(is_full=True)).compact(EXPERIMENT)
    newest = manifests.newest(memory, lake=LAKE)
    assert Committer(memory, lake=LAKE).commit(change, base) is None
    assert not table_files(memory) & {file.path for file in change.files}
    assert manifests.newest(memory, lake=LAKE) == newest
    wanted = expected([(put_already(memory), 1), (writer, 1)])
    assert held(memory) == wanted


def put_already(fs: MemoryFilesystem) -> MadeWriter:
    """Return the first writer of the lake."""
    del fs
    return MadeWriter(1, [point("run-a", "loss", step, 1.0) for step in range(2)])


def test_a_purge_waits_for_files_that_hold_the_run_and_came_meanwhile(
    memory: MemoryFilesystem,
) -> None:
    base = manifests.newest(memory, lake=LAKE)
    purge = Change(
        experiment_id=EXPERIMENT,
        added={},
        dropped=frozenset(base.paths()),
        purged=frozenset({"run-b"}),
    )
    compactor(memory).compact(EXPERIMENT)  # now tables hold run-b
    assert Committer(memory, lake=LAKE).commit(purge, base) is None
    assert manifests.newest(memory, lake=LAKE).purged == frozenset()
    base = manifests.newest(memory, lake=LAKE)
    gone = Change(
        experiment_id=EXPERIMENT,
        added={},
        dropped=frozenset(base.paths()),
        purged=frozenset({"run-b"}),
    )
    overtake(memory)
    won = Committer(memory, lake=LAKE).commit(gone, base)
    assert won is not None
    assert won.purged == {"run-b"}


def test_files_that_were_vacuumed_before_they_could_move_on_are_made_again(
    memory: MemoryFilesystem,
) -> None:
    change, base = begun(memory)
    overtake(memory)
    memory.delete_many([change.files[-1].path])
    assert Committer(memory, lake=LAKE).commit(change, base) is None
    assert table_files(memory) == base.paths()
