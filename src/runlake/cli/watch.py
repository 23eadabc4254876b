"""`runlake watch`: a command for each change of the registry, as a webhook would be called."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import click

from runlake import ids
from runlake._lazy import lazy
from runlake.cli import _output
from runlake.cli._options import Options, shared_options
from runlake.cli._registered import trail_rows

if TYPE_CHECKING:
    from runlake.lake import Lake
    from runlake.query import cells, registry_trail
else:
    cells = lazy("runlake.query.cells")
    registry_trail = lazy("runlake.query.registry_trail")

_Row = dict[str, Any]

FAILED: Final = 1
"""With `--once`, the exit code that says that a command failed."""
# A command has so long to end after Ctrl-C.
_PATIENCE_S: Final = 0.25
_SHOWN: Final = ("at", "name", "version", "kind", "key", "value")
_VARIABLES: Final = ("kind", "name", "version", "key", "value", "user_id", "reason")


@click.command("watch")
@click.option(
    "--exec",
    "command",
    metavar="CMD",
    help="Run this shell command for each change: the event is JSON on its standard input, and "
    "in the variables RUNLAKE_EVENT_KIND, _NAME, _VERSION, _KEY, _VALUE, _USER_ID, _REASON.",
)
@click.option(
    "--cursor",
    "kept",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep in this file what was given, and go on from there the next time.",
)
@click.option("--from-start", is_flag=True, help="Without a cursor: begin with the first change.")
@click.option("--once", is_flag=True, help="Give what is new, and end.")
@click.option(
    "--every",
    "every_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="Look this often.",
)
@click.option(
    "--retry", is_flag=True, help="If CMD fails, give the same change again the next time."
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    help="End CMD when it takes longer; it has failed then.",
)
@shared_options
@click.pass_context
def _watch(
    context: click.Context,
    *,
    command: str | None,
    kept: Path | None,
    from_start: bool,
    once: bool,
    every_s: float,
    retry: bool,
    timeout_s: float | None,
) -> None:
    """Tell of changes in the model registry as they come, until Ctrl-C.

    It begins with what changes from now on, or behind what the cursor file says was given. Each
    change is given at least once: twice only if this process dies between the command and the
    writing of the cursor. A command that fails is said, and does not end the watch; with --once
    the exit code is then 1.
    """
    options = context.ensure_object(Options)
    if options.form == "csv":
        message = "watch prints to people, or lines of JSON."
        raise click.UsageError(message)
    with options.open() as lake:
        giver = _Giver(lake, command, timeout_s=timeout_s, as_json=options.form == "json")
        watch = _Watcher(lake, giver, kept, from_start=from_start, retry=retry)
        while True:
            is_well = watch.look()
            if once:
                context.exit(0 if is_well else FAILED)
            _pause(every_s)


@final
class _Giver:
    """Gives one event to a command, or prints it."""

    def __init__(
        self, lake: Lake, command: str | None, *, timeout_s: float | None, as_json: bool
    ) -> None:
        self._lake, self._command = lake, command
        self._timeout_s, self._as_json = timeout_s, as_json

    def give(self, event: _Row) -> bool:
        """Give it; return False if the command failed, and say so."""
        if self._command is None:
            shown = (_output.text(event[name]) for name in _SHOWN)
            click.echo(cells.to_json(event) if self._as_json else "  ".join(shown))
            return True
        try:
            code = self._run(self._command, event)
        except subprocess.TimeoutExpired:
            _say(event, f"took longer than {self._timeout_s} s")
            return False
        except OSError as error:
            _say(event, f"could not be started: {error}")
            return False
        if code:
            _say(event, f"ended with exit code {code}")
        return code == 0

    def _run(self, command: str, event: _Row) -> int:
        """Return a command's exit code; one that takes too long ends with all it has started."""
        process = subprocess.Popen(  # noqa: S602 - the command of whoever started this
            command,
            shell=True,
            stdin=subprocess.PIPE,
            env={**os.environ, **self._variables(event)},
            text=True,
            start_new_session=True,
        )
        try:
            process.communicate(cells.to_json(event) + "\n", timeout=self._timeout_s)
        except KeyboardInterrupt:
            _signal(process, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE_S)
            raise
        finally:
            if process.returncode is None:
                _signal(process, None)
                process.wait()
        return process.returncode

    def _variables(self, event: _Row) -> dict[str, str]:
        found = {
            f"RUNLAKE_EVENT_{name.upper()}": "" if event[name] is None else str(event[name])
            for name in _VARIABLES
        }
        # A variable holds no NUL; the JSON has the whole text.
        plain = {name: value.replace("\0", "") for name, value in found.items()}
        return {**plain, "RUNLAKE_URL": self._lake.url}


@final
class _Watcher:
    """What was given so far, and the way to what is new."""

    def __init__(
        self, lake: Lake, giver: _Giver, kept: Path | None, *, from_start: bool, retry: bool
    ) -> None:
        self._lake, self._giver, self._kept, self._retry = lake, giver, kept, retry
        self._cursor: str | None = None
        if kept is not None and kept.exists():
            self._cursor = kept.read_text("utf-8")
        elif not from_start:
            _, self._cursor = lake.registry.changes()
            self._keep()

    def look(self) -> bool:
        """Give what is new; return False if a command failed."""
        frame, behind = self._lake.registry.changes(self._cursor)
        is_well = True
        for event in trail_rows(frame):
            is_given = self._giver.give(event)
            is_well &= is_given
            if not is_given and self._retry:
                return False
            self._step_behind(event)
        self._cursor = behind
        self._keep()
        return is_well

    def _step_behind(self, event: _Row) -> None:
        start = registry_trail.START
        cursor = start if self._cursor is None else start.read(self._cursor)
        self._cursor = str(cursor.after({event["writer"]: event["seq"]}))
        self._keep()

    def _keep(self) -> None:
        if self._kept is not None:
            fresh = self._kept.with_name(f"{self._kept.name}.{ids.new_nonce()}")
            fresh.write_text(f"{self._cursor}\n", "utf-8")
            fresh.replace(self._kept)


def _signal(process: subprocess.Popen[str], number: int | None) -> None:
    """Send a signal to a command and to what it has started; None kills."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL if number is None else number)
        else:
            process.kill()


def _say(event: _Row, what: str) -> None:
    version = "" if event["version"] is None else f" version {event['version']}"
    _output.talk(f"warning: the command for {event['kind']} of {event['name']!r}{version} {what}.")


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


COMMANDS: Final[tuple[click.Command, ...]] = (_watch,)
