"""MLflow's grammar of filters and orders, as strategies that write it in all its spellings."""

from __future__ import annotations

import re
from typing import Final

from hypothesis import strategies as st

from runlake.query import grammar
from tests.parity import twins

ENTITIES: Final = {
    "metric": ["metric", "metrics", "`metrics`"],
    "param": ["param", "params", "parameter", "parameters", "`params`"],
    "tag": ["tag", "tags", "`tag`"],
    "attribute": ["attribute", "attributes", "attr", "run", "`run`"],
    "dataset": ["dataset", "datasets", "`dataset`"],
}
_TEXT_ATTRIBUTES: Final = {
    "run_name": ["run_name", "`run name`", '"Run name"', "`Run Name`"],
    "status": ["status", "`status`"],
    "user_id": ["user_id", '"user_id"'],
}
_TIME_ATTRIBUTES: Final = {
    "start_time": ["start_time", "created", "Created", "`created`"],
    "end_time": ["end_time", "`end_time`"],
}
# Keys that MLflow's lexer takes without quotes.
_PLAIN: Final = frozenset({"acc", "größe", "loss.min", "top", "1st", "kernel", "lr", "C", "team"})
_SPACE: Final = st.sampled_from([" ", "  ", "\n", "\t"])


def _case(word: str) -> st.SearchStrategy[str]:
    return st.sampled_from([word, word.lower(), word.capitalize()])


@st.composite
def _key(draw: st.DrawFn, key: str) -> str:
    quotes = ["`{}`", '"{}"', "'{}'", *(["{}", "{}"] if key in _PLAIN else [])]
    return draw(st.sampled_from(quotes)).format(key)


@st.composite
def _field(draw: st.DrawFn, entity: str, key: str) -> str:
    return f"{draw(st.sampled_from(ENTITIES[entity]))}.{draw(_key(key))}"


def quoted(text: str) -> st.SearchStrategy[str]:
    """Write a text in either quotes, where MLflow can: it knows no way to write both."""
    both = [quote + text + quote for quote in "'\"" if quote not in text]
    return st.sampled_from(both)


@st.composite
def _number(draw: st.DrawFn, *, whole: bool = False) -> str:
    if whole:
        return str(twins.START_MS + 500 * draw(st.integers(-2, 84)))
    known = ["0.5", ".5", "-.5", "-1", "0", "3.", "1e-7", "1E300", "-1e-3", "0.3", "5", "1e308"]
    return draw(st.one_of(st.sampled_from(known), st.integers(-9, 9).map(str)))


@st.composite
def _pattern(draw: st.DrawFn, texts: tuple[str, ...], *, any_case: bool) -> str:
    """Write a pattern near a text. SQLite's ILIKE knows the case of ASCII only."""
    text = draw(st.sampled_from(texts))
    if any_case and draw(st.booleans()):
        text = "".join(each.swapcase() if each.isascii() else each for each in text)
    start, stop = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    held = draw(st.sampled_from([text, text[:stop] + "%", "%" + text[start:], f"%{text[:stop]}%"]))
    place = draw(st.integers(0, max(len(held) - 1, 0)))
    return held[:place] + "_" + held[place + 1 :] if draw(st.booleans()) and held else held


@st.composite
def _text_test(draw: st.DrawFn, texts: tuple[str, ...]) -> str:
    """Write an operator on texts, and a value."""
    operator = draw(st.sampled_from(["=", "!=", "LIKE", "ILIKE"]))
    if operator in {"=", "!="}:
        value = draw(st.sampled_from(texts).flatmap(quoted))
        space = draw(st.sampled_from(["", " "]))
        return f"{space}{operator}{space}{value}"
    pattern = draw(_pattern(texts, any_case=operator == "ILIKE").filter(_is_writable))
    return f"{draw(_SPACE)}{draw(_case(operator))}{draw(_SPACE)}{draw(quoted(pattern))}"


def _is_writable(text: str) -> bool:
    # A backslash before a quote means something to MLflow's lexer.
    return not ("'" in text and '"' in text) and not text.endswith("\\")


@st.composite
def _number_test(draw: st.DrawFn, *, whole: bool = False) -> str:
    operator = draw(st.sampled_from(["=", "!=", ">", ">=", "<", "<="]))
    space = draw(st.sampled_from(["", " "]))
    return f"{space}{operator}{space}{draw(_number(whole=whole))}"


@st.composite
def _list_test(draw: st.DrawFn, texts: tuple[str, ...]) -> str:
    listed = draw(st.lists(st.sampled_from(texts).flatmap(quoted), min_size=1, max_size=4))
    operator = draw(st.sampled_from(["IN", "in", "NOT IN", "not in"]))
    comma = draw(st.sampled_from([",", ", ", " ,\n"]))
    return f" {operator} ({comma.join(listed)})"


_NULL_TEST: Final = st.sampled_from([" IS NULL", " is null", " IS NOT NULL", "\nis not null"])
_TEXTS: Final = (*twins.TEXTS, "", "nothing")
_NAMES: Final = tuple(f"{text.strip()} {number}" for text in twins.TEXTS for number in (1, 7))


@st.composite
def _attribute(draw: st.DrawFn, spellings: list[str]) -> str:
    name = draw(st.sampled_from(spellings))
    if draw(st.booleans()):
        return name
    return f"{draw(st.sampled_from(ENTITIES['attribute']))}.{name}"


@st.composite
def _metric_clause(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from(twins.METRICS))
    return draw(_field("metric", key)) + draw(_number_test())


@st.composite
def _param_clause(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from((*twins.TEXT_PARAMS, *twins.NUMBER_PARAMS, "nothing")))
    test = _text_test((*_TEXTS, "0.1", "10", "9", "nan"))
    return draw(_field("param", key)) + draw(st.one_of(_NULL_TEST, test, test))


@st.composite
def _tag_clause(draw: st.DrawFn) -> str:
    key = draw(st.sampled_from((*twins.TAGS, "nothing", "mlflow.runName", "mlflow.user")))
    test = _text_test(_TEXTS)
    return draw(_field("tag", key)) + draw(st.one_of(_NULL_TEST, test, test))


@st.composite
def _text_clause(draw: st.DrawFn) -> str:
    texts = {"run_name": _NAMES, "status": twins.STATUSES, "user_id": twins.USERS}
    name = draw(st.sampled_from(sorted(texts)))
    return draw(_attribute(_TEXT_ATTRIBUTES[name])) + draw(_text_test(texts[name]))


@st.composite
def _time_clause(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(sorted(_TIME_ATTRIBUTES)))
    return draw(_attribute(_TIME_ATTRIBUTES[name])) + draw(_number_test(whole=True))


@st.composite
def _id_clause(draw: st.DrawFn, run_ids: tuple[str, ...]) -> str:
    if draw(st.integers(0, 3)) == 0:
        # The two keep artifacts in different places; the id of the run is in both.
        return f"artifact_uri LIKE '%/{draw(st.sampled_from(run_ids))}%'"
    name = draw(_attribute(["run_id", "`run_id`"]))
    return name + draw(st.one_of(_text_test(run_ids), _list_test(run_ids)))


@st.composite
def _dataset_clause(draw: st.DrawFn) -> str:
    values = {"name": twins.DATASETS, "digest": twins.DIGESTS, "context": ("train", "eval")}
    key = draw(st.sampled_from(sorted(values)))
    test = st.one_of(_text_test(values[key]), _list_test(values[key]))
    return draw(_field("dataset", key)) + draw(test)


@st.composite
def _joined(draw: st.DrawFn, clauses: list[str]) -> str:
    text = clauses[0] if clauses else ""
    for clause in clauses[1:]:
        text += f"{draw(_SPACE)}{draw(_case('AND'))}{draw(_SPACE)}{clause}"
    return text


def run_filters(run_ids: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Write filters over runs, all in MLflow's grammar."""
    clause = st.one_of(
        _metric_clause(), _param_clause(), _tag_clause(), _text_clause(), _time_clause(),
        _id_clause(run_ids), _dataset_clause(),
    )  # fmt: skip
    return st.lists(clause, max_size=3).flatmap(_joined)


@st.composite
def _way(draw: st.DrawFn, field: str) -> str:
    return field + draw(st.sampled_from(["", " ASC", " desc", " DESC", "  asc"]))


@st.composite
def run_orders(draw: st.DrawFn) -> list[str]:
    """Write orders of runs; params that are numbers are left out, which MLflow takes for text."""
    fields = [
        *(("metric", key) for key in twins.METRICS),
        *(("param", key) for key in twins.TEXT_PARAMS),
        *(("tag", key) for key in (*twins.TAGS, "mlflow.runName", "nothing")),
        *(("attribute", key) for key in ("run_name", "status", "user_id", "run_id")),
        *(("attribute", key) for key in _TIME_ATTRIBUTES),
    ]
    keys = []
    for entity, key in draw(st.lists(st.sampled_from(fields), max_size=3, unique=True)):
        if entity == "attribute":
            spellings = [key, *_TIME_ATTRIBUTES.get(key, ())]
            field = draw(_attribute(spellings))
        else:
            # In an order MLflow's single quotes do not mean a key.
            field = draw(_field(entity, key).filter(lambda text: "'" not in text))
        keys.append(draw(_way(field)))
    return keys


_EXPERIMENT_NAMES: Final = (
    *(f"{text.strip()} {place}" for place, text in enumerate(twins.TEXTS)), "Default", "one",
)  # fmt: skip


@st.composite
def _experiment_clause(draw: st.DrawFn) -> str:
    prefix = draw(st.sampled_from(["", "attribute."]))
    match draw(st.sampled_from(["name", "id", "time", "tag"])):
        case "name":
            return f"{prefix}name" + draw(_text_test(_EXPERIMENT_NAMES).map(_upper_like))
        case "id":
            ids = tuple(map(str, range(12)))
            equal = st.sampled_from(["=", "!="]).flatmap(
                lambda operator: st.sampled_from(ids).map(lambda each: f" {operator} '{each}'")
            )
            test = draw(st.one_of(equal, _list_test(ids).map(str.upper)))
            return f"{prefix}experiment_id{test}"
        case "time":
            name = draw(st.sampled_from(["creation_time", "last_update_time"]))
            operator = draw(st.sampled_from(["=", "!=", ">", ">=", "<", "<="]))
            return f"{prefix}{name} {operator} {twins.START_MS + 1000 * draw(st.integers(-1, 12))}"
    key = draw(st.sampled_from([*twins.EXPERIMENT_TAGS, "nothing"]).flatmap(_key))
    test = draw(st.one_of(_NULL_TEST.map(str.upper), _text_test(_TEXTS).map(_upper_like)))
    return f"{draw(st.sampled_from(['tag', 'tags']))}.{key}{test}"


def _upper_like(test: str) -> str:
    """In experiments' filters MLflow knows its words in capitals only."""
    word = test.split(maxsplit=1)[0]
    return test.replace(word, word.upper(), 1) if word.upper() in {"LIKE", "ILIKE"} else test


def experiment_filters() -> st.SearchStrategy[str]:
    """Write filters over experiments, all in MLflow's grammar."""
    return st.lists(_experiment_clause(), max_size=3).flatmap(_joined)


@st.composite
def experiment_orders(draw: st.DrawFn) -> list[str]:
    """Write orders of experiments."""
    fields = ["name", "experiment_id", "creation_time", "last_update_time"]
    chosen = draw(st.lists(st.sampled_from(fields), max_size=2, unique=True))
    return [draw(_way(draw(st.sampled_from(["", "attribute."])) + field)) for field in chosen]


# Beyond the grammar: what looks like a filter, and may be one to neither, either or both.

_FIELDS: Final = (
    "metrics.acc", "metric.`a b`", "metrics.val/acc", "METRICS.acc", "params.kernel", "param.lr",
    "tags.team", "tags.`a b`", "status", "Status", "attributes.run_id", "start_time", "created",
    "end_time", "user_id", "`Run name`", "artifact_uri", "experiment_id", "duration",
    "lifecycle_stage", "nothing", "foo.a", "dataset.name", "dataset.context", "dataset.source",
    "dataset.other",
)  # fmt: skip
_TESTS: Final = (
    *(f"{operator} {value}"
      for operator in ("=", "!=", ">", "<=", "==", "<>", "LIKE", "NOT LIKE", "ILIKE")
      for value in ("0.5", "1700000005000", "'rbf'", '"%b%"', "rbf", "`rbf`", "1e+3", "NULL")),
    *(f"{operator} {value}"
      for operator in ("IN", "NOT IN")
      for value in ("('rbf', 'RBF')", '("rbf")', "(1, 2)", "()", "'rbf'", "(rbf)", "('a', 1)")),
    "IS NULL", "IS NOT NULL", "IS 'rbf'", "IS NOT 'rbf'", "BETWEEN 1 AND 2", "IN", "=", "",
)  # fmt: skip
_JOINS: Final = (" AND ", " and ", " OR ", " ", " AND NOT ", " AND AND ", ", ", "; ", " AND (")


@st.composite
def near_filters(draw: st.DrawFn) -> str:
    """Write what is nearly a filter."""

    def clause() -> str:
        field = draw(st.sampled_from(_FIELDS))
        # Most tests fit no field; of those that do, as many are wanted.
        is_number = re.search("metric|time|created|duration", field, re.IGNORECASE)
        fitting = [test for test in _TESTS if ("5" in test if is_number else "'" in test)]
        return f"{field} {draw(st.sampled_from(draw(st.sampled_from([_TESTS, fitting]))))}"

    text = clause()
    if draw(st.booleans()):
        text += draw(st.sampled_from(_JOINS)) + clause()
    words = text.split(" ")
    match draw(st.integers(0, 15)):
        case 0:
            words.pop(draw(st.integers(0, len(words) - 1)))
        case 1:
            words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(["AND", "NOT"])))
        case 2:
            words = [f"({words[0]}", *words[1:], ")"]
    return " ".join(words)


_OPERATORS: Final = {
    "metric": {"=", "!=", ">", ">=", "<", "<="},
    "time": {"=", "!=", ">", ">=", "<", "<="},
    "param": {"=", "!=", "LIKE", "ILIKE", "IS NULL"},
    "tag": {"=", "!=", "LIKE", "ILIKE", "IS NULL"},
    "text": {"=", "!=", "LIKE", "ILIKE"},
    "id": {"=", "!=", "LIKE", "ILIKE", "IN"},
    "dataset": {"=", "!=", "LIKE", "ILIKE", "IN"},
}
_ATTRIBUTE_KINDS: Final = {
    "run_id": "id", "run_name": "text", "Run name": "text", "status": "text", "user_id": "text",
    "artifact_uri": "text", "start_time": "time", "created": "time", "end_time": "time",
}  # fmt: skip


def is_beyond(text: str) -> bool:
    """Tell whether a filter that runlake reads uses what MLflow does not have."""
    words = re.sub(r"IN \(.*?\)|'[^']*'|\"[^\"]*\"", "", text)
    if re.search(r"[(/]|==|<>|\d\+\d|e\+|METRICS", words):
        return True
    return not _is_plain(grammar.parse_filter(text))


def _is_plain(node: grammar.Node) -> bool:
    match node:
        case grammar.Both(parts):
            return all(map(_is_plain, parts))
        case grammar.Comparison(wanted, operator, value):
            values = [value]
        case grammar.Membership(wanted, values):
            operator = "IN"
        case grammar.Absence(wanted):
            operator, values = "IS NULL", []
        case _:
            return False
    kind: str | None = wanted.entity
    if kind == "attribute":
        kind = _ATTRIBUTE_KINDS.get(wanted.key)
    if kind == "dataset" and wanted.key not in {"name", "digest", "context"}:
        kind = None
    is_number = {isinstance(value.value, float) for value in values} or {False}
    return (
        kind is not None
        and operator in _OPERATORS[kind]
        and is_number == {kind in {"metric", "time"}}
    )
