from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runlake.errors import FormatError
from runlake.storage import links
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.memoryfs import MemoryFilesystem

if TYPE_CHECKING:
    from pathlib import Path

RUN = "artifacts/e/r"


@pytest.fixture
def lake(tmp_path: Path) -> LocalFilesystem:
    """A lake with a run, and beside it a folder that is none of the run's."""
    for file in ("lake/artifacts/e/r/in/deep/a", "lake/artifacts/e/r/b", "elsewhere/deep/a"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    return LocalFilesystem(tmp_path / "lake")


def link(lake: LocalFilesystem, inside: str, target: Path) -> str:
    """Put a link below the run; return its key."""
    file = lake.local_file(f"{RUN}/{inside}")
    file.symlink_to(target)
    return f"{RUN}/{inside}"


def test_files_and_folders_of_a_run_are_not_led_out(lake: LocalFilesystem) -> None:
    keys = [RUN, f"{RUN}/", f"{RUN}/in/", f"{RUN}/in/deep/a", f"{RUN}/b", f"{RUN}/new/file"]
    assert list(links.led_out(lake, keys)) == []
    links.refuse_ways_out(lake, keys)


def test_a_way_out_and_all_behind_it_is_led_out(lake: LocalFilesystem, tmp_path: Path) -> None:
    folder = link(lake, "in/out", tmp_path / "elsewhere")
    file = link(lake, "in/key", tmp_path / "elsewhere" / "deep" / "a")
    other = link(lake, "other", tmp_path / "lake" / "artifacts" / "e" / "rr")
    out = [folder, f"{folder}/deep/a", f"{folder}/none", file, f"{other}/x"]
    assert list(links.led_out(lake, [f"{RUN}/b", *out, f"{RUN}/in/deep/a"])) == out
    for key in out:
        with pytest.raises(FormatError, match="outside the artifact directory"):
            links.refuse_ways_out(lake, [key])


def test_a_link_that_stays_in_the_run_is_no_way_out(lake: LocalFilesystem, tmp_path: Path) -> None:
    home = tmp_path / "lake" / RUN
    inner = link(lake, "inner", home / "in")
    assert list(links.led_out(lake, [inner, f"{inner}/deep/a"])) == []
    link(lake, "in/out", tmp_path / "elsewhere")
    assert list(links.led_out(lake, [f"{inner}/out/deep/a"])) == [f"{inner}/out/deep/a"]


@pytest.mark.parametrize("part", ["artifacts", "artifacts/e", "artifacts/e/r"])
def test_the_folder_of_a_run_or_one_above_may_lie_on_another_disk(
    lake: LocalFilesystem, tmp_path: Path, part: str
) -> None:
    (tmp_path / "lake" / part).rename(tmp_path / "larger")
    (tmp_path / "lake" / part).symlink_to(tmp_path / "larger")
    assert list(links.led_out(lake, [RUN, f"{RUN}/b", f"{RUN}/in/deep/a"])) == []


def test_a_folder_is_looked_at_once_for_all_files_in_it(
    lake: LocalFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    known = os.path.islink

    def islink(file: Path) -> bool:
        asked.append(file.name)
        return known(file)

    monkeypatch.setattr(os.path, "islink", islink)
    files = [f"{RUN}/in/deep/{number}" for number in range(20)]
    assert list(links.led_out(lake, files)) == []
    assert (asked.count("in"), asked.count("deep"), len(asked)) == (1, 1, 22)


def test_all_links_below_a_run_are_told_and_none_is_followed(
    lake: LocalFilesystem, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere" / "more").symlink_to(tmp_path)
    made = {
        link(lake, "out", tmp_path / "elsewhere"),
        link(lake, "in/again", tmp_path / "elsewhere"),
        link(lake, "in/deep/dead", tmp_path / "nowhere"),
        link(lake, "inner", tmp_path / "lake" / RUN / "in"),
    }
    assert set(links.links_below(lake, f"{RUN}/")) == made


def test_stores_without_a_disk_have_no_links() -> None:
    store = MemoryFilesystem("memory://links")
    assert list(links.led_out(store, [f"{RUN}/b"])) == []
    assert links.links_below(store, f"{RUN}/") == []
