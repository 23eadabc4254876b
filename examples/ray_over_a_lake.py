"""Ray Data over a lake: a task for each file of one snapshot; the answer is DuckDB's.

Needs `pip install 'ray[data]'`. On a cluster the lake is in a bucket, and workers read it.
"""

from __future__ import annotations

from importlib import import_module, util
from typing import TYPE_CHECKING, Any

import polars as pl

import runlake

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ["run_id", "key", "step", "value"]


def log(lake: runlake.Lake, name: str, *, scale: float) -> None:
    with lake.start_run(name, experiment="decay") as run:
        for step in range(1000):
            run.log({"loss": scale / (1 + step)}, step=step)


def read(batch: dict[str, Any], purged: tuple[str, ...]) -> pa.Table:
    """Return one file's rows of `metrics` by the rule of `FileList`; a worker does."""
    (path,), (is_segment,), (skip,) = batch["path"], batch["is_segment"], batch["skip_rows"]
    rows = pl.scan_parquet(path, hive_partitioning=False)
    if is_segment:
        rows = rows.slice(skip).filter(pl.col("kind") == "metric").rename({"num": "value"})
    rows = rows.filter(~pl.col("run_id").is_in(list(purged)))
    return rows.select(COLUMNS).collect().to_arrow()


def main() -> None:
    if util.find_spec("ray") is None:
        print("not run: pip install 'ray[data]'")
        return
    ray = import_module("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with runlake.open("lake") as lake:
        log(lake, "old", scale=1)
        lake.close()
        lake.maintain.compact()
        log(lake, "new", scale=2)  # in live segments still
        files = lake.files("metrics")
        listed = ray.data.from_items(files.frame().to_dicts(), override_num_blocks=len(files))
        points = listed.map_batches(read, batch_size=1, fn_kwargs={"purged": files.purged})
        theirs = sorted(
            points.groupby("run_id", num_partitions=2).mean("value").take_all(), key=str
        )
        print(f"{len(files.compacted)} compacted files, {len(files.segments)} segments", theirs)
        ours = lake.sql("SELECT avg(value) AS mean FROM metrics GROUP BY run_id ORDER BY run_id")
        print("DuckDB says", ours["mean"].to_list())


if __name__ == "__main__":
    main()
