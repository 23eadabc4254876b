"""`runlake artifacts`: the files of runs, listed, fetched, put, deleted, and found by content."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from runlake._lazy import lazy
from runlake.cli import _output
from runlake.cli._options import Options, shared_options, table_options
from runlake.cli._output import Column, many, size
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runlake import questions
    from runlake.artifacts import sending
    from runlake.lake import Lake
    from runlake.query import artifacts as stored
    from runlake.query import listing
    from runlake.settings import Settings
else:
    listing = lazy("runlake.query.listing")
    questions = lazy("runlake.questions")
    sending = lazy("runlake.artifacts.sending")
    stored = lazy("runlake.query.artifacts")

_Row = dict[str, Any]

_DIGEST: Final = re.compile(r"[0-9a-fA-F]{6,64}")
_COPY_BYTES: Final = 1 << 20


@click.group("artifacts")
def _artifacts() -> None:
    """List, fetch, put and delete the files of runs.

    RUN is an id, the beginning of one, or a name, if only one run has it. PATH lies below the
    run, its parts joined by '/'. In a terminal a bar shows what takes longer than a second.
    """


@_artifacts.command("ls")
@click.argument("run")
@click.argument("path", default="")
@click.option("-r", "--recursive", is_flag=True, help="Show all files below, with digests.")
@table_options
@click.pass_obj
def _ls(options: Options, *, run: str, path: str, recursive: bool) -> None:
    """List the files and folders of a run, or of a folder of it."""
    with options.open() as lake:
        run_id = _run_id(lake, run)
        rows = list(_all_files(lake, run_id, path) if recursive else _entries(lake, run_id, path))
        settings = lake.settings
    if _give(options, settings, rows):
        return
    if not rows:
        _output.talk(f"no artifacts in run {run!r}{f' below {path!r}' if path else ''}.")
        return
    shown = [row["path"] + ("/" if row.get("is_dir") else "") for row in rows]
    sizes = [_output.ABSENT if row["size"] is None else size(row["size"]) for row in rows]
    columns = [Column("path", shown), Column("size", sizes)]
    if recursive:
        columns.append(Column("sha256", [row["sha256"] for row in rows], is_extra=True))
    _output.print_table(columns)


def _entries(lake: Lake, run_id: str, path: str) -> Iterator[_Row]:
    for each in lake.artifacts.list(run_id, path):
        yield {"path": each.path, "is_dir": each.is_dir, "size": each.file_size}


def _all_files(lake: Lake, run_id: str, path: str) -> Iterator[_Row]:
    """Yield what the log says of all files below a folder."""
    below = path.rstrip("/")
    for inside, length, digest, _ in questions.ask(
        lake, lambda query: stored.logged_files(query, run_id)
    ):
        if not below or inside == below or inside.startswith(f"{below}/"):
            yield {"path": inside, "size": length, "sha256": digest or None}


@_artifacts.command("get")
@click.argument("run")
@click.argument("path", default="")
@click.option(
    "-o", "--output", "folder", metavar="DIR", default=".", help="Put it here; the default is ."
)
@shared_options
@click.pass_obj
def _get(options: Options, *, run: str, path: str, folder: str) -> None:
    """Fetch a file, a folder, or all artifacts of a run, and check their digests.

    Files keep their paths below DIR. The same call again goes on where it was stopped.
    """
    with options.open() as lake:
        run_id = _run_id(lake, run)
        found = lake.artifacts.download(run_id, path, target=folder)
        settings = lake.settings
    rows = [{"file": str(found)}]
    if not _give(options, settings, rows):
        click.echo(_output.printable(str(found)))


@_artifacts.command("put")
@click.argument("run")
@click.argument("file", metavar="FILE")
@click.argument("path", default="")
@shared_options
@click.pass_obj
def _put(options: Options, *, run: str, file: str, path: str) -> None:
    """Add a file, or a folder with all below it, to a run that may have ended.

    It keeps its own name; PATH is the folder of the run that it goes into.
    """
    with options.open(read_only=False) as lake:
        run_id = _run_id(lake, run)
        lake.artifacts.upload(run_id, file, artifact_path=path or None)
        settings = lake.settings
        name = Path(file).resolve().name if Path(file).is_dir() else Path(file).name
        inside = f"{path.rstrip('/')}/{name}" if path else name
        rows = list(_all_files(lake, run_id, inside))
    if not _give(options, settings, rows):
        total = sum(row["size"] for row in rows)
        _output.talk(f"{many(len(rows), 'file')}, {size(total)}, in run {run_id}.")


@_artifacts.command("rm")
@click.argument("run")
@click.argument("path")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@shared_options
@click.pass_obj
def _rm(options: Options, *, run: str, path: str, yes: bool) -> None:
    """Delete a file, or a folder with all below it, from a run for ever. A terminal asks first."""
    with options.open(read_only=False) as lake:
        run_id = _run_id(lake, run)
        _output.ask_first(f"Delete {path!r} of run {run_id} for ever?", is_sure=yes)
        rows = [{"path": each} for each in lake.artifacts.delete(run_id, path)]
        settings = lake.settings
    if not _give(options, settings, rows):
        _output.talk(f"{many(len(rows), 'file')} deleted.")


@_artifacts.command("cat")
@click.argument("run")
@click.argument("path")
@shared_options
@click.pass_obj
def _cat(options: Options, *, run: str, path: str) -> None:
    """Write the content of a file to standard output, as it is."""
    if options.form is not None:
        message = "the content goes out as it is; leave --json and --csv out."
        raise click.UsageError(message)
    with options.open() as lake, lake.artifacts.open(_run_id(lake, run), path) as file:
        shutil.copyfileobj(file, sys.stdout.buffer, _COPY_BYTES)
        sys.stdout.buffer.flush()


@_artifacts.command("find")
@click.argument("sha256")
@table_options
@click.pass_obj
def _find(options: Options, *, sha256: str) -> None:
    """Find the files of all runs with one content: by SHA-256, by how it begins, or by a file.

    SHA256 is six or more of its digits, or the path of a local file, whose own digest is taken.
    """
    digest = _digest(sha256)
    with options.open() as lake:
        rows = questions.ask(lake, lambda query: stored.find_content(query, digest))
        settings = lake.settings
    if _give(options, settings, rows):
        return
    if not rows:
        _output.talk(f"no run has a file with the SHA-256 {digest}.")
        return
    _output.print_table(
        [
            Column("run_id", [row["run_id"] for row in rows]),
            Column("run_name", [row["run_name"] for row in rows], is_extra=True),
            Column("path", [row["path"] for row in rows]),
            Column("size", [size(row["size"]) for row in rows]),
            Column("logged_at", [row["logged_at"] for row in rows]),
        ]
    )


def _digest(text: str) -> str:
    if _DIGEST.fullmatch(text):
        return text.lower()
    try:
        return sending.sha256_of(Path(text))
    except OSError as error:
        message = f"{text!r} is neither six or more digits of a SHA-256 nor a file: {error}"
        raise InvalidInputError(message) from error


def _run_id(lake: Lake, run: str) -> str:
    found: str = questions.ask(lake, lambda query: listing.find_run(query, run))
    return found


def _give(options: Options, settings: Settings, rows: Sequence[_Row]) -> bool:
    """Answer a program; False if it is a person who asks."""
    names = list(rows[0]) if rows else []
    columns = [Column(name, [row[name] for row in rows]) for name in names]
    return _output.give(
        options, settings, rows=lambda: list(rows), table=lambda: _output.table_of(columns)
    )


COMMANDS: Final[tuple[click.Command, ...]] = (_artifacts,)
