"""A reader that shares no code with the product but how a snapshot is found.

It reads the files of a snapshot as `docs/spec/v1.md` says, and compares all with the truth.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import pyarrow as pa

from runlake.storage import layout
from tests.simulation import codec
from tests.simulation.truth import Fold, Item, Row, Truth, differing, exact, item, summed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runlake.storage.manifest import Manifest
    from runlake.storage.snapshot import Snapshot

_SUMMARY: Final = (
    *("n", "sum", "nan_count"),
    *(f"{spot}{of}" for spot in ("last", "first", "min", "max") for of in ("", "_step", "_time")),
)


class Segment(NamedTuple):
    """What a segment holds."""

    writer: str
    rows: list[tuple[Item, str]]
    state: Fold


class Piece(NamedTuple):
    """What a compacted file holds.

    Attributes:
        items: rows by writer, each with its run.
        states: what stands, by writer.
        lasts: watermarks, of table `writers`.
        runs: the runs in it.
    """

    items: dict[str, list[tuple[Item, str]]]
    states: dict[str, Fold]
    lasts: dict[str, int]
    runs: frozenset[str]


@final
class Files:
    """What files hold, each read once: none of them ever changes."""

    def __init__(self) -> None:
        """Begin with none."""
        self._segments: dict[bytes, Segment] = {}
        self._pieces: dict[bytes, Piece] = {}

    def segment(self, key: str, data: bytes) -> Segment:
        """Return what a segment holds; it is what its name says."""
        if data not in self._segments:
            self._segments[data] = _segment(key, data)
        return self._segments[data]

    def piece(self, key: str, data: bytes) -> Piece:
        """Return what a compacted file holds."""
        if data not in self._pieces:
            self._pieces[data] = _piece(key, data)
        return self._pieces[data]


class Held(NamedTuple):
    """What a snapshot holds, by writer.

    Attributes:
        counts: rows that are seen, from the first on.
        items: the rows.
        states: what stands by footers and tables.
    """

    counts: dict[str, int]
    items: dict[str, Counter[Item]]
    states: dict[str, Fold]


def compacted(found: Manifest, pieces: Mapping[str, Piece]) -> Held:
    """Return what the tables of a manifest hold, but for rows of purged runs."""
    held = Held(watermarks(found, pieces), {}, {})
    for piece in pieces.values():
        for writer, rows in piece.items.items():
            kept = [one for one, run_id in rows if run_id not in found.purged]
            held.items.setdefault(writer, Counter()).update(kept)
        for writer, state in piece.states.items():
            _join(held.states, writer, state)
    return held


def runs(pieces: Mapping[str, Piece]) -> frozenset[str]:
    """Return the runs of which compacted files hold anything."""
    return frozenset().union(*(piece.runs for piece in pieces.values()))


def watermarks(found: Manifest, pieces: Mapping[str, Piece]) -> dict[str, int]:
    """Return how many rows of each writer a manifest has compacted, cold ones too."""
    counts: dict[str, int] = {}
    for path in found.consumed_cold:
        for writer, last in pieces[path].lasts.items():
            if writer <= found.cold_hi:
                counts[writer] = max(counts.get(writer, 0), last + 1)
    counts |= {writer: last + 1 for writer, last in found.consumed.items()}
    return counts


def add_live(held: Held, snapshot: Snapshot, segments: Iterable[Segment]) -> None:
    """Add what the live segments of a snapshot hold."""
    purged = snapshot.manifest.purged
    for live, segment in zip(snapshot.segments, segments, strict=True):
        writer = segment.writer
        rows = segment.rows[live.skip_rows :]
        kept = [one for one, run_id in rows if run_id not in purged]
        held.items.setdefault(writer, Counter()).update(kept)
        held.counts[writer] = held.counts.get(writer, 0) + len(rows)
        _join(held.states, writer, segment.state)


def compare(held: Held, truth: Truth, purged: frozenset[str]) -> None:
    """Hold what was read against the truth: I1, I3 and I4."""
    for writer, count in held.counts.items():
        log = truth.logs[writer]
        assert count <= len(log.rows), f"{writer} shows {count} rows and has {len(log.rows)}"
        expected, found = log.items(count, purged), held.items.get(writer, Counter())
        assert expected == found, (
            f"{writer}, {count} of {len(log.rows)} rows: {differing(expected, found)}"
        )
        wanted = _visible(log.fold(count), purged)
        state = _visible(held.states.get(writer, Fold({}, {})), purged)
        assert wanted.facts == state.facts, f"{writer} facts: {_odd(wanted.facts, state.facts)}"
        assert wanted.summaries == state.summaries, (
            f"{writer} summaries: {_odd(wanted.summaries, state.summaries)}"
        )
    stray = {writer for writer, rows in held.items.items() if rows} - held.counts.keys()
    assert not stray, f"rows of {sorted(stray)} without a watermark"


def _visible(state: Fold, purged: frozenset[str]) -> Fold:
    if not purged:
        return state
    return Fold(*({n: v for n, v in of.items() if n[0] not in purged} for of in state))


def _odd(wanted: dict[Item, Item], found: dict[Item, Item]) -> str:
    names = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
    return str([(name, wanted.get(name), found.get(name)) for name in names[:2]])


def _join(states: dict[str, Fold], writer: str, other: Fold) -> None:
    """Join states of one writer: the earliest or latest fact, the summary with more points."""
    mine = states.setdefault(writer, Fold({}, {}))
    for name, fact in other.facts.items():
        known = mine.facts.get(name)
        is_first = name[1] == "param" or (name[1] == "run" and name[2] != "name")
        if known is None or (fact[:2] < known[:2]) == is_first:
            mine.facts[name] = fact
    for name, summary in other.summaries.items():
        known = mine.summaries.get(name)
        if known is None or summary[0] > known[0]:  # type: ignore[operator]
            mine.summaries[name] = summary


def _segment(key: str, data: bytes) -> Segment:
    table, metadata = codec.read(data)
    name, header = layout.parse_segment(key), json.loads(metadata[b"runlake"])
    assert name is not None
    said = header["experiment_id"], header["writer"], header["first"], header["last"]
    assert said == (name.experiment_id, name.writer, name.first, name.last), key
    assert table.num_rows == name.count, key
    rows = [Row(**row) for row in _listed(table)]
    facts = _listed(_state_of(metadata[b"runlake.state.facts"]))
    summaries = _listed(_state_of(metadata[b"runlake.state.summaries"]))
    return Segment(
        name.writer,
        [(item(row, seq), row.run_id) for seq, row in enumerate(rows, name.first)],
        Fold(dict(map(_fact, facts)), dict(map(_summary, summaries))),
    )


def _piece(key: str, data: bytes) -> Piece:
    name = layout.parse_table_file(key)
    assert name is not None
    rows = _listed(codec.read(data)[0])
    items: dict[str, list[tuple[Item, str]]] = {}
    states: dict[str, Fold] = {}
    lasts: dict[str, int] = {}
    for row in rows:
        writer = row["writer"]
        if name.table == "metrics":
            value = row.pop("value")
            row |= {"kind": "metric", "num": value, "str": None}
        if name.table in {"metrics", "events"}:
            of = Row(**{column: row[column] for column in Row._fields})
            items.setdefault(writer, []).append((item(of, row.get("seq", -1)), of.run_id))
        elif name.table == "facts":
            states.setdefault(writer, Fold({}, {})).facts.update([_fact(row)])
        elif name.table == "summaries":
            states.setdefault(writer, Fold({}, {})).summaries.update([_summary(row)])
        else:
            lasts[writer] = row["last"]
    return Piece(items, states, lasts, frozenset(row.get("run_id", "") for row in rows) - {""})


def _fact(row: dict[str, Any]) -> tuple[Item, Item]:
    said = row["clock"], row["seq"], exact(row["num"]), row["str"]
    return (row["run_id"], row["kind"], row["key"]), said


def _summary(row: dict[str, Any]) -> tuple[Item, Item]:
    return (row["run_id"], row["key"]), tuple(summed(row[name]) for name in _SUMMARY)


def _state_of(text: bytes) -> pa.Table:
    packed = pa.BufferReader(base64.b64decode(text))
    return pa.ipc.open_stream(pa.CompressedInputStream(packed, "zstd")).read_all()


def _listed(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows, their times as numbers."""
    at = table.schema.get_field_index("timestamp")
    if at >= 0:
        table = table.set_column(at, "timestamp", table["timestamp"].cast(pa.int64()))
    return table.to_pylist()
