"""What a poller has had, told by sequence numbers: of each writer the greatest.

A snapshot holds of every writer a prefix without a gap, so this loses nothing and gives nothing
twice: neither clocks that are wrong nor rows that were days on their way matter, as they would
if the poller remembered a time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from runlake import arguments
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Enough that two of a million writers share one in less than one of a billion lakes.
_HASH_BYTES = 9
_HIGH = 0x80


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a poller has had: of each writer the greatest number of a row.

    Attributes:
        mark: every cursor of this kind begins with it.
        seen: by a hash of the writer's id, so that a cursor stays short.
    """

    mark: str
    seen: Mapping[bytes, int]

    def read(self, text: str) -> Self:
        """Read what `str` of a cursor of this kind gave.

        Args:
            text: begins with `mark`; blanks around it are fine.

        Returns:
            The cursor.

        Raises:
            InvalidInputError: it is no such cursor, or not a whole one.
        """
        text = arguments.text("the cursor", text)
        try:
            return replace(self, seen=_unpacked(_data(text.strip(), self.mark)))
        except (binascii.Error, ValueError, IndexError) as error:
            raise InvalidInputError(
                f"{text.strip()[:40]!r} is no cursor of this kind, or not a whole one: {error}. "
                "Without a cursor everything is given, and a new cursor with it."
            ) from error

    def __str__(self) -> str:
        """Return it as text: about 16 characters for each writer."""
        data = b"".join(key + _packed(seq) for key, seq in sorted(self.seen.items()))
        return self.mark + base64.urlsafe_b64encode(data).decode().rstrip("=")

    def floor(self, writer: str) -> int:
        """Return the greatest number that was had of a writer, -1 for none."""
        return self.seen.get(_key(writer), -1)

    def after(self, greatest: Mapping[str, int]) -> Self:
        """Return the cursor of somebody who has had these too.

        Args:
            greatest: numbers by writer.
        """
        seen = dict(self.seen)
        for writer, seq in greatest.items():
            seen[_key(writer)] = max(seq, self.floor(writer))
        return replace(self, seen=seen)


def _data(text: str, mark: str) -> bytes:
    if not text.startswith(mark):
        message = f"it does not begin with {mark!r}"
        raise ValueError(message)
    body = text.removeprefix(mark)
    return base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)


def _key(writer: str) -> bytes:
    return hashlib.blake2b(writer.encode(), digest_size=_HASH_BYTES).digest()


def _packed(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first; the last has no high bit."""
    out = bytearray()
    while number >= _HIGH:
        out.append(number & (_HIGH - 1) | _HIGH)
        number >>= 7
    out.append(number)
    return bytes(out)


def _unpacked(data: bytes) -> dict[bytes, int]:
    seen: dict[bytes, int] = {}
    place = 0
    while place < len(data):
        key = data[place : place + _HASH_BYTES]
        place += _HASH_BYTES
        number = shift = 0
        while data[place] & _HIGH:
            number |= (data[place] & (_HIGH - 1)) << shift
            place, shift = place + 1, shift + 7
        seen[key] = number | data[place] << shift
        place += 1
    return seen
