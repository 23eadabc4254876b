"""Filesystems of which fsspec promises no more than files and renaming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from runlake.errors import MissingDependencyError, StorageError
from runlake.settings import Settings
from runlake.storage.fs import Filesystem, open_filesystem
from runlake.testing.contract import StorageContract

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class PlainStore(LocalFileSystem):  # type: ignore[misc]
    """A disk behind a scheme that runlake knows nothing of."""

    protocol = "plainstore"
    disturb: Callable[[str], None] | None = None

    def pipe_file(self, path: str, value: bytes, **options: Any) -> None:  # noqa: ANN401 - fsspec's
        self.makedirs(self._parent(path), exist_ok=True)
        if PlainStore.disturb is not None:
            PlainStore.disturb("pipe_file")
        super().pipe_file(path, value, **options)

    def mv(self, path1: str, path2: str, **options: Any) -> None:  # noqa: ANN401 - fsspec's
        if PlainStore.disturb is not None:
            PlainStore.disturb("mv")
        super().mv(path1, path2, **options)


@pytest.fixture(autouse=True)
def plain_scheme() -> Iterator[None]:
    """The scheme `plainstore://`, for one test."""
    fsspec.register_implementation("plainstore", PlainStore, clobber=True)
    yield
    PlainStore.disturb = None


@pytest.fixture
def filesystem(tmp_path: Path) -> Filesystem:
    url = f"plainstore://{tmp_path}/lake"
    return open_filesystem(url, storage_options={}, settings=Settings(request_timeout_s=1.0))


@pytest.fixture
def another(filesystem: Filesystem) -> Filesystem:
    return open_filesystem(filesystem.url, storage_options={}, settings=Settings())


class TestPlainFilesystem(StorageContract):
    """The contract, but for what needs conditional create."""

    def test_probe_finds_conditional_create(self, filesystem: Filesystem) -> None:
        assert not filesystem.probe()
        assert filesystem.conditional_create is False
        assert filesystem.list("") == []

    @pytest.mark.skip(reason="two may win here, and `probe` says so")
    def test_put_absent_has_one_winner_of_many_threads(
        self, filesystem: Filesystem, another: Filesystem
    ) -> None: ...


def test_a_write_that_fails_leaves_no_temporary_file(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    def refuse(verb: str) -> None:
        if verb == "mv":
            raise PermissionError(verb)

    PlainStore.disturb = refuse
    with pytest.raises(StorageError, match="could not write plainstore://"):
        filesystem.put("log/a", b"x")
    assert list((tmp_path / "lake" / "log").iterdir()) == []


def test_a_passing_failure_is_tried_again(filesystem: Filesystem) -> None:
    failures = iter([OSError("busy"), OSError("busy")])

    def fail_twice(_: str) -> None:
        if (error := next(failures, None)) is not None:
            raise error

    PlainStore.disturb = fail_twice
    filesystem.put("a", b"x")
    assert filesystem.get("a") == b"x"
    assert next(failures, None) is None


def test_a_failure_that_stays_is_given_up(filesystem: Filesystem) -> None:
    tries = 0

    def fail(_: str) -> NoReturn:
        nonlocal tries
        tries += 1
        raise OSError("busy")

    PlainStore.disturb = fail
    with pytest.raises(StorageError, match="busy"):
        filesystem.put("a", b"x")
    assert tries > 1


def test_a_scheme_whose_library_is_missing_is_told_at_opening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: str) -> NoReturn:
        raise ImportError("plainstore needs a package")

    monkeypatch.setattr("runlake.storage.fs.fsspec.get_filesystem_class", refuse)
    with pytest.raises(MissingDependencyError, match="needs a package"):
        open_filesystem("plainstore://a", storage_options={}, settings=Settings())
