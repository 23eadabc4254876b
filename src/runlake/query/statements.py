"""Statements over the public views that people are shown, to be run by `Lake.sql`."""

from __future__ import annotations

from typing import Final

POINTS_OF_METRICS: Final = "SELECT key, count(*) AS points FROM metrics GROUP BY key"
