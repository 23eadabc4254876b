"""The views of the model registry: their columns, and the SQL that makes them.

`source_*` are the Arrow tables of `runlake.query.registered_tables`; `inside.lake_rows` are the
rows that these are folded from. Of a model or version that is deleted only the events are shown,
under the name that the model had last.
"""

from __future__ import annotations

from typing import Final

from runlake import schema
from runlake.query.registered import READY

_TIME = "TIMESTAMP WITH TIME ZONE"
_TEXTS = "MAP(VARCHAR, VARCHAR)"
_NUMBERS = "MAP(VARCHAR, BIGINT)"

# Columns of the views, in order: name and DuckDB type.
REGISTRY_VIEWS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "registered_models": (
        ("name", "VARCHAR"),
        ("model_id", "VARCHAR"),
        ("creation_time", _TIME),
        ("last_update_time", _TIME),
        ("description", "VARCHAR"),
        ("user_id", "VARCHAR"),
        ("latest_version", "BIGINT"),
        ("latest_versions", _NUMBERS),
        ("aliases", _NUMBERS),
        ("tags", _TEXTS),
    ),
    "model_versions": (
        ("name", "VARCHAR"),
        ("version", "BIGINT"),
        ("model_id", "VARCHAR"),
        ("creation_time", _TIME),
        ("last_update_time", _TIME),
        ("description", "VARCHAR"),
        ("user_id", "VARCHAR"),
        ("source", "VARCHAR"),
        ("location", "VARCHAR"),
        ("run_id", "VARCHAR"),
        ("run_link", "VARCHAR"),
        ("logged_model_id", "VARCHAR"),
        ("status", "VARCHAR"),
        ("stage", "VARCHAR"),
        ("aliases", "VARCHAR[]"),
        ("tags", _TEXTS),
    ),
    "model_aliases": (
        ("name", "VARCHAR"),
        ("alias", "VARCHAR"),
        ("version", "BIGINT"),
    ),
    "registry_events": (
        ("at", _TIME),
        ("name", "VARCHAR"),
        ("version", "BIGINT"),
        ("kind", "VARCHAR"),
        ("key", "VARCHAR"),
        ("value", "VARCHAR"),
        ("user_id", "VARCHAR"),
        ("host", "VARCHAR"),
        ("reason", "VARCHAR"),
        ("about", "VARCHAR"),
        ("model_id", "VARCHAR"),
        ("writer", "VARCHAR"),
        ("seq", "BIGINT"),
    ),
}

# What must be there before a view can be made.
REGISTRY_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "registered_models": (),
    "model_versions": (),
    "model_aliases": (),
    "registry_events": ("lake_rows",),
}

_TIMES = """make_timestamptz(created_us) AS creation_time,
    make_timestamptz(updated_us) AS last_update_time"""

_MODELS = f"""
CREATE TABLE registered_models AS
SELECT
    name, model_id, {_TIMES}, description, user_id, latest_version, latest_versions, aliases, tags
FROM source_registered_models
ORDER BY name
"""

_VERSIONS = f"""
CREATE TABLE model_versions AS
SELECT
    name, version, model_id, {_TIMES}, description, user_id, source, location, run_id, run_link,
    logged_model_id, '{READY}' AS status, stage, aliases, tags
FROM source_model_versions
ORDER BY name, version
"""

_ALIASES = """
CREATE TABLE model_aliases AS
SELECT name, alias, version FROM source_model_aliases ORDER BY name, alias
"""

_EVENTS = f"""
CREATE TABLE registry_events AS
SELECT
    make_timestamptz(clock) AS at,
    coalesce(named.name, CASE WHEN kind = '{schema.REGISTRY_MODEL_CREATE}' THEN key END) AS name,
    coalesce(
        TRY_CAST(num AS BIGINT), TRY_CAST(about ->> '$.version' AS BIGINT)
    ) AS version,
    kind,
    key,
    CASE kind
        WHEN '{schema.REGISTRY_VERSION_CREATE}' THEN about ->> '$.source'
        WHEN '{schema.REGISTRY_MODEL_RENAME}' THEN about ->> '$.renamed_from'
        WHEN '{schema.REGISTRY_ALIAS}' THEN CAST(TRY_CAST(num AS BIGINT) AS VARCHAR)
        ELSE about ->> '$.value'
    END AS value,
    about ->> '$.user' AS user_id,
    about ->> '$.host' AS host,
    about ->> '$.reason' AS reason,
    CAST(about AS VARCHAR) AS about,
    model_id, writer, seq
FROM (
    SELECT
        * EXCLUDE (run_id),
        run_id AS model_id,
        CASE WHEN json_valid(str) THEN CAST(str AS JSON) END AS about
    FROM inside.lake_rows
    WHERE starts_with(kind, 'registry_')
) AS rows
LEFT JOIN source_model_names AS named USING (model_id)
ANTI JOIN source_repeated_traces USING (writer, seq)
ORDER BY clock, writer, seq
"""

REGISTRY_SQL: Final = {
    "registered_models": _MODELS,
    "model_versions": _VERSIONS,
    "model_aliases": _ALIASES,
    "registry_events": _EVENTS,
}
