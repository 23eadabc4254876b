"""What compacted files say of runs and of the lake, in the columns that queries get.

A compacted file of facts or summaries is what footers said, one below the other, so reading it
takes nothing but a decoder. It is decoded where a question needs it, see `states`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final, final

from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import arrays, tables
from runlake.storage.table_files import EVENTS, FACTS, SUMMARIES, WRITERS, statistics_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from runlake.storage.rowobject import RowObject
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pq = lazy("pyarrow.parquet")

_HOME: Final = "experiment_id"
# A smaller file is held in memory: that costs no open file.
_MAPPED_BYTES: Final = 1 << 20
# What a column of a file is called in the tables that queries get, where that differs.
_CALLED = {
    WRITERS.name: {"object_time_us": "time"},
    EVENTS.name: {"clock": "timestamp"},
}


def read_state(of: RowObject, source: Path | bytes) -> pa.Table:
    """Read a whole file of table `writers`, or `events` of the lake.

    Args:
        of: the file.
        source: where it lies, or its bytes.

    Returns:
        Its rows with the columns of `tables.writers_schema()` or `lake_events_schema()`.

    Raises:
        FileNotFoundError: it is gone.
        FormatError: it is damaged.
    """
    wanted = _schema(of.table)
    called = _CALLED[of.table]
    try:
        with pq.ParquetFile(
            pa.BufferReader(source) if isinstance(source, bytes) else source,
            memory_map=True,
            page_checksum_verification=True,
        ) as opened:
            rows = opened.read(
                columns=[called.get(name, name) for name in wanted.names if not _is_path(of, name)]
            )
        made: list[Any] = [
            _repeated(of.experiment_id, rows.num_rows).dictionary_decode()
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


@final
class CompactedState:
    """A file of table `facts` or `summaries`, decoded column by column; threads may share it.

    Attributes:
        experiment_id: the partition of all its rows.
        rows: the rows of each row group.
        is_mapped: whether it holds a file open.
    """

    def __init__(self, of: RowObject, source: Path | bytes, *, may_map: bool) -> None:
        """Read where its row groups lie.

        The file may go away then: what it holds stays readable.

        Args:
            of: the file.
            source: where it lies, or its bytes.
            may_map: it may be held open; else its bytes are held in memory.

        Raises:
            FileNotFoundError: it is gone.
            FormatError: it is damaged.
        """
        self.experiment_id = of.experiment_id
        self._key, self._schema = of.key, _schema(of.table)
        self._spans: dict[str, list[tuple[Any, Any] | None]] = {}
        self.is_mapped = (
            may_map and of.size_bytes >= _MAPPED_BYTES and not isinstance(source, bytes)
        )
        try:
            if self.is_mapped:
                with pa.memory_map(str(source)) as mapped:
                    self._data = mapped.read_buffer()
            else:
                data: Any = source if isinstance(source, bytes) else source.read_bytes()
                self._data = pa.py_buffer(data)
            self._footer = pq.read_metadata(pa.BufferReader(self._data))
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            message = f"{of.key}: the footer cannot be read: {error}"
            raise FormatError(message) from error
        count = self._footer.num_row_groups
        self.rows = [self._footer.row_group(group).num_rows for group in range(count)]
        names = self._footer.schema.names
        self._places = {name: names.index(name) for name in self._schema.names if name in names}
        missing = set(self._schema.names) - {_HOME} - self._places.keys()
        if missing:
            message = f"{of.key}: it has no column {', '.join(sorted(missing))}"
            raise FormatError(message)

    def spans(self, name: str) -> list[tuple[Any, Any] | None]:
        """Return the least and greatest value of a column in each row group, where known.

        Raises:
            FormatError: the footer is damaged.
        """
        if name not in self._spans:
            place, found = self._places[name], []
            for group in range(len(self.rows)):
                try:
                    said = statistics_of(self._footer, group, place)
                except ValueError as error:
                    message = f"{self._key}: the footer cannot be read: {error}"
                    raise FormatError(message) from error
                is_known = said is not None and said.has_min_max
                found.append((said.min, said.max) if is_known else None)
            self._spans[name] = found
        return self._spans[name]

    def read(self, groups: Sequence[int], names: Sequence[str]) -> pa.Table:
        """Return some columns of some row groups, whole.

        Raises:
            FormatError: they are damaged.
        """
        columns = [name for name in names if name != _HOME]
        count = sum(self.rows[group] for group in groups)
        numbered = [name for name in columns if name in tables.NUMBERED]
        try:
            with pq.ParquetFile(
                pa.BufferReader(self._data),
                metadata=self._footer,
                read_dictionary=numbered,
                page_checksum_verification=True,
            ) as opened:
                rows = opened.read_row_groups(list(groups), columns=columns, use_threads=False)
            wanted = pa.schema([self._schema.field(name) for name in names])
            made: list[Any] = [
                _repeated(self.experiment_id, count) if name == _HOME else rows[name]
                for name in names
            ]
            return pa.table(made, names=list(names)).cast(wanted)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            message = (
                f"{self._key}: the rows cannot be read: {error}. An answer without them may be "
                "wrong; `runlake verify` checks all files."
            )
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


def _repeated(text: str, count: int) -> pa.DictionaryArray[Any, Any]:
    zeros: Any = arrays.numbers(np.zeros(count, np.int32))
    return pa.DictionaryArray.from_arrays(zeros, arrays.strings([text]))
