"""`runlake ls` and `runlake show`: what runs there are, and what one of them is."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import click

from runlake import clock, schema
from runlake.cli import _output
from runlake.cli._options import Options, shared_options
from runlake.cli._output import Column
from runlake.errors import InvalidInputError, NotFoundError
from runlake.query.statements import METRICS_OF_RUN, NEAREST_RUNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runlake.lake import Lake

_Row = dict[str, Any]

_OPEN: Final = frozenset({schema.RUNNING, schema.SCHEDULED})
_GROUPS: Final = ("metrics", "params", "tags")
_METRICS_SHOWN: Final = 3
_SHORT_ID: Final = 8
_CHOICES_SHOWN: Final = 5
# What an id may be made of; "_" is left to the comparison that follows the search.
_ID_PART: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")


@click.command("ls")
@click.option(
    "-e",
    "--experiment",
    "experiments",
    metavar="NAME",
    multiple=True,
    help="Only runs of this experiment; may be given again.",
)
@click.option(
    "-f",
    "--filter",
    "filter_string",
    metavar="FILTER",
    default="",
    help="Only runs that match, like \"metrics.acc > 0.9 and params.lr = '0.1'\".",
)
@click.option(
    "-m",
    "--metric",
    "metrics",
    metavar="KEY",
    multiple=True,
    help="Show this metric's last value; may be given again.  [default: the most common]",
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Greatest number of runs.",
)
@click.option("--deleted", is_flag=True, help="Show deleted runs instead of the others.")
@shared_options
@click.pass_obj
def _ls(
    options: Options,
    *,
    experiments: tuple[str, ...],
    filter_string: str,
    metrics: tuple[str, ...],
    limit: int,
    deleted: bool,
) -> None:
    """List runs, the newest first."""
    with options.open() as lake:
        frame = lake.search_runs(
            filter_string,
            experiment_names=experiments or None,
            limit=limit + 1,  # one more, to know whether there are more
            run_view_type="DELETED_ONLY" if deleted else "ACTIVE_ONLY",
        )
        rows = [_regroup(row) for row in frame.head(limit).to_dicts()]
        _complete(lake, rows)
        url = lake.url
    if options.as_json:
        _output.print_json(rows)
    elif rows:
        _output.print_table(_columns(rows, metrics))
    else:
        which = "deleted run" if deleted else "run"
        narrowed = " that fits" if filter_string or experiments else ""
        _output.talk(f"no {which}{narrowed} in {url}.")
    if frame.height > limit:
        _output.talk(f"These are the newest {limit}; --limit shows more.")


@click.command("show")
@click.argument("run")
@shared_options
@click.pass_obj
def _show(options: Options, *, run: str) -> None:
    """Show one run: what it is, its params, metrics, tags and artifacts.

    RUN is an id, the beginning of one, or a name, if only one run has it.
    """
    with options.open() as lake:
        row = find_run(lake, run)
        _complete(lake, [row])
        run_id = row["run_id"]
        info = lake.get_run(run_id).info
        for name in ("lifecycle_stage", "user_id", "source_name", "parent_run_id"):
            row[name] = getattr(info, name)
        summaries = lake.sql(METRICS_OF_RUN, [run_id]).to_dicts()
        files = lake.artifacts.list(run_id)
    # Behind what the run is comes what it holds.
    row |= {group: row.pop(group) for group in ("params", "tags", "metrics")}
    row["metrics"] = {summary.pop("key"): summary for summary in summaries}
    row["artifacts"] = [
        {"path": file.path, "is_dir": file.is_dir, "size": file.file_size} for file in files
    ]
    if options.as_json:
        _output.print_json(row)
    else:
        _print_run(row)


def find_run(lake: Lake, wanted: str) -> _Row:
    """Find the one run that an id, the beginning of an id, or a name means.

    Args:
        lake: where to look.
        wanted: what was typed.

    Returns:
        The run, deleted or not, as `ls --json` shows it.

    Raises:
        InvalidInputError: it fits several runs.
        NotFoundError: it fits none.
    """
    quoted = wanted.replace("'", "''")
    for condition in (
        f"attributes.run_id = '{quoted}'",
        f"attributes.run_name = '{quoted}'",
        f"attributes.run_id LIKE '{quoted}%'",
    ):
        is_prefix = " LIKE " in condition
        if is_prefix and _ID_PART.fullmatch(wanted) is None:
            continue
        found = lake.search_runs(condition, run_view_type="ALL").to_dicts()
        rows = [row for row in found if not is_prefix or row["run_id"].startswith(wanted)]
        if len(rows) > 1:
            raise _ambiguous(wanted, rows)
        if rows:
            return _regroup(rows[0])
    near = lake.sql(NEAREST_RUNS, [wanted])
    total = near["total"][0] if near.height else 0
    raise NotFoundError.of(
        "run", wanted, url=lake.url, known=list(dict.fromkeys(near["run_name"])), count=total
    )


def _ambiguous(wanted: str, rows: Sequence[_Row]) -> InvalidInputError:
    length = _short_length([row["run_id"] for row in rows])
    shown = ", ".join(
        f"{row['run_id'][:length]} ({row['run_name']})" for row in rows[:_CHOICES_SHOWN]
    )
    rest = len(rows) - _CHOICES_SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return InvalidInputError(
        f"{wanted!r} fits {len(rows)} runs: {shown}{more}. Give the beginning of one run's id."
    )


def _regroup(row: _Row) -> _Row:
    """Fold the columns `metrics.*`, `params.*` and `tags.*` of a row into mappings."""
    grouped: _Row = {name: {} for name in _GROUPS}
    plain: _Row = {}
    for name, value in row.items():
        group, dot, key = name.partition(".")
        if not dot:
            plain[name] = value
        elif value is not None:
            grouped[group][key] = value
    return plain | grouped


def _complete(lake: Lake, rows: Sequence[_Row]) -> None:
    """Add to each row its experiment's name, its duration, and whether it is stale."""
    names = {each.experiment_id: each.name for each in lake.search_experiments("ALL")}
    for row in rows:
        start, end, is_open = row["start_time"], row["end_time"], row["status"] in _OPEN
        said = {
            "run_id": row["run_id"],
            "run_name": row["run_name"],
            "experiment_id": row["experiment_id"],
            "experiment_name": names.get(row["experiment_id"]),
            "status": row["status"],
            "is_stale": is_open and lake.get_run(row["run_id"]).info.is_stale,
            "start_time": start,
            "end_time": end,
            "duration": None if start is None or end is None else (end - start).total_seconds(),
        }
        rest = {name: value for name, value in row.items() if name not in said}
        row.clear()
        row.update(said | rest)


def _columns(rows: Sequence[_Row], metrics: Sequence[str]) -> list[Column]:
    ids = [row["run_id"] for row in rows]
    started: list[Any] = [row["start_time"] for row in rows]
    if _output.is_terminal():
        length = _short_length(ids)
        ids = [run_id[:length] for run_id in ids]
        started = [None if each is None else _output.age(_seconds_since(each)) for each in started]
    return [
        Column("name", [row["run_name"] for row in rows]),
        Column("id", ids),
        *_experiment_column(rows),
        Column("status", [_status(row) for row in rows]),
        Column("started", started),
        Column("took", [_output.duration(_lasted(row)) for row in rows]),
        *(
            Column(key, [row["metrics"].get(key) for row in rows], is_extra=key not in metrics)
            for key in metrics or _most_common(rows)
        ),
    ]


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
            counts[key] = counts.get(key, 0) + 1
    return sorted(counts, key=lambda key: (-counts[key], key))[:_METRICS_SHOWN]


def _short_length(ids: Sequence[str]) -> int:
    """Return how many characters tell these ids apart; those made together begin alike."""
    alike = (_alike(first, second) for first, second in pairwise(sorted(ids)))
    return max(_SHORT_ID, 1 + max(alike, default=0))


def _alike(first: str, second: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    differs = (
        place for place, pair in enumerate(zip(first, second, strict=False)) if len({*pair}) > 1
    )
    return next(differs, min(len(first), len(second)))


def _status(row: _Row) -> str:
    return f"{row['status']} (stale)" if row["is_stale"] else str(row["status"])


def _lasted(row: _Row) -> float | None:
    """Return how long a run took; one at work is still taking."""
    if row["duration"] is None and row["status"] in _OPEN and not row["is_stale"]:
        return None if row["start_time"] is None else _seconds_since(row["start_time"])
    lasted: float | None = row["duration"]
    return lasted


def _seconds_since(moment: datetime) -> float:
    return (datetime.fromtimestamp(clock.now_us() / 1e6, UTC) - moment).total_seconds()


def _print_run(row: _Row) -> None:
    parts = {"metrics", "params", "tags", "artifacts", "is_stale"}
    info = {name: value for name, value in row.items() if name not in parts}
    info |= {"status": _status(row), "duration": _output.duration(_lasted(row))}
    _output.print_pairs(info.items())
    if row["params"]:
        _output.print_heading("params")
        _output.print_pairs(row["params"].items())
    if row["metrics"]:
        _output.print_heading("metrics")
        _print_metrics(row["metrics"])
    if row["tags"]:
        _output.print_heading("tags")
        _output.print_pairs(row["tags"].items())
    if row["artifacts"]:
        _output.print_heading("artifacts")
        _output.print_pairs(
            (file["path"] + "/" * file["is_dir"], _size(file)) for file in row["artifacts"]
        )


def _print_metrics(metrics: dict[str, _Row]) -> None:
    columns = [Column("key", list(metrics))]
    for title in ("last", "min", "max", "mean", "count", "last_step"):
        values = [summary[title] for summary in metrics.values()]
        columns.append(Column(title, values, is_extra=title in {"mean", "last_step"}))
    _output.print_table(columns)


def _size(file: _Row) -> str:
    return "" if file["is_dir"] else _output.size(file["size"])


COMMANDS: Final[tuple[click.Command, ...]] = (_ls, _show)
