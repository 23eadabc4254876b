from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from runlake import ids
from runlake.errors import StorageError
from runlake.storage.fs import Range
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.testing.filesystems import (
    Call,
    CountingFilesystem,
    CrashAt,
    FaultyFilesystem,
    SimulatedCrash,
    SlowFilesystem,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runlake.storage.fs import Filesystem


@pytest.fixture
def inner() -> MemoryFilesystem:
    return MemoryFilesystem(ids.new_nonce())


def failed(call: Callable[[], object]) -> bool:
    """Tell whether a call was made to fail."""
    try:
        call()
    except StorageError:
        return True
    return False


def test_counting_counts_what_a_far_store_is_asked(inner: Filesystem, tmp_path: Path) -> None:
    lake = CountingFilesystem(inner)
    (tmp_path / "f").write_bytes(b"x")
    steps: list[tuple[Callable[[], object], dict[str, int]]] = [
        (lambda: lake.put("a", b"x"), {"PUT": 1}),
        (lambda: lake.put_absent("b", b"x"), {"PUT": 1}),
        (lambda: lake.put_absent("b", b"y"), {"PUT": 1, "GET": 1}),
        (lambda: lake.get("a"), {"GET": 1}),
        (lambda: lake.get_ranges([Range("a", 0, 1)] * 7), {"GET": 7}),
        (lambda: lake.list(""), {"LIST": 1}),
        (lambda: lake.list("nothing"), {"LIST": 1}),
        (lambda: lake.upload("f", tmp_path / "f"), {"PUT": 1}),
        (lambda: lake.download("f", tmp_path / "g"), {"LIST": 1, "GET": 1}),
        (lambda: lake.copy("a", "c"), {"LIST": 1, "COPY": 1}),
        (lambda: lake.delete_many(f"{n}" for n in range(1001)), {"DELETE": 2}),
        (lambda: lake.delete_many([]), {}),
        (lake.now_us, {}),
        (lake.probe, {"PUT": 2, "GET": 1, "DELETE": 1}),
    ]
    for action, requests in steps:
        lake.reset()
        action()
        assert {verb: count for verb, count in lake.requests.items() if count} == requests
        assert lake.total == sum(requests.values())
    assert lake.conditional_create is True
    assert lake.calls == [Call("probe", ())]


def test_counting_counts_a_page_for_each_thousand_keys(inner: Filesystem) -> None:
    for number in range(1001):
        inner.put(f"log/{number}", b"x")
    lake = CountingFilesystem(inner)
    lake.list("log/")
    assert lake.requests == {"LIST": 2}


def test_counting_counts_calls_that_fail(inner: Filesystem) -> None:
    lake = CountingFilesystem(inner)
    with pytest.raises(FileNotFoundError):
        lake.get("missing")
    assert lake.requests == {"GET": 1}
    assert lake.calls == [Call("get", ("missing",))]


def test_slow_waits_one_latency_for_each_round_trip(inner: Filesystem) -> None:
    waited: list[float] = []
    lake = SlowFilesystem(inner, latency_s=0.05, bytes_s=math.inf, parallel=10, sleep=waited.append)
    for number in range(1001):
        inner.put(f"log/{number}", b"x")
    lake.put("a", b"x")
    lake.get_ranges([Range("a", 0, 1)] * 10)
    lake.get_ranges([Range("a", 0, 1)] * 11)
    lake.get_ranges([])
    lake.list("log/")
    lake.put_absent("a", b"y")
    lake.now_us()
    assert waited == pytest.approx([0.05, 0.05, 0.1, 0.1, 0.1])
    assert lake.waited_s == pytest.approx(0.4)


def test_slow_waits_for_the_bytes_on_the_line(inner: Filesystem, tmp_path: Path) -> None:
    lake = SlowFilesystem(inner, latency_s=0.0, bytes_s=1000)
    file = tmp_path / "file"
    file.write_bytes(bytes(300))
    calls: list[tuple[Callable[[], object], float]] = [
        (lambda: lake.put("a", bytes(500)), 0.5),
        (lambda: lake.put_absent("b", bytes(200)), 0.2),
        (lambda: lake.upload("c", file), 0.3),
        (lambda: lake.get("a"), 0.5),
        (lambda: lake.get_ranges([Range("a", 0, 100), Range("b", 0, 50)]), 0.15),
        (lambda: lake.download("c", tmp_path / "new"), 0.3),
        (lambda: lake.copy("a", "d"), 0.0),
        (lambda: lake.list(""), 0.0),
    ]
    for call, seconds in calls:
        before = lake.waited_s
        call()
        assert lake.waited_s - before == pytest.approx(seconds)


def test_slow_is_far_away_whatever_it_wraps(tmp_path: Path) -> None:
    lake = SlowFilesystem(LocalFilesystem(tmp_path))
    assert not lake.is_local
    lake.put("a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    assert failed(lambda: lake.local_file("a"))


def test_faulty_before_the_effect_changes_nothing(inner: Filesystem) -> None:
    lake = FaultyFilesystem(inner, seed=1, before=1.0)
    with pytest.raises(StorageError, match="before its effect"):
        lake.put("a", b"x")
    assert inner.list("") == []


def test_faulty_after_the_effect_has_changed_the_store(inner: Filesystem) -> None:
    lake = FaultyFilesystem(inner, seed=1, after=1.0)
    with pytest.raises(StorageError, match="after its effect"):
        lake.put_absent("a", b"x")
    assert inner.get("a") == b"x"


def test_faulty_fails_equally_for_equal_seeds(inner: Filesystem) -> None:
    def story(seed: int) -> list[bool]:
        lake = FaultyFilesystem(inner, seed=seed, before=0.2, after=0.2)
        return [failed(lambda: lake.put("a", b"x")) for _ in range(200)]

    assert story(1) == story(1)
    assert story(1) != story(2)
    assert 40 < sum(story(1)) < 110


def test_faulty_is_down_until_it_is_up(inner: Filesystem) -> None:
    lake = FaultyFilesystem(inner, seed=1)
    lake.is_down = True
    assert failed(lambda: lake.put("a", b"x"))
    assert failed(lambda: lake.list(""))
    lake.is_down = False
    assert lake.list("") == []


def test_faulty_listing_shows_each_page_as_the_store_then_is(inner: Filesystem) -> None:
    lake = FaultyFilesystem(inner, seed=1)
    for key in ("b", "c", "d"):
        inner.put(key, b"x")
    lake.page = 2

    def meanwhile() -> None:
        inner.delete_many(["d", "b"])
        inner.put("a", b"behind the cursor")
        inner.put("e", b"ahead of it")

    lake.between_pages = meanwhile
    assert [entry.key for entry in lake.list("")] == ["b", "c", "e"]
    lake.page = None
    assert [entry.key for entry in lake.list("")] == ["a", "c", "e"]


@pytest.mark.parametrize("with_effect", [False, True])
def test_crash_dies_at_its_call_and_stays_dead(inner: Filesystem, *, with_effect: bool) -> None:
    lake = CrashAt(inner, at=2, with_effect=with_effect)
    lake.put("a", b"x")
    with pytest.raises(SimulatedCrash, match="call 2"):
        lake.put("b", b"x")
    with pytest.raises(SimulatedCrash):
        lake.put("c", b"x")
    assert [entry.key for entry in inner.list("")] == (["a", "b"] if with_effect else ["a"])


def test_crash_without_a_call_counts_the_points_to_die_at(inner: Filesystem) -> None:
    lake = CrashAt(inner, at=None)
    lake.put("a", b"x")
    lake.get("a")
    lake.list("")
    assert lake.calls == 3
    assert not issubclass(SimulatedCrash, Exception)


def test_wrappers_of_wrappers_show_the_inner_filesystem(inner: Filesystem, tmp_path: Path) -> None:
    lake = CountingFilesystem(FaultyFilesystem(inner, seed=1))
    assert (lake.url, lake.is_local) == (inner.url, False)
    with pytest.raises(StorageError, match="in memory"):
        lake.local_file("a")
    lake.put("a", b"data")
    lake.download("a", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"data"
