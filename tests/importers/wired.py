"""Bytes as other trackers write them: messages, W&B's record log, TensorBoard's event files."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

from runlake.importers.tfevents import masked_crc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_BLOCK = 32768


def varint(number: int) -> bytes:
    """Return a number of 64 bits, a negative one as its complement."""
    rest, out = number & (1 << 64) - 1, bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def field(number: int, value: float | str | bytes) -> bytes:
    """Return one field: an int as varint, a float as double, all else with its length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def single(number: int, value: float) -> bytes:
    """Return a field of 32 bits."""
    return varint(number << 3 | 5) + struct.pack("<f", value)


# W&B.


def record_log(records: Iterable[bytes]) -> bytes:
    """Return records as W&B's log has them."""
    out = bytearray(b":W&B\xe1\xbe\0")
    for record in records:
        rest, is_first = record, True
        while is_first or rest:
            room = _BLOCK - len(out) % _BLOCK
            if room < 7:
                out += b"\0" * room
                continue
            piece, rest = rest[: room - 7], rest[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}
            which = kind[is_first, not rest]
            checksum = zlib.crc32(bytes([which]) + piece)
            out += struct.pack("<IHB", checksum, len(piece), which) + piece
            is_first = False
    return bytes(out)


def run_record(run_id: str = "abcd1234", *, start_s: int = 1_700_000_000) -> bytes:
    """Return the record that says whose log it is."""
    return field(17, field(1, run_id) + field(3, "digits") + field(17, field(1, start_s)))


def row_record(step: int, values: Mapping[str, Any], time_s: float = 1.7e9) -> bytes:
    """Return a row of a history."""
    told = {**values, "_step": step, "_timestamp": time_s}
    items = [field(1, field(2, k) + field(16, json.dumps(v))) for k, v in told.items()]
    return field(2, b"".join(items) + field(2, field(1, step)))


def exit_record(code: int = 0) -> bytes:
    """Return the record of a run's end."""
    return field(18, field(1, code) + field(2, 5))


def offline_run(folder: Path, records: Iterable[bytes], run_id: str = "abcd1234") -> Path:
    """Write a run as W&B's client does and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"run-{run_id}.wandb").write_bytes(record_log(records))
    return folder


# TensorBoard.


def event_file(events: Iterable[bytes]) -> bytes:
    """Return events as TensorBoard's files have them."""
    out = bytearray()
    for event in events:
        head = struct.pack("<Q", len(event))
        out += head + struct.pack("<I", masked_crc(head))
        out += event + struct.pack("<I", masked_crc(event))
    return bytes(out)


def event(step: int, *values: bytes, time_s: float = 1.7e9) -> bytes:
    """Return one event with a summary."""
    return field(1, time_s) + field(2, step) + field(5, b"".join(field(1, v) for v in values))


def plugin(name: str, content: bytes = b"") -> bytes:
    """Return the metadata that names the plugin of a value."""
    return field(9, field(1, field(1, name) + field(2, content)))


def tensor(kind: int, shape: Iterable[int], content: bytes) -> bytes:
    """Return a tensor as the field of a value."""
    sizes = b"".join(field(2, field(1, size)) for size in shape)
    return field(8, field(1, kind) + field(2, sizes) + content)
