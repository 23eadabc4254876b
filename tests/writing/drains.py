"""Writers that a test moves by hand: a drain without its thread, and what the store then holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from runlake import clock, ids
from runlake.run import Run
from runlake.run_plan import RunPlan
from runlake.storage import segments
from runlake.storage.engine import Storage
from runlake.storage.memoryfs import MemoryFilesystem
from runlake.writing.drain import Drain
from runlake.writing.events import HybridClock
from runlake.writing.journal import Journal
from runlake.writing.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa

    from runlake.artifacts.store import Artifacts
    from runlake.settings import Settings
    from runlake.storage.filesystem import Filesystem
    from runlake.storage.layout import SegmentName
    from runlake.storage.snapshot import Snapshot

EXPERIMENT = "exp"


class StillDrain(Drain):
    """A drain whose thread is the test: it calls `serve` where the thread would."""

    def _start(self) -> None:
        """Start nothing."""

    def serve(self) -> None:
        """Serve every writer, due or not."""
        for lane in list(self._lanes):
            if not lane.done:
                self._serve(lane)
        self._lanes = [lane for lane in self._lanes if not lane.done]

    def serve_due(self) -> None:
        """Serve the writers that are due."""
        for lane in list(self._lanes):
            if not lane.done and self._is_due(lane):
                self._serve(lane)
        self._lanes = [lane for lane in self._lanes if not lane.done]

    def end(self) -> None:
        """End all writers, as `close` does."""
        for lane in self._lanes:
            self._end(lane)
        self._current.clear()
        self._columns.clear()

    @property
    def errors(self) -> list[Exception]:
        """What keeps rows from the store."""
        return [lane.error for lane in self._lanes if lane.error is not None]

    @property
    def folders(self) -> list[Path]:
        """The journals of the writers that live."""
        return [lane.lock.folder for lane in self._lanes if lane.lock is not None]

    def die(self) -> None:
        """Do what a kill does: drop locks and memory, leave the files."""
        self.abandon_in_child()


def memory_filesystem() -> MemoryFilesystem:
    """Return an empty lake in memory."""
    return MemoryFilesystem(f"test-{ids.new_nonce()}/lake")


def start_run(
    drain: Drain, settings: Settings, run_id: str = "run", *, tags: dict[str, object] | None = None
) -> Run:
    """Begin a run without a lake around it."""
    plan = RunPlan(run_id, EXPERIMENT, "Experiment", None, None, clock.now_us())
    artifacts = cast("Artifacts", SimpleNamespace(uri=lambda *_: "artifacts"))
    return Run(plan, drain, artifacts, settings, read=cast("Any", None), tags=tags or {}, params={})


def memory_journal(*, limit_bytes: int = 1 << 30) -> Journal:
    """Return a journal in memory."""
    return Journal(None, HybridClock(), mapped=False, limit_bytes=limit_bytes)


def new_writer(journal: Journal | None = None) -> Writer:
    """Return a writer over an empty journal."""
    writer_id = ids.new_writer_id(clock.now_us())
    return Writer(writer_id, EXPERIMENT, "Experiment", journal or memory_journal())


class Row(NamedTuple):
    """One row of a segment, with its place."""

    writer: str
    seq: int
    run_id: str
    kind: str
    key: str
    step: int | None
    num: float | None
    str: str | None


def rows_of(fs: Filesystem, snapshot: Snapshot) -> list[Row]:
    """Return every row of a snapshot, each writer's in order."""
    found: list[Row] = []
    for segment in snapshot.segments:
        table, footer = segments.decode(fs.get(segment.entry.key), key=segment.entry.key)
        assert footer.header.digest == segments.digest(table)
        assert table.num_rows == footer.row_count == segment.name.count
        found += _rows(segment.name, table)[segment.skip_rows :]
    return found


def _rows(name: SegmentName, table: pa.Table) -> list[Row]:
    columns = [
        table[column].to_pylist() for column in ("run_id", "kind", "key", "step", "num", "str")
    ]
    return [
        Row(name.writer, name.first + place, *values)
        for place, values in enumerate(zip(*columns, strict=True))
    ]


def read_all(fs: Filesystem, settings: Settings) -> list[Row]:
    """Return every row of a lake, after checking that each writer's are without a hole."""
    snapshot, _ = Storage(fs, settings).read()
    assert snapshot.is_complete
    rows = rows_of(fs, snapshot)
    check_sequences(rows)
    return rows


def check_sequences(rows: Iterable[Row]) -> None:
    """Check that each writer's rows begin at 0 and leave none out."""
    following: dict[str, int] = {}
    for row in rows:
        assert row.seq == following.get(row.writer, 0), row
        following[row.writer] = row.seq + 1


def points(rows: Iterable[Row], run_id: str = "run") -> list[tuple[str, int, float]]:
    """Return key, step and value of the points of a run, sorted."""
    return sorted(
        (row.key, row.step or 0, row.num if row.num is not None else float("nan"))
        for row in rows
        if row.kind == "metric" and row.run_id == run_id
    )


def segment_keys(fs: Filesystem) -> list[str]:
    """Return the names of all segments without their folder."""
    return [entry.key.rpartition("/")[2] for entry in fs.list("log/")]
