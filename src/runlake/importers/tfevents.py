"""TensorBoard's event files: their records, and the few messages that an import needs.

A file is a sequence of records as TensorFlow writes them: the length, its checksum, the content,
its checksum (CRC-32C, masked). Each record is one message `Event`. The last record of a writer
that lives or was killed may be cut off: reading ends before it and says so. Damage anywhere else
is an error.

Source: TensorFlow, `record_writer.h`, `event.proto`, `summary.proto`, `tensor.proto`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.importers.source import SourceError
from runlake.importers.wire import Message, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

_LENGTH: Final = struct.Struct("<QI")
_CHECKSUM: Final = struct.Struct("<I")
_PAIR: Final = struct.Struct("<H")
_POLYNOMIAL: Final = 0x82F63B78
_MASK: Final = 0xA282EAD8
_WORD: Final = 0xFFFFFFFF
_STRING: Final = 7
# Type in a tensor -> NumPy's name of it, and the field that holds values outside of the content.
_TYPES: Final = {
    1: ("<f4", 5),
    2: ("<f8", 6),
    3: ("<i4", 7),
    4: ("u1", 7),
    5: ("<i2", 7),
    6: ("i1", 7),
    9: ("<i8", 10),
    10: ("?", 11),
    19: ("<f2", 13),
    22: ("<u4", 16),
    23: ("<u8", 17),
}


@cache
def _table() -> list[int]:
    """Return what two bytes, the first the low one, turn a checksum into."""
    single = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        single.append(value)
    firsts = [single[pair & 0xFF] ^ (pair >> 8) for pair in range(1 << 16)]
    return [single[first & 0xFF] ^ (first >> 8) for first in firsts]


def masked_crc(data: bytes) -> int:
    """Return the checksum that stands behind these bytes in a record file."""
    table, crc = _table(), _WORD
    for (pair,) in _PAIR.iter_unpack(data[: len(data) & ~1]):
        crc = table[(crc ^ pair) & 0xFFFF] ^ (crc >> 16)
    if len(data) & 1:
        low = (crc ^ data[-1]) & 0xFF
        for _ in range(8):
            low = (low >> 1) ^ (_POLYNOMIAL if low & 1 else 0)
        crc = low ^ (crc >> 8)
    crc ^= _WORD
    return (((crc >> 15) | (crc << 17)) + _MASK) & _WORD


class EventFile:
    """One event file, read from its begin each time.

    Attributes:
        path: of the file.
        cut_at: where the last reading met a record that was cut off; None if it met none.
    """

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self.path = path
        self.cut_at: int | None = None
        self._checked_bytes = 0

    def events(self) -> Iterator[Message]:
        """Yield the messages `Event` in file order.

        Raises:
            SourceError: the file is damaged before its end.
        """
        self.cut_at = None
        size = self.path.stat().st_size
        offset = 0
        with self.path.open("rb") as file:
            while offset < size:
                head = file.read(_LENGTH.size)
                if len(head) < _LENGTH.size:
                    self.cut_at = offset
                    return
                length, checksum = _LENGTH.unpack(head)
                end = offset + _LENGTH.size + length + _CHECKSUM.size
                if end > self._checked_bytes and masked_crc(head[:8]) != checksum:
                    # What a writer reserved and never filled reads as zeros.
                    if not head.strip(b"\0") and not file.read().strip(b"\0"):
                        self.cut_at = offset
                        return
                    raise self._damaged(offset, "the checksum of its length does not fit")
                if end > size:
                    self.cut_at = offset
                    return
                content = file.read(length)
                (checksum,) = _CHECKSUM.unpack(file.read(_CHECKSUM.size))
                # What was checked once need not be for each of the questions that read it again.
                if end > self._checked_bytes and masked_crc(content) != checksum:
                    if end == size:
                        self.cut_at = offset
                        return
                    raise self._damaged(offset, "its checksum does not fit")
                try:
                    yield Message(content)
                except WireError as error:
                    raise self._damaged(offset, str(error)) from error
                offset = end
                self._checked_bytes = max(self._checked_bytes, end)

    def _damaged(self, offset: int, why: str) -> SourceError:
        return SourceError(
            f"{self.path} is damaged: the record at byte {offset:,} cannot be read ({why}). "
            "Fetch the file once more from where it was written."
        )


@dataclass(slots=True)
class Tensor:
    """A tensor of a summary.

    Attributes:
        shape: of it.
        numbers: its values, flat; None where they are no numbers.
        texts: the values of a tensor of bytes.
    """

    shape: tuple[int, ...]
    numbers: NDArray[Any] | None
    texts: list[bytes]


def tensor(message: Message) -> Tensor | None:
    """Return a tensor; None if it is of a type that no summary has.

    Raises:
        WireError: it is damaged.
    """
    kind = message.whole(1)
    shape = tuple(one.whole(1) for one in message.inner(2).inners(2))
    if kind == _STRING:
        return Tensor(shape, None, message.raws(8))
    if kind not in _TYPES:
        return None
    name, number = _TYPES[kind]
    content = message.raw(4)
    if not content:
        return Tensor(shape, _listed(message, kind, number), [])
    try:
        return Tensor(shape, np.frombuffer(content, np.dtype(name)), [])
    except ValueError as error:
        raise WireError(f"a tensor's content does not fit its type: {error}") from error


def _listed(message: Message, kind: int, number: int) -> NDArray[Any] | None:
    """Return values that stand in a field of their own; one value may stand for all."""
    name = np.dtype(_TYPES[kind][0])
    if name.kind == "f" and name.itemsize > 2:  # noqa: PLR2004 - halves are whole numbers
        content = b"".join(message.raws(number))
        if len(content) % name.itemsize:
            raise WireError("a tensor's values do not fit its type.")
        return np.frombuffer(content, name)
    found = message.wholes(number)
    if name.kind == "f":
        return np.array([one & 0xFFFF for one in found], np.uint16).view(np.float16)
    try:
        return np.array(found, name)
    except OverflowError as error:
        raise WireError(f"a tensor's values do not fit its type: {error}") from error
