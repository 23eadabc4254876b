"""Alerts, all of them or those that a poller has not had (`runlake.query.bookmark`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake.query.bookmark import Cursor
from runlake.query.export import to_rows

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from runlake.query.engine import Query

MARK: Final = "a1."
"""Every cursor begins with it."""
FIELDS: Final = (
    "at",
    "level",
    "title",
    "text",
    "run_id",
    "run_name",
    "experiment_id",
    "experiment_name",
    "writer",
    "seq",
)
"""The fields of an alert, in order."""
NOTHING: Final = Cursor(MARK, {})
"""The cursor of somebody who has had no alert; `NOTHING.read(text)` reads another."""

_GREATEST: Final = "SELECT writer, max(seq) AS seq FROM alerts GROUP BY writer"
# Which writers have something new is known; the join leaves the files of all others alone.
_FOUND: Final = """
SELECT
    a."at", a.level, a.title, a.text, a.run_id, r.run_name, a.experiment_id, r.experiment_name,
    a.writer, a.seq
FROM alerts AS a
JOIN (SELECT unnest($writers::VARCHAR[]) AS writer, unnest($floors::BIGINT[]) AS floor) AS w
    ON a.writer = w.writer AND a.seq > w.floor
LEFT JOIN inside.run_facts AS r ON r.run_id = a.run_id
WHERE (len($levels::VARCHAR[]) = 0 OR list_contains($levels::VARCHAR[], a.level))
    AND ($run_id::VARCHAR IS NULL OR a.run_id = $run_id)
    AND ($since::TIMESTAMPTZ IS NULL OR a."at" >= $since)
ORDER BY a."at", a.writer, a.seq
"""


def find_alerts(
    query: Query,
    *,
    cursor: Cursor = NOTHING,
    since: datetime | None = None,
    levels: Collection[str] = (),
    run_id: str | None = None,
) -> tuple[list[dict[str, Any]], Cursor]:
    """Return alerts, the oldest first, and the cursor behind all that there are.

    Args:
        query: the snapshot.
        cursor: only those that come after it.
        since: only those given from then on, by the clocks of those who gave them.
        levels: only of these; none means all.
        run_id: only of this run.

    Returns:
        The alerts, and a cursor that covers those, too, that `since`, `levels` and `run_id`
        left out.
    """
    rows = to_rows(query.read(_GREATEST, needs=("alerts",)))
    greatest = {row["writer"]: row["seq"] for row in rows}
    new = [writer for writer, seq in greatest.items() if seq > cursor.floor(writer)]
    behind = cursor.after(greatest)
    if not new:
        return [], behind
    params = {
        "writers": new,
        "floors": [cursor.floor(writer) for writer in new],
        "levels": list(levels),
        "run_id": run_id,
        "since": since,
    }
    return to_rows(query.read(_FOUND, params, needs=("alerts", "run_facts"))), behind
