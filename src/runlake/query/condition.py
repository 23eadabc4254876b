"""Whether one run meets a condition in the language of filters, and what it has instead."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake.errors import InvalidInputError
from runlake.query.compile import compile_search
from runlake.query.entities import get_run
from runlake.query.export import to_rows
from runlake.query.grammar import (
    Absence,
    Both,
    Comparison,
    Either,
    Field,
    Membership,
    Not,
    parse_filter,
)
from runlake.query.search import RunSearch, find_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.query.engine import Query
    from runlake.query.grammar import Node

_SUMMARY: Final = "SELECT * FROM metric_summary WHERE run_id = $run_id"
_INPUTS: Final = "SELECT name, digest, context FROM inputs WHERE run_id = $run_id"
_PLACE: Final = "SELECT * FROM runs WHERE run_id = $run_id"


class Verdict(NamedTuple):
    """What was asked of a run, and what it has.

    Attributes:
        is_met: whether the condition holds.
        found: of each field of the condition what the run has; None where it has nothing.
    """

    is_met: bool
    found: dict[str, Any]


def check(condition: str) -> None:
    """Refuse a condition that cannot be read.

    Raises:
        InvalidInputError: it is empty, which requires nothing.
        FilterSyntaxError: says line and column.
    """
    if not condition.strip():
        raise InvalidInputError(
            "the condition of a promotion is empty. Leave it out where nothing is required."
        )
    parse_filter(condition)
    compile_search(condition, ())


def judge(query: Query, run_id: str, condition: str) -> Verdict:
    """Hold a run against a condition.

    Args:
        query: the snapshot.
        run_id: the run, deleted or not.
        condition: as the filter of `search_runs`.

    Returns:
        The verdict.

    Raises:
        FilterSyntaxError: the condition cannot be read.
        NotFoundError: there is no such run.
    """
    tree = parse_filter(condition)
    record = get_run(query, run_id)
    quoted = run_id.replace("'", "''")
    wanted = RunSearch(
        filter_string=f"({condition}) and attributes.run_id = '{quoted}'",
        experiment_ids=[record.info.experiment_id],
        run_view_type="ALL",
    )
    is_met = bool(len(find_runs(query, wanted).names))
    reader = _Reader(query, run_id)
    found = {name: reader.value(field) for name, field in _fields(tree, query)}
    return Verdict(is_met, found)


def _fields(node: Node, query: Query) -> Iterator[tuple[str, Field]]:
    """Yield the fields of a condition by their names, in order."""
    match node:
        case Both(parts) | Either(parts):
            for part in parts:
                yield from _fields(part, query)
        case Not(part):
            yield from _fields(part, query)
        case Comparison() | Membership() | Absence():
            field = node.field
            has_metric = query.folded.has_metric
            if field.whole and not has_metric(field.key) and has_metric(field.whole):
                field = Field(field.entity, field.whole)
            last = "" if field.statistic == "last" else f".{field.statistic}"
            yield f"{field.entity}s.{field.key}{last}", field


class _Reader:
    """Reads what one run has."""

    def __init__(self, query: Query, run_id: str) -> None:
        self._query, self._run_id = query, run_id
        self._read: dict[str, list[dict[str, Any]]] = {}

    def value(self, field: Field) -> Any:  # noqa: ANN401 - as the field is
        """Return a value as JSON can hold it; None where there is none."""
        if field.entity == "dataset":
            rows = self._rows("inputs", _INPUTS)
            return [row.get(field.key.lower()) for row in rows] or None
        if field.entity == "metric":
            rows = self._rows("metric_summary", _SUMMARY)
            found = [row[field.statistic] for row in rows if row["key"] == field.key]
            return _plain(found[0]) if found else None
        (row,) = self._rows("runs", _PLACE)
        if field.entity == "attribute":
            return _plain(row.get(field.key.lower().replace(" ", "_")))
        return dict(row[f"{field.entity}s"] or {}).get(field.key)

    def _rows(self, view: str, statement: str) -> list[dict[str, Any]]:
        if view not in self._read:
            found = self._query.read(statement, {"run_id": self._run_id}, needs=(view,))
            self._read[view] = to_rows(found)
        return self._read[view]


def _plain(value: Any) -> Any:  # noqa: ANN401 - as it is
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)
