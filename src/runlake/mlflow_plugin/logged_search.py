"""Which logged models match, and in which order, as MLflow's own store has it.

MLflow's parser for these filters needs SQLAlchemy, which a client without a server has not.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import sqlparse
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchUtils
from sqlparse.sql import Comparison as Compared
from sqlparse.sql import Parenthesis

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlflow.entities import LoggedModel, Metric

_KINDS: Final = ("attributes", "metrics", "params", "tags")
_IDENTIFIER: Final = re.compile(r"([a-z]+)\.(.+)", re.DOTALL)
_NUMERIC: Final = ("<", "<=", ">", ">=", "=", "!=")
_TEXT: Final = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN")
_ALIASES: Final = {
    "creation_time": "creation_timestamp",
    "creation_timestamp_ms": "creation_timestamp",
    "last_updated_timestamp_ms": "last_updated_timestamp",
    "last_updated_time": "last_updated_timestamp",
}
_NUMBERS: Final = frozenset({"creation_timestamp", "last_updated_timestamp"})
_TEXTS: Final = frozenset({"model_id", "name", "model_type", "status", "source_run_id"})
_ATTRIBUTES: Final = frozenset(
    {*_NUMBERS, *_TEXTS, "experiment_id", "artifact_location", "status_message"}
)


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison of a filter.

    Attributes:
        kind: `attributes`, `metrics`, `params` or `tags`.
        key: which.
        op: the comparison, in capitals.
        value: a number, a text, or texts.
    """

    kind: str
    key: str
    op: str
    value: Any


@dataclass(frozen=True, slots=True)
class Order:
    """One key of an order.

    Attributes:
        metric: the metric, None for an attribute.
        attribute: the attribute, where it is no metric.
        is_ascending: the least first.
        dataset_name: of a metric, only what was measured on this data set.
        dataset_digest: likewise.
    """

    metric: str | None
    attribute: str
    is_ascending: bool
    dataset_name: str | None = None
    dataset_digest: str | None = None


def parse_filter(filter_string: str | None) -> list[Clause]:
    """Read a filter.

    Args:
        filter_string: comparisons joined by AND; None or empty matches all.

    Returns:
        The comparisons, of which all must hold.

    Raises:
        MlflowException: it is none.
    """
    if not filter_string:
        return []
    parsed = sqlparse.parse(filter_string)
    if len(parsed) != 1:
        message = f"Invalid filter string: {filter_string!r}. Expected a single SQL expression."
        raise MlflowException.invalid_parameter_value(message)
    clauses = []
    for token in _joined(parsed[0].tokens):
        if isinstance(token, str):
            clauses.append(_clause(token))
        elif token.value.strip().upper() not in {"AND", ""}:
            message = (
                f"Invalid filter string: {filter_string!r}. Expected a list of comparisons "
                "separated by 'AND' (e.g. 'metrics.loss > 0.1 AND params.lr = 0.01')."
            )
            raise MlflowException.invalid_parameter_value(message)
    return clauses


def parse_order(order_by: Sequence[dict[str, Any]] | None) -> list[Order]:
    """Read an order; behind what is asked come the newest models first, then their ids.

    Args:
        order_by: MLflow's, each with a `field_name`.

    Returns:
        The keys, the first counts most.

    Raises:
        MlflowException: there is no such field.
    """
    found = [_order(each) for each in order_by or ()]
    known = {order.attribute for order in found}
    if "creation_timestamp" not in known:
        found.append(Order(None, "creation_timestamp", is_ascending=False))
    if "model_id" not in known:
        found.append(Order(None, "model_id", is_ascending=True))
    return found


def needs_metrics(
    clauses: Iterable[Clause], orders: Iterable[Order], datasets: Sequence[Any] | None
) -> bool:
    """Tell whether metrics must be known to find the models.

    Args:
        clauses: of the filter.
        orders: of the order.
        datasets: that models must have been measured on.
    """
    return (
        bool(datasets)
        or any(clause.kind == "metrics" for clause in clauses)
        or any(order.metric is not None for order in orders)
    )


def matches(
    model: LoggedModel, clauses: Sequence[Clause], datasets: Sequence[dict[str, Any]] | None
) -> bool:
    """Tell whether a model matches.

    Args:
        model: with its metrics, where these are asked for.
        clauses: of the filter.
        datasets: that it must have been measured on, each with a name and maybe a digest.
    """
    metrics = [
        metric
        for metric in model.metrics or ()
        if not datasets or any(_is_on(metric, each) for each in datasets)
    ]
    has_metric_clause = False
    for clause in clauses:
        compare = SearchUtils.get_comparison_func(clause.op)
        if clause.kind == "metrics":
            has_metric_clause = True
            values: list[Any] = [each.value for each in metrics if each.key == clause.key]
        else:
            held = _value(model, clause)
            values = [] if held is None else [held]
        if not any(compare(value, clause.value) for value in values):
            return False
    return bool(metrics) or not datasets or has_metric_clause


def ordered(models: list[LoggedModel], orders: Sequence[Order]) -> list[LoggedModel]:
    """Return models in an order; those that lack a key come last in it, up or down.

    Args:
        models: with their metrics, where these are asked for.
        orders: the first counts most.
    """
    found = list(models)
    for order in reversed(orders):
        keyed = [(_sort_value(model, order), model) for model in found]
        there = [pair for pair in keyed if pair[0] is not None]
        there.sort(key=itemgetter(0), reverse=not order.is_ascending)
        found = [model for _, model in there] + [model for value, model in keyed if value is None]
    return found


def _joined(tokens: list[Any]) -> list[Any]:
    """Return the tokens of a filter, comparisons as texts; `x IN (...)` is three of sqlparse's."""
    found: list[Any] = []
    tokens = [token for token in tokens if not token.is_whitespace]
    at = 0
    while at < len(tokens):
        rest = tokens[at : at + 4]
        words = [str(token).upper() for token in rest]
        listed = [token for token in rest[2:3] if isinstance(token, Parenthesis)]
        if isinstance(rest[0], Compared):
            found.append(str(rest[0]))
            at += 1
        elif listed and words[1] in {"IN", "NOT IN"}:
            found.append(f"{rest[0]} {words[1]} {listed[0]}")
            at += 3
        elif words[1:3] == ["NOT", "IN"] and isinstance(rest[-1], Parenthesis):
            found.append(f"{rest[0]} NOT IN {rest[3]}")
            at += 4
        else:
            found.append(rest[0])
            at += 1
    return found


_PARTS: Final = re.compile(
    r"\s*(?P<left>(?:[a-z]+\.)?(?:`[^`]*`|\"[^\"]*\"|[^\s=<>!]+))\s*"
    r"(?P<op><=|>=|!=|<>|=|<|>|NOT\s+IN|IN|NOT\s+ILIKE|NOT\s+LIKE|ILIKE|LIKE)\s*(?P<right>.+?)\s*",
    re.IGNORECASE | re.DOTALL,
)


def _clause(text: str) -> Clause:
    """Read one comparison."""
    parts = _PARTS.fullmatch(text)
    if parts is None:
        message = f"Invalid comparison: {text}. Expected a comparison with 3 tokens."
        raise MlflowException.invalid_parameter_value(message)
    kind, key = _entity(parts["left"])
    op = " ".join(parts["op"].upper().split())
    is_number = kind == "metrics" or (kind == "attributes" and key in _NUMBERS)
    allowed = _NUMERIC if is_number else _TEXT
    if op not in allowed:
        message = (
            f"Invalid comparison operator for {kind}.{key}: {op!r}. Expected one of {allowed}."
        )
        raise MlflowException.invalid_parameter_value(message)
    value = _literal(parts["right"], is_number=is_number)
    if (kind, key) == ("attributes", "status"):
        value = tuple(map(_status, value)) if isinstance(value, tuple) else _status(value)
    return Clause(kind, key, op, value)


def _entity(text: str) -> tuple[str, str]:
    found = _IDENTIFIER.fullmatch(text)
    if found is None:
        key = text.strip('`"')
        kind = "attributes"
    else:
        kind, key = found[1], found[2].strip('`"')
        if kind not in _KINDS:
            message = f"Invalid entity type: {kind!r}. Expected one of {list(_KINDS)}."
            raise MlflowException.invalid_parameter_value(message)
    if kind == "attributes":
        key = _ALIASES.get(key, key)
        if key not in _ATTRIBUTES:
            message = f"Invalid attribute {key!r}. Expected one of {sorted(_ATTRIBUTES)}."
            raise MlflowException.invalid_parameter_value(message)
    return kind, key


def _literal(text: str, *, is_number: bool) -> Any:  # noqa: ANN401 - as the comparison wants it
    try:
        if is_number:
            return float(text)
        if text.startswith("(") and text.endswith(")"):
            listed = ast.literal_eval(text)
            return (listed,) if isinstance(listed, str) else tuple(listed)
    except (ValueError, SyntaxError) as error:
        message = f"Invalid value {text!r} in the filter string."
        raise MlflowException.invalid_parameter_value(message) from error
    return text[1:-1] if text[:1] in {"'", '"'} and text[-1:] == text[:1] else text


def _status(text: object) -> object:
    """Return the word for a status that is given as the number that MLflow's database has."""
    try:
        return str(LoggedModelStatus.from_int(int(str(text))))
    except (ValueError, MlflowException):
        return text


def _value(model: LoggedModel, clause: Clause) -> Any:  # noqa: ANN401 - number or text
    if clause.kind == "params":
        return model.params.get(clause.key)
    if clause.kind == "tags":
        return model.tags.get(clause.key)
    return _attribute(model, clause.key)


def _attribute(model: LoggedModel, key: str) -> Any:  # noqa: ANN401 - number or text
    if key == "status":
        return str(model.status)
    return getattr(model, key)


def _is_on(metric: Metric, dataset: dict[str, Any]) -> bool:
    digest = dataset.get("dataset_digest")
    return metric.dataset_name == dataset["dataset_name"] and (
        digest is None or metric.dataset_digest == digest
    )


def _order(given: object) -> Order:
    if not isinstance(given, dict):
        message = f"`order_by` must be a list of dictionaries, got {given!r} in it."
        raise MlflowException.invalid_parameter_value(message)
    name = given.get("field_name")
    if not isinstance(name, str):
        message = "`field_name` in the `order_by` clause must be specified."
        raise MlflowException.invalid_parameter_value(message)
    is_ascending = bool(given.get("ascending", True))
    entity, _, key = name.partition(".")
    if key:
        if entity != "metrics":
            message = f"Invalid order by field name: {name}. Only metrics are supported."
            raise MlflowException.invalid_parameter_value(message)
        return Order(key, "", is_ascending, given.get("dataset_name"), given.get("dataset_digest"))
    attribute = _ALIASES.get(name.strip(), name.strip())
    if attribute not in _ATTRIBUTES:
        raise MlflowException.invalid_parameter_value(f"Invalid order by field name: {name}")
    return Order(None, attribute, is_ascending)


def _sort_value(model: LoggedModel, order: Order) -> Any:  # noqa: ANN401 - number or text
    if order.metric is None:
        return _attribute(model, order.attribute)
    measured = [
        metric
        for metric in model.metrics or ()
        if metric.key == order.metric
        and (not order.dataset_name or metric.dataset_name == order.dataset_name)
        and (not order.dataset_digest or metric.dataset_digest == order.dataset_digest)
    ]
    # Of equal points MLflow takes the one of the least run.
    measured.sort(key=lambda metric: metric.run_id or "")
    latest = max(measured, key=lambda metric: (metric.timestamp, metric.step), default=None)
    value = None if latest is None else latest.value
    return None if value is None or math.isnan(value) else value
