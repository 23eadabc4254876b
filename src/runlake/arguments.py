"""Arguments as callers pass them: what they are said to be, or refused by their names.

What comes from notebooks and configuration files is often of another type than a signature says.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

# Whoever waits longer waits for ever; no clock of the system counts much farther.
_LONGEST_S: Final = 10**9
_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_Kind = TypeVar("_Kind")
_Called = TypeVar("_Called", bound="Callable[..., object]")


def text(name: str, given: object) -> str:
    """Return a text.

    Args:
        name: of the argument, for the message.
        given: what was passed.

    Raises:
        InvalidInputError: it is no text, or holds lone surrogates.
    """
    if not isinstance(given, str):
        raise _wrong(name, given, "it must be a text.")
    try:
        given.isascii() or given.encode()
    except UnicodeEncodeError as error:
        raise _wrong(name, given, f"that is not Unicode: {error}.") from error
    return given


def text_or_empty(name: str, given: object) -> str:
    """Return a text; None is an empty one. As `text`."""
    return "" if given is None else text(name, given)


def path(name: str, given: object) -> str:
    """Return a path as text.

    Args:
        name: of the argument, for the message.
        given: what was passed, a text or an object that stands for a path.

    Raises:
        InvalidInputError: it is neither, or no file can have such a name.
    """
    found = given
    if isinstance(given, os.PathLike):
        found = os.fspath(given)
    if not isinstance(found, str):
        raise _wrong(name, given, "it must be a path: a text, or a pathlib.Path.")
    try:
        os.fsencode(found)
    except UnicodeEncodeError as error:
        raise _wrong(name, given, f"that is not Unicode: {error}.") from error
    if "\0" in found:
        raise _wrong(name, given, "no path holds the character NUL.")
    return found


def several(name: str, given: Iterable[Any] | None) -> list[Any]:
    """Return a list of whatever; None is an empty one.

    Args:
        name: of the argument, for the message.
        given: what was passed.

    Raises:
        InvalidInputError: it is one text, or nothing that can be gone through.
    """
    if given is None:
        return []
    if isinstance(given, (str, bytes)):
        raise InvalidInputError(f"{name} is a text; write a list: [{_shown(given)}].")
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise _wrong(name, given, "it must be a list.")
    return list(given)


def texts(name: str, given: Iterable[str] | None) -> list[str]:
    """Return a list of texts; None is an empty one.

    Args:
        name: of the argument, for the message.
        given: what was passed.

    Raises:
        InvalidInputError: it is one text, no list, or something in it is no text.
    """
    return [text(f"an item of {name}", each) for each in several(name, given)]


def mapping(name: str, given: Mapping[str, _Kind] | None) -> Mapping[str, _Kind]:
    """Return a mapping; None is an empty one.

    Args:
        name: of the argument, for the message.
        given: what was passed.

    Raises:
        InvalidInputError: it is none.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise _wrong(name, given, "it must be a mapping of keys to values.")
    return given


def count(name: str, given: object) -> int | None:
    """Return a whole number from 0; None stays None.

    Args:
        name: of the argument, for the message.
        given: what was passed.

    Raises:
        InvalidInputError: it is none.
    """
    if given is None:
        return None
    is_whole = hasattr(given, "__index__") and not isinstance(given, bool)
    try:
        number = given.__index__() if is_whole else -1  # type: ignore[attr-defined]
    except TypeError:  # an array of several
        number = -1
    if number < 0:
        raise _wrong(name, given, "it may be 0 or more, or None for all.")
    found: int = number
    return found


def seconds(name: str, given: object, *, is_needed: bool = False) -> float | None:
    """Return a time in seconds from 0, at most a billion; None stays None.

    Args:
        name: of the argument, for the message.
        given: what was passed.
        is_needed: None is wrong as well.

    Raises:
        InvalidInputError: it is none.
    """
    if given is None and not is_needed:
        return None
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not given >= 0:
        raise _wrong(name, given, f"it may be 0 or more{'' if is_needed else ', or None'}.")
    return float(min(given, _LONGEST_S))


def callback(name: str, given: _Called | None) -> _Called | None:
    """Return what is to be called; None stays None.

    Args:
        name: of the argument, for the message.
        given: what was passed.

    Raises:
        InvalidInputError: it cannot be called.
    """
    if given is not None and not callable(given):
        raise _wrong(name, given, "it must be a function.")
    return given


def kind(given: object) -> str:
    """Return the type of what was passed, as a message says it: `an int`, `a list`, `None`."""
    if given is None:
        return "None"
    name = type(given).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def told(given: object) -> str:
    """Return type and value of what was passed, as a message says them: `an int 5`."""
    return kind(given) if given is None else f"{kind(given)} {_shown(given)}"


def _wrong(name: str, given: object, hint: str) -> InvalidInputError:
    return InvalidInputError(f"{name} is {_shown(given)}; {hint}")


def _shown(given: object) -> str:
    """Return what was passed, in short and on one line."""
    return " ".join(_SHORT.repr(given).split())
