from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import runlake

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from tests.cli.conftest import Filled

    Call = Callable[..., Result]
    CallJson = Callable[..., Any]


@pytest.fixture
def call(ask: Callable[..., Result], filled: Filled) -> Call:
    """Call a command on a lake with the model `digits`, of which version 1 is `champion`."""
    with runlake.open(filled.url) as lake:
        for name in ("alpha", "beta"):
            lake.registry.register_model(f"runs:/{filled.ids[name]}/notes", "digits")
        lake.registry.set_registered_model_alias("digits", "champion", 1, reason="the first")

    def call_(*arguments: str, **options: Any) -> Result:  # noqa: ANN401 - those of CliRunner
        return ask(*arguments, "--lake", filled.url, **options)

    return call_


@pytest.fixture
def call_json(call: Call) -> CallJson:
    """Call it with `--json`, and read the answer."""

    def call_json_(*arguments: str) -> Any:  # noqa: ANN401 - any JSON
        result = call(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return call_json_


def test_models_are_listed_and_found(call: Call, call_json: CallJson) -> None:
    (model,) = call_json("models", "ls")
    assert (model["name"], model["latest_version"]) == ("digits", 2)
    assert model["aliases"] == {"champion": 1}
    assert call_json("models", "ls", "--filter", "name = 'other'") == []
    shown = call("models", "ls").stdout
    assert "champion=1" in shown
    assert "no registered model" in call("models", "ls", "--filter", "name = 'x'").stderr
    assert call("models", "ls", "--filter", "nam = 'x'").exit_code == 2


def test_a_model_is_shown_with_its_versions(
    call: Call, call_json: CallJson, filled: Filled
) -> None:
    model = call_json("models", "show", "digits")
    assert [each["version"] for each in model["versions"]] == [2, 1]
    assert model["versions"][1]["run_id"] == filled.ids["alpha"]
    assert filled.ids["alpha"] in call("models", "show", "digits").stdout
    assert call("models", "show", "nothing").exit_code == 3


def test_versions_are_registered_copied_and_downloaded(
    call: Call, call_json: CallJson, filled: Filled, tmp_path: Path
) -> None:
    made = call_json(
        *("models", "register", f"runs:/{filled.ids['gamma']}/notes", "digits"),
        *("--tag", "size=small", "--description", "the third", "--reason", "a try"),
    )
    assert (made["version"], made["tags"]) == (3, {"size": "small"})
    assert (made["run_id"], made["description"]) == (filled.ids["gamma"], "the third")
    assert call("models", "register", "s3://b/m", "digits", "--tag", "size").exit_code == 2
    copied = call_json("models", "copy", "models:/digits/3", "other")
    assert (copied["name"], copied["version"]) == ("other", 1)
    found = call_json("models", "download", "models:/other/1", str(tmp_path / "here"))
    assert (tmp_path / "here") in (path := tmp_path / found["path"]).parents
    assert (path / "hello.txt").read_text() == "hello"


def test_aliases_stages_tags_and_texts_are_changed(call: Call, call_json: CallJson) -> None:
    assert call_json("models", "alias", "digits", "champion", "2")["aliases"] == {"champion": 2}
    assert call_json("models", "alias", "digits", "champion", "--delete")["aliases"] == {}
    assert call("models", "alias", "digits", "champion").exit_code == 2
    staged = call_json("models", "stage", "digits", "1", "production", "--archive-existing")
    assert staged["stage"] == "Production"
    assert call_json("models", "tag", "digits", "team", "vision")["tags"] == {"team": "vision"}
    assert call_json("models", "tag", "digits", "ok", "yes", "-v", "1")["tags"] == {"ok": "yes"}
    assert call_json("models", "tag", "digits", "team", "--delete")["tags"] == {}
    assert call_json("models", "tag", "digits", "ok", "--delete", "-v", "1")["tags"] == {}
    assert call_json("models", "describe", "digits", "reads")["description"] == "reads"
    assert call_json("models", "describe", "digits", "one", "-v", "1")["description"] == "one"
    assert call_json("models", "rename", "digits", "figures")["name"] == "figures"
    assert call("models", "show", "digits").exit_code == 3


def test_deletion_asks_and_is_for_ever(call: Call, call_json: CallJson) -> None:
    assert call("models", "delete", "digits", "-v", "2").exit_code == 2
    call_json("models", "delete", "digits", "-v", "2", "--yes")
    assert [each["version"] for each in call_json("models", "show", "digits")["versions"]] == [1]
    assert "deleted model 'digits'" in call("models", "delete", "digits", "--yes").stderr
    assert call_json("models", "ls") == []


def test_promotion_that_is_refused_ends_with_code_4_and_is_in_the_trail(
    call: Call, call_json: CallJson
) -> None:
    arguments = ("models", "promote", "digits", "2", "champion", "--require")
    refused = call(*arguments, "metrics.loss > 5", "--reason", "hope")
    assert refused.exit_code == 4
    assert "metrics.loss = 1.0" in refused.stderr
    assert call_json(*arguments, "metrics.loss < 5", "--reason", "good")["aliases"] == ["champion"]
    trail = call_json("models", "history", "digits")
    tried = [each for each in trail if each["kind"] == "registry_promotion"]
    assert [(each["value"], each["reason"]) for each in tried] == [
        ("refused", "hope"),
        ("promoted", "good"),
    ]
    shown = call("models", "history", "digits").stdout
    assert "refused" in shown
    assert "the first" in shown


def test_changes_are_given_once_by_cursor(call: Call, call_json: CallJson) -> None:
    first = call_json("models", "changes")
    assert {each["kind"] for each in first["changes"]} >= {"registry_model_create"}
    call("models", "tag", "digits", "team", "vision")
    second = call_json("models", "changes", "--since", first["cursor"])
    assert [each["key"] for each in second["changes"]] == ["team"]
    shown = call("models", "changes", "--since", second["cursor"])
    assert shown.stdout == ""
    assert "nothing has changed" in shown.stderr
    assert call("models", "changes", "--since", "x").exit_code == 2


def note_into(file: Path) -> str:
    """Return a shell command that notes down what it is given."""
    program = (
        "import json, os, sys; event = json.load(sys.stdin); "
        f"out = open({str(file)!r}, 'a'); "
        "print(event['key'], event['value'], os.environ['RUNLAKE_EVENT_KIND'], "
        "os.environ['RUNLAKE_EVENT_NAME'], os.environ['RUNLAKE_EVENT_VERSION'], file=out); "
        "sys.exit(event['value'] == 'bad')"
    )
    return f'{sys.executable} -c "{program}"'


def test_watch_gives_each_change_to_a_command_from_its_cursor_on(
    call: Call, tmp_path: Path
) -> None:
    notes, cursor = tmp_path / "notes", tmp_path / "cursor"
    watch = ("watch", "--once", "--cursor", str(cursor), "--exec", note_into(notes))
    assert call(*watch).exit_code == 0
    assert not notes.exists()  # it begins now
    call("models", "tag", "digits", "a", "good")
    call("models", "alias", "digits", "best", "2")
    assert call(*watch).exit_code == 0
    assert call(*watch).exit_code == 0
    assert notes.read_text().splitlines() == [
        "a good registry_model_tag digits ",
        "best 2 registry_alias digits 2",
    ]


@pytest.mark.parametrize("retry", [False, True])
def test_watch_says_when_a_command_fails_and_goes_on(
    call: Call, tmp_path: Path, *, retry: bool
) -> None:
    notes, cursor = tmp_path / "notes", tmp_path / "cursor"
    watch = ("watch", "--once", "--cursor", str(cursor), "--exec", note_into(notes))
    call(*watch)
    for key, value in (("a", "good"), ("b", "bad"), ("c", "good")):
        call("models", "tag", "digits", key, value)
    for _ in range(2):
        failed = call(*watch, *(["--retry"] if retry else []))
        assert failed.exit_code == (1 if retry or not _ else 0)
        assert ("ended with exit code 1" in failed.stderr) is bool(failed.exit_code)
    given = [line.split()[0] for line in notes.read_text().splitlines()]
    assert given == (["a", "b", "b"] if retry else ["a", "b", "c"])


def test_watch_without_a_command_prints_and_with_a_slow_one_says_so(call: Call) -> None:
    lines = call("watch", "--once", "--from-start", "--json").stdout.splitlines()
    assert json.loads(lines[0])["kind"] == "registry_model_create"
    assert "registry_alias" in call("watch", "--once", "--from-start").stdout
    slow = ("--exec", "cat > /dev/null; exec tail -f /dev/null", "--timeout", "0.1")
    shown = call("watch", "--once", "--from-start", *slow)
    assert shown.exit_code == 1
    assert "took longer than 0.1 s" in shown.stderr


def test_watch_ends_all_that_a_slow_command_has_started(call: Call, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = f"sleep 300 & echo $! >> {pids}; sleep 300 & echo $! >> {pids}; wait"
    shown = call("watch", "--once", "--from-start", "--exec", program, "--timeout", "0.5")
    assert "took longer than 0.5 s" in shown.stderr
    started = [int(line) for line in pids.read_text().splitlines()]
    assert started
    for pid in started:
        for _ in range(100):
            # What is killed stays listed until its parent, which may be far away, looks.
            if not is_at_work(pid):
                break
            time.sleep(0.05)
        else:
            pytest.fail(f"process {pid} goes on")


def is_at_work(pid: int) -> bool:
    """Tell whether a process is there and has not ended."""
    shown = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return bool(shown.stdout.strip()) and not shown.stdout.startswith("Z")


def test_watch_goes_on_until_it_is_stopped(call: Call, filled: Filled, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    command = [sys.executable, "-m", "runlake", "watch", "--lake", filled.url, "--from-start"]
    command += ["--every", "0.1", "--exec", f"cat >> {notes}; kill -INT $PPID"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 130, done.stderr
    assert json.loads(notes.read_text().splitlines()[0])["name"] == "digits"
    assert call("models", "ls").exit_code == 0
