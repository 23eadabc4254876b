"""Arrow arrays from Python and NumPy and back, without pandas.

pyarrow's own ways (`pa.array`, `to_numpy`, `fill_null`) import pandas wherever it is installed,
which takes a third of a second and tens of megabytes in every process that logs. What writes
goes through here; nothing here knows what a column means.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, TypeVar

from runlake._lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

_Values = TypeVar("_Values", bound="pa.Array[Any]")

_FEW: Final = 100


def numbers(column: NDArray[Any], *, mask: NDArray[np.bool_] | None = None) -> pa.Array[Any]:
    """Return a NumPy column as an Arrow array, not copied where it lies in one piece.

    Args:
        column: shape (n,), 32-bit or 64-bit integers, or float64.
        mask: shape (n,), True where the array is null.
    """
    plain: Any = np.ascontiguousarray(column)
    buffers = [_bitmap(mask), pa.py_buffer(plain)]
    return pa.Array.from_buffers(pa.from_numpy_dtype(column.dtype), len(column), buffers)


def flags(column: NDArray[np.bool_]) -> pa.BooleanArray:
    """Return a NumPy column of truths as an Arrow array."""
    packed: Any = np.packbits(column, bitorder="little")
    array: Any = pa.Array.from_buffers(pa.bool_(), len(column), [None, pa.py_buffer(packed)])
    found: pa.BooleanArray = array
    return found


def strings(texts: Sequence[str | None]) -> pa.StringArray:
    """Return texts as an Arrow array, None as null.

    Raises:
        OverflowError: they have more than 2 GiB.
    """
    if len(texts) > _FEW:
        return scattered(len(texts), range(len(texts)), texts)
    # For a few texts what `scattered` does with NumPy takes longer than all the rest.
    encoded = [b"" if text is None else text.encode() for text in texts]
    ends: Any = np.fromiter(accumulate(map(len, encoded), initial=0), np.int32)
    nulls = _bitmap(np.array([text is None for text in texts])) if None in texts else None
    data: list[Any] = [nulls, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    made: Any = pa.Array.from_buffers(pa.string(), len(encoded), data)
    found: pa.StringArray = made
    return found


def text(value: str) -> pa.StringScalar:
    """Return one text as Arrow's functions take it."""
    return strings([value])[0]


def scattered(count: int, places: Sequence[int], texts: Sequence[str | None]) -> pa.StringArray:
    """Return an Arrow array that is null but for some places.

    Args:
        count: of the array.
        places: where texts stand, rising.
        texts: as many as places; None is null too.

    Raises:
        OverflowError: they have more than 2 GiB.
    """
    encoded = [b"" if text is None else text.encode() for text in texts]
    sizes = np.zeros(count + 1, np.int64)
    valid = np.zeros(count, bool)
    at = np.asarray(places, dtype=np.int64)
    sizes[at + 1] = [len(each) for each in encoded]
    valid[at] = [text is not None for text in texts]
    ends = np.cumsum(sizes)
    if ends[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"{count} texts have {ends[-1]:,} bytes; one array holds 2 GiB.")
    offsets: Any = ends.astype(np.int32)
    data = [_bitmap(~valid), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    array: Any = pa.Array.from_buffers(pa.string(), count, data)
    found: pa.StringArray = array
    return found


def values(array: pa.Array[Any]) -> NDArray[Any]:
    """Return the values of an array of integers or float64; where it is null, anything."""
    kind = np.dtype(array.type.to_pandas_dtype())
    data: Any = array.buffers()[1]
    if data is None:
        return np.zeros(len(array), kind)
    found: NDArray[Any] = np.frombuffer(data, kind, len(array), array.offset * kind.itemsize)
    return found


def is_valid(array: pa.Array[Any]) -> NDArray[np.bool_]:
    """Tell for each place of an array whether it is not null."""
    bitmap: Any = array.buffers()[0]
    if bitmap is None:
        return np.full(len(array), array.null_count == 0)
    packed: NDArray[np.uint8] = np.frombuffer(bitmap, np.uint8)
    bits = np.unpackbits(packed, bitorder="little")[array.offset : array.offset + len(array)]
    return bits.astype(bool)


def truths(array: pa.BooleanArray) -> NDArray[np.bool_]:
    """Return an array of truths without nulls as NumPy's."""
    return values(array.cast(pa.int8())).astype(bool)


def named(known: _Values, codes: NDArray[Any]) -> _Values:
    """Return those of some values that codes name, each once, in the order of the values.

    Args:
        known: shape (k,).
        codes: shape (n,), places in `known`.
    """
    # `numpy.unique` loads `numpy.ma`, a thirtieth of the time that a first question takes.
    is_named = np.zeros(len(known), np.bool_)
    is_named[codes] = True
    found: Any = known.filter(flags(is_named))
    kept: _Values = found
    return kept


def whole(column: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    """Return a column in one piece, not copied where it is so already."""
    if not len(column):
        nothing: pa.Array[Any] = pa.nulls(0, column.type)
        return nothing
    # Arrow copies also what is in one piece already.
    found: Any = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    made: pa.Array[Any] = found
    return made


def _bitmap(mask: NDArray[np.bool_] | None) -> pa.Buffer | None:
    """Return Arrow's validity bitmap; None where nothing is null."""
    if mask is None or not mask.any():
        return None
    bits: Any = np.packbits(~mask, bitorder="little")
    return pa.py_buffer(bits)
