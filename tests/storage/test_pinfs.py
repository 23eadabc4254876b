from __future__ import annotations

import gc
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runlake import ids
from runlake.errors import StateError
from runlake.storage.cache import PINS, Cache
from runlake.storage.filesystem import Filesystem, Range
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.pinfs import PinnedFilesystem, pin
from runlake.storage.rowobject import RowObject, objects_of
from runlake.storage.snapshot import Snapshots
from runlake.testing import CountingFilesystem
from tests.storage.lakes import named, put

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.storage.layout import SegmentName


@pytest.fixture
def local(tmp_path: Path) -> LocalFilesystem:
    return LocalFilesystem(tmp_path / "lake")


@pytest.fixture
def far() -> CountingFilesystem:
    return CountingFilesystem(MemoryFilesystem(f"pinfs-{ids.new_nonce()}"))


def segments_of(fs: Filesystem) -> tuple[RowObject, ...]:
    """Return what a snapshot of a lake holds."""
    return objects_of(Snapshots(fs, lake="lake").take())


def read(fs: Filesystem, name: SegmentName, size: int = 100) -> bytes:
    """Read the beginning of a segment."""
    return fs.get_ranges([Range(name.key, 0, size)])[0]


def test_what_is_pinned_is_read_although_it_is_gone(local: LocalFilesystem, tmp_path: Path) -> None:
    first, second = named(1, 0, 9), named(2, 0, 4)
    put(local, first, second)
    before = local.get(first.key)
    pinned = pin(local, segments_of(local)[:1], cache=None, root=tmp_path / PINS)
    local.delete_many([first.key])
    assert pinned.get(first.key) == before
    assert pinned.local_file(first.key).read_bytes() == before
    pinned.download(first.key, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == before
    ranges = [Range(second.key, 0, 4), Range(first.key, 0, 4), Range(second.key, 4, 9)]
    assert pinned.get_ranges(ranges) == [
        *(local.get(second.key)[:4], before[:4], local.get(second.key)[4:9])
    ]
    assert [entry.key for entry in pinned.list("log/")] == [second.key]
    with pytest.raises(FileNotFoundError):
        local.get(first.key)


def test_a_link_takes_no_room(local: LocalFilesystem, tmp_path: Path) -> None:
    name = named(1, 0, 9)
    put(local, name)
    pinned = pin(local, segments_of(local), cache=None, root=tmp_path / PINS)
    assert local.local_file(name.key).samefile(pinned.local_file(name.key))


def test_what_is_gone_already_cannot_be_pinned(local: LocalFilesystem, tmp_path: Path) -> None:
    put(local, named(1, 0, 9), named(2, 0, 4))
    wanted = segments_of(local)
    local.delete_many([named(2, 0, 4).key])
    with pytest.raises(FileNotFoundError):
        pin(local, wanted, cache=None, root=tmp_path / PINS)
    assert list((tmp_path / PINS).iterdir()) == []


def test_a_far_segment_that_its_writer_may_replace_is_fetched(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    tail, merged, cached = named(1, 0, 9), named(2, 0, 4, merged=True), named(3, 0, 4)
    put(far, tail, merged, cached)
    cache = Cache(tmp_path / "cache", lake="lake", limit_bytes=1 << 30)
    cache.put(cached.key, far.get(cached.key))
    wanted = segments_of(far)
    far.reset()
    pinned = pin(far, wanted, cache=cache, root=tmp_path / "cache" / PINS)
    assert dict(far.requests) == {"GET": 1}
    assert [pinned.kept(name.key) is not None for name in (tail, merged, cached)] == [
        *(True, False, True)
    ]
    contents = [read(far, name) for name in (tail, cached)]
    far.delete_many([name.key for name in (tail, merged, cached)])
    assert [read(pinned, name) for name in (tail, cached)] == contents
    with pytest.raises(FileNotFoundError):
        read(pinned, merged)


def test_a_cache_that_is_trimmed_leaves_alone_what_is_pinned(
    far: CountingFilesystem, tmp_path: Path
) -> None:
    name = named(1, 0, 9)
    put(far, name)
    cache = Cache(tmp_path, lake="lake", limit_bytes=1 << 30)
    kept = cache.put(name.key, far.get(name.key))
    assert kept is not None
    pinned = pin(far, segments_of(far), cache=cache, root=tmp_path / PINS)
    for file in (kept, pinned.local_file(name.key)):
        os.utime(file, (1, 1))
    cache.limit_bytes = 0
    cache.trim()
    assert not kept.exists()
    assert pinned.local_file(name.key).exists()


def test_a_pin_of_a_pin_needs_neither_the_lake_nor_the_first(
    local: LocalFilesystem, tmp_path: Path
) -> None:
    name = named(1, 0, 9)
    put(local, name)
    wanted, before = segments_of(local), read(local, name)
    first = pin(local, wanted, cache=None, root=tmp_path / PINS)
    local.delete_many([name.key])
    second = pin(first, wanted, cache=None, root=tmp_path / PINS)
    first.close()
    assert read(second, name) == before
    assert second.inner is local


def test_what_was_pinned_goes_when_nobody_holds_it(local: LocalFilesystem, tmp_path: Path) -> None:
    put(local, named(1, 0, 9))
    wanted = segments_of(local)
    pinned = pin(local, wanted, cache=None, root=tmp_path / PINS)
    folder = pinned.folder
    assert folder.is_dir()
    del pinned
    gc.collect()
    assert not folder.exists()
    with_block = pin(local, wanted, cache=None, root=tmp_path / PINS)
    with_block.close()
    with_block.close()
    assert list((tmp_path / PINS).iterdir()) == []


@pytest.mark.parametrize(
    "write",
    [
        lambda fs: fs.put("k", b"x"),
        lambda fs: fs.put_absent("k", b"x"),
        lambda fs: fs.upload("k", Path("file")),
        lambda fs: fs.copy("k", "l"),
        lambda fs: fs.delete_many(["k"]),
        lambda fs: fs.probe(),
    ],
)
def test_a_snapshot_takes_no_writes(
    local: LocalFilesystem, tmp_path: Path, write: Callable[[Filesystem], object]
) -> None:
    pinned = PinnedFilesystem(local, tmp_path / PINS / "x")
    with pytest.raises(StateError, match="takes no writes"):
        write(pinned)


def test_folders_of_dead_processes_are_swept_and_those_of_living_ones_stay(
    local: LocalFilesystem, tmp_path: Path
) -> None:
    host, root = socket.gethostname(), tmp_path / PINS
    dead = 2**22 + 1  # no kernel gives so great an id
    long_ago = 1.0
    stays = [f"{host}-{os.getpid()}-a", f"{host}-1-b", f"far-host-{dead}-c", "something else"]
    goes = [f"{host}-{dead}-a", f"far-host-{dead}-d"]
    for name in (*stays, *goes):
        (root / name).mkdir(parents=True)
        (root / name / "x.parquet").write_text("x")
    for name in (stays[0], goes[1]):
        os.utime(root / name, (long_ago, long_ago))
    pinned = pin(local, (), cache=None, root=root)
    assert {item.name for item in root.iterdir()} == set(stays)
    pinned.close()
