"""What a snapshot says of artifacts: those of one run, and those with one content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake import schema
from runlake.query.export import to_rows

if TYPE_CHECKING:
    from runlake.query.engine import Query

_OF_RUN_SQL: Final = """
SELECT path, size, coalesce(sha256, '') AS sha256, epoch_us(logged_at) AS at_us
FROM artifacts
WHERE run_id = $1
ORDER BY path
"""
_DIGESTS_SQL: Final = """
SELECT CASE WHEN json_valid("value") THEN "value" ->> '$.sha256' END AS sha256
FROM events
WHERE run_id = $1 AND kind = $2 AND key = $3 AND "value" IS NOT NULL
ORDER BY "at" DESC, writer DESC
"""
_OF_DIGEST_SQL: Final = """
SELECT a.run_id, r.run_name, a.path, a.size, a.sha256, a.logged_at
FROM artifacts a JOIN inside.run_facts r USING (run_id)
WHERE starts_with(a.sha256, $1)
ORDER BY a.logged_at, a.run_id, a.path
"""


def logged_files(query: Query, run_id: str) -> list[tuple[str, int, str, int]]:
    """Return what a run has logged as artifacts, without what was deleted since.

    Args:
        query: the snapshot.
        run_id: the run.

    Returns:
        Of each its path, its bytes, its SHA-256 in hex (empty if nothing is said), and when it
        was logged, in microseconds since 1970, UTC.
    """
    rows = to_rows(query.read(_OF_RUN_SQL, [run_id], needs=("artifacts",)))
    return [(row["path"], row["size"], row["sha256"], row["at_us"]) for row in rows]


def logged_digests(query: Query, run_id: str, path: str) -> list[str]:
    """Return the digests of all files that a run has logged under a path, the latest first.

    Args:
        query: the snapshot.
        run_id: the run.
        path: below the run.

    Returns:
        The SHA-256 of each in hex, as often as it was logged.
    """
    rows = to_rows(query.read(_DIGESTS_SQL, [run_id, schema.ARTIFACT, path], needs=("events",)))
    return [row["sha256"] for row in rows if row["sha256"]]


def find_content(query: Query, sha256: str) -> list[dict[str, Any]]:
    """Return the artifacts of all runs with one content, the oldest first.

    Args:
        query: the snapshot.
        sha256: the digest in hex, or how it begins.

    Returns:
        `run_id`, `run_name`, `path`, `size`, `sha256` and `logged_at` of each.
    """
    needs = ("artifacts", "run_facts")
    return to_rows(query.read(_OF_DIGEST_SQL, [sha256.lower()], needs=needs))
