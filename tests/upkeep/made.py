"""Made-up writers that log anything, and what a lake holds: for the tests of upkeep."""

from __future__ import annotations

import math
import struct
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from runlake import ids, schema
from runlake.storage import layout, manifests, segments
from runlake.storage.snapshot import Snapshots
from runlake.storage.state import Fact, FactBook, State, Summaries, earliest_stands
from runlake.storage.table_files import EVENTS, FACTS, METRICS, SUMMARIES, WRITERS, read_groups
from runlake.upkeep.compact import Compactor
from tests.storage.lakes import EXPERIMENT, START_US, named, writer_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.layout import SegmentName
    from runlake.storage.segments import Footer
    from runlake.storage.table_files import Table
    from runlake.upkeep.work import Limits

LAKE = "0" * 32
_STATE_KINDS = (schema.STATUS, schema.DELETE, schema.CLOSE)


class Row(NamedTuple):
    """One row of a writer."""

    run_id: str
    kind: str
    key: str
    step: int | None
    timestamp: int
    num: float | None
    str: str | None


class Held(NamedTuple):
    """What a lake holds, as sets that can be compared.

    Attributes:
        rows: every row with its writer, and its number unless it is a metric point.
        facts: what stands of each (writer, run, kind, key).
        summaries: what stands of each (writer, run, key).
        writers: of each writer the last row, whether it has closed, and who it is.
    """

    rows: Counter[tuple[Any, ...]]
    facts: dict[tuple[str, ...], tuple[Any, ...]]
    summaries: dict[tuple[str, ...], tuple[Any, ...]]
    writers: dict[str, tuple[Any, ...]]


def point(run_id: str, key: str, step: int, value: float, *, at: int | None = None) -> Row:
    """Return a metric point."""
    time_us = START_US + (step if at is None else at)
    return Row(run_id, schema.METRIC, key, step, time_us, value, None)


def said(
    run_id: str, kind: str, key: str = "", text: str | None = None, *, at: int, num: float = 0.0
) -> Row:
    """Return a row that is no point."""
    return Row(run_id, kind, key, None, START_US + at, num, text)


@dataclass
class MadeWriter:
    """A writer whose segments are cut as a test likes; its rows are kept to compare with."""

    number: int
    rows: Sequence[Row]
    experiment: str = EXPERIMENT
    name: str = "Made up"
    writer: str = field(init=False)

    def __post_init__(self) -> None:
        self.writer = writer_id(self.number)

    def segment(self, first: int, last: int, *, merged: bool = False) -> SegmentName:
        """Return the name of rows `first` to `last`."""
        return named(self.number, first, last, experiment=self.experiment, merged=merged)

    def put(self, fs: Filesystem, first: int, last: int, *, merged: bool = False) -> str:
        """Put a segment, its state no larger than it must be; return its key."""
        name = self.segment(first, last, merged=merged)
        assert fs.put_absent(name.key, self.encoded(name))
        return name.key

    def encoded(self, name: SegmentName) -> bytes:
        """Return the file of a segment."""
        listed = self.rows[name.first : name.last + 1]
        columns = dict(zip(Row._fields, zip(*listed, strict=True), strict=True))
        rows = pa.table({key: list(values) for key, values in columns.items()})
        rows = rows.cast(segments.segment_schema())
        header = segments.Header(
            writer=self.writer,
            experiment_id=self.experiment,
            experiment_name=self.name,
            first=name.first,
            last=name.last,
            digest=segments.digest(rows),
            nonce=ids.new_nonce(),
            host=f"host-{self.number}",
            pid=self.number,
            boot_id="",
            version="0",
        )
        book, summaries = self.states(name.last)
        wanted = {row.run_id for row in listed} | book.open_runs()
        return segments.encode(rows, header, _state(book, summaries, wanted))

    def states(self, last: int) -> tuple[FactBook, _Sums]:
        """Return what the writer has said up to row `last`."""
        book, sums = FactBook(), _Sums()
        for seq, row in enumerate(self.rows[: last + 1]):
            if row.kind == schema.METRIC:
                sums.add(row)
            else:
                fact = Fact(row.timestamp, seq, row.num, row.str)
                book.add(row.run_id, row.kind, row.key, fact)
        return book, sums


class _Sums:
    """Summaries of one writer by run and key."""

    def __init__(self) -> None:
        self.slots: dict[tuple[str, str], int] = {}
        self.summaries = Summaries()

    def add(self, row: Row) -> None:
        slot = self.slots.setdefault((row.run_id, row.key), len(self.slots))
        assert row.step is not None
        assert row.num is not None
        self.summaries.add(
            np.array([slot]), np.array([row.step]), np.array([row.timestamp]), np.array([row.num])
        )

    def table(self, run_ids: Iterable[str]) -> pa.Table:
        wanted = [(run, key) for run, key in self.slots if run in set(run_ids)]
        slots = np.array([self.slots[each] for each in wanted], np.int64)
        return self.summaries.table(slots, [run for run, _ in wanted], [key for _, key in wanted])


def _state(book: FactBook, sums: _Sums, run_ids: set[str]) -> State:
    return State(book.table(run_ids), sums.table(run_ids))


def expected(writers: Iterable[tuple[MadeWriter, int]]) -> Held:
    """Return what a lake should hold of writers up to a row each, from the rows themselves."""
    held = Held(Counter(), {}, {}, {})
    for of, last in writers:
        if last < 0:
            continue
        for seq, row in enumerate(of.rows[: last + 1]):
            held.rows[_row_of(of.writer, row._asdict(), seq)] += 1
        book, sums = of.states(last)
        facts, summaries = book.table(book.all_runs()), sums.table({run for run, _ in sums.slots})
        for each in facts.to_pylist():
            held.facts[of.writer, each["run_id"], each["kind"], each["key"]] = _fact_of(each)
        for each in summaries.to_pylist():
            held.summaries[of.writer, each["run_id"], each["key"]] = _summary_of(each)
        closed = any(row.kind == schema.CLOSE for row in of.rows[: last + 1])
        held.writers[of.writer] = (last, closed, of.name, f"host-{of.number}", of.number)
    return held


def held(fs: Filesystem, experiment: str = EXPERIMENT, *, lake: str = LAKE) -> Held:
    """Return what a lake holds of an experiment: live segments, and tables for the rest."""
    found = Held(Counter(), {}, {}, {})
    snapshot = Snapshots(fs, lake=lake).take([experiment])
    for segment in snapshot.segments:
        if segment.name.experiment_id != experiment:
            continue
        name = segment.name
        listed, footer = _decoded(fs.get(segment.entry.key), segment.entry.key)
        for place, row in enumerate(listed[segment.skip_rows :], start=segment.skip_rows):
            found.rows[_row_of(name.writer, row, name.first + place)] += 1
        for row in footer.state.facts.to_pylist():
            _fold_fact(found, {**row, "writer": name.writer})
        for row in footer.state.summaries.to_pylist():
            _fold_summary(found, {**row, "writer": name.writer})
        header = footer.header
        kinds = footer.state.facts["kind"].to_pylist()
        _fold_writer(
            found,
            header.writer,
            (
                header.last,
                schema.CLOSE in kinds,
                header.experiment_name,
                header.host,
                header.pid,
            ),
        )
    for table, take in (
        (METRICS, _take_point),
        (EVENTS, _take_event),
        (FACTS, _fold_fact),
        (SUMMARIES, _fold_summary),
    ):
        for row in table_rows(fs, table, experiment, lake=lake):
            take(found, row)
    for row in table_rows(fs, WRITERS, experiment, lake=lake):
        facts = (row["last"], row["is_closed"], row["experiment_name"], row["host"], row["pid"])
        _fold_writer(found, row["writer"], facts)
    return found


def table_rows(
    fs: Filesystem, table: Table, experiment: str = EXPERIMENT, *, lake: str = LAKE
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table; each file is sorted, and as the manifest says."""
    for file in manifests.newest(fs, lake=lake).files(table.name, experiment):
        rows = file_rows(fs, table, file.path)
        assert len(rows) == file.rows
        owners = [row[table.owner] for row in rows]
        assert min(filter(None, owners), default="") == file.min_run
        assert max(owners) == file.max_run
        orders = [_order_of(table, row) for row in rows]
        assert orders == sorted(orders)
        if table.is_folded:
            assert len(set(orders)) == len(orders)
        yield from rows


def file_rows(fs: Filesystem, table: Table, key: str) -> list[dict[str, Any]]:
    """Return the rows of one file."""
    return [dict(row) for row in _listed(fs.get(key), table, key)]


# Those who die at any request leave a lake of which nearly all is as it was before.
@lru_cache(maxsize=2000)
def _listed(data: bytes, table: Table, key: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.parquet"
        path.write_bytes(data)
        pieces = list(read_groups(path, table, key=key))
    return [row for piece in pieces for row in piece.cast(_plain(piece.schema)).to_pylist()]


@lru_cache(maxsize=2000)
def _decoded(data: bytes, key: str) -> tuple[list[dict[str, Any]], Footer]:
    """Return the rows of a segment, and its footer."""
    rows, footer = segments.decode(data, key=key)
    return rows.cast(_plain(rows.schema)).to_pylist(), footer


def compactor(fs: Filesystem, *, limits: Limits | None = None) -> Compactor:
    """Return a compactor that waits for nobody."""
    return Compactor(fs, lake=LAKE, limits=limits, sleep=lambda _: None)


def make_lake(fs: Filesystem) -> None:
    """Make an empty lake."""
    fs.put(layout.LAKE_FILE, b'{"format":1,"lake":"' + LAKE.encode() + b'"}')


def _plain(found: pa.Schema) -> pa.Schema:
    """Return a schema whose times are numbers, and texts plain."""
    fields = [
        (each.name, pa.int64())
        if pa.types.is_timestamp(each.type)
        else (each.name, pa.string())
        if pa.types.is_dictionary(each.type)
        else (each.name, each.type)
        for each in found
    ]
    return pa.schema(fields)


def _row_of(writer: str, row: dict[str, Any], seq: int | None) -> tuple[Any, ...]:
    is_point = row["kind"] == schema.METRIC
    return (writer, None if is_point else seq, *(_exact(row[name]) for name in Row._fields))


def _take_point(found: Held, row: dict[str, Any]) -> None:
    point = {**row, "kind": schema.METRIC, "num": row["value"], "str": None}
    found.rows[_row_of(row["writer"], point, None)] += 1


def _take_event(found: Held, row: dict[str, Any]) -> None:
    found.rows[_row_of(row["writer"], row, row["seq"])] += 1


def _fold_fact(found: Held, row: dict[str, Any]) -> None:
    key, fact = (row["writer"], row["run_id"], row["kind"], row["key"]), _fact_of(row)
    known = found.facts.get(key)
    if known is None or earliest_stands(row["kind"], row["key"]) == (fact[:2] < known[:2]):
        found.facts[key] = fact


def _fold_summary(found: Held, row: dict[str, Any]) -> None:
    key, summary = (row["writer"], row["run_id"], row["key"]), _summary_of(row)
    known = found.summaries.get(key)
    if known is None or summary[0] > known[0]:
        found.summaries[key] = summary


def _fold_writer(found: Held, writer: str, said: tuple[Any, ...]) -> None:
    known = found.writers.get(writer)
    if known is None or said[0] > known[0]:
        found.writers[writer] = said


def _fact_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["clock"], row["seq"], _exact(row["num"]), row["str"]


def _summary_of(row: dict[str, Any]) -> tuple[Any, ...]:
    names = [name for name in SUMMARIES.columns if name.name not in {"writer", "run_id", "key"}]
    return tuple(_exact(row[column.name]) for column in names)


def _exact(value: object) -> object:
    """Return a value that equals itself: doubles as their bits, any NaN as one."""
    if not isinstance(value, float):
        return value
    return "nan" if math.isnan(value) else struct.pack("<d", value)


def _order_of(table: Table, row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(
        _total(row[name]) if isinstance(row[name], float) else row[name] for name in table.order
    )


def _total(value: float) -> int:
    """Return a double's place in IEEE 754's total order."""
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    found: int = bits if bits >= 0 else bits ^ 0x7FFF_FFFF_FFFF_FFFF
    return found


# --- strategies ---

_runs = st.sampled_from(["run-a", "run-b", "run-c"])
_keys = st.sampled_from(["loss", "acc", "größe"])
_steps = st.integers(-2, 6)
_values = st.floats(width=32) | st.sampled_from([0.0, -0.0, math.nan, math.inf])
_clocks = st.integers(0, 9)
_texts = st.none() | st.sampled_from(["a", "b", ""])
_points = st.builds(point, _runs, _keys, _steps, _values, at=_clocks)
_others = st.builds(
    said,
    _runs,
    st.sampled_from([schema.PARAM, schema.TAG, schema.RUN, "kind-of-later"]),
    st.sampled_from(["lr", schema.RUN_NAME, schema.RUN_START]),
    _texts,
    at=_clocks,
)
_marks = st.builds(
    lambda run_id, kind, text, at: said(run_id, kind, "", text, at=at),
    _runs,
    st.sampled_from([schema.STATUS, schema.DELETE, schema.RESTORE]),
    st.sampled_from([schema.RUNNING, schema.FINISHED]),
    _clocks,
)
_rows = st.lists(_points | _points | _others | _marks, min_size=1, max_size=25)


@st.composite
def writers(draw: st.DrawFn, *, experiment: str = EXPERIMENT) -> list[MadeWriter]:
    """Draw one to three writers; some of them close."""
    made = []
    for number in range(draw(st.integers(1, 3))):
        rows = draw(_rows)
        if draw(st.booleans()):
            rows = [*rows, said("", schema.CLOSE, at=len(rows))]
        made.append(MadeWriter(number + 1, rows, experiment))
    return made


def cuts(draw: st.DrawFn, count: int) -> list[int]:
    """Draw where the segments of `count` rows end: rising, the last at `count - 1`."""
    inner = draw(st.sets(st.integers(0, count - 2), max_size=4)) if count > 1 else set()
    return [*sorted(inner), count - 1]
