"""What callers say of models and versions, checked and turned into what events hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from runlake import arguments, clock, ids, schema
from runlake.errors import InvalidInputError
from runlake.registry import uris
from runlake.run_plan import user
from runlake.writing import places, values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runlake.query import registered

_MODEL: Final = "registered model"
_ALIAS: Final = re.compile(r"[\w\-]+")
_VERSION_ALIAS: Final = re.compile(r"[vV]\d+")
_ALIAS_LIMIT_CHARS: Final = 255


def claim_facts(reason: str | None, creation_time: object = None) -> dict[str, Any]:
    """Return what every claim says besides what it is about: who, where, when, why, a nonce.

    Args:
        reason: why; None where nobody said.
        creation_time: an aware datetime or milliseconds since 1970; None means now.

    Raises:
        InvalidInputError: the reason is too long, or it is no such time.
    """
    time_us = clock.now_us() if creation_time is None else values.time_us(creation_time)
    return {**about(reason), "time_us": time_us, "nonce": ids.new_nonce()}


def about(reason: str | None, **more: object) -> dict[str, Any]:
    """Return what every event says of its maker, and more.

    Args:
        reason: why; None where nobody said.
        **more: what else it says.

    Returns:
        The JSON of the event, as a mapping.

    Raises:
        InvalidInputError: the reason is too long.
    """
    who = {"user": user(), "host": places.host(), "reason": text("reason", reason)}
    return {**more, **who}


def before(model: registered.Model, alias: str) -> dict[str, Any]:
    """Return what the event of an alias says of the version that it meant.

    Args:
        model: as it stands.
        alias: one of its aliases, or none.

    Returns:
        Nothing, or the version as `before`.
    """
    before = model.aliases.get(alias)
    return {} if before is None else {"before": before}


def text(what: str, given: object) -> str | None:
    """Return a text after checking it; None stays None.

    Args:
        what: it is, for the message.
        given: anything; `str(given)` is kept.

    Raises:
        InvalidInputError: it is too long, or not Unicode.
    """
    return None if given is None else values.text(_MODEL, what, given)


def required(what: str, given: object) -> str:
    """Return a text that may not be empty.

    Args:
        what: it is, for the message.
        given: anything; `str(given)` is kept.

    Raises:
        InvalidInputError: it is empty, too long, or not Unicode.
    """
    found = text(what, given)
    if not found:
        raise InvalidInputError(f"the {what} of a version is empty.")
    return found


def tags(given: Mapping[str, object] | None) -> dict[str, str]:
    """Return tags as texts by key.

    Raises:
        InvalidInputError: a key is none, or a value is too long.
    """
    return {
        values.name("tag", key): values.text("tag", key, value)
        for key, value in arguments.mapping("tags", given).items()
    }


def check_name(name: object) -> None:
    """Refuse what is no name of a model, as MLflow does.

    Raises:
        InvalidInputError: it is none.
    """
    found = values.name(_MODEL, name, most=schema.NAME_LIMIT_CHARS)
    if not found.strip() or "/" in found or ":" in found or found in {".", ".."}:
        raise InvalidInputError(
            f"{found!r} is no name of a registered model: it may not be blank, '.' or '..', or "
            "hold '/' or ':'."
        )


def check_alias(alias: object) -> None:
    """Refuse what is no alias, as MLflow does.

    Raises:
        InvalidInputError: it is none.
    """
    is_text = isinstance(alias, str) and len(alias) <= _ALIAS_LIMIT_CHARS
    if not (is_text and isinstance(alias, str) and _ALIAS.fullmatch(alias)):
        raise InvalidInputError(
            f"{alias!r:.60} is no alias: use letters, digits, '_' and '-', at most "
            f"{_ALIAS_LIMIT_CHARS}."
        )
    if alias.lower() == uris.LATEST or _VERSION_ALIAS.fullmatch(alias):
        raise InvalidInputError(
            f"{alias!r} is no alias: it means the latest version, or one by its number."
        )
