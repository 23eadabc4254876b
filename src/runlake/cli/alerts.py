"""`runlake alerts` and `runlake logs`: what runs said, for people who wait and for scripts."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from runlake import clock, ids, schema
from runlake._lazy import lazy
from runlake.cli import _output
from runlake.cli._options import Options, table_options
from runlake.cli._output import Column

if TYPE_CHECKING:
    import pyarrow as pa

    from runlake import questions
    from runlake.lake import Lake
    from runlake.query import alerts, cells, console, listing
    from runlake.query import export as frames
    from runlake.query.bookmark import Cursor
    from runlake.query.engine import Query
else:
    alerts = lazy("runlake.query.alerts")
    cells = lazy("runlake.query.cells")
    console = lazy("runlake.query.console")
    frames = lazy("runlake.query.export")
    listing = lazy("runlake.query.listing")
    questions = lazy("runlake.questions")

_Row = dict[str, Any]

FOUND: Final = 1
"""With `--exit-code`, the exit code that says that there are alerts."""
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_STYLES: Final = {"warning": "yellow", "error": "red"}
_FOLLOW_S: Final = 1.0


@click.command("alerts")
@click.option(
    "--since",
    metavar="WHEN",
    help='Only those after this: "1h" ago (s, m, h, d, w), a time like 2026-11-21T12:00 (UTC), '
    '"now", or the cursor of an earlier call.',
)
@click.option(
    "--cursor",
    "kept",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Only those that no earlier call with this file has given; keeps the cursor in it.",
)
@click.option(
    "-l",
    "--level",
    "levels",
    type=click.Choice(schema.ALERT_LEVELS),
    multiple=True,
    help="Only of this level; may be given again.",
)
@click.option("--run", "run", metavar="RUN", help="Only of this run.")
@click.option("--exit-code", is_flag=True, help=f"End with exit code {FOUND} if there is an alert.")
@click.option(
    "--watch",
    "every_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    help="Look again this often, and print what is new, until Ctrl-C; JSON has one a line.",
)
@table_options
@click.pass_obj
def _alerts(
    options: Options,
    *,
    since: str | None,
    kept: Path | None,
    levels: tuple[str, ...],
    run: str | None,
    exit_code: bool,
    every_s: float | None,
) -> None:
    """List alerts, the oldest first; a script polls with --cursor or --since.

    Polled by cursor, each alert is given once, however wrong the clocks of its writers are and
    however late it came.
    """
    if since is not None and kept is not None:
        raise click.UsageError("--since and --cursor: choose one.")
    if every_s is not None and (options.output or options.form == "csv"):
        raise click.UsageError("--watch prints to people, or lines of JSON.")
    with options.open() as lake:
        poll = _Poll(lake, since=since, kept=kept, levels=levels, run=run)
        if every_s is not None:
            _watch(options, poll, every_s)
        rows = poll.ask()
        _give(options, lake, rows, poll)
        poll.keep()
    if exit_code and rows:
        click.get_current_context().exit(FOUND)


class _Poll:
    """One poller's question, and what it has had."""

    def __init__(
        self,
        lake: Lake,
        *,
        since: str | None,
        kept: Path | None,
        levels: tuple[str, ...],
        run: str | None,
    ) -> None:
        self._lake, self._kept, self._levels, self._run = lake, kept, levels, run
        self._since: datetime | None = None
        self.cursor: Cursor = alerts.NOTHING
        if kept is not None and kept.exists():
            self.cursor = alerts.NOTHING.read(kept.read_text("utf-8"))
        elif since is not None and since.startswith(alerts.MARK):
            self.cursor = alerts.NOTHING.read(since)
        elif since == "now":
            self.ask()
        elif since is not None:
            self._since = read_moment(since)

    def ask(self) -> list[_Row]:
        """Return what is new, and step behind it."""

        def answer(query: Query) -> tuple[list[_Row], Cursor]:
            run_id = None if self._run is None else listing.find_run(query, self._run)
            return alerts.find_alerts(
                query,
                cursor=self.cursor,
                since=self._since,
                levels=self._levels,
                run_id=run_id,
            )

        rows, self.cursor = questions.ask(self._lake, answer)
        return rows

    def keep(self) -> None:
        """Write the cursor down: whoever dies before has the same alerts again, and loses none."""
        if self._kept is not None:
            fresh = self._kept.with_name(f"{self._kept.name}.{ids.new_nonce()}")
            fresh.write_text(f"{self.cursor}\n", "utf-8")
            fresh.replace(self._kept)

    def look_again(self) -> None:
        """Have the next question see what has come meanwhile."""
        self._lake.refresh()


def read_moment(text: str) -> datetime:
    """Return the moment that a person means.

    Args:
        text: how long ago, as `90s`, `1h` or `2d`; or a date or time, UTC where it says no zone.

    Raises:
        BadParameter: it is neither.
    """
    ago = _DURATION.fullmatch(text)
    if ago is not None:
        now = datetime.fromtimestamp(clock.now_us() / 1e6, UTC)
        return now - timedelta(seconds=float(ago[1]) * _UNITS_S[ago[2]])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is neither a length of time (30m, 1h, 2d), nor a time "
            f"(2026-11-21T12:00), nor a cursor.",
            param_hint="--since",
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _give(options: Options, lake: Lake, rows: list[_Row], poll: _Poll) -> None:
    is_answered = _output.give(
        options,
        lake.settings,
        rows=lambda: {"alerts": rows, "cursor": str(poll.cursor)},
        table=lambda: _output.table_of(_columns(rows)),
    )
    if not is_answered and rows:
        _print(rows)
    elif not is_answered:
        _output.talk(f"no alert in {lake.url}.")


def _watch(options: Options, poll: _Poll, every_s: float) -> None:
    """Print what is new, again and again."""
    while True:
        rows = poll.ask()
        for row in rows if options.form == "json" else ():
            click.echo(cells.to_json(row))
        if options.form != "json" and rows:
            _print(rows)
        poll.keep()
        _pause(every_s)
        poll.look_again()


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _columns(rows: list[_Row]) -> list[Column]:
    return [Column(name, [row[name] for row in rows]) for name in alerts.FIELDS]


def _print(rows: list[_Row]) -> None:
    """Print one alert a line, and what it says below it, where a person reads."""
    if not _output.is_terminal():
        shown = {"at", "level", "run_name", "title", "text"}
        _output.print_table([column for column in _columns(rows) if column.title in shown])
        return
    for row in rows:
        level = _output.style(row["level"].upper(), fg=_STYLES.get(row["level"]), bold=True)
        name = row["run_name"] or row["run_id"]
        title = _output.printable(row["title"] or "")
        click.echo(f"{_output.text(row['at'])}  {level}  {_output.printable(name)}  {title}")
        for line in (row["text"] or "").splitlines():
            click.echo(f"    {_output.printable(line)}")


@click.command("logs")
@click.argument("run")
@click.option("--stream", type=click.Choice(("stdout", "stderr")), help="Only of this stream.")
@click.option("-g", "--grep", "pattern", metavar="REGEX", help="Only lines in which this is found.")
@click.option("-n", "--tail", metavar="N", type=click.IntRange(min=0), help="Only the last lines.")
@click.option("-t", "--times", is_flag=True, help="Say when each line came, and on which stream.")
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with what comes, until the run ends or Ctrl-C."
)
@table_options
@click.pass_obj
def _logs(
    options: Options,
    *,
    run: str,
    stream: str | None,
    pattern: str | None,
    tail: int | None,
    times: bool,
    follow: bool,
) -> None:
    """Print what a run printed, if it was begun with `log_console=True`.

    RUN is an id, the beginning of one, or a name, if only one run has it.
    """
    if follow and (options.form or options.output):
        raise click.UsageError("--follow prints to people; a program asks again with `sql`.")
    with options.open() as lake:
        log = _Log(run, stream=stream, pattern=pattern, tail=tail)
        lines = questions.ask(lake, log.read)
        if not _output.give(
            options, lake.settings, rows=lambda: frames.to_rows(lines), table=lambda: lines
        ):
            _print_lines(lines, times=times)
        while follow and log.is_open:
            _pause(_FOLLOW_S)
            lake.refresh()
            _print_lines(questions.ask(lake, log.read), times=times)
    if not log.had:
        _output.talk("this run has no console; one that is begun with log_console=True has.")


class _Log:
    """One reader of a run's lines, and what it has had."""

    def __init__(
        self, run: str, *, stream: str | None, pattern: str | None, tail: int | None
    ) -> None:
        self._run, self._stream, self._pattern, self._tail = run, stream, pattern, tail
        self.had: dict[str, object] = {}
        self.is_open = True

    def read(self, query: Query) -> pa.Table:
        """Return the lines that are new."""
        run_id = listing.find_run(query, self._run)
        lines = console.read_lines(
            query,
            run_id,
            stream=self._stream,
            pattern=self._pattern,
            tail=None if self.had else self._tail,
            had=self.had,
        )
        self.had = console.latest(query, run_id)
        self.is_open = console.is_at_work(query, run_id)
        return lines


def _print_lines(lines: pa.Table, *, times: bool) -> None:
    texts = [text or "" for text in lines["text"].to_pylist()]
    if not times:
        for text in texts:
            click.echo(_shown(text))
        return
    moments = frames.to_values(lines["at"])
    for moment, stream, text in zip(moments, lines["stream"].to_pylist(), texts, strict=True):
        click.echo(f"{moment:%Y-%m-%d %H:%M:%S}  {stream}  {_shown(text)}")


def _shown(text: str) -> str:
    """Return a line with nothing in it that a terminal would obey; tabs stay."""
    return text if text.isprintable() else "\t".join(map(_output.printable, text.split("\t")))


COMMANDS: Final[tuple[click.Command, ...]] = (_alerts, _logs)
