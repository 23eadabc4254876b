from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake import ids
from runlake.errors import InvalidInputError, StateError
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.testing import CountingFilesystem, SlowFilesystem, open_lake

if TYPE_CHECKING:
    from pathlib import Path


def test_lake_over_a_wrapped_folder_is_written_and_read_through_the_wrapper(
    tmp_path: Path,
) -> None:
    slow = SlowFilesystem(LocalFilesystem(tmp_path / "lake"))
    counting = CountingFilesystem(slow)
    with open_lake(counting) as lake:
        with lake.start_run(run_id="r") as run:
            run.log_metric("loss", 0.5, 0)
        assert lake.search_runs()["run_id"].to_list() == ["r"]
        assert lake.sql("SELECT value FROM metrics").item() == 0.5
        assert lake.url == str(tmp_path / "lake")
    assert counting.requests["PUT"] > 0
    assert slow.waited_s >= 0.05 * counting.requests["PUT"]
    # What was written through the wrapper is an ordinary lake.
    with open_lake(LocalFilesystem(tmp_path / "lake")) as lake:
        assert lake.search_runs().height == 1


def test_knobs_given_reach_the_lake() -> None:
    memory = MemoryFilesystem(ids.new_nonce())
    lake = open_lake(memory, stale_s=7.0)
    assert (lake.settings.stale_s, lake.origin["stale_s"]) == (7.0, "argument")
    with pytest.raises(InvalidInputError, match="stale: no such knob"):
        open_lake(memory, stale=7.0)
    with pytest.raises(StateError, match="read-only"):
        open_lake(memory, read_only=True).start_run()
