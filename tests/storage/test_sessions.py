"""Resumable uploads of Google Cloud Storage: gone on with by the next, and only with the same."""

from __future__ import annotations

import hashlib
import logging
import random
from concurrent.futures import ThreadPoolExecutor
from mmap import mmap
from typing import TYPE_CHECKING, NamedTuple

import pytest

from runlake.errors import StorageError
from runlake.settings import resolve
from runlake.storage.fs import open_filesystem
from runlake.storage.objectsession import GcsLarge
from runlake.storage.source import Watch
from tests.emulators.gcs import Gcs
from tests.emulators.proxy import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.storage.fs import Filesystem
    from runlake.storage.source import Source
    from tests.emulators.fixtures import Cloud

pytestmark = pytest.mark.filesystems("gcs")

GRAIN = 256 << 10
PART = 16 << 20
SIZE = PART + 10 * GRAIN + 99
KEY = "artifacts/0/r/big.bin"
NOTHING = 1000


class Store(NamedTuple):
    """The store of one test, and what stands behind it."""

    fs: Filesystem
    cloud: Cloud
    server: Gcs
    trackers: Path

    def sent(self, file: Path, watch: Watch | None = None) -> int:
        """Upload a file, look whether it arrived, and return the bytes that went over the line."""
        before = self.cloud.proxy.sent_bytes
        self.fs.upload(KEY, file, watch=watch)
        sent = self.cloud.proxy.sent_bytes - before
        assert self.fs.get(KEY) == file.read_bytes()
        assert list(self.trackers.iterdir()) == []
        return sent


@pytest.fixture
def store(
    filesystem: Filesystem, cloud: Cloud | None, tmp_path: Path, request: pytest.FixtureRequest
) -> Store:
    """A store that nothing was sent to."""
    if cloud is None or cloud.scheme != "gs":
        pytest.skip("only Google's uploads have a secret address")
    server: Gcs = request.getfixturevalue("gcs_server")
    server.uploads.clear()
    server.keeps, server.hesitates = None, 0
    return Store(filesystem, cloud, server, tmp_path / "state/uploads")


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of two parts."""
    return written(tmp_path / "big.bin", seed=1)


def written(file: Path, *, seed: int) -> Path:
    file.write_bytes(random.Random(seed).randbytes(SIZE))  # noqa: S311 - repeatable
    return file


def refused(*, after: int, status: int = 403) -> Fault:
    """Return the fault that refuses what follows the first requests to an upload."""
    return Fault("PUT", times=1000, status=status, after=after, path="/resumable/")


def interrupt(store: Store, file: Path, *, after: int = 1) -> None:
    """Upload a file until some requests were answered."""
    with store.cloud.proxy.fault(refused(after=after)), pytest.raises(StorageError):
        store.fs.upload(KEY, file)
    assert len(list(store.trackers.iterdir())) == 1


def lose_end(store: Store, file: Path) -> None:
    """Upload a file; the object appears, and nobody is told."""
    lost = Fault("PUT", times=1, status=None, after=1, path="/resumable/")
    with store.cloud.proxy.fault(refused(after=2)), store.cloud.proxy.fault(lost):
        with pytest.raises(StorageError):
            store.fs.upload(KEY, file)
        assert store.fs.get(KEY) == file.read_bytes()


def test_an_upload_that_expired_begins_anew(store: Store, big: Path) -> None:
    interrupt(store, big)
    store.server.uploads.clear()
    before = len(store.cloud.proxy.requests)
    assert store.sent(big) >= SIZE
    assert store.cloud.proxy.counted(before)["PUT"] == 3  # a question, and two parts
    for status in (410, 403, 400):  # it has expired; nobody may, or can, ask
        interrupt(store, big)
        with store.cloud.proxy.fault(Fault("PUT", times=1, status=status, path="/resumable/")):
            assert store.sent(big) >= SIZE


def test_an_upload_that_expires_on_the_way_begins_anew(store: Store, big: Path) -> None:
    for status in (404, 410):
        with store.cloud.proxy.fault(
            Fault("PUT", times=1, status=status, after=1, path="/resumable/")
        ):
            assert store.sent(big) >= SIZE + PART


def test_an_upload_goes_on_in_the_middle_of_a_part(store: Store, big: Path) -> None:
    store.server.keeps = 5 * GRAIN
    interrupt(store, big)
    watch = Watch()
    assert store.sent(big, watch) < SIZE - 5 * GRAIN + NOTHING
    assert watch.sha256 == hashlib.sha256(big.read_bytes()).hexdigest()
    assert watch.size_bytes == SIZE


def test_a_store_that_kept_less_than_it_was_sent_gets_the_rest(store: Store, big: Path) -> None:
    store.server.keeps = 7 * GRAIN
    assert store.sent(big) < SIZE + PART - 7 * GRAIN + NOTHING
    store.server.keeps = 0  # answered without a range
    assert store.sent(big) < SIZE + PART + NOTHING
    assert len(store.server.uploads) == 2  # none of them anew


def test_a_store_that_has_all_and_is_not_done_is_asked_again(store: Store, big: Path) -> None:
    store.server.hesitates = 3
    assert store.sent(big) < SIZE + 4 * GRAIN


def test_a_store_that_never_gets_done_is_not_asked_all_the_time(store: Store, big: Path) -> None:
    store.fs._timeout_s = 0.5  # type: ignore[attr-defined]
    store.server.hesitates = 100_000
    with big.open("r+b") as file:
        file.truncate(PART + 99)
    before = len(store.cloud.proxy.requests)
    with pytest.raises(StorageError, match="took nothing"):
        store.fs.upload(KEY, big)
    store.server.hesitates = 0
    assert store.cloud.proxy.counted(before)["PUT"] < 20
    assert store.sent(big) < NOTHING


def test_an_upload_of_which_the_store_lost_a_part_begins_anew(store: Store, big: Path) -> None:
    def lose() -> None:
        for upload in store.server.uploads.values():
            del upload.data[GRAIN:]

    lost = Fault("PUT", times=1, status=503, after=1, path="/resumable/", deed=lose)
    with store.cloud.proxy.fault(lost):
        assert store.sent(big) < SIZE + PART + NOTHING


def test_an_upload_to_a_store_that_stands_in_for_another_is_not_gone_on_with_there(
    store: Store, big: Path
) -> None:
    interrupt(store, big)
    other = Gcs()
    other.buckets["lake-bucket"] = {}
    options = dict(store.cloud.storage_options) | {"endpoint_url": f"http://{other.host}"}
    fs = open_filesystem(store.fs.url, storage_options=options, settings=resolve()[0])
    watch = Watch()
    fs.upload(KEY, big, watch=watch)
    assert watch.there_bytes == 0
    assert fs.get(KEY) == big.read_bytes()
    assert store.fs.list("") == []
    other.stop()
    assert store.sent(big) < SIZE


def test_a_part_that_was_cut_off_is_not_gone_on_with_by_another_content(
    store: Store, big: Path
) -> None:
    for kept in (5 * GRAIN, 0, None):
        store.server.keeps = kept
        written(big, seed=1)
        interrupt(store, big)
        data = bytearray(big.read_bytes())
        data[PART - 1] ^= 1  # behind what was kept
        big.write_bytes(data)
        watch = Watch()
        assert store.sent(big, watch) >= SIZE
        assert watch.there_bytes == 0


def test_a_later_part_of_another_content_begins_anew(store: Store, big: Path) -> None:
    lose_end(store, big)
    data = bytearray(big.read_bytes())
    data[-1] ^= 1
    big.write_bytes(data)
    watch = Watch()
    assert store.sent(big, watch) >= SIZE
    assert watch.there_bytes == 0


def test_bytes_of_which_nothing_is_known_are_not_gone_on_with(store: Store, big: Path) -> None:
    interrupt(store, big)
    (tracker,) = store.trackers.iterdir()
    with tracker.open("r+b") as file:
        file.truncate(len(file.readline()))
    assert store.sent(big) >= SIZE


def test_a_complete_upload_whose_answer_was_lost_is_not_sent_twice(store: Store, big: Path) -> None:
    lose_end(store, big)
    watch = Watch()
    assert store.sent(big, watch) < NOTHING
    assert watch.there_bytes == SIZE


def test_a_complete_upload_whose_object_is_another_or_gone_is_sent_again(
    store: Store, big: Path
) -> None:
    lose_end(store, big)
    store.fs.put(KEY, b"another")
    assert store.sent(big) >= SIZE
    lose_end(store, big)
    store.fs.delete_many([KEY])
    assert store.sent(big) >= SIZE


def test_two_uploads_of_one_key_at_once_leave_one_of_both(
    store: Store, big: Path, tmp_path: Path
) -> None:
    other = written(tmp_path / "other.bin", seed=2)
    interrupt(store, big)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda file: store.fs.upload(KEY, file), [big, other]))
    assert store.fs.get(KEY) in {big.read_bytes(), other.read_bytes()}
    assert list(store.trackers.iterdir()) == []


def test_the_address_of_an_upload_is_told_to_nobody(
    store: Store, big: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fault = refused(after=1)
    with store.cloud.proxy.fault(fault), pytest.raises(StorageError, match="answered 403") as told:
        store.fs.upload(KEY, big)
    (tracker,) = store.trackers.iterdir()
    assert "/resumable/" in tracker.read_text()
    assert tracker.stat().st_mode & 0o777 == 0o600
    causes = [str(told.value), str(told.value.__cause__)]
    assert "resumable/" not in "".join([*causes, caplog.text])
    assert store.sent(big) < SIZE


def test_an_upload_goes_on_where_the_line_broke_in_the_same_process(
    store: Store, big: Path
) -> None:
    store.server.keeps = 9 * GRAIN
    lost = Fault("PUT", times=1, status=None, path="/resumable/")
    with store.cloud.proxy.fault(lost):
        assert store.sent(big) < SIZE + PART - 9 * GRAIN + NOTHING


def test_each_part_gives_its_memory_back_when_it_has_arrived(
    store: Store, big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, parts, held = GcsLarge.hold, list[mmap](), list[int]()

    def hold(large: GcsLarge, source: Source, count: int) -> mmap:
        held.append(sum(not part.closed for part in parts))
        parts.append(real(large, source, count))
        return parts[-1]

    monkeypatch.setattr(GcsLarge, "hold", hold)
    with big.open("ab") as file:
        file.truncate(4 * PART)
    store.sent(big)
    assert [part.closed for part in parts] == [True] * 4
    assert max(held) == 1


def test_an_upload_works_where_nothing_can_be_kept(store: Store, big: Path) -> None:
    store.trackers.parent.mkdir(parents=True, exist_ok=True)
    store.trackers.write_bytes(b"no folder")
    with store.cloud.proxy.fault(refused(after=1)), pytest.raises(StorageError):
        store.fs.upload(KEY, big)
    store.fs.upload(KEY, big)
    assert store.fs.get(KEY) == big.read_bytes()
    assert store.trackers.read_bytes() == b"no folder"
