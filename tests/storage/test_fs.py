from __future__ import annotations

import subprocess
import sys
from importlib import util
from typing import TYPE_CHECKING, Final

import pytest

from runlake.errors import InvalidInputError, MissingDependencyError
from runlake.settings import Settings
from runlake.storage import fs
from runlake.storage.fs import Filesystem, open_filesystem

if TYPE_CHECKING:
    import os
    from pathlib import Path

SETTINGS: Final = Settings()


def opened(url: str | os.PathLike[str], **storage_options: object) -> Filesystem:
    return open_filesystem(url, storage_options=storage_options, settings=SETTINGS)


def test_open_of_a_relative_path_stays_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    filesystem = opened("./some/../lake")
    assert filesystem.url == str(tmp_path / "lake")
    assert filesystem.is_local
    monkeypatch.chdir("/")
    filesystem.put("a", b"x")
    assert (tmp_path / "lake" / "a").read_bytes() == b"x"
    assert filesystem.local_file("a") == tmp_path / "lake" / "a"


def test_open_takes_paths_homes_and_file_urls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert opened("~/lake").url == str(tmp_path / "lake")
    assert opened(tmp_path / "lake").url == str(tmp_path / "lake")
    assert opened(f"file://{tmp_path}/a%20lake/").url == str(tmp_path / "a lake")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("memory://a/b/", "memory://a/b"),
        ("memory:///a", "memory://a"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("S3A://bucket", "s3://bucket"),
        ("gcs://bucket/a", "gs://bucket/a"),
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("abfs://box@team.dfs.core.windows.net/a/", "abfs://box@team.dfs.core.windows.net/a"),
        ("ftp://me:secret@host/a/", "ftp://host/a"),
    ],
)
def test_open_shows_a_url_without_credentials(given: str, url: str) -> None:
    filesystem = opened(given)
    assert filesystem.url == url
    assert not filesystem.is_local


def test_open_of_a_server_address_says_what_to_write_instead() -> None:
    with pytest.raises(InvalidInputError, match=r"no server.*s3://bucket/lake"):
        opened("http://user:secret@localhost:5000")
    with pytest.raises(InvalidInputError) as caught:
        opened("https://user:secret@host/path")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///mlflow.db", r"no database.*'\./lake'.*import mlflow sqlite:///mlflow\.db"),
        ("postgresql+psycopg2://u:secret@host/db", "no database"),
        ("runlake:///data/lake", "here write '/data/lake'"),
        ("runlake+s3://bucket/lake", "here write 's3://bucket/lake'"),
    ],
)
def test_open_of_an_address_of_mlflows_says_what_to_write_instead(url: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as caught:
        opened(url)
    assert "secret" not in str(caught.value)


def test_open_of_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"Did you mean s3://\?.*sftp"):
        opened("s4://bucket/lake")
    with pytest.raises(InvalidInputError, match="chained"):
        opened("simplecache::s3://bucket/lake")


def test_open_without_a_bucket_or_path_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="names no bucket"):
        opened("s3:///lake")
    with pytest.raises(InvalidInputError, match="path is empty"):
        opened("")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("s3://b/l", r"pip install 'runlake\[s3\]'"),
        ("gs://b/l", r"pip install 'runlake\[gcs\]'"),
        ("az://b/l", r"pip install 'runlake\[azure\]'"),
    ],
)
def test_open_without_the_stores_library_gives_the_pip_line(
    url: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert util.find_spec("fsspec")
    monkeypatch.setattr(fs, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=line):
        opened(url)


def test_open_asks_nothing_and_loads_no_library_of_a_store() -> None:
    script = """
import socket, sys
def refuse(*_): raise AssertionError("a request")
socket.socket.connect = refuse
from runlake.settings import Settings
from runlake.storage.fs import open_filesystem
for url in sys.argv[1:]:
    open_filesystem(url, storage_options={}, settings=Settings())
heavy = {"s3fs", "gcsfs", "adlfs", "aiohttp", "botocore", "fsspec"}
print(sorted(heavy & set(sys.modules)), "asyncio" in sys.modules)
"""
    near = subprocess.run(
        [sys.executable, "-c", script, "/nowhere/lake", "memory://a"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert near.stdout.split("\n")[0] == "[] False"
    far = subprocess.run(
        [sys.executable, "-c", script, "s3://b/l", "gs://b/l", "az://b/l"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert far.stdout.split("\n")[0] == "[] True"
