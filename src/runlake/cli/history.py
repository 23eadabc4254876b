"""`runlake history`: the curves of metrics, as a plot for people and as points for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from runlake._lazy import lazy
from runlake.cli import _output, _plot
from runlake.cli._options import Options, table_options
from runlake.cli._output import Column
from runlake.cli.runs import experiment_ids, experiment_option, filter_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import polars as pl

    from runlake import questions
    from runlake.lake import Lake
    from runlake.query import listing, search
    from runlake.query.engine import Query
else:
    listing = lazy("runlake.query.listing")
    questions = lazy("runlake.questions")
    search = lazy("runlake.query.search")

_CURVES_SHOWN: Final = 12
_METRICS_NAMED: Final = 10
# Lines of a plot: fewer tell nothing, more are not read.
_LEAST_LINES: Final = 8
_MOST_LINES: Final = 24
_MARK_WIDTH: Final = 3


@click.command("history")
@click.argument("words", metavar="[RUN]... METRIC...", nargs=-1, required=True)
@click.option(
    "-x",
    "--x",
    "axis",
    metavar="AXIS",
    default="step",
    show_default=True,
    help='Along "step", "time", "relative" (seconds since the run began), or another metric.',
)
@click.option("--start", metavar="X", help="Only points from here on.")
@click.option("--stop", metavar="X", help="Only points up to here.")
@click.option(
    "--max-points",
    type=click.IntRange(min=4),
    help="Thin each curve to so many points, every spike kept.  [default: all; in a plot what it "
    "can show]",
)
@click.option("--log", "log_y", is_flag=True, help="Plot the values by magnitude.")
@experiment_option
@filter_option
@table_options
@click.pass_obj
def _history(
    options: Options,
    *,
    words: tuple[str, ...],
    axis: str,
    start: str | None,
    stop: str | None,
    max_points: int | None,
    log_y: bool,
    experiments: tuple[str, ...],
    filter_string: str,
) -> None:
    """Plot what runs logged of a metric; in a pipe, print the points.

    A word that is the key of a metric, or a pattern that fits one like "val/*", is a METRIC;
    every other is a RUN: an id, the beginning of one, or a name, if only one run has it.
    Without a RUN it is all of them.
    """
    as_plot = options.form is None and options.output is None and _output.is_terminal()
    if as_plot and max_points is None:
        # Four points of a bucket are all that one column of dots can show.
        max_points = 8 * _output.terminal_size()[0]
    with options.open() as lake:
        run_ids, keys = _words(lake, words, experiments, filter_string)
        frame = lake.history(
            keys,
            runs=run_ids,
            x=axis,
            max_points=max_points,
            start=_bound(axis, start),
            stop=_bound(axis, stop),
        )
        settings = lake.settings
    if _output.give(options, settings, rows=frame.to_dicts, table=frame.to_arrow):
        return
    if not frame.height:
        _output.talk("these runs logged no point of this here.")
    elif as_plot:
        _print_plot(frame, axis, log_y=log_y)
    else:
        _output.print_table([Column(name, frame[name].to_list()) for name in frame.columns])


def _words(
    lake: Lake, words: Sequence[str], experiments: Sequence[str], filter_string: str
) -> tuple[list[str] | None, list[str]]:
    """Return the runs and the metrics that are meant; None is all runs."""

    def answer(query: Query) -> tuple[list[str] | None, list[str]]:
        is_metric = listing.tell_metrics(query, words)
        named = [word for word, metric in zip(words, is_metric, strict=True) if not metric]
        keys = [word for word, metric in zip(words, is_metric, strict=True) if metric]
        runs = list(dict.fromkeys(listing.find_run(query, word) for word in named))
        if not keys:
            held = list(listing.describe_run(query, runs[0])["metrics"])
            some = ", ".join(held[:_METRICS_NAMED]) + (
                ", ..." if len(held) > _METRICS_NAMED else ""
            )
            message = f"name a metric too; {words[0]!r} has {some or 'none'}."
            raise click.UsageError(message)
        if experiments or filter_string:
            wanted = search.RunSearch(
                filter_string=filter_string, experiment_ids=experiment_ids(query, experiments)
            )
            fitting = [str(row["run_id"]) for row in listing.list_runs(query, wanted).rows]
            runs = [run for run in fitting if not named or run in runs]
        elif not named:
            return None, keys
        return runs, keys

    return questions.ask(lake, answer)


def _bound(axis: str, given: str | None) -> object:
    """Read one end of the range: a step, a time, or a number."""
    if given is None:
        return None
    try:
        if axis == "step":
            return int(given)
        if axis != "time":
            return float(given)
        moment = datetime.fromisoformat(given)
    except ValueError:
        wanted = {"step": "a whole number", "time": 'a time like "2026-01-31T12:00:00Z"'}
        message = f"{given!r} is not {wanted.get(axis, 'a number')}, as --x {axis} needs."
        raise click.UsageError(message) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class _Drawn(NamedTuple):
    """One curve of an answer."""

    run_id: str
    run_name: str
    key: str
    points: pl.DataFrame


def _print_plot(frame: pl.DataFrame, axis: str, *, log_y: bool) -> None:
    """Draw the curves, and say below which is which."""
    curves = [
        _Drawn(str(run_id), str(name), str(key), points)
        for (run_id, name, key), points in frame.group_by(
            "run_id", "run_name", "key", maintain_order=True
        )
    ]
    shown = curves[:_CURVES_SHOWN]
    labels = _labels(shown)
    columns, lines = _output.terminal_size()
    paint = _paint if _output.has_colors() else None
    plotted = _plot.plot(
        [
            _plot.Curve(label, _numbers(curve.points["x"]), curve.points["value"].to_list())
            for label, curve in zip(labels, shown, strict=True)
        ],
        size=(columns - 1, max(_LEAST_LINES, min(_MOST_LINES, lines - len(shown) - 4))),
        paint=paint,
        log_y=log_y,
        x_kind={"time": "time", "relative": "seconds"}.get(axis, "number"),
    )
    keys = list(dict.fromkeys(curve.key for curve in shown))
    over = _over(frame, axis)
    click.echo(_output.style(f"{', '.join(keys)} over {over}", bold=True))
    for line in plotted or ["nothing here can be drawn."]:
        click.echo(line)
    _print_legend(shown, labels, paint)
    if len(curves) > len(shown):
        _output.talk(f"These are the first {len(shown)} of {len(curves)} curves.")


def _print_legend(
    curves: Sequence[_Drawn], labels: Sequence[str], paint: Callable[[str, str], str] | None
) -> None:
    """Say of each curve how it looks, where it ends, and how far it went."""
    longest = max(map(_output.cell_width, labels))
    width = _output.terminal_size()[0] - _MARK_WIDTH
    for number, (curve, label) in enumerate(zip(curves, labels, strict=True)):
        values = curve.points["value"]
        steps = curve.points["step"]
        numbers = values.drop_nans()
        said = [f"last {_output.text(values[-1])} at step {steps[-1]}"]
        if len(numbers):
            said += [f"min {_output.text(numbers.min())}", f"max {_output.text(numbers.max())}"]
        fill = " " * (longest - _output.cell_width(label))
        line = _output.cut(f"{label}{fill}  {', '.join(said)}", width)
        click.echo(f"{_plot.mark(number, paint)} {line}")


def _labels(curves: Sequence[_Drawn]) -> list[str]:
    """Return what tells the curves apart: run, metric or both."""
    runs = {curve.run_id: curve.run_name for curve in curves}
    length = listing.short_length(list(runs))
    names = list(runs.values())
    has_keys = len({curve.key for curve in curves}) > 1
    labels = []
    for curve in curves:
        run = curve.run_name
        if names.count(run) > 1:
            run = f"{run} {curve.run_id[:length]}"
        both = f"{run} {curve.key}" if len(runs) > 1 else curve.key
        labels.append(_output.printable(both if has_keys else run))
    return labels


def _over(frame: pl.DataFrame, axis: str) -> str:
    """Say what x is."""
    if axis == "relative":
        return "time since the run began"
    if axis != "time":
        return axis
    first, last = frame["x"].min(), frame["x"].max()
    return f"time in UTC, from {_output.text(first)} to {_output.text(last)}"


def _numbers(xs: pl.Series) -> list[float]:
    """Return places on the axis as numbers; times as seconds since 1970."""
    if xs.dtype.is_temporal():
        return [each / 1e6 for each in xs.dt.timestamp("us").to_list()]
    return xs.to_list()


def _paint(shown: str, color: str) -> str:
    return _output.style(shown, fg=color)


COMMANDS: Final[tuple[click.Command, ...]] = (_history,)
