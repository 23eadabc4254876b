"""Messages in the wire format of Protocol Buffers, read without their schema.

W&B's run files and TensorBoard's event files are made of such messages. The few fields that an
import needs are asked for by number; everything else is passed over, so that files of older and
newer versions read alike and no generated code is needed.

Source: the encoding guide of Protocol Buffers, "Message Structure".
"""

from __future__ import annotations

import struct
from typing import Final

from runlake.importers.source import SourceError

_MORE: Final = 0x80  # the bit of a byte that says that more of the number follows
_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5
_SIGN: Final = 1 << 63
_WIDTHS: Final = {_FIXED64: 8, _FIXED32: 4}
_MOST_SHIFT: Final = 63
_DOUBLE: Final = struct.Struct("<d")


class WireError(SourceError):
    """These bytes are no message."""


def _fields(data: bytes) -> dict[int, list[int | bytes]]:
    """Return the values of each field of a message by its number, in file order.

    A value is an unsigned int where it is a varint, else the bytes of it: 8 or 4 of a fixed
    number, all of a text, of an inner message or of packed numbers.

    Args:
        data: one message.

    Raises:
        WireError: it ends too early or holds what no message holds.
    """
    found: dict[int, list[int | bytes]] = {}
    position, end = 0, len(data)
    while position < end:
        tag = data[position]
        position += 1
        if tag >= _MORE:
            tag, position = _varint(data, position - 1)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, position = _varint(data, position)
        else:
            if kind == _LENGTH:
                width, position = _varint(data, position)
            elif kind in _WIDTHS:
                width = _WIDTHS[kind]
            else:
                raise WireError(f"field {number} is of the unknown kind {kind}.")
            value = data[position : position + width]
            position += width
        if position > end or not number:
            raise WireError(f"field {number} ends {position - end} bytes behind its message.")
        if number in found:
            found[number].append(value)
        else:
            found[number] = [value]
    return found


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number that begins at a position, and where it ends."""
    try:
        byte = data[position]
        if byte < _MORE:
            return byte, position + 1
        value = byte & 0x7F
        for shift in range(7, _MOST_SHIFT + 1, 7):
            position += 1
            byte = data[position]
            value |= (byte & 0x7F) << shift
            if byte < _MORE:
                return value, position + 1
    except IndexError:
        raise WireError("a number ends behind its message.") from None
    raise WireError("a number has more than 64 bits.")


class Message:
    """The fields of one message, asked for by number; what is absent is 0 or empty."""

    __slots__ = ("_found",)

    def __init__(self, data: bytes) -> None:
        """Read a message.

        Raises:
            WireError: it is none.
        """
        self._found = _fields(data)

    def __contains__(self, number: int) -> bool:
        """Return whether a field is there."""
        return number in self._found

    def raw(self, number: int) -> bytes:
        """Return the bytes of a field, the last where it is repeated.

        Raises:
            WireError: it is a varint.
        """
        values = self._found.get(number)
        if values is None:
            return b""
        value = values[-1]
        if isinstance(value, int):
            raise WireError(f"field {number} is a number where bytes were expected.")
        return value

    def raws(self, number: int) -> list[bytes]:
        """Return the bytes of each value of a repeated field.

        Raises:
            WireError: a value is a varint.
        """
        values = []
        for value in self._found.get(number, ()):
            if isinstance(value, int):
                raise WireError(f"field {number} is a number where bytes were expected.")
            values.append(value)
        return values

    def text(self, number: int) -> str:
        """Return a text; what is no UTF-8 in it becomes question marks."""
        return self.raw(number).decode(errors="replace")

    def texts(self, number: int) -> list[str]:
        """Return the texts of a repeated field, as `text` does."""
        return [value.decode(errors="replace") for value in self.raws(number)]

    def inner(self, number: int) -> Message:
        """Return an inner message, an empty one where it is absent.

        Raises:
            WireError: it is none.
        """
        return Message(self.raw(number))

    def inners(self, number: int) -> list[Message]:
        """Return the inner messages of a repeated field.

        Raises:
            WireError: one of them is none.
        """
        return [Message(value) for value in self.raws(number)]

    def whole(self, number: int) -> int:
        """Return an int32, int64, bool or enum.

        Raises:
            WireError: the field is no varint.
        """
        values = self._found.get(number)
        if values is None:
            return 0
        value = values[-1]
        if not isinstance(value, int):
            raise WireError(f"field {number} is no whole number.")
        return value - (1 << 64) if value & _SIGN else value

    def wholes(self, number: int) -> list[int]:
        """Return the whole numbers of a repeated field, packed or not.

        Raises:
            WireError: the packed ones end too early.
        """
        found: list[int] = []
        for value in self._found.get(number, ()):
            if isinstance(value, int):
                found.append(value)
                continue
            position = 0
            while position < len(value):
                one, position = _varint(value, position)
                found.append(one)
        return [value - (1 << 64) if value & _SIGN else value for value in found]

    def zigzag(self, number: int) -> int:
        """Return a sint32 or sint64.

        Raises:
            WireError: the field is no varint.
        """
        value = self.whole(number) & ((1 << 64) - 1)
        return (value >> 1) ^ -(value & 1)

    def double(self, number: int) -> float:
        """Return a double or float, as wide as it is stored.

        Raises:
            WireError: the field has another width.
        """
        value = self.raw(number)
        if len(value) == _WIDTHS[_FIXED64]:
            return float(_DOUBLE.unpack(value)[0])
        found = self.doubles(number)
        return found[-1] if found else 0.0

    def doubles(self, number: int) -> list[float]:
        """Return the doubles of a repeated field, packed or not; 4 bytes alone are a float.

        Raises:
            WireError: a value has another width.
        """
        found: list[float] = []
        for value in self.raws(number):
            if len(value) == _WIDTHS[_FIXED32]:
                found += struct.unpack("<f", value)
            elif len(value) % 8 == 0:
                found += struct.unpack(f"<{len(value) // 8}d", value)
            else:
                raise WireError(f"field {number} has {len(value)} bytes, no doubles.")
        return found
