"""The one renderer: JSON and CSV for programs, aligned text for pipes, tables for people.

JSON and CSV keep everything, as `runlake.query.cells` says. In a pipe nothing is cut, each row
is one line and absent is "-". A terminal shows what fits, in colours unless `NO_COLOR` is set.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, Final, cast

import click

from runlake._lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa
    import rich.cells as rich_cells
    import rich.console as rich_console
    import rich.status as rich_status

    from runlake.cli._options import Options
    from runlake.query import cells, formats, outlet
    from runlake.query import export as frames
    from runlake.settings import Settings
else:
    cells = lazy("runlake.query.cells")
    formats = lazy("runlake.query.formats")
    frames = lazy("runlake.query.export")
    outlet = lazy("runlake.query.outlet")
    rich_cells = lazy("rich.cells")
    rich_console = lazy("rich.console")
    rich_status = lazy("rich.status")

ABSENT: Final = "-"
_GAP: Final = 2
_CUT: Final = "…"
# Of a column that is shortened so much must stay.
_LEAST_WIDTH: Final = 6
_STYLES: Final = {"FAILED": "red", "KILLED": "red", "RUNNING": "green"}
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86400


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: its heading.
        values: one for each row.
        is_extra: a terminal that is too narrow leaves it out.
    """

    title: str
    values: Sequence[object]
    is_extra: bool = False


def is_terminal() -> bool:
    """Return whether a person reads standard output."""
    return sys.stdout.isatty()


def terminal_size() -> tuple[int, int]:
    """Return how many characters a line of the terminal has, and how many lines there are."""
    found = shutil.get_terminal_size()
    return found.columns, found.lines


def has_colors() -> bool:
    """Return whether a person reads, and has not asked for `NO_COLOR`."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def talk(message: str) -> None:
    """Say something about the data, on standard error."""
    click.echo(message, err=True)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Lend what shows in a terminal how far it is; in a pipe nothing is shown.

    Yields:
        Shows a text in place of the one before.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    with rich_status.Status("looking", console=rich_console.Console(stderr=True)) as status:
        yield status.update


def ask_first(question: str, *, is_sure: bool) -> None:
    """Ask a person; a program has to be sure.

    Args:
        question: for the person.
        is_sure: do not ask.

    Raises:
        UsageError: there is nobody to ask.
    """
    if is_sure:
        return
    if not sys.stdin.isatty():
        message = f"{question} There is nobody to ask: give --yes."
        raise click.UsageError(message)
    click.confirm(question, abort=True, err=True)


def style(shown: str, **how: Any) -> str:  # noqa: ANN401 - those of click.style
    """Colour text, where there are colours."""
    is_meant = any(value is not None for value in how.values())
    return click.style(shown, **how) if is_meant and has_colors() else shown


def give(
    options: Options,
    settings: Settings,
    *,
    rows: Callable[[], Any],
    table: Callable[[], pa.Table],
) -> bool:
    """Answer a program, or write the answer to a file.

    Args:
        options: say which.
        settings: of the lake, for the file's storage.
        rows: the answer as JSON has it.
        table: the answer as a table.

    Returns:
        False if it is a person who asks: then nothing was done.

    Raises:
        InvalidInputError: the file's name does not say how to write it.
        StorageError: the file cannot be written.
    """
    if options.output is not None:
        _write(options.output, options.form, settings, rows=rows, table=table)
    elif options.form == "json":
        click.echo(json_text(rows()))
    elif options.form == "csv":
        with standard_output() as sink:
            _write_table(table(), sink, formats.Form("csv"))
    else:
        return False
    return True


class _Standard(io.RawIOBase):
    """Standard output for bytes. Libraries make a text of its errors; it remembers the first."""

    failed: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - bytes or a view of them
        try:
            return sys.stdout.buffer.write(data)
        except OSError as error:
            self.failed = self.failed or error
            raise


@contextmanager
def standard_output() -> Iterator[IO[bytes]]:
    """Lend standard output for bytes.

    Yields:
        It, open for writing.

    Raises:
        OSError: it cannot be written; a BrokenPipeError, if nobody reads any more.
    """
    sink = _Standard()
    try:
        yield cast("IO[bytes]", sink)
    except OSError:
        if sink.failed is None:
            raise
        raise sink.failed from None
    sys.stdout.buffer.flush()


def json_text(value: object) -> str:
    """Return one JSON value: a list with one element a line, anything else indented."""
    if isinstance(value, list):
        rows = ",\n".join(map(cells.to_json, value))
        return f"[\n{rows}\n]" if rows else "[]"
    return json.dumps(cells.plain(value), ensure_ascii=False, indent=2)


def table_of(columns: Sequence[Column]) -> pa.Table:
    """Return columns as an Arrow table."""
    return frames.to_arrow({column.title: column.values for column in columns})


def parts_table(parts: Mapping[str, object]) -> pa.Table:
    """Return an object of objects as a table of part, key and value.

    Args:
        parts: as JSON has it; what lies deeper is joined with dots.
    """
    columns: dict[str, list[str | None]] = {"part": [], "key": [], "value": []}
    for path, value in _leaves(parts, ()):
        columns["part"].append(path[0] if len(path) > 1 else "")
        columns["key"].append(".".join(path[1:] or path))
        columns["value"].append(cells.csv_text(value))
    return frames.to_arrow(columns)


def print_table(columns: Sequence[Column], *, dim: Sequence[bool] = ()) -> None:
    """Print rows: fitted into a terminal, or with nothing cut.

    Args:
        columns: of equal length.
        dim: the rows that matter less.
    """
    shown = [
        [_one_line(text(value)) for value in (column.title, *column.values)] for column in columns
    ]
    widths = [max(map(cell_width, cells)) for cells in shown]
    kept = list(range(len(columns)))
    if is_terminal():
        kept, widths = fitted(columns, widths, terminal_size()[0])
    right = [_is_number(column.values) for column in columns]
    for row in range(len(shown[0]) if shown else 0):
        line = ""
        for place in kept:
            cell = cut(shown[place][row], widths[place])
            fill = " " * (widths[place] - cell_width(cell))
            if row == 0:
                cell = style(cell, bold=True)
            else:
                is_dim = bool(dim) and dim[row - 1]
                cell = style(cell, fg=_STYLES.get(cell.partition(" ")[0]), dim=is_dim or None)
            line += (fill + cell if right[place] else cell + fill) + " " * _GAP
        click.echo(line.rstrip())


def print_frame(columns: Sequence[Column]) -> None:
    """Print rows of any shape; a terminal too narrow for them shows one below the other."""
    widths = [
        max(cell_width(text(value)) for value in (column.title, *column.values))
        for column in columns
    ]
    if not is_terminal() or sum(widths) + _GAP * (len(columns) - 1) <= terminal_size()[0]:
        print_table(columns)
        return
    longest = max(cell_width(column.title) for column in columns)
    for row in range(len(columns[0].values)):
        click.echo(style(f"-- {row + 1} --", dim=True))
        for column in columns:
            title = style(column.title.ljust(longest + _GAP), bold=True)
            click.echo(title + text(column.values[row]))


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names with one value each."""
    shown = [(printable(name), text(value)) for name, value in pairs]
    longest = max((cell_width(name) for name, _ in shown), default=0)
    for name, value in shown:
        fill = " " * (longest - cell_width(name) + _GAP)
        click.echo(style(name, bold=True) + fill + value)


def print_heading(title: str) -> None:
    """Print a heading above a part of the answer."""
    click.echo()
    click.echo(style(title, bold=True, underline=True))


def text(value: object) -> str:  # noqa: PLR0911 - one answer for each type
    """Return a value on one line: short for a terminal, in full for a pipe."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}" if is_terminal() else repr(value)
    if isinstance(value, datetime):
        if not is_terminal():
            return cells.iso(value)
        moment = value.astimezone(UTC) if value.tzinfo else value
        return f"{moment:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, timedelta):
        return duration(value.total_seconds())
    if isinstance(value, Mapping) and value and is_terminal():
        return ", ".join(f"{text(key)}={text(held)}" for key, held in value.items())
    if isinstance(value, (Mapping, list)):
        return cells.to_json(value)
    return printable(str(cells.plain(value)))


def printable(line: str) -> str:
    """Return text on one line, with nothing in it that a terminal would obey."""
    if line.isprintable():
        return line
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in line
    )


def duration(seconds: float | None) -> str:
    """Return a length of time as a person says it."""
    if seconds is None:
        return ABSENT
    if 0 < seconds < 1:
        return f"{1000 * seconds:.3g}ms"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f}s"
    if seconds < _HOUR_S:
        return f"{int(seconds // _MINUTE_S)}m {int(seconds % _MINUTE_S):02}s"
    if seconds < _DAY_S:
        return f"{int(seconds // _HOUR_S)}h {int(seconds % _HOUR_S // _MINUTE_S):02}m"
    return f"{int(seconds // _DAY_S)}d {int(seconds % _DAY_S // _HOUR_S):02}h"


def age(seconds: float) -> str:
    """Return how long ago something was, in one unit."""
    for unit, name in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "m")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{name} ago"
    return f"{max(int(seconds), 0)}s ago"


def size(count: int) -> str:
    """Return a number of bytes as a person says it."""
    amount, units = float(count), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    for larger in units:
        if amount < 1024:  # noqa: PLR2004 - what a KiB is
            break
        amount, unit = amount / 1024, larger
    return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"


def many(count: int, what: str) -> str:
    """Return a number of things, in words."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def cell_width(shown: str) -> int:
    """Return how many columns of a terminal a text takes; some characters take two."""
    return len(shown) if shown.isascii() else rich_cells.cell_len(shown)


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield each value with its place."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            yield from _leaves(held, (*path, key))
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for number, held in enumerate(value):
            yield from _leaves(held, (*path, str(number)))
    else:
        yield path, value


def fitted(
    columns: Sequence[Column], widths: Sequence[int], width: int
) -> tuple[list[int], list[int]]:
    """Choose the columns that a terminal shows, and how wide: extras go first, then ends.

    Args:
        columns: all of them.
        widths: what each of them needs.
        width: what there is.

    Returns:
        The places of those that stay, and the width of each column.
    """
    kept, widths = list(range(len(columns))), list(widths)

    def excess() -> int:
        return sum(widths[place] + _GAP for place in kept) - _GAP - width

    for place in reversed(range(len(columns))):
        if excess() <= 0:
            break
        if columns[place].is_extra:
            kept.remove(place)
    while excess() > 0:
        place = max(kept, key=lambda each: widths[each])
        if widths[place] <= _LEAST_WIDTH:
            break
        others = max((widths[each] for each in kept if each != place), default=0)
        enough = widths[place] - excess()
        widths[place] = max(_LEAST_WIDTH, enough, min(widths[place] - 1, others))
    return kept, widths


def cut(shown: str, limit: int) -> str:
    """Shorten text to so many columns of a terminal.

    Args:
        shown: without colours.
        limit: at least 1.

    Returns:
        The text, with an ellipsis where something is missing.
    """
    if cell_width(shown) <= limit:
        return shown
    while cell_width(shown) >= limit:
        shown = shown[:-1]
    return shown + _CUT


def _write(
    target: str,
    form: str | None,
    settings: Settings,
    *,
    rows: Callable[[], Any],
    table: Callable[[], pa.Table],
) -> None:
    place = outlet.Outlet(target, settings=settings)
    as_json = form == "json" or (form is None and place.name.lower().endswith(".json"))
    how = None if as_json else formats.form_of(place.name, form)
    with place.file() as sink:
        if how is None:
            sink.write(json_text(rows()).encode() + b"\n")
        else:
            _write_table(table(), sink, how)


def _write_table(table: pa.Table, sink: Any, form: formats.Form) -> None:  # noqa: ANN401 - any stream
    formats.write(table.to_batches(), table.schema, sink=sink, form=form)


def _is_number(values: Sequence[object]) -> bool:
    found = [value for value in values if value is not None]
    return bool(found) and all(
        isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) for value in found
    )


def _one_line(shown: str) -> str:
    return shown if shown.isprintable() else printable(shown)
