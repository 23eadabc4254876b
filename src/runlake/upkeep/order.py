"""Sorting rows by several columns, quickly where most of them are in order already.

What writers log lies by sequence number, so the points of one curve are nearly always in
order, and only the curves are mixed. So rows are brought together by their texts first, as
numbers in one stable pass, and only groups that are then out of order are sorted at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.storage import arrays
from runlake.storage.standing import begins, coded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

_DIGIT: Final = 16  # bits that NumPy's stable sort handles in one pass over the rows
_SIGN: Final = 63
_MANY: Final = 1 << 48  # combinations of texts; few of them occur


def in_order(rows: pa.Table, by: Sequence[str], *, size: int) -> Iterator[pa.Table]:
    """Yield rows in order, in pieces.

    Args:
        rows: in any order.
        by: the columns to sort by, without nulls: texts by their UTF-8 bytes, numbers by
            value, doubles by IEEE 754's total order.
        size: rows of a piece.

    Yields:
        All rows; those that agree in `by` in the order they came in.
    """
    order = sort_order(rows, by)
    if order is None:
        yield from (rows.slice(start, size) for start in range(0, rows.num_rows, size))
        return
    for start in range(0, rows.num_rows, size):
        yield rows.take(arrays.numbers(order[start : start + size]))


def sort_order(rows: pa.Table, by: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the places of rows in order; None where they are in order already.

    Args:
        rows: in any order.
        by: as in `in_order`.
    """
    texts = 0
    while texts < len(by) and _is_text(rows.schema.field(by[texts]).type):
        texts += 1
    groups = group_codes(rows, by[:texts])
    order = _by_code(groups)
    if order is not None:
        groups = groups[order]
    rest = [rows[name] for name in by[texts:]]
    descents = _descents(groups, order, rest)
    if not len(descents):
        return order
    if order is None:
        order = np.arange(rows.num_rows)
    numbers = np.cumsum(begins(groups)) - 1
    is_bad = np.zeros(int(numbers[-1]) + 1, bool)
    is_bad[numbers[descents]] = True
    places = np.flatnonzero(is_bad[numbers])
    some = arrays.numbers(order[places])
    keys = [ranks_of(column.take(some)) for column in reversed(rest)]
    order[places] = order[places][np.lexsort([*keys, numbers[places]])]
    return order


def group_codes(rows: pa.Table, by: Sequence[str]) -> NDArray[np.int64]:
    """Return one number from 0 on for each row, in the order of some columns of texts.

    Args:
        rows: any rows.
        by: the columns; where there is none all rows are of one group.
    """
    codes, count = np.zeros(rows.num_rows, np.int64), 1
    for name in by:
        found = coded(rows[name])
        if count * len(found.values) >= _MANY:
            distinct, codes = np.unique(codes, return_inverse=True)
            count = len(distinct)
        count *= len(found.values)
        codes = codes * len(found.values) + found.ranks()[found.codes]
    return codes


def ranks_of(column: pa.ChunkedArray[Any]) -> NDArray[np.int64]:
    """Return a column without nulls as numbers of the same order."""
    if _is_text(column.type):
        found = coded(column)
        return found.ranks()[found.codes]
    whole: Any = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # combine_chunks of no chunk at all
        return np.zeros(0, np.int64)
    if pa.types.is_timestamp(whole.type):
        whole = whole.cast(pa.int64())
    plain = arrays.values(whole)
    if plain.dtype.kind == "f":
        bits = plain.view(np.int64)
        return bits ^ ((bits >> _SIGN) & np.int64((1 << _SIGN) - 1))
    return plain


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_dictionary(kind)


def _by_code(codes: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the stable order of numbers from 0 on; None where they do not fall."""
    if not len(codes) or (codes[1:] >= codes[:-1]).all():
        return None
    top, mask = int(codes.max()), (1 << _DIGIT) - 1
    order = np.argsort((codes & mask).astype(np.uint16), kind="stable")
    for shift in range(_DIGIT, top.bit_length(), _DIGIT):
        digits = (codes[order] >> shift & mask).astype(np.uint16)
        order = order[np.argsort(digits, kind="stable")]
    return order


def _descents(
    groups: NDArray[np.int64],
    order: NDArray[np.int64] | None,
    rest: Sequence[pa.ChunkedArray[Any]],
) -> NDArray[np.int64]:
    """Return the places of rows, by groups in order, that the next row of the group precedes."""
    is_down = np.zeros(max(0, len(groups) - 1), bool)
    tied = groups[1:] == groups[:-1]
    for column in rest:
        if not tied.any():
            break
        ranks = ranks_of(column)
        sorted_column = ranks if order is None else ranks[order]
        here, following = sorted_column[:-1], sorted_column[1:]
        is_down |= tied & (here > following)
        tied &= here == following
    return np.flatnonzero(is_down)
