"""The view of logged models: its columns, and the SQL that makes it.

`source_logged_models` is what `runlake.query.logged` folds; only the metrics come from rows. Of a
metric that was measured several times the greatest (step, time, value) stands, a NaN being least.
"""

from __future__ import annotations

from typing import Final

from runlake import schema

_TIME: Final = "TIMESTAMP WITH TIME ZONE"
_TEXTS: Final = "MAP(VARCHAR, VARCHAR)"
_NUMBERS: Final = "MAP(VARCHAR, DOUBLE)"

LOGGED_VIEWS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "logged_models": (
        ("model_id", "VARCHAR"),
        ("experiment_id", "VARCHAR"),
        ("name", "VARCHAR"),
        ("source_run_id", "VARCHAR"),
        ("model_type", "VARCHAR"),
        ("status", "VARCHAR"),
        ("status_message", "VARCHAR"),
        ("creation_time", _TIME),
        ("last_update_time", _TIME),
        ("lifecycle_stage", "VARCHAR"),
        ("artifact_uri", "VARCHAR"),
        ("params", _TEXTS),
        ("metrics", _NUMBERS),
        ("tags", _TEXTS),
    ),
}
LOGGED_NEEDS: Final = {
    "logged_rows": ("experiments",),
    "logged_models": ("logged_rows", "point_files"),
}

# The folder of a model in the run that made it is that of `runlake.logged_models.folder`.
_ROWS: Final = f"""
CREATE TABLE inside.logged_rows AS
SELECT
    model_id, experiment_id, models.name AS name, source_run_id, model_type, status,
    status_message,
    make_timestamptz(created_us) AS creation_time,
    make_timestamptz(updated_us) AS last_update_time,
    CASE
        WHEN is_deleted OR experiments.lifecycle_stage = '{schema.DELETED}'
            THEN '{schema.DELETED}'
        ELSE '{schema.ACTIVE}'
    END AS lifecycle_stage,
    $root || '/artifacts/' || experiment_id || '/' || home
        || CASE WHEN home = model_id THEN '' ELSE '/_models/' || model_id END AS artifact_uri,
    params, models.tags AS tags
FROM source_logged_models AS models
LEFT JOIN experiments USING (experiment_id)
ORDER BY created_us, model_id
"""

_VIEW: Final = f"""
CREATE VIEW logged_models AS
SELECT
    models.* EXCLUDE (params, tags),
    params,
    coalesce(measured.metrics, CAST(MAP {{{{}}}} AS {_NUMBERS})) AS metrics,
    tags
FROM inside.logged_rows AS models
LEFT JOIN (
    SELECT model_id, map(list(key ORDER BY key), list(point.value ORDER BY key)) AS metrics
    FROM (
        SELECT
            model_id, key,
            max(struct_pack(step, time, is_number := NOT isnan(value), value)) AS point
        FROM (
            SELECT
                key AS model_id,
                about ->> '$.key' AS key,
                TRY_CAST(about ->> '$.step' AS BIGINT) AS step,
                TRY_CAST(about ->> '$.time_us' AS BIGINT) AS time,
                CASE WHEN isnan(num) THEN 'NaN'::DOUBLE ELSE num END AS value
            FROM (
                SELECT key, num, CASE WHEN json_valid(str) THEN CAST(str AS JSON) END AS about
                FROM ({{segments}} UNION ALL BY NAME {{events}})
                WHERE kind = '{schema.MODEL_METRIC}'
            )
        )
        WHERE key IS NOT NULL AND value IS NOT NULL
        GROUP BY model_id, key
    )
    GROUP BY model_id
) AS measured
USING (model_id)
"""

LOGGED_TABLES: Final = {"logged_rows": _ROWS}
LOGGED_SQL: Final = {"logged_models": _VIEW}
