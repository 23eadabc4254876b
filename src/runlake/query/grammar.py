"""MLflow's filter language and more: text to tokens to a small frozen tree.

    filter     = [either]
    either     = both {OR both}
    both       = one {AND one}
    one        = NOT one | "(" either ")" | comparison
    comparison = field operator value | field [NOT] IN "(" value {"," value} ")"
               | field IS [NOT] NULL
    operator   = "=" | "==" | "!=" | "<>" | ">" | ">=" | "<" | "<=" | [NOT] LIKE | [NOT] ILIKE
    field      = [entity "."] key ["." statistic]

Entities are `metrics`, `params`, `tags`, `dataset` and `attributes`, with MLflow's other
spellings; without one, a field is an attribute. Words ignore case. A key with other characters
than letters, digits and `_ . / : @ -` stands in backticks or quotes. After a metric's key may
stand `.last`, `.first`, `.min`, `.max`, `.mean` or `.count`, unquoted; a metric whose own name
ends so is quoted. Text stands in single or double quotes, a doubled quote meaning one; a
backslash is a character like any other.
Beyond MLflow are OR, NOT, parentheses, statistics, and any operator on any kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, Literal

from runlake.errors import FilterSyntaxError

if TYPE_CHECKING:
    from collections.abc import Iterable

Entity = Literal["metric", "param", "tag", "dataset", "attribute"]

ENTITIES: Final[dict[str, Entity]] = {
    "metric": "metric",
    "metrics": "metric",
    "param": "param",
    "params": "param",
    "parameter": "param",
    "parameters": "param",
    "tag": "tag",
    "tags": "tag",
    "dataset": "dataset",
    "datasets": "dataset",
    "attr": "attribute",
    "attribute": "attribute",
    "attributes": "attribute",
    "run": "attribute",
}
_ENTITY_NAMES: Final = ("metrics", "params", "tags", "dataset", "attributes")
STATISTICS: Final = ("last", "first", "min", "max", "mean", "count")
COMPARISONS: Final = ("=", "!=", ">", ">=", "<", "<=", "LIKE", "ILIKE", "NOT LIKE", "NOT ILIKE")

_SAME: Final = {"==": "=", "<>": "!="}
_TOKEN: Final = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.]))
  | (?P<word>\w+(?:[./:@-]+\w+)*)
  | (?P<single>'(?:[^']|'')*')
  | (?P<double>"(?:[^"]|"")*")
  | (?P<backtick>`(?:[^`]|``)*`)
  | (?P<operator>==|!=|<>|>=|<=|=|>|<)
  | (?P<mark>[().,])
    """,
    re.VERBOSE,
)
_VALUE: Final = "a number or a text in quotes"
_FIELD: Final = "a field, like metrics.acc, params.lr, tags.team or status"
_OPERATOR: Final = "an operator (= != > >= < <= LIKE ILIKE IN, NOT IN, IS NULL)"
# What people write that other languages have, and what to write here.
_FOREIGN: Final = {
    "&": "Write AND.",
    "|": "Write OR.",
    "!": "Write NOT, or != between a field and a value.",
    "BETWEEN": "Write a >= 1 AND a <= 2.",
    "CONTAINS": "Write LIKE '%part%'.",
    ";": "A filter is one condition; AND and OR join several.",
}
_RESERVED: Final = ("AND", "OR", "NOT", "IN", "IS", "LIKE", "ILIKE", "NULL")
# Deeper filters nobody writes, and Python would run out of stack.
_DEPTH: Final = 100


@dataclass(frozen=True, slots=True)
class Field:
    """What is compared: a metric's statistic, a param, a tag, a data set or an attribute.

    Attributes:
        entity: which of the five.
        key: the name of it.
        statistic: of a metric, one of `STATISTICS`; else `last`.
        at: where it stands in the text, for messages.
        whole: key and statistic as one name, if they were written as one; else None.
    """

    entity: Entity
    key: str
    statistic: str = "last"
    at: int = 0
    whole: str | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """A number, or a text that stood in quotes.

    Attributes:
        value: float or text.
        at: where it stands in the text, for messages.
    """

    value: float | str
    at: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """`field operator value`; a field that the run does not have never matches."""

    field: Field
    operator: str
    value: Value


@dataclass(frozen=True, slots=True)
class Membership:
    """`field IN (values)`, or NOT IN; a field that the run does not have never matches."""

    field: Field
    values: tuple[Value, ...]
    is_negated: bool


@dataclass(frozen=True, slots=True)
class Absence:
    """`field IS NULL`, or IS NOT NULL."""

    field: Field
    is_negated: bool


@dataclass(frozen=True, slots=True)
class Not:
    """Exactly the runs that `part` does not match."""

    part: Node


@dataclass(frozen=True, slots=True)
class Both:
    """All parts match; none at all match everything."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part matches."""

    parts: tuple[Node, ...]


Node = Comparison | Membership | Absence | Not | Both | Either


@dataclass(frozen=True, slots=True)
class Order:
    """One key of an order: the field, and which way."""

    field: Field
    is_descending: bool


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int

    def is_word(self, *words: str) -> bool:
        return self.kind == "word" and self.text.upper() in words


def parse_filter(text: str) -> Node:
    """Read a filter.

    Args:
        text: the filter; empty or blank matches every run.

    Returns:
        The tree.

    Raises:
        FilterSyntaxError: with line, column, and what was expected there.
    """
    parser = _Parser(text)
    if parser.token.kind == "end":
        return Both(())
    tree = parser.either()
    if parser.token.kind != "end":
        raise parser.error("AND, OR or the end of the filter")
    return tree


def parse_order(text: str) -> Order:
    """Read one key of an order: a field, then ASC, DESC or nothing.

    Raises:
        FilterSyntaxError: with line, column, and what was expected there.
    """
    parser = _Parser(text)
    field = parser.field()
    is_descending = parser.token.is_word("DESC")
    if parser.token.is_word("ASC", "DESC"):
        parser.step()
    if parser.token.kind != "end":
        raise parser.error("ASC, DESC or the end")
    return Order(field, is_descending)


def parse_field(text: str) -> Field:
    """Read one field alone, like `params.lr`.

    Raises:
        FilterSyntaxError: with line, column, and what was expected there.
    """
    parser = _Parser(text)
    field = parser.field()
    if parser.token.kind != "end":
        raise parser.error("the end of the field")
    return field


class _Parser:
    """Recursive descent; one token is looked at, none is ever given back."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    @property
    def token(self) -> _Token:
        return self._tokens[self._next]

    def step(self) -> _Token:
        token = self.token
        self._next += 1
        return token

    def error(self, expected: str, *, hint: str | None = None) -> FilterSyntaxError:
        token = self.token
        found = "the end" if token.kind == "end" else repr(token.text)
        hint = _FOREIGN.get(token.text.upper(), "") if hint is None else hint
        return FilterSyntaxError.at(self.text, token.at, expected=expected, found=found, hint=hint)

    def either(self) -> Node:
        parts = [self.both()]
        while self.token.is_word("OR"):
            self.step()
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def both(self) -> Node:
        parts = [self.one()]
        while self.token.is_word("AND"):
            self.step()
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def one(self) -> Node:
        self._depth += 1
        if self._depth > _DEPTH:
            raise self.error(f"at most {_DEPTH} levels of NOT and parentheses")
        found = self.nested()
        self._depth -= 1
        return found

    def nested(self) -> Node:
        if self.token.is_word("NOT"):
            self.step()
            return Not(self.one())
        if self.token.text == "(" and self.token.kind == "mark":
            self.step()
            inner = self.either()
            self.mark(")", expected="AND, OR or ')'")
            return inner
        return self.comparison()

    def mark(self, mark: str, *, expected: str | None = None) -> None:
        if self.token.kind != "mark" or self.token.text != mark:
            raise self.error(expected or repr(mark))
        self.step()

    def comparison(self) -> Node:
        field = self.field()
        if self.token.is_word("IS"):
            self.step()
            is_negated = self.negation()
            if not self.token.is_word("NULL"):
                raise self.error("NULL" if is_negated else "NULL or NOT NULL")
            self.step()
            return Absence(field, is_negated)
        if self.token.kind == "operator":
            operator = self.step().text
            return Comparison(field, _SAME.get(operator, operator), self.value())
        is_negated = self.negation()
        if self.token.is_word("IN"):
            self.step()
            return Membership(field, self.values(), is_negated)
        if self.token.is_word("LIKE", "ILIKE"):
            operator = ("NOT " if is_negated else "") + self.step().text.upper()
            return Comparison(field, operator, self.value())
        raise self.error("LIKE, ILIKE or IN" if is_negated else _OPERATOR)

    def negation(self) -> bool:
        if not self.token.is_word("NOT"):
            return False
        self.step()
        return True

    def values(self) -> tuple[Value, ...]:
        self.mark("(")
        values = [self.value()]
        while self.token.kind == "mark" and self.token.text == ",":
            self.step()
            values.append(self.value())
        self.mark(")", expected="',' or ')'")
        return tuple(values)

    def value(self) -> Value:
        token = self.token
        if token.kind == "number":
            return Value(float(self.step().text), token.at)
        if token.kind in {"single", "double"}:
            return Value(_unquoted(self.step()), token.at)
        if token.kind == "word":
            raise self.error(f"{_VALUE} (text needs quotes: '{token.text}')")
        raise self.error(_VALUE)

    def field(self) -> Field:
        """Read `entity.key`, `entity.key.statistic` or an attribute's name."""
        start = self._next
        if self.token.is_word(*_RESERVED):
            raise self.error(_FIELD)
        parts = [self.name(_FIELD)]
        while self.token.kind == "mark" and self.token.text == ".":
            self.step()
            parts.append(self.name("the rest of the name", is_key=True))
        # Of an unquoted word, the first dot ends the entity; later ones belong to the key.
        head, is_quoted = parts[0]
        if not is_quoted and "." in head:
            first, _, rest = head.partition(".")
            parts[:1] = [(first, False), (rest, False)]
        at = self._tokens[start].at
        if len(parts) == 1:
            return Field("attribute", parts[0][0], at=at)
        written = ".".join(text for text, _ in parts[1:])
        entity = ENTITIES.get(parts[0][0].lower())
        if entity is None:
            self._next = start
            raise self.error(
                "metrics, params, tags, dataset or attributes before the first dot",
                hint=near_miss(parts[0][0].lower(), _ENTITY_NAMES, after=f".{written}"),
            )
        if entity != "metric":
            return Field(entity, written, at=at)
        statistic = _take_statistic(parts)
        key = ".".join(text for text, _ in parts[1:])
        is_plain = not any(is_quoted for _, is_quoted in parts[1:])
        return Field(entity, key, statistic, at, written if is_plain and key != written else None)

    def name(self, expected: str, *, is_key: bool = False) -> tuple[str, bool]:
        """Read one part of a name: its text, and whether it stood in quotes."""
        token = self.token
        if token.kind in {"word", "number"}:
            return self.step().text, False
        if token.kind in {"double", "backtick"} or (is_key and token.kind == "single"):
            return _unquoted(self.step()), True
        raise self.error(expected)


def near_miss(name: str, known: Iterable[str], *, before: str = "", after: str = "") -> str:
    """Return a sentence that offers the nearest of the known names, if one is near.

    Args:
        name: what stands there.
        known: what may stand there.
        before: what stands before each of them.
        after: what follows each of them.

    Returns:
        The sentence, or an empty text.
    """
    near = get_close_matches(name, list(known), n=2)
    offered = " or ".join(f"{before}{each}{after}" for each in near)
    return f"Did you mean {offered}?" if near else ""


def _take_statistic(parts: list[tuple[str, bool]]) -> str:
    """Take `.min` and its like off the end of a metric's name, if something is left before."""
    text, is_quoted = parts[-1]
    key, dot, last = text.rpartition(".")
    if (
        is_quoted
        or last.lower() not in STATISTICS
        or not (dot or len(parts) > len(("metrics", "min")))
    ):
        return "last"
    parts[-1:] = [(key, False)] if dot else []
    return last.lower()


def _unquoted(token: _Token) -> str:
    quote = token.text[0]
    return token.text[1:-1].replace(quote * 2, quote)


def _tokens(text: str) -> list[_Token]:
    tokens = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            quote = text[at] in "'\"`"
            raise FilterSyntaxError.at(
                text,
                at,
                expected=f"a closing {text[at]}" if quote else "a field, an operator or a value",
                found="the end" if quote else repr(text[at]),
                hint=_FOREIGN.get(text[at], ""),
            )
        if match.lastgroup not in {None, "space"}:
            tokens.append(_Token(str(match.lastgroup), match.group(), at))
        at = match.end()
    tokens.append(_Token("end", "", len(text)))
    return tokens
