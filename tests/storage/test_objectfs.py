"""What goes over the wire, and what happens when the wire is bad."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from runlake import ids
from runlake.errors import StorageError
from runlake.settings import Settings
from runlake.storage import ioloop
from runlake.storage.fs import Filesystem, Range, open_filesystem
from runlake.storage.objectstores import AzureFilesystem, S3Filesystem
from tests.emulators.proxy import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.emulators.fixtures import Cloud

PATIENT = Settings(request_timeout_s=30.0)
HASTY = Settings(request_timeout_s=1.5)


class Far(NamedTuple):
    """A fresh lake in a cloud."""

    cloud: Cloud
    url: str
    patient: Filesystem
    hasty: Filesystem

    @property
    def write(self) -> str:
        """The method of a write."""
        return "POST" if self.cloud.scheme == "gs" else "PUT"


@pytest.fixture(
    params=[
        pytest.param("s3", marks=pytest.mark.s3),
        pytest.param("gcs", marks=pytest.mark.gcs),
        pytest.param("azure", marks=pytest.mark.azure),
    ]
)
def far(request: pytest.FixtureRequest) -> Far:
    """A lake on each cloud that was asked for."""
    return make_far(request.getfixturevalue(f"{request.param}_cloud"))


@pytest.fixture
def s3(s3_cloud: Cloud) -> Far:
    """A lake on S3, for what only S3's library does."""
    return make_far(s3_cloud)


def make_far(cloud: Cloud) -> Far:
    url = f"{cloud.scheme}://lake-bucket/test-{ids.new_nonce()}"
    clients = [
        open_filesystem(url, storage_options=cloud.storage_options, settings=settings)
        for settings in (PATIENT, HASTY)
    ]
    clients[0].list("")  # connected, so that what a test counts is what it asked for
    return Far(cloud, url, *clients)


def asked(far: Far, action: object) -> dict[str, int]:
    """Return the requests that an action sends, by method."""
    before = len(far.cloud.proxy.requests)
    assert callable(action)
    action()
    return dict(far.cloud.proxy.counted(before))


def test_each_verb_sends_no_request_that_it_does_not_need(far: Far, tmp_path: Path) -> None:
    lake = far.patient
    ranges = [Range("a", 0, 2), Range("a", 2, 4), Range("b", 1, 3)]
    assert asked(far, lambda: lake.put("a", b"data")) == {far.write: 1}
    assert asked(far, lambda: lake.put_absent("b", b"data")) == {far.write: 1}
    assert asked(far, lambda: lake.put_absent("b", b"other")) == {far.write: 1, "GET": 1}
    assert asked(far, lambda: lake.get("a")) == {"GET": 1}
    assert asked(far, lambda: lake.get_ranges(ranges)) == {"GET": 3}
    assert asked(far, lambda: lake.list("")) == {"GET": 1}
    assert asked(far, lambda: lake.list("nothing/")) == {"GET": 1}
    assert asked(far, lake.now_us) == {}
    # Of Azure one must ask whether a copy is done.
    copied = {"s3": {"PUT": 1}, "gs": {"POST": 1}, "az": {"PUT": 1, "HEAD": 1}}[far.cloud.scheme]
    assert asked(far, lambda: lake.copy("a", "c")) == {"GET": 1, **copied}
    assert asked(far, lambda: lake.download("a", tmp_path / "a")) == {"GET": 2}
    assert asked(far, lambda: lake.upload("a", tmp_path / "a")) == {far.write: 1}
    deleted = {"POST": 1} if far.cloud.scheme == "s3" else {"DELETE": 3}
    assert asked(far, lambda: lake.delete_many(["a", "b", "c"])) == deleted


def test_now_asks_again_when_what_is_known_is_old(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.monotonic() + 61
    monkeypatch.setattr("runlake.clock.monotonic_s", lambda: later)
    monkeypatch.setattr("runlake.clock.now_us", lambda: 1)
    assert asked(far, far.patient.now_us) == {"GET": 1}
    assert asked(far, far.patient.now_us) == {}
    assert abs(far.patient.now_us() - time.time_ns() // 1000) < 5_000_000


def test_a_store_that_is_busy_is_asked_again(far: Far) -> None:
    began = time.monotonic()
    with far.cloud.proxy.fault(Fault(far.write, times=2, status=503)) as busy:
        far.patient.put("a", b"x")
        assert busy.times == 0
    with far.cloud.proxy.fault(Fault("GET", times=2, status=503)) as busy:
        assert far.patient.get("a") == b"x"
        assert busy.times == 0
    with far.cloud.proxy.fault(Fault("GET", times=1, status=None)) as lost:
        assert [entry.key for entry in far.patient.list("")] == ["a"]
        assert lost.times == 0
    # The first pause of Azure's own retry alone is longer, and has to be off.
    assert time.monotonic() - began < 15


def test_a_store_that_stays_busy_is_given_up_in_time(far: Far) -> None:
    far.patient.put("a", b"x")
    before = len(far.cloud.proxy.requests)
    with far.cloud.proxy.fault(Fault("GET", times=1000, status=503)):
        for operation, call in (
            ("read", lambda: far.hasty.get("a")),
            ("list", lambda: far.hasty.list("")),
        ):
            began = time.monotonic()
            with pytest.raises(StorageError, match=f"could not {operation} {far.url}"):
                call()
            assert time.monotonic() - began < 2 * HASTY.request_timeout_s
    assert far.cloud.proxy.counted(before)["GET"] > 2


def test_a_store_that_does_not_answer_is_given_up_in_time(far: Far) -> None:
    silent = threading.Barrier(1000)
    far.hasty.list("")
    far.cloud.proxy.meeting = silent
    try:
        began = time.monotonic()
        with pytest.raises(StorageError, match="could not read"):
            far.hasty.get("a")
        assert time.monotonic() - began < 2 * HASTY.request_timeout_s
    finally:
        far.cloud.proxy.meeting = None
        silent.abort()


def test_a_refusal_fails_at_once(far: Far) -> None:
    before = len(far.cloud.proxy.requests)
    body = b"<Error><Code>AccessDenied</Code><Message>not yours</Message></Error>"
    with far.cloud.proxy.fault(Fault(far.write, times=1000, status=403, body=body)):
        with pytest.raises(StorageError, match=f"could not write {far.url}/a") as caught:
            far.patient.put("a", b"x")
        assert far.cloud.proxy.counted(before) == {far.write: 1}
        assert caught.value.url == far.url
        assert caught.value.__cause__ is not None
        with pytest.raises(StorageError, match="could not create"):
            far.patient.put_absent("a", b"x")
    assert far.patient.list("") == []


def test_a_bucket_that_is_not_there_is_no_missing_key(far: Far) -> None:
    url = f"{far.cloud.scheme}://no-such-bucket/lake"
    lake = open_filesystem(url, storage_options=far.cloud.storage_options, settings=PATIENT)
    began = time.monotonic()
    with pytest.raises(StorageError, match="could not list"):
        lake.list("")
    with pytest.raises(StorageError, match="could not write"):
        lake.put("a", b"x")
    with pytest.raises(StorageError, match="could not create"):
        lake.put_absent("a", b"x")
    assert time.monotonic() - began < PATIENT.request_timeout_s


@pytest.mark.s3
def test_put_absent_settles_any_error_by_reading_back(s3: Far) -> None:
    condition = b"<Error><Code>PreconditionFailed</Code><Message>m</Message></Error>"
    conflict = b"<Error><Code>ConditionalRequestConflict</Code><Message>m</Message></Error>"
    s3.patient.put("theirs", b"theirs")
    s3.patient.put("mine", b"mine")
    for status, body in ((412, condition), (409, conflict), (400, b""), (500, b"")):
        for key, is_ours in (("mine", True), ("theirs", False)):
            with s3.cloud.proxy.fault(Fault("PUT", times=1, status=status, body=body)) as said:
                assert s3.patient.put_absent(key, b"mine") is is_ours
                assert said.times == 0
    with s3.cloud.proxy.fault(Fault("PUT", times=1, status=409, body=conflict)) as said:
        assert s3.patient.put_absent("free", b"mine")
        assert said.times == 0


def test_ranges_travel_together_and_no_more_than_allowed(far: Far) -> None:
    at_once = 24
    lake = open_filesystem(
        far.url,
        storage_options=far.cloud.storage_options,
        settings=Settings(parallel_requests=at_once),
    )
    lake.put("a", bytes(range(100)))
    far.cloud.proxy.most_under_way = 0
    # Each request waits for all others of its group: fewer at once would wait for ever.
    far.cloud.proxy.meeting = threading.Barrier(at_once, timeout=20)
    try:
        found = lake.get_ranges([Range("a", at, at + 1) for at in range(2 * at_once)])
    finally:
        far.cloud.proxy.meeting = None
    assert found == [bytes([at]) for at in range(2 * at_once)]
    assert far.cloud.proxy.most_under_way == at_once


def test_download_that_breaks_leaves_no_file(far: Far, tmp_path: Path) -> None:
    far.patient.put("a", b"x" * 1000)
    far.hasty.list("")
    before = len(far.cloud.proxy.requests)
    with (
        far.cloud.proxy.fault(Fault("GET", times=1000, status=503)),
        pytest.raises(StorageError),
    ):
        far.hasty.download("a", tmp_path / "down")
    assert list(tmp_path.iterdir()) == []
    assert far.cloud.proxy.counted(before)["GET"] > 0


@pytest.mark.s3
def test_listings_leave_out_the_folders_that_consoles_make(s3: Far) -> None:
    lake = s3.patient
    lake.put("log/a", b"x")
    assert isinstance(lake, S3Filesystem)
    path = f"{s3.url.rpartition('/')[2]}/log/"
    ioloop.run(lake.store._call_s3("put_object", Bucket="lake-bucket", Key=path, Body=b""))
    assert [entry.key for entry in lake.list("")] == ["log/a"]


@pytest.mark.azure
def test_listings_leave_out_the_folders_of_accounts_that_have_them(azure_cloud: Cloud) -> None:
    far = make_far(azure_cloud)
    lake = far.patient
    lake.put("log/a", b"x")
    assert isinstance(lake, AzureFilesystem)
    path = f"{far.url.rpartition('/')[2]}/log"
    blob = lake.store.service_client.get_blob_client("lake-bucket", path)
    ioloop.run(blob.upload_blob(b"", metadata={"hdi_isfolder": "true"}))
    assert [entry.key for entry in lake.list("")] == ["log/a"]


def test_local_file_of_a_far_object_is_refused(far: Far) -> None:
    with pytest.raises(StorageError, match="far away"):
        far.patient.local_file("a")


PROCESS = """
import atexit, os, sys, threading
from runlake.settings import Settings
from runlake.storage.fs import open_filesystem
url, options, deed = sys.argv[1], eval(sys.argv[2]), sys.argv[3]
lake = open_filesystem(url, storage_options=options, settings=Settings(request_timeout_s=10))
lake.put("before", b"x")
if deed == "exit":
    # Like a drain thread that is told to flush when the process ends.
    told, done = threading.Event(), threading.Event()
    def drain():
        told.wait()
        for number in range(20):
            lake.put(f"late-{number}", b"x")
        done.set()
    threading.Thread(target=drain, daemon=True).start()
    @atexit.register
    def flush():
        lake.put("at-exit", b"x")
        fresh = open_filesystem(url, storage_options=options, settings=Settings(
            request_timeout_s=10, parallel_requests=7))
        fresh.put("new-connection", b"x")
        told.set()
        assert done.wait(20)
else:
    child = os.fork()
    if child == 0:
        lake.put("child", lake.get("before"))
        sys.exit(0)
    for number in range(20):
        lake.put("parent", b"x")
        lake.get("parent")
    assert os.waitpid(child, 0)[1] == 0
    assert lake.get("child") == b"x"
    lake.put("after", b"x")
"""


def run_process(far: Far, deed: str) -> set[str]:
    # A host name, so that it must be looked up: asyncio does that in its pool of threads.
    options = eval(repr(far.cloud.storage_options).replace("127.0.0.1", "localhost"))  # noqa: S307
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROCESS, far.url, repr(options), deed],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return {entry.key for entry in far.patient.list("")}


def test_writes_at_the_end_of_the_process_arrive(far: Far) -> None:
    late = {f"late-{number}" for number in range(20)}
    assert run_process(far, "exit") == {"before", "at-exit", "new-connection"} | late


def test_a_forked_child_has_connections_of_its_own_and_leaves_the_parents(far: Far) -> None:
    assert run_process(far, "fork") == {"before", "child", "parent", "after"}
