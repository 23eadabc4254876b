"""`runlake best`, `sql` and `export`: questions to all runs, and files out."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

import click

from runlake._lazy import lazy
from runlake.cli import _output, importing
from runlake.cli._bounds import bounded
from runlake.cli._options import Options, shared_options, table_options
from runlake.cli._output import Column
from runlake.cli.runs import experiment_option, filter_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    import pyarrow as pa

    from runlake import questions
    from runlake.query import confine, listing
    from runlake.query import export as frames
    from runlake.query.engine import Query
else:
    confine = lazy("runlake.query.confine")
    frames = lazy("runlake.query.export")
    listing = lazy("runlake.query.listing")
    questions = lazy("runlake.questions")

# Of a leaderboard a person reads these last; all but the first may be left out.
_LAST: Final = ("run_id", "step", "experiment_name", "status")
_ROWS_SHOWN: Final = 200
_ROW_LIMIT: Final = 1_000_000


@click.command("best")
@click.argument("metric")
@click.option(
    "--goal",
    type=click.Choice(["max", "min"]),
    default="max",
    show_default=True,
    help="Which value is better.",
)
@click.option(
    "--value",
    type=click.Choice(["best", "last", "min", "max", "mean"]),
    default="best",
    show_default=True,
    help="Of each run's points, the value that counts.",
)
@click.option("--step", type=int, help="The value at this step counts instead.")
@click.option(
    "--by",
    metavar="FIELD",
    multiple=True,
    help='The best run of each group, like "params.model"; may be given again.',
)
@click.option(
    "-n",
    "--top",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Greatest number of rows; 0 is all.",
)
@experiment_option
@filter_option
@table_options
@click.pass_obj
def _best(
    options: Options,
    *,
    metric: str,
    goal: str,
    value: str,
    step: int | None,
    by: tuple[str, ...],
    top: int,
    experiments: tuple[str, ...],
    filter_string: str,
) -> None:
    """Rank runs by a metric; ties share a rank."""
    with options.open() as lake:
        board = lake.leaderboard(
            metric,
            goal=goal,
            value=value if step is None else step,
            by=by or None,
            filter_string=filter_string,
            top=top or None,
            experiment_names=experiments or None,
        )
        settings = lake.settings
    if not _output.give(options, settings, rows=board.to_dicts, table=board.to_arrow):
        if board.height:
            _output.print_table(_board_columns(board, metric, by))
        else:
            _output.talk(f"no run that fits has {metric!r}.")
    if board.left_out:
        at = "" if step is None else f" at step {step}"
        verb = "is" if board.left_out == 1 else "are"
        _output.talk(
            f"{_output.many(board.left_out, 'run')} without {metric!r}{at} {verb} left out."
        )


def _board_columns(board: pl.DataFrame, metric: str, by: Sequence[str]) -> list[Column]:
    """Return the columns; for a person what matters first, and what may be left out last."""
    titles = {"run_name": "run", "run_id": "id", "experiment_name": "experiment", "value": metric}
    names = list(board.columns)
    if _output.is_terminal():
        names.sort(key=lambda name: _LAST.index(name) if name in _LAST else -1)
        names.sort(key=lambda name: name.startswith("params.") and name not in by)
    columns = []
    for name in names:
        values: Sequence[object] = board[name].to_list()
        is_param = name.startswith("params.") and name not in by
        title = titles.get(name, name)
        if _output.is_terminal():
            title = title.removeprefix("params.") if is_param else title
            if name == "run_id":
                length = listing.short_length(board[name].to_list())
                values = [str(run_id)[:length] for run_id in values]
        columns.append(Column(title, values, is_extra=is_param or name in _LAST[1:]))
    return columns


@click.command("sql")
@click.argument("query")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=_ROW_LIMIT,
    show_default=True,
    help="Refuse an answer of more rows; 0 is no limit.",
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop the query after so long.",
)
@table_options
@click.pass_obj
def _sql(options: Options, *, query: str, limit: int, timeout_s: float | None) -> None:
    """Run one SQL statement that reads, in DuckDB's dialect; "-" reads it from standard input.

    The views are experiments, runs, params, tags, metrics, metric_summary, inputs, artifacts
    and events; "DESCRIBE runs" shows the columns of one. Files, the network and everything that
    writes are out of reach. `export` writes answers of any size.
    """
    statement = sys.stdin.read() if query == "-" else query
    watch = confine.Watch(timeout_s, limit or None)
    is_read = options.form is None and options.output is None and _output.is_terminal()

    def answer(query: Query) -> tuple[pa.Table, bool]:
        if is_read:
            return listing.read_head(query, statement, rows=_ROWS_SHOWN, watch=watch)
        return query.sql(statement, watch=watch), False

    with options.open() as lake, bounded(lake.settings, timeout_s):
        table, has_more = questions.ask(lake, answer)
        settings = lake.settings
    table = frames.tidy(table)
    if _output.give(options, settings, rows=lambda: frames.to_rows(table), table=lambda: table):
        return
    _output.print_frame(
        [
            Column(name, frames.to_values(column))
            for name, column in zip(table.column_names, table.columns, strict=True)
        ]
    )
    if has_more:
        _output.talk(f"These are the first {_ROWS_SHOWN} rows; a pipe gets more, `export` all.")
    elif is_read:
        _output.talk(_output.many(table.num_rows, "row"))


@click.command("export")
@click.argument("target", required=False)
@click.option(
    "-w",
    "--what",
    metavar="VIEW|SELECT",
    help="One table: a view, like metrics, or a SELECT.  [default: everything]",
)
@click.option(
    "-r",
    "--run",
    metavar="RUN",
    help="Only this run: an id, the beginning of one, or a name, if only one run has it.",
)
@click.option(
    "--format",
    "form",
    metavar="FORMAT",
    help="csv, jsonl, parquet or arrow.  [default: by the suffix; in a folder parquet]",
)
@click.option(
    "--artifacts/--no-artifacts",
    default=None,
    help="Copy the files of runs too.  [default: of one run, not of the whole lake]",
)
@click.option(
    "--to",
    "tracker",
    type=click.Choice(["mlflow"]),
    help="Write runs into another tracker instead of files.",
)
@click.option(
    "--uri",
    metavar="URI",
    help="With --to: where that is, as MLflow's tracking URI sqlite:///x.db.",
)
@click.option(
    "-e", "--experiment", "experiments", metavar="NAME", multiple=True, help="With --to; again."
)
@shared_options
@click.pass_context
def _export(
    context: click.Context,
    *,
    target: str | None,
    tracker: str | None,
    uri: str | None,
    experiments: tuple[str, ...],
    what: str | None,
    run: str | None,
    form: str | None,
    artifacts: bool | None,
) -> None:
    """Write a table, a run, or the whole lake to files.

    With --what, TARGET is one file: .csv, .jsonl, .parquet, .arrow, for the first two also with
    .gz or .zst behind; "-" is standard output. Without it TARGET is a new folder, or a .zip
    file, and gets everything: of a run its params, tags, metrics, events and artifacts; of a
    lake every view. It may be a URL. The memory needed stays small, whatever the size.

    With --to mlflow, runs with their artifacts go into an MLflow store, and what is there then is
    compared; the same call goes on where it was stopped.
    """
    options = context.ensure_object(Options)
    if tracker is not None:
        if what is not None or form is not None:
            message = "--what and --format go with files, not with --to."
            raise click.UsageError(message)
        importing.export_out(
            context, tracker, uri or target, run=run, experiments=experiments, artifacts=artifacts
        )
    if target is None or uri is not None or experiments:
        message = "say where to: a TARGET, or --to mlflow --uri URI."
        raise click.UsageError(message)
    if target == "-" and options.form == "json":
        message = "the table itself goes to standard output; --format jsonl makes it JSON lines."
        raise click.UsageError(message)
    if target == "-" and form is None:
        form = "csv"
    with options.open() as lake:
        run_id = None
        if run is not None:
            run_id = questions.ask(lake, lambda query: listing.find_run(query, run))
        with _output.standard_output() if target == "-" else nullcontext(target) as sink:
            found = lake.export(sink, what=what, format=form, run_id=run_id, artifacts=artifacts)
        settings = lake.settings
    said = f"wrote {_output.many(found.row_count, 'row')}"
    if target == "-":
        _output.talk(f"{said}.")
        return
    paths = [Column("path", found.paths)]
    if not _output.give(
        options,
        settings,
        rows=lambda: dataclasses.asdict(found),
        table=lambda: _output.table_of(paths),
    ):
        for path in found.paths:
            click.echo(path)
        files = _output.many(len(found.paths), "file")
        _output.talk(f"{said}, {_output.size(found.size_bytes)}, in {files}.")


COMMANDS: Final[tuple[click.Command, ...]] = (_best, _sql, _export)
