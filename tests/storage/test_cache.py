from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from runlake.settings import Settings
from runlake.storage.cache import Cache, open_cache

if TYPE_CHECKING:
    from pathlib import Path

DATA = b"PAR1" + bytes(range(100)) + b"PAR1"
OLD_S = 1_000_000_000


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", lake="lake", limit_bytes=1 << 20)


def files(cache: Cache) -> list[Path]:
    return sorted(file for file in cache.folder.rglob("*") if file.is_file())


def test_cached_object_is_read_back_by_key_and_size(cache: Cache) -> None:
    path = cache.put("log/a", DATA)
    assert path is not None
    assert (path.read_bytes(), cache.file("log/a", len(DATA))) == (DATA, path)
    assert cache.read("log/a", len(DATA)) == DATA
    assert cache.read("log/b", len(DATA)) is None


def test_caches_of_two_lakes_do_not_share_objects(tmp_path: Path) -> None:
    one, other = (Cache(tmp_path, lake=lake, limit_bytes=1 << 20) for lake in "ab")
    one.put("log/a", DATA)
    assert other.read("log/a", len(DATA)) is None


@pytest.mark.parametrize("kept", [0, 3, 50, len(DATA) - 1])
def test_cut_file_is_never_trusted_and_goes(cache: Cache, kept: int) -> None:
    path = cache.put("log/a", DATA)
    assert path is not None
    path.write_bytes(DATA[:kept])
    assert cache.file("log/a", len(DATA)) is None
    assert files(cache) == []


def test_file_of_the_right_size_without_its_content_is_never_trusted(cache: Cache) -> None:
    path = cache.put("log/a", DATA)
    assert path is not None
    path.write_bytes(bytes(len(DATA)))
    assert cache.read("log/a", len(DATA)) is None


def test_tail_is_read_back_and_checked(cache: Cache) -> None:
    cache.put_tail("log/a", DATA)
    assert cache.read_tail("log/a") == DATA
    assert cache.read("log/a", len(DATA)) is None
    (file,) = files(cache)
    file.write_bytes(file.read_bytes()[:-1])
    assert cache.read_tail("log/a") is None


def test_filled_file_appears_only_if_the_block_ends_well(cache: Cache) -> None:
    with suppress(ZeroDivisionError), cache.filling("log/a") as file:
        file.write_bytes(DATA)
        raise ZeroDivisionError
    assert files(cache) == []
    with cache.filling("log/a") as file:
        file.write_bytes(DATA)
    assert cache.read("log/a", len(DATA)) == DATA


def test_full_cache_drops_what_was_not_used_for_longest(tmp_path: Path) -> None:
    cache = Cache(tmp_path, lake="lake", limit_bytes=4 * len(DATA))
    for number in range(4):
        path = cache.put(f"log/{number}", DATA)
        assert path is not None
        os.utime(path, (OLD_S + number, OLD_S + number))
    assert cache.read("log/0", len(DATA)) is not None  # used, so the next in age must go
    cache.put("log/4", DATA)
    there = [cache.read(f"log/{number}", len(DATA)) is not None for number in range(5)]
    assert there == [True, False, False, True, True]


def test_full_cache_keeps_what_is_in_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path, lake="lake", limit_bytes=1)
    for number in range(3):
        cache.put(f"log/{number}", DATA)
    assert len(files(cache)) == 3


def test_cache_that_cannot_be_written_keeps_nothing_and_does_not_raise(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    cache = Cache(tmp_path / "file", lake="lake", limit_bytes=1 << 20)
    assert cache.put("log/a", DATA) is None
    cache.put_tail("log/a", DATA)
    assert cache.read_tail("log/a") is None


def test_cache_of_a_far_lake_lies_where_the_settings_say(tmp_path: Path) -> None:
    cache = open_cache(Settings(cache=str(tmp_path)), lake="lake", in_memory=False)
    assert cache.folder == tmp_path / "lake"


def test_cache_of_a_lake_in_memory_lies_in_a_folder_of_this_process(tmp_path: Path) -> None:
    settings = Settings(cache=str(tmp_path))
    one, other = (open_cache(settings, lake=lake, in_memory=True) for lake in "ab")
    assert one.folder.parent == other.folder.parent
    assert tmp_path not in one.folder.parents
