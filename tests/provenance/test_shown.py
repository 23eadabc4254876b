"""What people see of where runs come from, and what the specification says of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from runlake import provenance
from runlake.cli import main
from runlake.lake import open_lake
from tests.format import spec

if TYPE_CHECKING:
    from pathlib import Path

    from tests.provenance.conftest import Repository


def ask(*arguments: str) -> str:
    """Ask on the command line."""
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def url(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A lake with a run of a clean repository, and one of a changed one in a pod."""
    monkeypatch.chdir(repository.folder)
    place = str(tmp_path / "lake")
    for name in ("first", "second"):
        repository.commit(text=f"name = '{name}'\n")
        if name == "second":
            repository.write("train.py", "name = 'changed'\n")
            repository.git("remote", "add", "origin", "https://example.org/a.git")
            monkeypatch.setenv("RANK", "0")
        with open_lake(place) as lake, lake.start_run(name, run_id=f"run-{name}"):
            provenance.settle(30.0)
    return place


def test_show_begins_with_commit_command_and_host(url: str, repository: Repository) -> None:
    commit = repository.git("rev-parse", "HEAD").strip()
    shown = ask("show", "second", "--lake", url)
    assert f"{commit} (dirty)" in shown
    for word in ("trunk", "https://example.org/a.git", "python", "host"):
        assert word in shown
    told = json.loads(ask("show", "second", "--lake", url, "--json"))["provenance"]
    assert (told["git.commit"], told["git.dirty"]) == (commit, "true")
    assert not [key for key in told if key.startswith("packages.")]
    assert "(dirty)" not in ask("show", "first", "--lake", url)


def test_diff_sets_side_by_side_where_runs_come_from(url: str) -> None:
    rows = json.loads(ask("diff", "first", "second", "--provenance", "--lake", url, "--json"))
    found: dict[str, Any] = {row["key"]: (row["first"], row["second"]) for row in rows}
    assert {row["kind"] for row in rows} == {"provenance"}
    assert found["git.dirty"] == ("false", "true")
    assert found["git.remote"] == (None, "https://example.org/a.git")
    assert found["environment.RANK"] == (None, "0")
    assert found["git.commit"][0] != found["git.commit"][1]
    assert "packages.pytest" not in found
    same = ask("diff", "first", "second", "--provenance", "--same", "--lake", url, "--json")
    assert "packages.pytest" in {row["key"] for row in json.loads(same)}


def test_fields_of_the_specification_are_those_that_runs_are_told(url: str) -> None:
    with open_lake(url) as lake:
        told = set(lake.sql("SELECT key FROM provenance WHERE run_id = 'run-second'")["key"])
    missing = {
        f"{key}.{field}"
        for key, fields, *_ in spec.tables()["provenance"]
        for field in fields.replace("`", "").split(", ")
        if " " not in field and f"{key}.{field}" not in told
    }
    # Only in containers, and of long patches.
    assert missing <= {"host.container", "host.container_id", "git.diff_cut"}


def test_compaction_changes_nothing_of_it(url: str) -> None:
    query = "SELECT run_id, key, value, provenance.at, writer FROM provenance ORDER BY ALL"
    with open_lake(url) as lake:
        before = lake.sql(query).rows()
        lake.maintain.compact()
        assert lake.sql(query).rows() == before
        assert lake.scan("provenance").collect().height == len(before)
        lake.maintain.purge(["run-first"])
        assert lake.sql("SELECT DISTINCT run_id FROM provenance").item() == "run-second"
        assert lake.artifacts.list("run-second", "provenance")
