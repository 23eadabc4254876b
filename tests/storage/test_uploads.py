"""Large files on their way into far stores: in parts, bounded, gone on with, and never mixed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.errors import StorageError
from runlake.storage import large, source
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.storage.source import FileChangedError, Watch
from tests.emulators.proxy import Fault
from tests.emulators.waiting import wait_until

if TYPE_CHECKING:
    import io
    from pathlib import Path

    from runlake.storage.fs import Filesystem
    from runlake.storage.source import Data
    from tests.emulators.fixtures import Cloud

PART = 5 << 20
PART_IN_ORDER = 16 << 20
SIZE = 7 * PART + 12_345
GONE = b"<Error><Code>NoSuchUpload</Code><Message>It is gone.</Message></Error>"
# Which requests carry parts.
PARTS = {"s3": ("PUT", "partNumber"), "az": ("PUT", "comp=block&"), "gs": ("PUT", "/resumable/")}


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """A file of eight parts, the last of them short; of three where they go in order."""
    return written(tmp_path / "big.bin")


def written(file: Path, *, seed: int = 1, size: int = SIZE) -> Path:
    file.write_bytes(random.Random(seed).randbytes(size))  # noqa: S311 - repeatable
    return file


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def stop_after(cloud: Cloud, parts: int) -> Fault:
    """Return the fault that refuses every part but the first ones."""
    method, path = PARTS[cloud.scheme]
    part = PART
    if cloud.scheme == "gs":
        parts, part = 1, PART_IN_ORDER
    enough = cloud.proxy.sent_bytes + parts * part

    def wait() -> None:
        wait_until(lambda: cloud.proxy.sent_bytes >= enough, seconds=30)

    return Fault(method, times=10_000, status=403, after=parts, path=path, deed=wait)


def test_a_large_file_arrives_whole_and_is_hashed_on_the_way(
    filesystem: Filesystem, big: Path
) -> None:
    steps: list[int] = []
    watch = Watch(steps.append)
    filesystem.upload("artifacts/0/r/big.bin", big, watch=watch)
    assert (watch.size_bytes, watch.sha256) == (SIZE, sha256(big))
    assert sum(steps) == SIZE
    assert watch.there_bytes == 0
    assert [entry.size_bytes for entry in filesystem.list("")] == [SIZE]
    assert hashlib.sha256(filesystem.get("artifacts/0/r/big.bin")).hexdigest() == watch.sha256
    assert filesystem.leftovers() == []


def test_an_interrupted_upload_sends_only_what_is_missing(
    filesystem: Filesystem, cloud: Cloud | None, big: Path
) -> None:
    if cloud is None:
        pytest.skip("a near upload begins anew")
    with cloud.proxy.fault(stop_after(cloud, 3)), pytest.raises(StorageError):
        filesystem.upload("artifacts/0/r/big.bin", big)
    assert filesystem.list("") == []
    before = cloud.proxy.sent_bytes, len(cloud.proxy.requests)
    watch = Watch()
    filesystem.upload("artifacts/0/r/big.bin", big, watch=watch)
    if cloud.scheme == "gs":
        assert watch.there_bytes == PART_IN_ORDER
        assert cloud.proxy.sent_bytes - before[0] < SIZE - watch.there_bytes + 100_000
    else:  # each part has an address; of the first three requests two may have been for one
        method, path = PARTS[cloud.scheme]
        asked = cloud.proxy.requests[before[1] :]
        sent = {part for verb, part in asked if verb == method and path in part}
        assert len(sent) in {8 - 3, 8 - 2, 8 - 1}
        assert watch.there_bytes == (8 - len(sent)) * PART
    assert watch.sha256 == sha256(big)
    assert hashlib.sha256(filesystem.get("artifacts/0/r/big.bin")).hexdigest() == watch.sha256


def test_parts_of_another_content_are_not_gone_on_with(
    filesystem: Filesystem, cloud: Cloud | None, big: Path
) -> None:
    if cloud is None:
        pytest.skip("a near upload begins anew")
    with cloud.proxy.fault(stop_after(cloud, 3)), pytest.raises(StorageError):
        filesystem.upload("artifacts/0/r/big.bin", big)
    written(big, seed=2)
    watch = Watch()
    filesystem.upload("artifacts/0/r/big.bin", big, watch=watch)
    assert watch.there_bytes == 0
    assert hashlib.sha256(filesystem.get("artifacts/0/r/big.bin")).hexdigest() == sha256(big)


def test_a_part_that_is_refused_for_a_moment_is_sent_again(
    filesystem: Filesystem, cloud: Cloud | None, big: Path
) -> None:
    if cloud is None:
        pytest.skip("near stores answer at once")
    method, path = PARTS[cloud.scheme]
    for status in (503, None):  # refused; or taken, and the answer lost
        with cloud.proxy.fault(Fault(method, times=2, status=status, after=1, path=path)) as busy:
            filesystem.upload("artifacts/0/r/big.bin", big)
        assert busy.times == 0
        found = hashlib.sha256(filesystem.get("artifacts/0/r/big.bin")).hexdigest()
        assert found == sha256(big)


def test_an_upload_whose_parts_were_swept_begins_anew(
    filesystem: Filesystem, cloud: Cloud | None, big: Path
) -> None:
    if cloud is None or cloud.scheme != "s3":
        pytest.skip("only S3 keeps uploads that have not ended")
    watch = Watch()
    # What S3 says of a part, and of the end of an upload, that another has swept.
    for seed, method in enumerate(("PUT", "POST")):
        written(big, seed=seed)
        before = cloud.proxy.sent_bytes
        gone = Fault(method, times=1, status=404, body=GONE, path="uploadId=")
        with cloud.proxy.fault(gone):
            filesystem.upload("artifacts/0/r/big.bin", big, watch=watch)
        assert gone.times == 0
        assert cloud.proxy.sent_bytes - before >= SIZE
        assert (watch.size_bytes, watch.sha256) == (SIZE, sha256(big))
        assert hashlib.sha256(filesystem.get("artifacts/0/r/big.bin")).hexdigest() == watch.sha256
    filesystem.sweep(filesystem.leftovers())


def test_an_upload_that_ended_without_an_answer_is_not_sent_again(
    filesystem: Filesystem, cloud: Cloud | None, big: Path
) -> None:
    if cloud is None or cloud.scheme != "s3":
        pytest.skip("only S3 keeps uploads that have not ended")
    before, watch = cloud.proxy.sent_bytes, Watch()
    lost = Fault("POST", times=1, status=None, path="uploadId=")
    # The upload is gone for whoever asks again.
    gone = Fault("POST", times=1, status=404, body=GONE, after=1, path="uploadId=")
    with cloud.proxy.fault(gone), cloud.proxy.fault(lost):
        filesystem.upload("artifacts/0/r/big.bin", big, watch=watch)
    assert (lost.times, gone.times) == (0, 0)
    assert cloud.proxy.sent_bytes - before < SIZE + 100_000
    assert watch.sha256 == sha256(big)
    assert hashlib.sha256(filesystem.get("artifacts/0/r/big.bin")).hexdigest() == watch.sha256


def test_what_an_upload_left_is_told_and_swept(
    filesystem: Filesystem, cloud: Cloud | None, big: Path
) -> None:
    if cloud is None or cloud.scheme != "s3":
        pytest.skip("only S3 keeps uploads that have not ended")
    with cloud.proxy.fault(stop_after(cloud, 3)), pytest.raises(StorageError):
        filesystem.upload("artifacts/0/r/big.bin", big)
    (left,) = filesystem.leftovers()
    assert left.key == "artifacts/0/r/big.bin"
    assert left.size_bytes >= 2 * PART
    assert abs(left.time_us - filesystem.now_us()) < 60_000_000
    filesystem.sweep([left])
    filesystem.sweep([left])
    assert filesystem.leftovers() == []


def test_an_upload_works_where_nobody_may_ask_for_uploads(
    filesystem: Filesystem, cloud: Cloud | None, big: Path
) -> None:
    if cloud is None or cloud.scheme != "s3":
        pytest.skip("only S3 is asked")
    for status in (403, 501):
        with cloud.proxy.fault(Fault("GET", times=1, status=status, path="uploads")) as refusal:
            filesystem.upload("artifacts/0/r/big.bin", big)
        assert refusal.times == 0
    assert filesystem.list("")[0].size_bytes == SIZE


def test_a_file_that_changes_while_it_is_sent_is_noticed(filesystem: Filesystem, big: Path) -> None:
    filesystem.put("artifacts/0/r/big.bin", b"before")

    class Meddler(Watch):
        """Writes to the file when the first of it is read."""

        def read(self, data: Data) -> None:
            if not self.size_bytes:
                with big.open("r+b") as file:
                    file.seek(0, 2)
                    file.write(b"more")
            super().read(data)

    with pytest.raises(FileChangedError, match="written to while it was uploaded"):
        filesystem.upload("artifacts/0/r/big.bin", big, watch=Meddler())
    assert filesystem.get("artifacts/0/r/big.bin") == b"before"


@pytest.mark.parametrize("shrink", [True, False])
def test_a_file_that_shrinks_or_is_rewritten_is_noticed(tmp_path: Path, shrink: bool) -> None:  # noqa: FBT001 - a case
    file = written(tmp_path / "f", size=3 << 20)

    class Meddler(Watch):
        """Writes to the file when some of it is read."""

        def read(self, data: Data) -> None:
            if shrink:
                os.truncate(file, 1000)
            else:
                written(file, seed=7, size=3 << 20)
            super().read(data)

    for fs in (LocalFilesystem(tmp_path / "lake"), MemoryFilesystem("changing")):
        written(file, size=3 << 20)
        with pytest.raises(FileChangedError):
            fs.upload("a", file, watch=Meddler())
        assert fs.list("") == []


def test_hidden_files_of_dead_writers_are_told_and_swept(tmp_path: Path) -> None:
    fs = LocalFilesystem(tmp_path / "lake")
    fs.put("artifacts/0/r/a", b"x")
    (tmp_path / "lake/artifacts/0/r/.tmp-dead").write_bytes(b"half")
    (left,) = fs.leftovers()
    assert (left.key, left.size_bytes) == ("artifacts/0/r/.tmp-dead", 4)
    fs.sweep([left])
    fs.sweep([left])
    assert fs.leftovers() == []
    assert [entry.key for entry in fs.list("")] == ["artifacts/0/r/a"]


@given(size=st.integers(0, 300), chunk=st.integers(7, 90), buffers=st.integers(1, 5))
def test_pieces_are_hashed_as_they_were_however_late(
    size: int, chunk: int, buffers: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = written(tmp_path_factory.getbasetemp() / "pieces", size=size)
    hashed: list[bytes] = []
    given_, at_work = 0, threading.Event()

    def take(data: Data) -> None:
        at_work.wait(60)  # until there is no memory left, or nothing more to be read
        hashed.append(bytes(data))

    with (
        pytest.MonkeyPatch.context() as patch,
        file.open("rb", buffering=0) as opened,
        source.Hasher(take) as hasher,
    ):
        patch.setattr(source, "_CHUNK_BYTES", chunk)
        patch.setattr(source, "_BUFFERS", buffers)
        worked: list[bytes] = []
        for piece in hasher.pieces(lambda memory: assert_filled(opened, memory), size):
            worked.append(bytes(piece))
            given_ += 1
            if given_ == buffers or sum(map(len, worked)) == size:
                at_work.set()
    assert b"".join(hashed) == b"".join(worked) == file.read_bytes()


def test_a_failure_of_the_hash_reaches_who_feeds_it() -> None:
    def fail(data: Data) -> None:
        raise OSError(f"{len(data)} bytes")

    with source.Hasher(fail) as hasher:
        hasher.feed(b"abc")
        with pytest.raises(OSError, match="3 bytes"):
            hasher.settle()


def assert_filled(file: io.RawIOBase, memory: memoryview) -> None:
    assert source.fill(file, memory)


@given(size=st.integers(1, 6 << 40), is_in_order=st.booleans())
def test_parts_of_a_file_are_never_too_many_for_any_store(size: int, *, is_in_order: bool) -> None:
    part = large.part_bytes(size, is_in_order=is_in_order)
    assert part >= (PART_IN_ORDER if is_in_order else PART)
    assert -(-size // part) <= 10_000
    assert part % (256 << 10) == 0  # Google's parts end there


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=30),
    cancelled=st.sets(st.integers(0, 29)),
)
def test_a_budget_is_never_exceeded_and_serves_everybody(
    counts: list[int], cancelled: set[int]
) -> None:
    async def work() -> None:
        budget = large.Budget(20)
        held = 0
        served: list[int] = []

        async def one(number: int, count: int) -> None:
            nonlocal held
            await budget.take(count)
            try:
                held += count
                assert held <= 20 or held == count
                served.append(number)
                await asyncio.sleep(0)
                held -= count
            finally:
                budget.give(count)

        tasks = [asyncio.create_task(one(*each)) for each in enumerate(counts)]
        await asyncio.sleep(0)
        away = {number for number in cancelled if number < len(tasks) and number not in served}
        for number in away:
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert set(served) | away == set(range(len(counts)))
        await asyncio.wait_for(budget.take(20), 1)

    asyncio.run(work())
