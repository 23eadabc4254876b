"""What runs are told of where they come from, and when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from runlake import provenance
from runlake.errors import InvalidInputError
from runlake.lake import Lake, open_lake
from runlake.provenance import collector
from runlake.provenance.git import Code, Git
from runlake.settings import Settings
from tests.meta.tree import run_python

if TYPE_CHECKING:
    from pathlib import Path

    from tests.provenance.conftest import Repository

PARTS = ["environment", "git", "host", "packages", "process"]
SCRIPT = """
import runlake
with runlake.start_run(run_name="short", tags={"mlflow.source.git.branch": "mine"}):
    runlake.log_metric("loss", 0.5)
"""


@pytest.fixture(autouse=True)
def knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a process does."""
    monkeypatch.setattr(collector, "_here", collector.Collector())


def known(lake: Lake, run_id: str) -> dict[str, str]:
    """Return the provenance of a run with one writer."""
    rows = lake.sql("SELECT key, value FROM provenance WHERE run_id = $1", [run_id]).rows()
    assert len(rows) == len(dict(rows))
    return dict(rows)


def parts(lake: Lake, run_id: str) -> list[str]:
    """Return the parts that a run was told."""
    query = "SELECT DISTINCT split_part(key, '.', 1) FROM provenance WHERE run_id = $1 ORDER BY 1"
    return [str(part) for (part,) in lake.sql(query, [run_id]).rows()]


def test_a_run_of_a_moment_gets_everything_though_its_process_ends(
    repository: Repository,
) -> None:
    repository.commit("train.py", SCRIPT)
    commit = repository.git("rev-parse", "HEAD").strip()
    script = repository.write("train.py", SCRIPT + "# password = 'hunter2'\npassword = 'hunter2'\n")
    run_python(script, "--api-key", "hunter2", "--lr=0.1", folder=repository.folder)
    lake = open_lake(str(repository.folder / "lake"))
    (run,) = lake.search_runs().rows(named=True)
    found = known(lake, run["run_id"])
    assert parts(lake, run["run_id"]) == [part for part in PARTS if part != "environment"]
    assert found["git.commit"] == commit
    assert (found["git.branch"], found["git.dirty"]) == ("trunk", "true")
    assert found["process.script"] == str(script)
    assert json.loads(found["process.arguments"]) == ["--api-key", "<redacted>", "--lr=0.1"]
    assert "packages.pytest" in found
    tags = lake.get_run(run["run_id"]).data.tags
    assert tags["mlflow.source.git.commit"] == commit
    assert tags["mlflow.source.git.branch"] == "mine"  # as the user said
    assert tags["mlflow.source.type"] == "LOCAL"
    with lake.artifacts.open(run["run_id"], found["git.diff"]) as file:
        patch = file.read()
    assert b"+password = '<redacted>'" in patch
    # Nowhere in the lake, the journal or what else was written.
    for path in (repository.folder / "lake").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()


def test_a_process_tells_its_later_runs_at_once_what_it_knows(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository.commit()
    repository.write("train.py", "lr = 0.2\n")
    monkeypatch.chdir(repository.folder)
    asked: list[str] = []
    look = Git.look

    def count(self: Git, *, only_commit: bool, patch: bool) -> Code:
        asked.append("git")
        return look(self, only_commit=only_commit, patch=patch)

    monkeypatch.setattr(Git, "look", count)
    with open_lake(str(tmp_path / "lake")) as lake:
        first = lake.start_run()
        provenance.settle(30.0)
        others = [lake.start_run() for _ in range(3)]
        assert not [thread for thread in threading.enumerate() if "provenance" in thread.name]
        ids = [run.run_id for run in (first, *others)]
        for run in (first, *others):
            run.finish()
        found = [known(lake, run_id) for run_id in ids]
    assert asked == ["git"]
    patch = "provenance/diff.patch"
    assert [each.pop("git.diff") for each in found] == [
        patch,
        *[f"runs:/{first.run_id}/{patch}"] * 3,
    ]
    assert found[0] == found[1] == found[2] == found[3]
    with open_lake(str(tmp_path / "lake")) as lake:
        assert [len(lake.artifacts.list(run_id)) for run_id in ids] == [1, 0, 0, 0]


def test_what_git_told_is_asked_again_after_a_while(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository.commit()
    monkeypatch.chdir(repository.folder)
    monkeypatch.setattr(collector, "FRESH_S", 0.0)
    monkeypatch.setattr(collector, "PATCH_EACH_S", 0.0)
    with open_lake(str(tmp_path / "lake")) as lake:
        ids = []
        for text in ("lr = 0.1\n", "lr = 0.2\n", "lr = 0.2\n"):
            repository.write("train.py", text)
            ids.append(lake.start_run().run_id)
            provenance.settle(30.0)
        found = [known(lake, run_id) for run_id in ids]
        patches = [lake.artifacts.list(run_id, "provenance") for run_id in ids]
    assert [each["git.dirty"] for each in found] == ["false", "true", "true"]
    assert [each.get("git.diff") for each in found] == [None, *["provenance/diff.patch"] * 2]
    assert [len(each) for each in patches] == [0, 1, 1]


def test_a_commit_between_two_runs_is_seen_at_once(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(repository.folder)
    commits, ids = [], []
    with open_lake(str(tmp_path / "lake")) as lake:
        for number in range(3):
            commits.append(repository.commit(text=f"lr = {number}\n"))
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", str(number))
            ids.append(lake.start_run().run_id)
            provenance.settle(30.0)
        found = [known(lake, run_id) for run_id in ids]
    assert [each["git.commit"] for each in found] == commits
    assert [each["environment.CUDA_VISIBLE_DEVICES"] for each in found] == ["0", "1", "2"]


def test_rows_reach_a_run_that_has_ended_and_change_nothing_else(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = repository.commit()
    monkeypatch.chdir(repository.folder)
    go = threading.Event()
    look = Git.look

    def wait(self: Git, *, only_commit: bool, patch: bool) -> Code:
        go.wait(30.0)
        return look(self, only_commit=only_commit, patch=patch)

    monkeypatch.setattr(Git, "look", wait)
    with open_lake(str(tmp_path / "lake")) as lake:
        with lake.start_run() as run:
            run.log({"loss": 0.5})
        lake._drain.flush(30.0)
        before = lake.get_run(run.run_id)
        assert "git.commit" not in known(lake, run.run_id)
        assert before.info.status == "FINISHED"
        go.set()
        provenance.settle(30.0)
        after = lake.get_run(run.run_id)
        assert known(lake, run.run_id)["git.commit"] == commit
    assert after.info == before.info
    assert after.data.metrics == before.data.metrics
    assert after.data.tags["mlflow.source.git.commit"] == commit
    with open_lake(str(tmp_path / "lake")) as lake:
        assert lake.get_run(run.run_id).info == before.info
        assert not lake.maintain.verify().findings


def test_what_a_user_says_stands_before_and_after(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = repository.commit()
    monkeypatch.chdir(repository.folder)
    key = "mlflow.source.git."
    with open_lake(str(tmp_path / "lake")) as lake:
        with lake.start_run(tags={f"{key}commit": "mine"}) as run:
            run.set_tag(f"{key}branch", "mine too")
            provenance.settle(30.0)
        tags = lake.get_run(run.run_id).data.tags
    assert (tags[f"{key}commit"], tags[f"{key}branch"]) == ("mine", "mine too")
    assert commit not in tags.values()


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("off", []),
        ("process", ["process"]),
        ("git,host", ["git", "host"]),
        ("diff", ["git"]),
        ("-packages,-environment", ["git", "host", "process"]),
    ],
)
def test_each_part_can_be_turned_off(
    setting: str,
    told: list[str],
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    repository.commit()
    repository.write("train.py", "lr = 0.2\n")
    monkeypatch.chdir(repository.folder)
    monkeypatch.setenv("RUNLAKE_PROVENANCE", setting)
    with open_lake(str(tmp_path / "lake")) as lake:
        run = lake.start_run()
        provenance.settle(30.0)
        assert parts(lake, run.run_id) == told
        has_patch = setting in {"diff", "-packages,-environment"}
        assert len(lake.artifacts.list(run.run_id)) == has_patch
        tags = lake.get_run(run.run_id).data.tags
        assert ("mlflow.source.git.commit" in tags) == ("git" in told)
        assert ("mlflow.source.type" in tags) == ("process" in told)


def test_a_part_that_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNLAKE_PROVENANCE", "git,weather")
    with pytest.raises(InvalidInputError, match="no part 'weather'"):
        open_lake(str(tmp_path / "lake"))


def test_of_many_ranks_of_one_run_the_first_tells_what_is_the_same_for_all(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = repository.commit()
    repository.write("train.py", "lr = 0.2\n")
    monkeypatch.chdir(repository.folder)
    monkeypatch.setenv("WORLD_SIZE", "2")
    writers = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        with open_lake(str(tmp_path / "lake")) as lake, lake.start_run(run_id="joint"):
            provenance.settle(30.0)
    with open_lake(str(tmp_path / "lake")) as lake:
        rows = lake.sql("SELECT writer, key, value FROM provenance ORDER BY provenance.at").rows()
        artifacts = lake.artifacts.list("joint", "provenance")
        tags = lake.sql("SELECT key FROM events WHERE kind = 'tag' AND key LIKE '%.commit'")
    told: dict[str, dict[str, str]] = {}
    for writer, key, value in rows:
        told.setdefault(writer, {})[key] = value
    writers = list(told.values())
    assert [each["environment.RANK"] for each in writers] == ["0", "1"]
    assert [each["git.commit"] for each in writers] == [commit] * 2
    assert ["packages.pytest" in each for each in writers] == [True, False]
    assert ["git.dirty" in each for each in writers] == [True, False]
    assert [file.path for file in artifacts] == [writers[0]["git.diff"]]
    assert writers[0]["git.diff"].startswith("provenance/diff-")
    assert tags.height == 1


def test_a_rank_with_a_run_of_its_own_tells_everything(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository.commit()
    monkeypatch.chdir(repository.folder)
    monkeypatch.setenv("SLURM_PROCID", "3")
    with open_lake(str(tmp_path / "lake")) as lake, lake.start_run() as run:
        provenance.settle(30.0)
    with open_lake(str(tmp_path / "lake")) as lake:
        found = known(lake, run.run_id)
        assert (found["git.dirty"], found["environment.SLURM_PROCID"]) == ("false", "3")
        assert "packages.pytest" in found


def test_a_forked_child_tells_of_itself(tmp_path: Path) -> None:
    script = tmp_path / "fork.py"
    script.write_text(
        "import os, runlake\n"
        "with runlake.start_run(run_name='parent'):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        with runlake.open().start_run(run_name='child') as run:\n"
        "            run.log({'loss': 1.0})\n"
        "        runlake.writing.lifecycle.end()\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    print(os.getpid(), child)\n"
    )
    pids = run_python(script, folder=tmp_path).split()
    with open_lake(str(tmp_path / "lake")) as lake:
        found = lake.sql(
            "SELECT value FROM provenance JOIN runs USING (run_id) WHERE key = 'process.pid' "
            "ORDER BY run_name DESC"
        )
    assert found["value"].to_list() == pids


def test_a_hanging_git_is_ended_and_what_is_known_is_kept(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    fake.write_text("#!/bin/sh\ntail -f /dev/null\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.chdir(repository.folder)
    with open_lake(str(tmp_path / "lake")) as lake:
        run = lake.start_run()
        collector._here.settle(30.0, wait_s=0.0)
        found = known(lake, run.run_id)
    assert json.loads(found["git.unknown"]) == {"repository": "time was over"}
    assert "process.pid" in found


def test_a_process_that_is_told_to_end_waits_for_no_git(
    repository: Repository, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / "git"
    fake.write_text("#!/bin/sh\ntail -f /dev/null\n")
    fake.chmod(0o755)
    script = repository.write(
        "end.py",
        "import os, signal, time, runlake\n"
        "with runlake.start_run():\n"
        "    runlake.log_param('api_key', 'hunter2')\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n",
    )
    environ = os.environ | {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "RUNLAKE_URL": "lake"}
    ended = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environ, check=False, timeout=60
    )
    assert ended.returncode == 128 + signal.SIGTERM
    with open_lake(str(tmp_path / "lake")) as lake:
        (run,) = lake.search_runs().rows(named=True)
        found = known(lake, run["run_id"])
    assert run["status"] == "KILLED"
    assert json.loads(found["git.unknown"]) == {"repository": "time was over"}


def test_a_store_that_refuses_the_patch_is_noted_and_nothing_is_told(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository.commit()
    repository.write("train.py", "lr = 0.2\n")
    monkeypatch.chdir(repository.folder)
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "artifacts").write_text("in the way")
    with open_lake(str(tmp_path / "lake")) as lake:
        run = lake.start_run()
        provenance.settle(30.0)
        found = known(lake, run.run_id)
    assert "diff" in json.loads(found["git.unknown"])
    assert "git.diff" not in found
    assert found["git.dirty"] == "true"


def test_what_cannot_be_found_out_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    def fail() -> dict[str, Any]:
        raise OSError("no such machine")

    monkeypatch.setattr(vars(collector)["process"], "describe_host", fail)
    with open_lake(str(tmp_path / "lake")) as lake:
        run = lake.start_run()
        provenance.settle(30.0)
        found = known(lake, run.run_id)
    assert found["host.unknown"] == "OSError: no such machine"
    assert json.loads(found["git.unknown"]) == {"repository": "git rev-parse ended 128"}
    assert "process.pid" in found


def test_nothing_is_found_out_where_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNLAKE_MODE", "disabled")
    with open_lake(str(tmp_path / "lake")) as lake:
        lake.start_run()
        assert collector._here._thread is None


def test_provenance_is_on_where_nobody_says_otherwise() -> None:
    assert Settings().provenance == "on"
    assert os.environ.get("RUNLAKE_PROVENANCE") is None
    assert sys.modules["runlake.provenance"] is provenance
