"""Mappings and lists as JSON and YAML, with what numeric code has in them.

Scalars and arrays of NumPy and its kin become numbers and lists, mappings and lists of every class
plain ones; what neither format knows becomes its text, as MLflow writes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from runlake._lazy import need


def to_json(value: object) -> bytes:
    """Return a value as the bytes of a JSON file.

    Args:
        value: what JSON can hold, but for its leaves.

    Raises:
        TypeError: a key is no text and no number.
        ValueError: it holds itself, or a text that is not Unicode.
        RecursionError: it is nested too deep.
    """
    return json.dumps(value, indent=2, ensure_ascii=False, default=_plain).encode()


def to_yaml(value: object) -> bytes:
    """Return a value as the bytes of a YAML file that every reader of plain YAML takes.

    Args:
        value: what YAML can hold, but for its leaves.

    Raises:
        MissingDependencyError: PyYAML is not installed.
        ValueError: it cannot be written so.
        RecursionError: it is nested too deep.
    """
    yaml = need("yaml")

    class Dumper(yaml.SafeDumper):  # type: ignore[misc,name-defined] # it is what is installed
        """Takes what is derived from the plain types, and anything else as `_plain` has it."""

    for kind in (str, int, float, dict, list, tuple):
        known = yaml.SafeDumper.yaml_representers[kind]
        Dumper.add_multi_representer(
            kind, lambda dumper, given, kind=kind, known=known: known(dumper, kind(given))
        )
    Dumper.add_multi_representer(object, lambda dumper, given: dumper.represent_data(_plain(given)))
    try:
        text: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    return text.encode()


def _plain(value: Any) -> object:  # noqa: ANN401 - anything
    """Return what a value is to formats that know few types."""
    plain = getattr(value, "tolist", None) or getattr(value, "item", None)
    if callable(plain):
        found: object = plain()
        return found if type(found) is not type(value) else str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
