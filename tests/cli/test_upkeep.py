from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import runlake
from runlake.upkeep.purge import BEYOND_REACH
from tests.cli.conftest import in_terminal, log_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from tests.cli.conftest import Filled


def segments_of(url: str) -> int:
    """Return how many segments are live."""
    with runlake.open(url, read_only=True) as lake:
        lake.refresh()
        assert lake.snapshot is not None
        return len(lake.snapshot.segments)


def test_compact_tells_of_each_experiment_and_leaves_nothing_to_do(
    ask_json: Callable[..., Any], filled: Filled
) -> None:
    before = ask_json("ls", "--all")
    rows = ask_json("compact")
    assert list(rows[0]) == [
        "experiment_id",
        "segments",
        "rows",
        "merged_rows",
        "size_bytes",
        "commits",
        "conflicts",
        "freed_bytes",
        "problems",
    ]
    assert rows[0]["experiment_id"] == "_lake"
    assert len(rows) == 3
    assert all(row["commits"] for row in rows)
    assert segments_of(filled.url) == 0
    assert ask_json("ls", "--all") == before
    assert [row["commits"] for row in ask_json("compact")] == [0, 0, 0]


def test_compact_prints_a_table_and_says_where_nothing_was_to_do(
    ask: Callable[..., Result], filled: Filled
) -> None:
    result = ask("compact", "--lake", filled.url)
    assert result.stdout.splitlines()[0].split() == [
        "experiment_id",
        "segments",
        "rows",
        "merged_rows",
        "written",
        "freed",
    ]
    again = ask("compact", "--lake", filled.url)
    assert (again.exit_code, again.stdout) == (0, "")
    assert "nothing to do" in again.stderr


def test_compact_takes_one_experiment_or_a_shard(
    ask_json: Callable[..., Any], filled: Filled
) -> None:
    assert len(ask_json("compact", "-e", "odd")) == 1
    shards = [ask_json("compact", "--shard", f"{number}/2", "--full") for number in (1, 2)]
    assert sum(map(len, shards)) == 3
    assert segments_of(filled.url) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("compact", "-e", "none"), 3, "no experiment 'none'"),
        (("compact", "--shard", "3/2"), 2, "shard 3/2"),
        (("compact", "--shard", "half"), 2, "'half' is no shard"),
        (("compact", "-e", "odd", "--shard", "1/2"), 2, "not both"),
        (("vacuum", "--grace", "soon"), 2, "'soon' is no length of time"),
        (("vacuum", "-e", "none"), 3, "no experiment 'none'"),
        (("purge",), 2, "name runs, or an --experiment"),
        (("purge", "alpha", "-e", "odd"), 2, "name runs, or an --experiment"),
        (("purge", "alpha"), 2, "give --yes"),
        (("purge", "nothing", "--yes"), 3, "nothing"),
        (("purge", "-e", "none", "--yes"), 3, "no experiment 'none'"),
        (("publish", "--format", "iceberg"), 2, "'iceberg'"),
        (("publish", "-t", "runs"), 2, "'runs'"),
    ],
)
def test_a_wrong_call_is_told_and_changes_nothing(
    ask: Callable[..., Result],
    filled: Filled,
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    result = ask(*arguments, "--lake", filled.url)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    with runlake.open(filled.url, read_only=True) as lake:
        assert lake.search_runs(run_view_type="ALL").height == 5


@pytest.mark.parametrize("command", ["compact", "vacuum", "publish"])
def test_a_mistyped_path_is_no_lake(
    ask: Callable[..., Result], tmp_path: Path, command: str
) -> None:
    result = ask(command, "--lake", str(tmp_path / "none"))
    assert result.exit_code == 3
    assert "is not a lake" in result.stderr
    assert not (tmp_path / "none").exists()


def test_compact_of_a_damaged_segment_names_it_and_fails(
    ask: Callable[..., Result], filled: Filled, tmp_path: Path
) -> None:
    segment = next(path for path in tmp_path.rglob("*.parquet") if "_lake" not in str(path))
    segment.chmod(0o644)
    segment.write_bytes(segment.read_bytes()[:-100])
    result = ask("compact", "--lake", filled.url)
    assert result.exit_code == 1
    assert f"warning: {segment.relative_to(filled.url)}" in result.stderr


def test_vacuum_is_a_dry_run_until_it_is_told_to_delete(
    ask: Callable[..., Result], ask_json: Callable[..., Any], filled: Filled
) -> None:
    ask("compact", "--lake", filled.url)
    assert ask_json("vacuum")["removed"] == []
    said = ask_json("vacuum", "--grace", "0s")
    assert said["is_dry_run"] is True
    assert said["objects"] == len(said["removed"]) > 0
    assert said["size_bytes"] == sum(each["size_bytes"] for each in said["removed"])
    assert list(said["removed"][0]) == ["key", "size_bytes", "reason"]
    shown = ask("vacuum", "--lake", filled.url, "--grace", "0")
    assert "consumed" in shown.stdout
    assert "nothing was deleted; --delete does it." in shown.stderr
    gone = ask_json("vacuum", "--grace", "0", "--delete")
    assert gone == {**said, "is_dry_run": False}
    left = ask("vacuum", "--lake", filled.url, "--grace", "0", "--delete")
    assert (left.stdout, left.exit_code) == ("", 0)
    assert "nothing to delete" in left.stderr


@pytest.mark.parametrize(
    ("grace", "objects"), [("0.0001s", True), ("90s", False), ("30m", False), ("2d", False)]
)
def test_a_grace_is_a_number_with_a_unit(
    ask_json: Callable[..., Any], grace: str, *, objects: bool
) -> None:
    ask_json("compact")
    assert bool(ask_json("vacuum", "--grace", grace)["objects"]) is objects


def test_purge_removes_a_run_and_every_byte_of_it(
    ask_json: Callable[..., Any], filled: Filled, tmp_path: Path
) -> None:
    found = ask_json("purge", "alpha", "--yes")
    assert list(found) == [
        "run_ids",
        "experiment_id",
        "deleted_bytes",
        "written_bytes",
        "artifacts",
        "rows",
        "left",
        "freed_bytes",
    ]
    assert found["run_ids"] == [filled.ids["alpha"]]
    assert found["artifacts"] == 2
    assert found["left"] == []
    assert "alpha" not in {row["run_name"] for row in ask_json("ls", "--all")}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if filled.ids["alpha"] in str(path)]
    assert ask_json("purge", filled.ids["alpha"], "--yes")["rows"] == 0


def test_purge_called_again_takes_no_run_whose_id_begins_so(
    ask_json: Callable[..., Any], filled: Filled
) -> None:
    with runlake.open(filled.url) as lake:
        for run_id in ("trial-1", "trial-10"):
            lake.start_run(run_id=run_id).finish()
    for _ in range(2):
        assert ask_json("purge", "trial-1", "--yes")["run_ids"] == ["trial-1"]
    assert "trial-10" in {row["run_id"] for row in ask_json("ls")}


def test_purge_of_no_lake_says_so(ask: Callable[..., Result], tmp_path: Path) -> None:
    result = ask("purge", "alpha", "--yes", "--lake", str(tmp_path / "mistyped"))
    assert (result.exit_code, "is not a lake" in result.stderr) == (3, True)


def test_purge_of_an_experiment_succeeds_though_the_claim_of_its_name_stays(
    ask: Callable[..., Result], filled: Filled
) -> None:
    result = ask("purge", "-e", "odd", "--yes", "--lake", filled.url)
    assert result.exit_code == 0, result.output
    assert "could not be reached" in result.stdout
    assert BEYOND_REACH in result.stderr
    assert re.search(r"^runs +2$", result.stdout, flags=re.MULTILINE)
    with runlake.open(filled.url, read_only=True) as lake:
        assert lake.search_runs(run_view_type="ALL").height == 3


def answer(question: str, *arguments: str) -> tuple[int, str]:
    """Run the command line in a terminal, and type an answer."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "runlake", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, question.encode())
        shown = b""
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # how Linux says that nobody holds the other end
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    return process.returncode, shown.decode()


def test_a_terminal_is_asked_before_runs_are_purged(filled: Filled) -> None:
    code, shown = answer("n\n", "purge", "alpha", "beta", "--lake", filled.url)
    assert code == 130
    assert "Remove 2 runs" in shown
    with runlake.open(filled.url, read_only=True) as lake:
        assert lake.search_runs(run_view_type="ALL").height == 5
    code, shown = answer("n\n", "purge", "alpha", "--lake", filled.url)
    assert f"Remove run {filled.ids['alpha']} of" in shown  # a beginning may mean another
    code, shown = answer("y\n", "purge", "alpha", "beta", "--lake", filled.url)
    assert code == 0, shown
    with runlake.open(filled.url, read_only=True) as lake:
        assert lake.search_runs(run_view_type="ALL").height == 3


def test_a_terminal_shows_how_far_it_is_and_a_table(filled: Filled) -> None:
    code, shown = in_terminal("compact", "--lake", filled.url)
    assert code == 0
    assert "experiment_id" in shown
    assert "looking" in shown


def test_copy_brings_everything_once(
    ask: Callable[..., Result], filled: Filled, tmp_path: Path
) -> None:
    target = str(tmp_path / "copied")
    first = ask("copy", filled.url, target, "--json")
    assert first.exit_code == 0, first.output
    about = json.loads(first.stdout)
    assert about["runs"] == 5
    assert about["artifacts"] == 10
    again = json.loads(ask("copy", filled.url, target, "--alone", "--json").stdout)
    assert (again["runs"], again["rows"], again["artifacts"]) == (0, 0, 0)
    shown = [
        json.loads(ask("ls", "--all", "--json", "--lake", url).stdout)
        for url in (filled.url, target)
    ]
    for rows in shown:
        for row in rows:
            row.pop("artifact_uri")
    assert shown[0] == shown[1]
    assert json.loads(ask("verify", "--json", "--lake", target).stdout)["is_sound"]


def test_copy_takes_some_runs_or_experiments(
    ask: Callable[..., Result], filled: Filled, tmp_path: Path
) -> None:
    target = str(tmp_path / "some")
    result = ask("copy", filled.url, target, "--run", "alpha")
    assert result.exit_code == 0, result.output
    assert re.search(r"^runs +1$", result.stdout, flags=re.MULTILINE)
    assert ask("copy", filled.url, target, "-e", "odd").exit_code == 0
    with runlake.open(target, read_only=True) as lake:
        names = lake.search_runs(run_view_type="ALL")["run_name"].to_list()
    assert sorted(names) == ["alpha", "gone", "nan"]
    assert ask("copy", filled.url, target, "-e", "none").exit_code == 3
    assert ask("copy", str(tmp_path / "nothing"), target).exit_code == 3


def test_copy_onto_itself_is_refused(ask: Callable[..., Result], filled: Filled) -> None:
    result = ask("copy", filled.url, filled.url)
    assert result.exit_code == 4
    assert "same lake" in result.stderr


def test_copy_takes_its_lake_as_an_argument(
    ask: Callable[..., Result], filled: Filled, tmp_path: Path
) -> None:
    result = ask("copy", filled.url, str(tmp_path / "copied"), "--lake", filled.url)
    assert result.exit_code == 2
    assert "leave --lake out" in result.stderr


def test_publish_says_what_stands(ask_json: Callable[..., Any], filled: Filled) -> None:
    ask_json("compact")
    rows = ask_json("publish", "-t", "metrics")
    assert rows[0] | {"manifest": 0} == {
        "table": "metrics",
        "version": 0,
        "manifest": 0,
        "files": rows[0]["added"],
        "added": rows[0]["files"],
        "removed": 0,
    }
    with runlake.open(filled.url) as lake:
        log_run(lake, "delta", experiment="digits", losses=[1.0])
    ask_json("compact")
    assert ask_json("publish", "-t", "metrics")[0]["added"] == 0
