"""Addresses of models: `models:/name/3`, `models:/name@alias`, and of files of runs.

In the name of a model `%40` stands for `@`, `%25` for `%`, and so on, as in any URL: for names
that would else be read as something else. In `runs:/<run id>/<path>` the path is as it is.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from runlake import arguments, schema
from runlake.errors import InvalidInputError

LATEST: Final = "latest"
MODELS: Final = "models:/"
RUNS: Final = "runs:/"
_FORMS: Final = (
    "models:/<name>/<version>, models:/<name>@<alias>, models:/<name>/<stage> or "
    "models:/<name>/latest"
)
_QUOTED: Final = re.compile(r"[%@?#/]")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


class ModelUri(NamedTuple):
    """What an address of a model says; one of the last four is there.

    Attributes:
        name: the model.
        version: its number.
        alias: what an alias means.
        stage: the greatest version of a stage, as `schema.STAGES` writes it.
        is_latest: the greatest version of all.
    """

    name: str
    version: int | None = None
    alias: str | None = None
    stage: str | None = None
    is_latest: bool = False


class RunUri(NamedTuple):
    """What an address of files of a run says.

    Attributes:
        run_id: the run.
        path: below it; empty means all its files.
    """

    run_id: str
    path: str


def model_uri(name: str, *, version: int | None = None, alias: str | None = None) -> str:
    """Return the address of a version.

    Args:
        name: the model; what would be read as something else is quoted.
        version: its number.
        alias: an alias of it; neither means the latest.
    """
    quoted = _QUOTED.sub(lambda found: quote(found[0], safe=""), name)
    if alias is not None:
        return f"{MODELS}{quoted}@{alias}"
    return f"{MODELS}{quoted}/{LATEST if version is None else version}"


def is_model_uri(uri: str) -> bool:
    """Tell whether an address is a model's."""
    return arguments.text("the address of a model", uri).startswith("models:")


def is_run_uri(uri: str) -> bool:
    """Tell whether an address is one of files of a run."""
    return arguments.text("the address of files", uri).startswith("runs:")


def parse_model_uri(uri: str) -> ModelUri:
    """Read the address of a version of a model.

    Raises:
        InvalidInputError: it is none.
    """
    uri = arguments.text("the address of a model", uri)
    body = uri.removeprefix(MODELS).rstrip("/") if uri.startswith(MODELS) else ""
    name, slash, last = body.partition("/")
    if not name or name.startswith("@") or "/" in last:
        raise InvalidInputError(f"{uri!r} is no address of a model; it is {_FORMS}.")
    if not slash:
        name, at, alias = name.rpartition("@")
        if not at or not alias:
            raise InvalidInputError(
                f"{uri!r} names no version; write {_FORMS}, for example {MODELS}{body}/{LATEST}."
            )
        return ModelUri(unquote(name), alias=alias)
    name = unquote(name)
    if last.isascii() and last.isdigit():
        return ModelUri(name, version=int(last))
    if last.lower() == LATEST:
        return ModelUri(name, is_latest=True)
    return ModelUri(name, stage=stage(last))


def parse_run_uri(uri: str) -> RunUri:
    """Read the address of files of a run.

    Raises:
        InvalidInputError: it is none.
    """
    uri = arguments.text("the address of files", uri)
    run_id, _, path = uri.removeprefix(RUNS).partition("/")
    if not uri.startswith(RUNS) or not run_id:
        raise InvalidInputError(f"{uri!r} is no address of a run's files: {RUNS}<run id>/<path>.")
    return RunUri(run_id, path.strip("/"))


def run_uri(run_id: str, path: str) -> str:
    """Return the address of files of a run."""
    return f"{RUNS}{run_id}/{path}" if path else f"{RUNS}{run_id}"


def has_scheme(uri: str) -> bool:
    """Tell whether a text is a URL; else it is a path on this machine."""
    return _SCHEME.match(uri) is not None


def stage(given: str) -> str:
    """Return a stage as it is written, whatever its letters' case.

    Raises:
        InvalidInputError: it is none.
    """
    found = {each.lower(): each for each in schema.STAGES}.get(str(given).lower())
    if found is None:
        raise InvalidInputError(
            f"{given!r} is no stage of a version; there are {', '.join(schema.STAGES)}."
        )
    return found
