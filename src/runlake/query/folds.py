"""How appended facts fold into current state: the SQL of the tables behind the views.

Tables named `source_*` are the Arrow tables of one `SnapshotTables`; nothing in them is folded
yet. `once_*` and `again_*` are their rows whose key occurs once, and more than once: see
`runlake.query.split`. The rules, the same for every view:

- An order of facts is always (clock, writer, seq). Of params and run attributes the earliest
  stands; of tags, the chosen run name, deletion and status the latest. A null tag is gone.
- A run belongs to the experiment of its earliest fact. Its `status` is RUNNING (or SCHEDULED)
  while a writer whose own latest word is that has put an object within `stale_s`; else it is
  the latest word of all writers. `is_stale`: the status is RUNNING or SCHEDULED, and no open
  writer of the run is that fresh. A run without any word on its status counts as RUNNING.
- `duration` is in seconds, null until the run ends. `lifecycle_stage` is `deleted` where the
  run or its experiment is; restoring the experiment shows only the runs that were not deleted
  one by one.
- Of a metric's states the largest `n` of each writer holds; `last` is the greatest (step,
  time, value), NaN the least in a tie; `first` the least, NaN the greatest; `min` and `max`
  leave NaN out, stand at their earliest step, and are null, like `mean`, where every value is
  NaN. `count` counts NaN too.
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
    GROUP BY experiment_id
), worked AS (
    SELECT experiment_id, min(clock) AS clock
    FROM source_facts
    WHERE experiment_id <> '{schema.RESERVED_PARTITION}' AND run_id <> ''
    GROUP BY experiment_id
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
WITH facts AS (
    SELECT *
    FROM source_facts
    WHERE run_id <> '' AND experiment_id <> '{schema.RESERVED_PARTITION}'
), fresh AS (
    SELECT
        writer,
        bool_or(object_time_us >= $fresh_us) AS is_fresh,
        is_fresh AND writer NOT IN (
            SELECT writer FROM source_facts WHERE kind = '{schema.CLOSE}'
        ) AS is_open
    FROM source_writers
    GROUP BY writer
), parts AS (
    SELECT run_id, writer, min(experiment_id) AS experiment_id, min(clock) AS clock
    FROM facts
    GROUP BY run_id, writer
), homes AS (
    SELECT
        run_id,
        min(struct_pack(clock, writer, experiment_id)).experiment_id AS experiment_id,
        min(clock) AS clock,
        bool_or(coalesce(is_fresh, false)) AS is_fresh
    FROM parts
    LEFT JOIN fresh USING (writer)
    GROUP BY run_id
), words AS (
    SELECT run_id, writer, max(struct_pack(clock, seq, status := str, time := num)) AS word
    FROM facts
    WHERE kind = '{schema.STATUS}'
    GROUP BY run_id, writer
), statuses AS (
    SELECT
        run_id,
        bool_or(is_open AND word.status = '{schema.RUNNING}') AS is_running,
        bool_or(is_open AND word.status = '{schema.SCHEDULED}') AS is_scheduled,
        bool_or(is_fresh AND word.status IN ('{schema.RUNNING}', '{schema.SCHEDULED}')) AS is_heard,
        max(struct_pack(
            clock := word.clock, writer, seq := word.seq, status := word.status, time := word.time
        )) AS latest
    FROM words
    LEFT JOIN fresh USING (writer)
    GROUP BY run_id
), attributes AS (
    SELECT
        run_id,
        (max(struct_pack(clock, writer, seq, str))
            FILTER (key = '{schema.RUN_NAME}')).str AS name,
        (min(struct_pack(clock, writer, seq, str))
            FILTER (key = '{schema.RUN_AUTO_NAME}')).str AS auto_name,
        (min(struct_pack(clock, writer, seq, num))
            FILTER (key = '{schema.RUN_START}')).num AS start,
        (min(struct_pack(clock, writer, seq, str))
            FILTER (key = '{schema.RUN_USER}')).str AS user_id,
        (min(struct_pack(clock, writer, seq, str))
            FILTER (key = '{schema.RUN_SOURCE}')).str AS source_name,
        (min(struct_pack(clock, writer, seq, str))
            FILTER (key = '{schema.RUN_PARENT}')).str AS parent_run_id
    FROM facts
    WHERE kind = '{schema.RUN}'
    GROUP BY run_id
), flags AS (
    SELECT run_id, max(struct_pack(clock, writer, seq, kind)).kind = '{schema.DELETE}' AS is_deleted
    FROM facts
    WHERE kind IN ('{schema.DELETE}', '{schema.RESTORE}')
    GROUP BY run_id
), sources AS (
    SELECT run_id, max(struct_pack(clock, writer, seq, str)).str AS source_name
    FROM facts
    WHERE kind = '{schema.TAG}' AND key = 'mlflow.source.name'
    GROUP BY run_id
), folded AS (
    SELECT
        run_id,
        homes.experiment_id AS experiment_id,
        experiments.name AS experiment_name,
        coalesce(attributes.name, auto_name) AS run_name,
        CASE
            WHEN is_running THEN '{schema.RUNNING}'
            WHEN is_scheduled THEN '{schema.SCHEDULED}'
            ELSE coalesce(latest.status, '{schema.RUNNING}')
        END AS status,
        CASE
            WHEN latest IS NULL THEN NOT homes.is_fresh
            ELSE NOT coalesce(is_heard, false)
        END AS is_quiet,
        coalesce(CAST(start AS BIGINT), homes.clock) AS start_us,
        coalesce(CAST(latest.time AS BIGINT), latest.clock) AS end_us,
        user_id,
        coalesce(attributes.source_name, sources.source_name) AS source_name,
        parent_run_id,
        CASE
            WHEN is_deleted OR experiments.lifecycle_stage = '{schema.DELETED}'
                THEN '{schema.DELETED}'
            ELSE '{schema.ACTIVE}'
        END AS lifecycle_stage
    FROM homes
    LEFT JOIN experiments USING (experiment_id)
    LEFT JOIN attributes USING (run_id)
    LEFT JOIN statuses USING (run_id)
    LEFT JOIN flags USING (run_id)
    LEFT JOIN sources USING (run_id)
)
SELECT
    run_id, experiment_id, experiment_name, run_name, status,
    is_quiet AND status IN ('{schema.RUNNING}', '{schema.SCHEDULED}') AS is_stale,
    make_timestamptz(start_us) AS start_time,
    make_timestamptz(ended_us) AS end_time,
    (ended_us - start_us) / 1e6 AS duration,
    user_id, source_name, parent_run_id, lifecycle_stage,
    $root || '/artifacts/' || experiment_id || '/' || run_id AS artifact_uri
FROM (
    SELECT
        *,
        CASE WHEN status NOT IN ('{schema.RUNNING}', '{schema.SCHEDULED}') THEN end_us END
            AS ended_us
    FROM folded
)
ORDER BY start_us DESC, run_id
"""

_PARAMS = f"""
CREATE TABLE inside.param_rows AS
SELECT runs.rowid AS place, run_id, runs.experiment_id, key, str AS value, num AS number
FROM (
    SELECT run_id, key, str, num
    FROM once_facts
    WHERE kind = '{schema.PARAM}'
    UNION ALL
    SELECT run_id, key, fact.str, fact.num
    FROM (
        SELECT run_id, key, min(struct_pack(clock, writer, seq, str, num)) AS fact
        FROM again_facts
        WHERE kind = '{schema.PARAM}'
        GROUP BY run_id, key
    )
)
JOIN inside.run_facts AS runs USING (run_id)
"""

_TAGS = f"""
CREATE TABLE inside.tag_rows AS
SELECT runs.rowid AS place, run_id, runs.experiment_id, key, str AS value
FROM (
    SELECT run_id, key, str
    FROM once_facts
    WHERE kind = '{schema.TAG}'
    UNION ALL
    SELECT run_id, key, fact.str
    FROM (
        SELECT run_id, key, max(struct_pack(clock, writer, seq, str)) AS fact
        FROM again_facts
        WHERE kind = '{schema.TAG}'
        GROUP BY run_id, key
    )
)
JOIN inside.run_facts AS runs USING (run_id)
WHERE str IS NOT NULL
"""

# A metric whose run has no fact (yet) is shown under its writer's experiment.
_METRIC_SUMMARY = """
CREATE TABLE inside.metric_rows AS
WITH states AS (
    SELECT
        run_id, key, writer,
        min(experiment_id) AS experiment_id,
        max(struct_pack(n, sum, nan_count)) AS total,
        max(struct_pack(
            step := last_step, time := last_time, is_number := NOT isnan(last), value := last
        )) AS last,
        min(struct_pack(step := first_step, time := first_time, value := first)) AS first,
        min(struct_pack(value := min, step := min_step, time := min_time))
            FILTER (min IS NOT NULL AND NOT isnan(min)) AS min,
        min(struct_pack(value := -max, step := max_step, time := max_time))
            FILTER (max IS NOT NULL AND NOT isnan(max)) AS max
    FROM again_summaries
    GROUP BY run_id, key, writer
), merged AS (
    SELECT
        run_id, key,
        min(experiment_id) AS experiment_id,
        max(last) AS last,
        min(first) AS first,
        min(min) AS min,
        min(max) AS max,
        CAST(sum(total.n) AS BIGINT) AS n,
        sum(total.sum) AS sum,
        CAST(sum(total.nan_count) AS BIGINT) AS nan_count
    FROM states
    GROUP BY run_id, key
), folded AS (
    SELECT
        experiment_id, run_id, key, n, sum, nan_count,
        last, last_step, last_time, first, first_step,
        CASE WHEN NOT isnan(min) THEN min END AS min,
        CASE WHEN NOT isnan(min) THEN min_step END AS min_step,
        CASE WHEN NOT isnan(max) THEN max END AS max,
        CASE WHEN NOT isnan(max) THEN max_step END AS max_step
    FROM once_summaries
    UNION ALL
    SELECT
        experiment_id, run_id, key, n, sum, nan_count,
        last.value, last.step, last.time, first.value, first.step,
        min.value, min.step, -max.value, max.step
    FROM merged
)
SELECT
    runs.rowid AS place,
    run_id,
    coalesce(runs.experiment_id, folded.experiment_id) AS experiment_id,
    key,
    last,
    last_step,
    make_timestamptz(last_time) AS last_time,
    first,
    first_step,
    min,
    min_step,
    max,
    max_step,
    CASE WHEN n > nan_count THEN sum / (n - nan_count) END AS mean,
    n AS count,
    nan_count
FROM folded
LEFT JOIN inside.run_facts AS runs USING (run_id)
"""

_RUNS = f"""
CREATE TABLE runs AS
WITH param_maps AS (
    SELECT place, map(list(key), list(value)) AS params
    FROM (SELECT place, key, value FROM inside.param_rows ORDER BY place, key)
    GROUP BY place
), metric_maps AS (
    SELECT place, map(list(key), list(last)) AS metrics
    FROM (SELECT place, key, last FROM inside.metric_rows ORDER BY place, key)
    GROUP BY place
), tag_maps AS (
    SELECT place, map(list(key), list(value)) AS tags
    FROM (SELECT place, key, value FROM inside.tag_rows ORDER BY place, key)
    GROUP BY place
)
SELECT
    r.*,
    coalesce(params, CAST(MAP {{}} AS {_TEXTS})) AS params,
    coalesce(metrics, CAST(MAP {{}} AS MAP(VARCHAR, DOUBLE))) AS metrics,
    coalesce(tags, CAST(MAP {{}} AS {_TEXTS})) AS tags
FROM inside.run_facts AS r
LEFT JOIN param_maps ON param_maps.place = r.rowid
LEFT JOIN metric_maps ON metric_maps.place = r.rowid
LEFT JOIN tag_maps ON tag_maps.place = r.rowid
"""

# The same without maps, which cost more than all else together: for questions of our own that
# name no map. It stands before the public view where a cursor's search path says so.
_LEAN_RUNS = "CREATE VIEW inside.runs AS FROM inside.run_facts"

_POINT_FILES = """
CREATE TABLE inside.point_files (
    file_index UBIGINT, writer VARCHAR, experiment_id VARCHAR, first BIGINT, skip_rows BIGINT
)
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
    "runs": _RUNS,
    "lean_runs": _LEAN_RUNS,
    "point_files": _POINT_FILES,
    "lake_rows": _LAKE_ROWS,
}
