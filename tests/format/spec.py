"""Reads `docs/spec/v1.md`: its tables, its SQL and the results printed below it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    import duckdb

FILE: Final = Path(__file__).parents[2] / "docs" / "spec" / "v1.md"

_TABLE: Final = re.compile(r"<!-- table: ([\w-]+) -->\n((?:\|.*\n)+)")
_SQL: Final = re.compile(
    r"```sql\n(?P<sql>.*?)^```$(?:\n\n```text\n(?P<result>.*?)\n```$)?", re.MULTILINE | re.DOTALL
)
# Stand in where a lake has no manifest, no segment, or tables beside its segments.
_INSTEAD: Final = tuple(
    f"<!-- sql: {name} -->\n\n" for name in ("no-manifest", "cold-marks", "no-segments", "tables")
)


class Statement(NamedTuple):
    """A block of SQL, and the result printed below it, where one is."""

    sql: str
    result: str | None


def text() -> str:
    """Return the document."""
    return FILE.read_text("utf-8")


def tables() -> dict[str, list[list[str]]]:
    """Return the marked tables by name: their rows, code marks taken off."""
    return {
        name: [
            [cell.strip().strip("`") for cell in line.strip("|\n").split(" | ")]
            for line in lines.strip().split("\n")[2:]
        ]
        for name, lines in _TABLE.findall(text())
    }


def statements() -> list[Statement]:
    """Return the blocks of SQL that read a lake of segments with a manifest, in order."""
    return [
        Statement(match["sql"], match["result"])
        for match in _SQL.finditer(text())
        if not text()[: match.start()].endswith(_INSTEAD)
    ]


def run_blocks(connection: duckdb.DuckDBPyConnection, blocks: Iterable[str]) -> None:
    """Run blocks of SQL for what they make."""
    for block in blocks:
        for statement in connection.extract_statements(block):
            connection.execute(statement)


def shown(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return a query's result as the document prints it."""
    found = connection.sql(
        f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({query.rstrip().rstrip(';')})"
    )
    cells = [
        list(found.columns),
        *(["null" if value is None else value for value in row] for row in found.fetchall()),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(" | ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
