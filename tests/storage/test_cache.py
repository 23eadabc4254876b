from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from runlake.settings import Settings
from runlake.storage.cache import Cache, open_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DATA = b"PAR1" + bytes(range(100)) + b"PAR1"
SUM_BYTES = 4
OLD_S = 1_000_000_000


def read_file(cache: Cache) -> bytes | None:
    """Read a whole object as DuckDB does, from the file that the cache names."""
    path = cache.file("log/a", len(DATA))
    return None if path is None else path.read_bytes()


def fill(cache: Cache) -> None:
    with cache.filling("log/a") as filling:
        filling.write(DATA[:50])
        filling.write(DATA[50:])


# How an entry comes into the cache, and how it is read.
KINDS: list[tuple[Callable[[Cache], object], Callable[[Cache], bytes | None]]] = [
    (lambda cache: cache.put("log/a", DATA), lambda cache: cache.read("log/a", len(DATA))),
    (lambda cache: cache.put("log/a", DATA), read_file),
    (fill, lambda cache: cache.read("log/a", len(DATA))),
    (fill, read_file),
    (lambda cache: cache.put_tail("log/a", DATA), lambda cache: cache.read_tail("log/a")),
    (
        lambda cache: cache.put_part("log/a", 7, DATA),
        lambda cache: cache.read_part("log/a", 7, 7 + len(DATA)),
    ),
]
each_kind = pytest.mark.parametrize(
    ("keep", "read"), KINDS, ids=["put-read", "put-file", "fill-read", "fill-file", "tail", "part"]
)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return again(tmp_path)


def again(folder: Path, *, limit_bytes: int = 1 << 20) -> Cache:
    """Return the cache as another process opens it."""
    return Cache(folder / "cache", lake="lake", limit_bytes=limit_bytes)


def files(cache: Cache) -> list[Path]:
    return sorted(file for file in cache.folder.rglob("*") if file.is_file())


def entries(cache: Cache) -> list[Path]:
    """Return the files of a cache; a second name is not one more."""
    return [file for file in files(cache) if file.suffix != ".sum"]


def size_of(cache: Cache) -> int:
    return sum(file.stat().st_size for file in entries(cache))


@each_kind
def test_entry_is_read_back_by_its_key(
    cache: Cache,
    keep: Callable[[Cache], object],
    read: Callable[[Cache], bytes | None],
    tmp_path: Path,
) -> None:
    assert read(cache) is None
    keep(cache)
    keep(cache)  # as another process may at the same time
    assert (read(cache), read(again(tmp_path))) == (DATA, DATA)
    assert read(Cache(tmp_path / "cache", lake="other", limit_bytes=1 << 20)) is None


def test_entry_stands_for_its_own_key_and_range_only(cache: Cache) -> None:
    cache.put("log/a", DATA)
    cache.put_part("log/a", 0, DATA)
    assert cache.read("log/b", len(DATA)) is None
    assert cache.read_tail("log/a") is None
    assert cache.read_part("log/a", 0, len(DATA) - 1) is None
    assert cache.read_part("log/a", 1, len(DATA) + 1) is None
    cache.put_part("log/b", 0, DATA)
    one, other = (file for file in files(cache) if file.suffix == ".part")
    one.replace(other)
    assert cache.read_part("log/a", 0, len(DATA)) is None
    assert cache.read_part("log/b", 0, len(DATA)) is None


@each_kind
def test_flipped_byte_anywhere_is_noticed_and_the_entry_goes(
    cache: Cache,
    keep: Callable[[Cache], object],
    read: Callable[[Cache], bytes | None],
    tmp_path: Path,
) -> None:
    keep(cache)
    (file,) = entries(cache)
    for place in range(file.stat().st_size):
        keep(cache)
        data = bytearray(file.read_bytes())
        data[place] ^= 1 << place % 8
        file.write_bytes(data)
        assert read(again(tmp_path)) is None
        assert entries(cache) == []
    keep(cache)
    assert read(cache) == DATA


@each_kind
def test_cut_or_emptied_file_is_never_trusted(
    cache: Cache,
    keep: Callable[[Cache], object],
    read: Callable[[Cache], bytes | None],
    tmp_path: Path,
) -> None:
    keep(cache)
    (file,) = entries(cache)
    whole = file.read_bytes()
    for content in (b"", whole[: len(whole) // 2], bytes(SUM_BYTES), bytes(len(whole))):
        keep(cache)
        file.write_bytes(content)
        assert read(again(tmp_path)) is None
    for file in files(cache):
        keep(cache)
        file.unlink()
        assert read(again(tmp_path)) is None


def test_file_is_checked_once_by_a_process_and_again_when_it_was_written(
    cache: Cache, tmp_path: Path
) -> None:
    path = cache.put("log/a", DATA)
    assert path is not None
    assert read_file(cache) == DATA
    (second,) = path.parent.glob("*.sum")
    second.unlink()
    assert read_file(cache) == DATA
    assert read_file(again(tmp_path)) is None
    cache.put("log/a", DATA)
    assert read_file(cache) == DATA
    path.write_bytes(DATA[:-5] + b"!" + DATA[-4:])
    assert read_file(cache) is None


def test_object_of_another_size_than_listed_is_not_trusted(cache: Cache) -> None:
    cache.put("log/a", DATA)
    assert cache.file("log/a", len(DATA) + 1) is None
    cache.put("log/a", DATA)
    assert cache.read("log/a", len(DATA) - 1) is None


def test_object_that_was_dropped_and_comes_again_takes_its_room_once(cache: Cache) -> None:
    for _ in range(3):
        cache.put("log/a", DATA)
        cache.drop("log/a")
    cache.put("log/a", DATA)
    assert {file.stat().st_ino for file in files(cache)} == {files(cache)[0].stat().st_ino}


def test_disk_without_links_keeps_whole_objects_all_the_same(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = cache.put("log/a", DATA)
    assert path is not None
    assert read_file(again(tmp_path)) == DATA
    path.write_bytes(DATA[::-1])
    assert read_file(again(tmp_path)) is None


def test_filled_file_appears_only_if_the_block_ends_well(cache: Cache) -> None:
    with suppress(ZeroDivisionError), cache.filling("log/a") as filling:
        filling.write(DATA)
        raise ZeroDivisionError
    assert (files(cache), filling.path) == ([], None)
    with cache.filling("log/a") as filling:
        filling.write(DATA)
    assert filling.path == cache.file("log/a", len(DATA))


# --- size ---


def test_full_cache_drops_what_was_not_used_for_longest(tmp_path: Path) -> None:
    cache = again(tmp_path)
    for number in range(4):
        assert cache.put(f"log/{number}", DATA) is not None
    cache.put_part("log/4", 0, DATA)
    for number in range(4):
        os.utime(cache._file(f"log/{number}"), (OLD_S + number, OLD_S + number))
    assert cache.read("log/0", len(DATA)) is not None  # used, so the next in age must go
    again(tmp_path, limit_bytes=5 * len(DATA) - 1).trim()
    there = [cache.read(f"log/{number}", len(DATA)) is not None for number in range(4)]
    assert there == [True, False, True, True]
    assert cache.read_part("log/4", 0, len(DATA)) == DATA


def test_full_cache_keeps_the_files_that_a_query_may_be_about_to_open(tmp_path: Path) -> None:
    cache = again(tmp_path, limit_bytes=1)
    for number in range(3):
        cache.put(f"log/{number}", DATA)
        cache.put_part(f"log/{number}", 0, DATA)
        cache.put_tail(f"log/{number}", DATA)
    cache.trim()
    assert sorted(file.suffix for file in files(cache)) == [".parquet"] * 3 + [".sum"] * 3


def test_cache_never_grows_much_beyond_its_limit(tmp_path: Path) -> None:
    limit = 100 * len(DATA)
    cache = again(tmp_path, limit_bytes=limit)
    for number in range(1000):
        cache.put_part(f"log/{number}", 0, DATA)
        if number % 10 == 0:
            assert size_of(cache) <= limit * 1.1
    assert size_of(cache) > limit / 2


def test_what_a_crash_left_half_written_goes_with_the_rest(tmp_path: Path) -> None:
    cache = again(tmp_path, limit_bytes=2 * len(DATA))
    cache.put("log/a", DATA)
    left = cache._file("log/a").with_name(".tmp-left")
    left.write_bytes(DATA * 3)
    os.utime(left, (OLD_S, OLD_S))
    cache.trim()
    assert not left.exists()
    assert cache.read("log/a", len(DATA)) == DATA


# --- many at once, full disks, no rights ---

_FILL_AND_READ = """
import random, sys
from pathlib import Path
from runlake.storage.cache import Cache

folder, seed, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache = Cache(folder, lake="lake", limit_bytes=limit)
draw = random.Random(seed)
hits = 0
for _ in range(1500):
    number = draw.randrange(300)
    key, data = f"log/{number}", bytes([number % 256]) * (1000 + number)
    verb = draw.choice(["whole", "tail", "part", "fill"])
    if verb == "whole":
        found = cache.read(key, len(data))
        keep = lambda: cache.put(key, data)
    elif verb == "fill":
        path = cache.file(key, len(data))
        found = path and path.read_bytes()
        def keep():
            with cache.filling(key) as filling:
                filling.write(data[:10])
                filling.write(data[10:])
    elif verb == "tail":
        found = cache.read_tail(key)
        keep = lambda: cache.put_tail(key, data)
    else:
        found = cache.read_part(key, 5, 5 + len(data))
        keep = lambda: cache.put_part(key, 5, data)
    if found is None:
        keep()
    else:
        hits += 1
        assert found == data, (key, verb)
print(hits)
"""


def test_processes_that_fill_and_trim_at_once_read_only_what_is_right(tmp_path: Path) -> None:
    limit = 600_000  # two thirds of what they would keep
    command = [sys.executable, "-c", _FILL_AND_READ, str(tmp_path / "cache")]
    running = [
        subprocess.Popen(
            [*command, str(seed), str(limit)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for seed in range(3)
    ]
    for process in running:
        said, complaint = process.communicate(timeout=50)
        assert (process.returncode, complaint) == (0, b"")
        assert int(said) > 0
    left = again(tmp_path)
    assert not [file for file in files(left) if file.name.startswith(".tmp-")]
    assert limit / 2 < size_of(left) <= limit * (1 + len(running) / 16)


def test_cache_that_cannot_be_written_keeps_nothing_and_does_not_raise(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"no folder")
    cache = again(tmp_path)
    for keep, read in KINDS:
        keep(cache)
        assert read(cache) is None
    assert cache.put("log/a", DATA) is None
    cache.drop("log/a")
    cache.trim()


_WRITE_TO_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from runlake.storage.cache import Cache

resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
cache = Cache(Path(sys.argv[1]), lake="lake", limit_bytes=1 << 20)
large = bytes(6000)
assert cache.put("log/a", large) is None
cache.put_tail("log/a", large)
cache.put_part("log/a", 0, large)
with cache.filling("log/b") as filling:
    for start in range(0, 6000, 100):
        filling.write(large[start:start + 100])
assert filling.path is None
assert cache.put("log/c", large[:4000]) is not None
assert cache.read("log/c", 4000) == large[:4000]
"""


def test_full_disk_keeps_what_fits_leaves_no_part_and_does_not_raise(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITE_TO_A_FULL_DISK, str(tmp_path / "cache")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    cache = again(tmp_path)
    assert [file.suffix for file in entries(cache)] == [".parquet"]
    assert cache.read("log/a", 6000) is None
    assert cache.read_tail("log/a") is None


@pytest.fixture
def read_only(cache: Cache) -> Iterator[Cache]:
    """A cache with one entry, in a folder that takes no more."""
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    cache.put("log/a", DATA)
    folders = [cache.folder, *(each for each in cache.folder.iterdir() if each.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    yield cache
    for folder in folders:
        folder.chmod(0o700)


def test_cache_that_may_only_be_read_is_read(read_only: Cache) -> None:
    assert read_only.read("log/a", len(DATA)) == DATA
    assert read_file(read_only) == DATA
    assert read_only.put("log/b", DATA) is None
    read_only.drop("log/a")
    read_only.trim()


# --- where it lies ---


def test_cache_of_a_far_lake_lies_where_the_settings_say(tmp_path: Path) -> None:
    cache = open_cache(Settings(cache=str(tmp_path)), lake="lake", in_memory=False)
    assert cache.folder == tmp_path / "lake"


def test_cache_of_a_lake_in_memory_lies_in_a_folder_of_this_process(tmp_path: Path) -> None:
    settings = Settings(cache=str(tmp_path))
    one, other = (open_cache(settings, lake=lake, in_memory=True) for lake in "ab")
    assert one.folder.parent == other.folder.parent
    assert tmp_path not in one.folder.parents
