"""Reads a lake with DuckDB alone: runs the SQL of `docs/spec/v1.md` and prints its answers.

    python bare_duckdb.py LAKE SPECIFICATION

Nothing but the specification is used, and runlake is not imported.
"""

from __future__ import annotations

import json
import os
import re
import sys
from functools import partial
from pathlib import Path

import duckdb

BLOCK = re.compile(r"<!-- sql: ([\w-]+) -->\n+```sql\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
FOLDS = ("metrics", "summaries", "params", "tags", "experiments", "status", "runs")
ANSWERS = {
    "metrics": "SELECT run_id, key, step, epoch_us(timestamp), value, writer FROM metrics",
    "summaries": """
        SELECT run_id, key, last, last_step, first, first_step, min, min_step, max, max_step,
            count, nan_count, mean
        FROM summaries
    """,
    "params": "SELECT run_id, key, value FROM params",
    "tags": "SELECT run_id, key, value FROM tags",
    "experiments": "SELECT experiment_id, name, lifecycle_stage FROM experiments",
    "runs": """
        SELECT run_id, experiment_id, run_name, status, is_stale, lifecycle_stage FROM runs
    """,
}


def execute(connection: duckdb.DuckDBPyConnection, blocks: dict[str, str], *names: str) -> None:
    """Run blocks of SQL."""
    for name in names:
        for statement in connection.extract_statements(blocks[name]):
            connection.execute(statement)


def main(lake: Path, specification: Path) -> None:
    """Print one JSON object: for each answer its rows."""
    blocks = dict(BLOCK.findall(specification.read_text("utf-8")))
    os.chdir(lake)
    connection = duckdb.connect()
    run = partial(execute, connection, blocks)
    run("newest" if list(lake.glob("manifests/*.json")) else "no-manifest")
    run("marks")
    is_compacted = bool(list(lake.glob("tables/*/*/*.parquet")))
    if is_compacted:
        run("cold-marks")
    run("live")
    is_live = connection.execute("SELECT count(*) FROM live").fetchall() > [(0,)]
    run(*(("rows", "writers") if is_live else ("no-segments",)))
    if is_compacted:
        run("tables")
    run(*FOLDS)
    found = {name: connection.execute(query).fetchall() for name, query in ANSWERS.items()}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
