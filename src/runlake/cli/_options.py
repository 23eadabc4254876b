"""The options that every command takes: which lake, and for whom the answer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runlake._lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake import lake as lakes
    from runlake.lake import Lake
else:
    lakes = lazy("runlake.lake")

_Function = TypeVar("_Function", bound="Callable[..., Any]")


@dataclass(slots=True)
class Options:
    """What was said before or behind the command's name.

    Attributes:
        url: the lake; None takes `RUNLAKE_URL`, else `./lake`.
        form: `json` or `csv` for a program; None for a person.
        output: the file that gets the answer; None is standard output.
    """

    url: str | None = None
    form: str | None = None
    output: str | None = None

    def open(self, *, read_only: bool = True) -> Lake:
        """Open the lake; for reading only, so that a mistyped path is said to be no lake.

        Raises:
            NotFoundError: there is no lake, and it is for reading.
            StorageError: the store cannot be read.
        """
        return lakes.open_lake(self.url, read_only=read_only)


def lake_option(function: _Function) -> _Function:
    """Give a command `--lake`; the group has it too, and the command's own wins."""
    return click.option(
        "--lake",
        metavar="URL",
        expose_value=False,
        callback=_keep_url,
        help="Folder or fsspec URL of the lake.  [default: $RUNLAKE_URL, else ./lake]",
    )(function)


def shared_options(function: _Function) -> _Function:
    """Give a command what all commands have."""
    as_json = click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=_keep_form,
        help="Print JSON: times in UTC as ISO 8601, NaN and infinities as strings.",
    )
    as_csv = click.option(
        "--csv",
        is_flag=True,
        expose_value=False,
        callback=_keep_form,
        help='Print CSV: a header, null as nothing, an empty text as "".',
    )
    return lake_option(as_json(as_csv(function)))


def table_options(function: _Function) -> _Function:
    """Give a command what all commands have whose answer is one table."""
    output = click.option(
        "-o",
        "--output",
        metavar="FILE",
        expose_value=False,
        callback=_keep_output,
        help="Write to this file or URL; .csv, .json, .jsonl, .parquet or .arrow says how.",
    )
    return shared_options(output(function))


def _keep_url(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Options).url = value


def _keep_output(context: click.Context, _: click.Parameter, value: str | None) -> None:
    context.ensure_object(Options).output = value


def _keep_form(context: click.Context, option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if not value:
        return
    options = context.ensure_object(Options)
    if options.form not in {None, option.name}:
        message = "--json and --csv: choose one."
        raise click.UsageError(message)
    options.form = option.name
