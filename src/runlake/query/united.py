"""Logged tables of many runs as one frame: their parts fetched, checked and united.

A part is an artifact that is never changed. Its size stands in its event, so that no request but
the one for its bytes is made, and many are made at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake._lazy import lazy
from runlake.errors import FormatError, InvalidInputError, NotFoundError
from runlake.query.data import HELD_KINDS, RUN_COLUMNS, read_runs
from runlake.query.database import KeyColumn
from runlake.query.export import distinct, to_polars, to_rows
from runlake.storage import layout
from runlake.storage.filesystem import Range

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

    from runlake.query.engine import Query
    from runlake.storage.filesystem import Filesystem
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pq = lazy("pyarrow.parquet")

_STEP: Final = "step"
_AT_ONCE: Final = 256
"""So many parts are in memory as they were fetched."""
_PARTS_SQL: Final = """
SELECT m.run_id, m.experiment_id, m.path, m.size, m.step, m.sha256, r.place
FROM media AS m
JOIN (
    SELECT rowid AS place, run_id, start_time
    FROM inside.run_facts
    WHERE {wanted}
) AS r USING (run_id)
WHERE m.media = 'table' AND m.key = $table
ORDER BY {order}, m.step NULLS FIRST, m.logged_at, m.path
"""
_ACTIVE: Final = """
lifecycle_stage = 'active'
AND ($experiments IS NULL OR list_contains(CAST($experiments AS VARCHAR[]), experiment_id))
"""
_NAMED: Final = "list_contains(CAST($runs AS VARCHAR[]), run_id)"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSearch:
    """What is asked for.

    Attributes:
        artifact_file: the table, as it was logged.
        run_ids: of these runs; None means of all active ones.
        extra_columns: columns of a search of runs, to be put beside the rows.
        experiment_ids: without `run_ids`: only of runs of these experiments.
    """

    artifact_file: str
    run_ids: Sequence[str] | None = None
    extra_columns: Sequence[str] = ()
    experiment_ids: Collection[str] | None = None


class _Part(NamedTuple):
    """Where a part lies, and what its event says."""

    run_id: str
    experiment_id: str
    path: str
    size: int
    step: int | None
    sha256: str | None
    place: int

    @property
    def range(self) -> Range:
        """All of it."""
        return Range(layout.artifacts(self.experiment_id, self.run_id) + self.path, 0, self.size)


def load_table(query: Query, fs: Filesystem, wanted: TableSearch) -> pl.DataFrame:
    """Return the rows of a table of many runs.

    Args:
        query: the snapshot.
        fs: where the artifacts are.
        wanted: what is asked for.

    Returns:
        The columns of all parts, `step` where one has a step, then the extra columns. Rows by
        run, as asked for or the newest first, then by step, then as they were logged.

    Raises:
        NotFoundError: there is no such run, or none of them has this table.
        InvalidInputError: a column has types that do not go together, or an extra column is
            none of the runs'.
        FormatError: a part is not what was logged.
        FileNotFoundError: a part is gone; take a new snapshot.
        StorageError: the store cannot be read.
    """
    parts = _find(query, wanted)
    tables: list[pa.Table] = []
    for first in range(0, len(parts), _AT_ONCE):
        some = parts[first : first + _AT_ONCE]
        fetched = fs.get_ranges([part.range for part in some])
        tables += map(_table, some, fetched)
    rows = to_polars(unite(tables, [f"{part.path} of run {part.run_id}" for part in parts]))
    if not wanted.extra_columns:
        return rows
    counts = [table.num_rows for table in tables]
    places = np.repeat(np.array([part.place for part in parts], np.int64), counts)
    beside = _beside(query, places, wanted.extra_columns)
    beside.columns = distinct([*rows.columns, *beside.columns])[rows.width :]
    return rows.hstack(beside)


def _find(query: Query, wanted: TableSearch) -> list[_Part]:
    """Return the parts in the order in which their rows come."""
    needs = ("media", "run_facts")
    table, named = wanted.artifact_file, wanted.run_ids
    if named is None:
        given = None if wanted.experiment_ids is None else list(wanted.experiment_ids)
        values = {"table": table, "experiments": given}
        statement = _PARTS_SQL.format(wanted=_ACTIVE, order="r.start_time DESC, r.place")
    else:
        _check_runs(query, named)
        values = {"table": table, "runs": list(named)}
        statement = _PARTS_SQL.format(
            wanted=_NAMED, order="list_position(CAST($runs AS VARCHAR[]), r.run_id)"
        )
    found = [_Part(**row) for row in to_rows(query.read(statement, values, needs=needs))]
    if found:
        return found
    known = query.read(
        "SELECT DISTINCT key FROM media WHERE media = 'table' AND key IS NOT NULL", needs=("media",)
    )
    names: list[Any] = known["key"].to_pylist()
    raise NotFoundError.of("table", table, url=query.tables.root_url, known=names)


def _check_runs(query: Query, run_ids: Sequence[str]) -> None:
    known: list[Any] = read_runs(query)["run_id"].to_pylist()
    for run_id in set(run_ids).difference(known):
        raise NotFoundError.of("run", run_id, url=query.tables.root_url, known=known)


def _table(part: _Part, data: bytes) -> pa.Table:
    """Return the rows of a part, texts all of one type, with its step."""
    if part.sha256 is not None and hashlib.sha256(data).hexdigest() != part.sha256:
        raise FormatError(f"{part.path} of run {part.run_id} is not what was logged.")
    # Parts are small: threads, and what finds files in folders, would take longer than reading.
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        table = file.read(use_threads=False)
    for place, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_string_view(kind):
            kind = pa.large_string()
        if kind != field.type:
            table = table.set_column(place, field.name, table.column(place).cast(kind))
    if part.step is None:
        return table
    return table.append_column(_STEP, pa.repeat(pa.scalar(part.step, pa.int64()), len(table)))


def _beside(query: Query, places: NDArray[np.int64], names: Sequence[str]) -> pl.DataFrame:
    """Return columns of a search of runs, one row for each place."""
    wanted = list(dict.fromkeys(names))
    held = [name for name in wanted if name.partition(".")[0] in HELD_KINDS]
    keys = []
    for name in held:
        kind, _, key = name.partition(".")
        keys.append(KeyColumn(kind.removesuffix("s"), key, "last"))
    joins = "".join(
        f"\nPOSITIONAL JOIN {table} AS f{number}"
        for number, table in enumerate(query.columns(keys))
    )
    columns = "".join(f", f{number}.value" for number in range(len(held)))
    statement = f"SELECT {', '.join(f'r.{name}' for name in RUN_COLUMNS)}{columns} "
    statement += f"FROM inside.run_facts AS r{joins} ORDER BY r.rowid"
    found = query.read(statement, needs=("run_facts",)).rename_columns([*RUN_COLUMNS, *held])
    everything = to_polars(found)
    runs = everything[np.unique(places)]
    known = [name for name in runs.columns if name not in held or runs[name].count()]
    for name in wanted:
        if name not in known:
            raise InvalidInputError(_unknown(name, known))
    return everything[places].select(wanted)


def _unknown(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return (
        f"extra column {name!r} is none of these runs: there are {', '.join(RUN_COLUMNS)}, and "
        f"params.<key>, metrics.<key> and tags.<key> that one of them has.{hint}"
    )


def unite(tables: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
    """Return the rows of several tables; what a table lacks is null.

    Types that differ become the one that holds both, as of whole numbers and floats; a number
    that it would change is refused.

    Args:
        tables: at least one.
        names: of each, what an error calls it.

    Returns:
        All rows, in this order, with the columns as they first come.

    Raises:
        InvalidInputError: the types of a column do not go together.
    """
    whole = tables[0].schema
    for table, name in zip(tables, names, strict=True):
        try:
            whole = pa.unify_schemas([whole, table.schema], promote_options="permissive")
        except pa.ArrowException as error:
            raise InvalidInputError(
                f"{name} does not go together with the parts before it: {error}. Load the runs "
                "apart: run_ids=[...]."
            ) from error
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise InvalidInputError(
            f"the parts hold whole numbers that the type of others would change: {error}. Load "
            "the runs apart: run_ids=[...]."
        ) from error
