"""What callers pass, checked and turned into what columns hold.

Refused here means refused before anything is written. Nothing imports NumPy, torch or JAX:
their scalars are known by what they can do (`item`, `ndim`).
"""

from __future__ import annotations

import math
import operator
import re
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from runlake import arguments, clock, schema
from runlake.errors import InvalidInputError

_RUN_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_INT64: Final = range(-(2**63), 2**63)
_NAMED: Final = {
    "experiment": "name of an experiment",
    "registered model": "name of a registered model",
    "alert": "title of an alert",
}
_PLAIN: Final = (bool, int, float, Decimal, Fraction)


def number(key: str, value: object) -> float:
    """Return a metric's value as a float, NaN and infinities as they are.

    Args:
        key: the metric's key, for the message.
        value: a bool, int, float, Decimal or Fraction, or a zero-dimensional scalar or array
            of NumPy, torch, JAX or whatever else has `item` and `ndim`.

    Raises:
        InvalidInputError: it is anything else, or too large for a float.
    """
    plain = value
    if not isinstance(value, _PLAIN) and getattr(value, "ndim", None) == 0:
        item = getattr(value, "item", None)
        plain = item() if callable(item) else value
    if isinstance(plain, _PLAIN):
        try:
            return float(plain)
        except OverflowError as error:
            message = (
                f"metric {key!r} got {arguments.kind(value)} that does not fit a 64-bit float."
            )
            raise InvalidInputError(message) from error
    shape = getattr(value, "shape", None)
    shown = "" if value is None else f" {str(value)[:40]!r}"
    if isinstance(shape, tuple):
        shown = f" of shape {tuple(shape)}"
    message = (
        f"metric {key!r} got {arguments.kind(value)}{shown}; a metric is one number "
        "(Python, NumPy, torch or JAX scalar, Decimal, bool)."
    )
    raise InvalidInputError(message)


def name(what: str, text: object, *, most: int = schema.KEY_LIMIT_CHARS) -> str:
    """Return a key or name after checking it.

    Args:
        what: what it names, for the message: `metric`, `param`, ...
        text: 1 to `most` printable characters.
        most: 250 of keys, 500 of names of experiments and registered models.

    Raises:
        InvalidInputError: it is no such text.
    """
    of = _NAMED.get(what, f"key of a {what}")
    if not isinstance(text, str):
        shown = "" if text is None else f" {str(text)[:40]!r}"
        message = f"the {of} is text, got {arguments.kind(text)}{shown}."
        raise InvalidInputError(message)
    if not text:
        message = f"the {of} is empty; give it 1 to {most} characters."
        raise InvalidInputError(message)
    if len(text) > most:
        message = f"the {of} has {len(text)} characters, at most {most} are kept: {text[:40]!r}…"
        raise InvalidInputError(message)
    if not text.isprintable():
        message = f"the {of} holds characters that cannot be printed: {text!r}."
        raise InvalidInputError(message)
    return text


def run_id(given: object) -> str:
    """Return the id of a run after checking it.

    Raises:
        InvalidInputError: it is no text of 1 to 64 letters, digits, `_` and `-`.
    """
    if isinstance(given, str) and _RUN_ID.fullmatch(given):
        return given
    message = (
        "a run id is up to 64 letters, digits, '_' and '-' (MLflow's are 32 hex digits), got "
        f"{given!r}."
    )
    raise InvalidInputError(message)


def text(what: str, key: str, value: object) -> str:
    """Return the text of a param, tag or note; nothing is cut.

    Args:
        what: what it belongs to, for the message.
        key: its key, for the message.
        value: anything; `str(value)` is kept.

    Raises:
        InvalidInputError: it is longer than 1 MiB of UTF-8, or has lone surrogates.
    """
    shown = value if isinstance(value, str) else str(value)
    if len(shown) > schema.TEXT_LIMIT_BYTES // 4 or not shown.isascii():
        try:
            size = len(shown.encode())
        except UnicodeEncodeError as error:
            message = f"{what} {key!r} holds text that is not Unicode: {error}."
            raise InvalidInputError(message) from error
        if size > schema.TEXT_LIMIT_BYTES:
            message = (
                f"{what} {key!r} has {size:,} bytes, at most {schema.TEXT_LIMIT_BYTES:,} are "
                "kept. Log it as an artifact: run.log_text(text, 'file.txt')."
            )
            raise InvalidInputError(message)
    return shown


def number_beside(value: object) -> float | None:
    """Return the number that a param's value is or spells, None if it is none."""
    if isinstance(value, (bool, float)):
        return None if isinstance(value, bool) else value
    try:
        if isinstance(value, str) and not value[:1].strip("+-.").isalpha():
            spelled = float(value)
            return spelled if math.isfinite(spelled) else None
        if isinstance(value, (int, Decimal, Fraction)):
            return float(value)
        if getattr(value, "ndim", None) == 0:
            return number("", value)
    except (ValueError, OverflowError):
        return None
    return None


def flatten(params: object, *, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the leaves of nested params, keys joined by dots.

    Args:
        params: a mapping, dataclass instance or argparse namespace; may be nested.
        prefix: put before every key.

    Raises:
        InvalidInputError: it is none of these.
    """
    inner = _mapping(params)
    if inner is None:
        message = f"params are a mapping of keys to values, got {arguments.kind(params)}."
        raise InvalidInputError(message)
    for key, value in inner.items():
        full = f"{prefix}{key}"
        nested = _mapping(value)
        if nested:
            yield from flatten(nested, prefix=f"{full}.")
        else:
            yield full, value


def _mapping(value: object) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Namespace):
        return vars(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


def step(value: object) -> int:
    """Return a step as an int.

    Raises:
        InvalidInputError: it is no whole number of 64 bits.
    """
    try:
        whole = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        whole = None
        if isinstance(value, float) and value.is_integer():
            whole = int(value)
        elif getattr(value, "ndim", None) == 0:
            return step(value.item())  # type: ignore[attr-defined]
    if whole is None or whole not in _INT64:
        message = f"a step is a whole number of at most 64 bits, got {value!r}."
        raise InvalidInputError(message)
    return whole


def time_us(value: object) -> int:
    """Return a timestamp in microseconds since 1970, UTC.

    Args:
        value: an aware datetime, or milliseconds since 1970 as MLflow has them.

    Raises:
        InvalidInputError: it is neither, or a datetime without a zone.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            message = f"timestamp {value} has no time zone; use datetime.now(timezone.utc)."
            raise InvalidInputError(message)
        return round(value.timestamp() * 1e6)
    if not isinstance(value, (bool, float)) and hasattr(value, "__index__"):
        with suppress(TypeError):  # an array of several
            value = operator.index(value)  # a NumPy integer, for one
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        moment = value * 1000 if isinstance(value, int) else round(value * 1000)
        if moment in _INT64:
            return moment
    message = f"a timestamp is an aware datetime or milliseconds since 1970, got {value!r}."
    raise InvalidInputError(message)


def pairs(given: Mapping[str, object] | Iterable[Any]) -> list[tuple[str, object]]:
    """Read params or tags in any of the forms that `log_batch` takes.

    Raises:
        InvalidInputError: it is none of them.
    """
    if isinstance(given, Mapping):
        return list(given.items())
    found = []
    entry: Any
    for entry in arguments.several("params and tags", given):
        pair = (entry.key, entry.value) if hasattr(entry, "key") else entry
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:  # noqa: PLR2004 - a pair
            message = f"params and tags are a mapping or (key, value) pairs, got {entry!r}."
            raise InvalidInputError(message)
        found.append((pair[0], pair[1]))
    return found


def batch_point(metric: Any) -> tuple[str, float, int, int]:  # noqa: ANN401 - or MLflow's
    """Return key, value, step and time (microseconds) of one metric of `log_batch`.

    Raises:
        InvalidInputError: it is neither MLflow's Metric nor such a tuple, or a part is wrong.
    """
    if hasattr(metric, "key"):
        metric = (metric.key, metric.value, metric.step, metric.timestamp)
    if not isinstance(metric, (tuple, list)) or len(metric) not in {3, 4}:
        message = f"a metric of log_batch is (key, value, step[, timestamp]), got {metric!r}."
        raise InvalidInputError(message)
    key, value, at, *rest = metric
    moment = time_us(rest[0]) if rest and rest[0] is not None else clock.now_us()
    found = name("metric", key)
    return found, number(found, value), step(at), moment


def printable(text: str) -> str:
    """Return text without the lone surrogates that stand for bytes of no encoding."""
    return text.encode(errors="replace").decode()
