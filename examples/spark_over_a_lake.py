"""Spark over a lake: `lake.files` names the files of one snapshot; the answer is DuckDB's.

Needs `pip install pyspark` and Java. On a cluster the lake is in a bucket, and executors read it.
"""

from __future__ import annotations

import shutil
from importlib import import_module, util
from typing import TYPE_CHECKING, Any

import runlake

if TYPE_CHECKING:
    from runlake.query.filelist import FileList

LOCAL = {"spark.ui.enabled": "false", "spark.driver.bindAddress": "127.0.0.1"}
COLUMNS = ["run_id", "key", "step", "value"]
QUESTION = "SELECT run_id, count(*) AS points, avg(value) AS mean FROM {} GROUP BY 1 ORDER BY 1"


def log(lake: runlake.Lake, name: str, *, scale: float) -> None:
    with lake.start_run(name, experiment="decay") as run:
        for step in range(1000):
            run.log({"loss": scale / (1 + step)}, step=step)


def metrics(spark: Any, files: FileList) -> Any:  # noqa: ANN401 - pyspark may not be here
    """Return the rows of `metrics` by the rule of `FileList`."""
    found = spark.read.parquet(*[file.path for file in files.compacted]).select(COLUMNS)
    by_skip: dict[int, list[str]] = {}
    for file in files.segments:
        by_skip.setdefault(file.skip_rows, []).append(file.path)
    for skip, paths in by_skip.items():
        rows = spark.read.parquet(*paths).where(f"_metadata.row_index >= {skip}")
        rows = rows.where("kind = 'metric'").withColumnRenamed("num", "value")
        found = found.unionByName(rows.select(COLUMNS))
    return found.where(~found.run_id.isin(list(files.purged)))


def main() -> None:
    if util.find_spec("pyspark") is None or shutil.which("java") is None:
        print("not run: pip install pyspark, and a Java runtime")
        return
    builder = import_module("pyspark.sql").SparkSession.builder.master("local[2]")
    builder = builder.config(map=LOCAL)
    with runlake.open("lake") as lake, builder.getOrCreate() as spark:
        log(lake, "old", scale=1)
        lake.close()
        lake.maintain.compact()
        log(lake, "new", scale=2)  # in live segments still
        files = lake.files("metrics")
        metrics(spark, files).createOrReplaceTempView("points")
        theirs = [tuple(row) for row in spark.sql(QUESTION.format("points")).collect()]
        print(f"{len(files.compacted)} compacted files, {len(files.segments)} segments", theirs)
        print("DuckDB says", lake.sql(QUESTION.format("metrics")).rows())


if __name__ == "__main__":
    main()
