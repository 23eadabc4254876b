"""The lines that a run printed, in order, and those that came after what a reader has had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runlake import schema
from runlake.errors import InvalidInputError
from runlake.query.export import to_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from runlake.query.engine import Query

# A writer's clock never gives the same time twice, so it orders lines and tells new ones apart.
_LINES: Final = """
FROM (
    SELECT c."at", c.stream, c.line, c.text, c.writer
    FROM console AS c
    LEFT JOIN (
        SELECT unnest($writers::VARCHAR[]) AS writer, unnest($times::TIMESTAMPTZ[]) AS had
    ) AS w USING (writer)
    WHERE c.run_id = $run_id
        AND (w.had IS NULL OR c."at" > w.had)
        AND ($stream::VARCHAR IS NULL OR c.stream = $stream)
        AND ($pattern::VARCHAR IS NULL OR regexp_matches(c.text, $pattern))
    ORDER BY c."at" DESC, c.writer DESC, c.line DESC
    LIMIT $tail
)
ORDER BY "at", writer, line
"""
_LATEST: Final = """
SELECT writer, max("at") AS had FROM console WHERE run_id = $run_id GROUP BY writer
"""
_AT_WORK: Final = f"""
SELECT count(*) AS found
FROM inside.run_facts
WHERE run_id = $run_id AND NOT is_stale
    AND status IN ('{schema.RUNNING}', '{schema.SCHEDULED}')
"""
_ALL: Final = 1 << 62


def read_lines(
    query: Query,
    run_id: str,
    *,
    stream: str | None = None,
    pattern: str | None = None,
    tail: int | None = None,
    had: Mapping[str, object] | None = None,
) -> pa.Table:
    """Return lines of one run as they were printed.

    Args:
        query: the snapshot.
        run_id: the run.
        stream: only of `stdout` or `stderr`.
        pattern: only lines in which this regular expression (RE2's) is found.
        tail: only so many, the last; None means all.
        had: the times of `latest` that the reader has had; only lines after them.

    Returns:
        shape (n, 5): `at`, `stream`, `line`, `text`, `writer`.

    Raises:
        InvalidInputError: the pattern cannot be read.
    """
    had = had or {}
    params = {
        "run_id": run_id,
        "stream": stream,
        "pattern": pattern,
        "tail": _ALL if tail is None else tail,
        "writers": list(had),
        "times": list(had.values()),
    }
    if pattern is not None:
        _check(query, pattern)
    return query.read(_LINES, params, needs=("console",))


def latest(query: Query, run_id: str) -> dict[str, object]:
    """Return the time of the last line of each writer of a run.

    Args:
        query: the snapshot.
        run_id: the run.
    """
    rows = to_rows(query.read(_LATEST, {"run_id": run_id}, needs=("console",)))
    return {row["writer"]: row["had"] for row in rows}


def is_at_work(query: Query, run_id: str) -> bool:
    """Return whether more lines may come: the run is open, and its writer is heard of.

    Args:
        query: the snapshot.
        run_id: the run.
    """
    (row,) = to_rows(query.read(_AT_WORK, {"run_id": run_id}, needs=("run_facts",)))
    return bool(row["found"])


def _check(query: Query, pattern: str) -> None:
    """Refuse a pattern that is none, also where there is no line to hold it against."""
    try:
        query.read("SELECT regexp_matches('', $pattern)", {"pattern": pattern}, needs=())
    except InvalidInputError as error:
        raise InvalidInputError(f"{pattern!r} is no regular expression: {error}") from error
