"""Parquet files, or in their place tickets for what they would hold.

Most of a small world's time would go into encoding tiny Parquet files, which the protocol never
looks into. A ticket is as long as a small file, ends like one, and stands for tables that are
kept in memory; the code that writes and reads files does not see the difference.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, final

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterable

_ID_BYTES: Final = 16
_TICKET_BYTES: Final = _ID_BYTES + 8
_ROW_BYTES: Final = 24
_files: dict[bytes, _File] = {}


@dataclass(frozen=True)
class _File:
    schema: pa.Schema
    groups: tuple[pa.Table, ...]
    metadata: dict[bytes, bytes]

    @property
    def num_rows(self) -> int:
        return sum(group.num_rows for group in self.groups)


def forget() -> None:
    """Let go of all files."""
    _files.clear()


def read(data: bytes) -> tuple[pa.Table, dict[bytes, bytes]]:
    """Return the rows of a file and the metadata of its footer, whatever it is."""
    found = _files.get(data[-_TICKET_BYTES:-8])
    if found is not None:
        return pa.concat_tables(found.groups), found.metadata
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        return file.read(), dict(file.metadata.metadata or {})


@final
class TicketWriter:
    """Takes the place of `pyarrow.parquet.ParquetWriter`."""

    def __init__(self, sink: Any, schema: pa.Schema, **options: object) -> None:  # noqa: ANN401 - as pyarrow takes it
        """Begin a file; how it would be encoded does not matter."""
        del options
        self._sink, self._schema = sink, schema
        self._groups: list[pa.Table] = []
        self._metadata: dict[bytes, bytes] = {}
        self._is_open = True

    def __enter__(self) -> TicketWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_table(self, table: pa.Table, row_group_size: int = 0) -> None:
        """Take one row group."""
        del row_group_size
        self._groups.append(table)

    def add_key_value_metadata(self, metadata: dict[Any, Any]) -> None:
        """Take keys of the footer."""
        for key, value in metadata.items():
            self._metadata[_bytes(key)] = _bytes(value)

    def close(self) -> None:
        """Write the ticket."""
        if not self._is_open:
            return
        self._is_open = False
        groups = tuple(self._groups) or (self._schema.empty_table(),)
        made = _File(self._schema, groups, self._metadata)
        number = len(_files).to_bytes(_ID_BYTES)
        _files[number] = made
        body = b"PAR1" + b"." * (_ROW_BYTES * made.num_rows)
        self._sink.write(body + number + _ID_BYTES.to_bytes(4, "little") + b"PAR1")


@final
class TicketFile:
    """Takes the place of `pyarrow.parquet.ParquetFile`."""

    def __init__(self, source: object, **options: object) -> None:
        """Open what a ticket stands for."""
        del options
        self._file = _open(source)
        self.num_row_groups = len(self._file.groups)
        self.schema_arrow = self._file.schema
        self.metadata = _metadata(self._file)

    def __enter__(self) -> TicketFile:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """Return all rows."""
        return _select(pa.concat_tables(self._file.groups), columns)

    def read_row_group(self, place: int, columns: list[str] | None = None) -> pa.Table:
        """Return the rows of one group."""
        return _select(self._file.groups[place], columns)

    def iter_batches(self, columns: list[str] | None = None) -> Iterable[pa.RecordBatch]:
        """Yield the rows."""
        return self.read(columns).to_batches()


def _read_metadata(source: object) -> SimpleNamespace:
    return _metadata(_open(source))


def _metadata(file: _File) -> SimpleNamespace:
    """Return what a footer says; no statistics, so that all rows are looked at."""
    said = SimpleNamespace(statistics=None, physical_type="")
    group = SimpleNamespace(column=lambda _: said)
    names = file.schema.names
    return SimpleNamespace(
        metadata=file.metadata,
        num_rows=file.num_rows,
        num_columns=len(names),
        num_row_groups=len(file.groups),
        row_group=lambda _: group,
        schema=SimpleNamespace(
            column=lambda place: SimpleNamespace(name=names[place], physical_type="")
        ),
    )


tickets: Final = SimpleNamespace(
    ParquetWriter=TicketWriter,
    ParquetFile=TicketFile,
    read_metadata=_read_metadata,
    write_table=pq.write_table,  # not called: what it can do is asked for
    SortingColumn=pq.SortingColumn,
)
"""Takes the place of the module `pyarrow.parquet`."""


def _open(source: object) -> _File:
    data: bytes
    if isinstance(source, str | Path):
        with open(source, "rb") as file:  # noqa: PTH123 - worlds open thousands
            data = file.read()
    elif isinstance(source, io.BytesIO):
        data = source.getvalue()
    elif isinstance(source, pa.BufferReader):
        data = source.read()
    else:
        raise TypeError(f"{source!r} is no source")
    try:
        return _files[data[-_TICKET_BYTES:-8]]
    except KeyError as error:
        raise pa.ArrowInvalid("this is no ticket") from error


def _select(table: pa.Table, columns: list[str] | None) -> pa.Table:
    return table if columns is None else table.select(columns)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
