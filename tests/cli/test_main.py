"""What holds for every command."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import click
import pytest

import runlake
from runlake import cli, errors
from runlake.cli import EXIT_CODES, main
from tests.meta.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

    from tests.cli.conftest import Filled

# Options that several commands share; the page tells them once.
SHARED = {"lake", "json", "csv", "output"}
# More than a pipe holds, also compressed.
_MUCH = "SELECT repeat(md5(range::VARCHAR), 3) FROM range(100000)"
READING = [
    ["ls"],
    ["show", "alpha"],
    ["diff", "alpha", "beta"],
    ["best", "loss"],
    ["history", "alpha", "loss"],
    ["sql", "SELECT 1"],
    ["export", "out"],
    ["info"],
    ["verify"],
    ["recover"],
]


@pytest.mark.parametrize("command", READING, ids=lambda command: command[0])
def test_a_path_without_a_lake_is_said_to_be_none(
    ask: Callable[..., Result], tmp_path: Path, command: list[str]
) -> None:
    result = ask(*command, "--lake", str(tmp_path / "tpyo"))
    assert result.exit_code == 3
    assert f"error: {tmp_path / 'tpyo'} is not a lake: nothing is there." in result.stderr
    assert not (tmp_path / "tpyo").exists()


def test_the_lake_is_the_option_before_the_variable_before_the_folder(
    ask: Callable[..., Result], filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("sql", "SELECT count(*) AS n FROM runs")
    assert ask(*names).stdout == "n\n5\n"  # ./lake
    monkeypatch.setenv("RUNLAKE_URL", "nowhere")
    assert ask(*names).exit_code == 3
    assert ask("--lake", filled.url, *names).exit_code == 0
    assert ask("--lake", "nowhere", *names, "--lake", filled.url).exit_code == 0


@pytest.mark.parametrize(
    "url", ["http://tracking:5000", "https://tracking:5000", "abc://bucket/lake"]
)
def test_an_address_that_is_no_lakes_is_refused(ask: Callable[..., Result], url: str) -> None:
    result = ask("ls", "--lake", url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize(
    "arguments",
    [["ls", "--limit", "-1"], ["ls", "--json", "--csv"], ["show"], ["sql"], ["nothing"]],
)
def test_a_wrong_call_is_explained(ask: Callable[..., Result], arguments: list[str]) -> None:
    result = ask(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: " in result.stderr


def test_a_newer_lake_is_left_to_a_newer_runlake(
    ask: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "runlake.json").write_text('{"format": 99, "lake": "x"}')
    assert ask("ls").exit_code == 6


def test_every_error_has_an_exit_code_that_the_help_lists(ask: Callable[..., Result]) -> None:
    kinds = {error.kind for error in all_errors(errors.RunlakeError)}
    wrong_calls = {"error", "invalid-input", "filter-syntax"}
    assert kinds - wrong_calls - EXIT_CODES.keys() == set()
    shown = ask("--help").stdout
    assert [code for code in {0, 1, 2, *EXIT_CODES.values()} if f"  {code}  " not in shown] == []


def all_errors(error: type[errors.RunlakeError]) -> Iterator[type[errors.RunlakeError]]:
    """Yield an error class and all below it."""
    yield error
    for below in error.__subclasses__():
        yield from all_errors(below)


def test_warnings_are_told_in_one_line_on_standard_error(tmp_path: Path) -> None:
    script = (
        "import warnings, runlake, runlake.cli.query as q\n"
        "from runlake.cli import main\n"
        "import click\n"
        "@main.command('warn')\n"
        "def warn(): warnings.warn('rows may be gone', runlake.DataLossWarning)\n"
        "main(['warn'])\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert (finished.stdout, finished.stderr) == ("", "warning: rows may be gone\n")


def test_help_and_version_load_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom runlake.cli import main\n"
        "main([sys.argv[1]], standalone_mode=False)\n"
        "print(sorted({'duckdb', 'fsspec', 'numpy', 'polars', 'pyarrow', 'rich'} & {*sys.modules}))"
    )
    for option in ("--help", "--version"):
        command = [sys.executable, "-c", script, option]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert shown.stdout.splitlines()[-1] == "[]"


def test_a_command_loads_its_own_module_and_help_knows_them_all(
    ask: Callable[..., Result], filled: Filled
) -> None:
    script = (
        "import sys\nfrom runlake.cli import main\n"
        "main(['ls', '--lake', sys.argv[1]], standalone_mode=False)\n"
        "print([name for name in sys.modules if name.startswith('runlake.cli.')])\n"
        "print('runlake.writing.drain' in sys.modules)"
    )
    command = [sys.executable, "-c", script, filled.url]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    *_, loaded, has_writing = shown.stdout.splitlines()
    assert {name for name in ast.literal_eval(loaded) if "._" not in name} == {"runlake.cli.runs"}
    assert has_writing == "False"

    modules = [
        import_module(f"runlake.cli.{each.name}")
        for each in iter_modules(cli.__path__)
        if not each.name.startswith("_")
    ]
    told = {command.name for module in modules for command in module.COMMANDS}
    assert set(main.commands) == told
    assert all(f"  {name} " in ask("--help").stdout for name in told)


@pytest.mark.parametrize(
    "arguments",
    [
        ("sql", _MUCH),
        ("sql", _MUCH, "--json"),
        ("sql", _MUCH, "--csv"),
        ("export", "-", "--what", _MUCH),
        ("export", "-", "--what", _MUCH, "--format", "parquet"),
    ],
)
def test_a_pipe_that_closes_early_ends_well(filled: Filled, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "runlake", *arguments, "--lake", filled.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("options", [(), ("--json",), ("--csv",)])
def test_output_that_cannot_be_written_is_an_error(
    filled: Filled, options: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "runlake", "ls", "--lake", filled.url, *options]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert ended.returncode == EXIT_CODES["storage"]
    assert ended.stderr == "error: standard output cannot be written: No space left on device.\n"


@pytest.mark.parametrize("options", ["", "--csv"])
def test_without_standard_output_a_command_ends_as_ever(filled: Filled, options: str) -> None:
    command = f"{sys.executable} -m runlake ls --lake {filled.url} {options} >&-"
    ended = subprocess.run(
        ["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_without_standard_input_there_is_no_statement_in_it(filled: Filled) -> None:
    command = f"{sys.executable} -m runlake sql - --lake {filled.url} <&-"
    ended = subprocess.run(
        ["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    assert ended.returncode == 2
    assert "this is no statement" in ended.stderr


def test_a_process_does_all_that_was_asked_of_its_end(tmp_path: Path) -> None:
    script = (
        "import atexit, sys, threading, runlake.__main__\n"
        "def work():\n"
        "    threading.main_thread().join()\n"
        "    print('done')\n"
        "    atexit.register(print, 'goodbye', file=sys.stderr)\n"
        "threading.Thread(target=work).start()\n"
        "runlake.__main__.run()\n"
    )
    for option, code in (("--version", 0), ("--verso", 2)):
        command = [sys.executable, "-c", script, option]
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
        )
        assert ended.returncode == code
        assert ended.stdout.splitlines()[-1] == "done"
        assert ended.stderr.splitlines()[-1] == "goodbye"


def test_the_installed_command_is_the_module(filled: Filled) -> None:
    command = [sys.executable, "-m", "runlake", "ls", "--lake", filled.url, "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert shown.stdout.startswith("[\n{")
    version = subprocess.run(
        [*command[:3], "--version"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith(f"runlake {runlake.__version__}, Python ")


def leaves(group: click.Group, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, by the words that call it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            assert command.help, name
            yield from leaves(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def test_every_command_and_option_has_help_and_takes_json_and_csv() -> None:
    silent = []
    for name, command in leaves(main):
        options = [each for each in command.params if isinstance(each, click.Option)]
        silent += [f"{name} {each.opts[0]}" for each in options if not each.help]
        silent += [] if command.help else [name]
        assert {"--json", "--csv", "--lake"} <= {each.opts[0] for each in options}, name
    assert silent == []


def options_of(parameter: click.Parameter) -> list[str]:
    """Return how an option may be written; an argument has none."""
    if not isinstance(parameter, click.Option):
        return []
    return [*parameter.opts, *parameter.secondary_opts]


def test_every_command_option_and_exit_code_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
    missing = []
    for name, command in leaves(main):
        group, _, own_name = name.rpartition(" ")
        _, found, rest = page.partition(f"\n## `runlake {group or name}")
        section = rest.partition("\n## ")[0] if found else ""
        missing += [name] if group and f"`{own_name}" not in section else []
        own = (each for each in command.params if each.name not in SHARED)
        wanted = [option for each in own for option in options_of(each)]
        missing += [f"{name} {option}" for option in wanted if f"`{option}" not in section]
        missing += [] if section else [name]
    missing += [option for option in SHARED if f"`--{option}" not in page.partition("## Output")[0]]
    missing += [f"exit code {code}" for code in EXIT_CODES.values() if f"\n| {code} |" not in page]
    assert missing == []
