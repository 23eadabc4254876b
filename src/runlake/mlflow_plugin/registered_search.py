"""MLflow's searches over registered models and versions: its grammar, its order, its pages.

MLflow itself reads the filter and the order, so that what it refuses is refused with its words.
What is searched is the fold that is in memory anyway. As in MLflow's database, a comparison
with what is not there fails, `!=` too, and prompts are hidden unless they are asked for.
"""

from __future__ import annotations

import operator
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.search_utils import SearchModelUtils, SearchModelVersionUtils, SearchUtils

from runlake.mlflow_plugin.registered_entities import milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runlake.query.registered import Model, Registered, Version

_Found = TypeVar("_Found")
_Clause = dict[str, Any]


@lru_cache(maxsize=256)
def _pattern(pattern: str, flags: int) -> re.Pattern[str]:
    """Return the pattern of LIKE as a regular expression."""
    words = {"%": ".*", "_": "."}
    return re.compile(
        "".join(words.get(each) or re.escape(each) for each in pattern), flags | re.DOTALL
    )


_ORDERINGS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "LIKE": lambda text, pattern: _pattern(pattern, 0).fullmatch(text) is not None,
    "ILIKE": lambda text, pattern: _pattern(pattern, re.IGNORECASE).fullmatch(text) is not None,
    "IN": lambda text, texts: text in texts,
    "NOT IN": lambda text, texts: text not in texts,
    **_ORDERINGS,
}
_OF_TAGS: Final = frozenset({"=", "!=", "LIKE", "ILIKE"})
_OF_TEXTS: Final = _OF_TAGS | {"IN", "NOT IN"}
_OF_NUMBERS: Final = frozenset({"=", "!=", *_ORDERINGS})
_NUMBER: Final = "version_number"
_WHOLE: Final = re.compile(r"[+-]?[0-9]+")
_LISTED: Final = frozenset({"name", "run_id"})


class Pick(NamedTuple):
    """What a search asks for besides the filter.

    Attributes:
        order_by: as MLflow has it.
        max_results: greatest number of results.
        page_token: of the page before; None begins with the first.
    """

    order_by: Sequence[str] | None
    max_results: int
    page_token: str | bytes | None


def find_models(known: Registered, filter_string: str | None, pick: Pick) -> PagedList[Model]:
    """Return the models that a search finds.

    Args:
        known: what stands.
        filter_string: as MLflow has it; None or empty finds all but prompts.
        pick: order and page.

    Returns:
        One page, and the token of the next.

    Raises:
        MlflowException: the filter, the order or the token cannot be read.
    """
    clauses = SearchModelUtils.parse_search_filter(filter_string)
    for clause in clauses:
        _check(clause, {"name"})
    order = _order_of_models(pick.order_by)
    asks_prompts = _asks_prompts(clauses)
    if not asks_prompts:
        clauses = _without_prompts(clauses)
    found = [
        model
        for model in known.by_name.values()
        if all(_fits_model(model, clause) for clause in clauses)
        and (asks_prompts or model.tags.get(IS_PROMPT_TAG_KEY) != "true")
    ]
    return _page(_sorted(found, order, _MODEL_KEYS), pick)


def find_versions(
    known: Registered, filter_string: str | None, pick: Pick
) -> PagedList[tuple[Model, Version]]:
    """Return the versions that a search finds.

    Args:
        known: what stands.
        filter_string: as MLflow has it; None or empty finds all but those of prompts.
        pick: order and page.

    Returns:
        One page of models and versions of them, and the token of the next.

    Raises:
        MlflowException: the filter, the order or the token cannot be read.
    """
    clauses = SearchModelVersionUtils.parse_search_filter(filter_string)
    for clause in clauses:
        _check(clause, SearchModelVersionUtils.VALID_SEARCH_ATTRIBUTE_KEYS)
    order = _order_of_versions(pick.order_by)
    asks_prompts = _asks_prompts(clauses)
    if not asks_prompts:
        clauses = _without_prompts(clauses)
    of_names = [each for each in clauses if each["type"] == "attribute" and each["key"] == "name"]
    others = [each for each in clauses if each not in of_names]
    found: list[tuple[Model, Version]] = []
    for model in known.by_name.values():
        if all(_compare(model.name, clause) for clause in of_names):
            fitting = [
                (model, version)
                for version in model.shown
                if all(_fits_version(version, clause) for clause in others)
            ]
            if fitting and (asks_prompts or not _is_prompt(model)):
                found += fitting
    return _page(_sorted(found, order, _VERSION_KEYS), pick)


# The filter.


def _check(clause: _Clause, attributes: Iterable[str]) -> None:
    """Refuse a comparison that MLflow's database would refuse; make numbers numbers."""
    kind, key, comparator = clause["type"], clause["key"], clause["comparator"]
    if kind == "tag":
        allowed = _OF_TAGS
    elif kind != "attribute" or key not in attributes:
        raise _refusal(f"Invalid attribute name: {key}")
    elif key == _NUMBER:
        allowed = _OF_NUMBERS
    else:
        allowed = _OF_TEXTS if key in _LISTED else _OF_TAGS
    if comparator not in allowed:
        # In MLflow's words, only a number is named before the colon.
        what, where = (f"{kind} {key}", "") if key == _NUMBER else (kind, f", in a filter on {key}")
        raise _refusal(f"Invalid comparator for {what}: {comparator}{where}")
    if kind == "attribute" and key == _NUMBER:
        clause["value"] = _whole(clause["value"])


def _whole(value: object) -> int:
    """Return a whole number, which may come as text."""
    if isinstance(value, int) or (isinstance(value, str) and _WHOLE.fullmatch(value.strip())):
        return int(value)
    raise _refusal(f"Invalid value for numeric attribute {_NUMBER!r}: {value!r}")


def _asks_prompts(clauses: Iterable[_Clause]) -> bool:
    """Tell whether prompts are asked for; the first word about them counts."""
    for clause in clauses:
        if clause["type"] == "tag" and clause["key"] == IS_PROMPT_TAG_KEY:
            wanted = {"=": "true", "!=": "false"}.get(clause["comparator"])
            return str(clause["value"]).lower() == wanted
    return False


def _without_prompts(clauses: Iterable[_Clause]) -> list[_Clause]:
    """Leave out what says that no prompts are wanted: models do not have that tag at all."""
    return [each for each in clauses if each["type"] != "tag" or each["key"] != IS_PROMPT_TAG_KEY]


def _fits_model(model: Model, clause: _Clause) -> bool:
    has = model.tags.get(clause["key"]) if clause["type"] == "tag" else model.name
    return _compare(has, clause)


def _fits_version(version: Version, clause: _Clause) -> bool:
    key = clause["key"]
    if clause["type"] == "tag":
        return _compare(version.tags.get(key), clause)
    if key == _NUMBER:
        return _compare(version.number, clause)
    return _compare(version.fact("source" if key == "source_path" else key), clause)


def _compare(has: object, clause: _Clause) -> bool:
    return has is not None and _COMPARISONS[clause["comparator"]](has, clause["value"])


def _is_prompt(model: Model) -> bool:
    """Tell whether a version of a model, deleted or not, says that it is a prompt's."""
    return any(
        # Of most versions the JSON need not be read for that.
        (IS_PROMPT_TAG_KEY in (version.text or "") or IS_PROMPT_TAG_KEY in version.said)
        and version.tags.get(IS_PROMPT_TAG_KEY) == "true"
        for version in model.versions.values()
    )


# The order. A key is what is shown, so that what looks alike is a tie.

_MODEL_KEYS: Final[dict[str, Callable[[Any], Any]]] = {
    "name": lambda model: model.name,
    "last_updated_timestamp": lambda model: milliseconds(model.updated_us),
}
_VERSION_KEYS: Final[dict[str, Callable[[Any], Any]]] = {
    "name": lambda pair: pair[0].name,
    _NUMBER: lambda pair: pair[1].number,
    "creation_timestamp": lambda pair: milliseconds(pair[1].created_us),
    "last_updated_timestamp": lambda pair: milliseconds(pair[1].updated_us),
}


def _order_of_models(order_by: Sequence[str] | None) -> list[tuple[str, bool]]:
    keys = []
    for text in order_by or ():
        key, is_rising = SearchUtils.parse_order_by_for_search_registered_models(text)
        keys.append(("name" if key == "name" else "last_updated_timestamp", is_rising))
    return _distinct(keys, order_by, [("name", True)])


def _order_of_versions(order_by: Sequence[str] | None) -> list[tuple[str, bool]]:
    keys = []
    for text in order_by or ["last_updated_timestamp DESC"]:
        kind, key, is_rising = SearchModelVersionUtils.parse_order_by_for_search_model_versions(
            text
        )
        if kind != "attribute" or key not in _VERSION_KEYS:
            valid = SearchModelVersionUtils.VALID_ORDER_BY_ATTRIBUTE_KEYS
            raise _refusal(f"Invalid order by key '{key}' specified. Valid keys are {valid}")
        keys.append((key, is_rising))
    return _distinct(keys, order_by, [("name", True), (_NUMBER, False)])


def _distinct(
    keys: list[tuple[str, bool]], order_by: object, ties: list[tuple[str, bool]]
) -> list[tuple[str, bool]]:
    """Refuse a key that is there twice; add those that break ties."""
    names = [name for name, _ in keys]
    if len(set(names)) < len(names):
        raise _refusal(f"`order_by` contains duplicate fields: {order_by}")
    return keys + [tie for tie in ties if tie[0] not in names]


def _sorted(
    found: list[_Found], order: list[tuple[str, bool]], keys: dict[str, Callable[[Any], Any]]
) -> list[_Found]:
    for name, is_rising in reversed(order):
        found.sort(key=keys[name], reverse=not is_rising)
    return found


def _page(found: list[_Found], pick: Pick) -> PagedList[_Found]:
    start = SearchUtils.parse_start_offset_from_page_token(pick.page_token)
    end = start + pick.max_results
    token = SearchUtils.create_page_token(end) if end < len(found) else None
    return PagedList(found[start:end], token)


def _refusal(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
