"""Whether the footer of a Parquet file tells the truth about its rows.

Page checksums cover the pages only. A reader skips row groups by the statistics in the footer
and maps columns by its schema, so that damage there changes answers that no checksum sees.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runlake._lazy import lazy
from runlake.errors import FormatError, RunlakeError
from runlake.storage import arrays
from runlake.storage.standing import coded

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow.parquet import FileMetaData
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")


class UnusableError(Exception):
    """A file cannot be read to its end; why is written down."""


@contextmanager
def distrusted() -> Iterator[None]:
    """Make one error of whatever damaged bytes make a decoder raise.

    Raises:
        FormatError: they did.
    """
    try:
        yield
    except (RunlakeError, UnusableError, FileNotFoundError):
        raise
    except Exception as error:
        message = f"it cannot be read: {error!r}"
        raise FormatError(message) from error


def strange_columns(
    found: FileMetaData, wanted: pa.Schema, *, may_have_more: bool = False
) -> str | None:
    """Tell what is wrong with the columns of a file.

    Args:
        found: its footer.
        wanted: its columns in memory; numbered texts are texts in the file.
        may_have_more: further columns may follow these.

    Returns:
        A sentence; None if they are right.
    """
    columns = found.schema.to_arrow_schema()
    known = list(columns)[: len(wanted)] if may_have_more else list(columns)
    said = [(each.name, str(each.type)) for each in known]
    right = [(each.name, str(_plain(each.type))) for each in wanted]
    if said == right:
        return None
    return f"its columns are {said}, expected {right}"


def untrue_statistics(found: FileMetaData, group: int, rows: pa.Table) -> str | None:
    """Tell which statistics of a row group are not those of its rows.

    Args:
        found: the file's footer.
        group: which row group.
        rows: all its rows.

    Returns:
        A sentence about the first such column; None if all are right.
    """
    about = found.row_group(group)
    if about.num_rows != rows.num_rows:
        return f"row group {group} has {rows.num_rows} rows, the footer says {about.num_rows}"
    for place in range(about.num_columns):
        chunk = about.column(place)
        name = chunk.path_in_schema
        # First of all, because to ask for statistics of another type ends the process.
        said, right = chunk.physical_type, found.schema.column(place).physical_type
        if said != right:
            return f"column {name} of row group {group} is said to be {said}, it is {right}"
        if name not in rows.column_names:
            continue
        problem = _untrue(chunk, rows[name])
        if problem is not None:
            return f"column {name} of row group {group}: {problem}"
    return None


def _untrue(chunk: Any, column: pa.ChunkedArray[Any]) -> str | None:  # noqa: ANN401 - pyarrow's own
    if chunk.num_values != len(column):
        return f"it has {len(column)} values, the footer says {chunk.num_values}"
    said = chunk.statistics
    if said is None:
        return None
    if said.has_null_count and said.null_count != column.null_count:
        return f"{column.null_count} values are null, its statistics say {said.null_count}"
    if not said.has_min_max:
        return None
    bounds = _bounds(column)
    found = tuple(_as_number_or_text(each) for each in (said.min_raw, said.max_raw))
    if bounds != found:
        return f"its values lie between {bounds}, its statistics say {found}"
    return None


def _as_number_or_text(raw: Any) -> Any:  # noqa: ANN401 - as the column is
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw


def _bounds(column: pa.ChunkedArray[Any]) -> tuple[Any, Any] | None:
    """Return the least and greatest value as Parquet orders them, NaN aside; None of none."""
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        texts: list[Any] = coded(column.drop_null()).values.to_pylist()
        return (min(texts), max(texts)) if texts else None
    plain: Any = column.drop_null().combine_chunks()
    if isinstance(plain, pa.ChunkedArray) or not len(plain):
        return None
    if pa.types.is_boolean(kind):
        said = plain.to_pylist()
        return min(said), max(said)
    if pa.types.is_timestamp(kind):
        plain = plain.cast(pa.int64())
    numbers = arrays.values(plain)
    if numbers.dtype.kind == "f":
        numbers = numbers[~np.isnan(numbers)]
        if not len(numbers):
            return None
    return numbers.min().item(), numbers.max().item()


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(kind) else kind
