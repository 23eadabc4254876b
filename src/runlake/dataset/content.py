"""What a data set holds, in short: a digest, a schema and a profile of tables and arrays.

A digest is of values, not of bytes in memory: the same values have the same digest as int32 and
int64, as Python's texts, Arrow's and categories, from pandas, Polars and Arrow, in one chunk and
in many, in any process and with any version of these libraries. Whole numbers are held apart
from floats, and nulls from NaN.

How: each column, or array, is cut into blocks of a fixed number of values. Of a block come first,
where there are nulls, the places of the others; then the values that are not null: whole numbers
in the narrowest of (int8, uint8, int16, ... uint64) that holds them all, floats as float32 where
that is exact for all and else as float64, texts as their lengths and their UTF-8, lists as their
lengths and their items, all little-endian. The digest is the first 32 hex digits of the SHA-256
of a header, with names, kinds and shape, and all blocks.

More than 1 GiB (8 bytes for each value, and the bytes of texts) is sampled: 256 ranges, spread
evenly from the first value to the last.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

LIMIT_BYTES: Final = 1 << 30
DIGEST_CHARS: Final = 32
_BLOCK: Final = 1 << 18
_RANGES: Final = 256
_COLUMNS: Final = 1000
_HEAD: Final = 64
_WHOLE: Final = ("<i1", "<u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8")
_PER_S: Final = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}
_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Content:
    """What is known of a data set's content.

    Attributes:
        digest: 32 hex digits.
        schema: columns or arrays, with their types, for JSON; None for files.
        profile: sizes and counts by name, for JSON.
    """

    digest: str
    schema: list[dict[str, Any]] | None
    profile: dict[str, Any] = field(default_factory=dict)


def of_table(table: pa.Table, *, digest: str | None = None) -> Content:
    """Describe a table.

    Args:
        table: of any types but unions.
        digest: in place of the computed one; then any types will do.

    Returns:
        Its digest, columns, and how many rows, bytes and nulls it has.

    Raises:
        InvalidInputError: a column is of a type that has no digest.
    """
    rows = table.num_rows
    sampled: dict[str, bool] = {}
    if digest is None:
        digest, sampled = _table_digest(table)
    nulls = {
        name: column.null_count
        for name, column in zip(table.column_names, table.columns, strict=True)
        if column.null_count
    }
    profile: dict[str, Any] = {"rows": rows, "columns": table.num_columns, "bytes": table.nbytes}
    if nulls:
        profile["nulls"] = dict(list(nulls.items())[:_COLUMNS])
    columns = [{"name": column.name, "type": str(column.type)} for column in table.schema]
    return Content(digest, columns, profile | sampled)


def of_arrays(arrays: Mapping[str, NDArray[Any]], *, digest: str | None = None) -> Content:
    """Describe one or several arrays of any shapes.

    Args:
        arrays: by name; numbers, texts or times.
        digest: in place of the computed one; then any types will do.

    Returns:
        Their digest, shapes and types, and how many values and bytes they have.

    Raises:
        InvalidInputError: an array holds objects that have no digest.
    """
    sampled: dict[str, bool] = {}
    if digest is None:
        digest, sampled = _arrays_digest(arrays)
    schema = [
        {"name": name, "type": str(values.dtype), "shape": list(values.shape)}
        for name, values in arrays.items()
    ]
    profile = {
        "arrays": len(arrays),
        "values": sum(values.size for values in arrays.values()),
        "bytes": sum(values.nbytes for values in arrays.values()),
    }
    return Content(digest, schema, profile | sampled)


def _table_digest(table: pa.Table) -> tuple[str, dict[str, bool]]:
    """Return the digest of a table, and whether it is of all rows."""
    rows = table.num_rows
    texts = sum(_text_bytes(column) for column in table.columns)
    ranges = _ranges(rows, 8 * rows * max(1, table.num_columns) + texts)
    kinds = [
        [name, _kind(column.type, name)]
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    digest = _begin({"kind": "table", "rows": rows, "columns": kinds})
    for column in table.columns:
        for begin, end in ranges:
            for start in range(begin, end, _BLOCK):
                _feed(digest, _joined(column.slice(start, min(_BLOCK, end - start))))
    return digest.hexdigest()[:DIGEST_CHARS], _sampled(rows, ranges)


def _arrays_digest(arrays: Mapping[str, NDArray[Any]]) -> tuple[str, dict[str, bool]]:
    """Return the digest of arrays, and whether it is of all values."""
    kinds = [
        [name, _array_kind(values, name), list(values.shape)] for name, values in arrays.items()
    ]
    digest = _begin({"kind": "arrays", "arrays": kinds})
    sampled: dict[str, bool] = {}
    weight = 8 * sum(values.size for values in arrays.values())
    for values in arrays.values():
        flat = values.reshape(-1)
        ranges = _ranges(flat.size, weight)
        sampled |= _sampled(flat.size, ranges)
        for begin, end in ranges:
            for start in range(begin, end, _BLOCK):
                block = flat[start : min(start + _BLOCK, end)]
                if block.dtype.kind in "biufc":
                    _feed_numbers(digest, block)
                else:
                    _feed(digest, pa.array(block, from_pandas=False))
    return digest.hexdigest()[:DIGEST_CHARS], sampled


def _begin(header: dict[str, Any]) -> hashlib._Hash:
    digest = hashlib.sha256()
    digest.update(json.dumps(header, separators=(",", ":")).encode() + b"\n")
    return digest


def _ranges(count: int, weight: int) -> list[tuple[int, int]]:
    """Return which of so many values go into the digest: all, or evenly spread ranges."""
    if weight <= LIMIT_BYTES or count < _RANGES:
        return [(0, count)]
    each = max(1, count * LIMIT_BYTES // weight // _RANGES)
    last = count - each
    return [(begin, begin + each) for begin in (last * n // (_RANGES - 1) for n in range(_RANGES))]


def _sampled(count: int, ranges: list[tuple[int, int]]) -> dict[str, bool]:
    return {} if ranges == [(0, count)] else {"is_sampled": True}


def _text_bytes(column: pa.ChunkedArray[Any]) -> int:
    """Return how many bytes the texts of a column have."""
    kind = column.type
    if not (_is_text(kind) or _is_binary(kind)):
        return 0
    if not (pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind)):
        column = column.cast(pa.large_string() if _is_text(kind) else pa.large_binary())
    return int(pc.sum(pc.cast(pc.binary_length(column), pa.int64())).as_py() or 0)


def _joined(column: pa.ChunkedArray[Any]) -> Any:  # noqa: ANN401 - an Arrow array of any type
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def _kind(kind: Any, name: str) -> Any:  # noqa: ANN401, PLR0911 - Arrow's, a tree for JSON; a table
    """Return what a column holds, without how it is stored."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _kind(kind.storage_type, name)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _kind(kind.value_type, name)
    if _is_list(kind):
        return ["list", _kind(kind.value_type, name)]
    if types.is_struct(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        return ["struct", [[each.name, _kind(each.type, name)] for each in fields]]
    if types.is_map(kind):
        return ["map", _kind(kind.key_type, name), _kind(kind.item_type, name)]
    if types.is_timestamp(kind):
        return "instant" if kind.tz else "time"
    for word, fits in (
        ("null", types.is_null),
        ("bool", types.is_boolean),
        ("int", types.is_integer),
        ("float", types.is_floating),
        ("decimal", types.is_decimal),
        ("text", _is_text),
        ("bytes", _is_binary),
        ("date", types.is_date),
        ("clock", types.is_time),
        ("duration", types.is_duration),
    ):
        if fits(kind):
            return word
    message = (
        f"column {name!r} is of type {kind}, which has no digest. Give one: "
        "runlake.Dataset(name=..., digest=...)."
    )
    raise InvalidInputError(message)


def _array_kind(values: NDArray[Any], name: str) -> Any:  # noqa: ANN401 - a tree for JSON
    word = {"b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex"}.get(
        values.dtype.kind
    )
    if word is not None:
        return word
    try:
        return _kind(pa.array(values.reshape(-1)[:_HEAD], from_pandas=False).type, name)
    except (pa.ArrowException, TypeError, ValueError) as error:
        message = (
            f"array {name!r} holds {values.dtype}, which has no digest: {error} Give one: "
            "runlake.Dataset(name=..., digest=...)."
        )
        raise InvalidInputError(message) from error


def _plain(values: Any) -> Any:  # noqa: ANN401, PLR0911 - an Arrow array of any type; a table
    """Return values in a form that all that follows can take."""
    kind, types = values.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(values.storage)
    if types.is_dictionary(kind):
        return _plain(values.dictionary_decode())
    if types.is_run_end_encoded(kind):
        return _plain(pc.call_function("run_end_decode", [values]))
    if types.is_decimal(kind) or types.is_string_view(kind):
        return values.cast(pa.large_string())
    if types.is_binary_view(kind):
        return values.cast(pa.large_binary())
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        # Arrow's own cast gets the lengths wrong.
        return pa.array(values.to_pylist(), pa.large_list(kind.value_field))
    if types.is_map(kind):
        return values.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
    return values


def _feed(digest: hashlib._Hash, given: Any) -> None:  # noqa: ANN401 - an Arrow array of any type
    """Take one block of values into a digest."""
    values = _plain(given)
    kind = values.type
    if values.null_count:
        valid = values.is_valid().to_numpy(zero_copy_only=False)
        digest.update(b"n" + np.packbits(valid).tobytes())
        values = values.drop_null()
    if pa.types.is_null(kind):
        return
    if _is_text(kind) or _is_binary(kind):
        _feed_texts(digest, values)
    elif _is_list(kind):
        _feed_lists(digest, values)
    elif pa.types.is_struct(kind):
        for part in values.flatten():
            _feed(digest, part)
    elif pa.types.is_temporal(kind):
        _feed_times(digest, values)
    else:
        _feed_numbers(digest, values.to_numpy(zero_copy_only=False))


def _feed_texts(digest: hashlib._Hash, values: Any) -> None:  # noqa: ANN401 - as above
    plain = values.cast(pa.large_binary() if _is_binary(values.type) else pa.large_string())
    _, offsets, data = plain.buffers()
    if offsets is None or not len(plain):
        return
    bounds = np.frombuffer(offsets, "<i8")[plain.offset : plain.offset + len(plain) + 1]
    _feed_numbers(digest, np.diff(bounds))
    if data is not None:
        digest.update(memoryview(data)[bounds[0] : bounds[-1]])


def _feed_lists(digest: hashlib._Hash, values: Any) -> None:  # noqa: ANN401 - as above
    lengths = pc.cast(pc.list_value_length(values), pa.int64())
    _feed_numbers(digest, lengths.to_numpy(zero_copy_only=False))
    _feed(digest, values.flatten())


def _feed_times(digest: hashlib._Hash, values: Any) -> None:  # noqa: ANN401 - as above
    """Take times in as whole microseconds, and what is finer besides."""
    kind = values.type
    if pa.types.is_date(kind):
        days = values.cast(pa.date32()).view(pa.int32())
        _feed_numbers(digest, days.to_numpy(zero_copy_only=False))
        return
    wide = pa.int32() if kind.bit_width == 32 else pa.int64()  # noqa: PLR2004 - bits
    counts = values.view(wide).to_numpy(zero_copy_only=False).astype("<i8")
    per_s = _PER_S[kind.unit]
    if per_s <= _US:
        _feed_numbers(digest, counts * (_US // per_s))
        return
    finer = counts % 1000
    _feed_numbers(digest, counts // 1000)
    if finer.any():
        digest.update(b"f")
        _feed_numbers(digest, finer)


def _feed_numbers(digest: hashlib._Hash, values: NDArray[Any]) -> None:
    """Take numbers in, in the form that only their values decide."""
    if values.dtype.kind == "c":
        _feed_numbers(digest, values.real)
        _feed_numbers(digest, values.imag)
        return
    for part in _narrow(values):
        digest.update(part)


def _narrow(values: NDArray[Any]) -> Iterator[Any]:
    if values.dtype.kind == "b":
        values = values.view("u1") if values.flags.c_contiguous else values.astype("u1")
    if values.dtype.kind in "iu":
        low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
        narrow = next(
            kind for kind in _WHOLE if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max
        )
    else:
        values, narrow = _plain_floats(values)
    yield narrow.encode()
    # Without a copy where it is in that form already.
    yield np.ascontiguousarray(values.astype(narrow, copy=False)).data


def _plain_floats(values: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Return floats with one kind of NaN, and float32 or float64, whichever is exact."""
    has_nan = np.isnan(values)
    if has_nan.any():
        values = np.where(has_nan, np.array(np.nan, values.dtype), values)
    if values.dtype.itemsize <= 4:  # noqa: PLR2004 - bytes of a float32
        return values, "<f4"
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        # A look at the first says nearly always that the rest need not be asked.
        for some in (values[:_HEAD], values):
            if not ((some.astype("<f4") == some) | np.isnan(some)).all():
                return values, "<f8"
    return values, "<f4"
