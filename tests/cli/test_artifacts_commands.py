from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import runlake
from tests.cli.conftest import in_terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from tests.cli.conftest import Filled

HELLO = hashlib.sha256(b"hello").hexdigest()


@pytest.fixture
def artifacts(ask: Callable[..., Result], filled: Filled) -> Callable[..., Result]:
    """Call `runlake artifacts` on the lake, as in a pipe."""

    def call(command: str, *arguments: str) -> Result:
        return ask("artifacts", command, "--lake", filled.url, *arguments)

    return call


@pytest.fixture
def answer(artifacts: Callable[..., Result]) -> Callable[..., Any]:
    """Call it with `--json`."""

    def call(*arguments: str) -> Any:  # noqa: ANN401 - any JSON
        result = artifacts(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return call


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["path"] for row in rows if not row["path"].startswith("provenance")]


def test_ls_shows_a_folder_or_everything_below_it(
    artifacts: Callable[..., Result], answer: Callable[..., Any]
) -> None:
    assert names(answer("ls", "alpha")) == ["config.json", "notes"]
    (hello,) = answer("ls", "alpha", "notes")
    assert hello == {"path": "notes/hello.txt", "is_dir": False, "size": 5}
    assert names(answer("ls", "alpha", "-r")) == ["config.json", "notes/hello.txt"]
    (hello,) = answer("ls", "alpha", "notes/", "--recursive")
    assert hello == {"path": "notes/hello.txt", "size": 5, "sha256": HELLO}
    assert "notes/" in artifacts("ls", "alpha").stdout
    assert artifacts("ls", "alpha", "notes", "--csv").stdout == (
        "path,is_dir,size\nnotes/hello.txt,false,5\n"
    )
    empty = artifacts("ls", "alpha", "nothing")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "no artifacts" in empty.stderr


def test_get_writes_below_the_folder_and_prints_where(
    artifacts: Callable[..., Result], answer: Callable[..., Any], tmp_path: Path
) -> None:
    result = artifacts("get", "alpha", "notes", "-o", str(tmp_path / "out"))
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'out' / 'notes'}\n")
    assert (tmp_path / "out" / "notes" / "hello.txt").read_text() == "hello"
    (row,) = answer("get", "beta", "-o", str(tmp_path / "all"))
    assert row == {"file": str(tmp_path / "all")}
    assert (tmp_path / "all" / "config.json").is_file()
    missing = artifacts("get", "alpha", "notes/hullo.txt")
    assert missing.exit_code == 3
    assert "hello.txt" in missing.stderr


def test_put_adds_a_file_to_a_run_that_has_ended_and_leaves_it_so(
    artifacts: Callable[..., Result], answer: Callable[..., Any], filled: Filled, tmp_path: Path
) -> None:
    (tmp_path / "late.txt").write_text("late")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inside.txt").write_text("inside")
    (row,) = answer("put", "alpha", str(tmp_path / "late.txt"), "notes")
    assert (row["path"], row["size"]) == ("notes/late.txt", 4)
    result = artifacts("put", "alpha", str(folder))
    assert (result.stdout, result.stderr) == (
        "",
        f"1 file, 6 B, in run {filled.ids['alpha']}.\n",
    )
    with runlake.open(filled.url) as lake:
        run = lake.get_run(filled.ids["alpha"])
        assert run.info.status == "FINISHED"
        with lake.artifacts.open(run.info.run_id, "folder/inside.txt") as file:
            assert file.read() == b"inside"
    assert artifacts("put", "alpha", str(tmp_path / "missing")).exit_code == 2


def test_rm_asks_first_and_a_program_has_to_be_sure(
    artifacts: Callable[..., Result], answer: Callable[..., Any]
) -> None:
    result = artifacts("rm", "alpha", "notes")
    assert result.exit_code == 2
    assert "give --yes" in result.stderr
    assert answer("rm", "alpha", "notes", "--yes") == [{"path": "notes/hello.txt"}]
    assert names(answer("ls", "alpha")) == ["config.json"]
    assert artifacts("rm", "alpha", "notes", "--yes").exit_code == 3


def test_cat_writes_the_content_as_it_is(
    artifacts: Callable[..., Result], filled: Filled, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "data.bin").write_bytes(data)
    artifacts("put", "alpha", str(tmp_path / "data.bin"))
    assert artifacts("cat", "alpha", "data.bin").stdout_bytes == data
    command = [sys.executable, "-m", "runlake", "artifacts", "cat"]
    command += ["--lake", filled.url, "alpha", "data.bin"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10) == data[:10]
        process.stdout.close()  # as `head` does
        assert process.stderr.read() == b""
    assert artifacts("cat", "alpha", "data.bin", "--json").exit_code == 2


def test_find_tells_all_runs_with_one_content(
    artifacts: Callable[..., Result], answer: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("hello")
    for wanted in (HELLO, HELLO[:6].upper(), str(tmp_path / "mine")):
        rows = answer("find", wanted)
        assert [(row["run_name"], row["path"]) for row in rows if row["run_name"] != "gone"] == [
            (name, "notes/hello.txt") for name in ("alpha", "beta", "gamma", "nan")
        ]
        assert {row["sha256"] for row in rows} == {HELLO}
    assert "alpha" in artifacts("find", HELLO, "--csv").stdout
    nothing = artifacts("find", "0" * 64)
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert artifacts("find", "0123").exit_code == 2


def test_a_terminal_shows_tables_and_a_pipe_no_bar(filled: Filled, tmp_path: Path) -> None:
    code, shown = in_terminal("artifacts", "ls", "--lake", filled.url, "alpha", "-r")
    assert code == 0
    assert "notes/hello.txt" in shown
    code, shown = in_terminal(
        "artifacts", "get", "--lake", filled.url, "alpha", "-o", str(tmp_path / "out")
    )
    assert (code, shown.strip()) == (0, str(tmp_path / "out"))


def test_what_takes_longer_than_a_second_shows_a_bar_in_a_terminal_only(tmp_path: Path) -> None:
    program = (
        "from runlake import clock\n"
        "from runlake.artifacts.progress import Meter\n"
        "began = clock.monotonic_s()\n"
        "with Meter('uploading', all_bytes=2 << 20, all_files=1, progress=None) as meter:\n"
        "    meter.arrived(1 << 20)\n"
        "    clock.monotonic_s = lambda: began + 2\n"
        "    meter.arrived(1 << 20)\n"
    )
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.stdout == b""
    assert "uploading" in shown
    assert "MiB" in shown
    piped = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert (piped.stdout, piped.stderr) == (b"", b"")
    del tmp_path
