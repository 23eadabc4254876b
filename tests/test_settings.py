"""Every knob: documented, named by one variable, settled in one order."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

from runlake.errors import InvalidInputError
from runlake.settings import (
    PROVENANCE_PARTS,
    Settings,
    cache_root,
    provenance_parts,
    resolve,
)

if TYPE_CHECKING:
    from pathlib import Path

# A text for each variable, and what it means.
TEXTS: dict[str, tuple[str, object]] = {
    "url": ("s3://team/lake", "s3://team/lake"),
    "storage_options": ('{"anon": true}', {"anon": True}),
    "mode": ("disabled", "disabled"),
    "strict": ("1", True),
    "experiment": ("digits", "digits"),
    "run_id": ("0193a8", "0193a8"),
    "journal": ("journals", "journals"),
    "journal_limit_bytes": ("1024", 1024),
    "cache": ("cached", "cached"),
    "cache_limit_bytes": ("2048", 2048),
    "close_timeout_s": ("1.5", 1.5),
    "name_timeout_s": ("2", 2.0),
    "heartbeat_s": ("60", 60.0),
    "stale_s": ("120", 120.0),
    "refresh_s": ("0", 0.0),
    "query_memory_bytes": ("4096", 4096),
    "query_threads": ("2", 2),
    "request_timeout_s": ("3.5", 3.5),
    "parallel_requests": ("8", 8),
    "compact": ("off", "off"),
    "provenance": ("git,-diff", "git,-diff"),
    "redact": ("+codename", "+codename"),
    "system_metrics": ("1", True),
    "system_metrics_interval_s": ("2.5", 2.5),
    "system_metrics_node": ("node", "node"),
    "console": ("1", True),
}


def test_each_setting_is_documented_where_it_is_defined() -> None:
    text = inspect.getdoc(Settings) or ""
    documented = re.findall(r"^    (\w+): ", text, flags=re.MULTILINE)
    assert documented == [knob.name for knob in fields(Settings)]


def test_settings_stay_few() -> None:
    assert len(fields(Settings)) <= 28


def test_each_setting_has_a_variable_named_after_it() -> None:
    variables = [knob.metadata["env"] for knob in fields(Settings)]
    assert variables == [f"RUNLAKE_{knob.name.upper()}" for knob in fields(Settings)]


def test_each_setting_is_read_from_its_variable() -> None:
    environ = {f"RUNLAKE_{name.upper()}": text for name, (text, _) in TEXTS.items()}
    settings, origin = resolve(environ=environ)
    read = {knob.name: getattr(settings, knob.name) for knob in fields(Settings)}
    assert read == {name: value for name, (_, value) in TEXTS.items()}
    assert origin == {name: f"RUNLAKE_{name.upper()}" for name in TEXTS}


def test_an_argument_beats_the_environment_which_beats_the_default() -> None:
    environ = {"RUNLAKE_URL": "from-environment", "RUNLAKE_STALE_S": "1"}
    settings, origin = resolve(environ=environ, url="from-argument", strict=None)
    assert (settings.url, origin["url"]) == ("from-argument", "argument")
    assert (settings.stale_s, origin["stale_s"]) == (1.0, "RUNLAKE_STALE_S")
    assert (settings.strict, origin["strict"]) == (False, "default")


def test_an_empty_variable_counts_as_not_set() -> None:
    settings, origin = resolve(environ={"RUNLAKE_URL": "", "RUNLAKE_STRICT": ""})
    assert (settings.url, origin["url"]) == ("./lake", "default")
    assert origin["strict"] == "default"


@pytest.mark.parametrize("text", ["1", "true", "YES", "on"])
def test_a_flag_is_set_by_every_usual_word(text: str) -> None:
    assert resolve(environ={"RUNLAKE_STRICT": text})[0].strict is True


@pytest.mark.parametrize("text", ["0", "False", "no", "OFF"])
def test_a_flag_is_cleared_by_every_usual_word(text: str) -> None:
    assert resolve(environ={"RUNLAKE_STRICT": text})[0].strict is False


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RUNLAKE_STRICT", "perhaps"),
        ("RUNLAKE_PARALLEL_REQUESTS", "many"),
        ("RUNLAKE_STALE_S", "soon"),
        ("RUNLAKE_REFRESH_S", "never"),
        ("RUNLAKE_STORAGE_OPTIONS", "{"),
        ("RUNLAKE_STORAGE_OPTIONS", "[1]"),
        ("RUNLAKE_MODE", "offline"),
        ("RUNLAKE_COMPACT", "on"),
        ("RUNLAKE_PROVENANCE", "git,weather"),
        ("RUNLAKE_REDACT", "("),
    ],
)
def test_a_text_that_does_not_fit_is_refused_by_variable_and_text(variable: str, text: str) -> None:
    with pytest.raises(InvalidInputError, match=variable) as refused:
        resolve(environ={variable: text})
    assert repr(text) in str(refused.value)


def test_a_mode_given_as_argument_is_checked_too() -> None:
    with pytest.raises(InvalidInputError, match="'offline'"):
        resolve(environ={}, mode="offline")


def test_disabled_mode_is_a_question() -> None:
    assert resolve(environ={}, mode="disabled")[0].is_disabled
    assert not resolve(environ={})[0].is_disabled


def test_storage_options_never_show_in_the_repr() -> None:
    assert "secret" not in repr(Settings(storage_options={"key": "secret"}))


def test_cache_root_follows_the_setting_then_the_users_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cache_root(Settings(cache=str(tmp_path / "mine"))) == tmp_path / "mine"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root(Settings()) == tmp_path / "runlake"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root(Settings()) == tmp_path / ".cache" / "runlake"


def test_cache_root_without_a_home_is_a_folder_of_this_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/")
    assert re.fullmatch(r"runlake-\d+", cache_root(Settings()).name)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("on", set(PROVENANCE_PARTS)),
        ("TRUE", set(PROVENANCE_PARTS)),
        ("off", set()),
        ("0", set()),
        (",", set()),
        ("git, process", {"git", "process"}),
        ("-diff", set(PROVENANCE_PARTS) - {"diff"}),
        ("git,diff,-diff", {"git"}),
    ],
)
def test_provenance_is_on_or_off_or_some_of_its_parts(text: str, parts: set[str]) -> None:
    assert provenance_parts(text) == parts
