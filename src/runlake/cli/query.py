"""`runlake sql`: one statement over the views of a lake."""

from __future__ import annotations

import sys
from typing import Final

import click

from runlake.cli import _output
from runlake.cli._options import Options, shared_options
from runlake.cli._output import Column


@click.command("sql")
@click.argument("query")
@shared_options
@click.pass_obj
def _sql(options: Options, *, query: str) -> None:
    """Run one SQL statement that reads, in DuckDB's dialect; "-" reads it from standard input.

    The views are experiments, runs, params, tags, metrics, metric_summary, artifacts and
    events; "DESCRIBE runs" shows the columns of one. Files, the network and everything that
    writes are out of reach.
    """
    statement = sys.stdin.read() if query == "-" else query
    with options.open() as lake:
        frame = lake.sql(statement)
    if options.as_json:
        _output.print_json(frame.to_dicts())
        return
    _output.print_frame([Column(name, frame[name].to_list()) for name in frame.columns])
    if _output.is_terminal():
        _output.talk(f"{frame.height} row{'' if frame.height == 1 else 's'}")


COMMANDS: Final[tuple[click.Command, ...]] = (_sql,)
