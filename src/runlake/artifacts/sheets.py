"""Tables as Parquet: what people have, as one part of a table that grows by parts.

A part is never changed. Its columns are exactly the caller's; the step stands in its event.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from runlake import arguments
from runlake._lazy import lazy
from runlake.artifacts.media import TABLE, Medium
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pa = lazy("pyarrow")
    pq = lazy("pyarrow.parquet")

STEP: Final = "step"
_FORMS: Final = (
    "a pandas or Polars frame, an Arrow table, a dict of columns, or a list of dicts (rows)"
)


def sheet(data: object, *, step: int | None) -> Medium:
    """Return a table as one Parquet file.

    Args:
        data: a pandas or Polars frame, an Arrow table or record batch, a mapping of names to
            columns, a mapping of names to values (one row), or a list of mappings (rows). Of
            a pandas frame the index is kept where it has a name.
        step: which the part will be found by.

    Returns:
        The file, with `rows` and `columns`.

    Raises:
        InvalidInputError: it is no table, a column mixes types, or a column called `step` and
            a step are given.
    """
    try:
        table = _arrow(data)
        names = _names(table, step)
        file = io.BytesIO()
        pq.write_table(table, file, compression="zstd")
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"the table cannot be kept as Parquet: {error}. Each column has values of one type, "
            "or nothing (None)."
        ) from error
    details = {"rows": table.num_rows, "columns": len(names)}
    return Medium(TABLE, file.getvalue(), ".parquet", details)


def _names(table: pa.Table, step: int | None) -> list[str]:
    names = table.column_names
    if not names:
        raise InvalidInputError("the table has no columns.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInputError(f"the table has the column {twice[0]!r} twice.")
    if step is not None and STEP in names:
        raise InvalidInputError(
            "the table has a column 'step', and a step is given too: leave step= out, or give "
            "the column another name."
        )
    return names


def _arrow(data: Any) -> pa.Table:  # noqa: ANN401 - frames of libraries that may not be there
    """Return what people call a table as one of Arrow, without what only its library reads."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if isinstance(data, Mapping):
        return _of_columns(data)
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _of_rows(data)
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        is_named = any(name is not None for name in data.index.names)
        plain = data.reset_index() if is_named else data
        plain = plain.set_axis([str(name) for name in plain.columns], axis="columns")
        return pa.Table.from_pandas(plain, preserve_index=False).replace_schema_metadata(None)
    if callable(getattr(data, "collect_schema", None)) and callable(getattr(data, "lazy", None)):
        data = data.lazy().collect()
    if callable(getattr(data, "to_arrow", None)):
        found: pa.Table = data.to_arrow()
        if isinstance(found, pa.Table):
            _check_objects(data)
            return found
    raise InvalidInputError(f"a table is {_FORMS}, got {arguments.kind(data)}.")


def _check_objects(frame: Any) -> None:  # noqa: ANN401 - of Polars, or like it
    """Refuse columns of Python objects, of which Polars would give addresses in memory."""
    for name, kind in dict(getattr(frame, "schema", None) or {}).items():
        if str(kind) == "Object":
            raise InvalidInputError(
                f"column {name!r} holds Python objects, which no table keeps. Write them as texts "
                "or numbers."
            )


def _of_columns(data: Mapping[Any, Any]) -> pa.Table:
    columns = {str(name): column for name, column in data.items()}
    if columns and not any(map(_is_column, columns.values())):
        return _of_rows([data])  # one row, as MLflow takes it
    return pa.table({name: _column(column) for name, column in columns.items()})


def _of_rows(rows: Sequence[Any]) -> pa.Table:
    if not all(isinstance(row, Mapping) for row in rows):
        raise InvalidInputError(f"a table is {_FORMS}, got a list of other things.")
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    plain = [{str(name): value for name, value in row.items()} for row in rows]
    return pa.table({name: pa.array([row.get(name) for row in plain]) for name in names})


def _is_column(value: object) -> bool:
    is_plain = isinstance(value, (str, bytes, Mapping))
    is_scalar = getattr(value, "ndim", 1) == 0
    return hasattr(value, "__len__") and not is_plain and not is_scalar


def _column(column: Any) -> pa.Array[Any]:  # noqa: ANN401 - whatever Arrow takes
    if callable(getattr(column, "detach", None)):
        column = column.detach().cpu().numpy()
    if getattr(column, "ndim", 1) > 1:
        column = list(column)
    found: pa.Array[Any] = pa.array(column)
    return found
