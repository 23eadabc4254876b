"""Arrow to what people work with: the only file that knows Polars and pandas."""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.query.views import VIEWS

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from runlake.query.engine import Query
    from runlake.storage.tables import PointFile
else:
    pa = lazy("pyarrow")
    pl = lazy("polars")

_MONTH_DAYS = 30  # as DuckDB's own client has it


def to_polars(table: pa.Table) -> pl.DataFrame:
    """Return the table as a Polars frame, without copying where Polars can.

    A difference of times, which DuckDB calls an interval, becomes a duration.
    """
    for place, field in enumerate(table.schema):
        if field.type == pa.month_day_nano_interval():
            table = table.set_column(place, field.name, _durations(table.column(place)))
    return cast("pl.DataFrame", pl.from_arrow(table))


def _durations(intervals: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    """Turn months, days and nanoseconds, which Polars has no type for, into microseconds."""
    whole = [
        None
        if each is None
        else timedelta(
            days=each.months * _MONTH_DAYS + each.days, microseconds=each.nanoseconds // 1000
        )
        for each in intervals.to_pylist()
    ]
    return pa.array(whole, pa.duration("us"))


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Return the table as a pandas frame; times stay aware.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    lazy("pandas").DataFrame  # noqa: B018 - raises our error, with the pip line, before Arrow does
    frame: pd.DataFrame = table.to_pandas()
    return frame


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return one dictionary for each row; a map becomes a dictionary."""
    return table.to_pylist(maps_as_pydicts="strict")


def scan(query: Query, name: str) -> pl.LazyFrame:
    """Return a view as a lazy Polars frame.

    `metrics` reads the snapshot's Parquet files when the frame is collected, and only the
    columns and rows that the plan asks for; all other views are read now.

    Args:
        query: the snapshot.
        name: a public view.

    Raises:
        InvalidInputError: there is no such view.
    """
    if name not in VIEWS:
        raise InvalidInputError(f"there is no view {name!r}; there are {', '.join(VIEWS)}.")
    if name != "metrics" or not query.point_files():
        return to_polars(query.sql(f"FROM {name}")).lazy()
    parts = [_scan_alike(list(files)) for _, files in groupby(query.point_files(), key=_alike)]
    rows = pl.concat(parts)
    purged = query.tables.purged
    return rows.filter(~pl.col("run_id").is_in(purged)) if purged else rows


def _scan_alike(files: list[PointFile]) -> pl.LazyFrame:
    """Read the metric rows of files that `_alike` holds for one."""
    rows = pl.scan_parquet([file.path for file in files], glob=False, hive_partitioning=False)
    # A slice stops filters from reaching the file, so only a file that needs one has one.
    rows = rows.slice(files[0].skip_rows) if files[0].skip_rows else rows
    return rows.filter(pl.col("kind") == schema.METRIC).select(
        "run_id",
        pl.lit(files[0].experiment_id).alias("experiment_id"),
        "key",
        "step",
        "timestamp",
        pl.col("num").alias("value"),
        pl.lit(files[0].writer).alias("writer"),
    )


def _alike(file: PointFile) -> tuple[str, str, int]:
    """Return what files share that one scan can read; one with rows to skip stands alone."""
    return file.writer, file.experiment_id, file.first if file.skip_rows else -1
