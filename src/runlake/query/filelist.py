"""The files of one snapshot, for engines that read Parquet themselves.

A snapshot is a set of files and a rule that says which of their rows count; an engine that keeps
to the rule gives the answers that `lake.sql` gives. Nothing is read to make the list.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from runlake import arguments, schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.snapshot import Snapshot
else:
    pl = lazy("polars")

LISTED: Final = ("metrics", "events")
"""The tables whose rows lie in files as they are; all others are folded."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One Parquet file of a list.

    Attributes:
        path: for an engine: an absolute path, or a URL as `s3://bucket/lake/...`.
        size_bytes: its length.
        rows: all that it holds, also those that do not count.
        experiment_id: of all its rows; no column says it.
        is_segment: whether it is a live segment and has a segment's columns.
        writer: of all rows of a segment; None for a compacted file, which has it as a column.
        first: of a segment: the sequence number of its first row; else None.
        skip_rows: so many rows at its beginning do not count; they are in other files.
    """

    path: str
    size_bytes: int
    rows: int
    experiment_id: str
    is_segment: bool
    writer: str | None = None
    first: int | None = None
    skip_rows: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class FileList:
    """The files that hold a table, and the rule by which their rows are its rows.

    The rows of view `metrics` are, without those of runs in `purged`:

    1. every row of the files in `compacted`;
    2. of each file in `segments` the rows from `skip_rows` on with `kind = 'metric'`; their
       `num` is the `value`, and their writer is the file's.

    Those of `events` likewise, with `kind <> 'metric'`; a row's `seq` is the file's `first` plus
    its place in the file. The view makes its `value` of `num` and `str`. In the partition
    `_lake`, of which `metrics` has nothing, `run_id` is an experiment's id.

    Attributes:
        table: `metrics` or `events`.
        snapshot: what the list was made of; `lake.at` asks it. None for a lake that is not yet.
        compacted: files with the table's own columns.
        segments: live segments, each writer's in order.
        purged: runs that must not be shown, though a file may still have their rows.
    """

    table: str
    snapshot: Snapshot | None
    compacted: tuple[DataFile, ...] = ()
    segments: tuple[DataFile, ...] = ()
    purged: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[DataFile]:
        """Go through all files, the compacted ones first."""
        yield from self.compacted
        yield from self.segments

    def __len__(self) -> int:
        """Count the files."""
        return len(self.compacted) + len(self.segments)

    def frame(self) -> pl.DataFrame:
        """Return the list as a Polars frame, one row for each file."""
        kinds: dict[str, Any] = {
            "path": pl.String,
            "size_bytes": pl.Int64,
            "rows": pl.Int64,
            "experiment_id": pl.String,
            "is_segment": pl.Boolean,
            "writer": pl.String,
            "first": pl.Int64,
            "skip_rows": pl.Int64,
        }
        return pl.DataFrame([asdict(file) for file in self], schema=kinds)


def check_table(table: str) -> str:
    """Return the name of a table that can be listed.

    Args:
        table: its name.

    Raises:
        InvalidInputError: there is none, or it is folded from several.
    """
    if arguments.text("table", table) in LISTED:
        return table
    message = (
        f"no files are the rows of {table!r}; {' and '.join(LISTED)} have such. Every other view "
        "is folded when it is asked for: write it to a file, for example "
        "lake.export('runs.parquet', what='runs')."
    )
    raise InvalidInputError(message)


def list_files(fs: Filesystem, table: str, snapshot: Snapshot) -> FileList:
    """List the files that hold a table in one snapshot; no request is made.

    Args:
        fs: the lake's storage.
        table: `metrics` or `events`.
        snapshot: of this lake.

    Returns:
        The list.

    Raises:
        InvalidInputError: there is no such table.
    """
    check_table(table)
    wanted = snapshot.experiment_ids
    compacted = tuple(
        DataFile(
            path=_engine_path(fs, file.path),
            size_bytes=file.size_bytes,
            rows=file.rows,
            experiment_id=file.experiment_id,
            is_segment=False,
        )
        for file in snapshot.manifest.files(table)
        if wanted is None or file.experiment_id in {*wanted, schema.RESERVED_PARTITION}
    )
    segments = tuple(
        DataFile(
            path=_engine_path(fs, segment.entry.key),
            size_bytes=segment.entry.size_bytes,
            rows=segment.name.count,
            experiment_id=segment.name.experiment_id,
            is_segment=True,
            writer=segment.name.writer,
            first=segment.name.first,
            skip_rows=segment.skip_rows,
        )
        for segment in snapshot.segments
        if table == "events" or segment.name.experiment_id != schema.RESERVED_PARTITION
    )
    return FileList(table, snapshot, compacted, segments, tuple(sorted(snapshot.manifest.purged)))


def _engine_path(fs: Filesystem, key: str) -> str:
    """Return what an engine opens."""
    return str(fs.local_file(key)) if fs.is_local else f"{fs.url.rstrip('/')}/{key}"
