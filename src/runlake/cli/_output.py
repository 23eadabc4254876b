"""The one renderer: JSON for programs, aligned text for pipes, tables for people.

JSON keeps everything: times are ISO 8601 in UTC, durations seconds, bytes hex digits, and the
numbers that JSON lacks are the strings "NaN", "Infinity" and "-Infinity", so that null always
means absent. In a pipe nothing is cut, each row is one line and absent is "-". A terminal shows
what fits.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import click

from runlake._lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Iterable

    import rich.cells as rich_cells
    import rich.console as rich_console
    import rich.table as rich_table
    import rich.text as rich_text
else:
    rich_cells = lazy("rich.cells")
    rich_console = lazy("rich.console")
    rich_table = lazy("rich.table")
    rich_text = lazy("rich.text")

ABSENT: Final = "-"
_GAP: Final = 2
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


def talk(message: str) -> None:
    """Say something about the data, on standard error."""
    click.echo(message, err=True)


def print_json(value: object) -> None:
    """Print one JSON value: a list with one element a line, anything else indented."""
    if isinstance(value, list):
        rows = ",\n".join(json.dumps(plain(row), ensure_ascii=False) for row in value)
        click.echo(f"[\n{rows}\n]" if rows else "[]")
    else:
        click.echo(json.dumps(plain(value), ensure_ascii=False, indent=2))


def print_table(columns: Sequence[Column]) -> None:
    """Print rows: as a table in a terminal, else as aligned text with nothing cut."""
    if is_terminal():
        _print_rich(columns)
    else:
        _print_aligned(columns)


def print_frame(columns: Sequence[Column]) -> None:
    """Print rows of any shape; a terminal too narrow for them shows one below the other."""
    if not is_terminal() or _fits(columns):
        print_table(columns)
        return
    width = max(rich_cells.cell_len(column.title) for column in columns)
    for row in range(len(columns[0].values)):
        click.secho(f"-- {row + 1} --", dim=True)
        for column in columns:
            title = click.style(column.title.ljust(width + _GAP), bold=True)
            click.echo(title + text(column.values[row]))


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names with one value each."""
    shown = [(name, text(value)) for name, value in pairs]
    width = max((rich_cells.cell_len(name) for name, _ in shown), default=0)
    for name, value in shown:
        title = name.ljust(width + _GAP)
        click.echo((click.style(title, bold=True) if is_terminal() else title) + value)


def print_heading(title: str) -> None:
    """Print a heading above a part of the answer."""
    click.echo()
    click.echo(click.style(title, bold=True, underline=True) if is_terminal() else title)


def text(value: object) -> str:  # noqa: PLR0911 - one answer for each type
    """Return a value on one line: short for a terminal, in full for a pipe."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}" if is_terminal() else repr(value)
    if isinstance(value, datetime):
        moment = value.astimezone(UTC)
        return f"{moment:%Y-%m-%d %H:%M:%S}" if is_terminal() else iso(moment)
    if isinstance(value, timedelta):
        return duration(value.total_seconds())
    if isinstance(value, Mapping) and value and is_terminal():
        return ", ".join(f"{key}={text(held)}" for key, held in value.items())
    if isinstance(value, (Mapping, list)):
        return json.dumps(plain(value), ensure_ascii=False)
    return printable(str(plain(value)))


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
    if seconds < _MINUTE_S:
        return f"{seconds:.3g}s" if seconds < 1 else f"{seconds:.1f}s"
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


def iso(moment: datetime) -> str:
    """Return a time as ISO 8601 in UTC, to the microsecond."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def plain(value: object) -> Any:  # noqa: ANN401, PLR0911 - any JSON value; one answer for each type
    """Return what JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else text(key): plain(held) for key, held in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        return iso(value) if value.tzinfo else value.isoformat(timespec="microseconds")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, (date, time)) else str(value)


def _is_number(values: Sequence[object]) -> bool:
    found = [value for value in values if value is not None]
    return bool(found) and all(
        isinstance(value, (int, float, Decimal)) and not isinstance(value, bool) for value in found
    )


def _width(column: Column) -> int:
    return max(rich_cells.cell_len(each) for each in (column.title, *map(text, column.values)))


def _fits(columns: Sequence[Column]) -> bool:
    needed = sum(map(_width, columns)) + _GAP * (len(columns) - 1)
    return needed <= rich_console.Console().width


def _print_aligned(columns: Sequence[Column]) -> None:
    cells = [[column.title, *map(text, column.values)] for column in columns]
    widths = [_width(column) for column in columns]
    right = [_is_number(column.values) for column in columns]
    for row in zip(*cells, strict=True):
        line = ""
        for cell, width, is_right in zip(row, widths, right, strict=True):
            fill = " " * (width - rich_cells.cell_len(cell))
            line += (fill + cell if is_right else cell + fill) + " " * _GAP
        click.echo(line.rstrip())


def _print_rich(columns: Sequence[Column]) -> None:
    kept = list(columns)
    while not _fits(kept) and any(column.is_extra for column in kept):
        kept.remove(next(column for column in reversed(kept) if column.is_extra))
    table = rich_table.Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for column in kept:
        right = _is_number(column.values)
        table.add_column(
            rich_text.Text(column.title),
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in zip(*(column.values for column in kept), strict=True):
        table.add_row(*(_styled(value) for value in row))
    rich_console.Console(highlight=False).print(table)


def _styled(value: object) -> rich_text.Text:
    shown = text(value)
    return rich_text.Text(shown, style=_STYLES.get(shown.partition(" ")[0], ""))
