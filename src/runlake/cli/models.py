"""`runlake models`: the model registry, for people and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from runlake._lazy import lazy
from runlake.cli import _output, _registered
from runlake.cli._options import Options, shared_options, table_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runlake.query import export as frames
else:
    frames = lazy("runlake.query.export")

_Row = dict[str, Any]

_reason_option: Final = click.option(
    "--reason", metavar="TEXT", help="Why; kept in the audit trail."
)
_version_option: Final = click.option(
    "-v", "--version", metavar="N", type=click.IntRange(min=1), help="Of this version."
)


def _read_tags(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    tags = {}
    for each in given:
        key, mark, value = each.partition("=")
        if not mark:
            message = f"{each!r} is no KEY=VALUE."
            raise click.BadParameter(message)
        tags[key] = value
    return tags


@click.group("models")
def _models() -> None:
    """Register models, give them aliases, promote them, and see who did what.

    NAME is a registered model; URI is models:/NAME/VERSION, models:/NAME@ALIAS,
    models:/NAME/STAGE, models:/NAME/latest, or runs:/RUN_ID/PATH.
    """


@_models.command("ls")
@click.option(
    "-f", "--filter", "filter_string", metavar="TEXT", default="", help="Only those that match."
)
@click.option("-n", "--limit", metavar="N", type=click.IntRange(min=1), help="At most so many.")
@table_options
@click.pass_obj
def _ls(options: Options, *, filter_string: str, limit: int | None) -> None:
    """List registered models.

    A filter is like: name LIKE 'digits%' and tags.team = 'vision'.
    """
    with options.open() as lake:
        found = lake.registry.search_registered_models(filter_string, max_results=limit)
        rows = [_registered.model_row(model) for model in found]
    if not _registered.give(options, lake, rows, _registered.MODEL):
        _registered.show(rows, _registered.MODEL, nothing=f"no registered model in {lake.url}.")


@_models.command("show")
@click.argument("name")
@shared_options
@click.pass_obj
def _show(options: Options, *, name: str) -> None:
    """Show a model with all its versions."""
    with options.open() as lake:
        model = _registered.model_row(lake.registry.get_registered_model(name))
        quoted = name.replace("'", "''")
        found = lake.registry.search_model_versions(f"name = '{quoted}'", max_results=None)
        versions = [_registered.version_row(version) for version in found]
    about = {**model, "versions": versions}
    if _output.give(
        options, lake.settings, rows=lambda: about, table=lambda: _output.parts_table(about)
    ):
        return
    _output.print_pairs(list(model.items()))
    _output.print_heading("versions")
    _registered.show(versions, _registered.VERSION, nothing="no versions yet.")


@_models.command("register")
@click.argument("uri")
@click.argument("name")
@click.option(
    "-t",
    "--tag",
    "tags",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_read_tags,
    help="A tag of the version; may be given again.",
)
@click.option("-d", "--description", metavar="TEXT", help="What the version is.")
@_reason_option
@shared_options
@click.pass_obj
def _register(
    options: Options,
    *,
    uri: str,
    name: str,
    tags: Mapping[str, str],
    description: str | None,
    reason: str | None,
) -> None:
    """Make the next version of a model from files of a run, or from a URL.

    The model is made if there is none.
    """
    with options.open(read_only=False) as lake:
        made = lake.registry.register_model(
            uri, name, tags=tags, description=description, reason=reason
        )
    _registered.give_version(options, lake, made)


@_models.command("copy")
@click.argument("uri")
@click.argument("name")
@_reason_option
@shared_options
@click.pass_obj
def _copy(options: Options, *, uri: str, name: str, reason: str | None) -> None:
    """Make a version of another model that is a copy of a version."""
    with options.open(read_only=False) as lake:
        made = lake.registry.copy_model_version(uri, name, reason=reason)
    _registered.give_version(options, lake, made)


@_models.command("alias")
@click.argument("name")
@click.argument("alias")
@click.argument("version", type=click.IntRange(min=1), required=False)
@click.option("--delete", is_flag=True, help="Take the alias away.")
@_reason_option
@shared_options
@click.pass_obj
def _alias(
    options: Options,
    *,
    name: str,
    alias: str,
    version: int | None,
    delete: bool,
    reason: str | None,
) -> None:
    """Let an alias mean a version, whatever it meant before."""
    if delete == (version is not None):
        message = "give a VERSION, or --delete."
        raise click.UsageError(message)
    with options.open(read_only=False) as lake:
        if version is None:
            lake.registry.delete_registered_model_alias(name, alias, reason=reason)
        else:
            lake.registry.set_registered_model_alias(name, alias, version, reason=reason)
        found = lake.registry.get_registered_model(name)
    _registered.give_model(options, lake, found)


@_models.command("promote")
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1))
@click.argument("alias")
@click.option(
    "-r",
    "--require",
    metavar="FILTER",
    help='Only if the run that made it meets this, like "metrics.acc > 0.9".',
)
@_reason_option
@shared_options
@click.pass_obj
def _promote(
    options: Options,
    *,
    name: str,
    version: int,
    alias: str,
    require: str | None,
    reason: str | None,
) -> None:
    """Let an alias mean a version, on a condition.

    If it is refused, the exit code is 4. That it was tried is in the audit trail either way.
    """
    with options.open(read_only=False) as lake:
        found = lake.registry.promote(name, version, alias, require=require, reason=reason)
    _registered.give_version(options, lake, found)


@_models.command("stage")
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1))
@click.argument("stage")
@click.option("--archive-existing", is_flag=True, help="Archive all others in this stage.")
@_reason_option
@shared_options
@click.pass_obj
def _stage(
    options: Options,
    *,
    name: str,
    version: int,
    stage: str,
    archive_existing: bool,
    reason: str | None,
) -> None:
    """Move a version to a stage: None, Staging, Production or Archived."""
    with options.open(read_only=False) as lake:
        found = lake.registry.transition_model_version_stage(
            name, version, stage, archive_existing_versions=archive_existing, reason=reason
        )
    _registered.give_version(options, lake, found)


@_models.command("tag")
@click.argument("name")
@click.argument("key")
@click.argument("value", required=False)
@_version_option
@click.option("--delete", is_flag=True, help="Take the tag away.")
@_reason_option
@shared_options
@click.pass_obj
def _tag(
    options: Options,
    *,
    name: str,
    key: str,
    value: str | None,
    version: int | None,
    delete: bool,
    reason: str | None,
) -> None:
    """Set a tag of a model, or of a version of it."""
    if delete == (value is not None):
        message = "give a VALUE, or --delete."
        raise click.UsageError(message)
    with options.open(read_only=False) as lake:
        registry = lake.registry
        if version is None and value is None:
            registry.delete_registered_model_tag(name, key, reason=reason)
        elif version is None:
            registry.set_registered_model_tag(name, key, value, reason=reason)
        elif value is None:
            registry.delete_model_version_tag(name, version, key, reason=reason)
        else:
            registry.set_model_version_tag(name, version, key, value, reason=reason)
        _registered.give_either(options, lake, name, version)


@_models.command("describe")
@click.argument("name")
@click.argument("text")
@_version_option
@_reason_option
@shared_options
@click.pass_obj
def _describe(
    options: Options, *, name: str, text: str, version: int | None, reason: str | None
) -> None:
    """Say what a model is, or a version of it; an empty TEXT takes the description away."""
    with options.open(read_only=False) as lake:
        if version is None:
            lake.registry.update_registered_model(name, text or None, reason=reason)
        else:
            lake.registry.update_model_version(
                name, version, description=text or None, reason=reason
            )
        _registered.give_either(options, lake, name, version)


@_models.command("rename")
@click.argument("name")
@click.argument("new_name")
@_reason_option
@shared_options
@click.pass_obj
def _rename(options: Options, *, name: str, new_name: str, reason: str | None) -> None:
    """Give a model another name; its versions and its trail stay."""
    with options.open(read_only=False) as lake:
        found = lake.registry.rename_registered_model(name, new_name, reason=reason)
    _registered.give_model(options, lake, found)


@_models.command("delete")
@click.argument("name")
@_version_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_reason_option
@shared_options
@click.pass_obj
def _delete(
    options: Options, *, name: str, version: int | None, yes: bool, reason: str | None
) -> None:
    """Delete a model with all its versions, or one version.

    Numbers are never given out again. Files of runs stay, and so does the audit trail.
    """
    with options.open(read_only=False) as lake:
        what = f"model {name!r}" if version is None else f"version {version} of model {name!r}"
        _output.ask_first(f"Delete {what} in {lake.url}?", is_sure=yes)
        if version is None:
            lake.registry.delete_registered_model(name, reason=reason)
        else:
            lake.registry.delete_model_version(name, version, reason=reason)
    about = {"name": name, "version": version, "deleted": True}
    if not _output.give(
        options, lake.settings, rows=lambda: about, table=lambda: _output.parts_table(about)
    ):
        _output.talk(f"deleted {what}.")


@_models.command("history")
@click.argument("name")
@table_options
@click.pass_obj
def _history(options: Options, *, name: str) -> None:
    """Show the audit trail of a model: who did what, when and why."""
    with options.open() as lake:
        rows = _registered.trail_rows(lake.registry.history(name))
    if not _registered.give(options, lake, rows, None):
        _registered.show(rows, _registered.TRAIL[:1] + _registered.TRAIL[2:], nothing="")


@_models.command("changes")
@click.option("--since", metavar="CURSOR", help="Only what came since the call that gave this.")
@table_options
@click.pass_obj
def _changes(options: Options, *, since: str | None) -> None:
    """List what changed in the registry, and give a cursor for the next call.

    Polled by cursor, each change is given once, however wrong the clocks of its makers are and
    however late it came.
    """
    with options.open() as lake:
        frame, cursor = lake.registry.changes(since)
    rows = _registered.trail_rows(frame)
    if not _output.give(
        options,
        lake.settings,
        rows=lambda: {"changes": rows, "cursor": cursor},
        table=lambda: frames.to_arrow(frame.to_dict(as_series=False)),
    ):
        _registered.show(rows, _registered.TRAIL, nothing=f"nothing has changed in {lake.url}.")
        _output.talk(f"cursor: {cursor}")


@_models.command("download")
@click.argument("uri")
@click.argument("target", type=click.Path(path_type=Path, file_okay=False), default=".")
@shared_options
@click.pass_obj
def _download(options: Options, *, uri: str, target: Path) -> None:
    """Fetch the files of a version into a folder, and print where they are."""
    with options.open() as lake:
        path = str(lake.registry.download(uri, target=target))
    about = {"uri": uri, "path": path}
    if not _output.give(
        options, lake.settings, rows=lambda: about, table=lambda: _output.parts_table(about)
    ):
        click.echo(path)


COMMANDS: Final[tuple[click.Command, ...]] = (_models,)
