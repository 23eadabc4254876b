"""Views as lazy Polars frames, which read no more than their plan asks for.

`metrics`, `events`, `artifacts` and the other views of events are read when a frame is collected:
the columns that the plan needs, and of the rows those that its filters leave, down to row groups
of the Parquet files. Of `metrics` a filter on `run_id` or `key` also says which files can have
such points at all; of a far lake only these are fetched. What a frame reads stays as long as the
frame, or one made from it.
"""

from __future__ import annotations

import json
import math
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, final

from runlake import arguments, schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.query.event_views import EVENT_VIEWS
from runlake.query.export import to_polars
from runlake.query.views import VIEWS
from runlake.storage.table_files import EVENTS, METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import polars as pl
    import pyarrow as pa
    from polars.io import plugins

    from runlake.query.engine import Query
    from runlake.query.event_views import Column, EventView
    from runlake.storage.table_files import Table
    from runlake.storage.tables import PointFile, SnapshotTables
else:
    pa = lazy("pyarrow")
    pl = lazy("polars")
    plugins = lazy("polars.io.plugins")

# The file of a row, while a frame is made.
_PATH: Final = "runlake_path"
# What of a filter may come before the latest of several artifacts under one path is taken.
_ARTIFACT_KEYS: Final = frozenset({"run_id", "path"})
_SAME: Final = ("run_id", "key")  # of these there is one latest event
_BIGINT_ABOVE: Final = 1 << 63
_WHOLE_BELOW: Final = 1e17  # greater numbers have an exponent as texts


def scan(
    query: Query,
    name: str,
    *,
    pin: Callable[[SnapshotTables], tuple[SnapshotTables, object]] | None = None,
) -> pl.LazyFrame:
    """Return a view as a lazy Polars frame; views that are folded, or few rows, are read now.

    Args:
        query: the snapshot.
        name: a public view.
        pin: lets the rows of the snapshot stay as long as what it returns second.

    Returns:
        The frame, with the view's columns; rows in no order that means anything.

    Raises:
        InvalidInputError: there is no such view.
        FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
        StorageError: the store cannot be read.
    """
    if arguments.text("view", name) not in VIEWS:
        raise InvalidInputError(f"there is no view {name!r}; there are {', '.join(VIEWS)}.")
    if name not in _READERS:
        return to_polars(query.sql(f"FROM {name}")).lazy()
    tables, kept = (query.tables, None) if pin is None else pin(query.tables)
    source = _Source(_READERS[name], tables, kept)
    columns = {column: _type(kind) for column, kind in VIEWS[name]}
    return plugins.register_io_source(
        source, schema=columns, is_pure=True, explain_name=f"runlake {name}"
    )


@final
class _Source:
    """Reads one view for Polars, each time that a frame is collected."""

    def __init__(
        self,
        reader: Callable[[SnapshotTables, pl.Expr | None], pl.LazyFrame],
        tables: SnapshotTables,
        kept: object,
    ) -> None:
        self._read = reader
        self._tables = tables
        self._kept = kept  # frees the files when nobody holds it

    def __call__(
        self,
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        _: int | None,
    ) -> Iterator[pl.DataFrame]:
        rows = self._read(self._tables, predicate)
        if predicate is not None:
            rows = rows.filter(predicate)
        if with_columns is not None:
            rows = rows.select(with_columns)
        if n_rows is not None:
            rows = rows.head(n_rows)
        yield from rows.collect_batches(maintain_order=True)


def _metrics(tables: SnapshotTables, predicate: pl.Expr | None) -> pl.LazyFrame:
    run_ids, keys = (_named(predicate, column, tables) for column in ("run_id", "key"))
    if run_ids is None and keys is None:
        files, read = tables.row_files(METRICS.name), None
    else:
        found = tables.select_points(run_ids, keys)
        files, read = found.files, found.rows
    live = _segments(files)
    wanted = [name for name, _ in VIEWS["metrics"]]
    parts = [
        _scanned(files, METRICS).with_columns(_file_fact(files, "experiment_id")).select(wanted),
        _rows(live, pl.col("kind") == schema.METRIC).select(
            "run_id",
            _file_fact(live, "experiment_id"),
            "key",
            "step",
            "timestamp",
            pl.col("num").alias("value"),
            _file_fact(live, "writer"),
        ),
    ]
    if read is not None:
        texts = pl.col("run_id", "experiment_id", "key", "writer").cast(pl.String)
        parts.append(to_polars(read.select(wanted)).lazy().with_columns(texts))
    return _shown(pl.concat(parts), tables)


def _events(tables: SnapshotTables, _: pl.Expr | None) -> pl.LazyFrame:
    rows = _event_rows(tables, pl.col("kind") != schema.METRIC).select(
        "run_id",
        "experiment_id",
        "kind",
        "key",
        _text().alias("value"),
        pl.col("timestamp").alias("at"),
        "writer",
    )
    # Of the whole lake: they belong to no run.
    lake = to_polars(tables.lake_events).lazy()
    about_lake = lake.select(
        pl.lit(None, pl.String).alias("run_id"),
        pl.col("run_id").alias("experiment_id"),
        "kind",
        "key",
        _text().alias("value"),
        pl.col("clock").cast(pl.Datetime("us", "UTC")).alias("at"),
        "writer",
    )
    return pl.concat([_shown(rows, tables), about_lake])


def _artifacts(tables: SnapshotTables, predicate: pl.Expr | None) -> pl.LazyFrame:
    rows = _shown(_event_rows(tables, pl.col("kind") == schema.ARTIFACT), tables)
    rows = rows.select(
        "run_id",
        "experiment_id",
        pl.col("key").alias("path"),
        pl.col("num").cast(pl.Int64).alias("size"),
        "str",
        pl.col("timestamp").alias("logged_at"),
        "writer",
    )
    for part in _conjuncts(predicate):
        if set(part.meta.root_names()) <= _ARTIFACT_KEYS:
            rows = rows.filter(part)
    rows = _latest(rows, "run_id", "path", by="logged_at").filter(pl.col("str").is_not_null())
    about = pl.Struct({"media_type": pl.String, "sha256": pl.String})
    told = pl.col("str").map_batches(
        lambda texts: pl.Series(texts.name, map(_about, texts), about),
        return_dtype=about,
        is_elementwise=True,
    )
    return rows.with_columns(told.alias("about")).select(
        "run_id",
        "experiment_id",
        "path",
        "size",
        pl.col("about").struct["media_type"],
        pl.col("about").struct["sha256"],
        "logged_at",
    )


def _event_view(view: EventView, tables: SnapshotTables, predicate: pl.Expr | None) -> pl.LazyFrame:
    rows = _shown(_event_rows(tables, pl.col("kind") == view.kind), tables)
    if view.is_latest:
        given = [column for column in view.columns if column.source in _SAME]
        rows = rows.with_columns(pl.col(column.source).alias(column.name) for column in given)
        for part in _conjuncts(predicate):
            if set(part.meta.root_names()) <= {column.name for column in given}:
                rows = rows.filter(part)
        rows = _latest(rows, *_SAME, by="timestamp")
    if list(view.fields()):
        rows = rows.with_columns(_told(view).alias("about"))
    if view.required is not None:
        rows = rows.filter(pl.col("about").struct[view.required].is_not_null())
    return rows.select(map(_column, view.columns))


def _told(view: EventView) -> pl.Expr:
    """Return the fields of the events' JSON that a view shows, as a struct."""
    columns = list(view.fields())
    shape = pl.Struct({str(column.field): _type(column.type) for column in columns})
    return pl.col("str").map_batches(
        lambda texts: pl.Series(texts.name, [_facts(text, columns) for text in texts], shape),
        return_dtype=shape,
        is_elementwise=True,
    )


def _column(column: Column) -> pl.Expr:
    if column.field is not None:
        return pl.col("about").struct[column.field].alias(column.name)
    found = pl.col(column.source)
    # A cast keeps filters from the file, so only a number has one.
    return (found.cast(pl.Int64, strict=False) if column.type == "BIGINT" else found).alias(
        column.name
    )


def _latest(rows: pl.LazyFrame, *keys: str, by: str) -> pl.LazyFrame:
    """Keep of the rows with the same keys the last."""
    # A stable sort; the clock of a writer's events rises from row to row.
    return rows.sort(by, "writer", maintain_order=True).unique(
        keys, keep="last", maintain_order=True
    )


_READERS: Final[dict[str, Callable[[SnapshotTables, pl.Expr | None], pl.LazyFrame]]] = {
    "metrics": _metrics,
    "events": _events,
    "artifacts": _artifacts,
    # A lazy frame that numbers rows would read all of them for the few that a view shows.
    **{
        name: partial(_event_view, view)
        for name, view in EVENT_VIEWS.items()
        if not view.is_numbered
    },
}


def _type(kind: str) -> pl.DataType:
    """Return Polars' type for DuckDB's."""
    if kind.endswith("[]"):
        return pl.List(_type(kind.removesuffix("[]")))
    if kind.startswith("TIMESTAMP"):
        return pl.Datetime("us", "UTC")
    return {"BIGINT": pl.Int64(), "DOUBLE": pl.Float64(), "VARCHAR": pl.String()}[kind]


def _event_rows(tables: SnapshotTables, kinds: pl.Expr) -> pl.LazyFrame:
    """Read the rows that are no points, of some kinds, with experiment and writer."""
    files = tables.row_files(EVENTS.name)
    live = _segments(files)
    names = ["run_id", "kind", "key", "timestamp", "num", "str", "experiment_id", "writer"]
    compacted = _scanned(files, EVENTS).filter(kinds)
    of_file = (_file_fact(live, "experiment_id"), _file_fact(live, "writer"))
    return pl.concat(
        [
            compacted.with_columns(_file_fact(files, "experiment_id")).select(names),
            _rows(live, kinds).with_columns(*of_file).select(names),
        ]
    )


def _segments(files: Sequence[PointFile]) -> list[PointFile]:
    return [file for file in files if not file.table]


def _scanned(files: Sequence[PointFile], table: Table) -> pl.LazyFrame:
    """Read the files of a compacted table, with the file of each row."""
    columns = {column.name: _type(column.type) for column in table.columns}
    paths = [file.path for file in files if file.table == table.name]
    if not paths:
        return pl.LazyFrame(schema=columns | {_PATH: pl.String()})
    return pl.scan_parquet(
        paths, glob=False, hive_partitioning=False, include_file_paths=_PATH, schema=columns
    )


def _rows(files: Sequence[PointFile], kinds: pl.Expr) -> pl.LazyFrame:
    """Read the rows of some kinds of segments, with the file of each."""
    columns = {name: _type(kind) for name, kind in schema.SEGMENT_COLUMNS}
    parts = []
    for _, alike in groupby(files, key=lambda file: (file.skip_rows, file.skip_rows and file.path)):
        group = list(alike)
        part = pl.scan_parquet(
            [file.path for file in group],
            glob=False,
            hive_partitioning=False,
            include_file_paths=_PATH,
            schema=columns,
            # Another engine may have written texts as categories.
            cast_options=pl.ScanCastOptions(categorical_to_string="allow"),
        )
        # A slice keeps filters from the file, so only a file that needs one has one.
        parts.append(part.slice(group[0].skip_rows) if group[0].skip_rows else part)
    if not parts:
        return pl.LazyFrame(schema=columns | {_PATH: pl.String()})
    return pl.concat(parts).filter(kinds)


def _file_fact(files: Sequence[PointFile], name: str) -> pl.Expr:
    """Return what all rows of a file have in common, as a column."""
    facts = {file.path: str(getattr(file, name)) for file in files}
    if len(set(facts.values())) <= 1:
        return pl.lit(next(iter(facts.values()), None), pl.String).alias(name)
    # A number for each path is found sooner than a text.
    number = pl.col(_PATH).cast(pl.Enum(list(facts))).to_physical()
    return number.replace_strict(
        list(range(len(facts))), list(facts.values()), return_dtype=pl.String
    ).alias(name)


def _shown(rows: pl.LazyFrame, tables: SnapshotTables) -> pl.LazyFrame:
    return rows.filter(~pl.col("run_id").is_in(tables.purged)) if tables.purged else rows


def _named(predicate: pl.Expr | None, column: str, tables: SnapshotTables) -> list[str] | None:
    """Return the values of a column that a filter lets through; None if it does not say."""
    parts = [part for part in _conjuncts(predicate) if part.meta.root_names() == [column]]
    if not parts:
        return None
    known: Any = tables.summaries[column].unique().cast(pa.string())
    values = to_polars(pa.table({column: known}))
    return values.filter(*parts)[column].to_list()


def _conjuncts(predicate: pl.Expr | None) -> list[pl.Expr]:
    """Return the parts of a filter that must all hold."""
    if predicate is None:
        return []
    parts = predicate.meta.pop()
    # Polars tells the inputs of an expression, and not what it does with them.
    for one, other in (parts, parts[::-1]) if len(parts) == 2 else ():  # noqa: PLR2004 - a pair
        if (one & other).meta.eq(predicate):
            return _conjuncts(one) + _conjuncts(other)
    return [predicate]


def _text() -> pl.Expr:
    """Return the value of a fact as the view has it: its text, else its number as a text."""
    numbers = pl.col("num").map_batches(
        lambda numbers: pl.Series(numbers.name, map(_number_text, numbers), pl.String),
        return_dtype=pl.String,
        is_elementwise=True,
    )
    return pl.coalesce("str", numbers)


def _number_text(number: float | None) -> str | None:
    if number is None:
        return None
    is_whole = abs(number) < _WHOLE_BELOW and number == math.trunc(number)
    return str(int(number)) if is_whole else repr(number)


def _about(text: str | None) -> dict[str, str | None]:
    """Return what an artifact's fact says of the file."""
    try:
        said = json.loads(text or "")
    except ValueError:
        said = None
    facts = said if isinstance(said, dict) else {}
    told = {
        name: value if value is None or isinstance(value, str) else json.dumps(value)
        for name, value in facts.items()
    }
    return {
        "media_type": told.get("media_type") or told.get("type"),
        "sha256": told.get("sha256"),
    }


def _facts(text: str | None, columns: Sequence[Column]) -> dict[str, object]:
    """Return fields of an event's JSON; what is not there or of another type is null."""
    try:
        said = json.loads(text or "")
    except ValueError:
        said = None
    facts = said if isinstance(said, dict) else {}
    return {str(column.field): _fact(facts.get(column.field), column.type) for column in columns}


def _fact(value: object, kind: str) -> object:
    """Return a value of JSON as DuckDB's `json_transform` has it."""
    if value is None:
        return None
    if kind.endswith("[]"):
        inner = kind.removesuffix("[]")
        return [_fact(each, inner) for each in value] if isinstance(value, list) else None
    if kind == "VARCHAR":
        return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    if kind == "DOUBLE":
        return float(value)
    whole = round(value)
    return whole if -_BIGINT_ABOVE <= whole < _BIGINT_ABOVE else None
