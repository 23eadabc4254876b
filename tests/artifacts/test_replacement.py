"""Files that a run replaces while others fetch them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake.artifacts import fetching
from runlake.errors import FormatError, StorageError
from runlake.lake import open_lake
from tests.emulators.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runlake.lake import Lake
    from tests.conftest import Place

pytestmark = pytest.mark.filesystems("local", "memory", "s3")


@pytest.fixture
def other(lake_url: Place) -> Iterator[Lake]:
    """The same lake as another process has it, which holds on to what it has seen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNLAKE_REFRESH_S", "3600")
        opened = open_lake(lake_url.url, storage_options=lake_url.storage_options)
    with opened:
        yield opened


@pytest.fixture
def old_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make of every writer one that has uploaded for hours, and so does seldom."""
    from runlake.writing import lanes  # noqa: PLC0415 - private to this

    monkeypatch.setattr(lanes.Cadence, "wait_s", lambda *_: 3600.0)


@pytest.mark.usefixtures("old_rows")
def test_a_file_that_its_open_run_has_replaced_is_fetched_by_others_at_once(
    lake: Lake, other: Lake, tmp_path: Path
) -> None:
    with lake.start_run() as run:
        run.log_text("first", "last.txt")
        run.flush()
        for text in ("other", "again", "longer than before"):
            run.log_text(text, "last.txt")
            found = other.artifacts.download(run.run_id, "last.txt", target=tmp_path / text)
            assert found.read_text() == text


def test_a_file_that_was_replaced_since_the_last_question_is_fetched(
    lake: Lake, other: Lake, tmp_path: Path
) -> None:
    with lake.start_run() as run:
        run.log_text("first", "model/a.txt")
        run.log_text("stays", "model/b.txt")
    assert other.get_run(run.run_id).info.status == "FINISHED"
    (tmp_path / "a.txt").write_text("a second one")
    lake.artifacts.upload(run.run_id, tmp_path / "a.txt", artifact_path="model")
    found = other.artifacts.download(run.run_id, "model", target=tmp_path / "out")
    assert {each.name: each.read_text() for each in found.iterdir()} == {
        "a.txt": "a second one",
        "b.txt": "stays",
    }


def test_a_file_that_is_replaced_while_it_is_fetched_comes_whole(
    lake: Lake, other: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lake.start_run() as run:
        run.log_text("first", "last.txt")
    fetch = fetching.fetch
    texts = iter(["the second, and longer", "3"])

    def replaced(*arguments: object, **options: object) -> None:
        for text in texts:
            (tmp_path / "last.txt").write_text(text)
            lake.artifacts.upload(run.run_id, tmp_path / "last.txt")
            break
        fetch(*arguments, **options)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(fetching, "fetch", replaced)
    found = other.artifacts.download(run.run_id, "last.txt", target=tmp_path / "out")
    assert found.read_text() == "3"


def test_a_file_of_an_open_run_that_was_never_logged_so_is_refused_after_a_while(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runlake.artifacts import replacement  # noqa: PLC0415 - private to this

    monkeypatch.setattr(replacement, "_WAIT_S", 0.2)
    with lake.start_run() as run:
        run.log_text("as it was", "file.txt")
        (entry,) = (e for e in lake._storage.fs.list("artifacts/") if e.key.endswith("/file.txt"))
        lake._storage.fs.put(entry.key, b"as it is!")
        with pytest.raises(FormatError, match="not what was logged"):
            lake.artifacts.download(run.run_id, "file.txt", target=tmp_path / "out")
    assert list((tmp_path / "out").rglob("*")) == []


def test_a_pinned_lake_does_not_take_a_file_that_was_logged_since(
    lake: Lake, tmp_path: Path
) -> None:
    with lake.start_run() as run:
        run.log_text("first", "model/a.txt")
    lake.registry.register_model(f"runs:/{run.run_id}/model", "m")
    with lake.at() as then:
        (tmp_path / "a.txt").write_text("other")
        lake.artifacts.upload(run.run_id, tmp_path / "a.txt", artifact_path="model")
        with pytest.raises(FormatError, match="not what was logged"):
            then.registry.download("models:/m/1", target=tmp_path / "then")
        now = lake.registry.download("models:/m/1", target=tmp_path / "now")
    assert (now / "a.txt").read_text() == "other"


@pytest.mark.usefixtures("old_rows")
@pytest.mark.parametrize("is_alert", [True, False])
def test_what_hurries_shortly_after_another_is_in_the_store_soon_too(
    lake: Lake, other: Lake, *, is_alert: bool
) -> None:
    ask = {
        True: "SELECT count(*) FROM alerts",
        False: "SELECT count(*) FROM events WHERE kind = 'artifact' AND key = 'last.txt'",
    }[is_alert]

    def seen(count: int) -> Callable[[], bool]:
        def look() -> bool:
            other.refresh()
            return bool(other.sql(ask).item() == count)

        return look

    with lake.start_run() as run:
        run.log_text("0", "last.txt")
        run.flush()
        for count in (1, 2, 3):
            run.alert(f"number {count}") if is_alert else run.log_text(f"{count}", "last.txt")
            wait_until(seen(count if is_alert else count + 1), seconds=10.0)


@pytest.mark.filesystems("local")
def test_a_folder_that_cannot_be_made_is_no_file_that_was_deleted(
    lake: Lake, tmp_path: Path
) -> None:
    with lake.start_run() as run:
        run.log_text("text", "file.txt")
    (tmp_path / "gone").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "further")
    with pytest.raises(StorageError, match="could not fetch"):
        lake.artifacts.download(run.run_id, "file.txt", target="/proc/none")
    with pytest.raises(StorageError, match="could not fetch"):
        lake.artifacts.download(run.run_id, "file.txt", target=tmp_path / "link")
