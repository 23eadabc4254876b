"""The same rows, dealt out to writers and segments in any way that writers may."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from runlake import ids, schema
from runlake.settings import Settings
from runlake.storage import segments
from runlake.storage.engine import Storage
from runlake.storage.layout import SegmentName
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.state import Fact, FactBook, State, Summaries

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

START_US: Final = 1_700_000_000_000_000
_MOST_WRITERS: Final = 4

# In a class with a field `str`, the type needs another name.
Text = str


class Row(NamedTuple):
    """One row, as every kind of it lies in a segment; of a metric, `time` is the caller's."""

    run_id: Text
    kind: Text
    key: Text
    time: int
    num: float | None = None
    str: Text | None = None
    step: int | None = None


def metric(run_id: Text, key: Text, step: int, value: float, *, time: int = START_US) -> Row:
    """Return a point."""
    return Row(run_id, schema.METRIC, key, time, value, None, step)


def begun(run_id: Text, *, time: int = START_US, name: Text | None = None) -> list[Row]:
    """Return what says that a run began."""
    rows = [
        Row(run_id, schema.RUN, schema.RUN_START, time, float(time)),
        Row(run_id, schema.STATUS, "", time, float(time), schema.RUNNING),
    ]
    if name is not None:
        rows.append(Row(run_id, schema.RUN, schema.RUN_NAME, time, None, name))
    return rows


@dataclass
class _Writer:
    """What one writer has written."""

    number: int
    experiment: Text
    rows: list[Row]
    book: FactBook = field(default_factory=FactBook)
    summaries: Summaries = field(default_factory=Summaries)
    slots: dict[tuple[Text, Text], int] = field(default_factory=dict)
    states: dict[int, State] = field(default_factory=dict)

    def fold(self, ends: Iterable[int]) -> None:
        """Work out what was said before some rows."""
        before = 0
        for end in sorted(set(ends)):
            points = []
            for seq, row in enumerate(self.rows[before:end], start=before):
                self.book.add(row.run_id, row.kind, row.key, Fact(row.time, seq, row.num, row.str))
                if row.kind == schema.METRIC:
                    slot = self.slots.setdefault((row.run_id, row.key), len(self.slots))
                    points.append((slot, row.step, row.time, row.num))
            if points:
                slots, steps, times, values = zip(*points, strict=True)
                numbers = np.array(values, np.float64)
                self.summaries.add(np.array(slots), np.array(steps), np.array(times), numbers)
            listed = list(self.slots)
            summaries = self.summaries.table(
                np.arange(len(listed)), [run for run, _ in listed], [key for _, key in listed]
            )
            self.states[end] = State(self.book.table(self.book.all_runs()), summaries)
            before = end

    def put(self, folder: Path, first: int, end: int, *, merged: bool = False) -> None:
        """Write the segment of the rows from `first` to before `end`."""
        name = SegmentName(f"{self.number:026d}", end - 1, end - first, merged, self.experiment)
        columns: dict[Text, list[Any]] = {
            "run_id": [row.run_id for row in self.rows[first:end]],
            "kind": [row.kind for row in self.rows[first:end]],
            "key": [row.key for row in self.rows[first:end]],
            "step": [row.step for row in self.rows[first:end]],
            "timestamp": [row.time for row in self.rows[first:end]],
            "num": [row.num for row in self.rows[first:end]],
            "str": [row.str for row in self.rows[first:end]],
        }
        rows = pa.table(columns).cast(segments.segment_schema())
        header = segments.Header(
            writer=name.writer,
            experiment_id=self.experiment,
            experiment_name=f"name of {self.experiment}",
            first=first,
            last=end - 1,
            digest=segments.digest(rows),
            nonce=ids.new_nonce(),
            host="host",
            pid=7,
            boot_id="boot",
            version="0",
        )
        file = folder / name.key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(segments.encode(rows, header, self.states[end]))


def put_split(
    folder: Path,
    rows: Iterable[Row],
    chance: random.Random,
    *,
    homes: Mapping[Text, Text] | None = None,
) -> Storage:
    """Write a lake that holds these rows, dealt out at random.

    A writer keeps their order. It leaves segments of any length, tails that were uploaded again
    and are superseded, and merged segments beside or instead of those that they cover.

    Args:
        folder: where; the lake is made.
        rows: in the order in which they were logged.
        chance: what is random.
        homes: the experiment of each run; None puts them all into one.

    Returns:
        The storage over it.
    """
    storage = Storage(LocalFilesystem(folder), Settings(cache=str(folder.with_name("cache"))))
    storage.ensure_lake()
    numbers = iter(chance.sample(range(1, 1000), 100))
    dealt: dict[Text, list[_Writer]] = defaultdict(list)
    last = START_US
    for row in rows:
        last = max(last, row.time)
        home = (homes or {}).get(row.run_id, "exp")
        writers = dealt[home]
        if not writers or (len(writers) < _MOST_WRITERS and chance.random() < 0.2):
            writers.append(_Writer(next(numbers), home, []))
        chance.choice(writers).rows.append(row)
    for writer in [writer for writers in dealt.values() for writer in writers]:
        if writer.rows:
            writer.rows.append(Row("", schema.CLOSE, "", last + 1))
            _cut(folder, writer, chance)
    return storage


def _cut(folder: Path, writer: _Writer, chance: random.Random) -> None:
    """Write all segments of one writer."""
    count = len(writer.rows)
    inner = sorted(chance.sample(range(1, count), chance.randint(0, min(5, count - 1))))
    edges = [0, *inner, count]
    merged = _merged(edges, chance)
    wanted = []
    for first, end in pairwise(edges):
        is_covered = any(low <= first and end <= high for low, high in merged)
        if is_covered and chance.random() < 0.5:
            continue
        wanted.append((first, end))
        if end - first > 1 and chance.random() < 0.5:
            wanted.append((first, chance.randrange(first + 1, end)))
    writer.fold(end for _, end in [*wanted, *merged])
    for first, end in wanted:
        writer.put(folder, first, end)
    for first, end in merged:
        writer.put(folder, first, end, merged=True)


def _merged(edges: Sequence[int], chance: random.Random) -> list[tuple[int, int]]:
    """Choose stretches of segments that were merged when the writer closed."""
    stretches = []
    place = 0
    while place < len(edges) - 1:
        length = chance.randint(1, 3)
        if length > 1 and place + length < len(edges) and chance.random() < 0.5:
            stretches.append((edges[place], edges[place + length]))
        place += length
    return stretches
