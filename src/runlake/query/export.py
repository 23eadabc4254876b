"""Arrow to what people work with: the only file that knows Polars and pandas."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from runlake._lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import polars as pl
    import pyarrow as pa
else:
    pa = lazy("pyarrow")
    pl = lazy("polars")

_MONTH_DAYS = 30  # as DuckDB's own client has it


def to_polars(table: pa.Table) -> pl.DataFrame:
    """Return the table as a Polars frame, without copying where Polars can.

    A difference of times, which DuckDB calls an interval, becomes a duration. Of columns with
    the same name, as a join may give, the later ones are numbered.
    """
    return cast("pl.DataFrame", pl.from_arrow(tidy(table)))


def tidy(table: pa.Table) -> pa.Table:
    """Return a table that any frame or file can hold: no name twice, no intervals."""
    return without_intervals(table.rename_columns(distinct(table.column_names)))


def distinct(names: Sequence[str]) -> list[str]:
    """Number names that come again: `a`, `a`, `b` become `a`, `a_1`, `b`."""
    given, taken = set(names), set[str]()
    chosen = []
    for name in names:
        fresh, number = name, 0
        while fresh in taken or (number and fresh in given):
            number += 1
            fresh = f"{name}_{number}"
        taken.add(fresh)
        chosen.append(fresh)
    return chosen


def without_intervals(table: pa.Table) -> pa.Table:
    """Turn intervals, which neither Polars nor Parquet has a type for, into durations."""
    for place, field in enumerate(table.schema):
        if field.type == pa.month_day_nano_interval():
            table = table.set_column(place, field.name, _durations(table.column(place)))
    return table


def _durations(intervals: pa.ChunkedArray[Any]) -> pa.Array[Any]:
    """Turn months, days and nanoseconds into microseconds."""
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


def to_arrow(columns: Mapping[str, Sequence[object]]) -> pa.Table:
    """Return columns of Python values as an Arrow table; a column has one type."""
    series = {name: pl.Series(list(values), strict=False) for name, values in columns.items()}
    return pl.DataFrame(series).to_arrow()


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return one dictionary for each row; a map becomes a dictionary."""
    columns = [to_values(column) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def to_values(column: pa.ChunkedArray[Any]) -> list[Any]:
    """Return a column's values as Python has them; a map becomes a dictionary.

    Arrow's own way of times imports pandas wherever it is installed, and ends where the years
    of Python do: a time or date behind that is given as text.
    """
    kind = column.type
    if pa.types.is_date32(kind):
        days = (day for chunk in column.chunks for day in chunk.view(pa.int32()).to_pylist())
        return [None if day is None else _date(day) for day in days]
    if not pa.types.is_timestamp(kind) or kind.unit != "us":
        return column.to_pylist(maps_as_pydicts="strict")
    epoch = datetime(1970, 1, 1, tzinfo=None if kind.tz is None else UTC)
    counts = (count for chunk in column.chunks for count in chunk.view(pa.int64()).to_pylist())
    return [None if count is None else _moment(epoch, count) for count in counts]


def _date(days: int) -> date | str:
    try:
        return date(1970, 1, 1) + timedelta(days)
    except OverflowError:
        return f"{days} d since 1970"


def _moment(epoch: datetime, count_us: int) -> datetime | str:
    try:
        return epoch + timedelta(microseconds=count_us)
    except OverflowError:
        return f"{count_us} us since 1970"
