"""What a user's SQL may say: one statement that reads the views, and nothing else.

DuckDB's own parser turns the text into a tree, and the tree is walked before anything runs. It
may hold queries over the views, names that it gives itself, and functions of values. So there
is no second reading of SQL that could differ from DuckDB's, and what is not known here is
refused. The connection that then runs it is locked as well (`runlake.query.confine`).
"""

from __future__ import annotations

import ctypes
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.query.confine import UNHURRIED
from runlake.query.views import VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import duckdb

    from runlake.query.confine import Watch
else:
    duckdb = lazy("duckdb")

# DuckDB reads brackets by going back and forth: a thousand cost it seconds, and much more text
# than this its stack.
MAX_CHARACTERS: Final = 250_000
MAX_DEPTH: Final = 200
_NAME_PARTS: Final = 16
_SHOWN_BEFORE: Final = 60

# Kinds of queries; `DELETE_QUERY_NODE` and its like, which may hide in a WITH, are not here.
_QUERIES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
# Kinds of what stands behind FROM, and where in the tree it stands.
_SOURCES: Final = frozenset(
    {
        "BASE_TABLE",
        "EMPTY",
        "EXPRESSION_LIST",
        "JOIN",
        "PIVOT",
        "SHOW_REF",
        "SUBQUERY",
        "TABLE_FUNCTION",
    }
)
_SOURCE_PLACES: Final = ("from_table", "left", "right", "source", "query")
# The other table functions read files, settings or the catalog, run a text as SQL, or change
# something.
_TABLE_FUNCTIONS: Final = frozenset(
    {
        "generate_series",
        "json_each",
        "json_tree",
        "pg_timezone_names",
        "range",
        "repeat",
        "repeat_row",
        "unnest",
    }
)
# Functions that change something, wait, tell of the program, or read a text or bytes as a plan.
_REFUSED: Final = frozenset(
    {
        "combine",
        "currval",
        "current_setting",
        "finalize",
        "format_type",
        "get_block_size",
        "getenv",
        "getvariable",
        "in_search_path",
        "invoke",
        "json_deserialize_sql",
        "json_execute_serialized_sql",
        "json_serialize_plan",
        "json_serialize_sql",
        "nextval",
        "setseed",
        "setval",
        "sleep_ms",
        "to_aggregate_state",
        "write_log",
    }
)
_REFUSED_PREFIXES: Final = ("__internal", "pg_")
_HARMLESS: Final = frozenset({"pg_size_pretty", "pg_typeof"})
_SHOWN: Final = frozenset({"tables", "__show_tables_expanded"})
_CATALOG: Final = ("information_schema",)
_CATALOG_TABLES: Final = frozenset({"columns", "tables"})
_OURS: Final = (["main"], ["memory", "main"])

_INSTEAD: Final = "lake.connect() gives a DuckDB connection of your own, which may do anything."
_READING: Final = "SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN"
_SERIALIZE: Final = (
    "SELECT json_serialize_sql($1, skip_default := true, skip_null := true, skip_empty := true)"
)
_REMEMBERED: Final = 512
_REMEMBERED_CHARACTERS: Final = 10_000
# Possessive: a text of nothing but comments is read once, not in every way that it could be.
_BLANK = r"(?>\s+|--[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/)*+"
_EXPLAIN: Final = re.compile(
    rf"{_BLANK}explain\b{_BLANK}(?P<how>analyze\b|\(\s*(?:analyze|format)\b[\w\s,]*\))?",
    re.IGNORECASE,
)
_WORD: Final = re.compile(rf"{_BLANK}(\w+)")

_known: dict[str, Statement] = {}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement that only reads.

    Attributes:
        text: the SQL.
        views: the public views that it needs.
        params: the names of its placeholders; those by place are called 1, 2, ...
    """

    text: str
    views: frozenset[str]
    params: frozenset[str]

    def bind(
        self, params: Sequence[Any] | Mapping[str, Any] | None
    ) -> list[Any] | dict[str, Any] | None:
        """Return the values for the placeholders, as DuckDB takes them.

        Args:
            params: values for `?` (in order) or `$name` (by name).

        Returns:
            The same; NumPy scalars, sets, series and paths as Python's own. None without any.

        Raises:
            InvalidInputError: a value is missing, too many, or of a type that SQL lacks.
        """
        if params is None or isinstance(params, Mapping):
            given: list[Any] | dict[str, Any] = {
                str(name): _plain(value) for name, value in (params or {}).items()
            }
            names = set(given)
        else:
            if isinstance(params, (str, bytes, set, frozenset)) or not hasattr(params, "__iter__"):
                raise InvalidInputError(
                    f"params is {params!r:.60}; give a list for ?, or a dict for $name."
                )
            given = [_plain(value) for value in params]
            names = {str(place) for place in range(1, len(given) + 1)}
        missing, surplus = sorted(self.params - names), sorted(names - self.params)
        if missing:
            raise InvalidInputError(f"params gives no value for {_placeholders(missing)}.")
        if surplus:
            asked = f"has {_placeholders(sorted(self.params))}" if self.params else "has none"
            raise InvalidInputError(
                f"params gives {_placeholders(surplus)}, and the query {asked}. Placeholders are "
                "?, $1 or $name."
            )
        return given or None


def read_statement(query: str, watch: Watch = UNHURRIED) -> Statement:
    """Read a text as one statement that reads the views.

    Args:
        query: the SQL.
        watch: stops DuckDB's parser when the time is over.

    Returns:
        What it says.

    Raises:
        InvalidInputError: it is no SQL, several statements, or would do more than read.
        LimitExceededError: reading the text took longer than `watch` allows.
    """
    if not isinstance(query, str):
        raise InvalidInputError(f"the query is {query!r:.60}; it must be a text.")
    known = _known.get(query)
    if known is None:
        known = _read(query, watch)
        if len(_known) >= _REMEMBERED:
            _known.clear()
        if len(query) <= _REMEMBERED_CHARACTERS:
            _known[query] = known
    return known


def _read(query: str, watch: Watch) -> Statement:
    _refuse_unreadable(query)
    explained = _EXPLAIN.match(query)
    # Of EXPLAIN the rest is read, and put together anew: what runs is what was read.
    text = query if explained is None else query[explained.end() :]
    tree = _parse(text, watch)
    if tree.get("error"):
        raise _misread(text, tree)
    statements = tree["statements"]
    if len(statements) != 1:
        what = f"{len(statements)} statements" if statements else "no statement"
        raise _not_reading(what)
    views, params = _walk(statements[0])
    if explained is not None:
        text = f"EXPLAIN {explained['how'] or ''} {text}"
    return Statement(text, frozenset(views), frozenset(params))


def _refuse_unreadable(query: str) -> None:
    """Refuse texts that DuckDB's parser would choke on."""
    if "\0" in query:
        raise InvalidInputError("the query holds a null character.")
    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"the query is no Unicode text: {error}.") from None
    if len(query) > MAX_CHARACTERS:
        raise InvalidInputError(
            f"the query has {len(query):,} characters; {MAX_CHARACTERS:,} is the most. Bind long "
            "lists: … IN (SELECT unnest($ids)), with params={'ids': […]}."
        )
    depth = 0
    for bracket in re.findall(r"[()\[\]{}]", query):
        depth += 1 if bracket in "([{" else -1
        if depth > MAX_DEPTH:
            raise InvalidInputError(
                f"the query opens more than {MAX_DEPTH} brackets one inside the other. WITH gives "
                "names to parts; params binds texts."
            )


def _parse(text: str, watch: Watch) -> dict[str, Any]:
    """Return DuckDB's tree of a text; it also says what is wrong with the text."""
    cursor = _parser().cursor()
    try:
        with watch.over(cursor):
            ((found,),) = cursor.execute(_SERIALIZE, [text]).fetchall()
    finally:
        cursor.close()
    try:
        tree: dict[str, Any] = json.loads(found)
    except RecursionError:
        message = "the query holds too many queries one inside the other; WITH gives them names."
        raise InvalidInputError(message) from None
    return tree


def _walk(tree: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the views and the placeholders of a tree, and refuse what does more than read."""
    nodes = list(_nodes(tree))
    own = {
        str(entry["key"]).lower()
        for node in nodes
        for entry in (node.get("cte_map") or {}).get("map", ())
    }
    views: set[str] = set()
    params: set[str] = set()
    for node in nodes:
        _check_kind(node)
        match node.get("type"):
            case "BASE_TABLE":
                views |= _views_of(node, own)
            case "SHOW_REF":
                views |= _views_shown(node)
            case "TABLE_FUNCTION":
                _check_table_function(str(node["function"]["function_name"]))
            case "VALUE_PARAMETER":
                params.add(str(node["identifier"]))
        if node.get("class") in {"FUNCTION", "WINDOW"}:
            _check_function(str(node.get("function_name", "")))
        if len(node.get("column_names", ())) > _NAME_PARTS:
            raise InvalidInputError(f"a name has more than {_NAME_PARTS} parts.")
    return views, params


def _nodes(tree: object) -> Iterator[dict[str, Any]]:
    """Give every object of a tree."""
    pending = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def _check_kind(node: dict[str, Any]) -> None:
    """Refuse kinds of queries and of sources that are not known to read only."""
    kind = node.get("type")
    if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _QUERIES:
        raise _not_reading(kind.partition("_")[0])
    for place in _SOURCE_PLACES:
        below = node.get(place)
        # What has a class is an expression: a comparison also has a left and a right side.
        if isinstance(below, dict) and "class" not in below and isinstance(below.get("type"), str):
            kind = below["type"]
            if kind not in _SOURCES and kind not in _QUERIES and not kind.endswith("_NODE"):
                raise _not_reading(kind)


def _views_of(node: dict[str, Any], own: set[str]) -> set[str]:
    """Return what a table's name needs."""
    *above, name = [str(part) for part in node["qualified_name"]["path"]]
    lowered, schemas = name.lower(), [part.lower() for part in above]
    if not schemas and lowered in own:
        # It may also be the view, inside the query that takes over its name.
        return {lowered} & VIEWS.keys()
    if lowered in VIEWS and (not schemas or schemas in _OURS):
        return {lowered}
    if tuple(schemas[-1:]) == _CATALOG and lowered in _CATALOG_TABLES:
        return set(VIEWS)
    raise _no_view(".".join([*above, name]))


def _views_shown(node: dict[str, Any]) -> set[str]:
    """Return what SHOW and DESCRIBE without a query need."""
    if "query" in node:
        return set()
    name = str(node.get("table_name", "")).strip('"').lower()
    if name in _SHOWN or not name:
        return set(VIEWS)
    if name in VIEWS:
        return {name}
    raise _no_view(name)


def _check_table_function(name: str) -> None:
    if name.lower() not in _TABLE_FUNCTIONS:
        raise InvalidInputError(
            f"{name}() is out of reach for sql(): it reads the lake and nothing else. Of "
            f"functions that give rows there are {', '.join(sorted(_TABLE_FUNCTIONS))}; "
            f"{_INSTEAD}"
        )


def _check_function(name: str) -> None:
    lowered = name.lower()
    has_prefix = lowered.startswith(_REFUSED_PREFIXES) and lowered not in _HARMLESS
    if lowered in _REFUSED or has_prefix:
        raise InvalidInputError(f"{name}() is out of reach for sql(). {_INSTEAD}")


def _not_reading(what: str) -> InvalidInputError:
    message = f"sql() runs one statement that reads: {_READING}; this is {what}. {_INSTEAD}"
    return InvalidInputError(message)


def _no_view(name: str) -> InvalidInputError:
    near = get_close_matches(name.lower(), VIEWS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InvalidInputError(
        f"there is no view {name!r:.200}.{hint} The views are {', '.join(VIEWS)}; DESCRIBE <view> "
        f"shows columns. {_INSTEAD}"
    )


def _misread(text: str, tree: dict[str, Any]) -> InvalidInputError:
    """Return the error for a text that has no tree."""
    said = str(tree.get("error_message", ""))
    if tree.get("error_type") == "not implemented" and "Only SELECT" in said:
        word = _WORD.match(text)
        what = word[1].upper() if word else "no statement"
        if what in {"PIVOT", "FROM", "SELECT", "WITH"}:
            message = (
                f"sql() runs one statement that reads: {_READING}; this is several, or a PIVOT "
                "that does not say which values become columns: PIVOT … ON key IN ('a', 'b') …"
            )
            return InvalidInputError(message)
        return _not_reading(what)
    place = tree.get("position")
    if not str(place).isdecimal():
        return InvalidInputError(f"DuckDB cannot read the query: {said}")
    # DuckDB counts bytes.
    before = text.encode()[: int(str(place))].decode(errors="ignore")
    line, start = before.count("\n") + 1, before.rfind("\n") + 1
    column = len(before) - start
    start += max(0, column - _SHOWN_BEFORE)
    shown = text[start : start + 2 * _SHOWN_BEFORE].partition("\n")[0]
    return InvalidInputError(
        f"DuckDB cannot read the query: line {line}, column {column + 1}: {said}\n"
        f"    {shown}\n    {' ' * (len(before) - start)}^"
    )


def _placeholders(names: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in names)


def _plain(value: object) -> Any:  # noqa: ANN401 - any value that SQL has
    """Return a value as DuckDB takes it."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return [_plain(each) for each in value]
    return _pythons_own(value)


def _pythons_own(value: object) -> Any:  # noqa: ANN401 - as above
    """Return Python's own value for one of a library, which is not named here."""
    # Scalars and arrays of Arrow, series of Polars and pandas.
    for take in ("as_py", "to_pylist", "to_list"):
        if hasattr(value, take):
            return getattr(value, take)()
    # Scalars of NumPy and torch. NumPy's times are finer than Python's, and DuckDB takes them.
    is_scalar = hasattr(value, "item") and getattr(value, "shape", None) == ()
    if not is_scalar or "64[" in str(getattr(value, "dtype", "")):
        return value
    return getattr(value, "item")()  # noqa: B009 - of a type that is not known


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    """Return a connection that only parses."""
    return duckdb.connect(config={"python_enable_replacements": False, "threads": 1})


def _after_fork_in_child() -> None:
    """Never destroy the parent's connection: that is to wait for the parent's threads."""
    if _parser.cache_info().currsize:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_parser()))
        _parser.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
