"""The data sets that runs read, with all that was said of each.

What rides in footers names them; schema and profile are too long for that, and come from rows,
of the writers that said something of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from runlake import schema
from runlake.query.rare import read_rare
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Collection

    from runlake.query.engine import Query


class Input(NamedTuple):
    """A data set that a run read.

    Attributes:
        name: what people call it.
        digest: what changes when the data do.
        source_type: what kind of source.
        source: where it comes from.
        context: what the run read it for.
        tags: further texts by key, as MLflow's clients give them; the context is not among them.
        schema: what columns or arrays it has, as text.
        profile: what is worth knowing of its content, as text.
    """

    name: str
    digest: str
    source_type: str | None
    source: str | None
    context: str | None
    tags: dict[str, str]
    schema: str | None
    profile: str | None


def read_inputs(query: Query, run_ids: Collection[str]) -> dict[str, list[Input]]:
    """Return the data sets of some runs, in the order in which they were said.

    Args:
        query: the snapshot.
        run_ids: the runs.

    Returns:
        By run; runs without any are left out.

    Raises:
        FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
        StorageError: the store cannot be read.
    """
    facts = query.tables.facts.of_kinds({schema.INPUT})
    if not facts.num_rows or not run_ids:
        return {}
    chosen = facts.of_runs(arrays.strings(sorted(run_ids))).table()
    if not chosen.num_rows:
        return {}
    columns = (
        chosen[name].to_pylist() for name in ("run_id", "key", "clock", "writer", "seq", "str")
    )
    said: dict[tuple[str, str], tuple[int, str, int, str]] = {}
    for run_id, key, clock, writer, seq, text in zip(*columns, strict=True):
        fact = (clock, writer, seq, text or "")
        said[run_id, key] = max(said.get((run_id, key), fact), fact)
    details = _read_details(query, {fact[1] for fact in said.values()}, {run for run, _ in said})
    found: dict[str, list[Input]] = {}
    for name, fact in sorted(said.items(), key=lambda item: item[1][:3]):
        about, more = _json(fact[3]), details.get(name, {})
        if "name" in about:
            found.setdefault(name[0], []).append(_input(about, more))
    return found


def _read_details(
    query: Query, writers: set[str], run_ids: set[str]
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what was said latest of schema and profile, by run and key."""
    latest: dict[tuple[str, str], tuple[int, str, int, str | None]] = {}
    for row in read_rare(query.tables, schema.DATASET, writers=writers, run_ids=run_ids):
        fact = (row.clock, row.writer, row.seq, row.str)
        known = latest.get((row.run_id, row.key))
        if known is None or known[:3] < fact[:3]:
            latest[row.run_id, row.key] = fact
    return {name: _json(fact[3]) for name, fact in latest.items()}


def _input(about: dict[str, Any], more: dict[str, Any]) -> Input:
    tags = about.get("tags")
    return Input(
        name=str(about["name"]),
        digest=str(about.get("digest", "")),
        source_type=about.get("source_type"),
        source=about.get("source"),
        context=about.get("context"),
        tags=dict(tags) if isinstance(tags, dict) else {},
        schema=more.get("schema"),
        profile=more.get("profile"),
    )


def _json(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
