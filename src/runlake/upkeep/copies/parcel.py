"""A parcel: rows of some runs on their way from one lake into the files of another.

They come from compacted files and live segments of the source, and from files of the target
that are replaced because they hold earlier rows of the same writers. All are merged in order,
however many there are: what does not fit into memory goes through local files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import FormatError
from runlake.storage import arrays
from runlake.storage.filesystem import Range
from runlake.storage.standing import coded
from runlake.storage.table_files import (
    EVENTS,
    FACTS,
    METRICS,
    TABLES,
    WRITERS,
    TableHeader,
    arrow_schema,
    read_groups,
)
from runlake.upkeep import intake
from runlake.upkeep.intake import Batch
from runlake.upkeep.merge import merged
from runlake.upkeep.order import in_order
from runlake.upkeep.table_writer import TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import Manifest, TableFile
    from runlake.storage.table_files import Table
    from runlake.upkeep.attempt import Attempt
    from runlake.upkeep.copies.written import Held, WriterRow
    from runlake.upkeep.sources import Files
    from runlake.upkeep.work import Limits
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

Pieces: TypeAlias = "Callable[[], Iterator[pa.Table]]"
_GATHER: Final = 64
_LEAST_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What goes from one lake to another in one commit.

    Attributes:
        experiment_id: the partition.
        pairs: for each run the writers whose rows go, all that the source has.
        writers: what the source says of these writers, and of others of whom only that goes.
        replaced: files of the target with rows of them that it already has.
    """

    experiment_id: str
    pairs: Mapping[str, Collection[str]]
    writers: Sequence[WriterRow]
    replaced: Sequence[TableFile] = ()

    @property
    def bounds(self) -> tuple[str, str]:
        """The least run and the greatest; empty where no run goes."""
        return min(self.pairs, default=""), max(self.pairs, default="")

    def by_writer(self) -> dict[str, set[str]]:
        """Return for each writer the runs."""
        found: dict[str, set[str]] = {row.writer: set() for row in self.writers}
        for run_id, writers in self.pairs.items():
            for writer in writers:
                found[writer].add(run_id)
        return found


@dataclass(slots=True)
class _Sources:
    """What the rows of one table come from, each in order."""

    pieces: list[Pieces] = field(default_factory=list)
    rows: int = 0

    def counted(self, rows: pa.Table) -> pa.Table:
        self.rows += rows.num_rows
        return rows


@final
class Packer:
    """Writes the files of parcels."""

    def __init__(
        self,
        fs: Filesystem,
        newest: Manifest,
        live: Sequence[Held],
        *,
        files: Files,
        target_files: Files,
        limits: Limits,
    ) -> None:
        """Keep where rows come from; nothing is read yet.

        Args:
            fs: the source's storage.
            newest: the source's manifest.
            live: its live segments.
            files: of the source.
            target_files: of the target.
            limits: how much memory may be taken.
        """
        self._fs, self._newest, self._live = fs, newest, live
        self._files, self._target_files, self._limits = files, target_files, limits
        self._spilled = 0

    def write(self, parcel: Parcel, attempt: Attempt) -> int:
        """Write the files of a parcel.

        Args:
            parcel: what goes.
            attempt: of the target.

        Returns:
            How many rows of the source there are.

        Raises:
            FileNotFoundError: an object is gone.
            DamagedError: a live segment cannot be read.
            StorageError: a store cannot be read or written.
            FormatError: a compacted file is damaged.
        """
        sources = {name: _Sources() for name in TABLES}
        self._add_live(parcel, sources, attempt.folder)
        count = 0
        for name, table in TABLES.items():
            of = sources[name]
            if table.name == WRITERS.name:
                attempt.write(table, [_writer_rows(parcel.writers)])
                continue
            self._add_files(parcel, table, of)
            kept = _Sources()
            for file in parcel.replaced:
                if file.path.startswith(f"tables/{name}/"):
                    kept.pieces.append(self._kept(parcel, table, file, kept))
            pieces = self._few(table, [*of.pieces, *kept.pieces], attempt.folder)
            rows = attempt.write(table, merged(table, (each() for each in pieces)))
            if not table.is_folded:
                _check_count(of.rows + kept.rows, rows)
                count += of.rows
        return count

    def _add_files(self, parcel: Parcel, table: Table, sources: _Sources) -> None:
        """Add the compacted files of the source that may hold rows of the parcel."""
        for file in self._newest.files(table.name, parcel.experiment_id):
            if _meets(parcel, file) or table is FACTS:
                sources.pieces.append(self._chosen(parcel, table, file, sources))

    def _chosen(self, parcel: Parcel, table: Table, file: TableFile, sources: _Sources) -> Pieces:
        """Return what gives the rows of a file of the source that go."""

        def pieces() -> Iterator[pa.Table]:
            path = self._files.path(file)
            least, greatest = parcel.bounds
            # Facts also say, of no run, that a writer has ended.
            between = ("" if table is FACTS else least, greatest)
            for rows in read_groups(path, table, key=file.path, between=between):
                is_chosen = _are_of(parcel, rows)
                if table is FACTS:
                    is_chosen |= _are_ends(parcel, rows)
                yield sources.counted(rows.filter(arrays.flags(is_chosen)))

        return pieces

    def _kept(self, parcel: Parcel, table: Table, file: TableFile, sources: _Sources) -> Pieces:
        """Return what gives the rows of a file of the target that stay."""

        def pieces() -> Iterator[pa.Table]:
            for rows in read_groups(self._target_files.path(file), table, key=file.path):
                yield sources.counted(rows.filter(arrays.flags(~_are_of(parcel, rows))))

        return pieces

    def _add_live(self, parcel: Parcel, sources: Mapping[str, _Sources], folder: Path) -> None:
        """Add rows and states of live segments, as many at a time as memory may hold."""
        only = parcel.by_writer()
        most = max(_LEAST_BYTES, self._limits.budget_bytes // 4)
        batch = Batch(only=only)
        runs = parcel.pairs.keys()
        ours = [held for held in self._live if held.segment.name.writer in only]
        # The newest of a writer says whether it has ended.
        newest = {held.segment.name.writer: held for held in ours}
        wanted = [
            held
            for held in ours
            if newest[held.segment.name.writer] is held or not held.run_ids.isdisjoint(runs)
        ]
        for start in range(0, len(wanted), _GATHER):
            held = wanted[start : start + _GATHER]
            entries = [each.segment.entry for each in held]
            ranges = [Range(entry.key, 0, entry.size_bytes) for entry in entries]
            for each, data in zip(held, self._fs.get_ranges(ranges), strict=True):
                try:
                    found = intake.decode(each.segment, data)
                except FormatError as error:
                    raise DamagedError(each.segment.entry.key, str(error)) from error
                if batch.segments and batch.size_bytes + found.size_bytes > most:
                    self._take(batch, sources, folder)
                    batch = Batch(only=only)
                batch.add(found)
        if batch.segments:
            self._take(batch, sources, None)

    def _take(self, batch: Batch, sources: Mapping[str, _Sources], folder: Path | None) -> None:
        """Take the rows of segments out of memory, to a local file if there is a folder."""
        for name, table in TABLES.items():
            if name == WRITERS.name:
                continue
            rows, of = batch.rows_of(table), sources[name]
            of.counted(rows)
            pieces = [rows] if table.is_folded else in_order(rows, table.order, size=1 << 17)
            if folder is None:
                held = list(pieces)
                of.pieces.append(lambda held=held: iter(held))  # type: ignore[misc]
            else:
                of.pieces.append(self._spill(table, iter(pieces), folder))

    def _few(self, table: Table, pieces: Sequence[Pieces], folder: Path) -> Sequence[Pieces]:
        """Return as many sources as memory may hold a piece of, with the same rows."""
        left = list(pieces)
        while len(left) > self._limits.most_sources:
            some, left = left[: self._limits.most_sources], left[self._limits.most_sources :]
            left.append(self._spill(table, merged(table, (each() for each in some)), folder))
        return left

    def _spill(self, table: Table, pieces: Iterator[pa.Table], folder: Path) -> Pieces:
        """Write rows to local files, and return what gives them again."""
        paths: list[Path] = []
        self._spilled += 1
        aside = folder / f"spilled-{self._spilled}"
        aside.mkdir()
        header = TableHeader(lake="", table=table.name, experiment_id="", n=0, commit="")
        writer = TableWriter(table, header, aside, finished=lambda made: paths.append(made.path))
        for piece in pieces:
            if piece.num_rows:
                writer.write(piece)
        writer.close()

        def again() -> Iterator[pa.Table]:
            for path in paths:
                yield from read_groups(path, table, key=path.name)

        return again


@final
class DamagedError(FormatError):
    """A live segment of the source cannot be read.

    Attributes:
        key: which.
        reason: why.
    """

    def __init__(self, key: str, reason: str) -> None:
        """Say which and why."""
        super().__init__(f"{key}: {reason}")
        self.key, self.reason = key, reason


def _are_of(parcel: Parcel, rows: pa.Table) -> NDArray[np.bool_]:
    """Tell of each row whether its run and writer are of a parcel."""
    if not rows.num_rows:
        return np.zeros(0, bool)
    runs, writers = coded(rows["run_id"]), coded(rows["writer"])
    names: list[Any] = writers.values.to_pylist()
    asked: list[Any] = runs.values.to_pylist()
    pairs = runs.codes.astype(np.int64) * len(names) + writers.codes
    distinct, places = np.unique(pairs, return_inverse=True)
    chosen = [
        names[pair % len(names)] in parcel.pairs.get(asked[pair // len(names)], ())
        for pair in distinct.tolist()
    ]
    found: NDArray[np.bool_] = np.array(chosen, bool)[places]
    return found


def _are_ends(parcel: Parcel, rows: pa.Table) -> NDArray[np.bool_]:
    """Tell of each fact whether it says that a writer of a parcel has ended."""
    if not rows.num_rows:
        return np.zeros(0, bool)
    kinds, writers = coded(rows["kind"]), coded(rows["writer"])
    ours = {row.writer for row in parcel.writers}
    is_ours = np.array([of in ours for of in writers.values.to_pylist()], bool)
    found: NDArray[np.bool_] = is_ours[writers.codes] & (kinds.codes == kinds.code_of(schema.CLOSE))
    return found


def _meets(parcel: Parcel, file: TableFile) -> bool:
    """Tell whether a file may hold rows of a parcel."""
    least, greatest = parcel.bounds
    return file.max_run >= least and file.min_run <= greatest


def _writer_rows(writers: Sequence[WriterRow]) -> pa.Table:
    rows = [row._asdict() for row in sorted(writers)]
    return pa.Table.from_pylist(rows, schema=arrow_schema(WRITERS))


def _check_count(expected: int, written: int) -> None:
    """Refuse to commit files that do not hold every row."""
    if expected != written:
        message = f"{written} rows were written of {expected}; nothing was changed. Report it."
        raise FormatError(message)


REPLACED: Final = (METRICS.name, EVENTS.name)
"""Tables of which earlier rows are replaced; states of one writer are folded."""
