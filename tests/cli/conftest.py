"""A small lake, and ways to ask for it as people and programs do."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from click.testing import CliRunner

import runlake
from runlake.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from runlake.lake import Lake


class Filled(NamedTuple):
    """A lake with three runs of one experiment, one of another, and one deleted."""

    url: str
    ids: dict[str, str]


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own settings and folders out."""
    for name in [name for name in os.environ if name.startswith(("RUNLAKE_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RUNLAKE_PROVENANCE", "off")  # as in all tests that are not about it
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def log_run(lake: Lake, name: str, *, experiment: str, losses: list[float]) -> str:
    """Log a finished run and return its id."""
    with lake.start_run(name, experiment=experiment) as run:
        run.log_params({"lr": 0.1, "note": "two\nlines \x1b[31m"})
        run.set_tag("team", "vision")
        for loss in losses:
            run.log({"loss": loss})
        run.log_text("hello", "notes/hello.txt")
        run.log_dict({"a": 1}, "config.json")
    return run.run_id


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    """Make the lake."""
    url = str(tmp_path / "lake")
    with runlake.open(url) as lake:
        ids = {
            name: log_run(lake, name, experiment="digits", losses=[1.0, 0.5, float(number)])
            for number, name in enumerate(("alpha", "beta", "gamma"))
        }
        ids["nan"] = log_run(lake, "nan", experiment="odd", losses=[float("nan"), float("inf")])
        ids["gone"] = log_run(lake, "gone", experiment="odd", losses=[])
        lake.flush()
        lake.delete_run(ids["gone"])
    return Filled(url, ids)


@pytest.fixture
def ask() -> Callable[..., Result]:
    """Call the command line in this process, as in a pipe."""

    def call(*arguments: str, **options: Any) -> Result:  # noqa: ANN401 - those of CliRunner
        result = CliRunner().invoke(main, list(arguments), **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def ask_json(ask: Callable[..., Result], filled: Filled) -> Callable[..., Any]:
    """Call the command line with `--json` on the lake, and read the answer strictly."""

    def refuse(word: str) -> None:
        message = f"{word} is not JSON"
        raise AssertionError(message)

    def call(command: str, *arguments: str) -> Any:  # noqa: ANN401 - any JSON
        result = ask(command, "--lake", filled.url, "--json", *arguments)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout, parse_constant=refuse)

    return call


def in_terminal(*arguments: str, columns: int = 80) -> tuple[int, str]:
    """Run the command line in a real terminal and return its exit code and what it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES"):  # which would go before the terminal's own
        environment.pop(name, None)
    command = [sys.executable, "-m", "runlake", *arguments]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
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
    return process.returncode, shown.decode().replace("\r\n", "\n")
