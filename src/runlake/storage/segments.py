"""One segment: an immutable Parquet file with the events of one writer.

Encoding is exact to the column (types, encodings, checksums), because other engines read
these files without runlake. The footer carries who wrote it, which rows, a digest of them,
and the writer's cumulative state. The normative text is `docs/spec/v1.md`, "Segment file".
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError, NewerFormatError
from runlake.storage import arrays
from runlake.storage.state import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pq = lazy("pyarrow.parquet")

MAGIC: Final = b"PAR1"
TAIL_BYTES: Final = 64 << 10  # one read of this much from the end holds nearly every footer
FACTS_KEY: Final = schema.STATE_KEY + b".facts"
SUMMARIES_KEY: Final = schema.STATE_KEY + b".summaries"
CHECKSUM_KEY: Final = schema.STATE_KEY + b".crc32"

_ENCODINGS: Final = {
    "step": "DELTA_BINARY_PACKED",
    "timestamp": "DELTA_BINARY_PACKED",
    "num": "BYTE_STREAM_SPLIT",
}
_DICTIONARY: Final = ["run_id", "kind", "key"]
# A curve costs the row groups that hold it: of these, many are read at once, and few in vain.
_GROUP_ROWS: Final = 1 << 17
_OPTIONS: Final[dict[str, Any]] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": _DICTIONARY,
    "column_encoding": _ENCODINGS,
    "write_page_checksum": True,
    "write_statistics": True,
    "store_schema": False,
}


@dataclass(frozen=True, slots=True)
class Header:
    """What a segment says of itself, as JSON under the footer key `runlake`.

    Attributes:
        writer: the writer's id, as in the name.
        experiment_id: the partition.
        experiment_name: the experiment's name as the writer knew it.
        first: sequence number of the first row.
        last: sequence number of the last row.
        digest: of the rows, see `digest`; equal digests mean equal rows.
        nonce: tells this attempt to write from any other.
        host: where it was written.
        pid: the process.
        boot_id: the boot of that host, so that a pid is not taken for another's.
        version: of runlake.
        format: major version of the format.
    """

    writer: str
    experiment_id: str
    experiment_name: str
    first: int
    last: int
    digest: str
    nonce: str
    host: str
    pid: int
    boot_id: str
    version: str
    format: int = schema.FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class Footer:
    """All that a reader of run-level answers needs of one segment."""

    header: Header
    state: State
    row_count: int


def segment_schema() -> pa.Schema:
    """Return the Arrow schema of a segment's rows."""
    text = pa.string()
    coded = pa.dictionary(pa.int32(), text)
    fields = [
        ("run_id", coded),
        ("kind", coded),
        ("key", coded),
        ("step", pa.int64()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("num", pa.float64()),
        ("str", text),
    ]
    return pa.schema(fields)


def encode(rows: pa.Table, header: Header, state: State) -> bytes:
    """Turn rows into the bytes of a segment.

    Args:
        rows: shape (count, 7), columns of `segment_schema`, in order of sequence number.
        header: what the segment says of itself; `first` and `last` MUST fit the rows.
        state: the writer's cumulative contribution.

    Returns:
        A whole Parquet file.
    """
    sink = pa.BufferOutputStream()
    facts, summaries = state.encode()
    said = {name: getattr(header, name) for name in Header.__slots__}
    metadata: Any = {
        schema.FOOTER_KEY: json.dumps(said, separators=(",", ":")).encode(),
        FACTS_KEY: facts,
        SUMMARIES_KEY: summaries,
        CHECKSUM_KEY: _checksum(facts, summaries),
    }
    with pq.ParquetWriter(sink, rows.schema, **_OPTIONS) as writer:
        writer.write_table(rows, row_group_size=_GROUP_ROWS)
        writer.add_key_value_metadata(metadata)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _checksum(facts: bytes, summaries: bytes) -> bytes:
    return f"{zlib.crc32(summaries, zlib.crc32(facts)):08x}".encode()


def footer_size(tail: bytes, *, key: str) -> int:
    """Return how many bytes at the end of a segment hold its footer.

    Args:
        tail: the last bytes of the file, at least 8.
        key: the segment's key, for the message.

    Raises:
        FormatError: this is no Parquet file.
    """
    if len(tail) < len(MAGIC) + 4 or tail[-4:] != MAGIC:
        message = f"{key}: the file does not end with {MAGIC.decode()}, so it is no whole segment"
        raise FormatError(message)
    return int.from_bytes(tail[-8:-4], "little") + 8


def read_footer(tail: bytes, *, key: str) -> Footer:
    """Read a segment's footer from its last bytes.

    Args:
        tail: at least the last `footer_size` bytes of the file; the whole file is fine.
        key: the segment's key, for messages.

    Returns:
        What the footer says, the state decoded.

    Raises:
        FormatError: the footer is damaged or not ours.
        NewerFormatError: a newer runlake wrote it.
    """
    if footer_size(tail, key=key) > len(tail):
        message = f"{key}: the footer is longer than the file, so it is no whole segment"
        raise FormatError(message)
    try:
        parquet = pq.read_metadata(pa.BufferReader(tail))
        metadata = parquet.metadata or {}
        fields = json.loads(metadata[schema.FOOTER_KEY])
        number = int(fields["format"])
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        message = f"{key}: no readable runlake footer: {error}"
        raise FormatError(message) from error
    if number > schema.FORMAT_VERSION:
        message = (
            f"{key}: format {number} is newer than this runlake reads "
            f"({schema.FORMAT_VERSION}). Upgrade: pip install --upgrade runlake"
        )
        raise NewerFormatError(message)
    try:
        header = Header(**{name: fields[name] for name in Header.__slots__})
        facts, summaries = metadata[FACTS_KEY], metadata[SUMMARIES_KEY]
    except KeyError as error:
        message = f"{key}: the footer has no {error}"
        raise FormatError(message) from error
    said = metadata.get(CHECKSUM_KEY)
    # Segments whose state zlib has compressed and checked may have none.
    if said is not None and said != _checksum(facts, summaries):
        message = f"{key}: the state in the footer is damaged: its checksum is another"
        raise FormatError(message)
    return Footer(header, State.decode(facts, summaries), parquet.num_rows)


def decode(data: bytes, *, key: str) -> tuple[pa.Table, Footer]:
    """Read a whole segment.

    Args:
        data: the file.
        key: the segment's key, for messages.

    Returns:
        The rows, with the columns of `segment_schema`, and the footer.

    Raises:
        FormatError: the file is damaged, not ours, or of a newer format.
    """
    footer = read_footer(data, key=key)
    try:
        # Not read_table, which imports datasets and pandas.
        with pq.ParquetFile(
            pa.BufferReader(data), read_dictionary=_DICTIONARY, page_checksum_verification=True
        ) as file:
            rows = file.read()
        rows = rows.cast(segment_schema())
    except (pa.ArrowException, OSError, ValueError) as error:
        message = f"{key}: the rows cannot be read: {error}"
        raise FormatError(message) from error
    return rows, footer


def digest(rows: pa.Table) -> str:
    """Return a digest of rows that depends on their content only, not on their encoding.

    It is the first half of the SHA-256 of, in this order: for `run_id`, `kind` and `key` the
    JSON list of the distinct values in the order of first appearance, then, where there are
    more than one, the place of each row's value in that list (int32); `step`, `timestamp` and
    `num` as int64 and float64, null as 0; the
    positions of their nulls (int64); the JSON list of [row, text] of `str` where it is not
    null. All numbers are little-endian.

    Args:
        rows: columns of `segment_schema`.

    Returns:
        32 lower-case hex digits.
    """
    total = hashlib.sha256()
    for name in _DICTIONARY:
        codes, values = _first_seen(rows[name])
        total.update(json.dumps(values).encode())
        if len(values) > 1:
            total.update(np.ascontiguousarray(codes).data)
    for name in ("step", "timestamp", "num"):
        column: Any = rows[name].combine_chunks()
        if column.null_count:
            nulls = np.flatnonzero(~arrays.is_valid(column))
            total.update(nulls.astype("<i8").data)
        if name != "num":
            column = column.cast(pa.int64())
        plain = arrays.values(column)
        if column.null_count:
            plain = np.where(arrays.is_valid(column), plain, 0)
        total.update(np.ascontiguousarray(plain).data)
    texts: Any = rows["str"].combine_chunks()
    positions: Sequence[int] = []
    if texts.null_count < len(texts):
        positions = np.flatnonzero(arrays.is_valid(texts)).tolist()
    pairs = list(zip(positions, texts.drop_null().to_pylist(), strict=True))
    total.update(json.dumps(pairs).encode())
    return total.hexdigest()[:32]


def _first_seen(column: pa.ChunkedArray[Any]) -> tuple[NDArray[np.int32], list[str]]:
    """Number the values of a coded column in the order of their first appearance."""
    coded: Any = column.combine_chunks()
    codes: NDArray[Any] = arrays.values(coded.indices)
    size = len(coded.dictionary)
    if size == 1 and len(codes):
        return codes, coded.dictionary.to_pylist()
    first = np.full(size, len(codes), dtype=np.int64)
    # Written back to front, so that what remains is the first place of each code.
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    order = np.argsort(first, kind="stable")
    used = order[first[order] < len(codes)]
    renumber = np.zeros(size, dtype="<i4")
    renumber[used] = np.arange(len(used), dtype="<i4")
    values = coded.dictionary.take(arrays.numbers(used)).to_pylist()
    return renumber[codes], values
