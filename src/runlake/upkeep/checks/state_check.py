"""Whether the tables of one experiment say what their rows say, each row once.

Points and events are read once, in order, however many files they lie in, and beside them the
states: what stands of each writer's rows is made again and compared. Only one row group of each
file at hand is in memory, and what stands of one run or one metric. The normative text is
`docs/spec/v1.md`, "Tables" and "State".
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from runlake import schema
from runlake._lazy import lazy
from runlake.storage import arrays, layout
from runlake.storage.manifest import NOTHING_CONSUMED
from runlake.storage.standing import coded
from runlake.storage.state import Summaries
from runlake.storage.table_files import EVENTS, FACTS, METRICS, SUMMARIES, WRITERS, arrow_schema
from runlake.upkeep.checks.chunks import UnusableError
from runlake.upkeep.checks.findings import COUNT, STATE
from runlake.upkeep.checks.spill import FACTS_BY_RUN, by_kind, facts_of
from runlake.upkeep.checks.table_check import numbers_of
from runlake.upkeep.fold import folded
from runlake.upkeep.merge import Head, merged
from runlake.upkeep.order import group_codes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    from runlake.storage.manifest import TableFile
    from runlake.storage.table_files import Table
    from runlake.upkeep.checks.findings import Notebook
    from runlake.upkeep.checks.table_check import TableReader
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

_SAID_MOST: Final = 20
_TOLERANCE: Final = 1e-6
_CURVE: Final = ("run_id", "key", "writer")


@dataclass(frozen=True, slots=True)
class Artifact:
    """What the log says of one file of a run, the latest word."""

    clock: int
    writer: str
    seq: int
    size_bytes: int
    sha256: str
    is_deleted: bool = False


@final
@dataclass(slots=True)
class ArtifactBook:
    """The latest word on each artifact, by its key."""

    files: dict[str, Artifact] = field(default_factory=dict)

    def add(self, experiment_id: str, rows: pa.Table, writers: Sequence[str], seqs: Any) -> None:  # noqa: ANN401 - numbers
        """Take rows of kind `artifact` in.

        Args:
            experiment_id: the partition.
            rows: with the columns of a segment.
            writers: whose, one for each row.
            seqs: their sequence numbers.
        """
        listed = rows.select(["run_id", "key", "timestamp", "num", "str"])
        listed = listed.set_column(2, "timestamp", listed["timestamp"].cast(pa.int64()))
        for row, writer, seq in zip(listed.to_pylist(), writers, seqs, strict=True):
            is_deleted = row["str"] is None
            if not row["key"] or (row["num"] is None and not is_deleted):
                continue
            key = layout.artifacts(experiment_id, row["run_id"]) + row["key"]
            size, digest = int(row["num"] or 0), _sha256(row["str"])
            said = Artifact(row["timestamp"], writer, int(seq), size, digest, is_deleted)
            known = self.files.get(key)
            if known is None or (known.clock, known.writer, known.seq) < (
                said.clock,
                said.writer,
                said.seq,
            ):
                self.files[key] = said


def _sha256(text: str | None) -> str:
    try:
        return str(json.loads(text or "{}").get("sha256", ""))
    except (ValueError, AttributeError):
        return ""


@final
class StateCheck:
    """The check of the tables of one experiment.

    Attributes:
        watermarks: of each writer, as table `writers` says.
    """

    def __init__(
        self,
        reader: TableReader,
        experiment_id: str,
        book: Notebook,
        artifacts: ArtifactBook,
    ) -> None:
        """Start with nothing read.

        Args:
            reader: of the manifest in force.
            experiment_id: the partition.
            book: where findings go.
            artifacts: where words on artifacts go.
        """
        self.watermarks: dict[str, int] = {}
        self._reader, self._base = reader, reader.base
        self._experiment_id, self._book, self._artifacts = experiment_id, book, artifacts
        # Their rows here are those of some runs only.
        self._foreign = {writer for lasts in self._base.copied.values() for writer in lasts}
        self._closed: dict[str, bool] = {}
        self._counts: Counter[str] = Counter()
        self._closers: set[str] = set()
        self._odd_runs: set[str] = set()
        self._said = 0

    def check(self) -> None:
        """Read and check everything.

        Raises:
            StorageError: the store cannot be read.
        """
        is_known = self._try(self._check_writers, WRITERS)
        is_counted = self._try(self._check_events, EVENTS, FACTS)
        is_counted = self._try(self._check_points, METRICS, SUMMARIES) and is_counted
        if is_known and is_counted:
            self._check_counts()

    def _try(self, stage: Any, *tables: Table) -> bool:  # noqa: ANN401 - a bound method
        """Run a stage; where a file is unusable read the others alone."""
        try:
            stage()
        except UnusableError as error:
            bad = set(error.args)
            for table in tables:
                for file in self._files(table):
                    if file.path not in self._reader.finished | bad:
                        self._reader.read_all(file)
            return False
        return True

    def _files(self, table: Table) -> tuple[TableFile, ...]:
        return self._base.files(table.name, self._experiment_id)

    def _stream(self, table: Table) -> Iterator[pa.Table]:
        """Yield all rows of a table in order, folded where it is."""
        sources = [self._chained(run) for run in _sorted_runs(table, self._files(table))]
        return merged(table, sources)

    def _chained(self, files: Iterable[TableFile]) -> Iterator[pa.Table]:
        for file in files:
            yield from self._reader.groups(file)

    def _say(self, table: Table, kind: str, detail: str) -> None:
        self._said += 1
        if self._said <= _SAID_MOST:
            self._book.say(layout.table_partition(table.name, self._experiment_id), kind, detail)

    def _check_writers(self) -> None:
        for rows in self._stream(WRITERS):
            for row in rows.select(["writer", "last", "is_closed"]).to_pylist():
                self.watermarks[row["writer"]] = row["last"]
                self._closed[row["writer"]] = row["is_closed"]
        for writer, last in self.watermarks.items():
            if writer in self._foreign:
                continue
            consumed = self._base.consumed.get(writer)
            if consumed is None and self._base.may_be_cold(writer):
                consumed = last
            if consumed != last:
                said = NOTHING_CONSUMED if consumed is None else consumed
                detail = f"writer {writer} is compacted up to row {last}, the manifest says {said}"
                self._say(WRITERS, COUNT, detail)

    def _check_events(self) -> None:
        with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
            sources = [
                source
                for number, file in enumerate(self._files(FACTS))
                for source in by_kind(self._reader.groups(file), Path(folder, str(number)))
            ]
            self._check_facts(Head(FACTS_BY_RUN, merged(FACTS_BY_RUN, sources)))

    def _check_facts(self, head: Head) -> None:
        """Check events, and what they say against facts, which come run by run too."""
        pending = arrow_schema(FACTS).empty_table()
        for rows in self._stream(EVENTS):
            if not rows.num_rows:
                continue
            self._check_numbers(rows)
            self._count(rows)
            found = facts_of(rows)
            if found.num_rows:
                pending = folded(FACTS_BY_RUN, _joined([pending, found]))
            last = str(rows["run_id"][-1].as_py())
            runs = pending["run_id"]
            is_over: Any = pc.less(runs.cast(pa.string()), arrays.text(last))
            over = pending.filter(is_over)
            if over.num_rows:
                self._compare(FACTS_BY_RUN, over, _take(head, FACTS, (last,)))
                pending = pending.filter(pc.invert(is_over))
        self._compare(FACTS_BY_RUN, pending, _take(head, FACTS, None))

    def _check_numbers(self, rows: pa.Table) -> None:
        """Check that no event is there twice, or beyond its writer's watermark."""
        writers, seqs = coded(rows["writer"]), numbers_of(rows["seq"])
        names: list[Any] = writers.values.to_pylist()
        lasts = [self.watermarks.get(each) for each in names]
        most = np.array([np.iinfo(np.int64).max if last is None else last for last in lasts])
        for place in np.flatnonzero((seqs > most[writers.codes]) | (seqs < 0))[:_SAID_MOST]:
            writer = writers.values[int(writers.codes[place])]
            detail = f"row {seqs[place]} of writer {writer} is beyond its watermark"
            self._say(EVENTS, COUNT, detail)
        codes = group_codes(rows, ["run_id", "writer"])
        same = (codes[1:] == codes[:-1]) & (seqs[1:] == seqs[:-1])
        for place in np.flatnonzero(same)[:_SAID_MOST]:
            writer = writers.values[int(writers.codes[place])]
            self._say(EVENTS, COUNT, f"row {seqs[place]} of writer {writer} is there twice")

    def _count(self, rows: pa.Table) -> None:
        """Count rows by writer, and note what events say."""
        writers = coded(rows["writer"])
        counts = np.bincount(writers.codes, minlength=len(writers.values)).tolist()
        names: list[Any] = writers.values.to_pylist()
        self._counts.update(dict(zip(names, counts, strict=True)))
        if "kind" not in rows.column_names:
            return
        closing = rows.filter(_is_text(rows["kind"], schema.CLOSE))
        closers: list[Any] = closing["writer"].to_pylist()
        self._closers.update(closers)
        odd = rows.filter(_is_text(rows["kind"], schema.METRIC))
        odd_runs: list[Any] = odd["run_id"].to_pylist()
        self._odd_runs.update(odd_runs)
        found = rows.filter(_is_text(rows["kind"], schema.ARTIFACT))
        if found.num_rows:
            of: list[Any] = found["writer"].to_pylist()
            self._artifacts.add(self._experiment_id, found, of, found["seq"].to_pylist())

    def _check_points(self) -> None:
        head = Head(SUMMARIES, self._stream(SUMMARIES))
        pending = arrow_schema(SUMMARIES).empty_table()
        for rows in self._stream(METRICS):
            if not rows.num_rows:
                continue
            self._count(rows)
            pending = _summed(rows, pending)
            last = tuple(str(rows[name][-1].as_py()) for name in ("run_id", "key"))
            is_last: Any = pc.and_(
                _is_text(pending["run_id"], last[0]), _is_text(pending["key"], last[1])
            )
            over = pending.filter(pc.invert(is_last))
            if over.num_rows:
                self._compare(SUMMARIES, over, _take(head, SUMMARIES, last))
                pending = pending.filter(is_last)
        self._compare(SUMMARIES, pending, _take(head, SUMMARIES, None))

    def _compare(self, table: Table, made: pa.Table, said: pa.Table) -> None:
        """Compare states made of rows with those of the table, both in order."""
        if _are_equal(made, said):
            return
        right = {tuple(row[name] for name in table.order): row for row in made.to_pylist()}
        found = {tuple(row[name] for name in table.order): row for row in said.to_pylist()}
        for place in sorted(right.keys() | found.keys()):
            wanted, there = right.get(place), found.get(place)
            about = wanted or there or {}
            run_id = about["run_id"]
            # A copy brings of a foreign writer the rows of some runs, and that it has closed.
            is_known = run_id in self._odd_runs or (not run_id and about["writer"] in self._foreign)
            if is_known or _agree(wanted, there):
                continue
            where = ", ".join(
                f"{name} {each}" for name, each in zip(table.order, place, strict=True)
            )
            detail = (
                f"{where}: the rows say {_shown(wanted, there)}, the table {_shown(there, wanted)}"
            )
            self._say(table, STATE, detail)

    def _check_counts(self) -> None:
        """Check that tables hold each row up to the watermarks once."""
        for writer in sorted(self._counts.keys() | self.watermarks.keys()):
            count, last = self._counts[writer], self.watermarks.get(writer)
            if writer in self._foreign:
                continue
            if last is None:
                detail = f"{count} rows of writer {writer} are there, but no watermark of it"
                self._say(WRITERS, COUNT, detail)
                continue
            is_wrong = count > last + 1 if self._base.purged else count != last + 1
            if is_wrong:
                detail = f"writer {writer} has {count} rows, its watermark says {last + 1}"
                self._say(METRICS, COUNT, detail)
            if self._closed[writer] != (writer in self._closers):
                self._say(WRITERS, STATE, f"whether writer {writer} has closed is wrong")


def _sorted_runs(table: Table, files: Sequence[TableFile]) -> list[list[TableFile]]:
    """Return files as few lists, the rows of each in order one behind another."""
    commits: dict[int, list[TableFile]] = {}
    for file in files:
        name = layout.parse_table_file(file.path)
        commits.setdefault(0 if name is None else name.number, []).append(file)
    runs = [sorted(of, key=lambda file: (file.min_run, file.max_run)) for of in commits.values()]
    if table.name == EVENTS.name:  # rows of no run stand before all others
        return runs
    chains: list[list[TableFile]] = []
    for run in sorted(runs, key=lambda run: run[0].min_run):
        fitting = [chain for chain in chains if chain[-1].max_run < run[0].min_run]
        if fitting:
            fitting[0].extend(run)
        else:
            chains.append(run)
    return chains


def _take(head: Head, table: Table, bound: tuple[str, ...] | None) -> pa.Table:
    """Take the rows before a place in the order; None for all that are left."""
    parts = []
    while head.is_there:
        part = head.take(head.last if bound is None else bound)
        if not part.num_rows:
            break
        parts.append(part)
    return _joined(parts) if parts else arrow_schema(table).empty_table()


def _is_text(column: pa.ChunkedArray[Any], text: str) -> Any:  # noqa: ANN401 - an array of flags
    return pc.equal(column.cast(pa.string()), arrays.text(text))


def _joined(parts: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts).unify_dictionaries().combine_chunks()


def _summed(rows: pa.Table, before: pa.Table) -> pa.Table:
    """Return the summaries of points, joined with those of the points before them, in order."""
    codes = group_codes(rows, _CURVE)
    _, first, slots = np.unique(codes, return_index=True, return_inverse=True)
    heads = rows.select(list(_CURVE)).take(arrays.numbers(first)).to_pylist()
    curves = [tuple(row[name] for name in _CURVE) for row in heads]
    places = {curve: place for place, curve in enumerate(curves)}
    for row in before.select(list(_CURVE)).to_pylist():
        places.setdefault(tuple(row[name] for name in _CURVE), len(places))
    summaries = Summaries()
    for place, curve in enumerate(before.select(list(_CURVE)).to_pylist()):
        slot = places[tuple(curve[name] for name in _CURVE)]
        summaries.load(before.slice(place, 1), {(curve["run_id"], curve["key"]): slot})
    times = numbers_of(rows["timestamp"].cast(pa.int64()))
    summaries.add(
        slots.astype(np.int64), numbers_of(rows["step"]), times, numbers_of(rows["value"])
    )
    ordered = sorted(places)
    wanted = np.array([places[curve] for curve in ordered], np.int64)
    made = summaries.table(wanted, [run for run, _, _ in ordered], [key for _, key, _ in ordered])
    made = made.append_column("writer", arrays.strings([writer for _, _, writer in ordered]))
    kinds = arrow_schema(SUMMARIES)
    return made.select(kinds.names).cast(kinds)


def _are_equal(made: pa.Table, said: pa.Table) -> bool:
    """Tell quickly whether two tables of states are equal; sums nearly."""
    if made.num_rows != said.num_rows:
        return False
    for name in made.column_names:
        one, other = made[name], said[name]
        if pa.types.is_floating(one.type):
            if not _are_near(one, other, _TOLERANCE if name == "sum" else 0.0):
                return False
        elif not one.cast(_plain(one.type)).equals(other.cast(_plain(one.type))):
            return False
    return True


def _are_near(one: pa.ChunkedArray[Any], other: pa.ChunkedArray[Any], tolerance: float) -> bool:
    parts: list[NDArray[Any]] = []
    for column in (one, other):
        whole: Any = column.combine_chunks()
        if isinstance(whole, pa.ChunkedArray):
            return True  # no rows
        valid = arrays.is_valid(whole)
        parts += [valid, np.where(valid, arrays.values(whole), 0.0)]
    if not (parts[0] == parts[2]).all():
        return False
    return bool(
        np.isclose(parts[1], parts[3], rtol=tolerance, atol=tolerance, equal_nan=True).all()
    )


def _agree(wanted: dict[str, Any] | None, there: dict[str, Any] | None) -> bool:
    if wanted is None or there is None:
        return False
    return all(_same(name, wanted[name], there[name]) for name in wanted)


def _same(name: str, one: object, other: object) -> bool:
    if not isinstance(one, float) or not isinstance(other, float):
        return one == other
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    if name == "sum":
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
    return one == other


def _shown(row: dict[str, Any] | None, other: dict[str, Any] | None) -> str:
    """Return what a state says that another does not."""
    if row is None:
        return "nothing"
    if other is None:
        return "something"
    return ", ".join(
        f"{name} {row[name]}" for name in row if not _same(name, row[name], other[name])
    )


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(kind) else kind
