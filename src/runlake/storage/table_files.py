"""The files of compacted rows: which tables there are, and what their Parquet files look like.

Five tables hold what segments held: `metrics` the points, `events` all other rows, `facts` and
`summaries` the states as footers carry them, `writers` how far each writer is compacted. Every
file is sorted, immutable, and readable without runlake. The normative text is
`docs/spec/v1.md`, "Tables".
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import arrays
from runlake.storage.manifest import check_format
from runlake.storage.state import FACT_COLUMNS, SUMMARY_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
else:
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")
    pq = lazy("pyarrow.parquet")

CODED: Final = "dictionary"
DELTA: Final = "DELTA_BINARY_PACKED"
SPLIT: Final = "BYTE_STREAM_SPLIT"
PLAIN: Final = "plain"

# Texts that are numbered in memory too: each of them occurs in many rows.
_NUMBERED: Final = frozenset({"run_id", "kind", "key", "writer", "experiment_name", "host"})
_ROWS_OF_PAGE: Final = "max_rows_per_page"
_TIMES: Final = "TIMESTAMP WITH TIME ZONE"
_SQL_TYPES: Final = {"string": "VARCHAR", "int64": "BIGINT", "float64": "DOUBLE"}
_ENCODINGS: Final = {"string": CODED, "int64": DELTA, "float64": SPLIT}


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: as in the file.
        type: as DuckDB names it.
        encoding: `dictionary`, `plain`, or as Parquet names it.
    """

    name: str
    type: str
    encoding: str


@dataclass(frozen=True, slots=True)
class Table:
    """What the files of one table hold.

    Attributes:
        name: as in the key.
        columns: in file order.
        order: the columns that rows are sorted by. Texts by their UTF-8 bytes, numbers by
            value, doubles by IEEE 754's total order.
        group_rows: most rows of a row group.
        is_folded: of the rows that agree in `order` one stands, in a file and over files.
        fan: sorted runs of about one size from which on they are merged.
        owner: the column whose least and greatest value stands in the manifest.
    """

    name: str
    columns: tuple[Column, ...]
    order: tuple[str, ...]
    group_rows: int
    is_folded: bool
    fan: int
    owner: str = "run_id"

    @property
    def is_by_owner(self) -> bool:
        """Whether owners rise from row to row, and so from file to file of a commit."""
        return self.order[0] == self.owner


def _state_columns(columns: tuple[tuple[str, str], ...]) -> tuple[Column, ...]:
    """Return the columns of a state, as a footer has them, behind the writer's."""
    known = [Column(name, _SQL_TYPES[kind], _ENCODINGS[kind]) for name, kind in columns]
    return (Column("writer", "VARCHAR", CODED), *known)


METRICS: Final = Table(
    "metrics",
    (
        Column("run_id", "VARCHAR", CODED),
        Column("key", "VARCHAR", CODED),
        Column("step", "BIGINT", DELTA),
        # What is logged in one call has one time: split into bytes, a run's curves repeat it.
        Column("timestamp", _TIMES, SPLIT),
        Column("value", "DOUBLE", SPLIT),
        Column("writer", "VARCHAR", CODED),
    ),
    order=("run_id", "key", "step", "timestamp", "value", "writer"),
    group_rows=1 << 17,
    is_folded=False,
    fan=8,
)
EVENTS: Final = Table(
    "events",
    (
        Column("run_id", "VARCHAR", CODED),
        Column("kind", "VARCHAR", CODED),
        Column("key", "VARCHAR", CODED),
        Column("step", "BIGINT", DELTA),
        Column("timestamp", _TIMES, DELTA),
        Column("num", "DOUBLE", SPLIT),
        Column("str", "VARCHAR", PLAIN),
        Column("writer", "VARCHAR", CODED),
        Column("seq", "BIGINT", DELTA),
    ),
    order=("run_id", "timestamp", "writer", "seq"),
    group_rows=1 << 15,
    is_folded=False,
    fan=8,
)
FACTS: Final = Table(
    "facts",
    _state_columns(FACT_COLUMNS),
    # What runs say of themselves is needed by every question, and params by few.
    order=("kind", "run_id", "key", "writer"),
    group_rows=1 << 15,
    is_folded=True,
    fan=4,
)
SUMMARIES: Final = Table(
    "summaries",
    _state_columns(SUMMARY_COLUMNS),
    order=("run_id", "key", "writer"),
    group_rows=1 << 15,
    is_folded=True,
    fan=4,
)
WRITERS: Final = Table(
    "writers",
    (
        Column("writer", "VARCHAR", PLAIN),
        Column("last", "BIGINT", DELTA),
        Column("is_closed", "BOOLEAN", PLAIN),
        Column("experiment_name", "VARCHAR", CODED),
        Column("host", "VARCHAR", CODED),
        Column("pid", "BIGINT", DELTA),
        Column("time", "BIGINT", DELTA),
    ),
    order=("writer",),
    group_rows=1 << 15,
    is_folded=True,
    fan=4,
    owner="writer",
)
TABLES: Final = {table.name: table for table in (METRICS, EVENTS, FACTS, SUMMARIES, WRITERS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHeader:
    """What a compacted file says of itself, as JSON under the footer key `runlake`.

    Attributes:
        lake: the lake's id.
        table: which table.
        experiment_id: the partition.
        n: the manifest that it was first written for; a later copy goes by its name.
        commit: the nonce of that attempt, the same in all files of one commit.
        rows: how many rows it holds.
        inputs: for each writer whose segments went in the first and last row of it.
        replaces: keys of the files whose rows it holds instead.
        terms: which runs were purged and copied by then, see `manifest.terms`.
        version: of runlake.
        format: major version of the format.
    """

    lake: str
    table: str
    experiment_id: str
    n: int
    commit: str
    rows: int = 0
    inputs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    replaces: tuple[str, ...] = ()
    terms: str = ""
    version: str = ""
    format: int = schema.FORMAT_VERSION

    def encode(self) -> bytes:
        """Return the JSON of it."""
        # Not asdict, which would copy every input.
        fields = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(fields, separators=(",", ":")).encode()


@cache
def arrow_schema(table: Table) -> pa.Schema:
    """Return the columns of a table in memory; texts that occur often are numbered."""
    kinds: dict[str, pa.DataType] = {
        "VARCHAR": pa.string(),
        "BIGINT": pa.int64(),
        "DOUBLE": pa.float64(),
        "BOOLEAN": pa.bool_(),
        _TIMES: pa.timestamp("us", tz="UTC"),
    }
    numbered = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            (name, numbered if _is_numbered(table, name) else kinds[kind])
            for name, kind, _ in table.columns
        ]
    )


@cache
def parquet_options(table: Table) -> dict[str, Any]:
    """Return how a table is written: what `pyarrow.parquet.ParquetWriter` takes."""
    names = [column.name for column in table.columns]
    # One page for each column of a row group: compression finds again what is in its page.
    page: dict[str, Any] = {"data_page_size": 16 << 20}
    if _ROWS_OF_PAGE in inspect.signature(pq.write_table).parameters:
        # Before it had a name, pyarrow set no bound to it.
        page[_ROWS_OF_PAGE] = table.group_rows
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": [name for name, _, encoding in table.columns if encoding == CODED],
        "column_encoding": {
            name: encoding for name, _, encoding in table.columns if encoding in {DELTA, SPLIT}
        },
        "write_page_checksum": True,
        "write_statistics": True,
        "store_schema": False,
        **page,
        "sorting_columns": [pq.SortingColumn(names.index(name)) for name in table.order],
    }


def read_header(file: Path | bytes, *, key: str) -> TableHeader:
    """Read what a compacted file says of itself.

    Args:
        file: the file; or its last bytes, as many as its footer has.
        key: its key, for messages.

    Returns:
        The header; its count of rows is the file's.

    Raises:
        FormatError: it is damaged, or no compacted file.
        NewerFormatError: a newer runlake wrote it.
    """
    try:
        found = pq.read_metadata(pa.BufferReader(file) if isinstance(file, bytes) else file)
        fields = json.loads((found.metadata or {})[schema.FOOTER_KEY])
        check_format(fields["format"], key=key, url="")
        fields["inputs"] = {
            str(writer): (int(first), int(last))
            for writer, (first, last) in fields["inputs"].items()
        }
        fields["replaces"] = tuple(fields["replaces"])
        header = TableHeader(**{name: fields[name] for name in TableHeader.__slots__})
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        message = f"{key}: no readable footer of a table: {error!r}"
        raise FormatError(message) from error
    if header.rows != found.num_rows:
        message = f"{key}: it holds {found.num_rows} rows, its footer says {header.rows}"
        raise FormatError(message)
    return header


def read_groups(
    file: Path, table: Table, *, key: str, between: tuple[str, str] | None = None
) -> Iterator[pa.Table]:
    """Yield the rows of a local file, row group by row group.

    Args:
        file: the file.
        table: which table it is of.
        key: its key, for messages.
        between: leave row groups out whose owners are all below the one or above the other.

    Yields:
        Rows with the columns of `arrow_schema`.

    Raises:
        FormatError: it is damaged.
    """
    wanted = arrow_schema(table)
    numbered = [name for name in wanted.names if _is_numbered(table, name)]
    try:
        with pq.ParquetFile(
            file, read_dictionary=numbered, pre_buffer=False, page_checksum_verification=True
        ) as opened:
            owner = opened.schema_arrow.names.index(table.owner)
            for place in range(opened.num_row_groups):
                said = statistics_of(opened.metadata, place, owner)
                if between is None or _reaches(said, *between):
                    yield opened.read_row_group(place, columns=wanted.names).cast(wanted)
    except (pa.ArrowException, OSError, ValueError) as error:
        message = f"{key}: the rows cannot be read: {error}"
        raise FormatError(message) from error


def values_among(file: Path, column: str, wanted: Collection[str], *, key: str) -> set[str]:
    """Return which texts of a column occur in a local file.

    Args:
        file: the file.
        column: its name.
        wanted: the texts asked for.
        key: the file's key, for messages.

    Returns:
        Those of `wanted` that occur; only row groups that may hold one are read.

    Raises:
        FormatError: it is damaged.
    """
    found: set[str] = set()
    asked = arrays.strings(sorted(wanted))
    try:
        with pq.ParquetFile(file, read_dictionary=[column], pre_buffer=False) as opened:
            place = opened.schema_arrow.names.index(column)
            for group in range(opened.num_row_groups):
                said = statistics_of(opened.metadata, group, place)
                if said is not None and said.has_min_max and not _meets(said, wanted):
                    continue
                for chunk in opened.read_row_group(group, columns=[column])[column].chunks:
                    texts: Any = (
                        chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk
                    )
                    found.update(texts.filter(pc.is_in(texts, value_set=asked)).to_pylist())
    except (pa.ArrowException, OSError, ValueError) as error:
        message = f"{key}: the column {column} cannot be read: {error}"
        raise FormatError(message) from error
    return found


def statistics_of(found: pq.FileMetaData, group: int, place: int) -> Any:  # noqa: ANN401 - of the column's type
    """Return what a footer says of the values of a column in a row group; None: nothing.

    Args:
        found: the footer.
        group: which row group, from 0.
        place: which column, from 0.

    Raises:
        ValueError: it is damaged: to ask for statistics of another type would end the process.
    """
    chunk = found.row_group(group).column(place)
    said, right = chunk.physical_type, found.schema.column(place).physical_type
    if said != right:
        message = f"column {place} of row group {group} is said to be {said}, it is {right}"
        raise ValueError(message)
    return chunk.statistics


def _reaches(statistics: Any, least: str, greatest: str) -> bool:  # noqa: ANN401 - pyarrow's own
    """Tell whether a column may hold a text from `least` to `greatest`."""
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min <= greatest and statistics.max >= least)


def _meets(statistics: Any, wanted: Collection[str]) -> bool:  # noqa: ANN401 - pyarrow's own
    return any(statistics.min <= text <= statistics.max for text in wanted)


def _is_numbered(table: Table, name: str) -> bool:
    return name in _NUMBERED and table.order != (name,)
