"""Runs of Trackio come whole, and its database is left exactly as it is."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runlake import ids
from runlake.errors import NotFoundError
from runlake.importers import import_from
from runlake.importers.source import SourceError
from runlake.importers.trackio import open_source
from runlake.lake import open_lake
from tests.importers.made import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.lake import Lake

# A dump of what Trackio 0.43 wrote, and the files beside it.
_REAL = Path(__file__).parent / "data" / "trackio"


@pytest.fixture
def lake() -> Iterator[Lake]:
    """An empty lake."""
    with open_lake(f"memory://{ids.new_nonce()}/lake", refresh=0) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as Trackio leaves it."""
    root = tmp_path / "trackio"
    shutil.copytree(_REAL, root)
    with _opened(root / "digits.db") as connection:
        connection.executescript((root / "digits.sql").read_text(encoding="utf-8"))
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    (root / "digits.sql").unlink()
    return root


def _opened(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, isolation_level=None)


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_runs_of_a_project_come_whole(lake: Lake, folder: Path) -> None:
    report = import_from("trackio", str(folder), lake)
    assert (report.problems, report.brought, report.checked) == ([], 2, 2)
    rows = {row["run_name"]: row for row in lake.sql("SELECT * FROM runs").iter_rows(named=True)}
    assert sorted(rows) == ["svm-1", "svm-2"]
    first = rows["svm-1"]
    assert (first["experiment_name"], first["tags"]["trackio.group"]) == ("digits", "seeds")
    assert first["params"] == {
        "lr": "0.1",
        "net.depth": "3",
        "layers": "[1, 2]",
        "none": "None",
    }
    # Trackio's ids are 32 hex digits: they stay.
    assert first["tags"]["trackio.run_id"] == first["run_id"]
    query = "SELECT step, value FROM metrics WHERE run_id = $1 AND key = $2 ORDER BY step"
    assert lake.sql(query, [first["run_id"], "loss"]).rows() == [
        (0, 0.1),
        (2, 0.05),
        (4, 0.1 / 3),
    ]
    assert math.isnan(lake.sql(query, [first["run_id"], "nan"]).row(0)[1])
    assert lake.sql(query, [first["run_id"], "inf"]).row(0) == (6, -math.inf)
    assert lake.sql(query, [first["run_id"], "system/gpu"]).row(0) == (0, 0.5)


def test_media_artifacts_and_alerts_come_with_the_run(lake: Lake, folder: Path) -> None:
    import_from("trackio", str(folder), lake)
    paths = set(lake.sql("SELECT path FROM artifacts")["path"].to_list())
    assert {"artifacts/model/v0/m.txt", "trackio/artifacts.json", "trackio/history.jsonl"} < paths
    assert lake.sql("SELECT media, key, step FROM media").rows() == [("image", "img", 6)]
    events = lake.sql("SELECT kind, key, value FROM events WHERE kind IN ('histogram', 'alert')")
    said = {(kind, key): json.loads(text) for kind, key, text in events.iter_rows()}
    assert said["alert", "warning"]["title"] == "low"
    assert said["histogram", "weights"]["counts"] == [1, 2]


def test_second_import_brings_nothing_and_a_run_that_grew_its_new_points(
    lake: Lake, folder: Path
) -> None:
    import_from("trackio", str(folder), lake)
    again = import_from("trackio", str(folder), lake)
    assert (again.already, again.unread, again.points) == (2, 2, 0)
    with _opened(folder / "digits.db") as connection:
        connection.execute(
            "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) SELECT run_id, "
            "timestamp, run_name, 99, '{\"loss\": 0.5}' FROM metrics WHERE run_name = 'svm-2' "
            "LIMIT 1"
        )
    connection.close()
    grown = import_from("trackio", str(folder), lake)
    assert (grown.unread, grown.grown, grown.points, grown.problems) == (1, 1, 1, [])


@pytest.mark.parametrize("is_live", [False, True])
def test_nothing_beside_the_database_changes_though_a_run_may_be_logging(
    lake: Lake, folder: Path, *, is_live: bool
) -> None:
    writer = _opened(folder / "digits.db")
    writer.execute(
        "INSERT INTO metrics SELECT 99, run_id, timestamp, run_name, 50, "
        "'{\"late\": 7}', NULL, NULL FROM metrics LIMIT 1"
    )
    if not is_live:
        writer.close()
    before = _bytes(folder)
    assert any(path.endswith("-wal") for path in before) == is_live
    import_from("trackio", str(folder), lake)
    assert _bytes(folder) == before
    # What stands in the log only has come too.
    assert lake.sql("SELECT step, value FROM metrics WHERE key = 'late'").rows() == [(50, 7.0)]
    writer.close()


def test_database_from_before_runs_had_ids_is_read_by_name(tmp_path: Path) -> None:
    with _opened(tmp_path / "old.db") as connection:
        connection.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, "
            "step INTEGER, metrics TEXT)"
        )
        connection.execute(
            "INSERT INTO metrics VALUES (1, '2025-01-01T00:00:00', 'a', 0, '{\"loss\": 1}')"
        )
    connection.close()
    (run,) = map(whole, open_source(str(tmp_path / "old.db")).runs())
    assert (run.name, run.source_id) == ("a", "old/a")
    assert run.start_us == 1_735_689_600_000_000


def test_damaged_database_is_an_error_that_names_it(folder: Path) -> None:
    file = folder / "digits.db"
    whole = file.read_bytes()
    file.write_bytes(whole[:100] + b"\xff" * 4000 + whole[4100:])
    with pytest.raises(SourceError, match=r"digits\.db cannot be read as a database"):
        open_source(str(folder))


def test_row_that_is_no_json_fails_its_run_only(lake: Lake, folder: Path) -> None:
    with _opened(folder / "digits.db") as connection:
        connection.execute("UPDATE metrics SET metrics = '{' WHERE run_name = 'svm-2'")
    connection.close()
    report = import_from("trackio", str(folder), lake)
    assert (report.brought, report.failed) == (1, 1)
    assert "is no JSON" in report.problems[0]


def test_page_that_is_damaged_fails_its_run_only(lake: Lake, folder: Path) -> None:
    file = folder / "digits.db"
    connection = _opened(file)
    text = json.dumps({"note": "Z" * 20_000})
    (row,) = connection.execute("SELECT min(id) FROM metrics WHERE run_name = 'svm-2'").fetchone()
    connection.execute("UPDATE metrics SET metrics = ? WHERE id = ?", [text, row])
    connection.execute("PRAGMA journal_mode = DELETE")
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    pages = bytearray(file.read_bytes())
    # A long text goes on in pages that begin with the number of the next one.
    starts = range(0, len(pages), size)
    page = next(at for at in starts if pages[at + 4 : at + 8] == b"ZZZZ")
    pages[page : page + 4] = b"\xff" * 4
    file.write_bytes(pages)
    report = import_from("trackio", str(folder), lake)
    assert (report.brought, report.failed) == (1, 1)
    assert "cannot be read as a database" in report.problems[0]


def test_files_that_are_not_there_are_named(lake: Lake, folder: Path) -> None:
    shutil.rmtree(folder / "media")
    shutil.rmtree(folder / "artifacts")
    report = import_from("trackio", str(folder), lake)
    assert report.problems == []
    assert {loss.what: loss.count for loss in report.losses}[
        "a file of it is not on this machine"
    ] == 2


def test_folder_without_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database")
    with pytest.raises(SourceError, match="holds no database of Trackio"):
        open_source(str(tmp_path))
    with pytest.raises(NotFoundError, match="there is no"):
        open_source(str(tmp_path / "gone"))
