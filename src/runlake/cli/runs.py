"""`runlake ls`, `show` and `diff`: what runs there are, what one is, how several differ."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from runlake import clock, schema
from runlake._lazy import lazy
from runlake.cli import _output
from runlake.cli._options import Options, shared_options, table_options
from runlake.cli._output import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pyarrow as pa

    from runlake import questions
    from runlake.query import compare, entities, listing, search
    from runlake.query.engine import Query
else:
    compare = lazy("runlake.query.compare")
    entities = lazy("runlake.query.entities")
    listing = lazy("runlake.query.listing")
    questions = lazy("runlake.questions")
    search = lazy("runlake.query.search")

_Row = dict[str, Any]

_OPEN: Final = frozenset({schema.RUNNING, schema.SCHEDULED})
_METRICS_SHOWN: Final = 3

experiment_option: Final = click.option(
    "-e",
    "--experiment",
    "experiments",
    metavar="NAME",
    multiple=True,
    help="Only runs of this experiment; may be given again.",
)
filter_option: Final = click.option(
    "-f",
    "--filter",
    "filter_string",
    metavar="FILTER",
    default="",
    help="Only runs that match, like \"metrics.acc > 0.9 and params.lr = '0.1'\".",
)


@click.command("ls")
@experiment_option
@filter_option
@click.option(
    "-c",
    "--column",
    "fields",
    metavar="FIELD",
    multiple=True,
    help='Show this field, as a filter names it: "params.lr", "metrics.acc.min", "user_id"; '
    "may be given again.  [default: status, start, duration, the most common metrics]",
)
@click.option(
    "-m",
    "--metric",
    "metrics",
    metavar="KEY",
    multiple=True,
    help="Show this metric's last value instead of the most common; may be given again.",
)
@click.option(
    "-s",
    "--sort",
    "order_by",
    metavar="KEY",
    multiple=True,
    help='Order by this, like "metrics.acc DESC"; may be given again.  [default: newest first]',
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Greatest number of runs; 0 is all.",
)
@click.option("--deleted", is_flag=True, help="Show deleted runs instead of the others.")
@click.option("--all", "both", is_flag=True, help="Show deleted runs and the others.")
@table_options
@click.pass_obj
def _ls(
    options: Options,
    *,
    experiments: tuple[str, ...],
    filter_string: str,
    fields: tuple[str, ...],
    metrics: tuple[str, ...],
    order_by: tuple[str, ...],
    limit: int,
    deleted: bool,
    both: bool,
) -> None:
    """List runs, the newest first."""

    def answer(query: Query) -> listing.Listing:
        wanted = search.RunSearch(
            filter_string=filter_string,
            experiment_ids=experiment_ids(query, experiments),
            order_by=order_by,
            run_view_type="ALL" if both else "DELETED_ONLY" if deleted else "ACTIVE_ONLY",
            limit=limit or None,
        )
        return listing.list_runs(query, wanted, fields=fields)

    with options.open() as lake:
        found = questions.ask(lake, answer)
        url, settings = lake.url, lake.settings
    rows = found.rows
    if not _output.give(
        options, settings, rows=lambda: _as_json(found), table=lambda: _as_table(found, metrics)
    ):
        if rows:
            _output.print_table(_columns(found, metrics))
        else:
            which = "run" if both else "deleted run" if deleted else "run"
            narrowed = " that fits" if filter_string or experiments else ""
            _output.talk(f"no {which}{narrowed} in {url}.")
    if len(rows) < found.run_count:
        which = "first" if order_by else "newest"
        _output.talk(
            f"These are the {which} {len(rows)} of {found.run_count:,}; --limit shows more."
        )


def experiment_ids(query: Query, names: Sequence[str]) -> list[str] | None:
    """Return the ids of experiments, None for no names.

    Args:
        query: the snapshot.
        names: of experiments.

    Raises:
        NotFoundError: there is none of this name; names the nearest.
    """
    if not names:
        return None
    return [entities.get_experiment_by_name(query, name).experiment_id for name in names]


@click.command("show")
@click.argument("run")
@shared_options
@click.pass_obj
def _show(options: Options, *, run: str) -> None:
    """Show one run: what it is, its params, metrics, tags and artifacts.

    RUN is an id, the beginning of one, or a name, if only one run has it.
    """
    with options.open() as lake:
        row = questions.ask(
            lake, lambda query: listing.describe_run(query, listing.find_run(query, run))
        )
        files = lake.artifacts.list(row["run_id"])
        settings = lake.settings
    row["artifacts"] = [
        {"path": file.path, "is_dir": file.is_dir, "size": file.file_size} for file in files
    ]
    if not _output.give(
        options, settings, rows=lambda: row, table=lambda: _output.parts_table(row)
    ):
        _print_run(row)


@click.command("diff")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--all", "everything", is_flag=True, help="Show also what is the same.")
@click.option("--same", is_flag=True, help="Show only what is the same.")
@click.option("--provenance", is_flag=True, help="Show where the runs come from, not the rest.")
@table_options
@click.pass_obj
def _diff(
    options: Options, *, runs: tuple[str, ...], everything: bool, same: bool, provenance: bool
) -> None:
    """Set runs side by side, and show in what they differ.

    RUN is an id, the beginning of one, or a name, if only one run has it.
    """
    show = "all" if everything else "same" if same else "differing"

    def answer(query: Query) -> pa.Table:
        found = [listing.find_run(query, run) for run in runs]
        return compare.compare(query, found, show=show, provenance=provenance).to_arrow()

    with options.open() as lake:
        frame = questions.ask(lake, answer)
        settings = lake.settings
    if _output.give(options, settings, rows=frame.to_pylist, table=lambda: frame):
        return
    titles = ["", *frame.column_names[1:]] if _output.is_terminal() else frame.column_names
    columns = [
        Column(title, column.to_pylist())
        for title, column in zip(titles, frame.columns, strict=True)
    ]
    if frame.num_rows:
        alike = [len(set(row)) == 1 for row in zip(*(c.values for c in columns[2:]), strict=True)]
        _output.print_table(columns, dim=alike if show == "all" else ())
    else:
        said = "have nothing in common" if same else "do not differ"
        _output.talk(f"these runs {said}.")


def _as_json(found: listing.Listing) -> list[_Row]:
    """Return the rows, and in each the fields that were asked for besides."""
    if not found.fields:
        return found.rows
    return [
        row | {"fields": {title: values[number] for title, values in found.fields.items()}}
        for number, row in enumerate(found.rows)
    ]


def _as_table(found: listing.Listing, metrics: Sequence[str]) -> pa.Table:
    """Return one column for each field, or for all that these runs hold."""
    rows = found.rows
    if found.fields or metrics:
        chosen = [*_chosen(found), *_metric_columns(rows, metrics)]
        about = [Column(name, [row[name] for row in rows]) for name in ("run_id", "run_name")]
        return _output.table_of([*about, *chosen])
    columns = [Column(name, [row[name] for row in rows]) for name in listing.RUN_FIELDS]
    for group in listing.GROUPS:
        keys = sorted({key for row in rows for key in row[group]})
        columns += [Column(f"{group}.{key}", [row[group].get(key) for row in rows]) for key in keys]
    return _output.table_of(columns)


def _columns(found: listing.Listing, metrics: Sequence[str]) -> list[Column]:
    rows = found.rows
    ids = [row["run_id"] for row in rows]
    if _output.is_terminal():
        length = listing.short_length(ids)
        ids = [run_id[:length] for run_id in ids]
    columns = [Column("name", [row["run_name"] for row in rows]), Column("id", ids)]
    if found.fields:
        return [*columns, *_chosen(found), *_metric_columns(rows, metrics)]
    started: list[Any] = [row["start_time"] for row in rows]
    if _output.is_terminal():
        ages = [_seconds_since(each) for each in started]
        started = [
            each if age is None else _output.age(age)
            for each, age in zip(started, ages, strict=True)
        ]
    return [
        *columns,
        *_experiment_column(rows),
        Column("status", [_status(row) for row in rows]),
        Column("started", started),
        Column("took", [_output.duration(_lasted(row)) for row in rows]),
        *(_metric_columns(rows, metrics) or _metric_columns(rows, _most_common(rows), extra=True)),
    ]


def _chosen(found: listing.Listing) -> list[Column]:
    return [Column(title, values) for title, values in found.fields.items()]


def _metric_columns(
    rows: Sequence[_Row], keys: Sequence[str], *, extra: bool = False
) -> list[Column]:
    return [Column(key, [row["metrics"].get(key) for row in rows], is_extra=extra) for key in keys]


def _experiment_column(rows: Sequence[_Row]) -> list[Column]:
    """Return the column, unless it would tell a person nothing."""
    names = [row["experiment_name"] for row in rows]
    is_needed = len(set(names)) > 1 or not _output.is_terminal()
    return [Column("experiment", names)] if is_needed else []


def _most_common(rows: Sequence[_Row]) -> list[str]:
    """Return the metrics that most of the runs have."""
    counts: dict[str, int] = {}
    for row in rows:
        for key in row["metrics"]:
            # Those of the machine are the most common of all, and tell nothing about a run.
            if key.startswith(schema.SYSTEM_PREFIX):
                continue
            counts[key] = counts.get(key, 0) + 1
    return sorted(counts, key=lambda key: (-counts[key], key))[:_METRICS_SHOWN]


def _status(row: _Row) -> str:
    return f"{row['status']} (stale)" if row["is_stale"] else str(row["status"])


def _lasted(row: _Row) -> float | None:
    """Return how long a run took; one at work is still taking."""
    if row["duration"] is None and row["status"] in _OPEN and not row["is_stale"]:
        return _seconds_since(row["start_time"])
    lasted: float | None = row["duration"]
    return lasted


def _seconds_since(moment: datetime | str | None) -> float | None:
    """Return how long ago a time was; None for one that Python's calendar does not have."""
    if not isinstance(moment, datetime):
        return None
    return (datetime.fromtimestamp(clock.now_us() / 1e6, UTC) - moment).total_seconds()


def _print_run(row: _Row) -> None:
    parts = {"metrics", "params", "tags", "inputs", "artifacts", "provenance", "is_stale"}
    info = {name: value for name, value in row.items() if name not in parts}
    info |= {"status": _status(row), "duration": _output.duration(_lasted(row))}
    _output.print_pairs(info.items())
    print_part: dict[str, Callable[[Any], None]] = {
        "provenance": _print_provenance,
        "params": lambda part: _output.print_pairs(part.items()),
        "metrics": _print_metrics,
        "tags": lambda part: _output.print_pairs(part.items()),
        "inputs": _print_inputs,
        "artifacts": lambda part: _output.print_pairs(
            (file["path"] + "/" * file["is_dir"], _size(file)) for file in part
        ),
    }
    for name, show in print_part.items():
        if row[name]:
            _output.print_heading(name)
            show(row[name])


def _print_provenance(told: dict[str, str]) -> None:
    dirty = " (dirty)" if told.get("git.dirty") == "true" else ""
    shown = {
        "commit": told["git.commit"] + dirty if "git.commit" in told else None,
        "branch": told.get("git.branch"),
        "remote": told.get("git.remote"),
        "command": told.get("process.command"),
        "python": told.get("process.python"),
        "host": told.get("host.name"),
    }
    _output.print_pairs((name, text) for name, text in shown.items() if text is not None)


def _print_metrics(metrics: dict[str, _Row]) -> None:
    columns = [Column("key", list(metrics))]
    for title in ("last", "min", "max", "mean", "count", "last_step"):
        values = [summary[title] for summary in metrics.values()]
        columns.append(Column(title, values, is_extra=title in {"mean", "last_step"}))
    _output.print_table(columns)


def _print_inputs(inputs: list[_Row]) -> None:
    names = ("name", "context", "digest", "source")
    _output.print_table([Column(name, [each[name] for each in inputs]) for name in names])


def _size(file: _Row) -> str:
    return "" if file["is_dir"] else _output.size(file["size"])


COMMANDS: Final[tuple[click.Command, ...]] = (_ls, _show, _diff)
