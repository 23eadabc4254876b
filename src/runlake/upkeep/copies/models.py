"""Registered models on their way from one lake into another: all of a model, or nothing of it.

A claim is what a model or a version exists by, and its event is the trace of that. So the claims
go first, under the keys that they have. A model of which the target holds a claim that says
something else stays away: of two versions under one number only one could stay.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from runlake.errors import FormatError
from runlake.storage import layout

if TYPE_CHECKING:
    from runlake.storage.filesystem import Filesystem


class Models(NamedTuple):
    """What became of the registered models of a lake.

    Attributes:
        came: ids of models of which the target has every claim now.
        away: names of the others.
    """

    came: frozenset[str]
    away: tuple[str, ...]


def bring(source: Filesystem, target: Filesystem) -> Models:
    """Bring the claims of registered models and their versions.

    Two listings, and one request for each claim, and one more for each that both lakes have.

    Args:
        source: the lake that has them.
        target: the lake that gets them.

    Returns:
        Whose events may follow, and who stays away.

    Raises:
        FormatError: a claim is damaged.
        StorageError: a store cannot be read or written.
    """
    ours, theirs = _claims(source), _claims(target)
    keys: dict[str, list[str]] = defaultdict(list)
    names: dict[str, str] = {}
    for key, data in sorted(ours.items()):
        model_id, name = _named(data, key=key, url=source.url)
        keys[model_id].append(key)
        names[model_id] = name
    away = []
    for model_id, listed in keys.items():
        differs = any(theirs.get(key, ours[key]) != ours[key] for key in listed)
        if differs or not all(key in theirs or target.put_absent(key, ours[key]) for key in listed):
            away.append(model_id)
    return Models(frozenset(keys.keys() - away), tuple(sorted(names[each] for each in away)))


def _claims(fs: Filesystem) -> dict[str, bytes]:
    """Return the claims of models and versions, by key."""
    found = [
        entry
        for entry in fs.list(layout.MODEL_NAMES)
        if layout.parse_model_claim(entry.key) or layout.parse_version_claim(entry.key)
    ]
    data = fs.get_ranges([entry.tail(entry.size_bytes) for entry in found])
    return {entry.key: each for entry, each in zip(found, data, strict=True)}


def _named(data: bytes, *, key: str, url: str) -> tuple[str, str]:
    """Return the id and the name of the model that a claim is about."""
    try:
        said = json.loads(data)
        return str(said["model_id"]), str(said["name"])
    except (ValueError, KeyError, TypeError) as error:
        message = f"{url}/{key} is no readable claim of a model: {error!r}"
        raise FormatError(message, url=url) from error
