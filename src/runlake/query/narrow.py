"""A few runs of a snapshot by themselves: what is said of all others is not folded.

To fold what a snapshot says of every run takes as long as the lake is large, and a program that
logs to a run and looks at it, in turns, asks a new snapshot each time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runlake.query.engine import Query
from runlake.storage import arrays
from runlake.storage.states import StateRows

if TYPE_CHECKING:
    from collections.abc import Sequence

# What writers say of themselves names no run.
_NOBODY = ""


def narrow(query: Query, run_ids: Sequence[str]) -> Query:
    """Return a snapshot that holds some runs only, as far as facts and metrics go.

    Args:
        query: the snapshot.
        run_ids: the runs wanted; unknown ones are in neither.

    Returns:
        The same snapshot where it is folded already; else one that says of these runs what the
        whole one does.

    Raises:
        FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
    """
    if query.folded.is_folded:
        return query
    tables = query.tables
    wanted = arrays.strings([*run_ids, _NOBODY])
    facts = StateRows(tables.facts.of_runs(wanted).table())
    summaries = StateRows(tables.summaries.of_runs(wanted).table())
    return Query(replace(tables, facts=facts, summaries=summaries))
