"""Dask over a lake: a task for each file of one snapshot; the answer is DuckDB's.

Needs `pip install 'dask[dataframe]'`. On a cluster the lake is in a bucket, and workers read it.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module, util
from typing import TYPE_CHECKING

import polars as pl

import runlake

if TYPE_CHECKING:
    import pandas as pd

    from runlake.query.filelist import DataFile

COLUMNS = ["run_id", "key", "step", "value"]


def log(lake: runlake.Lake, name: str, *, scale: float) -> None:
    with lake.start_run(name, experiment="decay") as run:
        for step in range(1000):
            run.log({"loss": scale / (1 + step)}, step=step)


def read(file: DataFile, purged: tuple[str, ...]) -> pd.DataFrame:
    """Return a file's rows of `metrics` by the rule of `FileList`; a worker does."""
    rows = pl.scan_parquet(file.path, hive_partitioning=False)
    if file.is_segment:
        rows = rows.slice(file.skip_rows).filter(pl.col("kind") == "metric")
        rows = rows.rename({"num": "value"})
    rows = rows.filter(~pl.col("run_id").is_in(list(purged)))
    return rows.select(COLUMNS).collect().to_pandas()


def main() -> None:
    if util.find_spec("dask") is None or util.find_spec("pandas") is None:
        print("not run: pip install 'dask[dataframe]'")
        return
    dataframe = import_module("dask.dataframe")
    with runlake.open("lake") as lake:
        log(lake, "old", scale=1)
        lake.close()
        lake.maintain.compact()
        log(lake, "new", scale=2)  # in live segments still
        files = lake.files("metrics")
        points = dataframe.from_map(partial(read, purged=files.purged), list(files))
        theirs = points.groupby("run_id")["value"].agg(["count", "mean"]).compute().sort_index()
        print(f"{len(files.compacted)} compacted files, {len(files.segments)} segments", theirs)
        ours = lake.sql("SELECT avg(value) AS mean FROM metrics GROUP BY run_id ORDER BY run_id")
        print("DuckDB says", ours["mean"].to_list())


if __name__ == "__main__":
    main()
