from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake import ids, schema
from runlake.errors import FormatError
from runlake.storage import manifests
from runlake.storage.manifest import Manifest
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.watermarks import Watermarks
from runlake.testing.filesystems import CountingFilesystem
from runlake.upkeep import commit as commit_module
from tests.storage.lakes import EXPERIMENT, writer_id
from tests.upkeep.made import LAKE, MadeWriter, compactor, make_lake, point, said

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def memory() -> Iterator[MemoryFilesystem]:
    yield (opened := MemoryFilesystem(f"test-{ids.new_nonce()}/lake"))
    opened.delete_many([entry.key for entry in opened.list("")])


def test_a_writer_of_whom_nothing_is_compacted_begins_at_its_first_row(
    memory: MemoryFilesystem,
) -> None:
    found = Watermarks(memory, Manifest(lake=LAKE, consumed={"A": 7}))
    assert found.of(EXPERIMENT, ["A", "B"]) == {"A": 7, "B": -1}


def test_cold_watermarks_are_read_once_and_of_the_experiment_only(
    memory: MemoryFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_module, "HOT_WRITERS", 2)
    make_lake(memory)
    for experiment in (EXPERIMENT, "other"):
        for number in range(1, 7):
            begun = said("run", schema.STATUS, "", schema.RUNNING, at=0)
            rows = [begun, *(point("run", "loss", step, 1.0) for step in range(number))]
            writer = MadeWriter(number + (10 if experiment == "other" else 0), rows, experiment)
            writer.put(memory, 0, number - 1)
            writer.put(memory, number, number)
        compactor(memory).compact(experiment)
    newest = manifests.newest(memory, lake=LAKE)
    counting = CountingFilesystem(memory)
    found = Watermarks(counting, newest)
    asked = [writer_id(number) for number in range(1, 7)]
    assert not set(asked) & newest.consumed.keys()
    wanted = {writer_id(number): number - 1 for number in range(1, 7)}
    assert found.of(EXPERIMENT, asked) == wanted
    assert found.of(EXPERIMENT, asked[:2]) == {asked[0]: 0, asked[1]: 1}
    assert counting.requests == {"GET": 1}
    # Of one that is younger than every cold writer it is known without a look.
    assert found.of(EXPERIMENT, [writer_id(99)]) == {writer_id(99): -1}
    assert found.of(EXPERIMENT, [writer_id(0)]) == {writer_id(0): -1}
    assert counting.requests == {"GET": 1}


def test_watermarks_in_files_that_are_not_named_are_refused_not_guessed(
    memory: MemoryFilesystem,
) -> None:
    strange = Manifest(lake=LAKE, consumed={"B": 3}, consumed_cold=("cold",), cold_hi="C")
    found = Watermarks(memory, strange)
    assert found.of(EXPERIMENT, ["B", "D"]) == {"B": 3, "D": -1}
    with pytest.raises(FormatError, match="cold"):
        found.of(EXPERIMENT, ["A"])
