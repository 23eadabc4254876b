"""`runlake import`, and the way out: runs of other trackers in, and runs of a lake out to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from runlake._lazy import lazy
from runlake.cli import _output
from runlake.cli._options import Options, shared_options
from runlake.cli._output import many, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runlake import importers, questions
    from runlake.importers.bring import Progress
    from runlake.importers.report import Report
    from runlake.query import listing
    from runlake.settings import Settings
else:
    importers = lazy("runlake.importers")
    listing = lazy("runlake.query.listing")
    questions = lazy("runlake.questions")

_KINDS: Final = ("mlflow", "wandb", "tensorboard", "neptune", "trackio", "csv", "jsonl")
_PROBLEMS: Final = 1


@click.command("import")
@click.argument("kind", type=click.Choice(_KINDS))
@click.argument("source")
@click.option(
    "-e",
    "--experiment",
    metavar="NAME",
    help="Of MLflow: only the runs of this one. Else: the experiment of runs that have none.",
)
@click.option("--no-artifacts", is_flag=True, help="Leave the files of runs where they are.")
@click.option(
    "-m",
    "--map",
    "columns",
    metavar="ROLE=COLUMN",
    multiple=True,
    help="Of csv and jsonl: what a column means, as step=epoch or params=lr,seed; again.",
)
@click.option(
    "--set",
    "settings",
    metavar="NAME=VALUE",
    multiple=True,
    help="Another option of this kind, as models=false of mlflow; again.",
)
@shared_options
@click.pass_context
def _import(
    context: click.Context,
    *,
    kind: str,
    source: str,
    experiment: str | None,
    no_artifacts: bool,
    columns: tuple[str, ...],
    settings: tuple[str, ...],
) -> None:
    """Bring runs of another tracker into the lake, and check that they came whole.

    SOURCE is of mlflow a folder mlruns, a SQLite file, or a tracking URI; of the others a file or
    folder. What is there already is left out, so that the same call goes on where it was stopped,
    and may be made again when the source has grown. What is not kept as it was is named. The exit
    code is 1 if a run did not come, or is not what it was.
    """
    options = context.ensure_object(Options)
    given: dict[str, Any] = dict(_pairs("--set", settings))
    if experiment is not None:
        given["experiment"] = experiment
    if columns:
        given["columns"] = dict(_pairs("--map", columns))
    with options.open(read_only=False) as lake, _output.progress() as show:
        report = importers.import_from(
            kind,
            source,
            lake,
            artifacts=not no_artifacts,
            progress=lambda done: show(_how_far(done)),
            **given,
        )
        _give(options, lake.settings, report)
    context.exit(0 if report.is_sound else _PROBLEMS)


def export_out(
    context: click.Context,
    tracker: str,
    uri: str | None,
    *,
    run: str | None,
    experiments: tuple[str, ...],
    artifacts: bool | None,
) -> NoReturn:
    """Write runs into another tracker, print what was done, and end the command.

    Args:
        context: of the command.
        tracker: `mlflow`.
        uri: where it is.
        run: only this one, as people name it.
        experiments: only the runs of these.
        artifacts: False leaves files out.

    Raises:
        UsageError: nobody said where to.
    """
    if uri is None:
        message = f"--to {tracker} needs --uri, as sqlite:///mlflow.db."
        raise click.UsageError(message)
    options = context.ensure_object(Options)
    with options.open() as lake, _output.progress() as show:
        run_ids = None
        if run is not None:
            run_ids = [questions.ask(lake, lambda query: listing.find_run(query, run))]
        report = importers.export_to(
            tracker,
            uri,
            lake,
            run_ids=run_ids,
            experiments=list(experiments) or None,
            artifacts=artifacts is not False,
            progress=lambda done: show(_how_far(done)),
        )
        _give(options, lake.settings, report)
    context.exit(0 if report.is_sound else _PROBLEMS)


def _give(options: Options, settings: Settings, report: Report) -> None:
    about = report.as_dict()
    if not _output.give(
        options, settings, rows=lambda: about, table=lambda: _output.parts_table(about)
    ):
        print_report(report)


def print_report(report: Report) -> None:
    """Print what an import or a way out did: numbers as data, words about it beside them.

    Args:
        report: of it.
    """
    shown: list[tuple[str, object]] = [
        ("from", report.source),
        ("to", report.target),
        ("runs", report.runs),
        ("came", report.brought),
        ("grew", report.grown),
        ("were there", report.already),
        ("of these not read again", report.unread),
        ("failed", report.failed),
        ("experiments", len(report.experiments)),
        ("points", report.points),
        ("params", report.params),
        ("tags", report.tags),
        ("inputs", report.inputs),
        ("other events", report.events),
        ("artifacts", report.artifacts),
        ("size of artifacts", size(report.artifact_bytes)),
        ("logged models", report.logged_models),
        ("registered models", report.models),
        ("versions", report.versions),
        ("compared", report.checked),
        ("took", _output.duration(report.seconds)),
    ]
    _output.print_pairs(shown)
    for loss in report.losses:
        runs = f" in {many(loss.runs, 'run')}" if loss.runs else ""
        _output.talk(f"not as it was: {loss.what} ({loss.count:,}{runs}).")
        for example in loss.examples[:3]:
            _output.talk(f"    {_output.printable(example)}")
    for problem in report.problems:
        _output.talk(f"problem: {_output.printable(problem)}")
    if report.is_exact:
        _output.talk("All is there as it was.")
    elif report.is_sound:
        _output.talk("All is there as it was, but for what is named above.")


def _how_far(done: Progress) -> str:
    of = "" if done.all_runs is None else f" of {done.all_runs:,}"
    points = many(done.points, "point")
    return f"{done.runs:,}{of} runs, {points}, {size(done.artifact_bytes)} of artifacts"


def _pairs(option: str, given: Sequence[str]) -> Iterator[tuple[str, str]]:
    for pair in given:
        name, sign, value = pair.partition("=")
        if not (name and sign and value):
            message = f"{option} takes NAME=VALUE, got {pair!r}."
            raise click.UsageError(message)
        yield name.replace("-", "_"), value


COMMANDS: Final[tuple[click.Command, ...]] = (_import,)
