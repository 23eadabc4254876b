"""The x of curves: steps, times, seconds since the run began, or the values of another metric."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from operator import index
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.query.curves import Points, Window, find_order, value_order

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

STEP: Final = "step"
TIME: Final = "time"
RELATIVE: Final = "relative"
WORDS: Final = (STEP, TIME, RELATIVE)

_INT64: Final = range(-(2**63), 2**63)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Axis(NamedTuple):
    """What x is, and which part of it is wanted, both ends included.

    Attributes:
        name: `step`, `time`, `relative`, or the key of a metric.
        low: a step, microseconds since 1970, seconds, or a value; None for no bound.
        high: the same.
    """

    name: str
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, name: object, *, start: object, stop: object) -> Axis:
        """Read what a caller gave.

        Args:
            name: see the attributes.
            start: an integer for steps; an aware datetime or milliseconds since 1970 for
                times; else a number; None for no bound.
            stop: the same.

        Returns:
            The axis, its bounds in the units of the attributes.

        Raises:
            InvalidInputError: it is none of these, or `start` is greater than `stop`.
        """
        if not isinstance(name, str):
            raise InvalidInputError(
                f"x is 'step', 'time', 'relative' or the key of a metric, got {name!r:.80}."
            )
        read = _READERS.get(name, _number)
        low = None if start is None else read("start", start)
        high = None if stop is None else read("stop", stop)
        if low is not None and high is not None and low > high:
            raise InvalidInputError(f"start is {start!r} and stop is {stop!r}, which is less.")
        return cls(name, low, high)

    @property
    def metric(self) -> str | None:
        """The key of the metric that x is; None where it is none."""
        return None if self.name in WORDS else self.name

    @property
    def window(self) -> Window | None:
        """What files can be asked for; None where the range is of no column that they have."""
        if self.name not in _READERS or (self.low is None and self.high is None):
            return None
        low, high = (None if bound is None else int(bound) for bound in (self.low, self.high))
        return Window("step" if self.name == STEP else "timestamp", low, high)

    def within(self, x: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell of each x whether it is wanted; NaN, where there is none, is not."""
        is_wanted = np.ones(len(x), bool) if self.metric is None else ~np.isnan(x)
        if self.low is not None:
            is_wanted &= x >= self.low
        if self.high is not None:
            is_wanted &= x <= self.high
        return is_wanted


def follow(points: Points, guides: Points, *, keys: int) -> NDArray[np.float64]:
    """Return for each point what another metric of its run was at its step.

    That is the value logged at the step, or else at the last step before; of several values at
    one step the last, in the order of curves. Values that are NaN or infinite are no place on
    an axis, and count as not logged.

    Args:
        points: of runs and keys, ordered by curve.
        guides: the points of the other metric; the number of its curve is that of the run.
        keys: how many keys `points` has: curve `r * keys + k` is of run `r`.

    Returns:
        shape (n,), NaN where nothing was logged yet.
    """
    order = find_order([guides.curves, guides.steps, guides.times, *value_order(guides.values)])
    guides = guides if order is None else guides.take(order)
    guides = guides.take(np.isfinite(guides.values))
    runs, steps = guides.curves, guides.steps
    is_last = np.r_[(runs[1:] != runs[:-1]) | (steps[1:] != steps[:-1]), True][: len(runs)]
    guides = guides.take(is_last)
    found = np.full(len(points.curves), math.nan)
    names, firsts = np.unique(guides.curves, return_index=True)
    ends = np.r_[firsts[1:], len(guides.curves)][: len(names)]
    spans = np.searchsorted(points.curves, [names * keys, (names + 1) * keys])
    for first, end, start, stop in zip(firsts, ends, *spans, strict=True):
        places = np.searchsorted(guides.steps[first:end], points.steps[start:stop], side="right")
        values = np.r_[math.nan, guides.values[first:end]]
        found[start:stop] = values[places]
    return found


def _step(name: str, value: object) -> int:
    try:
        step = None if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        step = None
    if step is None or step not in _INT64:
        raise InvalidInputError(f"with x='step', {name} is a 64-bit integer, got {value!r:.80}.")
    return step


def _time(name: str, value: object) -> int:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return (value - _EPOCH) // timedelta(microseconds=1)
    if isinstance(value, datetime):
        raise InvalidInputError(
            f"{name} {value} has no time zone; use datetime.now(timezone.utc) and the like."
        )
    try:
        time = _number(name, value) * 1000
        if round(time) in _INT64:
            return round(time)
    except (InvalidInputError, OverflowError):
        pass
    raise InvalidInputError(
        f"with x='time', {name} is an aware datetime or milliseconds since 1970, got {value!r:.80}."
    )


def _number(name: str, value: object) -> float:
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        raise InvalidInputError(f"with this x, {name} is a number, got {value!r:.80}.")
    return number


_READERS: Final[dict[str, Callable[[str, object], float]]] = {STEP: _step, TIME: _time}
