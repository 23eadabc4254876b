"""Runs of W&B come whole: what its client wrote while it was offline, and exported histories."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from base64 import b64encode
from hashlib import md5
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv

from runlake import ids
from runlake.errors import NotFoundError
from runlake.importers import import_from
from runlake.importers.source import SourceError
from runlake.importers.wandb import open_source
from runlake.importers.wandb_log import RecordLog
from runlake.lake import open_lake
from tests.importers.made import whole
from tests.importers.wired import (
    exit_record,
    field,
    offline_run,
    record_log,
    row_record,
    run_record,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.importers.source import SourceRun
    from runlake.lake import Lake

# Made by W&B 0.31; the machine's name, paths and most samples of it are taken out.
_REAL = Path(__file__).parent / "data" / "wandb"


@pytest.fixture
def lake() -> Iterator[Lake]:
    """An empty lake."""
    with open_lake(f"memory://{ids.new_nonce()}/lake", refresh=0) as opened:
        yield opened


def _curve(lake: Lake, key: str) -> list[tuple[int, float]]:
    found = lake.sql("SELECT step, value FROM metrics WHERE key = $1 ORDER BY step", [key])
    return [(row[0], row[1]) for row in found.iter_rows()]


def _only(source: Path, experiment: str | None = None) -> SourceRun:
    (run,) = map(whole, open_source(str(source), experiment=experiment).runs())
    return run


def _points(run: SourceRun) -> list[tuple[str, int, float]]:
    rows = [row for table in run.points() for row in table.to_pylist()]
    return [(row["key"], row["step"], row["value"]) for row in rows]


def test_run_that_wandb_wrote_comes_whole(lake: Lake) -> None:
    report = import_from("wandb", str(_REAL), lake)
    assert (report.problems, report.brought, report.checked) == ([], 1, 1)
    row = lake.sql("SELECT * FROM runs").row(0, named=True)
    assert (row["run_name"], row["experiment_name"], row["status"]) == (
        "svm-1",
        "digits",
        "FINISHED",
    )
    assert (row["user_id"], row["source_name"]) == ("ada", "train.py")
    assert row["start_time"].isoformat().startswith("2026-11-22T00:32:20.505582")
    assert row["params"] == {
        "lr": "0.1",
        "net.depth": "3",
        "net.act": "relu",
        "layers": "[1, 2]",
        "none": "None",
        "flag": "True",
        "late": "5",
    }
    tags = row["tags"]
    assert tags["wandb.group"] == "seeds"
    assert json.loads(tags["wandb.tags"]) == ["baseline", "v2"]
    assert tags["mlflow.note.content"] == "first try"
    loss = [(0, 1.0), (1, 0.5), (2, 1 / 3), (3, 0.25), (9, 0.2)]
    assert _curve(lake, "loss") == loss
    assert _curve(lake, "nested.x") == [(0, 0.0), (1, 0.5), (2, 1.0), (3, 1.5)]
    assert [value for _, value in _curve(lake, "inf")] == [math.inf]
    assert math.isnan(_curve(lake, "nan")[0][1])
    assert _curve(lake, "best") == [(9, 0.95)]
    assert len(_curve(lake, "system/cpu")) == 2


def test_files_histograms_and_alerts_of_a_run_come_with_it(lake: Lake) -> None:
    import_from("wandb", str(_REAL), lake)
    paths = lake.sql("SELECT path FROM artifacts")["path"].to_list()
    assert {"output.log", "wandb/run.json", "wandb/history.jsonl"} <= set(paths)
    shown = lake.sql("SELECT media, key, step, details ->> '$.caption' FROM media").rows()
    assert shown == [("image", "img", 4, "black")]
    events = lake.sql("SELECT kind, key, value FROM events WHERE kind IN ('histogram', 'alert')")
    said = {(kind, key): json.loads(text) for kind, key, text in events.iter_rows()}
    assert said["histogram", "weights"]["counts"] == [3, 2, 2, 3]
    assert said["alert", "warning"] == {"title": "hey", "text": "it is low"}


def test_everything_that_is_not_as_it_was_is_named(lake: Lake) -> None:
    report = import_from("wandb", str(_REAL), lake)
    lost = {loss.what: loss.count for loss in report.losses}
    assert lost["values that are no numbers stand in the artifact 'wandb/history.jsonl'"] == 3
    assert lost["whole numbers of more than 53 bits were rounded to a 64-bit float"] == 1
    assert lost["a file of it is not on this machine"] == 2


def test_second_import_brings_nothing(lake: Lake) -> None:
    import_from("wandb", str(_REAL), lake)
    again = import_from("wandb", str(_REAL), lake)
    assert (again.brought, again.unread, again.points) == (0, 1, 0)


def test_log_that_is_cut_anywhere_ends_before_the_cut_and_says_so(tmp_path: Path) -> None:
    rows = [row_record(step, {"a": step, "text": "x" * 9000}) for step in range(8)]
    whole = record_log([run_record(), *rows, exit_record()])
    assert len(whole) > 2 * 32768
    file = tmp_path / "run-a.wandb"
    file.write_bytes(whole)
    log = RecordLog(file)
    count = len(list(log.records()))
    assert (count, log.cut_at) == (10, None)
    cuts = {*range(7, 120), *range(32700, 32850), *range(len(whole) - 60, len(whole))}
    for cut in sorted(cuts):
        file.write_bytes(whole[:cut])
        kept = list(log.records())
        assert len(kept) < count
        # A cut between two records cannot be seen.
        is_between = record_log_length(kept_records(len(kept), rows)) == cut
        assert (log.cut_at is None) == is_between
    file.write_bytes(whole + b"\0" * 100)
    assert len(list(log.records())) == count


def kept_records(count: int, rows: list[bytes]) -> list[bytes]:
    """Return the first records of the log above."""
    return [run_record(), *rows, exit_record()][:count]


def record_log_length(records: list[bytes]) -> int:
    """Return how long a log of these is."""
    return len(record_log(records))


def test_damage_before_the_end_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (log,) = _REAL.rglob("*.wandb")
    whole = log.read_bytes()
    file = tmp_path / "run-a.wandb"
    for place in range(7, len(whole) - 200, 97):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(SourceError, match=r"run-a\.wandb is damaged"):
            list(RecordLog(file).records())
    file.write_bytes(b"something else")
    with pytest.raises(SourceError, match="does not begin as a run file"):
        open_source(str(tmp_path)).count() and list(RecordLog(file).records())


def test_damaged_run_is_reported_and_the_others_come(lake: Lake, tmp_path: Path) -> None:
    good = [run_record("good0001"), row_record(0, {"a": 1}), exit_record()]
    offline_run(tmp_path / "offline-run-1-good0001", good, "good0001")
    bad = offline_run(tmp_path / "offline-run-2-badd0001", good, "badd0001") / "run-badd0001.wandb"
    bad.write_bytes(bad.read_bytes()[:20] + b"\1" + bad.read_bytes()[21:])
    report = import_from("wandb", str(tmp_path), lake)
    assert (report.brought, report.failed) == (1, 1)
    assert "run-badd0001.wandb is damaged" in report.problems[0]


def test_run_without_an_end_is_killed_and_comes_whole_once_it_went_on(
    lake: Lake, tmp_path: Path
) -> None:
    rows = [row_record(step, {"loss": 1 / (step + 1)}, 1.7e9 + step) for step in range(6)]
    offline_run(tmp_path, [run_record(), *rows[:3]])
    first = import_from("wandb", str(tmp_path), lake)
    assert (first.brought, first.points) == (1, 3)
    assert lake.sql("SELECT status FROM runs").item() == "KILLED"
    offline_run(tmp_path, [run_record(), *rows, exit_record(1)])
    second = import_from("wandb", str(tmp_path), lake)
    assert (second.grown, second.points, second.problems) == (1, 3, [])
    assert lake.sql("SELECT status FROM runs").item() == "FAILED"
    assert [step for step, _ in _curve(lake, "loss")] == list(range(6))


def test_folders_of_one_run_id_are_one_run_that_was_resumed(tmp_path: Path) -> None:
    late = [run_record(start_s=1_700_000_100), row_record(1, {"a": 2}), exit_record()]
    early = [run_record(), row_record(0, {"a": 1})]
    offline_run(tmp_path / "a-late", late)
    offline_run(tmp_path / "b-early", early)
    run = _only(tmp_path)
    assert run.status == "FINISHED"
    assert run.start_us == 1_700_000_000_000_000
    assert _points(run) == [("a", 0, 1.0), ("a", 1, 2.0)]


def test_summary_of_a_run_that_was_resumed_is_a_point_of_each_log_that_set_it(
    lake: Lake, tmp_path: Path
) -> None:
    def best(value: str) -> bytes:
        return field(3, field(1, field(1, "best") + field(16, value)))

    first = [run_record(), row_record(3, {"a": 1}), best("0.5"), exit_record()]
    offline_run(tmp_path / "a", first)
    import_from("wandb", str(tmp_path), lake)
    assert _curve(lake, "best") == [(3, 0.5)]
    for part, more in enumerate(([], [best("0.7")])):
        rows = [row_record(7 + part, {"a": 2}), *more, exit_record()]
        offline_run(tmp_path / f"b{part}", [run_record(start_s=1_700_000_100 + part), *rows])
        report = import_from("wandb", str(tmp_path), lake)
        assert (report.grown, report.points, report.problems) == (1, 1 + part, [])
    assert _curve(lake, "best") == [(3, 0.5), (8, 0.7)]


def test_values_in_the_fields_of_newer_clients_are_read(tmp_path: Path) -> None:
    items = [
        field(1, "flag") + field(4, 1),
        field(1, "whole") + field(5, 5),  # zigzag: -3
        field(1, "number") + field(6, 0.5),
        field(1, "text") + field(7, "hello"),
        field(1, "deep") + field(8, '{"x": 2}'),
        field(1, "none") + field(3, 0),
    ]
    row = field(2, b"".join(field(1, item) for item in items) + field(2, field(1, 7)))
    run = _only(offline_run(tmp_path, [run_record(), row, exit_record()]))
    assert _points(run) == [
        ("flag", 7, 1.0),
        ("whole", 7, -3.0),
        ("number", 7, 0.5),
        ("deep.x", 7, 2.0),
    ]
    (others,) = (file for file in run.artifacts() if file.path == "wandb/history.jsonl")
    lines = others.fetch(tmp_path).read_text().splitlines()
    assert [(json.loads(line)["key"], json.loads(line)["value"]) for line in lines] == [
        ("text", "hello"),
        ("none", None),
    ]


@pytest.mark.parametrize("is_changed", [False, True])
def test_staged_file_of_an_artifact_comes_if_it_is_what_was_staged(
    tmp_path: Path, *, is_changed: bool
) -> None:
    staged = tmp_path / "staged"
    staged.write_bytes(b"weights")
    digest = b64encode(md5(b"weights", usedforsecurity=False).digest()).decode()
    entry = field(1, "m.txt") + field(2, digest) + field(4, 7) + field(6, str(staged))
    artifact = field(8, field(4, "model") + field(5, "net") + field(12, field(4, entry)))
    run = _only(offline_run(tmp_path, [run_record(), artifact, exit_record()]))
    (file,) = (file for file in run.artifacts() if file.path == "artifacts/net/m.txt")
    if is_changed:
        staged.write_bytes(b"others!")
        with pytest.raises(SourceError, match="not what W&B staged"):
            file.fetch(tmp_path)
    else:
        assert file.fetch(tmp_path).read_bytes() == b"weights"


def test_summary_changes_and_removals_are_applied_in_order(tmp_path: Path) -> None:
    def change(number: int, key: str, text: str) -> bytes:
        return field(3, field(number, field(1, key) + field(16, text)))

    records = [run_record(), change(1, "a", "1"), change(1, "b", '{"max": 4}'), change(2, "a", "")]
    run = _only(offline_run(tmp_path, [*records, exit_record()]))
    assert _points(run) == [("b.max", 0, 4.0)]


@given(
    number=st.sampled_from([2, 3, 5, 7, 8, 10, 12, 13, 17, 18, 25, 26]),
    content=st.binary(max_size=30)
    | st.lists(st.tuples(st.integers(1, 16), st.binary(max_size=12)), max_size=4).map(
        lambda parts: field(1, b"".join(field(one, data) for one, data in parts))
    ),
    told=st.dictionaries(
        st.sampled_from(["_step", "_timestamp", "_runtime", "a"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    ),
)
@settings(max_examples=60)
def test_records_of_any_content_are_read_or_refused_as_damaged(
    number: int, content: bytes, told: dict[str, object]
) -> None:
    items = [field(1, field(2, key) + field(16, json.dumps(value))) for key, value in told.items()]
    with TemporaryDirectory() as name:
        folder = offline_run(
            Path(name), [run_record(), field(number, content), field(2, b"".join(items))]
        )
        with contextlib.suppress(SourceError):
            run = _only(folder)
            list(run.points())
            list(run.events())
            for count, file in enumerate(run.artifacts()):
                (folder / str(count)).mkdir()
                file.fetch(folder / str(count))
            list(run.notes())


# Exported histories.


def _exported(nulls: float | None) -> pa.Table:
    return pa.table(
        {
            "_step": [0, 1, 5],
            "_timestamp": [1.7e9, 1.7e9 + 1, 1.7e9 + 2.5],
            "_runtime": [0.1, 1.1, 2.6],
            "loss": [1.0, nulls, 0.25],
            "n": pa.array([1, 2, None], pa.int64()),
            "text": ["a", None, "b"],
        }
    )


def test_exported_history_is_the_same_from_parquet_and_csv(tmp_path: Path) -> None:
    pq.write_table(_exported(None), tmp_path / "a.parquet")
    csv.write_csv(_exported(None), tmp_path / "b.csv")
    expected = [("loss", 0, 1.0), ("n", 0, 1.0), ("n", 1, 2.0), ("loss", 5, 0.25)]
    for name in ("a.parquet", "b.csv"):
        run = _only(tmp_path / name, experiment="came")
        assert _points(run) == expected
        times = [row["timestamp"] for table in run.points() for row in table.to_pylist()]
        assert [round(time.timestamp() * 1e6) for time in times[-1:]] == [1_700_000_002_500_000]
        assert run.experiment.name == "came"
        assert {note.count for note in run.notes() if "no numbers" in note.what} == {2}


def test_numbered_parts_in_a_folder_are_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "run-abcd1234-history-v0"
    folder.mkdir()
    for part in (0, 1):
        rows = pa.table({"_step": [part], "_timestamp": [1.7e9], "loss": [float(part)]})
        pq.write_table(rows, folder / f"000{part}.parquet")
    run = _only(tmp_path)
    assert run.name == "run-abcd1234-history-v0"
    assert _points(run) == [("loss", 0, 0.0), ("loss", 1, 1.0)]


def test_download_of_a_chart_gives_a_run_for_each_curve_and_says_that_it_is_thinned(
    tmp_path: Path,
) -> None:
    (tmp_path / "chart.csv").write_text(
        '"Step","svm - 1 - loss","svm - 1 - loss__MIN","svm - 1 - loss__MAX","svm-2 - loss"\n'
        '"0","1.0","0.9","1.1","2.0"\n"1","0.5","","",""\n'
    )
    runs = {run.name: whole(run) for run in open_source(str(tmp_path)).runs()}
    assert _points(runs["svm - 1"]) == [("loss", 0, 1.0), ("loss", 1, 0.5)]
    assert _points(runs["svm-2"]) == [("loss", 0, 2.0)]
    notes = " ".join(note.what for note in runs["svm-2"].notes())
    assert "thins" in notes
    assert "__MIN" in notes


@pytest.mark.parametrize("content", [b"PAR1 no parquet PAR1", b""])
def test_damaged_export_is_an_error_in_the_report(
    lake: Lake, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    report = import_from("wandb", str(tmp_path), lake)
    assert report.failed == 1
    assert "cannot be read as an exported history" in report.problems[0]


def test_folder_without_runs_is_refused_with_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no run of W&B"):
        open_source(str(tmp_path))
    with pytest.raises(NotFoundError, match="there is no"):
        open_source(str(tmp_path / "gone"))


def test_links_that_wandb_leaves_to_the_latest_run_are_not_read_twice(tmp_path: Path) -> None:
    target = tmp_path / "wandb" / "offline-run-1"
    shutil.copytree(next(_REAL.iterdir()), target)
    (tmp_path / "wandb" / "latest-run").symlink_to(target)
    assert open_source(str(tmp_path)).count() == 1
