"""Answers to questions, each from exactly one snapshot."""

from __future__ import annotations

from runlake.query.engine import Query

__all__ = ["Query"]
