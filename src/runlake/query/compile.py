"""A filter's tree to SQL over the folded tables; every value is bound, none is spliced.

Each key that a filter names becomes a column beside the runs (`runlake.query.database`,
`columns`), null where a run does not have it, and null matches no comparison. What MLflow
leaves open is settled so: a NaN is only unequal; an unquoted number compares a param or tag as
a number, where a text that is no number is only unequal; times compare with milliseconds, or
with an ISO text; params sort as numbers where they are numbers, before all texts. Nulls sort
last both ways, and NaN just before them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from runlake.errors import FilterSyntaxError, InvalidInputError
from runlake.query.database import KeyColumn
from runlake.query.grammar import (
    Absence,
    Both,
    Comparison,
    Either,
    Field,
    Membership,
    Node,
    Not,
    Value,
    parse_filter,
    parse_order,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# Columns of `runs` that can be asked for, and what they hold.
ATTRIBUTES: Final = {
    "run_id": "text",
    "experiment_id": "text",
    "experiment_name": "text",
    "run_name": "text",
    "status": "text",
    "user_id": "text",
    "source_name": "text",
    "parent_run_id": "text",
    "lifecycle_stage": "text",
    "artifact_uri": "text",
    "start_time": "time",
    "end_time": "time",
    "duration": "number",
}
# MLflow's other words, in lower case with "_" for " ".
_ALIASES: Final = {"created": "start_time", "user": "user_id", "source": "source_name"}
# What MLflow keeps in tags and a run here says by itself.
_TAG_ATTRIBUTES: Final = {
    "mlflow.runName": "run_name",
    "mlflow.user": "user_id",
    "mlflow.source.name": "source_name",
    "mlflow.parentRunId": "parent_run_id",
}
_TEXT_OPERATORS: Final = frozenset({"LIKE", "ILIKE", "NOT LIKE", "NOT ILIKE"})
_NAN_GUARDED: Final = frozenset({">", ">="})


@dataclass(frozen=True, slots=True)
class Compiled:
    """The pieces of a search.

    Attributes:
        columns: the keys that the pieces name, as `f0`, `f1`, ... in this order: entity, key
            and statistic.
        where: a condition over `runs AS r` and these.
        order_by: the keys of the order, complete: no two runs tie.
        params: values by name.
    """

    columns: tuple[KeyColumn, ...]
    where: str
    order_by: str
    params: dict[str, Any]


@dataclass(slots=True)
class _Compiler:
    """Collects columns and values while it walks the tree of `text`."""

    text: str
    columns: list[KeyColumn] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)

    def bind(self, value: object) -> str:
        name = f"v{len(self.params)}"
        self.params[name] = value
        return f"${name}"

    def alias(self, wanted: KeyColumn) -> str:
        """Return the name under which one key's column stands beside the runs."""
        if wanted not in self.columns:
            self.columns.append(wanted)
        return f"f{self.columns.index(wanted)}"

    def node(self, node: Node) -> str:
        match node:
            case Both(parts):
                return " AND ".join(f"({self.node(part)})" for part in parts) or "true"
            case Either(parts):
                return " OR ".join(f"({self.node(part)})" for part in parts)
            case Not(part):
                return f"NOT coalesce({self.node(part)}, false)"
            case Absence(wanted, is_negated):
                return f"{self.column(wanted)[0]} IS {'NOT ' if is_negated else ''}NULL"
            case Membership(wanted, values, is_negated):
                operator, glue = ("!=", " AND ") if is_negated else ("=", " OR ")
                tests = [self.comparison(Comparison(wanted, operator, each)) for each in values]
                return glue.join(f"({test})" for test in tests)
            case Comparison():
                return self.comparison(node)

    def column(self, wanted: Field) -> tuple[str, str]:
        """Return a field's SQL, and what it holds: number, text, time, param or tag."""
        if wanted.entity == "attribute":
            name = wanted.key.lower().replace(" ", "_")
            name = _ALIASES.get(name, name)
            if name not in ATTRIBUTES:
                raise FilterSyntaxError.at(
                    self.text,
                    wanted.at,
                    expected=f"metrics.…, params.…, tags.… or one of {', '.join(ATTRIBUTES)}",
                    found=repr(wanted.key),
                )
            return f"r.{name}", ATTRIBUTES[name]
        alias = self.alias(KeyColumn(wanted.entity, wanted.key, wanted.statistic))
        if wanted.entity == "metric":
            return f"{alias}.value", "number"
        if wanted.entity == "tag" and wanted.key in _TAG_ATTRIBUTES:
            return f"coalesce({alias}.value, r.{_TAG_ATTRIBUTES[wanted.key]})", "tag"
        return f"{alias}.value", wanted.entity

    def comparison(self, node: Comparison) -> str:
        wanted, operator, value = node.field, node.operator, node.value
        column, holds = self.column(wanted)
        is_number = isinstance(value.value, float)
        if operator in _TEXT_OPERATORS and (is_number or holds in {"number", "time"}):
            expected = f"{'a text in quotes' if is_number else 'a text field'} with {operator}"
            raise self.misfit(node, expected, at=value.at if is_number else wanted.at)
        if holds == "time":
            return self.time(column, operator, value=value)
        if holds == "number" and not is_number:
            raise self.misfit(node, "a number without quotes", at=value.at)
        if holds == "text" and is_number:
            raise self.misfit(node, "a text in quotes", at=value.at)
        if not is_number:
            return f"{column} {operator} {self.bind(value.value)}"
        if holds in {"param", "tag"}:
            return self.number_in_text(column, operator, value=value, is_param=holds == "param")
        return self.number(column, operator, value=value)

    def number(self, column: str, operator: str, *, value: Value) -> str:
        test = f"{column} {operator} {self.bind(value.value)}"
        # DuckDB holds NaN for the greatest number.
        return f"{test} AND NOT isnan({column})" if operator in _NAN_GUARDED else test

    def number_in_text(self, column: str, operator: str, *, value: Value, is_param: bool) -> str:
        number = f"TRY_CAST({column} AS DOUBLE)"
        if is_param:
            number = column.removesuffix(".value") + ".number"
        if operator == "!=":
            bound = self.bind(value.value)
            return f"{column} IS NOT NULL AND {number} IS DISTINCT FROM {bound}"
        return self.number(number, operator, value=value)

    def time(self, column: str, operator: str, *, value: Value) -> str:
        if isinstance(value.value, float):
            return f"epoch_ms({column}) {operator} {self.bind(value.value)}"
        try:
            moment = datetime.fromisoformat(value.value)
        except ValueError:
            raise FilterSyntaxError.at(
                self.text,
                value.at,
                expected="milliseconds since 1970, or a time like '2026-01-31T12:00:00Z'",
                found=repr(value.value),
            ) from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return f"{column} {operator} {self.bind(moment)}"

    def misfit(self, node: Comparison, expected: str, *, at: int) -> FilterSyntaxError:
        value = node.value.value
        shown = f"{value:g}" if isinstance(value, float) else repr(value)
        found = f"{node.field.entity} {node.field.key!r} with {shown}"
        return FilterSyntaxError.at(self.text, at, expected=expected, found=found)


def compile_search(filter_string: str, order_by: Sequence[str]) -> Compiled:
    """Turn a filter and an order into the pieces of a query over `runs AS r`.

    Args:
        filter_string: see `runlake.query.grammar`; empty matches every run.
        order_by: keys like `metrics.acc DESC`; ties fall to the newest start, then the id.

    Returns:
        The pieces.

    Raises:
        FilterSyntaxError: a text cannot be read, or compares what cannot be compared.
        InvalidInputError: `order_by` names a field twice.
    """
    compiler = _Compiler(filter_string)
    where = compiler.node(parse_filter(filter_string))
    keys: dict[str, str] = {}
    for text in order_by:
        order = parse_order(text)
        compiler.text = text
        column, holds = compiler.column(order.field)
        if column in keys:
            raise InvalidInputError(f"order_by names {text.split()[0]!r} twice.")
        keys[column] = _order_sql(column, holds, "DESC" if order.is_descending else "ASC")
    keys.setdefault("r.start_time", "r.start_time DESC")
    keys.setdefault("r.run_id", "r.run_id")
    return Compiled(
        columns=tuple(compiler.columns),
        where=where,
        order_by=", ".join(keys.values()),
        params=compiler.params,
    )


def _order_sql(column: str, holds: str, way: str) -> str:
    if holds == "number":
        return f"{column} IS NULL, isnan(CAST({column} AS DOUBLE)), {column} {way}"
    if holds == "param":
        number = column.removesuffix(".value") + ".number"
        return f"{column} IS NULL, {number} IS NULL, {number} {way}, {column} {way}"
    return f"{column} IS NULL, {column} {way}"
