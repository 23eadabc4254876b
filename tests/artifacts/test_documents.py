"""Mappings as JSON and YAML, with what numeric code has in them."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from runlake.artifacts.documents import to_json, to_yaml

yaml: Any = pytest.importorskip("yaml")

Write = Callable[[object], bytes]
Pair = namedtuple("Pair", "a b")  # noqa: PYI024 - what old code has
FORMATS: list[Any] = [
    pytest.param(to_json, json.loads, id="json"),
    pytest.param(to_yaml, yaml.safe_load, id="yaml"),
]


class Colour(Enum):
    """One of a set."""

    RED = 1


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_values_of_derived_and_numeric_types_become_plain_ones(
    write: Write, read: Callable[[bytes], object]
) -> None:
    value = {
        "array": np.arange(3),
        "scalars": [np.float32(1.5), np.float64(2.5), np.int64(3), np.True_, np.str_("text")],
        "ordered": OrderedDict(z=1, a=2),
        "default": defaultdict(list, x=[1]),
        "proxy": MappingProxyType({"k": None}),
        "pair": Pair(1, (2, 3)),
        "path": Path("folder/file"),
    }
    assert read(write(value)) == {
        "array": [0, 1, 2],
        "scalars": [1.5, 2.5, 3, True, "text"],
        "ordered": {"z": 1, "a": 2},
        "default": {"x": [1]},
        "proxy": {"k": None},
        "pair": [1, [2, 3]],
        "path": "folder/file",
    }
    assert list(read(write(value))["ordered"]) == ["z", "a"]  # type: ignore[index] # as above


@pytest.mark.parametrize(("write", "read"), FORMATS)
def test_what_a_format_does_not_know_becomes_its_text(
    write: Write, read: Callable[[bytes], object]
) -> None:
    value = {"enum": Colour.RED, "decimal": Decimal("1.50"), "complex": 1 + 2j}
    assert read(write(value)) == {"enum": "Colour.RED", "decimal": "1.50", "complex": "(1+2j)"}


def test_times_are_texts_in_json_and_times_in_yaml() -> None:
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert json.loads(to_json({"at": moment})) == {"at": "2024-01-02 03:04:05+00:00"}
    assert yaml.safe_load(to_yaml({"at": moment})) == {"at": moment}


@pytest.mark.parametrize("write", [to_json, to_yaml])
def test_a_value_that_is_nested_too_deep_is_refused(write: Write) -> None:
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RecursionError):
        write(deep)


def test_a_mapping_that_holds_itself_and_a_text_that_is_not_unicode_are_no_json() -> None:
    value: dict[str, object] = {}
    value["self"] = value
    with pytest.raises(ValueError, match="Circular"):
        to_json(value)
    with pytest.raises(ValueError, match="surrogates"):
        to_json({"text": "\ud800"})
