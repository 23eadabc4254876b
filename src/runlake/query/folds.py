"""The SQL of the tables behind the views, over what `runlake.query.folded` folds.

Tables named `source_*` are Arrow tables of one snapshot: `source_writers` and
`source_lake_events` as it has them, the others as `Folded` gives them. The rules of the views:

- `duration` is in seconds, null until the run ends. `lifecycle_stage` is `deleted` where the
  run or its experiment is; restoring the experiment shows only the runs that were not deleted
  one by one.
- An experiment is known by its claim, by a change of it, or by a writer or run in it. One that
  was purged is known by its runs only, which have come since, and goes by its id.
"""

from __future__ import annotations

from typing import Final

from runlake import schema

_TEXTS = "MAP(VARCHAR, VARCHAR)"

_EXPERIMENTS = f"""
CREATE TABLE experiments AS
WITH created AS (
    SELECT run_id AS experiment_id, min(struct_pack(clock, writer, seq, key, claim := str)) AS fact
    FROM source_lake_events
    WHERE kind = '{schema.EXPERIMENT_CREATE}'
    GROUP BY run_id
), claims AS (
    SELECT
        experiment_id,
        fact.clock AS clock,
        fact.writer AS writer,
        fact.seq AS seq,
        fact.key AS name,
        CASE WHEN json_valid(fact.claim) THEN CAST(fact.claim AS JSON) END AS claim
    FROM created
), changes AS (
    SELECT
        run_id AS experiment_id,
        (max(struct_pack(clock, writer, seq, key))
            FILTER (kind = '{schema.EXPERIMENT_RENAME}')).key AS name,
        (max(struct_pack(clock, writer, seq, kind))
            FILTER (kind IN ('{schema.EXPERIMENT_DELETE}', '{schema.EXPERIMENT_RESTORE}'))).kind
            = '{schema.EXPERIMENT_DELETE}' AS is_deleted,
        max(clock) AS changed
    FROM source_lake_events
    WHERE kind LIKE 'experiment\\_%' ESCAPE '\\'
    GROUP BY run_id
), seen AS (
    SELECT
        experiment_id,
        (max(struct_pack(object_time_us, writer, experiment_name))
            FILTER (experiment_name IS NOT NULL)).experiment_name AS name
    FROM source_writers
    WHERE experiment_id <> '{schema.RESERVED_PARTITION}'
        AND experiment_id NOT IN (SELECT id FROM source_purged)
    GROUP BY experiment_id
), worked AS (
    SELECT * FROM source_births
), tag_facts AS (
    SELECT run_id AS experiment_id, key, struct_pack(clock, writer, seq, str) AS fact
    FROM source_lake_events
    WHERE kind = '{schema.EXPERIMENT_TAG}'
    UNION ALL
    SELECT experiment_id, tag.key, struct_pack(clock, writer, seq, str := tag.value)
    FROM (
        SELECT
            experiment_id, clock, writer, seq,
            unnest(map_entries(TRY_CAST(claim -> '$.tags' AS {_TEXTS}))) AS tag
        FROM claims
    )
), tag_maps AS (
    SELECT experiment_id, map(list(key ORDER BY key), list(fact.str ORDER BY key)) AS tags
    FROM (SELECT experiment_id, key, max(fact) AS fact FROM tag_facts GROUP BY ALL)
    WHERE fact.str IS NOT NULL
    GROUP BY experiment_id
), ids AS (
    SELECT experiment_id FROM changes UNION SELECT experiment_id FROM seen
    UNION SELECT experiment_id FROM worked
)
SELECT
    experiment_id,
    coalesce(
        changes.name, claims.name, seen.name,
        CASE experiment_id WHEN '0' THEN 'Default' ELSE experiment_id END
    ) AS name,
    CASE WHEN changes.is_deleted THEN '{schema.DELETED}' ELSE '{schema.ACTIVE}' END
        AS lifecycle_stage,
    coalesce(
        claims.claim ->> '$.artifact_location', $root || '/artifacts/' || experiment_id
    ) AS artifact_location,
    make_timestamptz(coalesce(
        TRY_CAST(claims.claim ->> '$.time_us' AS BIGINT),
        claims.clock, worked.clock, changes.changed
    )) AS creation_time,
    make_timestamptz(coalesce(changes.changed, worked.clock)) AS last_update_time,
    coalesce(tags, CAST(MAP {{}} AS {_TEXTS})) AS tags
FROM ids
LEFT JOIN claims USING (experiment_id)
LEFT JOIN changes USING (experiment_id)
LEFT JOIN seen USING (experiment_id)
LEFT JOIN worked USING (experiment_id)
LEFT JOIN tag_maps USING (experiment_id)
ORDER BY experiment_id
"""

_RUN_FACTS = f"""
CREATE TABLE inside.run_facts AS
SELECT
    run_id, experiment_id, experiments.name AS experiment_name, run_name, status,
    is_quiet AND is_open AS is_stale,
    make_timestamptz(start_us) AS start_time,
    CASE WHEN NOT is_open THEN make_timestamptz(end_us) END AS end_time,
    CASE WHEN NOT is_open THEN (end_us - start_us) / 1e6 END AS duration,
    user_id, source_name, parent_run_id,
    CASE
        WHEN is_deleted OR experiments.lifecycle_stage = '{schema.DELETED}'
            THEN '{schema.DELETED}'
        ELSE '{schema.ACTIVE}'
    END AS lifecycle_stage,
    $root || '/artifacts/' || experiment_id || '/' || run_id AS artifact_uri
FROM (
    SELECT *, status IN ('{schema.RUNNING}', '{schema.SCHEDULED}') AS is_open
    FROM source_runs
) AS runs
LEFT JOIN experiments USING (experiment_id)
ORDER BY place
"""

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
