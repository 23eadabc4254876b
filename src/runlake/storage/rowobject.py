"""Objects that hold rows: live segments, and the compacted files that hold what segments held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runlake import schema
from runlake.storage.filesystem import Entry
from runlake.storage.table_files import EVENTS, FACTS, METRICS, SUMMARIES, WRITERS
from runlake.storage.tables import PointFile

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.storage.manifest import TableFile
    from runlake.storage.snapshot import LiveSegment, Snapshot
    from runlake.storage.table_files import Table


@dataclass(frozen=True, slots=True)
class RowObject:
    """One object with rows of runs.

    Attributes:
        entry: the object.
        table: the compacted table that it is a file of; "" for a segment.
        experiment_id: the partition.
        writer: of a segment, whose rows it holds.
        first: of a segment, the sequence number of its first row.
        skip_rows: of a segment, rows at its beginning that are read elsewhere.
        is_replaceable: its writer may replace it by another at any time.
        runs: of a compacted file, the least and the greatest run in it.
    """

    entry: Entry
    table: str
    experiment_id: str
    writer: str = ""
    first: int = 0
    skip_rows: int = 0
    is_replaceable: bool = False
    runs: tuple[str, str] = ("", "")

    @property
    def key(self) -> str:
        """Its key below the lake's root."""
        return self.entry.key

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return self.entry.size_bytes

    def file_at(self, path: Path | str) -> PointFile:
        """Return it as a local file."""
        return PointFile(
            str(path),
            self.writer,
            self.experiment_id,
            self.first,
            self.skip_rows,
            self.table,
            self.runs,
        )


def of_segment(segment: LiveSegment) -> RowObject:
    """Return a live segment as an object with rows."""
    name = segment.name
    return RowObject(
        segment.entry,
        table="",
        experiment_id=name.experiment_id,
        writer=name.writer,
        first=name.first,
        skip_rows=segment.skip_rows,
        is_replaceable=not name.merged,
    )


def of_table_file(table: str, file: TableFile) -> RowObject:
    """Return a compacted file as an object with rows."""
    return RowObject(
        Entry(file.path, file.size_bytes, 0),
        table=table,
        experiment_id=file.experiment_id,
        runs=(file.min_run, file.max_run),
    )


def compacted_rows(snapshot: Snapshot) -> tuple[RowObject, ...]:
    """Return the compacted files of a snapshot that hold rows of runs, table by table."""
    return tuple(
        of
        for table in (METRICS, EVENTS)
        for of in compacted_files(snapshot, table)
        if of.experiment_id != schema.RESERVED_PARTITION
    )


def compacted_states(snapshot: Snapshot) -> tuple[RowObject, ...]:
    """Return the compacted files of a snapshot that say what is known of runs and the lake."""
    of_runs = [
        of
        for table in (FACTS, SUMMARIES, WRITERS)
        for of in compacted_files(snapshot, table)
        if of.experiment_id != schema.RESERVED_PARTITION
    ]
    of_lake = [
        of
        for of in compacted_files(snapshot, EVENTS)
        if of.experiment_id == schema.RESERVED_PARTITION
    ]
    return (*of_runs, *of_lake)


def compacted_files(snapshot: Snapshot, table: Table) -> tuple[RowObject, ...]:
    """Return the files of one table of a snapshot."""
    return tuple(
        of_table_file(table.name, file)
        for file in snapshot.manifest.files(table.name)
        if snapshot.holds(file.experiment_id)
    )


def objects_of(snapshot: Snapshot) -> tuple[RowObject, ...]:
    """Return all objects of a snapshot that hold rows."""
    return (*compacted_rows(snapshot), *map(of_segment, snapshot.segments))
