"""Who wrote what in one partition of a lake that is copied: runs, their writers, how far.

Whole tables are never held; what is held is one entry for each run and writer.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import segments
from runlake.storage.standing import coded
from runlake.storage.table_files import EVENTS, FACTS, METRICS, SUMMARIES, WRITERS, read_groups
from runlake.upkeep.holders import tails, texts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import Manifest, TableFile
    from runlake.storage.snapshot import LiveSegment, Snapshot
    from runlake.storage.table_files import Table
    from runlake.upkeep.holders import Tail
    from runlake.upkeep.sources import Files
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pq = lazy("pyarrow.parquet")

Lasts: TypeAlias = "dict[str, dict[str, int]]"


class WriterRow(NamedTuple):
    """A row of table `writers`."""

    writer: str
    last: int
    is_closed: bool
    experiment_name: str
    host: str
    pid: int
    time: int


class Held(NamedTuple):
    """A live segment.

    Attributes:
        segment: which.
        run_ids: the runs of which it has rows or a state.
        lasts: of each run of which it has rows the number of the last.
    """

    segment: LiveSegment
    run_ids: frozenset[str]
    lasts: Mapping[str, int]


@dataclass(slots=True)
class Written:
    """What a snapshot holds of one partition.

    Attributes:
        lasts: for each run the last row of each of its writers that the snapshot holds.
        rows: about how many rows each run has.
        writers: what is known of each writer.
        live: the live segments.
        problems: keys of segments that cannot be read, with the reason.
    """

    lasts: Lasts = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    writers: dict[str, WriterRow] = field(default_factory=dict)
    live: list[Held] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


def written(
    fs: Filesystem,
    snapshot: Snapshot,
    experiment_id: str,
    *,
    files: Files,
    wanted: Collection[str] | None,
    damaged: Mapping[str, str],
) -> Written:
    """Look through one partition.

    Args:
        fs: the lake's storage.
        snapshot: of the partition.
        experiment_id: the partition.
        files: of the same lake.
        wanted: the runs asked for; None for all.
        damaged: keys of segments that cannot be read, with the reason: of their writers is
            taken what lies before.

    Returns:
        What is there, purged runs left out.

    Raises:
        FileNotFoundError: an object of the snapshot is gone; take another.
        StorageError: the store cannot be read.
        FormatError: a compacted file is damaged.
    """
    found, newest = Written(problems=dict(damaged)), snapshot.manifest
    asked = None if wanted is None else set(wanted)
    pairs: dict[str, set[str]] = defaultdict(set)

    def note(run_id: str, writer: str, rows: int) -> None:
        if run_id and run_id not in newest.purged and (asked is None or run_id in asked):
            pairs[run_id].add(writer)
            found.rows[run_id] += rows

    for run_id, writer, rows in _in_tables(newest, experiment_id, files, asked):
        note(run_id, writer, rows)
    for row in _writers(newest, experiment_id, files):
        known = found.writers.get(row.writer)
        if known is None or row.last > known.last:
            found.writers[row.writer] = row
    live = [each for each in snapshot.segments if each.name.experiment_id == experiment_id]
    for held, tail in _live(fs, live, found.problems):
        name = held.segment.name
        found.live.append(held)
        found.writers[name.writer] = _writer_row(tail)
        for run_id in held.run_ids:
            note(run_id, name.writer, name.count // len(held.run_ids))
    found.lasts = {
        run_id: {writer: _last(newest, found.writers, run_id, writer) for writer in sorted(of)}
        for run_id, of in sorted(pairs.items())
    }
    return found


def live_of(fs: Filesystem, snapshot: Snapshot, experiment_id: str) -> list[Held]:
    """Return the live segments of a partition that can be read, with their runs.

    Args:
        fs: the lake's storage.
        snapshot: of the partition.
        experiment_id: the partition.

    Raises:
        FileNotFoundError: a segment is gone.
        StorageError: the store cannot be read.
    """
    live = [each for each in snapshot.segments if each.name.experiment_id == experiment_id]
    return [held for held, _ in _live(fs, live, {})]


def _live(
    fs: Filesystem, live: Sequence[LiveSegment], problems: dict[str, str]
) -> Iterator[tuple[Held, Tail]]:
    """Yield the live segments that can be read, of each writer up to the first that cannot."""
    entries = [(each.name, each.entry) for each in live]
    ends = {each.name: each for each in tails(fs, entries, unread=problems)}
    stopped: set[str] = set()
    for segment in live:
        name, key = segment.name, segment.entry.key
        if name.writer in stopped:
            continue
        if key in problems:
            stopped.add(name.writer)
            continue
        if name not in ends:
            raise FileNotFoundError(key)
        try:
            yield _held(fs, segment, ends[name]), ends[name]
        except FormatError as error:
            problems[key] = str(error)
            stopped.add(name.writer)


def _in_tables(
    newest: Manifest, experiment_id: str, files: Files, asked: set[str] | None
) -> Iterator[tuple[str, str, int]]:
    """Yield run, writer and a number of rows, the same pair any number of times."""
    for table in (FACTS, SUMMARIES, EVENTS):
        yield from _pairs_of(table, newest.files(table.name, experiment_id), files, asked)


def _pairs_of(
    table: Table, listed: Sequence[TableFile], files: Files, asked: set[str] | None
) -> Iterator[tuple[str, str, int]]:
    """Yield run, writer and a number of rows as one table has them; of states the points."""
    columns = ["run_id", "writer", *(["n"] if table is SUMMARIES else [])]
    wanted = None if asked is None else sorted(asked)
    for file in listed:
        if wanted is not None and bisect_left(wanted, file.min_run) == bisect_right(
            wanted, file.max_run
        ):
            continue
        path = files.path(file)
        try:
            with pq.ParquetFile(path, read_dictionary=columns[:2]) as opened:
                for group in range(opened.num_row_groups):
                    yield from _pairs(opened.read_row_group(group, columns=columns))
        except (pa.ArrowException, OSError, ValueError) as error:
            message = f"{file.path}: the runs cannot be read: {error}"
            raise FormatError(message) from error


def _pairs(rows: pa.Table) -> Iterator[tuple[str, str, int]]:
    plain = pa.table({name: _plain(rows[name]) for name in rows.column_names})
    how: Any = ("n", "sum") if "n" in rows.column_names else ([], "count_all")
    found: Any = plain.group_by(["run_id", "writer"]).aggregate([how])
    columns = ("run_id", "writer", "n_sum" if "n" in rows.column_names else "count_all")
    yield from zip(*(found[name].to_pylist() for name in columns), strict=True)


def _plain(column: Any) -> Any:  # noqa: ANN401 - a column of any type
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def _writers(newest: Manifest, experiment_id: str, files: Files) -> Iterator[WriterRow]:
    for file in newest.files(WRITERS.name, experiment_id):
        for rows in read_groups(files.path(file), WRITERS, key=file.path):
            yield from (WriterRow(**row) for row in rows.to_pylist())


def _writer_row(tail: Tail) -> WriterRow:
    header = tail.footer.header
    return WriterRow(
        writer=header.writer,
        last=header.last,
        is_closed=schema.CLOSE in texts(tail.footer.state.facts["kind"]),
        experiment_name=header.experiment_name,
        host=header.host,
        pid=header.pid,
        time=tail.entry.time_us,
    )


def _last(newest: Manifest, writers: Mapping[str, WriterRow], run_id: str, writer: str) -> int:
    """Return the last row of a writer whose rows of a run are all there."""
    copied = newest.copied.get(run_id, {}).get(writer)
    return writers[writer].last if copied is None else copied


def counted(
    newest: Manifest, experiment_id: str, files: Files, run_ids: Collection[str]
) -> dict[tuple[str, str], int]:
    """Count the compacted rows of some runs by run and writer.

    Args:
        newest: the manifest.
        experiment_id: the partition.
        files: of the lake.
        run_ids: the runs.

    Returns:
        Rows of `metrics` and `events`; nothing where there are none.

    Raises:
        FileNotFoundError: a file is gone.
        StorageError: the store cannot be read.
    """
    found: dict[tuple[str, str], int] = defaultdict(int)
    wanted = set(run_ids)
    for table in (METRICS, EVENTS):
        listed = newest.files(table.name, experiment_id)
        for run_id, writer, rows in _pairs_of(table, listed, files, wanted):
            if run_id in wanted:
                found[run_id, writer] += rows
    return found


def _held(fs: Filesystem, segment: LiveSegment, tail: Tail) -> Held:
    """Look into a segment, whole if it is not of one run only."""
    runs, stated = tail.runs, tail.stated()
    lasts: dict[str, int] = {}
    if runs is not None and runs[0] == runs[1]:
        lasts = {runs[0]: segment.name.last}
    elif runs is not None:
        rows, _ = segments.decode(fs.get(tail.entry.key), key=tail.entry.key)
        found = coded(rows["run_id"])
        # Written in order, so that what remains is the last place of each run.
        places = np.zeros(len(found.values), np.int64)
        places[found.codes] = np.arange(rows.num_rows)
        ids: list[Any] = found.values.to_pylist()
        lasts = dict(zip(ids, (places + segment.name.first).tolist(), strict=True))
    lasts.pop("", None)
    return Held(segment, frozenset(stated | lasts.keys()), lasts)
