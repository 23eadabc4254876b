"""`runlake info`, `verify` and `recover`: the lake itself, and whether it is well."""

from __future__ import annotations

import dataclasses
import platform
from typing import TYPE_CHECKING, Any, Final

import click

from runlake._lazy import lazy
from runlake._version import __version__
from runlake.cli import _output
from runlake.cli._options import Options, shared_options
from runlake.cli._output import Column
from runlake.errors import NotFoundError
from runlake.settings import cache_root
from runlake.writing import places

if TYPE_CHECKING:
    from importlib import metadata

    from runlake import questions
    from runlake.lake import Lake
    from runlake.query import listing
    from runlake.upkeep.checks.findings import Report
    from runlake.writing import recover
else:
    listing = lazy("runlake.query.listing")
    metadata = lazy("importlib.metadata")
    questions = lazy("runlake.questions")
    recover = lazy("runlake.writing.recover")

_LIBRARIES: Final = ("duckdb", "polars", "pyarrow", "fsspec", "s3fs", "gcsfs", "adlfs")
_FINDING: Final = ("key", "kind", "is_fault", "detail")
_FAULTS: Final = 1
_NOT_FOUND: Final = 3


@click.command("info")
@shared_options
@click.pass_context
def _info(context: click.Context) -> None:
    """Tell which lake this is, what is in it, and where each setting came from.

    Where there is no lake, the settings are shown all the same, and the exit code is 3.
    """
    options = context.ensure_object(Options)
    problem = None
    try:
        lake = options.open()
        counts = _counts(lake)
    except NotFoundError as error:
        problem, counts, lake = error, None, options.open(read_only=False)
    about = {
        "lake": lake.url,
        "counts": counts,
        "journal": _journal(lake),
        "cache": str(cache_root(lake.settings)),
        "settings": _settings(lake),
        "versions": _versions(),
    }
    lake.close()
    if not _output.give(
        options, lake.settings, rows=lambda: about, table=lambda: _output.parts_table(about)
    ):
        _print_info(about)
    if problem is not None:
        _output.talk(f"error: {problem}")
        context.exit(_NOT_FOUND)


def _counts(lake: Lake) -> dict[str, int]:
    counts = questions.ask(lake, listing.count)
    segments = () if lake.snapshot is None else lake.snapshot.segments
    held = [segment.entry.size_bytes for segment in segments]
    return {**counts, "segments": len(held), "segment_bytes": sum(held)}


def _journal(lake: Lake) -> dict[str, Any]:
    place = places.choose(lake.settings)
    folder = None if place.root is None else places.lake_folder(place.root, lake.url)
    waiting = (
        folder is not None
        and folder.is_dir()
        and [each for each in folder.iterdir() if not each.name.startswith(".")]
    )
    return {
        "folder": None if folder is None else str(folder),
        "reason": place.reason,
        "is_mapped": place.mapped,
        "journals": len(waiting or ()),
    }


def _settings(lake: Lake) -> dict[str, dict[str, Any]]:
    """Return each setting with where it came from; secrets are left out."""
    shown = {}
    for knob in dataclasses.fields(lake.settings):
        value = getattr(lake.settings, knob.name)
        if knob.name == "url":
            value = lake.url
        elif knob.name == "storage_options":
            value = dict.fromkeys(value, "(hidden)")
        shown[knob.name] = {
            "value": value,
            "origin": lake.origin[knob.name],
            "variable": knob.metadata["env"],
        }
    return shown


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"runlake": __version__, "python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            versions[library] = None
    return versions


def _print_info(about: dict[str, Any]) -> None:
    counts, journal = about["counts"], about["journal"]
    pairs = [("lake", about["lake"])]
    if counts is not None:
        held = _output.size(counts.pop("segment_bytes"))
        pairs += [*counts.items(), ("size of segments", held)]
    pairs += [
        ("journal", journal["folder"]),
        ("why there", journal["reason"]),
        ("journals", journal["journals"]),
        ("cache", about["cache"]),
    ]
    _output.print_pairs(pairs)
    _output.print_heading("settings")
    settings = about["settings"]
    _output.print_table(
        [
            Column("setting", list(settings)),
            Column("value", [_output.text(each["value"]) for each in settings.values()]),
            Column("from", [each["origin"] for each in settings.values()]),
            Column("variable", [each["variable"] for each in settings.values()], is_extra=True),
        ]
    )
    _output.print_heading("versions")
    _output.print_pairs(about["versions"].items())


@click.command("verify")
@click.option(
    "--repair",
    is_flag=True,
    help="Rebuild a manifest that is lost, and move what is broken to quarantine/; asks first.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--artifacts", is_flag=True, help="Check the content of every artifact too.")
@shared_options
@click.pass_context
def _verify(context: click.Context, *, repair: bool, yes: bool, artifacts: bool) -> None:
    """Check every file of the lake; the exit code is 1 if one is at fault.

    Nothing is mended without --repair, and nothing is ever deleted.
    """
    options = context.ensure_object(Options)
    # Not opened for reading, which needs a lake that is well.
    with options.open(read_only=False) as lake:
        if repair:
            question = f"Move what is broken in {lake.url} to quarantine, and rebuild its manifest?"
            _output.ask_first(question, is_sure=yes)
        report = lake.maintain.verify(repair=repair, artifacts=artifacts)
        url, settings = lake.url, lake.settings
        if report.lake is None and not report.segment_count:
            options.open().close()  # says what is there instead
    findings = [
        Column(name, [getattr(each, name) for each in report.findings]) for name in _FINDING
    ]
    if not _output.give(
        options,
        settings,
        rows=lambda: _report(report),
        table=lambda: _output.table_of(findings),
    ):
        _print_report(url, report)
    context.exit(0 if report.is_sound else _FAULTS)


def _report(report: Report) -> dict[str, Any]:
    return {
        "lake": report.lake,
        "is_sound": report.is_sound,
        "object_count": report.object_count,
        "segment_count": report.segment_count,
        "row_count": report.row_count,
        "size_bytes": report.size_bytes,
        "table_count": report.table_count,
        "table_rows": report.table_rows,
        "findings": [{name: getattr(each, name) for name in _FINDING} for each in report.findings],
        "mended": [dataclasses.asdict(each) for each in report.mended],
    }


def _print_report(url: str, report: Report) -> None:
    faults = sum(finding.is_fault for finding in report.findings)
    _output.print_pairs(
        [
            ("lake", url),
            ("id", report.lake),
            ("objects", report.object_count),
            ("segments", report.segment_count),
            ("rows", report.row_count),
            ("table files", report.table_count),
            ("table rows", report.table_rows),
            ("size", _output.size(report.size_bytes)),
            ("faults", faults),
        ]
    )
    if report.mended:
        _output.print_heading("mended")
        _output.print_table(
            [
                Column("deed", [each.deed for each in report.mended]),
                Column("key", [each.key for each in report.mended]),
                Column("detail", [each.detail for each in report.mended]),
            ]
        )
    if report.findings:
        _output.print_heading("findings")
        _output.print_table(
            [
                Column("", ["fault" if each.is_fault else "note" for each in report.findings]),
                Column("kind", [each.kind for each in report.findings]),
                Column("key", [each.key for each in report.findings]),
                Column("detail", [each.detail for each in report.findings]),
            ]
        )


@click.command("recover")
@click.option(
    "--force",
    is_flag=True,
    help="Take also journals of other hosts; their processes must be dead.",
)
@shared_options
@click.pass_context
def _recover(context: click.Context, *, force: bool) -> None:
    """Bring into the lake what dead processes of this host left in their journals.

    Opening the lake for writing does the same. The exit code is 1 if a journal had to stay.
    """
    options = context.ensure_object(Options)
    # Not opened for reading: the lake of a journal may not have been made yet.
    with options.open(read_only=False) as lake:
        found = lake.maintain.recover(force=force)
        if not found:
            options.open().close()  # a mistyped path is told from a lake that is well
        url, settings = lake.url, lake.settings
    rows = [dataclasses.asdict(each) for each in found]
    columns = [
        Column(each.name, [row[each.name] for row in rows])
        for each in dataclasses.fields(recover.Recovered)
    ]
    if _output.give(options, settings, rows=lambda: rows, table=lambda: _output.table_of(columns)):
        pass
    elif rows:
        _output.print_table(columns)
    else:
        _output.talk(f"no journal of a dead process for {url}: everything is in the lake.")
    context.exit(_FAULTS if any(each.problem for each in found) else 0)


COMMANDS: Final[tuple[click.Command, ...]] = (_info, _verify, _recover)
