"""The record log of a W&B run: what its client writes while it is offline.

The file has a header of 7 bytes, then blocks of 32 KiB as LevelDB's log has them: each record
lies in one or more fragments with a checksum, and none crosses the end of a block. A record is
one message of Protocol Buffers. The last record of a writer that was killed may be cut off:
reading ends before it and says so. Damage anywhere else is an error.

Source: "LevelDB Log Format"; W&B's checksum is CRC-32 over the kind and the content.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

from runlake.importers.source import SourceError
from runlake.importers.wire import Message, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

HEADER: Final = b":W&B\xe1\xbe"
_HEADER_BYTES: Final = 7
_VERSION: Final = 0
_BLOCK_BYTES: Final = 32768
_FRAGMENT: Final = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_NEEDS_BEGUN: Final = {_FULL: False, _FIRST: False, _MIDDLE: True, _LAST: True}
_CHECKED: Final = {kind: zlib.crc32(bytes([kind])) for kind in _NEEDS_BEGUN}


class RecordLog:
    """One `.wandb` file, read from its begin each time.

    Attributes:
        path: of the file.
        cut_at: where the last reading met a record that was cut off; None if it met none.
    """

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self.path = path
        self.cut_at: int | None = None

    def records(self) -> Iterator[Message]:
        """Yield the records in the order in which they were written.

        Raises:
            SourceError: the file is no record log, or is damaged before its end.
        """
        self.cut_at = None
        with self.path.open("rb") as file:
            self._check_header(file.read(_HEADER_BYTES))
            begun: bytearray | None = None
            offset = _HEADER_BYTES
            for offset, kind, content in self._fragments(file):
                if _NEEDS_BEGUN[kind] is (begun is None):
                    raise self._damaged(offset, "a record begins before the last one ended")
                if kind == _FULL:
                    yield self._message(offset, content)
                elif kind == _FIRST:
                    begun = bytearray(content)
                elif begun is not None:
                    begun += content
                    if kind == _LAST:
                        yield self._message(offset, bytes(begun))
                        begun = None
            if begun is not None and self.cut_at is None:
                self.cut_at = offset

    def _check_header(self, header: bytes) -> None:
        if header[:-1] != HEADER:
            message = f"{self.path} does not begin as a run file of W&B does."
            raise SourceError(message)
        if header[-1] != _VERSION:
            message = f"{self.path} is a run file of W&B of the unknown version {header[-1]}."
            raise SourceError(message)

    def _fragments(self, file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
        """Yield offset, kind and content of each fragment up to the end or what was cut off."""
        start, block = 0, b"\0" * _HEADER_BYTES + file.read(_BLOCK_BYTES - _HEADER_BYTES)
        position = _HEADER_BYTES
        while len(block) > position:
            following = file.read(_BLOCK_BYTES) if len(block) == _BLOCK_BYTES else b""
            while position <= len(block) - _FRAGMENT.size:
                checksum, width, kind = _FRAGMENT.unpack_from(block, position)
                content = block[position + _FRAGMENT.size :][:width]
                offset = start + position
                is_whole = (
                    len(content) == width
                    and kind in _CHECKED
                    and zlib.crc32(content, _CHECKED[kind]) == checksum
                )
                if not is_whole:
                    rest = block[position + _FRAGMENT.size + width :] + following
                    if rest.strip(b"\0"):
                        raise self._damaged(offset, "its checksum does not fit")
                    self.cut_at = offset
                    return
                position += _FRAGMENT.size + width
                yield offset, kind, content
            if len(block) < _BLOCK_BYTES and position < len(block):
                self.cut_at = start + position
                return
            start, block, position = start + len(block), following, 0

    def _message(self, offset: int, content: bytes) -> Message:
        try:
            return Message(content)
        except WireError as error:
            raise self._damaged(offset, str(error)) from error

    def _damaged(self, offset: int, why: str) -> SourceError:
        return SourceError(
            f"{self.path} is damaged: the record at byte {offset:,} cannot be read ({why}). "
            "Fetch the file once more from where it was written."
        )
