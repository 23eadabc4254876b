"""What compacted files say of runs and of the lake, in the columns that queries get.

A compacted file of facts or summaries is what footers said, one below the other, so reading it
takes nothing but a decoder.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import arrays, tables
from runlake.storage.table_files import EVENTS, FACTS, SUMMARIES, WRITERS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from runlake.storage.rowobject import RowObject
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pq = lazy("pyarrow.parquet")

# What a column of a file is called in the tables that queries get, where that differs.
_CALLED = {
    WRITERS.name: {"object_time_us": "time"},
    EVENTS.name: {"clock": "timestamp"},
}


def read_state(of: RowObject, source: Path | bytes) -> pa.Table:
    """Read a whole file of table `facts`, `summaries` or `writers`, or `events` of the lake.

    Args:
        of: the file.
        source: where it lies, or its bytes.

    Returns:
        Its rows with the columns of `tables.facts_schema()`, `summaries_schema()`,
        `writers_schema()` or `lake_events_schema()`.

    Raises:
        FileNotFoundError: it is gone.
        FormatError: it is damaged.
    """
    wanted = _schema(of.table)
    called = _CALLED.get(of.table, {})
    columns = [called.get(name, name) for name in wanted.names if not _is_path(of, name)]
    numbered = [name for name in columns if name in tables.NUMBERED]
    try:
        with pq.ParquetFile(
            pa.BufferReader(source) if isinstance(source, bytes) else source,
            memory_map=True,
            read_dictionary=[] if of.table in _CALLED else numbered,
            page_checksum_verification=True,
        ) as opened:
            rows = opened.read(columns=columns)
        made: list[Any] = [
            _repeated(
                of.experiment_id,
                rows.num_rows,
                is_numbered=name in tables.NUMBERED and of.table not in _CALLED,
            )
            if _is_path(of, name)
            else rows[called.get(name, name)]
            for name in wanted.names
        ]
        return pa.table(made, names=wanted.names).cast(wanted)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        message = f"{of.key}: the rows cannot be read: {error}"
        raise FormatError(message) from error


@cache
def _schema(table: str) -> pa.Schema:
    return {
        FACTS.name: tables.facts_schema,
        SUMMARIES.name: tables.summaries_schema,
        WRITERS.name: tables.writers_schema,
        EVENTS.name: tables.lake_events_schema,
    }[table]()


def _is_path(of: RowObject, name: str) -> bool:
    """Tell whether a column stands in the path and not in the file."""
    return name == "experiment_id" and of.table != EVENTS.name


def _repeated(text: str, count: int, *, is_numbered: bool) -> pa.Array[Any]:
    zeros: Any = arrays.numbers(np.zeros(count, np.int32))
    found = pa.DictionaryArray.from_arrays(zeros, arrays.strings([text]))
    return found if is_numbered else found.dictionary_decode()
