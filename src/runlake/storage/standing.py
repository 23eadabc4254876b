"""Which of several rows stands: grouping and choosing over whole columns.

Nearly all facts of a lake are said once, by one writer; what was said once needs no choosing.
So the groups are counted first, and only rows of groups with several are sorted. Texts are
numbered before, because numbers are a tenth of the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake._lazy import lazy
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

# Numbers up to this many times the rows are counted in a table of their own size.
_SPARSE: Final = 8


class Coded(NamedTuple):
    """A column of texts as numbers.

    Attributes:
        codes: shape (n,), the place of each row's text in `values`.
        values: the distinct texts.
    """

    codes: NDArray[np.int32]
    values: pa.StringArray

    def code_of(self, text: str) -> int:
        """Return the number of a text, -1 where no row has it."""
        return int(self.values.index(arrays.text(text)).as_py())

    def ranks(self) -> NDArray[np.int64]:
        """Return the place of each of `values` in their order."""
        order = np.argsort(np.array(self.values.to_pylist(), dtype=object), kind="stable")
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return ranks


def coded(column: pa.ChunkedArray[Any]) -> Coded:
    """Number the texts of a column without nulls; each of the numbers occurs."""
    if not len(column):  # of which Arrow makes an array in a way that imports pandas
        return Coded(np.zeros(0, np.int32), arrays.strings([]))
    whole = _encoded(column)
    codes, values = arrays.values(whole.indices), whole.dictionary
    is_used = np.zeros(len(values), bool)
    is_used[codes] = True
    if not is_used.all():  # what a filter left out leaves its text behind
        values = values.take(arrays.numbers(np.flatnonzero(is_used)))
        codes = (np.cumsum(is_used, dtype=np.int32) - 1)[codes]
    return Coded(codes, values)


def joined(one: Coded, other: Coded) -> Coded:
    """Number the texts of two columns, the second below the first."""
    if not len(one.codes) or not len(other.codes):
        return other if not len(one.codes) else one
    places = places_in(other.values, one.values)
    is_new = places < 0
    places[is_new] = np.arange(is_new.sum(), dtype=np.int32) + len(one.values)
    more: Any = other.values.filter(arrays.flags(is_new))
    values: Any = pa.concat_arrays([one.values, more])
    return Coded(np.concatenate([one.codes, places[other.codes]]), values)


def places_in(texts: pa.StringArray, known: pa.StringArray) -> NDArray[np.int32]:
    """Return where texts stand among others, each of both once; -1 where they do not."""
    # To number the texts of one side is more work than to look those of the other up.
    if len(texts) >= len(known):
        found: Any = pc.index_in(texts, value_set=known)
        return np.where(arrays.is_valid(found), arrays.values(found), -1).astype(np.int32)
    found = pc.index_in(known, value_set=texts)
    at = np.flatnonzero(arrays.is_valid(found))
    places = np.full(len(texts), -1, np.int32)
    places[arrays.values(found)[at]] = at
    return places


def _encoded(column: pa.ChunkedArray[Any]) -> Any:  # noqa: ANN401 - a dictionary array
    """Return a column as one array of numbered texts."""
    if column.num_chunks > 1:
        return column.dictionary_encode().unify_dictionaries().combine_chunks()
    chunk: Any = column.chunk(0)
    return chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()


def begins(groups: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell of each row whether a group begins with it; rows of a group lie together."""
    is_first = np.ones(len(groups), bool)
    np.not_equal(groups[1:], groups[:-1], out=is_first[1:])
    return is_first


def expand(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return all numbers of some ranges, of the first, then of the second, and so on."""
    counts = ends - starts
    shift = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    found: NDArray[np.int64] = np.arange(len(shift)) + shift
    return found


def occurs_once(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of each row whether no other is of its group; groups are numbers from 0."""
    if not len(groups):
        return np.zeros(0, bool)
    if int(groups.max()) >= _SPARSE * len(groups):
        encoded: Any = arrays.numbers(groups).dictionary_encode()
        groups = arrays.values(encoded.indices)
    counts = np.bincount(groups)
    is_once: NDArray[np.bool_] = (counts == 1)[groups]
    return is_once


def standing(
    groups: NDArray[np.int64], order: Sequence[NDArray[Any]], *, latest: bool
) -> NDArray[np.int64]:
    """Choose one row of each group.

    Args:
        groups: shape (n,), the group of each row, numbers from 0.
        order: columns of shape (n,) that rows of a group are ordered by, the first first; of
            floats, NaN is the greatest.
        latest: choose the greatest row of each group; else the least.

    Returns:
        The places of the chosen rows, rising.
    """
    is_single = occurs_once(groups)
    if is_single.all():
        return np.arange(len(groups))
    rows = np.flatnonzero(~is_single)
    rows = rows[np.lexsort([*(column[rows] for column in reversed(order)), groups[rows]])]
    of = groups[rows]
    is_edge = begins(of[::-1])[::-1] if latest else begins(of)
    return np.sort(np.concatenate([np.flatnonzero(is_single), rows[is_edge]]))
