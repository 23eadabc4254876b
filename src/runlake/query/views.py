"""The public views: their columns, what each needs, and the SQL that makes it.

`runs`, `params` and their like are folded from what segment footers say (`runlake.query.folds`
holds the rules) and become tables at their first use. `metrics`, `events`, `artifacts` and the
views of `runlake.query.event_views` and `runlake.query.origin_views` read rows from Parquet files
at each query; their `experiment_id` is the partition of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runlake import schema
from runlake.query.event_views import EVENT_VIEWS, view_sql
from runlake.query.folds import FOLDS
from runlake.query.logged_views import LOGGED_NEEDS, LOGGED_SQL, LOGGED_TABLES, LOGGED_VIEWS
from runlake.query.origin_views import ORIGIN_NEEDS, ORIGIN_SQL, ORIGIN_VIEWS
from runlake.query.registry_views import REGISTRY_NEEDS, REGISTRY_SQL, REGISTRY_VIEWS
from runlake.storage.table_files import EVENTS, METRICS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from runlake.storage.table_files import Table
    from runlake.storage.tables import PointFile

_TIME = "TIMESTAMP WITH TIME ZONE"
_TEXTS = "MAP(VARCHAR, VARCHAR)"

# Columns of the public views, in order: name and DuckDB type.
VIEWS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "experiments": (
        ("experiment_id", "VARCHAR"),
        ("name", "VARCHAR"),
        ("lifecycle_stage", "VARCHAR"),
        ("artifact_location", "VARCHAR"),
        ("creation_time", _TIME),
        ("last_update_time", _TIME),
        ("tags", _TEXTS),
    ),
    "runs": (
        ("run_id", "VARCHAR"),
        ("experiment_id", "VARCHAR"),
        ("experiment_name", "VARCHAR"),
        ("run_name", "VARCHAR"),
        ("status", "VARCHAR"),
        ("is_stale", "BOOLEAN"),
        ("start_time", _TIME),
        ("end_time", _TIME),
        ("duration", "DOUBLE"),
        ("user_id", "VARCHAR"),
        ("source_name", "VARCHAR"),
        ("parent_run_id", "VARCHAR"),
        ("lifecycle_stage", "VARCHAR"),
        ("artifact_uri", "VARCHAR"),
        ("params", _TEXTS),
        ("metrics", "MAP(VARCHAR, DOUBLE)"),
        ("tags", _TEXTS),
    ),
    "params": (
        ("run_id", "VARCHAR"),
        ("experiment_id", "VARCHAR"),
        ("key", "VARCHAR"),
        ("value", "VARCHAR"),
        ("number", "DOUBLE"),
    ),
    "tags": (
        ("run_id", "VARCHAR"),
        ("experiment_id", "VARCHAR"),
        ("key", "VARCHAR"),
        ("value", "VARCHAR"),
    ),
    "metrics": (
        ("run_id", "VARCHAR"),
        ("experiment_id", "VARCHAR"),
        ("key", "VARCHAR"),
        ("step", "BIGINT"),
        ("timestamp", _TIME),
        ("value", "DOUBLE"),
        ("writer", "VARCHAR"),
    ),
    "metric_summary": (
        ("run_id", "VARCHAR"),
        ("experiment_id", "VARCHAR"),
        ("key", "VARCHAR"),
        ("last", "DOUBLE"),
        ("last_step", "BIGINT"),
        ("last_time", _TIME),
        ("first", "DOUBLE"),
        ("first_step", "BIGINT"),
        ("min", "DOUBLE"),
        ("min_step", "BIGINT"),
        ("max", "DOUBLE"),
        ("max_step", "BIGINT"),
        ("mean", "DOUBLE"),
        ("count", "BIGINT"),
        ("nan_count", "BIGINT"),
    ),
    "inputs": ORIGIN_VIEWS["inputs"],
    "artifacts": (
        ("run_id", "VARCHAR"),
        ("experiment_id", "VARCHAR"),
        ("path", "VARCHAR"),
        ("size", "BIGINT"),
        ("media_type", "VARCHAR"),
        ("sha256", "VARCHAR"),
        ("logged_at", _TIME),
    ),
    "events": (
        ("run_id", "VARCHAR"),
        ("experiment_id", "VARCHAR"),
        ("kind", "VARCHAR"),
        ("key", "VARCHAR"),
        ("value", "VARCHAR"),
        ("at", _TIME),
        ("writer", "VARCHAR"),
    ),
    **{
        name: tuple((column.name, column.type) for column in view.columns)
        for name, view in EVENT_VIEWS.items()
    },
    "provenance": ORIGIN_VIEWS["provenance"],
    **LOGGED_VIEWS,
    **REGISTRY_VIEWS,
}

# What must be there before a view or table can be made.
NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "experiments": (),
    "run_facts": ("experiments",),
    "params": ("run_facts",),
    "tags": ("run_facts",),
    "input_rows": ("run_facts",),
    "metric_summary": ("run_facts",),
    "runs": ("run_facts",),
    "lake_rows": (),
    "point_files": (),
    "metrics": ("point_files",),
    "events": ("point_files", "lake_rows"),
    "artifacts": ("point_files",),
    **dict.fromkeys(EVENT_VIEWS, ("point_files",)),
    **ORIGIN_NEEDS,
    **LOGGED_NEEDS,
    **REGISTRY_NEEDS,
}

# The views that read Parquet files: segments, and the files of a compacted table. All others
# fold what the footers say.
ROW_TABLES: Final = {
    "metrics": "metrics",
    "events": "events",
    "artifacts": "events",
    **dict.fromkeys(EVENT_VIEWS, "events"),
    **dict.fromkeys([*ORIGIN_SQL, *LOGGED_SQL], "events"),
}

# Parquet's statistics leave NaN out, and DuckDB believes them: without the detour it would skip
# the rows that a question about NaN, or about values above all others, is after.
_METRICS = f"""
CREATE VIEW metrics AS
SELECT
    run_id, experiment_id, key, step, timestamp,
    CASE WHEN isnan(num) THEN 'NaN'::DOUBLE ELSE num END AS value,
    writer
FROM ({{segments}})
WHERE kind = '{schema.METRIC}'
UNION ALL
SELECT
    run_id, experiment_id, key, step, timestamp,
    CASE WHEN isnan(value) THEN 'NaN'::DOUBLE ELSE value END AS value,
    writer
FROM ({{metrics}})
"""

# Facts about experiments belong to no run; their partition's files are not among the points.
_EVENTS = f"""
CREATE VIEW events AS
SELECT
    run_id, experiment_id, kind, key,
    coalesce(
        str,
        CASE
            WHEN isnan(num) THEN 'nan'
            WHEN num = trunc(num) AND abs(num) < 1e17 THEN CAST(CAST(num AS BIGINT) AS VARCHAR)
            ELSE CAST(num AS VARCHAR)
        END
    ) AS value,
    timestamp AS at,
    writer
FROM (
    SELECT
        run_id, experiment_id, kind, key,
        CASE WHEN isnan(num) THEN 'NaN'::DOUBLE ELSE num END AS num,
        str, timestamp, writer
    FROM ({{segments}} UNION ALL BY NAME {{events}})
    WHERE kind <> '{schema.METRIC}'
    UNION ALL
    SELECT NULL, run_id, kind, key, num, str, make_timestamptz(clock), writer
    FROM inside.lake_rows
)
"""

_ARTIFACTS = f"""
CREATE VIEW artifacts AS
SELECT
    run_id,
    fact.experiment_id AS experiment_id,
    key AS path,
    CAST(fact.num AS BIGINT) AS size,
    coalesce(about ->> '$.media_type', about ->> '$.type') AS media_type,
    about ->> '$.sha256' AS sha256,
    fact.timestamp AS logged_at
FROM (
    SELECT *, CASE WHEN json_valid(fact.str) THEN CAST(fact.str AS JSON) END AS about
    FROM (
        SELECT
            run_id, key,
            max(struct_pack(timestamp, writer, seq, num, str, experiment_id)) AS fact
        FROM ({{segments}} UNION ALL BY NAME {{events}})
        WHERE kind = '{schema.ARTIFACT}'
        GROUP BY run_id, key
    )
    WHERE fact.str IS NOT NULL
)
"""

_ROWS: Final = {
    "metrics": _METRICS,
    "events": _EVENTS,
    "artifacts": _ARTIFACTS,
    **{name: view_sql(name) for name in EVENT_VIEWS},
    **ORIGIN_SQL,
    **LOGGED_SQL,
}


def build_sql(name: str, points: Sequence[PointFile], *, purged: Collection[str]) -> Sequence[str]:
    """Return the statements that make one view or table; what it needs must be there.

    Args:
        name: a key of `NEEDS`.
        points: the files that row-level views read.
        purged: runs that must not show.
    """
    if name in _ROWS:
        return [
            _ROWS[name].format(
                segments=_segments_sql(points, purged),
                metrics=_table_sql(METRICS, points, purged),
                events=_table_sql(EVENTS, points, purged),
            )
        ]
    folded = LOGGED_TABLES | REGISTRY_SQL
    return [folded[name]] if name in folded else FOLDS[name].split(";")


def _segments_sql(points: Sequence[PointFile], purged: Collection[str]) -> str:
    """Return the query over all rows of segments: their columns, writer, partition, seq.

    The files' places in the list are their `file_index` in the table `point_files`.
    """
    files = [point.path for point in points if not point.table]
    if not files:
        extra = [("writer", "VARCHAR"), ("experiment_id", "VARCHAR"), ("seq", "BIGINT")]
        return _no_rows([*schema.SEGMENT_COLUMNS, *extra])
    columns = ", ".join(f'r."{name}"' for name, _ in schema.SEGMENT_COLUMNS)
    return f"""
SELECT {columns}, f.writer, f.experiment_id, f.first + r.file_row_number AS seq
FROM {_read(files)} AS r
JOIN inside.point_files AS f ON f.file_index = r.file_index AND f.table_name = ''
WHERE r.file_row_number >= f.skip_rows{_hidden(purged)}
"""


def _table_sql(table: Table, points: Sequence[PointFile], purged: Collection[str]) -> str:
    """Return the query over all rows of the files of a compacted table, with the partition."""
    files = [point.path for point in points if point.table == table.name]
    if not files:
        known = [(column.name, column.type) for column in table.columns]
        return _no_rows([*known, ("experiment_id", "VARCHAR")])
    columns = ", ".join(f'r."{column.name}"' for column in table.columns)
    return f"""
SELECT {columns}, f.experiment_id
FROM {_read(files)} AS r
JOIN inside.point_files AS f ON f.file_index = r.file_index AND f.table_name = '{table.name}'
WHERE true{_hidden(purged)}
"""


def _read(files: Sequence[str]) -> str:
    listed = ", ".join(map(text_literal, files))
    return f"read_parquet([{listed}], hive_partitioning = false, union_by_name = false)"


def _hidden(purged: Collection[str]) -> str:
    return f" AND r.run_id NOT IN ({', '.join(map(text_literal, purged))})" if purged else ""


def _no_rows(columns: Sequence[tuple[str, str]]) -> str:
    listed = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in columns)
    return f"SELECT {listed} WHERE false"


def text_literal(text: str) -> str:
    """Return SQL that means exactly this text."""
    return "'" + text.replace("'", "''") + "'"
