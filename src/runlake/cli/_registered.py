"""How models, versions and their trail are given to programs, and shown to people."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from runlake.cli import _output
from runlake.cli._output import Column

if TYPE_CHECKING:
    import polars as pl

    from runlake.cli._options import Options
    from runlake.lake import Lake
    from runlake.registry.entities import ModelVersion, RegisteredModel

_Row = dict[str, Any]

TRAIL: Final = ("at", "name", "version", "kind", "key", "value", "user_id", "reason")
# What a narrow terminal leaves out, the last first.
_EXTRA: Final = frozenset({"user_id", "reason", "tags", "description", "run_id", "source"})
MODEL: Final = ("name", "latest_version", "aliases", "last_update_time", "tags", "description")
VERSION: Final = (
    *("version", "aliases", "stage", "creation_time", "run_id", "source", "tags", "description"),
)


def trail_rows(frame: pl.DataFrame) -> list[_Row]:
    """Return events of the registry as rows that JSON can hold."""
    return [
        {**row, "at": row["at"].astimezone(UTC) if row["at"] is not None else None}
        for row in frame.to_dicts()
    ]


def model_row(model: RegisteredModel) -> _Row:
    """Return a model as a row."""
    return {
        "name": model.name,
        "latest_version": max((each.version for each in model.latest_versions), default=None),
        "aliases": model.aliases,
        "creation_time": _moment(model.creation_timestamp),
        "last_update_time": _moment(model.last_updated_timestamp),
        "user_id": model.user_id,
        "description": model.description,
        "tags": model.tags,
        "model_id": model.model_id,
    }


def version_row(version: ModelVersion) -> _Row:
    """Return a version as a row."""
    row = dataclasses.asdict(version)
    row["creation_time"] = _moment(row.pop("creation_timestamp"))
    row["last_update_time"] = _moment(row.pop("last_updated_timestamp"))
    row["stage"] = row.pop("current_stage")
    del row["status_message"]
    return row


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def give(options: Options, lake: Lake, rows: list[_Row], names: tuple[str, ...] | None) -> bool:
    """Answer a program, or write the answer to a file.

    Args:
        options: say which.
        lake: the lake.
        rows: the answer.
        names: the columns of a table where there is no row; None takes those of a trail.

    Returns:
        False if it is a person who asks: then nothing was done.
    """
    columns = [*rows[0]] if rows else list(names or TRAIL)
    return _output.give(
        options,
        lake.settings,
        rows=lambda: rows,
        table=lambda: _output.table_of(_columns(rows, columns)),
    )


def _columns(rows: list[_Row], names: list[str]) -> list[Column]:
    return [Column(name, [row[name] for row in rows], name in _EXTRA) for name in names]


def show(rows: list[_Row], names: tuple[str, ...], *, nothing: str) -> None:
    """Print rows as a table.

    Args:
        rows: the answer.
        names: which columns.
        nothing: what to say where there is no row.
    """
    if not rows:
        _output.talk(nothing)
        return
    shown = [{name: _short(row[name]) for name in names} for row in rows]
    _output.print_table(_columns(shown, list(names)))


def _short(value: object) -> object:
    """Return what a cell shows: nothing for what is empty, aliases and tags on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={held}" for key, held in value.items()) or None
    if isinstance(value, list):
        return ", ".join(map(str, value)) or None
    return None if value == "" else value


def give_version(options: Options, lake: Lake, version: ModelVersion) -> None:
    """Give one version.

    Args:
        options: say how.
        lake: the lake.
        version: what to give.
    """
    _give_pairs(options, lake, version_row(version))


def give_model(options: Options, lake: Lake, model: RegisteredModel) -> None:
    """Give one model.

    Args:
        options: say how.
        lake: the lake.
        model: what to give.
    """
    _give_pairs(options, lake, model_row(model))


def give_either(options: Options, lake: Lake, name: str, version: int | None) -> None:
    """Give a model, or a version of it.

    Args:
        options: say how.
        lake: the lake.
        name: of the model.
        version: its number; None gives the model.
    """
    if version is None:
        give_model(options, lake, lake.registry.get_registered_model(name))
    else:
        give_version(options, lake, lake.registry.get_model_version(name, version))


def _give_pairs(options: Options, lake: Lake, about: _Row) -> None:
    if not _output.give(
        options, lake.settings, rows=lambda: about, table=lambda: _output.parts_table(about)
    ):
        _output.print_pairs([(name, _short(value)) for name, value in about.items()])
