"""`runlake compact`, `vacuum`, `purge`, `copy` and `publish`: keep a lake small, and move it."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import click

from runlake._lazy import lazy
from runlake.cli import _output
from runlake.cli._options import Options, shared_options
from runlake.cli._output import Column, many, size
from runlake.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runlake import lake as lakes
    from runlake import questions
    from runlake.lake import Lake
    from runlake.query import listing
    from runlake.settings import Settings
    from runlake.upkeep import purge
    from runlake.upkeep.copies.passage import Copied
    from runlake.upkeep.purge import Purged
    from runlake.upkeep.tending import Tended
    from runlake.upkeep.vacuum import Vacuumed
    from runlake.upkeep.work import Compacted
else:
    lakes = lazy("runlake.lake")
    listing = lazy("runlake.query.listing")
    purge = lazy("runlake.upkeep.purge")
    questions = lazy("runlake.questions")

_Row = dict[str, Any]

_LEFT: Final = 1
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_SECONDS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FULL_ID: Final = re.compile(r"[0-9a-f]{32}")

_experiment_option: Final = click.option(
    "-e", "--experiment", metavar="NAME", help="Only this experiment, by name or id."
)
_alone_option: Final = click.option(
    "--alone",
    is_flag=True,
    help="Nobody else compacts this lake meanwhile; only some stores need it.",
)


def _give_rows(
    options: Options, settings: Settings, rows: Sequence[_Row], names: Sequence[str]
) -> bool:
    """Answer a program with rows; False if it is a person who asks."""
    columns = [Column(name, [row[name] for row in rows]) for name in names]
    return _output.give(
        options, settings, rows=lambda: list(rows), table=lambda: _output.table_of(columns)
    )


@click.command("compact")
@_experiment_option
@click.option("--shard", metavar="I/N", help="Only the i-th of n parts: n machines share it.")
@click.option("--full", is_flag=True, help="Merge also files that are not due yet.")
@_alone_option
@shared_options
@click.pass_context
def _compact(
    context: click.Context, *, experiment: str | None, shard: str | None, full: bool, alone: bool
) -> None:
    """Turn many small files into few large ones, and delete those replaced an hour ago.

    No answer changes, and it may be stopped at any moment. The like goes on by itself while
    runs are logged. The exit code is 1 if something could not be compacted.
    """
    options = context.ensure_object(Options)
    with options.open(read_only=False) as lake, _output.progress() as show:
        found = lake.maintain.compact(
            experiment,
            shard=shard,
            full=full,
            alone=alone,
            progress=lambda done: show(_how_far(done)),
        )
    rows = [_compacted(each) for each in found.experiments]
    names = list(rows[0]) if rows else []
    if not _give_rows(options, lake.settings, rows, names):
        _print_compacted(lake.url, rows)
    for problem in found.problems:
        _output.talk(f"warning: {problem}")
    context.exit(_LEFT if found.problems else 0)


def _how_far(done: Compacted) -> str:
    rows = many(done.rows + done.merged_rows, "row")
    segments = many(done.segments, "segment")
    return f"{done.experiment_id}: {segments}, {rows}, {size(done.size_bytes)} written"


def _compacted(tended: Tended) -> _Row:
    done = dataclasses.asdict(tended.compacted)
    problems = list(done.pop("problems"))
    return {**done, "freed_bytes": tended.freed_bytes, "problems": problems}


def _print_compacted(url: str, rows: Sequence[_Row]) -> None:
    """Show the experiments in which there was something to do."""
    shown = [row for row in rows if row["commits"]]
    if not shown:
        _output.talk(f"{url} is compact: there was nothing to do.")
        return
    titles = ("experiment_id", "segments", "rows", "merged_rows")
    columns = [Column(title, [row[title] for row in shown]) for title in titles]
    columns += [
        Column("written", [size(row["size_bytes"]) for row in shown]),
        Column("freed", [size(row["freed_bytes"]) for row in shown]),
    ]
    _output.print_table(columns)


@click.command("vacuum")
@click.option("--delete", is_flag=True, help="Delete it; without this nothing is.")
@click.option(
    "--grace",
    metavar="SPAN",
    default="1h",
    show_default=True,
    help="Keep what was replaced less than this ago: 90s, 30m, 1h, 2d.",
)
@_experiment_option
@shared_options
@click.pass_context
def _vacuum(context: click.Context, *, delete: bool, grace: str, experiment: str | None) -> None:
    """Tell what compaction has replaced and how many bytes it takes, or delete it.

    Every compaction does it for its experiment. No row is ever lost by it.
    """
    options = context.ensure_object(Options)
    grace_s = _span(grace)
    with options.open(read_only=not delete) as lake:
        found = lake.maintain.vacuum(dry_run=not delete, experiment=experiment, grace_s=grace_s)
    removed = [dataclasses.asdict(each) for each in found.removed]
    about = {
        "is_dry_run": found.is_dry_run,
        "objects": len(removed),
        "size_bytes": found.size_bytes,
        "removed": removed,
    }
    names = ("key", "size_bytes", "reason")
    columns = [Column(name, [row[name] for row in removed]) for name in names]
    if not _output.give(
        options, lake.settings, rows=lambda: about, table=lambda: _output.table_of(columns)
    ):
        _print_vacuumed(found, grace)


def _span(text: str) -> float:
    """Return a length of time in seconds."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        message = f"--grace {text!r} is no length of time; write one as 90s, 30m, 1h or 2d."
        raise click.UsageError(message)
    return float(found[1]) * _SECONDS[found[2]]


def _print_vacuumed(found: Vacuumed, grace: str) -> None:
    sizes: dict[str, list[int]] = defaultdict(list)
    for each in found.removed:
        sizes[each.reason].append(each.size_bytes)
    if not sizes:
        _output.talk(f"nothing to delete: nothing was replaced more than {grace} ago.")
        return
    reasons = sorted(sizes)
    _output.print_table(
        [
            Column("reason", [*reasons, "all"]),
            Column("objects", [*(len(sizes[each]) for each in reasons), len(found.removed)]),
            Column("size", [*(size(sum(sizes[each])) for each in reasons), size(found.size_bytes)]),
        ]
    )
    if found.is_dry_run:
        _output.talk("nothing was deleted; --delete does it.")


@click.command("purge")
@click.argument("runs", metavar="[RUN]...", nargs=-1)
@click.option("-e", "--experiment", metavar="NAME", help="This experiment and all its runs.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_alone_option
@shared_options
@click.pass_context
def _purge(
    context: click.Context,
    *,
    runs: tuple[str, ...],
    experiment: str | None,
    yes: bool,
    alone: bool,
) -> None:
    """Remove runs, or an experiment, for ever: rows, params, artifacts, all.

    RUN is an id, the beginning of one, or a name, if only one run has it. A terminal asks
    first. What could not be reached is told; the exit code is then 1, but for the claim of an
    experiment's name, which always stays.
    """
    if bool(runs) == (experiment is not None):
        message = "name runs, or an --experiment."
        raise click.UsageError(message)
    options = context.ensure_object(Options)
    options.open().close()  # a mistyped path is told from a lake that lacks a run
    with options.open(read_only=False) as lake:
        purged = _purged(lake)
        run_ids = [run if run in purged else _full_id(lake, run) for run in runs]
        what = many(len(set(run_ids)), "run") if runs else f"experiment {experiment!r}"
        if len(set(run_ids)) == 1:
            what = f"run {run_ids[0]}"
        _output.ask_first(f"Remove {what} of {lake.url} for ever?", is_sure=yes)
        with _output.progress() as show:
            found = lake.maintain.purge(
                run_ids or None,
                experiment=experiment,
                alone=alone,
                progress=lambda done: show(f"{size(done.deleted_bytes)} deleted"),
            )
    about = {**_plain(found), "freed_bytes": found.freed_bytes}
    about["left"] = [each._asdict() for each in found.left]
    if not _output.give(
        options, lake.settings, rows=lambda: about, table=lambda: _output.parts_table(about)
    ):
        _print_purged(found)
    _output.talk(purge.BEYOND_REACH)
    # The claim of an experiment's name always stays, so that no two ever had it at once; and a
    # version of a model holds no byte of its run.
    stays = {purge.NAME, purge.MODEL}
    context.exit(_LEFT if {each.kind for each in found.left} - stays else 0)


def _purged(lake: Lake) -> frozenset[str]:
    """Return the ids that were purged, to the end or not: none may mean another run's beginning."""
    lake.refresh()
    return frozenset() if lake.snapshot is None else lake.snapshot.manifest.purged


def _full_id(lake: Lake, run: str) -> str:
    """Return the id of a run; where none is found, the upkeep itself judges a full one."""
    try:
        return questions.ask(lake, lambda query: listing.find_run(query, run))
    except NotFoundError:
        if _FULL_ID.fullmatch(run):
            return run
        raise


def _print_purged(found: Purged) -> None:
    _output.print_pairs(
        [
            ("runs", len(found.run_ids)),
            ("rows", found.rows),
            ("artifacts", found.artifacts),
            ("freed", size(max(0, found.freed_bytes))),
        ]
    )
    if found.left:
        _output.print_heading("could not be reached")
        _output.print_table(
            [
                Column("kind", [each.kind for each in found.left]),
                Column("place", [each.place for each in found.left]),
                Column("reason", [each.reason for each in found.left]),
            ]
        )


@click.command("copy")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("-r", "--run", "runs", metavar="RUN", multiple=True, help="Only this run; again.")
@click.option(
    "-e", "--experiment", "experiments", metavar="NAME", multiple=True, help="Only its runs; again."
)
@_alone_option
@shared_options
@click.pass_context
def _copy(
    context: click.Context,
    *,
    source: str,
    target: str,
    runs: tuple[str, ...],
    experiments: tuple[str, ...],
    alone: bool,
) -> None:
    """Bring runs with their artifacts from the lake SRC into the lake DST.

    Both may be in use. Runs that are there already are left out, and those that have grown are
    brought up to date, so that the same call goes on where it was stopped. The exit code is 1
    if something could not be copied.
    """
    options = context.ensure_object(Options)
    if options.url is not None:
        message = "SRC is the lake; leave --lake out."
        raise click.UsageError(message)
    with lakes.open_lake(source, read_only=True) as lake, _output.progress() as show:
        run_ids = [_full_id(lake, run) for run in runs]
        found = lake.copy_to(
            target,
            run_ids=run_ids or None,
            experiments=list(experiments) or None,
            alone=alone,
            progress=lambda done: show(_how_far_copied(done)),
        )
    about = _plain(found)
    if not _output.give(
        options, lake.settings, rows=lambda: about, table=lambda: _output.parts_table(about)
    ):
        shown = {
            "runs": found.runs,
            "there already": found.skipped,
            "rows": found.rows,
            "artifacts": found.artifacts,
            "size": size(found.size_bytes + found.artifact_bytes),
        }
        _output.print_pairs(list(shown.items()))
    for run_id in found.refused:
        _output.talk(f"warning: run {run_id} was purged in {target}, and is not copied.")
    for name in found.names:
        _output.talk(f"warning: another experiment of {target} is called {name!r} too.")
    for problem in found.problems:
        _output.talk(f"warning: {problem}")
    context.exit(_LEFT if found.refused or found.problems else 0)


def _how_far_copied(done: Copied) -> str:
    runs, rows = many(done.runs, "run"), many(done.rows, "row")
    return f"{runs}, {rows}, {size(done.size_bytes + done.artifact_bytes)} copied"


def _plain(found: Purged | Copied) -> _Row:
    """Return a report as JSON has it."""
    return {
        knob.name: list(value) if isinstance(value, tuple) else value
        for knob in dataclasses.fields(found)
        for value in [getattr(found, knob.name)]
    }


@click.command("publish")
@click.option("--format", "form", default="delta", show_default=True, help="There is no other.")
@click.option("-t", "--table", "tables", metavar="TABLE", multiple=True, help="Only this; again.")
@shared_options
@click.pass_obj
def _publish(options: Options, *, form: str, tables: tuple[str, ...]) -> None:
    """Let engines that know Delta Lake read the compacted tables; no row is copied.

    Compaction keeps it up to date from then on. What is not compacted is not in it.
    """
    with options.open(read_only=False) as lake:
        found = lake.maintain.publish(format=form, tables=list(tables) or None)
    rows = [dataclasses.asdict(each) for each in found]
    names = list(rows[0]) if rows else []
    if not _give_rows(options, lake.settings, rows, names):
        _output.print_table([Column(name, [row[name] for row in rows]) for name in names])


COMMANDS: Final[tuple[click.Command, ...]] = (_compact, _vacuum, _purge, _copy, _publish)
