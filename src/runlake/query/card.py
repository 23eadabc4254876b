"""A run as a small table of HTML, as notebooks show it, with a sparkline for each metric."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runlake.query.entities import RunData

# Step and value of each point, in the order of steps.
Curve: TypeAlias = "Sequence[tuple[int, float]]"
# Reads the curves of some metrics of a run, thinned.
ReadCurves: TypeAlias = "Callable[[str, Sequence[str]], Mapping[str, Curve]]"

POINTS: Final = 60
"""So many points of a curve are enough for its sparkline."""
_MOST_ROWS: Final = 12
_TEXT_CHARS: Final = 80
_WIDTH: Final = 120
_HEIGHT: Final = 20
_EDGE: Final = 2
_FEWEST: Final = 2
_LEFT: Final = ' style="text-align:left"'
# Of the machine, not of the training: shown after all others.
_SYSTEM: Final = "system/"


class Shown(Protocol):
    """What is shown of a run itself; times are milliseconds since 1970."""

    @property
    def run_id(self) -> str:
        """Its id."""

    @property
    def run_name(self) -> str | None:
        """What people call it."""

    @property
    def status(self) -> str:
        """Where it stands."""

    @property
    def start_time(self) -> int:
        """When it began."""


def keys_shown(data: RunData) -> list[str]:
    """Return the metrics that have a row, in their order."""
    return sorted(data.metrics, key=lambda key: (key.startswith(_SYSTEM), key))[:_MOST_ROWS]


def card(info: Shown, data: RunData | None, curves: Mapping[str, Curve]) -> str:
    """Return a run as a table of HTML that stands by itself.

    Args:
        info: the run.
        data: what was logged to it; None where that is not known now.
        curves: of metrics that `keys_shown` names; one that is missing has no sparkline.

    Returns:
        One element. Text of the run is escaped.
    """
    rows = [*_head(info)]
    if data is not None:
        rows += _params(data)
        rows += _metrics(data, curves)
    return f"<table>{''.join(rows)}</table>"


def _head(info: Shown) -> Iterator[str]:
    began = datetime.fromtimestamp(info.start_time // 1000, UTC)
    end_time: int | None = getattr(info, "end_time", None)
    lasted = ""
    if end_time is not None:
        lasted = f", {timedelta(seconds=(end_time - info.start_time) // 1000)}"
    said = f"{info.status}, {began:%Y-%m-%d %H:%M:%S} UTC{lasted}"
    yield f'<tr><th colspan="5"{_LEFT}>{_text(info.run_name or info.run_id)}</th></tr>'
    yield f'<tr><td colspan="5"{_LEFT}>{escape(said)}<br>{escape(info.run_id)}</td></tr>'


def _params(data: RunData) -> Iterator[str]:
    for key in sorted(data.params)[:_MOST_ROWS]:
        value = _text(data.params[key])
        yield f'<tr><td{_LEFT}>{_text(key)}</td><td colspan="4"{_LEFT}>{value}</td></tr>'
    yield from _more(len(data.params), "params")


def _metrics(data: RunData, curves: Mapping[str, Curve]) -> Iterator[str]:
    if not data.metrics:
        return
    titles = "".join(f"<th>{title}</th>" for title in ("last", "min", "max", ""))
    yield f"<tr><th{_LEFT}>metric</th>{titles}</tr>"
    for key in keys_shown(data):
        curve = curves.get(key, ())
        known = [value for _, value in curve if not math.isnan(value)]
        least, greatest = (f"{edge(known):.6g}" if known else "" for edge in (min, max))
        cells = (f"{data.metrics[key]:.6g}", least, greatest, sparkline(curve))
        told = "".join(f"<td>{cell}</td>" for cell in cells)
        yield f"<tr><td{_LEFT}>{_text(key)}</td>{told}</tr>"
    yield from _more(len(data.metrics), "metrics")


def _more(count: int, what: str) -> Iterator[str]:
    if count > _MOST_ROWS:
        yield f'<tr><td colspan="5"{_LEFT}>… and {count - _MOST_ROWS} more {what}</td></tr>'


def sparkline(curve: Curve) -> str:
    """Return a curve as a small SVG, broken where a value is no finite number.

    Args:
        curve: its points; fewer than two finite ones have no line.
    """
    finite = [(step, value) for step, value in curve if math.isfinite(value)]
    if len(finite) < _FEWEST:
        return ""
    across = _scale([step for step, _ in finite], _WIDTH)
    up = _scale([value for _, value in finite], _HEIGHT)
    lines: list[list[str]] = [[]]
    for step, value in curve:
        if math.isfinite(value):
            lines[-1].append(f"{across(step):.1f},{_HEIGHT - up(value):.1f}")
        elif lines[-1]:
            lines.append([])
    drawn = "".join(
        # A point that stands alone is a line to itself, which its round ends make a dot.
        f'<polyline points="{" ".join(line if line[1:] else line * 2)}"/>'
        for line in lines
        if line
    )
    style = 'fill="none" stroke="currentColor" stroke-width="1.5" stroke-linecap="round"'
    return f'<svg width="{_WIDTH}" height="{_HEIGHT}" {style}>{drawn}</svg>'


def _scale(values: Sequence[float], size: int) -> Callable[[float], float]:
    """Return where a value stands between the edges."""
    low, high = min(values), max(values)
    # Halves, so that the widest range of floats does not overflow.
    span = high / 2 - low / 2
    room = size - 2 * _EDGE
    return lambda value: _EDGE + room * ((value / 2 - low / 2) / span if span else 0.5)


def _text(text: str) -> str:
    shown = text if len(text) <= _TEXT_CHARS else f"{text[: _TEXT_CHARS - 1]}…"
    return escape(shown)
