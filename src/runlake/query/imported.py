"""What a snapshot says of runs that were, or will be, brought from elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake._lazy import lazy
from runlake.query import scan
from runlake.query.export import to_rows

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import polars as pl
    import pyarrow as pa

    from runlake.query.engine import Query
else:
    pl = lazy("polars")

_IMPORTS_SQL: Final = f"""
SELECT run_id, arg_max(key, "at") AS kind, arg_max("value", "at") AS about
FROM events
WHERE kind = '{schema.IMPORT}'
GROUP BY run_id
"""
_RUN_IDS_SQL: Final = "SELECT run_id FROM inside.run_facts"
_FACTS_SQL: Final = """
SELECT run_id, experiment_id, run_name, status, user_id, source_name, parent_run_id,
    lifecycle_stage, epoch_us(start_time) AS start_us, epoch_us(end_time) AS end_us
FROM inside.run_facts
WHERE run_id IN (SELECT unnest(CAST($1 AS VARCHAR[])))
"""
_HELD_SQL: Final = """
SELECT run_id, 'param' AS kind, key, value FROM params
WHERE run_id IN (SELECT unnest(CAST($1 AS VARCHAR[])))
UNION ALL
SELECT run_id, 'tag' AS kind, key, value FROM tags
WHERE run_id IN (SELECT unnest(CAST($1 AS VARCHAR[])))
"""
_EVENTS_SQL: Final = """
SELECT run_id, kind, key, value, epoch_us("at") AS at_us, writer
FROM events
WHERE run_id IN (SELECT unnest(CAST($1 AS VARCHAR[])))
ORDER BY "at", writer
"""
_ARTIFACTS_SQL: Final = """
SELECT run_id, path, size, coalesce(sha256, '') AS sha256
FROM artifacts
WHERE run_id IN (SELECT unnest(CAST($1 AS VARCHAR[])))
"""


_LISTED_SQL: Final = """
SELECT run_id, experiment_name, run_name, status, user_id, source_name, parent_run_id,
    lifecycle_stage, epoch_us(start_time) AS start_us, epoch_us(end_time) AS end_us
FROM inside.run_facts
ORDER BY start_time, run_id
"""
# What no other tracker takes: kinds of events, and what people call them.
_LEFT_KINDS: Final = {
    schema.HISTOGRAM: "histograms",
    schema.CONSOLE: "lines of the console",
    schema.ALERT: "alerts",
    schema.NOTE: "notes",
    schema.PROVENANCE: "facts of provenance",
}
_LEFT_SQL: Final = """
SELECT kind, count(*) AS count
FROM events
WHERE kind IN (SELECT unnest(CAST($1 AS VARCHAR[])))
GROUP BY kind
ORDER BY kind
"""


def listed(query: Query) -> list[dict[str, Any]]:
    """Return all runs, deleted ones too, the oldest first.

    Args:
        query: the snapshot.

    Returns:
        What each says of itself, times in microseconds since 1970, UTC.
    """
    return to_rows(query.read(_LISTED_SQL, needs=("run_facts",)))


def left_behind(query: Query) -> dict[str, int]:
    """Return how many things the runs of a snapshot have that no other tracker takes.

    Args:
        query: the snapshot.

    Returns:
        By what people call them.
    """
    rows = to_rows(query.read(_LEFT_SQL, [list(_LEFT_KINDS)], needs=("events",)))
    return {_LEFT_KINDS[row["kind"]]: row["count"] for row in rows}


def imports(query: Query) -> dict[str, tuple[str, str]]:
    """Return what the last import of each run that was brought says.

    Args:
        query: the snapshot.

    Returns:
        By run the tracker, and the JSON.
    """
    rows = to_rows(query.read(_IMPORTS_SQL, needs=("events",)))
    return {row["run_id"]: (row["kind"], row["about"]) for row in rows}


def run_ids(query: Query) -> set[str]:
    """Return all runs of the snapshot, deleted ones too, and those with nothing but points."""
    found: Any = query.read(_RUN_IDS_SQL, needs=("run_facts",))["run_id"].to_pylist()
    pointed: Any = query.tables.summaries["run_id"].unique().to_pylist()
    return {*found, *pointed}


def facts(query: Query, wanted: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return what some runs say of themselves, times in microseconds since 1970, UTC.

    Args:
        query: the snapshot.
        wanted: the runs.

    Returns:
        By run the columns of the view `runs`, `start_us` and `end_us`, and `held`: texts by kind
        (`param`, `tag`) and key.
    """
    rows = to_rows(query.read(_FACTS_SQL, [list(wanted)], needs=("run_facts",)))
    found: dict[str, dict[str, Any]] = {row["run_id"]: {**row, "held": {}} for row in rows}
    held = query.read(_HELD_SQL, [list(wanted)], needs=("params", "tags"))
    for row in held.to_pylist():
        found[row["run_id"]]["held"][row["kind"], row["key"]] = row["value"]
    return found


def events(query: Query, wanted: Collection[str]) -> list[dict[str, Any]]:
    """Return every event of some runs, the oldest first.

    Args:
        query: the snapshot.
        wanted: the runs.

    Returns:
        `run_id`, `kind`, `key`, `value`, `at_us` and `writer` of each.
    """
    return query.read(_EVENTS_SQL, [list(wanted)], needs=("events",)).to_pylist()


def artifacts(query: Query, wanted: Collection[str]) -> dict[tuple[str, str], tuple[int, str]]:
    """Return the artifacts of some runs.

    Args:
        query: the snapshot.
        wanted: the runs.

    Returns:
        By run and path the bytes, and the SHA-256 in hex.
    """
    rows = query.read(_ARTIFACTS_SQL, [list(wanted)], needs=("artifacts",)).to_pylist()
    return {(row["run_id"], row["path"]): (row["size"], row["sha256"]) for row in rows}


def points(query: Query, wanted: Collection[str], *, but: str = "") -> Iterator[pa.Table]:
    """Yield all points of some runs, a piece at a time; of a far lake only these are fetched.

    Args:
        query: the snapshot.
        wanted: the runs.
        but: without those of this writer.

    Yields:
        Tables with `run_id`, `key`, `step`, `timestamp` and `value`.
    """
    if not wanted:
        return
    rows = scan.scan(query, "metrics").filter(pl.col("run_id").is_in(list(wanted)))
    if but:
        rows = rows.filter(pl.col("writer") != but)
    chosen = rows.select("run_id", "key", "step", "timestamp", "value")
    for batch in chosen.collect_batches():
        yield batch.to_arrow()
