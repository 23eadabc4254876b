"""What a link that somebody has put into a run's folder leads to: nobody gets there by the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake.errors import FormatError
from runlake.lake import Lake, open_lake
from runlake.upkeep import purge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runlake.run import Run
    from runlake.upkeep.purge import Purged


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    """A lake in a folder, and beside it a file that is nobody's artifact."""
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "b.txt").write_text("mine")
    with open_lake(tmp_path / "lake") as opened:
        yield opened


@pytest.fixture
def run(lake: Lake) -> Run:
    """A run with two files; it has ended."""
    with lake.start_run() as run:
        run.log_text("a", "a.txt")
        run.log_text("b", "notes/b.txt")
    lake.flush()
    return run


def home(lake: Lake, run: Run) -> Path:
    """Return the folder of a run."""
    return lake._storage.fs.local_file(f"artifacts/{run.info.experiment_id}/{run.run_id}")


def elsewhere(tmp_path: Path) -> dict[str, str]:
    """Return what lies outside of the lake, by its path."""
    root = tmp_path / "elsewhere"
    return {
        file.relative_to(root).as_posix(): file.read_text()
        for file in root.rglob("*")
        if file.is_file()
    }


def test_nothing_is_written_through_a_way_out(lake: Lake, run: Run, tmp_path: Path) -> None:
    (home(lake, run) / "out").symlink_to(tmp_path / "elsewhere" / "deep")
    file = tmp_path / "b.txt"
    file.write_text("theirs")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "c.txt").write_text("theirs")
    for local in (file, tmp_path / "new"):
        with pytest.raises(FormatError, match="outside the artifact directory"):
            lake.artifacts.upload(run.run_id, local, artifact_path="out")
    with lake.start_run(run_id=run.run_id) as again, pytest.raises(FormatError):
        again.log_text("theirs", "out/b.txt")
    assert elsewhere(tmp_path) == {"deep/b.txt": "mine"}


def test_a_link_in_the_place_of_a_file_is_replaced(lake: Lake, run: Run, tmp_path: Path) -> None:
    path = home(lake, run) / "a.txt"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere" / "deep" / "b.txt")
    (tmp_path / "a.txt").write_text("new")
    lake.artifacts.upload(run.run_id, tmp_path / "a.txt")
    assert (path.is_symlink(), path.read_text()) == (False, "new")
    assert elsewhere(tmp_path) == {"deep/b.txt": "mine"}


def test_what_is_behind_a_way_out_is_not_exported_nor_copied(
    lake: Lake, run: Run, tmp_path: Path
) -> None:
    (home(lake, run) / "out").symlink_to(tmp_path / "elsewhere")
    (home(lake, run) / "key").symlink_to(tmp_path / "elsewhere" / "deep" / "b.txt")
    lake.export(tmp_path / "folder", run_id=run.run_id)
    taken = (tmp_path / "folder" / "artifacts").rglob("*.txt")
    assert {file.name: file.read_text() for file in taken} == {"a.txt": "a", "b.txt": "b"}
    assert lake.copy_to(tmp_path / "second").problems == ()
    with open_lake(tmp_path / "second") as second:
        copied = home(second, run)
        files = {file.relative_to(copied).as_posix() for file in copied.rglob("*")}
    assert files == {"a.txt", "notes", "notes/b.txt"}


def test_nothing_is_copied_through_a_way_out_of_the_lake_that_is_copied_into(
    lake: Lake, run: Run, tmp_path: Path
) -> None:
    with open_lake(tmp_path / "second") as second:
        second._storage.ensure_lake()
        folder = home(second, run)
    folder.mkdir(parents=True)
    (folder / "notes").symlink_to(tmp_path / "elsewhere" / "deep")
    with pytest.raises(FormatError, match="outside the artifact directory"):
        lake.copy_to(tmp_path / "second")
    assert elsewhere(tmp_path) == {"deep/b.txt": "mine"}


def test_purge_takes_the_links_in_a_runs_folder_and_not_what_they_lead_to(
    lake: Lake, run: Run, tmp_path: Path
) -> None:
    folder = home(lake, run)
    (folder / "notes" / "out").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere")
    (folder / "file").symlink_to(tmp_path / "elsewhere" / "deep" / "b.txt")
    (folder / "inner").symlink_to(folder / "notes")
    (folder / "dead").symlink_to(tmp_path / "nowhere")
    done = lake.maintain.purge(run.run_id)
    assert not folder.exists()
    assert elsewhere(tmp_path) == {"deep/b.txt": "mine"}
    assert done.artifacts == 2


def test_purge_deletes_nothing_through_a_way_out_that_is_made_meanwhile(
    lake: Lake, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home(lake, run)

    def make(done: Purged) -> None:
        if done.artifacts == 1 and not (folder / "notes").is_symlink():
            (folder / "notes").rename(tmp_path / "moved")
            (folder / "notes").symlink_to(tmp_path / "elsewhere" / "deep")

    monkeypatch.setattr(purge, "_BATCH", 1)
    storage = lake._storage
    purge.purge(storage.fs, lake=storage.ensure_lake(), run_ids=[run.run_id], progress=make)
    assert (folder / "notes").is_symlink()
    assert elsewhere(tmp_path) == {"deep/b.txt": "mine"}
