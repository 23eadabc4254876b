"""The views that say where runs and their data come from, in part from the JSON of events.

`provenance` has one row for each fact, `inputs` has beside each data set what an event of kind
`dataset` says of it: schema and profile are too long to ride in footers as the rest does.
"""

from __future__ import annotations

from typing import Final

from runlake import schema

_TIME: Final = "TIMESTAMP WITH TIME ZONE"

ORIGIN_VIEWS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "inputs": (
        ("run_id", "VARCHAR"),
        ("experiment_id", "VARCHAR"),
        ("name", "VARCHAR"),
        ("digest", "VARCHAR"),
        ("source_type", "VARCHAR"),
        ("source", "VARCHAR"),
        ("context", "VARCHAR"),
        ("schema", "VARCHAR"),
        ("profile", "VARCHAR"),
    ),
    "provenance": (
        ("run_id", "VARCHAR"),
        ("experiment_id", "VARCHAR"),
        ("key", "VARCHAR"),
        ("value", "VARCHAR"),
        ("at", _TIME),
        ("writer", "VARCHAR"),
    ),
}
ORIGIN_NEEDS: Final = {
    "inputs": ("input_rows", "point_files"),
    "provenance": ("point_files",),
}

# `place` and `key` are for our own questions.
_INPUTS: Final = f"""
CREATE VIEW inputs AS
SELECT
    inputs.* EXCLUDE (place, key),
    about ->> '$.schema' AS schema,
    about ->> '$.profile' AS profile
FROM inside.input_rows AS inputs
LEFT JOIN (
    SELECT run_id, key, CASE WHEN json_valid(said.str) THEN CAST(said.str AS JSON) END AS about
    FROM (
        SELECT run_id, key, max(struct_pack(timestamp, writer, seq, str)) AS said
        FROM ({{segments}} UNION ALL BY NAME {{events}})
        WHERE kind = '{schema.DATASET}'
        GROUP BY run_id, key
    )
) AS told
ON told.run_id = inputs.run_id AND told.key = inputs.key
"""

# A writer that resumes a run says it again, and its latest word stands.
_PROVENANCE: Final = f"""
CREATE VIEW provenance AS
SELECT
    run_id, experiment_id,
    part || '.' || field AS key,
    json_extract_string(about, '$."' || replace(field, '"', '\\"') || '"') AS value,
    fact.timestamp AS "at",
    writer
FROM (
    SELECT
        run_id, fact.experiment_id AS experiment_id, part, writer, fact, about,
        unnest(json_keys(about)) AS field
    FROM (
        SELECT *, CASE WHEN json_valid(fact.str) THEN CAST(fact.str AS JSON) END AS about
        FROM (
            SELECT
                run_id, key AS part, writer,
                max(struct_pack(timestamp, seq, str, experiment_id)) AS fact
            FROM ({{segments}} UNION ALL BY NAME {{events}})
            WHERE kind = '{schema.PROVENANCE}'
            GROUP BY run_id, key, writer
        )
    )
    WHERE json_type(about) = 'OBJECT'
)
"""

ORIGIN_SQL: Final = {"inputs": _INPUTS, "provenance": _PROVENANCE}
