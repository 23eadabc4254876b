"""Files of runs whose experiment is known: nothing is looked up, and nothing is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake.errors import NotFoundError, StateError
from runlake.lake import open_lake

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.lake import Lake

pytestmark = pytest.mark.filesystems("local", "memory")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files, one below a folder."""
    root = tmp_path / "given"
    (root / "b").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "b" / "c.txt").write_text("c")
    return root


def test_files_of_a_run_that_has_ended_are_added_and_are_on_record(
    lake: Lake, folder: Path
) -> None:
    with lake.start_run(experiment_id="e1") as run:
        pass
    files = lake.artifacts.of("e1")
    files.add(run.run_id, folder, artifact_path="one", is_content=True)
    files.add(run.run_id, folder)
    files.add(run.run_id, folder / "a.txt")
    found = lake.sql("SELECT path FROM artifacts WHERE sha256 IS NOT NULL ORDER BY path")
    assert found["path"].to_list() == [
        "a.txt",
        "given/a.txt",
        "given/b/c.txt",
        "one/a.txt",
        "one/b/c.txt",
    ]
    assert [each.path for each in lake.artifacts.list(run.run_id)] == ["a.txt", "given", "one"]


def test_a_file_or_folder_is_fetched_under_a_name_of_ones_own(
    lake: Lake, folder: Path, tmp_path: Path
) -> None:
    files = lake.artifacts.of("e1")
    files.add("r1", folder, is_content=True)
    files.download_as("r1", "b/c.txt", target=tmp_path / "x" / "mine.txt")
    assert (tmp_path / "x" / "mine.txt").read_text() == "c"
    files.download_as("r1", "b", target=tmp_path / "y")
    assert (tmp_path / "y" / "c.txt").read_text() == "c"
    files.download_as("r1", target=tmp_path / "z", but="b")
    assert [each.name for each in (tmp_path / "z").iterdir()] == ["a.txt"]
    with pytest.raises(NotFoundError, match=r"b/c\.tx"):
        files.download_as("r1", "b/c.tx", target=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.filesystems("local")
def test_a_file_of_a_lake_that_is_a_folder_can_be_read_where_it_is(
    lake: Lake, folder: Path
) -> None:
    files = lake.artifacts.of("e1")
    files.add("r1", folder / "a.txt")
    there = files.local_file("r1", "a.txt")
    assert there is not None
    assert there.read_text() == "a"
    for path in ("b.txt", "a.txt/b"):
        with pytest.raises(NotFoundError):
            files.local_file("r1", path)


@pytest.mark.filesystems("memory")
def test_a_file_of_a_lake_that_is_no_folder_lies_nowhere_on_the_disk(lake: Lake) -> None:
    assert lake.artifacts.of("e1").local_file("r1", "a.txt") is None


@pytest.mark.filesystems("local")
def test_a_lake_that_is_read_only_takes_no_files(lake: Lake, folder: Path) -> None:
    with lake.start_run() as run:
        pass
    lake.flush()
    with open_lake(lake.url, read_only=True) as other:
        with pytest.raises(StateError):
            other.artifacts.of("e1").add("r1", folder)
        with pytest.raises(StateError):
            other.artifacts.upload(run.run_id, folder)
    assert lake.artifacts.of("e1").list("r1") == lake.artifacts.list(run.run_id) == []
