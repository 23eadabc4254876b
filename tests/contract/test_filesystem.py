from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake.settings import Settings
from runlake.storage import objectfs
from runlake.storage.fs import Filesystem, open_filesystem
from runlake.testing.contract import StorageContract
from tests.emulators.proxy import Fault

if TYPE_CHECKING:
    from tests.conftest import Place
    from tests.emulators.fixtures import Cloud


@pytest.fixture
def another(lake_url: Place) -> Filesystem:
    """A second client of the same root, with connections of its own."""
    return open_filesystem(
        lake_url.url,
        storage_options=lake_url.storage_options,
        settings=Settings(parallel_requests=8),
    )


class TestFilesystem(StorageContract):
    """The contract, on each store that runlake names; far ones are asked for short pages."""

    more_than_a_page = 23

    @pytest.fixture(autouse=True)
    def short_pages(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let a listing give a few keys at once."""
        monkeypatch.setattr(objectfs, "_PAGE", 5)


def test_a_listing_takes_a_request_for_each_page(
    filesystem: Filesystem, cloud: Cloud | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cloud is None:
        return
    monkeypatch.setattr(objectfs, "_PAGE", 5)
    keys = [f"log/{number}" for number in range(7)]
    for key in keys:
        filesystem.put(key, b"x")
    before = len(cloud.proxy.requests)
    assert [entry.key for entry in filesystem.list("log/")] == keys
    assert cloud.proxy.counted(before)["GET"] == 2


def test_put_absent_whose_answer_is_lost_knows_that_it_won(
    filesystem: Filesystem, cloud: Cloud | None
) -> None:
    if cloud is None:
        # Near stores lose no answers; a network disk repeats a request, which looks like this.
        filesystem.put("a", b"mine")
        assert filesystem.put_absent("a", b"mine")
        return
    filesystem.get_ranges([])
    method = "POST" if cloud.scheme == "gs" else "PUT"
    with cloud.proxy.fault(Fault(method, times=1, status=None)) as lost:
        assert filesystem.put_absent("a", b"mine")
        assert lost.times == 0
    assert filesystem.get("a") == b"mine"


def test_put_absent_whose_answer_is_lost_knows_that_it_was_late(
    filesystem: Filesystem, cloud: Cloud | None
) -> None:
    filesystem.put("a", b"theirs")
    if cloud is None:
        assert not filesystem.put_absent("a", b"mine")
        return
    method = "POST" if cloud.scheme == "gs" else "PUT"
    with cloud.proxy.fault(Fault(method, times=1, status=None)) as lost:
        assert not filesystem.put_absent("a", b"mine")
        assert lost.times == 0
    assert filesystem.get("a") == b"theirs"
