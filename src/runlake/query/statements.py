"""Statements over the public views that the command line asks, to be run by `Lake.sql`."""

from __future__ import annotations

from typing import Final

COUNTS: Final = """
SELECT
    (SELECT count(*) FROM experiments WHERE lifecycle_stage = 'active') AS experiments,
    (SELECT count(*) FROM runs WHERE lifecycle_stage = 'active') AS runs
"""

# `$1` is a run.
METRICS_OF_RUN: Final = """
SELECT * EXCLUDE (run_id, experiment_id)
FROM metric_summary
WHERE run_id = $1
ORDER BY key
"""

# `$1` is what somebody took for a run's name or id.
NEAREST_RUNS: Final = """
SELECT run_name, count(*) OVER () AS total
FROM runs
ORDER BY jaro_winkler_similarity(run_name, $1) DESC, run_name
LIMIT 50
"""

POINTS_OF_METRICS: Final = "SELECT key, count(*) AS points FROM metrics GROUP BY key"
