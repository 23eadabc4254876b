from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlake.provenance.git import DIFF_LIMIT_BYTES, Code, Git, folder_of, without_user

if TYPE_CHECKING:
    from pathlib import Path

    from tests.provenance.conftest import Repository

words = st.text("abcXYZ0189._~%-", min_size=1, max_size=12)


def look(folder: Path, *, only_commit: bool = False, patch: bool = True) -> Code:
    """Ask as for a run."""
    return Git(str(folder)).look(only_commit=only_commit, patch=patch)


def put_git(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put another program in the place of git."""
    folder.mkdir()
    file = folder / "git"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_a_clean_repository_is_known_by_commit_branch_and_remote(repository: Repository) -> None:
    commit = repository.commit()
    repository.git("remote", "add", "fork", "https://example.org/fork.git")
    repository.git("remote", "add", "origin", "https://me:hunter2@example.org/a.git")
    below = repository.folder / "below"
    below.mkdir()
    code = look(below)
    assert code.patch is None
    assert code.said == {
        "root": str(repository.folder),
        "commit": commit,
        "branch": "trunk",
        "remote": "https://example.org/a.git",
        "dirty": False,
        "changed": [],
        "changed_count": 0,
        "untracked": [],
        "untracked_count": 0,
    }


def test_a_patch_of_what_differs_makes_the_commit_what_ran(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit("größe mit leer.py", "a = 1\n")
    repository.commit("staged.py", "b = 1\n")
    repository.commit("gone.py", "c = 1\n")
    repository.git("clone", "--quiet", str(repository.folder), str(tmp_path / "clone"))
    repository.write("größe mit leer.py", "a = 2\n")
    repository.write("staged.py", "b = 2\n")
    repository.git("add", "staged.py")
    (repository.folder / "gone.py").unlink()
    repository.write("new\nline.txt", "untracked")
    repository.git("config", "color.ui", "always")
    repository.git("config", "diff.noprefix", "true")
    repository.git("config", "diff.external", "false")
    repository.git("config", "color.diff", "always")
    repository.git("config", "diff.context", "0")
    code = look(repository.folder)
    assert code.said["dirty"] is True
    assert sorted(code.said["changed"]) == ["gone.py", "größe mit leer.py", "staged.py"]
    assert code.said["untracked"] == ["new\nline.txt"]
    assert code.patch is not None
    clone = tmp_path / "clone"
    subprocess.run(["git", "apply", "-"], cwd=clone, check=True, input=code.patch.encode())
    assert not (clone / "gone.py").exists()
    for name in ("größe mit leer.py", "staged.py"):
        assert (clone / name).read_bytes() == (repository.folder / name).read_bytes()


def test_a_patch_of_texts_in_another_encoding_can_be_applied(
    repository: Repository, tmp_path: Path
) -> None:
    file = repository.write("latin.txt", "")
    file.write_bytes(b"caf\xe9 = 1\r\n")
    repository.commit()
    repository.git("clone", "--quiet", str(repository.folder), str(tmp_path / "clone"))
    file.write_bytes(b"caf\xe8 = 2\r\n")
    code = look(repository.folder)
    assert code.patch is not None
    patch = code.patch.encode(errors="surrogateescape")
    subprocess.run(["git", "apply", "-"], cwd=tmp_path / "clone", check=True, input=patch)
    assert (tmp_path / "clone" / "latin.txt").read_bytes() == b"caf\xe8 = 2\r\n"


def test_a_submodule_that_moved_is_in_the_patch_and_one_that_changed_is_named(
    repository: Repository, tmp_path: Path
) -> None:
    inner = type(repository)(tmp_path / "inner")
    inner.commit()
    before = inner.git("rev-parse", "HEAD").strip()
    add = ("submodule", "add", "--quiet", str(inner.folder), "part")
    repository.git("-c", "protocol.file.allow=always", *add)
    repository.commit()
    repository.git("config", "diff.submodule", "log")
    repository.write("part/train.py", "lr = 0.2\n")
    repository.write("part/new.py", "")
    changed = look(repository.folder)
    assert (changed.said["dirty"], changed.said["changed"]) == (True, ["part"])
    assert changed.patch is None
    repository.git("-C", "part", "checkout", "--quiet", "train.py")
    assert look(repository.folder).said["dirty"] is False
    inner_git = ("-C", "part", "-c", "user.name=S", "-c", "user.email=s@example.org")
    repository.git(*inner_git, "commit", "--quiet", "--allow-empty", "--message", "Empty")
    moved = look(repository.folder)
    assert moved.said["changed"] == ["part"]
    assert moved.patch is not None
    assert f"-Subproject commit {before}\n" in moved.patch


def test_a_long_patch_ends_at_a_whole_line_and_says_so(repository: Repository) -> None:
    repository.commit(text="0123456789abcdef\n" * 100_000)
    repository.write("train.py", "fedcba9876543210\n" * 100_000)
    code = look(repository.folder)
    assert code.patch is not None
    assert DIFF_LIMIT_BYTES - 100 < len(code.patch) <= DIFF_LIMIT_BYTES
    assert code.patch.endswith("0123456789abcdef\n")
    assert code.said["diff_cut"] is True


def test_files_are_listed_up_to_a_bound_and_counted(repository: Repository) -> None:
    for number in range(120):
        repository.write(f"{number}.txt", "old")
    repository.commit()
    for number in range(120):
        repository.write(f"{number}.txt", "new")
        repository.write(f"{number}.log", "")
    said = look(repository.folder).said
    assert (len(said["changed"]), said["changed_count"]) == (100, 120)
    assert (len(said["untracked"]), said["untracked_count"]) == (100, 120)


def test_a_merge_that_is_not_settled_is_dirty(repository: Repository) -> None:
    repository.commit()
    repository.git("checkout", "--quiet", "-b", "other")
    repository.commit(text="lr = 0.2\n")
    repository.git("checkout", "--quiet", "trunk")
    repository.commit(text="lr = 0.3\n")
    merged = subprocess.run(["git", "merge", "other"], cwd=repository.folder, check=False)
    assert merged.returncode
    assert look(repository.folder).said["changed"] == ["train.py"]


def test_without_a_branch_or_a_commit_the_rest_is_known(repository: Repository) -> None:
    fresh = look(repository.folder).said
    assert fresh["branch"] == "trunk"
    assert fresh["unknown"] == {"commit": "there is no commit yet"}
    repository.commit()
    commit = repository.commit(text="lr = 0.2\n")
    repository.git("checkout", "--quiet", "--detach")
    said = look(repository.folder).said
    assert (said["commit"], said["branch"]) == (commit, None)


def test_parts_that_nobody_wants_are_not_asked_for(repository: Repository) -> None:
    repository.commit()
    repository.write("train.py", "lr = 0.2\n")
    code = look(repository.folder, only_commit=True)
    assert code.patch is None
    assert code.said.keys() == {"root", "commit", "branch", "remote"}
    code = look(repository.folder, patch=False)
    assert (code.patch, code.said["dirty"]) == (None, True)


def test_asking_writes_nothing_into_the_repository(repository: Repository) -> None:
    file = repository.folder / "train.py"
    repository.commit()
    file.write_text("lr = 0.1\n")  # the same content, so that git would note its new time
    before = {path: path.stat() for path in (repository.folder / ".git").rglob("*")}
    assert look(repository.folder).said["dirty"] is False
    after = {path: path.stat() for path in (repository.folder / ".git").rglob("*")}
    changed = {path for path in after if before[path].st_mtime_ns != after[path].st_mtime_ns}
    assert not changed
    assert before.keys() == after.keys()


def test_outside_a_repository_that_is_what_is_said(tmp_path: Path) -> None:
    assert look(tmp_path).said == {"unknown": {"repository": "git rev-parse ended 128"}}
    gone = look(tmp_path / "gone").said["unknown"]["repository"]
    assert "No such file" in gone


def test_without_git_that_is_what_is_said(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert look(repository.folder).said == {"unknown": {"repository": "git is not installed"}}


def test_git_that_hangs_is_ended_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_git(tmp_path / "bin", "tail -f /dev/null", monkeypatch)
    code = Git(str(tmp_path), limit_s=0.1).look(only_commit=False, patch=True)
    assert code.said == {"unknown": {"repository": "time was over"}}


def test_another_thread_may_end_it_before_during_and_after(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit()
    looking = Git(str(repository.folder))
    looking.stop()
    assert looking.look(only_commit=False, patch=True).said["unknown"]
    put_git(tmp_path / "bin", f"touch {tmp_path}/begun; tail -f /dev/null", monkeypatch)
    looking = Git(str(repository.folder))
    found: list[Code] = []
    thread = threading.Thread(
        target=lambda: found.append(looking.look(only_commit=False, patch=True))
    )
    thread.start()
    while not (tmp_path / "begun").exists():
        thread.join(0.01)
    looking.stop()
    thread.join()
    looking.stop()
    assert found[0].said == {"unknown": {"repository": "time was over"}}


def test_the_code_lies_where_the_script_does_and_else_where_one_works(
    repository: Repository, tmp_path: Path
) -> None:
    script = repository.write("jobs/train.py", "")
    assert folder_of(str(script), "/elsewhere") == str(script.parent)
    assert folder_of(str(tmp_path / "alone.py"), "/elsewhere") == "/elsewhere"
    installed = repository.write("env/lib/site-packages/pytest/__main__.py", "")
    assert folder_of(str(installed), "/elsewhere") == "/elsewhere"
    assert folder_of(None, None) is None
    link = tmp_path / "bin" / "train"
    link.parent.mkdir()
    link.symlink_to(script)
    assert folder_of(str(link), "/elsewhere") == str(script.parent)


@given(user=words, password=words, host=words, path=words)
def test_no_user_or_password_is_left_in_a_remote_address(
    user: str, password: str, host: str, path: str
) -> None:
    for scheme in ("https", "http", "ftp"):
        plain = f"{scheme}://{host}/{path}"
        assert without_user(f"{scheme}://{user}:{password}@{host}/{path}") == plain
        assert without_user(f"{scheme}://{user}@{host}/{path}") == plain
        assert without_user(plain) == plain
    assert without_user(f"ssh://{user}:{password}@{host}/{path}") == f"ssh://{host}/{path}"


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("git@example.org:team/a.git", "git@example.org:team/a.git"),
        ("ssh://git@example.org/team/a.git", "ssh://git@example.org/team/a.git"),
        ("/srv/git/a.git", "/srv/git/a.git"),
        ("https://example.org:8443/@team/a.git", "https://example.org:8443/@team/a.git"),
        ("https://me:pass/word@example.org/a.git", "https://example.org/a.git"),
        ("https://example.org/a.git?token=x", "https://example.org/a.git"),
    ],
)
def test_addresses_of_all_kinds_keep_what_is_no_secret(address: str, kept: str) -> None:
    assert without_user(address) == kept


def test_a_repository_of_another_user_is_named_with_the_way_out(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit()
    # What git itself has for its tests: as if the owner was another one.
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    root = str(repository.folder)
    why = f"{root} belongs to another user: git config --global --add safe.directory {root}"
    assert look(repository.folder).said == {"unknown": {"repository": why}}
    assert look(tmp_path / "gone").said["unknown"]["repository"] != why
