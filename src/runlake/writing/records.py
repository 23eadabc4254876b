"""How metric points lie in a page: records of 32 bytes, packed one by one or many at once."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.writing.pages import PAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
else:
    np = lazy("numpy")

RECORD_BYTES: Final = 32
PAGE_POINTS: Final = PAGE_BYTES // RECORD_BYTES
PAGE_SHIFT: Final = PAGE_POINTS.bit_length() - 1
# From so many points of one call on, columns are faster than a loop.
MANY: Final = 64
_FIELDS: Final = "qqdII"
pack: Final = struct.Struct("<" + _FIELDS).pack_into
"""Write step, time, value, key id and mark at a place of a buffer, the mark last."""


@lru_cache(maxsize=MANY)
def packer(count: int) -> Callable[..., None]:
    """Return a function that packs so many records at once, one behind the other."""
    return struct.Struct("<" + _FIELDS * count).pack_into


def flat(
    number: int, key_ids: Sequence[int], numbers: Sequence[float], *, step: int, time_us: int
) -> list[float]:
    """Return the fields of the records from point `number` on, as `packer` wants them.

    Args:
        number: of the first point.
        key_ids: shape (n,).
        numbers: shape (n,), the value of each.
        step: of all.
        time_us: of all, microseconds since 1970.
    """
    count = len(key_ids)
    fields: list[float] = [step] * (5 * count)
    fields[1::5] = [time_us] * count
    fields[2::5] = numbers
    fields[3::5] = key_ids
    fields[4::5] = range(number + 1, number + count + 1)
    return fields


def record_type() -> np.dtype[Any]:
    """Return the type of a record as NumPy sees it."""
    fields = [("step", "<i8"), ("time", "<i8"), ("value", "<f8"), ("key", "<u4"), ("mark", "<u4")]
    return np.dtype(fields)
