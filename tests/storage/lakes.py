"""Real segments and lakes of them, for the tests of reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from runlake import ids, schema
from runlake.settings import Settings
from runlake.storage import segments
from runlake.storage.engine import Storage
from runlake.storage.layout import SegmentName
from runlake.storage.state import Fact, FactBook, State, Summaries

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.tables import SnapshotTables

EXPERIMENT = "exp"
START_US = 1_700_000_000_000_000


def writer_id(number: int) -> str:
    """Return the id of a made-up writer."""
    return f"{number:026d}"


def named(
    writer: int, first: int, last: int, *, experiment: str = EXPERIMENT, merged: bool = False
) -> SegmentName:
    """Return the name of the segment with rows `first` to `last`."""
    return SegmentName(writer_id(writer), last, last - first + 1, merged, experiment)


def run_of(writer: str) -> str:
    """Return the id of the one run that a made-up writer carries."""
    return f"run-{int(writer)}"


def rows_of(name: SegmentName) -> pa.Table:
    """Return rows of metric `loss`; step and value are the sequence number."""
    is_reserved = name.experiment_id == schema.RESERVED_PARTITION
    rows = [
        {
            "run_id": run_of(name.writer),
            "kind": schema.EXPERIMENT_TAG if is_reserved else schema.METRIC,
            "key": "loss",
            "step": number,
            "timestamp": START_US + number,
            "num": float(number),
            "str": str(number) if is_reserved else None,
        }
        for number in range(name.first, name.last + 1)
    ]
    return pa.Table.from_pylist(rows, schema=segments.segment_schema())


def state_at(name: SegmentName, *, params: int = 1) -> State:
    """Return what a writer has said up to the last row of a segment."""
    run_id, book, summaries = run_of(name.writer), FactBook(), Summaries()
    if name.experiment_id == schema.RESERVED_PARTITION:
        return State.empty()
    book.add(run_id, schema.RUN, schema.RUN_START, Fact(START_US, 0, float(START_US), None))
    for number in range(params):
        # Texts without a pattern, so that many of them make a long footer.
        text = ids.name_hash(f"{name.writer} {number}")
        book.add(run_id, schema.PARAM, f"p{number}", Fact(START_US, 0, None, text))
    points = np.arange(name.last + 1)
    summaries.add(np.zeros_like(points), points, START_US + points, points.astype(np.float64))
    return State(book.table([run_id]), summaries.table(np.zeros(1, np.int64), [run_id], ["loss"]))


def segment(name: SegmentName, *, params: int = 1, version: int = 1) -> bytes:
    """Return the file of a segment."""
    rows = rows_of(name)
    header = segments.Header(
        writer=name.writer,
        experiment_id=name.experiment_id,
        experiment_name="Made up",
        first=name.first,
        last=name.last,
        digest=segments.digest(rows),
        nonce=ids.new_nonce(),
        host="host",
        pid=7,
        boot_id="boot",
        version="0",
        format=version,
    )
    return segments.encode(rows, header, state_at(name, params=params))


def put(fs: Filesystem, *wanted: SegmentName, params: int = 1) -> None:
    """Put segments into a lake."""
    for name in wanted:
        fs.put(name.key, segment(name, params=params))


def storage_on(fs: Filesystem, folder: Path) -> Storage:
    """Return new storage over a filesystem, with its cache in `folder`."""
    storage = Storage(fs, Settings(cache=str(folder / "cache")))
    storage.ensure_lake()
    return storage


def sequences(tables: SnapshotTables) -> dict[str, list[int]]:
    """Return for each writer the sequence numbers of its rows, read from the files."""
    found: dict[str, list[int]] = {}
    for file in tables.row_files("events"):
        with pq.ParquetFile(file.path) as opened:
            steps = opened.read(["step"])["step"].to_pylist()
        assert steps == list(range(file.first, file.first + len(steps)))
        found.setdefault(file.writer, []).extend(steps[file.skip_rows :])
    return found
