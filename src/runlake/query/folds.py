"""The SQL of the tables behind the views, over what `runlake.query.folded` folds.

Tables named `source_*` are Arrow tables of one snapshot: `source_lake_events` as it has them, the
others as `Folded` gives them.
"""

from __future__ import annotations

from typing import Final

_EXPERIMENTS = "CREATE TABLE experiments AS FROM source_experiments"

_RUN_FACTS = "CREATE TABLE inside.run_facts AS FROM source_run_facts"

_PARAMS = """
CREATE TABLE inside.param_rows AS
SELECT place, run_id, experiment_id, key, value, number
FROM source_params
JOIN inside.run_facts AS runs ON runs.rowid = place
"""

_TAGS = """
CREATE TABLE inside.tag_rows AS
SELECT place, run_id, experiment_id, key, value
FROM source_tags
JOIN inside.run_facts AS runs ON runs.rowid = place
"""

_INPUTS = """
CREATE TABLE inside.input_rows AS
SELECT
    place, key, run_id, experiment_id,
    about ->> '$.name' AS name,
    about ->> '$.digest' AS digest,
    about ->> '$.source_type' AS source_type,
    about ->> '$.source' AS source,
    about ->> '$.context' AS context
FROM (
    SELECT place, key, CASE WHEN json_valid(value) THEN CAST(value AS JSON) END AS about
    FROM source_inputs
)
JOIN inside.run_facts AS runs ON runs.rowid = place
WHERE about IS NOT NULL
"""

# A metric whose run has no fact (yet) is shown under its writer's experiment.
_METRIC_SUMMARY = """
CREATE TABLE inside.metric_rows AS
SELECT
    runs.rowid AS place,
    metrics.run_id AS run_id,
    coalesce(runs.experiment_id, metrics.experiment_id) AS experiment_id,
    key, last, last_step, make_timestamptz(last_time) AS last_time, first, first_step,
    min, min_step, max, max_step, mean, count, nan_count
FROM source_metrics AS metrics
LEFT JOIN inside.run_facts AS runs ON runs.rowid = metrics.place
"""

_RUNS = """
CREATE TABLE runs AS
SELECT r.*, params, metrics, tags
FROM inside.run_facts AS r
POSITIONAL JOIN source_maps
"""

_POINT_FILES = """
CREATE TABLE inside.point_files (
    table_name VARCHAR, file_index UBIGINT, writer VARCHAR, experiment_id VARCHAR,
    first BIGINT, skip_rows BIGINT
);
INSERT INTO inside.point_files FROM source_point_files
"""

# A listing may have shown one row in two segments.
_LAKE_ROWS = """
CREATE TABLE inside.lake_rows AS
SELECT DISTINCT ON (writer, seq) * FROM source_lake_events ORDER BY clock, writer, seq
"""

# `place`, the run's row in `inside.run_facts`, is for our own questions, which join by it.
_PUBLIC: Final = "; CREATE VIEW {view} AS SELECT * EXCLUDE (place) FROM inside.{rows}"

# Name of the table to the statements that make it, from tables made before.
FOLDS: Final = {
    "experiments": _EXPERIMENTS,
    "run_facts": _RUN_FACTS,
    "params": _PARAMS + _PUBLIC.format(view="params", rows="param_rows"),
    "tags": _TAGS + _PUBLIC.format(view="tags", rows="tag_rows"),
    "metric_summary": _METRIC_SUMMARY + _PUBLIC.format(view="metric_summary", rows="metric_rows"),
    "input_rows": _INPUTS,
    "runs": _RUNS,
    "point_files": _POINT_FILES,
    "lake_rows": _LAKE_ROWS,
}
