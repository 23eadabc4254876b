from __future__ import annotations

import csv
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

import runlake
from runlake.cli import alerts
from tests.cli.conftest import in_terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A lake with two runs, one of which prints, and three alerts."""
    with runlake.open(tmp_path / "lake") as lake:
        with lake.start_run("svm", experiment="digits", log_console=True) as run:
            print("epoch 1")
            print("epoch 2\x1b[0m\tok")
            print("warned", file=sys.stderr)
            run.alert("begun")
            run.alert("loss is NaN", "at step 7\nof 9", level="error")
        with lake.start_run("tree") as other:
            other.alert("slow", level="warning")
    return str(tmp_path / "lake")


def more(url: str, title: str) -> None:
    """Give one more alert."""
    with runlake.open(url) as lake, lake.start_run() as run:
        run.alert(title)


def titles(result: Result) -> list[str]:
    """Return what the alerts of a JSON answer say."""
    return [row["title"] for row in json.loads(result.stdout)["alerts"]]


def test_alerts_are_listed_the_oldest_first(ask: Callable[..., Result], url: str) -> None:
    result = ask("alerts", "--lake", url)
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["at", "level", "title", "text", "run_name"]
    assert [row.split()[1] for row in rows] == ["info", "error", "warning"]
    assert "at step 7\\nof 9" in rows[1]


def test_alerts_in_a_terminal_have_their_text_below(url: str) -> None:
    code, shown = in_terminal("alerts", "--lake", url)
    assert code == 0
    lines = shown.splitlines()
    assert "ERROR" in lines[1]
    assert lines[1].endswith("svm  loss is NaN")
    assert lines[2:4] == ["    at step 7", "    of 9"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--level", "error"), ["loss is NaN"]),
        (("--level", "error", "-l", "warning"), ["loss is NaN", "slow"]),
        (("--run", "tree"), ["slow"]),
        (("--since", "1h"), ["begun", "loss is NaN", "slow"]),
        (("--since", "1.5d"), ["begun", "loss is NaN", "slow"]),
        (("--since", "2020-01-01"), ["begun", "loss is NaN", "slow"]),
        (("--since", "2999-01-01T00:00+02:00"), []),
        (("--since", "0s"), []),
        (("--since", "now"), []),
    ],
)
def test_alerts_are_found_by_level_run_and_time(
    ask: Callable[..., Result], url: str, arguments: tuple[str, ...], found: list[str]
) -> None:
    assert titles(ask("alerts", "--lake", url, "--json", *arguments)) == found


def test_a_script_that_passes_the_cursor_on_has_each_alert_once(
    ask: Callable[..., Result], url: str
) -> None:
    first = ask("alerts", "--lake", url, "--json")
    assert len(titles(first)) == 3
    more(url, "fourth")
    cursor = json.loads(first.stdout)["cursor"]
    second = ask("alerts", "--lake", url, "--json", "--since", cursor)
    assert titles(second) == ["fourth"]
    cursor = json.loads(second.stdout)["cursor"]
    assert titles(ask("alerts", "--lake", url, "--json", "--since", cursor)) == []


def test_now_gives_a_cursor_that_only_what_comes_is_after(
    ask: Callable[..., Result], url: str
) -> None:
    cursor = json.loads(ask("alerts", "--lake", url, "--json", "--since", "now").stdout)["cursor"]
    more(url, "later")
    assert titles(ask("alerts", "--lake", url, "--json", "--since", cursor)) == ["later"]


def test_a_file_keeps_the_cursor_between_calls(
    ask: Callable[..., Result], url: str, tmp_path: Path
) -> None:
    kept = str(tmp_path / "seen.txt")
    call = ("alerts", "--lake", url, "--cursor", kept, "--exit-code", "--json")
    assert (ask(*call).exit_code, ask(*call).exit_code) == (1, 0)
    more(url, "fourth")
    result = ask(*call)
    assert (titles(result), result.exit_code) == (["fourth"], 1)
    assert [path.name for path in tmp_path.glob("seen*")] == ["seen.txt"]


def test_an_answer_that_cannot_be_given_leaves_the_cursor_where_it_was(
    ask: Callable[..., Result], url: str, tmp_path: Path
) -> None:
    kept = tmp_path / "seen.txt"
    call = ("alerts", "--lake", url, "--cursor", str(kept))
    assert ask(*call, "-o", str(tmp_path / "no suffix")).exit_code == 2
    assert not kept.exists()
    assert len(titles(ask(*call, "--json"))) == 3


def test_the_exit_code_says_whether_there_is_an_alert(ask: Callable[..., Result], url: str) -> None:
    assert ask("alerts", "--lake", url).exit_code == 0
    assert ask("alerts", "--lake", url, "--exit-code").exit_code == 1
    silent = ask("alerts", "--lake", url, "--exit-code", "--since", "now")
    assert (silent.exit_code, silent.stdout) == (0, "")
    assert "no alert" in silent.stderr


def test_watching_prints_each_alert_once_until_it_is_stopped(
    ask: Callable[..., Result], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt
        if len(pauses) == 1:
            more(url, "fourth")

    monkeypatch.setattr(alerts, "_pause", pause)
    result = ask("alerts", "--lake", url, "--json", "--watch", "2.5")
    assert result.exit_code == 130
    assert [json.loads(line)["title"] for line in result.stdout.splitlines()] == [
        "begun",
        "loss is NaN",
        "slow",
        "fourth",
    ]
    assert pauses == [2.5] * 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--since", "yesterday"),
        ("--since", "a1.broken"),
        ("--since", "1h", "--cursor", "file"),
        ("--watch", "1", "--csv"),
        ("--level", "fatal"),
    ],
)
def test_a_wrong_call_is_refused(
    ask: Callable[..., Result], url: str, arguments: tuple[str, ...]
) -> None:
    assert ask("alerts", "--lake", url, *arguments).exit_code == 2


def test_alerts_as_csv_have_a_header_and_all_fields(ask: Callable[..., Result], url: str) -> None:
    rows = list(csv.DictReader(io.StringIO(ask("alerts", "--lake", url, "--csv").stdout)))
    assert [row["title"] for row in rows] == ["begun", "loss is NaN", "slow"]
    assert {row["experiment_name"] for row in rows} == {"digits", "Default"}


# Logs.


def test_logs_print_what_the_run_printed(ask: Callable[..., Result], url: str) -> None:
    result = ask("logs", "--lake", url, "svm")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "epoch 1\nepoch 2\tok\nwarned\n"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--stream", "stderr"), "warned\n"),
        (("--grep", "epoch [1]$"), "epoch 1\n"),
        (("--tail", "1"), "warned\n"),
        (("-n", "0"), ""),
        (("-n", "1", "-g", "epoch"), "epoch 2\tok\n"),
        (("--follow",), "epoch 1\nepoch 2\tok\nwarned\n"),
    ],
)
def test_logs_are_narrowed(
    ask: Callable[..., Result], url: str, arguments: tuple[str, ...], found: str
) -> None:
    assert ask("logs", "--lake", url, "svm", *arguments).stdout == found


def test_logs_with_times_name_the_stream(ask: Callable[..., Result], url: str) -> None:
    last = ask("logs", "--lake", url, "svm", "--times").stdout.splitlines()[-1]
    assert last.split()[2:] == ["stderr", "warned"]


def test_logs_as_json_have_everything(ask: Callable[..., Result], url: str) -> None:
    rows: list[dict[str, Any]] = json.loads(ask("logs", "--lake", url, "svm", "--json").stdout)
    assert [(row["stream"], row["line"], row["text"]) for row in rows] == [
        ("stdout", 1, "epoch 1"),
        ("stdout", 2, "epoch 2\tok"),
        ("stderr", 3, "warned"),
    ]
    assert rows[0].keys() == {"at", "stream", "line", "text", "writer"}


def test_logs_of_a_run_without_a_console_say_so(ask: Callable[..., Result], url: str) -> None:
    result = ask("logs", "--lake", url, "tree")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "log_console=True" in result.stderr


def test_a_wrong_pattern_is_refused_also_where_there_is_no_line(
    ask: Callable[..., Result], url: str
) -> None:
    for run in ("svm", "tree"):
        result = ask("logs", "--lake", url, run, "--grep", "(")
        assert result.exit_code == 2
        assert "no regular expression" in result.stderr


def test_following_goes_on_until_the_run_ends(
    ask: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = runlake.open(tmp_path / "lake")
    run = lake.start_run("long", log_console=True)
    said = ["two", "three"]

    terminal = sys.stdout  # not what stands there while the command runs

    def pause(_: float) -> None:
        terminal.write(f"{said.pop(0)}\n")
        if not said:
            run.finish()
        lake.flush()

    monkeypatch.setattr(alerts, "_pause", pause)
    sys.stdout.write("one\n")
    with lake:
        lake.flush()
        result = ask("logs", "--lake", lake.url, "long", "--follow")
    assert result.stdout.split() == ["one", "two", "three"]


def test_what_the_machine_did_is_no_column_of_ls(
    ask: Callable[..., Result], tmp_path: Path
) -> None:
    with runlake.open(tmp_path / "lake") as lake, lake.start_run() as run:
        run.log_metrics({"system/cpu_utilization_percentage": 1.0, "acc": 0.5})
    header = ask("ls", "--lake", lake.url).stdout.splitlines()[0].split()
    assert "acc" in header
    assert not [title for title in header if title.startswith("system/")]
