"""Views whose rows are the events of one kind, each declared once for SQL and for Polars.

A column is a column of the event's row, or a field of the JSON that the event has as its text.
What is not there, or of another type, is null: a reader takes events of newer writers as they
are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from runlake import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIME: Final = "TIMESTAMP WITH TIME ZONE"
ROW: Final = ("run_id", "experiment_id", "key", "num", "str", "timestamp", "writer", "seq")
"""The columns of an event's row that a column of a view may be."""


class Column(NamedTuple):
    """One column of a view.

    Attributes:
        name: in the view.
        type: DuckDB's.
        source: one of `ROW`, or `$.` and the name of a field of the JSON.
    """

    name: str
    type: str
    source: str

    @property
    def field(self) -> str | None:
        """The field of the JSON that it is; None for a column of the row."""
        return self.source[2:] if self.source.startswith("$.") else None


@dataclass(frozen=True, slots=True)
class EventView:
    """One view over the events of one kind.

    Attributes:
        kind: of the events.
        columns: of the view.
        is_latest: whether only the latest event of each run and key counts.
        required: the field of the JSON without which an event does not show.
    """

    kind: str
    columns: tuple[Column, ...]
    is_latest: bool = False
    required: str | None = None

    @property
    def is_numbered(self) -> bool:
        """Whether it shows the sequence numbers of rows."""
        return any(column.source == "seq" for column in self.columns)

    def fields(self) -> Iterator[Column]:
        """Yield the columns that are fields of the JSON."""
        return (column for column in self.columns if column.field is not None)


_RUN: Final = (
    Column("run_id", "VARCHAR", "run_id"),
    Column("experiment_id", "VARCHAR", "experiment_id"),
)

EVENT_VIEWS: Final[dict[str, EventView]] = {
    "media": EventView(
        kind=schema.ARTIFACT,
        columns=(
            *_RUN,
            Column("key", "VARCHAR", "$.key"),
            Column("step", "BIGINT", "$.step"),
            Column("media", "VARCHAR", "$.media"),
            Column("path", "VARCHAR", "key"),
            Column("size", "BIGINT", "num"),
            Column("media_type", "VARCHAR", "$.media_type"),
            Column("sha256", "VARCHAR", "$.sha256"),
            Column("logged_at", _TIME, "timestamp"),
            Column("details", "VARCHAR", "str"),
        ),
        is_latest=True,
        required="media",
    ),
    "histograms": EventView(
        kind=schema.HISTOGRAM,
        columns=(
            *_RUN,
            Column("key", "VARCHAR", "key"),
            Column("step", "BIGINT", "$.step"),
            Column("edges", "DOUBLE[]", "$.edges"),
            Column("counts", "DOUBLE[]", "$.counts"),
            Column("below", "BIGINT", "$.below"),
            Column("above", "BIGINT", "$.above"),
            Column("nan_count", "BIGINT", "$.nan_count"),
            Column("logged_at", _TIME, "timestamp"),
        ),
    ),
    "console": EventView(
        kind=schema.CONSOLE,
        columns=(
            *_RUN,
            Column("stream", "VARCHAR", "key"),
            Column("line", "BIGINT", "num"),
            Column("text", "VARCHAR", "str"),
            Column("at", _TIME, "timestamp"),
            Column("writer", "VARCHAR", "writer"),
        ),
    ),
    "alerts": EventView(
        kind=schema.ALERT,
        columns=(
            *_RUN,
            Column("at", _TIME, "timestamp"),
            Column("level", "VARCHAR", "key"),
            Column("title", "VARCHAR", "$.title"),
            Column("text", "VARCHAR", "$.text"),
            Column("writer", "VARCHAR", "writer"),
            Column("seq", "BIGINT", "seq"),
        ),
    ),
}

_ALL = """
SELECT run_id, experiment_id, key, num, str, timestamp, writer, seq
FROM ({{segments}} UNION ALL BY NAME {{events}})
WHERE kind = '{kind}'
"""

_LATEST = """
SELECT
    run_id, fact.experiment_id AS experiment_id, key, fact.num AS num, fact.str AS str,
    fact.timestamp AS timestamp, fact.writer AS writer, fact.seq AS seq
FROM (
    SELECT
        run_id, key,
        max(struct_pack(timestamp, writer, seq, num, str, experiment_id)) AS fact
    FROM ({{segments}} UNION ALL BY NAME {{events}})
    WHERE kind = '{kind}'
    GROUP BY run_id, key
)
"""


def view_sql(name: str) -> str:
    """Return the statement that makes a view, with places for the rows it is made of.

    Args:
        name: a key of `EVENT_VIEWS`.

    Returns:
        SQL with the fields `segments` and `events` for `str.format`.
    """
    view = EVENT_VIEWS[name]
    rows = (_LATEST if view.is_latest else _ALL).format(kind=view.kind)
    shape = {str(column.field): _json_type(column.type) for column in view.fields()}
    if shape:
        # Doubled braces: the statement is a format of its own.
        wanted = json.dumps(shape).replace("{", "{{").replace("}", "}}")
        told = f"CASE WHEN json_valid(str) THEN json_transform(str, '{wanted}') END AS about"
        rows = f"SELECT *, {told} FROM ({rows})"
    columns = ",\n    ".join(_column_sql(column) for column in view.columns)
    kept = f"WHERE about.{view.required} IS NOT NULL" if view.required else ""
    return f"CREATE VIEW {name} AS\nSELECT\n    {columns}\nFROM ({rows})\n{kept}"


def _json_type(kind: str) -> object:
    """Return a type as `json_transform` wants it."""
    return [kind.removesuffix("[]")] if kind.endswith("[]") else kind


def _column_sql(column: Column) -> str:
    if column.field is not None:
        return f'about."{column.field}" AS "{column.name}"'
    if column.type == "BIGINT":
        return f'TRY_CAST({column.source} AS BIGINT) AS "{column.name}"'
    return f'{column.source} AS "{column.name}"'
