from __future__ import annotations

from typing import TYPE_CHECKING

import fsspec

from runlake import ids
from runlake.storage.memoryfs import MemoryFilesystem

if TYPE_CHECKING:
    import pytest


def test_objects_are_those_of_fsspecs_memory_filesystem() -> None:
    root = ids.new_nonce()
    lake = MemoryFilesystem(root)
    lake.put("a/b", b"data")
    memory = fsspec.filesystem("memory")
    assert memory.cat(f"/{root}/a/b") == b"data"
    memory.pipe(f"/{root}/c", b"theirs")
    assert [entry.key for entry in lake.list("")] == ["a/b", "c"]
    assert lake.get("c") == b"theirs"
    lake.delete_many(["a/b", "c"])
    assert not memory.exists(f"/{root}/a/b")


def test_times_are_those_of_the_injected_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runlake.clock.now_us", lambda: 1_234_567_890_123_456)
    lake = MemoryFilesystem(ids.new_nonce())
    lake.put("a", b"x")
    assert lake.list("")[0].time_us == lake.now_us() == 1_234_567_890_123_456


def test_lakes_in_memory_do_not_see_each_other() -> None:
    root = ids.new_nonce()
    lake, longer = MemoryFilesystem(root), MemoryFilesystem(f"{root}-2")
    lake.put("a", b"x")
    longer.put("b", b"x")
    assert [entry.key for entry in lake.list("")] == ["a"]
    assert [entry.key for entry in longer.list("")] == ["b"]
