"""A filter's tree to SQL over the folded tables; every value is bound, none is spliced.

Each key that a filter names becomes a column beside the runs (`runlake.query.database`,
`columns`), null where a run does not have it, and null matches no comparison. What MLflow
leaves open is settled so: a NaN is only unequal; an unquoted number compares a param or tag as
a number, where a text that is no number is only unequal; times compare with milliseconds, or
with an ISO text; a run fits what is said of data sets if any of its inputs does. Params sort
as numbers where they are numbers, before all texts; nulls sort last both ways, and NaN just
before them. No two rows tie.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import arguments
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
    near_miss,
    parse_field,
    parse_filter,
    parse_order,
)
from runlake.query.subjects import RUNS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runlake.query.subjects import Holds, Subject

_TEXT_OPERATORS: Final = frozenset({"LIKE", "ILIKE", "NOT LIKE", "NOT ILIKE"})
_NAN_GUARDED: Final = frozenset({">", ">="})
# What MLflow keeps in tags and a run here says by itself.
_TAG_ATTRIBUTES: Final = {
    "mlflow.runName": "run_name",
    "mlflow.user": "user_id",
    "mlflow.source.name": "source_name",
    "mlflow.parentRunId": "parent_run_id",
}
_DATASET_KEYS: Final = ("name", "digest", "context", "source", "source_type")
# More keys than anybody reads would nest deeper than DuckDB goes.
_ORDER_KEYS: Final = 50
_NEVER_NULL: Final = frozenset({"r.run_id", "r.start_time", "r.experiment_id"})


class Term(NamedTuple):
    """One key of a complete order.

    Attributes:
        sql: what is compared.
        is_descending: the greatest comes first.
        is_time: it is a time; else a number, a text or a truth value.
    """

    sql: str
    is_descending: bool
    is_time: bool = False


@dataclass(frozen=True, slots=True)
class Compiled:
    """The pieces of a search.

    Attributes:
        columns: the keys that the pieces name, as `f0`, `f1`, ... in this order: entity, key
            and statistic.
        needs: the views whose tables the pieces name, beside that of `r`.
        where: a condition over the table searched, `r`, and the columns.
        terms: the order, complete: no two rows tie.
        fields: the title and the SQL of each field that was asked for by itself.
        params: values by name.
    """

    columns: tuple[KeyColumn, ...]
    needs: tuple[str, ...]
    where: str
    terms: tuple[Term, ...]
    fields: tuple[tuple[str, str], ...]
    params: dict[str, Any]

    @property
    def order_by(self) -> str:
        """The terms as SQL."""
        return ", ".join(
            f"{term.sql} {'DESC' if term.is_descending else 'ASC'}" for term in self.terms
        )


def compile_search(
    filter_string: str | None,
    order_by: Sequence[str] = (),
    *,
    fields: Sequence[str] = (),
    subject: Subject = RUNS,
    has_metric: Callable[[str], bool] = lambda _: True,
    artifact_uris: Mapping[str, tuple[str, str]] | None = None,
) -> Compiled:
    """Turn a filter and an order into the pieces of a query over runs or experiments as `r`.

    Args:
        filter_string: see `runlake.query.grammar`; empty matches everything.
        order_by: keys like `metrics.acc DESC`; ties of runs fall to the newest start, then the
            id; without any the newest come first.
        fields: fields to be read for themselves, like `params.lr`.
        subject: one of `runlake.query.subjects`.
        has_metric: tells whether any run has a metric of this name. `metrics.loss.min` is the
            least `loss`; but where there is only a metric `loss.min`, it is that.
        artifact_uris: by experiment, what stands before and behind a run's id in its
            `artifact_uri`; None: as in the lake's own views.

    Returns:
        The pieces.

    Raises:
        FilterSyntaxError: a text cannot be read, or compares what cannot be compared.
        InvalidInputError: `order_by` names a field twice, or too many.
    """
    if len(order_by) > _ORDER_KEYS:
        raise InvalidInputError(f"order_by has {len(order_by)} keys, at most {_ORDER_KEYS} go.")
    text = arguments.text_or_empty("filter_string", filter_string)
    compiler = _Compiler(text, subject, has_metric, artifact_uris)
    where = compiler.node(parse_filter(text))
    terms: dict[tuple[str, str], list[Term]] = {}
    for key in order_by or subject.default:
        name, key_terms = compiler.order(key)
        if name in terms:
            message = f"`order_by` contains duplicate fields: {key!r} names one of them twice."
            raise InvalidInputError(message)
        terms[name] = key_terms
    for key in subject.ties:
        name, key_terms = compiler.order(key)
        terms.setdefault(name, key_terms)
    shown = tuple(compiler.shown(key) for key in fields)
    return Compiled(
        columns=tuple(compiler.columns),
        needs=tuple(compiler.needs),
        where=where,
        terms=tuple(term for key_terms in terms.values() for term in key_terms),
        fields=shown,
        params=compiler.params,
    )


@dataclass(slots=True)
class _Compiler:
    """Collects columns and values while it walks the tree of `text`."""

    text: str
    subject: Subject
    has_metric: Callable[[str], bool]
    artifact_uris: Mapping[str, tuple[str, str]] | None = None
    columns: list[KeyColumn] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
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
            case Absence() | Membership() | Comparison():
                self.check_kind(node.field)
                if isinstance(node, Absence):
                    self.check_absence(node.field)
                if node.field.entity == "dataset":
                    return self.dataset(node)
                if self.is_listed(node.field):
                    return self.listed(node)
                column, holds = self.column(node.field)
                return self.test(node, column, holds)

    def check_kind(self, wanted: Field) -> None:
        """Refuse a kind of field that what is searched does not have."""
        kinds = self.subject.kinds
        if wanted.entity != "attribute" and wanted.entity not in kinds:
            raise self.unknown(wanted, f"{wanted.entity} {wanted.key!r}")

    def check_absence(self, wanted: Field) -> None:
        """Refuse IS NULL of a field that must not be compared so."""
        kinds = self.subject.absences
        if kinds is not None and wanted.entity not in kinds:
            expected = f"IS NULL of a {' or '.join(sorted(kinds))}"
            found = f"that of the {wanted.entity} {wanted.key!r}"
            raise FilterSyntaxError.at(self.text, wanted.at, expected=expected, found=found)

    def column(self, wanted: Field) -> tuple[str, Holds]:
        """Return a field's SQL, and what it holds."""
        if wanted.entity == "attribute":
            name = self.attribute(wanted)
            is_placed = name == "artifact_uri" and self.artifact_uris is not None
            return self.place() if is_placed else f"r.{name}", self.subject.attributes[name]
        if "metric" not in self.subject.kinds:
            return f"r.tags[{self.bind(wanted.key)}]", "tag"
        if wanted.entity == "metric":
            return f"{self.alias(self.metric(wanted))}.value", "number"
        column = f"{self.alias(KeyColumn(wanted.entity, wanted.key, 'last'))}.value"
        if wanted.entity == "param":
            return column, "param"
        if wanted.key in _TAG_ATTRIBUTES:
            column = f"coalesce({column}, r.{_TAG_ATTRIBUTES[wanted.key]})"
        return column, "tag"

    def place(self) -> str:
        """Return where a run's artifacts lie, as the caller has it, as SQL."""
        uris = self.artifact_uris or {}
        homes = f"CAST({self.bind(list(uris))} AS VARCHAR[])"
        heads, tails = (
            f"(CAST({self.bind([uri[side] for uri in uris.values()])} AS VARCHAR[]))"
            f"[list_position({homes}, r.experiment_id)]"
            for side in (0, 1)
        )
        return f"({heads} || r.run_id || {tails})"

    def attribute(self, wanted: Field) -> str:
        """Return the column that an attribute's name means."""
        name = wanted.key.lower().replace(" ", "_")
        name = self.subject.aliases.get(name, name)
        if name not in self.subject.attributes:
            raise self.unknown(wanted, repr(wanted.key))
        return name

    def unknown(self, wanted: Field, found: str) -> FilterSyntaxError:
        kinds, attributes = self.subject.kinds.values(), self.subject.attributes
        hint = ""
        if wanted.entity == "attribute":
            known = [*attributes, *self.subject.aliases, *self.subject.lists]
            hint = near_miss(wanted.key.lower().replace(" ", "_"), known)
        if not hint and len(kinds) > 1:
            hint = f"A key needs its kind before it, as in metrics.{wanted.key}."
        expected = f"{', '.join(f'{kind}.…' for kind in kinds)} or one of {', '.join(attributes)}"
        return FilterSyntaxError.at(self.text, wanted.at, expected=expected, found=found, hint=hint)

    def metric(self, wanted: Field) -> KeyColumn:
        """Return the column of a metric; a statistic that was none is part of its name."""
        if wanted.whole and not self.has_metric(wanted.key) and self.has_metric(wanted.whole):
            return KeyColumn("metric", wanted.whole, "last")
        return KeyColumn("metric", wanted.key, wanted.statistic)

    def dataset(self, node: Comparison | Membership | Absence) -> str:
        """Return a condition that any input of a run fulfils."""
        key = node.field.key.lower()
        if key not in _DATASET_KEYS:
            raise FilterSyntaxError.at(
                self.text,
                node.field.at,
                expected=f"one of {', '.join(f'dataset.{each}' for each in _DATASET_KEYS)}",
                found=repr(f"dataset.{node.field.key}"),
                hint=near_miss(key, _DATASET_KEYS, before="dataset."),
            )
        if "input_rows" not in self.needs:
            self.needs.append("input_rows")
        if isinstance(node, Absence):
            operator, test = ("IN" if node.is_negated else "NOT IN"), f"i.{key} IS NOT NULL"
        else:
            operator, test = "IN", self.test(node, f"i.{key}", "text")
        return f"r.rowid {operator} (SELECT i.place FROM inside.input_rows AS i WHERE {test})"

    def is_listed(self, wanted: Field) -> bool:
        """Tell whether a field is one of which there may be several."""
        return wanted.entity == "attribute" and wanted.key.lower() in self.subject.lists

    def listed(self, node: Comparison | Membership | Absence) -> str:
        """Return a condition that any item of a list fulfils."""
        items = self.subject.lists[node.field.key.lower()]
        if isinstance(node, Absence):
            return f"len({items}) {'>' if node.is_negated else '='} 0"
        test = self.test(node, "i.item", "text")
        return f"EXISTS (SELECT 1 FROM (SELECT unnest({items}) AS item) AS i WHERE {test})"

    def test(self, node: Comparison | Membership | Absence, column: str, holds: Holds) -> str:
        match node:
            case Absence(is_negated=is_negated):
                return f"{column} IS {'NOT ' if is_negated else ''}NULL"
            case Comparison():
                return self.comparison(node, column, holds)
            case Membership():
                return self.membership(node, column, holds)

    def comparison(self, node: Comparison, column: str, holds: Holds) -> str:
        operator, value = node.operator, node.value
        is_number = isinstance(value.value, float)
        if operator in _TEXT_OPERATORS and (is_number or holds in {"number", "time"}):
            expected = f"{'a text in quotes' if is_number else 'a text field'} with {operator}"
            raise self.misfit(node, expected, at=value.at if is_number else node.field.at)
        if holds == "time":
            return self.time(column, operator, value=value)
        if holds == "number" and not is_number:
            raise self.misfit(node, "a number without quotes", at=value.at)
        if holds in {"text", "id"} and is_number:
            raise self.misfit(node, "a text in quotes", at=value.at)
        if not is_number:
            return f"{column} {operator} {self.bind(value.value)}"
        if holds in {"param", "tag"}:
            return self.number_in_text(column, operator, value=value, holds=holds)
        return self.number(column, operator, value=value)

    def membership(self, node: Membership, column: str, holds: Holds) -> str:
        texts = [value.value for value in node.values if isinstance(value.value, str)]
        if len(texts) == len(node.values) and holds in {"text", "id", "param", "tag"}:
            bound = f"SELECT unnest(CAST({self.bind(texts)} AS VARCHAR[]))"
            return f"{column} {'NOT IN' if node.is_negated else 'IN'} ({bound})"
        operator, glue = ("!=", " AND ") if node.is_negated else ("=", " OR ")
        tests = [Comparison(node.field, operator, value) for value in node.values]
        return glue.join(f"({self.comparison(test, column, holds)})" for test in tests)

    def number(self, column: str, operator: str, *, value: Value) -> str:
        test = f"{column} {operator} {self.bind(value.value)}"
        # DuckDB holds NaN for the greatest number.
        return f"{test} AND NOT isnan({column})" if operator in _NAN_GUARDED else test

    def number_in_text(self, column: str, operator: str, *, value: Value, holds: Holds) -> str:
        number = _number_beside(column) if holds == "param" else f"TRY_CAST({column} AS DOUBLE)"
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

    def order(self, text: str) -> tuple[tuple[str, str], list[Term]]:
        """Return what one key of an order names, and its terms."""
        order = parse_order(text)
        self.text = text
        wanted = order.field
        self.check_single(wanted)
        column, holds = self.column(wanted)
        name = wanted.key
        if wanted.entity == "attribute":
            name = self.attribute(wanted)
        elif wanted.entity == "metric":
            name = repr(self.metric(wanted))
        return (wanted.entity, name), _terms(column, holds, is_descending=order.is_descending)

    def shown(self, text: str) -> tuple[str, str]:
        """Return the title of one field, as a frame of runs has it, and its SQL."""
        wanted = parse_field(text)
        self.text = text
        self.check_single(wanted)
        column, _ = self.column(wanted)
        if wanted.entity == "attribute":
            return self.attribute(wanted), column
        title = f"{self.subject.kinds[wanted.entity]}.{wanted.key}"
        if wanted.entity == "metric":
            found = self.metric(wanted)
            statistic = "" if found.statistic == "last" else f".{found.statistic}"
            title = f"metrics.{found.key}{statistic}"
        return title, column

    def check_single(self, wanted: Field) -> None:
        """Refuse a field of which what is searched has several, or none."""
        self.check_kind(wanted)
        if wanted.entity == "dataset" or self.is_listed(wanted):
            kinds = (kind for kind in self.subject.kinds.values() if kind != "dataset")
            several = (
                f"{wanted.key}, of which there may be several"
                if self.is_listed(wanted)
                else f"dataset.{wanted.key}, of which a run may have several"
            )
            raise FilterSyntaxError.at(
                self.text,
                wanted.at,
                expected=f"{', '.join(f'{kind}.…' for kind in kinds)} or an attribute",
                found=several,
            )


def _terms(column: str, holds: Holds, *, is_descending: bool) -> list[Term]:
    """Return the terms of one key: nulls last both ways, NaN before them, numbers first."""
    terms = [] if column in _NEVER_NULL else [Term(f"{column} IS NULL", is_descending=False)]
    if holds == "number":
        # A statistic or a duration may be a whole number, which cannot be NaN.
        terms.append(Term(f"isnan(CAST({column} AS DOUBLE))", is_descending=False))
    elif holds in {"param", "id"}:
        number = f"TRY_CAST({column} AS BIGINT)"
        if holds == "param":
            number = _number_beside(column)
            number = f"CASE WHEN NOT isnan({number}) THEN {number} END"
        terms.append(Term(f"{number} IS NULL", is_descending=False))
        terms.append(Term(number, is_descending))
    return [*terms, Term(column, is_descending, is_time=holds == "time")]


def _number_beside(column: str) -> str:
    """Return the column that holds a param's value as a number."""
    return column.removesuffix(".value") + ".number"
