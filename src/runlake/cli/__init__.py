"""The command line: questions to a lake, and the upkeep of one.

Standard output is data and nothing else; what is said about it goes to standard error. Heavy
libraries load when a command needs them, so that help is there at once.
"""

from __future__ import annotations

import errno
import os
import sys
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from runlake._version import __version__
from runlake.cli._commands import Commands
from runlake.cli._options import Options, lake_option
from runlake.cli._output import talk
from runlake.errors import RunlakeError, RunlakeWarning

if TYPE_CHECKING:
    from collections.abc import Iterator

# Exit codes by the `kind` of an error; every other kind is 2, a wrong call.
EXIT_CODES: Final = {
    "not-found": 3,
    "state": 4,
    "already-exists": 4,
    "conflict": 4,
    "snapshot-expired": 4,
    "storage": 5,
    "format": 6,
    "newer-format": 6,
    "missing-dependency": 7,
    "limit-exceeded": 8,
}
_WRONG_CALL: Final = 2
_UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_STOPPED: Final = 130  # as shells say it of Ctrl-C
_EPILOG: Final = """\b
Exit codes:
  0  done
  1  done, and something is left: `verify` found faults, `recover` left a journal,
     `compact`, `copy`, `import` or `export --to` a problem, `purge` bytes that it cannot
     reach; or
     `alerts --exit-code` found an alert, or a command of `watch --once` failed
  2  the call is wrong: an option, a filter, a query, a name that fits several runs
  3  no such lake, run, experiment or model
  4  the lake is not in a state that allows this; a promotion was refused
  5  the store refused or did not answer, or standard output cannot be written
  6  a file is damaged, or a newer runlake wrote it
  7  a package is missing; the message holds the pip line
  8  a query needed more time, memory or rows than it may take
  130  stopped by Ctrl-C

Every command takes --json and --csv. Data goes to standard output, everything said to standard
error.
"""


class _Commands(click.Group):
    """A group that tells runlake's own errors in one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        try:
            with _plain_warnings():
                return super().invoke(ctx)
        except RunlakeError as error:
            talk(f"error: {error}")
            ctx.exit(EXIT_CODES.get(error.kind, _WRONG_CALL))
        except (KeyboardInterrupt, click.Abort):
            talk("stopped.")
            ctx.exit(_STOPPED)
        except BrokenPipeError:  # `head` has seen enough
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            place = error.filename or "standard output"
            talk(f"error: {place} cannot be written: {error.strerror}.")
            ctx.exit(EXIT_CODES["storage"])


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Tell runlake's warnings in one line, without the place in the code."""
    shown = warnings.showwarning

    def show(  # noqa: PLR0917 - Python's signature
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, RunlakeWarning):
            talk(f"warning: {message}")
        else:
            shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


@click.group(
    cls=_Commands,
    commands=Commands(),
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@lake_option
@click.version_option(
    __version__, "--version", message=f"runlake %(version)s, Python {sys.version.split()[0]}"
)
@click.pass_context
def main(context: click.Context) -> None:
    """Look into a lake of experiments: a folder or bucket prefix, without a server.

    The lake is --lake URL, else the variable RUNLAKE_URL, else ./lake.
    """
    context.ensure_object(Options)
