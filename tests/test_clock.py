"""The clock: microseconds of the wall, and seconds that never go back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from runlake import clock


def test_now_us_is_the_wall_clock_in_microseconds_utc() -> None:
    shown = datetime.fromtimestamp(clock.now_us() / 1e6, UTC)
    assert abs(shown - datetime.now(UTC)) < timedelta(minutes=1)


def test_monotonic_s_never_goes_back() -> None:
    seen = [clock.monotonic_s() for _ in range(1000)]
    assert seen == sorted(seen)
