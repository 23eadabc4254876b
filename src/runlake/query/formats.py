"""Record batches to a file, a few at a time: CSV, JSON lines, Parquet, Arrow.

What is held in memory is one part of some MiB, whatever the size of the whole. How values look
in the two text formats is said in `runlake.query.cells`; Parquet and Arrow keep the types, but
that an interval becomes a duration.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, cast

from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.query.cells import csv_texts, is_text, json_texts
from runlake.query.export import distinct, without_intervals

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO

    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pa = lazy("pyarrow")
    pl = lazy("polars")
    pq = lazy("pyarrow.parquet")

Compression: TypeAlias = Literal["gzip", "zstd"]
SUFFIXES: Final = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
FORMATS: Final = tuple(dict.fromkeys(SUFFIXES.values()))
_TEXT: Final = frozenset({"csv", "jsonl"})
_COMPRESSIONS: Final[dict[str, Compression]] = {".gz": "gzip", ".zst": "zstd"}
# A part is written when it has one of these; a row group of Parquet is a part.
_PART_ROWS: Final = 1 << 17
# As text a row takes ten times the memory, and smaller parts are no worse.
_TEXT_PART_ROWS: Final = 1 << 16
_PART_BYTES: Final = 32 << 20


class Form(NamedTuple):
    """How a file is written.

    Attributes:
        name: one of `FORMATS`.
        compression: of the whole file: `gzip`, `zstd` or None.
    """

    name: str
    compression: Compression | None = None


def form_of(file_name: str, name: str | None = None) -> Form:
    """Find the form of a file.

    Args:
        file_name: its suffixes count, as `.csv` and `.jsonl.gz`.
        name: the format, whatever the suffix; None goes by the suffix.

    Returns:
        The format, and by the last suffix the compression.

    Raises:
        InvalidInputError: the format is not known, or cannot be told from the name.
    """
    stem, dot, last = file_name.rpartition(".")
    compression = _COMPRESSIONS.get(dot + last.lower())
    if compression is not None:
        _, dot, last = stem.rpartition(".")
    known = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    if name is None:
        name = SUFFIXES.get(dot + last.lower())
        if name is None:
            raise InvalidInputError(
                f"the name {file_name!r} does not tell the format: let it end in "
                f"{', '.join(SUFFIXES)}, or give the format: {known}."
            )
    elif name not in FORMATS:
        raise InvalidInputError(f"format is {name!r}; it may be {known}.")
    if compression is not None and name not in _TEXT:
        raise InvalidInputError(
            f"{file_name!r}: {name} is compressed inside; leave the suffix out."
        )
    return Form(name, compression)


def write(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, *, sink: IO[bytes], form: Form
) -> int:
    """Write rows to an open file.

    Args:
        batches: the rows, all of the schema.
        schema: also of no rows.
        sink: open for writing bytes; stays open but where the form has a compression.
        form: how.

    Returns:
        The number of rows.
    """
    openers: dict[str, Callable[[IO[bytes], pa.Schema], _Writer]] = {
        "csv": _CsvWriter,
        "jsonl": _JsonWriter,
        "parquet": _ParquetWriter,
        "arrow": _ArrowWriter,
    }
    schema = pa.schema(
        [field.with_name(name) for field, name in zip(schema, distinct(schema.names), strict=True)]
    )
    empty = without_intervals(schema.empty_table())
    row_count = 0
    with ExitStack() as stack:
        if form.compression is not None:
            packed = pa.CompressedOutputStream(cast("io.IOBase", sink), form.compression)
            sink = cast("IO[bytes]", stack.enter_context(packed))
        writer = openers[form.name](sink, empty.schema)
        rows = _TEXT_PART_ROWS if form.name in _TEXT else _PART_ROWS
        try:
            for part in _parts(batches, rows=rows):
                renamed = part.rename_columns(schema.names)
                writer.write(without_intervals(renamed).combine_chunks())
                row_count += part.num_rows
        except BaseException:
            # One that is left open would write to the sink when it is collected.
            with suppress(OSError):
                writer.finish()
            raise
        writer.finish()
    return row_count


def _parts(batches: Iterable[pa.RecordBatch], *, rows: int) -> Iterator[pa.Table]:
    """Gather batches into parts of a size that is worth writing."""
    held: list[pa.RecordBatch] = []
    row_count = size_bytes = 0
    for batch in batches:
        held.append(batch)
        row_count += batch.num_rows
        size_bytes += batch.nbytes
        if row_count >= rows or size_bytes >= _PART_BYTES:
            yield pa.Table.from_batches(held)
            held, row_count, size_bytes = [], 0, 0
    if row_count:
        yield pa.Table.from_batches(held)


class _Writer:
    """What writes one file, part by part."""

    def __init__(self, sink: IO[bytes], schema: pa.Schema) -> None:
        self._sink = sink
        self._schema = schema

    def write(self, part: pa.Table) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Write what comes behind the last part; the sink stays open."""


class _CsvWriter(_Writer):
    def __init__(self, sink: IO[bytes], schema: pa.Schema) -> None:
        super().__init__(sink, schema)
        self._write({name: pl.Series([name]) for name in schema.names})

    def write(self, part: pa.Table) -> None:
        columns = {
            name: csv_texts(column.combine_chunks())
            for name, column in zip(part.column_names, part.columns, strict=True)
        }
        self._write(columns)

    def _write(self, columns: dict[str, pl.Series]) -> None:
        if len(columns) == 1:
            # A null alone on its line would make an empty line, which most readers skip.
            columns = {name: column.fill_null("") for name, column in columns.items()}
        frame = pl.DataFrame(columns)
        frame.write_csv(self._sink, include_header=False, quote_style="necessary")


class _JsonWriter(_Writer):
    def write(self, part: pa.Table) -> None:
        pieces: list[pl.Expr] = []
        columns: dict[str, pl.Series] = {}
        for name, column in zip(part.column_names, part.columns, strict=True):
            before = "," if pieces else "{"
            pieces.append(pl.lit(f"{before}{json.dumps(name, ensure_ascii=False)}:"))
            columns[f"c{len(columns)}"] = json_texts(column.combine_chunks())
            pieces.append(pl.col(f"c{len(columns) - 1}"))
        lines = pl.DataFrame(columns).select(pl.concat_str(*pieces, pl.lit("}")))
        lines.write_csv(self._sink, include_header=False, quote_style="never")


class _ParquetWriter(_Writer):
    def __init__(self, sink: IO[bytes], schema: pa.Schema) -> None:
        super().__init__(sink, schema)
        # Of numbers hardly one comes twice: to look for it takes longer than all the rest.
        texts: Any = [path for field in schema for path in _text_paths(field.name, field.type)]
        self._writer = pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=texts)

    def write(self, part: pa.Table) -> None:
        self._writer.write_table(part, row_group_size=max(part.num_rows, 1))

    def finish(self) -> None:
        self._writer.close()


class _ArrowWriter(_Writer):
    def __init__(self, sink: IO[bytes], schema: pa.Schema) -> None:
        super().__init__(sink, schema)
        self._writer = pa.ipc.new_file(cast("io.IOBase", sink), schema)

    def write(self, part: pa.Table) -> None:
        self._writer.write_table(part)

    def finish(self) -> None:
        self._writer.close()


def _text_paths(path: str, kind: pa.DataType) -> Iterator[str]:
    """Yield the paths in a Parquet file of the texts in a column."""
    if pa.types.is_map(kind):
        held = cast("pa.MapType[Any, Any]", kind)
        yield from _text_paths(f"{path}.key_value.key", held.key_type)
        yield from _text_paths(f"{path}.key_value.value", held.item_type)
    elif is_text(kind):
        yield path
