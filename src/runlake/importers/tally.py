"""What sets of points have in common: counts, sums and a checksum per key, in any order.

Two sets of points with equal tallies hold the same points: the checksum is the sum of a 64-bit
hash of each, so it does not depend on order, and says when one came twice. NaN is one value here,
whatever its bits are; 0.0 and -0.0 are two.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake._lazy import lazy
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

_MASK: Final = (1 << 64) - 1
# Odd constants of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), one turn for each column.
_TURN: Final = 0x9E3779B97F4A7C15
_MIX: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted of one metric of one run.

    Attributes:
        count: points, NaN among them.
        nan_count: points that are NaN.
        total: sum of the finite values; its last digits depend on the order.
        checksum: see the module.
    """

    count: int = 0
    nan_count: int = 0
    total: float = 0.0
    checksum: int = 0

    def plus(self, other: Tally) -> Tally:
        """Return the tally of both sets together."""
        return Tally(
            self.count + other.count,
            self.nan_count + other.nan_count,
            self.total + other.total,
            (self.checksum + other.checksum) & _MASK,
        )

    def is_same(self, other: Tally) -> bool:
        """Tell whether both are of the same points."""
        return (self.count, self.checksum) == (other.count, other.checksum)


class Coded(NamedTuple):
    """Points with a hash each.

    Attributes:
        codes: shape (n,), the number of each point's key.
        keys: the keys.
        hashes: shape (n,), uint64; of key and content.
    """

    codes: NDArray[np.int32]
    keys: list[str]
    hashes: NDArray[np.uint64]


def hashed(table: pa.Table) -> Coded:
    """Hash each point.

    Args:
        table: columns `key`, `step`, `timestamp` (microseconds), `value`.

    Returns:
        Keys as numbers, and the hashes.
    """
    coded: Any = table["key"].cast(pa.string()).combine_chunks().dictionary_encode()
    keys: list[str] = coded.dictionary.to_pylist()
    codes: NDArray[np.int32] = arrays.values(coded.indices)
    seeds = np.array([_seed(key) for key in keys], np.uint64)
    times: Any = table["timestamp"].combine_chunks().cast(pa.int64())
    numbers = arrays.values(table["value"].combine_chunks())
    numbers = np.where(np.isnan(numbers), np.nan, numbers)
    found = seeds[codes] if len(keys) else np.zeros(0, np.uint64)
    for column in (
        arrays.values(table["step"].combine_chunks()).view(np.uint64),
        arrays.values(times).view(np.uint64),
        numbers.view(np.uint64),
    ):
        found = _mixed(found ^ column)
    return Coded(codes, keys, found)


def tallies(table: pa.Table) -> dict[str, Tally]:
    """Count the points of each key.

    Args:
        table: as for `hashed`.

    Returns:
        Tallies by key.
    """
    codes, keys, hashes = hashed(table)
    if not keys:
        return {}
    size = len(keys)
    numbers = arrays.values(table["value"].combine_chunks())
    is_nan, is_finite = np.isnan(numbers), np.isfinite(numbers)
    counts = np.bincount(codes, minlength=size)
    nans = np.bincount(codes, weights=is_nan, minlength=size)
    totals = np.bincount(codes, weights=np.where(is_finite, numbers, 0.0), minlength=size)
    checksums = np.zeros(size, np.uint64)
    np.add.at(checksums, codes, hashes)
    return {
        key: Tally(int(counts[at]), int(nans[at]), float(totals[at]), int(checksums[at]))
        for at, key in enumerate(keys)
    }


def joined(parts: Iterable[dict[str, Tally]]) -> dict[str, Tally]:
    """Return the tallies of several sets of points together, by key."""
    found: dict[str, Tally] = {}
    for part in parts:
        for key, tally in part.items():
            found[key] = found.get(key, Tally()).plus(tally)
    return found


class Remainder:
    """What is left of points when others are taken away, each as often as it occurs there."""

    def __init__(self, others: Iterable[pa.Table]) -> None:
        """Take in what is to be taken away.

        Args:
            others: tables as for `hashed`; only their hashes are kept.
        """
        pieces = [hashed(table).hashes for table in others]
        gathered = np.concatenate(pieces) if pieces else np.zeros(0, np.uint64)
        self._known, self._left = np.unique(gathered, return_counts=True)

    def of(self, table: pa.Table) -> pa.Table:
        """Return the rows of a table that are left; what it took away is used up.

        Args:
            table: as for `hashed`.
        """
        if not len(self._known) or not table.num_rows:
            return table
        hashes = hashed(table).hashes
        at = np.minimum(np.searchsorted(self._known, hashes), len(self._known) - 1)
        is_known = self._known[at] == hashes
        order = np.argsort(np.where(is_known, at, -1), kind="stable")
        sorted_at = np.where(is_known, at, -1)[order]
        is_head = np.r_[True, sorted_at[1:] != sorted_at[:-1]]
        starts = np.flatnonzero(is_head)
        ranks = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        is_taken = np.zeros(len(order), bool)
        is_taken[order] = (sorted_at >= 0) & (ranks < self._left[np.maximum(sorted_at, 0)])
        used = np.bincount(at[is_taken], minlength=len(self._left))
        self._left = self._left - used
        return table.filter(arrays.flags(~is_taken))


def _seed(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's mixing of each number; wraps around, as it should."""
    mixed = numbers + np.uint64(_TURN)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_MIX[0])
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_MIX[1])
    found: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return found
