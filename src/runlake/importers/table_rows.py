"""Rows of CSV and JSON lines as texts, and columns by what they mean.

Every value is read as the text that stands there, so that `0012` stays a name and no number loses
a digit before anybody knows what it is. Nothing at all, and JSON's null, are null.
"""

from __future__ import annotations

import csv as plain
import json
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.importers.source import SourceError
from runlake.writing.values import flatten

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    from pyarrow import csv
else:
    pa = lazy("pyarrow")
    csv = lazy("pyarrow.csv")

_LINES: Final = 1 << 15
_BLOCK_BYTES: Final = 8 << 20

# What a column may mean, and the names that say so by themselves.
ROLES: Final[dict[str, tuple[str, ...]]] = {
    "run": ("run_id", "run", "run_uuid"),
    "name": ("run_name", "name"),
    "experiment": ("experiment", "experiment_name"),
    "key": ("key", "metric"),
    "value": ("value",),
    "step": ("step", "_step", "epoch", "iteration"),
    "time": ("timestamp", "time", "_timestamp"),
    "status": ("status",),
    "start": ("start_time",),
    "end": ("end_time",),
    "user": ("user_id", "user"),
    "parent": ("parent_run_id",),
}
HELD: Final = ("metrics", "params", "tags")
_LEFT: Final = "left"


class Columns(NamedTuple):
    """What the columns of a file mean.

    Attributes:
        roles: columns by role.
        metrics: columns by metric.
        params: columns by param.
        tags: columns by tag.
        left: columns that are left out, because it was said so.
        is_long: a row is one point, with its key.
        has_points: rows are points, of which a run may have many; else a row is a run.
    """

    roles: dict[str, str]
    metrics: dict[str, str]
    params: dict[str, str]
    tags: dict[str, str]
    left: tuple[str, ...]
    is_long: bool
    has_points: bool


def read_csv(file: Path, delimiter: str = ",") -> Iterator[pa.Table]:
    """Yield the rows of a CSV file, a piece at a time; every column a text.

    Raises:
        SourceError: it is no CSV.
    """
    with file.open("rb") as opened:
        head = opened.readline().decode("utf-8-sig")
    names = next(plain.reader([head], delimiter=delimiter), [])
    if not names or len(set(names)) < len(names):
        raise SourceError(f"{file}: the first line names the columns, each once; it is {head!r}.")
    try:
        reader = csv.open_csv(
            file,
            read_options=csv.ReadOptions(
                block_size=_BLOCK_BYTES, column_names=names, skip_rows=1, use_threads=False
            ),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        for batch in reader:
            yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return
        raise SourceError(f"{file} is no CSV with {len(names)} columns: {error}") from error


def read_jsonl(file: Path) -> Iterator[pa.Table]:
    """Yield the rows of a file of JSON objects, one a line; every column a text.

    Objects in objects are flattened with dots; pieces may have different columns.

    Raises:
        SourceError: a line is no JSON object.
    """
    number = 0
    with file.open(encoding="utf-8-sig") as lines:
        while piece := list(islice(lines, _LINES)):
            rows = []
            for line in piece:
                number += 1
                if line.strip():
                    rows.append(_row(line, file, number))
            names = list(dict.fromkeys(name for row in rows for name in row))
            columns = [pa.array([row.get(name) for row in rows], pa.string()) for name in names]
            if names:
                yield pa.Table.from_arrays(columns, names=names)


def columns_of(names: Sequence[str], given: Mapping[str, Sequence[str]]) -> Columns:
    """Find out what columns mean.

    Args:
        names: of the file.
        given: columns by role, `metrics`, `params`, `tags` or `left`, as the caller said.

    Returns:
        A meaning for each column.

    Raises:
        InvalidInputError: a role or column that was named is not there.
    """
    known = [*ROLES, *HELD, _LEFT]
    for role, columns in given.items():
        if role not in known:
            message = f"a column may be {', '.join(known)}; there is no {role!r}."
            raise InvalidInputError(message)
        for column in columns:
            if column not in names:
                message = f"there is no column {column!r}; there are {', '.join(names)}."
                raise InvalidInputError(message)
    taken = {column for columns in given.values() for column in columns}
    roles = {role: columns[0] for role, columns in given.items() if role in ROLES and columns}
    for role, usual in ROLES.items():
        found = next((name for name in usual if name in names and name not in taken), None)
        if role not in roles and found is not None:
            roles[role] = found
            taken.add(found)
    held = {what: {name: name for name in given.get(what, ())} for what in HELD}
    for name in names:
        what, dot, key = name.partition(".")
        if name not in taken and dot and what in HELD:
            held[what][key] = name
            taken.add(name)
    is_long = "key" in roles and "value" in roles
    has_points = is_long or "step" in roles
    for role in () if is_long else ("key", "value"):
        taken.discard(roles.pop(role, ""))
    others = [name for name in names if name not in taken]
    # What nobody explained: of points it is measured, of a whole run it is what it was given.
    held["metrics" if has_points and not is_long else "params"] |= {name: name for name in others}
    left = tuple(given.get(_LEFT, ()))
    return Columns(roles, held["metrics"], held["params"], held["tags"], left, is_long, has_points)


def _row(line: str, file: Path, number: int) -> dict[str, str | None]:
    try:
        given = json.loads(line)
    except ValueError as error:
        raise SourceError(f"{file}, line {number} is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise SourceError(f"{file}, line {number} is no JSON object: {line[:80]!r}")
    return {name: _text(value) for name, value in flatten(given)}


def _text(value: Any) -> str | None:  # noqa: ANN401 - whatever JSON holds
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else str(value)
