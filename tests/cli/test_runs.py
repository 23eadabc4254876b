from __future__ import annotations

import csv
import io
import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import runlake
from tests.cli.conftest import in_terminal, log_run

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.cli.conftest import Filled

RUN_FIELDS = [
    "run_id",
    "run_name",
    "experiment_id",
    "experiment_name",
    "status",
    "is_stale",
    "start_time",
    "end_time",
    "duration",
    "artifact_uri",
]
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def rows_of(text: str) -> list[list[str]]:
    """Split aligned text into rows of cells."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def test_ls_lists_the_newest_first_with_full_ids(
    ask: Callable[..., Result], filled: Filled
) -> None:
    result = ask("ls", "--lake", filled.url)
    header, *rows = rows_of(result.stdout)
    assert header == ["name", "id", "experiment", "status", "started", "took", "loss"]
    assert [row[0] for row in rows] == ["nan", "gamma", "beta", "alpha"]
    assert [row[1] for row in rows] == [filled.ids[row[0]] for row in rows]
    assert {row[3] for row in rows} == {"FINISHED"}
    assert all(ISO.fullmatch(row[4]) for row in rows)
    assert [row[-1] for row in rows] == ["inf", "2.0", "1.0", "0.0"]
    assert result.stderr == ""


def test_ls_as_json_holds_everything_of_a_run(ask_json: Callable[..., Any], filled: Filled) -> None:
    newest, *_, oldest = ask_json("ls")
    assert list(oldest) == [*RUN_FIELDS, "metrics", "params", "tags"]
    assert oldest["run_id"] == filled.ids["alpha"]
    assert oldest["experiment_name"] == "digits"
    assert oldest["is_stale"] is False
    assert oldest["params"] == {"lr": "0.1", "note": "two\nlines \x1b[31m"}
    assert oldest["tags"] == {"team": "vision"}
    assert ISO.fullmatch(oldest["start_time"])
    began, ended = (datetime.fromisoformat(oldest[name]) for name in ("start_time", "end_time"))
    assert oldest["duration"] == (ended - began).total_seconds()
    assert newest["metrics"] == {"loss": "Infinity"}


def test_ls_of_one_experiment_leaves_the_others_out(ask_json: Callable[..., Any]) -> None:
    assert [row["run_name"] for row in ask_json("ls", "-e", "odd")] == ["nan"]
    both = ask_json("ls", "--experiment", "odd", "--experiment", "digits")
    assert len(both) == 4


def test_ls_filters_with_the_search_grammar(ask_json: Callable[..., Any]) -> None:
    found = ask_json("ls", "--filter", "metrics.loss < 2 and params.lr = '0.1'")
    assert [row["run_name"] for row in found] == ["beta", "alpha"]


def test_ls_cut_by_its_limit_says_so(ask: Callable[..., Result], filled: Filled) -> None:
    result = ask("ls", "--lake", filled.url, "--limit", "2")
    assert [row[0] for row in rows_of(result.stdout)[1:]] == ["nan", "gamma"]
    assert result.stderr == "These are the newest 2 of 4; --limit shows more.\n"
    assert ask("ls", "--lake", filled.url, "--limit", "0").stderr == ""


def test_ls_shows_deleted_runs_only_when_asked(ask_json: Callable[..., Any]) -> None:
    assert [row["run_name"] for row in ask_json("ls", "--deleted")] == ["gone"]


def test_ls_shows_the_metrics_that_were_asked_for(
    ask: Callable[..., Result], filled: Filled
) -> None:
    header, first, *_ = rows_of(ask("ls", "--lake", filled.url, "-m", "acc", "-m", "loss").stdout)
    assert header[-2:] == ["acc", "loss"]
    assert first[-2:] == ["-", "inf"]


def test_ls_without_runs_says_so_and_prints_no_data(
    ask: Callable[..., Result], ask_json: Callable[..., Any], filled: Filled
) -> None:
    result = ask("ls", "--lake", filled.url, "--filter", "metrics.loss < 0")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"no run that fits in {filled.url}.\n"
    assert ask_json("ls", "--filter", "metrics.loss < 0") == []


def test_ls_of_an_open_run_that_fell_silent_shows_it_as_stale(
    ask: Callable[..., Result], filled: Filled
) -> None:
    with runlake.open(filled.url) as lake:
        run = lake.start_run("silent")
        run.flush()
        for file in Path(filled.url).rglob("*.parquet"):
            os.utime(file, (0, 0))  # the last sign of life
        status = rows_of(ask("ls", "--lake", filled.url).stdout)[1][3]
        run.finish()
    assert status == "RUNNING (stale)"


def test_ls_in_a_terminal_fits_it_and_shortens_ids(filled: Filled) -> None:
    code, shown = in_terminal("ls", "--lake", filled.url)
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert code == 0
    assert max(map(len, lines)) <= 80
    short = rows_of("\n".join(lines))[1][1]
    assert len(short) < 32
    assert filled.ids["nan"].startswith(short)
    assert "ago" in lines[1]


def test_show_finds_a_run_by_id_by_its_beginning_and_by_name(
    ask_json: Callable[..., Any], filled: Filled
) -> None:
    run_id = filled.ids["beta"]
    others = [other for other in filled.ids.values() if other != run_id]
    length = next(n for n in range(1, 33) if not any(o.startswith(run_id[:n]) for o in others))
    for wanted in (run_id, run_id[:length], "beta"):
        assert ask_json("show", wanted)["run_id"] == run_id


def test_show_as_json_holds_info_params_summaries_tags_and_artifacts(
    ask_json: Callable[..., Any],
) -> None:
    shown = ask_json("show", "alpha")
    extra = ["lifecycle_stage", "user_id", "source_name", "parent_run_id"]
    parts = ["params", "tags", "metrics", "inputs", "artifacts", "provenance"]
    assert list(shown) == [*RUN_FIELDS, *extra, *parts]
    loss = shown["metrics"]["loss"]
    assert {name: loss[name] for name in ("last", "min", "max", "first", "count")} == {
        "last": 0.0,
        "min": 0.0,
        "max": 1.0,
        "first": 1.0,
        "count": 3,
    }
    assert ISO.fullmatch(loss["last_time"])
    assert shown["artifacts"] == [
        {"path": "config.json", "is_dir": False, "size": 12},
        {"path": "notes", "is_dir": True, "size": None},
    ]


def test_show_as_json_tells_nan_from_absent(ask_json: Callable[..., Any]) -> None:
    loss = ask_json("show", "nan")["metrics"]["loss"]
    assert (loss["first"], loss["last"], loss["nan_count"]) == ("NaN", "Infinity", 1)


def test_show_finds_a_deleted_run(ask_json: Callable[..., Any]) -> None:
    assert ask_json("show", "gone")["lifecycle_stage"] == "deleted"


def test_show_prints_params_on_one_line_without_control_characters(
    ask: Callable[..., Result], filled: Filled
) -> None:
    shown = ask("show", "alpha", "--lake", filled.url).stdout
    assert "note  two\\nlines \\x1b[31m\n" in shown
    assert "\x1b" not in shown
    for heading in ("params", "metrics", "tags", "artifacts"):
        assert f"\n\n{heading}\n" in shown


def test_show_of_a_name_that_two_runs_have_lists_both(
    ask: Callable[..., Result], filled: Filled
) -> None:
    with runlake.open(filled.url) as lake:
        twin = log_run(lake, "alpha", experiment="digits", losses=[])
    result = ask("show", "alpha", "--lake", filled.url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: 'alpha' fits 2 runs: ")
    named = re.findall(r"(\w+) \(alpha\)", result.stderr)
    assert [any(run.startswith(part) for run in (twin, filled.ids["alpha"])) for part in named] == [
        True,
        True,
    ]


def test_show_of_a_beginning_that_fits_several_ids_asks_for_more(
    ask: Callable[..., Result], filled: Filled
) -> None:
    result = ask("show", filled.ids["alpha"][:2], "--lake", filled.url)
    assert result.exit_code == 2
    assert "fits 5 runs" in result.stderr


def test_show_of_an_unknown_run_names_the_nearest(
    ask: Callable[..., Result], filled: Filled
) -> None:
    result = ask("show", "alhpa", "--lake", filled.url)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "no run 'alhpa'" in result.stderr
    assert "Did you mean 'alpha'" in result.stderr


def test_show_of_a_name_with_quotes_and_wildcards_is_looked_up_as_it_is(
    ask: Callable[..., Result], filled: Filled
) -> None:
    odd = 'it\'s "100%_"'
    with runlake.open(filled.url) as lake:
        run_id = log_run(lake, odd, experiment="odd", losses=[])
    assert run_id in ask("show", odd, "--lake", filled.url).stdout
    assert ask("show", "%", "--lake", filled.url).exit_code == 3


def test_an_unreadable_filter_is_pointed_at_with_a_caret(
    ask: Callable[..., Result], filled: Filled
) -> None:
    result = ask("ls", "--lake", filled.url, "--filter", "metrics.loss >")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: line 1, column ")
    assert result.stderr.endswith("^\n")


def test_an_unknown_experiment_names_the_nearest(
    ask: Callable[..., Result], filled: Filled
) -> None:
    result = ask("ls", "--lake", filled.url, "-e", "digit")
    assert result.exit_code == 3
    assert "Did you mean 'digits'" in result.stderr


def test_ls_shows_the_columns_that_were_asked_for(
    ask: Callable[..., Result], filled: Filled
) -> None:
    fields = ["params.lr", "metrics.loss.max", "tags.team", "status", "metrics.none"]
    chosen = [word for field in fields for word in ("-c", field)]
    header, *rows = rows_of(ask("ls", "--lake", filled.url, *chosen, "-m", "loss").stdout)
    assert header == ["name", "id", *fields, "loss"]
    assert rows[-1] == [
        "alpha",
        filled.ids["alpha"],
        "0.1",
        "1.0",
        "vision",
        "FINISHED",
        "-",
        "0.0",
    ]


def test_ls_as_json_has_the_fields_that_were_asked_for(ask_json: Callable[..., Any]) -> None:
    *_, oldest = ask_json("ls", "-c", "metrics.loss.count", "-c", "tags.nothing")
    assert oldest["fields"] == {"metrics.loss.count": 3.0, "tags.nothing": None}


def test_ls_in_another_order(
    ask: Callable[..., Result], ask_json: Callable[..., Any], filled: Filled
) -> None:
    found = ask_json("ls", "-s", "metrics.loss", "-s", "run_name")
    assert [row["run_name"] for row in found] == ["alpha", "beta", "gamma", "nan"]
    cut = ask("ls", "--lake", filled.url, "-s", "metrics.loss", "-n", "1")
    assert cut.stderr == "These are the first 1 of 4; --limit shows more.\n"


def test_ls_of_deleted_runs_and_the_others(ask_json: Callable[..., Any]) -> None:
    found = {row["run_name"] for row in ask_json("ls", "--all")}
    assert found == {"alpha", "beta", "gamma", "nan", "gone"}


def test_ls_as_csv_has_a_column_for_all_that_the_runs_hold(
    ask: Callable[..., Result], filled: Filled
) -> None:
    result = ask("ls", "--lake", filled.url, "--csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout, newline="")))
    held = ["metrics.loss", "params.lr", "params.note", "tags.team"]
    assert list(rows[0]) == [*RUN_FIELDS, *held]
    assert [row["metrics.loss"] for row in rows] == ["inf", "2.0", "1.0", "0.0"]
    assert rows[0]["params.note"] == "two\nlines \x1b[31m"
    assert rows[0]["is_stale"] == "false"
    assert ISO.fullmatch(rows[0]["start_time"])
    narrow = ask("ls", "--lake", filled.url, "--csv", "-c", "params.lr").stdout
    assert narrow.splitlines()[0] == "run_id,run_name,params.lr"


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.jsonl", "out.parquet", "out.arrow"])
def test_ls_writes_to_a_file_as_its_suffix_says(
    ask: Callable[..., Result], filled: Filled, tmp_path: Path, name: str
) -> None:
    result = ask("ls", "--lake", filled.url, "--output", str(tmp_path / name), "-n", "0")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    data = (tmp_path / name).read_bytes()
    if name == "out.json":
        assert [row["run_name"] for row in json.loads(data)][-1] == "alpha"
        return
    read: dict[str, Callable[[io.BytesIO], pl.DataFrame]] = {
        ".csv": pl.read_csv,
        ".jsonl": pl.read_ndjson,
        ".parquet": pl.read_parquet,
        ".arrow": pl.read_ipc,
    }
    frame = read[Path(name).suffix](io.BytesIO(data))
    assert frame["run_name"].to_list() == ["nan", "gamma", "beta", "alpha"]


def test_an_output_file_that_does_not_say_how_is_refused(
    ask: Callable[..., Result], filled: Filled, tmp_path: Path
) -> None:
    result = ask("ls", "--lake", filled.url, "-o", str(tmp_path / "out.txt"))
    assert result.exit_code == 2
    assert "does not tell the format" in result.stderr
    assert ask("ls", "--lake", filled.url, "-o", str(tmp_path / "out.txt"), "--csv").exit_code == 0
    assert (tmp_path / "out.txt").read_text().startswith("run_id,")


def test_show_as_csv_has_a_line_for_each_value(ask: Callable[..., Result], filled: Filled) -> None:
    result = ask("show", "alpha", "--lake", filled.url, "--csv")
    rows = {(row[0], row[1]): row[2] for row in csv.reader(io.StringIO(result.stdout, newline=""))}
    assert rows["part", "key"] == "value"
    assert rows["", "run_id"] == filled.ids["alpha"]
    assert rows["params", "lr"] == "0.1"
    assert rows["metrics", "loss.max"] == "1.0"
    assert rows["artifacts", "0.path"] == "config.json"


def test_diff_shows_what_differs(ask: Callable[..., Result], filled: Filled) -> None:
    header, *rows = rows_of(ask("diff", "alpha", "beta", "--lake", filled.url).stdout)
    assert header == ["kind", "key", "alpha", "beta"]
    assert ["attribute", "run_id", filled.ids["alpha"], filled.ids["beta"]] in rows
    assert ["metric", "loss", "0.0", "1.0"] in rows
    assert "param" not in {row[0] for row in rows}


def test_diff_shows_what_is_the_same_or_all(ask_json: Callable[..., Any]) -> None:
    same = ask_json("diff", "alpha", "beta", "--same")
    assert {"kind": "param", "key": "lr", "alpha": "0.1", "beta": "0.1"} in same
    differing = ask_json("diff", "alpha", "beta")
    assert len(ask_json("diff", "alpha", "beta", "--all")) == len(same) + len(differing)


def test_diff_of_one_run_is_refused(ask: Callable[..., Result], filled: Filled) -> None:
    result = ask("diff", "alpha", "--lake", filled.url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "takes two runs or more" in result.stderr


def test_diff_in_a_terminal_fits_it(filled: Filled) -> None:
    code, shown = in_terminal("diff", "alpha", "beta", "gamma", "--all", "--lake", filled.url)
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert code == 0
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["key", "alpha", "beta", "gamma"]
    # What is the same stands back.
    assert re.search(r"^\x1b\[2mparam", shown, re.MULTILINE)
    assert re.search(r"^metric ", shown, re.MULTILINE)
