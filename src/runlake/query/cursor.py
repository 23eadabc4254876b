"""Page tokens: where a page ended, as the values that its order compares.

The next page is what comes behind these values in the order. So it is right whatever happens
in between: runs that arrive, change or go never make a page repeat or leave out a run that was
there and stayed as it was. A token belongs to one question and is checked; nothing in it is a
secret, and nobody should read it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runlake.query.compile import Term

_CHECK_BYTES: Final = 8


def make_token(question: object, values: Sequence[object]) -> str:
    """Return the token of a page.

    Args:
        question: what was asked, as JSON can hold it.
        values: what the terms of the order are in the last row of the page.
    """
    text = json.dumps([_digest(_json(question)).hex(), list(values)]).encode()
    return base64.urlsafe_b64encode(_digest(text) + text).decode()


def read_token(question: object, token: str) -> list[Any]:
    """Return the values of a token.

    Args:
        question: what is asked now.
        token: what `make_token` gave.

    Returns:
        The values.

    Raises:
        InvalidInputError: it is no token, or one of another question.
    """
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, TypeError, ValueError):
        raw = b""
    check, text = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
    if not text or check != _digest(text) or base64.urlsafe_b64encode(raw).decode() != token:
        raise InvalidInputError(f"page_token {token!r:.60} is none; take the `token` of a page.")
    of, values = json.loads(text)
    if of != _digest(_json(question)).hex():
        raise InvalidInputError(
            "page_token is of another search; filter, order, experiments and view must be the "
            "same as for the page that it came with."
        )
    found: list[Any] = values
    return found


def cursor_columns(terms: Sequence[Term]) -> str:
    """Return SQL for what the terms are in a row, as a token can hold it."""
    return ", ".join(f"{_plain(term)} AS t{place}" for place, term in enumerate(terms))


def behind(terms: Sequence[Term]) -> str:
    """Return the condition that a row comes behind the values `$t0`, `$t1`, ... of the terms.

    Where a term may be null, an earlier one tells so; then this one is null on both sides.
    """
    condition = "false"
    for place, term in reversed(list(enumerate(terms))):
        beyond = f"{_plain(term)} {'<' if term.is_descending else '>'} $t{place}"
        same = f"{_plain(term)} IS NOT DISTINCT FROM $t{place}"
        condition = f"({beyond} OR ({same} AND {condition}))"
    return condition


def _plain(term: Term) -> str:
    return f"epoch_us({term.sql})" if term.is_time else f"({term.sql})"


def _json(question: object) -> bytes:
    return json.dumps(question, sort_keys=True).encode()


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_CHECK_BYTES).digest()
