from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runlake

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from click.testing import Result

    from tests.cli.conftest import Filled


def segments_of(url: str) -> list[Path]:
    """Return the segment files of a local lake."""
    return sorted(Path(url).rglob("*.parquet"))


def test_info_as_json_tells_what_is_in_the_lake_and_where_settings_came_from(
    ask_json: Callable[..., Any], filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLAKE_STALE_S", "60")
    monkeypatch.setenv("RUNLAKE_STORAGE_OPTIONS", '{"auto_mkdir": true}')
    about = ask_json("info")
    assert list(about) == ["lake", "counts", "journal", "cache", "settings", "versions"]
    assert about["lake"] == filled.url
    assert about["counts"]["experiments"] == 2
    assert about["counts"]["runs"] == 4
    assert about["counts"]["segments"] == len(segments_of(filled.url))
    assert list(about["journal"]) == ["folder", "reason", "is_mapped", "journals"]
    assert about["journal"]["journals"] == 0
    assert about["settings"]["url"]["origin"] == "argument"
    assert about["settings"]["stale_s"] == {
        "value": 60.0,
        "origin": "RUNLAKE_STALE_S",
        "variable": "RUNLAKE_STALE_S",
    }
    assert about["settings"]["strict"]["origin"] == "default"
    assert about["settings"]["storage_options"]["value"] == {"auto_mkdir": "(hidden)"}
    assert about["versions"]["runlake"] == runlake.__version__


def test_info_prints_every_setting(ask: Callable[..., Result], filled: Filled) -> None:
    shown = ask("info", "--lake", filled.url).stdout
    with runlake.open(filled.url) as lake:
        assert [name for name in lake.origin if f"\n{name}" not in shown] == []


def test_info_where_there_is_no_lake_shows_the_settings_and_fails(
    ask: Callable[..., Result], tmp_path: Path
) -> None:
    result = ask("info", "--json", "--lake", str(tmp_path / "none"))
    assert result.exit_code == 3
    assert "is not a lake" in result.stderr
    about = json.loads(result.stdout)
    assert about["counts"] is None
    assert about["settings"]["url"]["value"] == str(tmp_path / "none")


def test_verify_of_a_sound_lake_counts_and_succeeds(
    ask_json: Callable[..., Any], filled: Filled
) -> None:
    report = ask_json("verify")
    findings = report.pop("findings")
    assert [each for each in findings if each["is_fault"]] == []
    assert report["is_sound"] is True
    assert report["segment_count"] == len(segments_of(filled.url))
    assert list(report) == [
        "lake",
        "is_sound",
        "object_count",
        "segment_count",
        "row_count",
        "size_bytes",
        "table_count",
        "table_rows",
        "mended",
    ]


def test_verify_of_a_damaged_segment_names_it_and_fails(
    ask: Callable[..., Result], filled: Filled
) -> None:
    segment = segments_of(filled.url)[-1]
    segment.chmod(0o644)
    segment.write_bytes(segment.read_bytes()[:-100])
    result = ask("verify", "--lake", filled.url)
    assert result.exit_code == 1
    assert "faults       1\n" in result.stdout
    assert f"fault  damaged  {segment.relative_to(filled.url)}" in result.stdout
    (finding,) = json.loads(ask("verify", "--json", "--lake", filled.url).stdout)["findings"]
    assert list(finding) == ["key", "kind", "is_fault", "detail"]


def test_verify_repairs_only_when_it_is_told_to_and_says_what_it_did(
    ask: Callable[..., Result], filled: Filled
) -> None:
    segment = segments_of(filled.url)[-1]
    whole = segment.read_bytes()
    segment.chmod(0o644)
    segment.write_bytes(whole[:-100])
    asked = ask("verify", "--repair", "--lake", filled.url)
    assert asked.exit_code == 2
    assert "--yes" in asked.stderr
    assert segment.exists()
    key = segment.relative_to(filled.url).as_posix()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = ask("verify", "--repair", "--yes", "--json", "--lake", filled.url)
    assert "in no other file" in result.stderr
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [(each["deed"], each["key"]) for each in report["mended"]] == [
        ("quarantined", key),
        ("lost", key),
    ]
    assert not segment.exists()
    aside = Path(filled.url) / "quarantine" / key
    assert aside.read_bytes() == whole[:-100]
    assert [each["kind"] for each in report["findings"]] == ["quarantined"]


def test_verify_of_artifacts_finds_other_content(
    ask: Callable[..., Result], filled: Filled
) -> None:
    (found,) = Path(filled.url).rglob(f"{filled.ids['alpha']}/notes/hello.txt")
    found.chmod(0o644)
    found.write_bytes(b"jello")
    assert ask("verify", "--lake", filled.url).exit_code == 0
    result = ask("verify", "--artifacts", "--lake", filled.url)
    assert result.exit_code == 1
    assert "fault  artifact" in result.stdout


def test_verify_of_a_lake_without_its_lake_file_reports_it(
    ask: Callable[..., Result], filled: Filled
) -> None:
    (Path(filled.url) / "runlake.json").unlink()
    result = ask("verify", "--lake", filled.url)
    assert result.exit_code == 1
    assert "fault  missing  runlake.json" in result.stdout


KILLED = """
import os, signal, sys, runlake
run = runlake.open(sys.argv[1]).start_run("killed", experiment="digits")
run.flush()
for step in range(100):
    run.log({"loss": 1.0}, step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_recover_brings_in_what_a_killed_process_left(
    ask_json: Callable[..., Any], filled: Filled
) -> None:
    command = [sys.executable, "-c", KILLED, filled.url]
    killed = subprocess.run(command, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (found,) = ask_json("recover")
    assert list(found) == ["folder", "writer", "rows", "killed_runs", "problem"]
    shown = ask_json("show", "killed")
    assert found["killed_runs"] == [shown["run_id"]]
    assert found["problem"] is None
    assert shown["status"] == "KILLED"
    assert shown["metrics"]["loss"]["count"] == 100
    assert ask_json("recover") == []


def test_recover_without_journals_says_so(ask: Callable[..., Result], filled: Filled) -> None:
    result = ask("recover", "--lake", filled.url)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "everything is in the lake" in result.stderr


def test_recover_leaves_a_journal_of_another_host_unless_forced(
    ask: Callable[..., Result], filled: Filled
) -> None:
    command = [sys.executable, "-c", KILLED, filled.url]
    subprocess.run(command, check=False, capture_output=True)
    (owner,) = Path(os.environ["HOME"]).rglob("owner.json")
    fields = json.loads(owner.read_text())
    owner.write_text(json.dumps(fields | {"host": "elsewhere"}))
    result = ask("recover", "--lake", filled.url)
    assert result.exit_code == 1
    assert "belongs to host elsewhere" in result.stdout
    forced = ask("recover", "--lake", filled.url, "--force", "--json")
    assert forced.exit_code == 0
    assert json.loads(forced.stdout)[0]["problem"] is None
