"""What is to be copied of one partition, change by change.

Each change brings the runs of one parcel, whole. What the target has is read from its newest
manifest each time, so that whoever was overtaken decides again.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, final

from runlake import schema
from runlake.storage.manifest import NOTHING_CONSUMED, terms
from runlake.storage.snapshot import Snapshots
from runlake.storage.watermarks import Watermarks
from runlake.upkeep.attempt import attempted
from runlake.upkeep.commit import Change, joined
from runlake.upkeep.copies.belongings import Belongings, Side
from runlake.upkeep.copies.parcel import REPLACED, DamagedError, Packer, Parcel
from runlake.upkeep.copies.written import Lasts, Written, counted, live_of, written
from runlake.upkeep.sources import Files
from runlake.upkeep.work import Limits

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import Manifest, TableFile
    from runlake.storage.snapshot import Snapshot

PARCEL_ROWS: Final = 1 << 24
"""Runs of about so many rows go in one commit."""
PARCEL_RUNS: Final = 20_000
"""So many runs go in one commit at most."""
_TRIES: Final = 10


class Place(NamedTuple):
    """Where a lake is, and which."""

    fs: Filesystem
    lake: str


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy has done so far.

    Attributes:
        runs: runs of which rows came.
        skipped: runs of which the target had everything already.
        artifacts: files that came.
        artifact_bytes: their length.
        rows: rows that came; those of a writer that went on come all again.
        size_bytes: length of the compacted files that were written.
        commits: manifests won.
        conflicts: commits lost, or begun again because an object was gone.
        refused: runs and experiments that the target has purged.
        names: names that another experiment of the target goes by; both are shown under it,
            and the target's is found by it. Rename one of them.
        problems: what could not be read or is not what it should be, and stayed away.
    """

    runs: int = 0
    skipped: int = 0
    artifacts: int = 0
    artifact_bytes: int = 0
    rows: int = 0
    size_bytes: int = 0
    commits: int = 0
    conflicts: int = 0
    refused: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@final
class End:
    """One of the two lakes at work."""

    def __init__(self, place: Place) -> None:
        """Start without a snapshot."""
        self.fs, self.lake = place.fs, place.lake
        self.snapshots = Snapshots(self.fs, lake=self.lake)


@dataclass(frozen=True, slots=True)
class _Known:
    """What a snapshot of the source says of one partition."""

    newest: Manifest
    written: Written
    files: Files


@final
class Passage:
    """What is to be copied of one partition, change by change.

    Attributes:
        done: what is in force so far.
    """

    def __init__(
        self,
        source: End,
        target: End,
        experiment_id: str,
        wanted: frozenset[str] | None,
        *,
        limits: Limits | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start with nothing done.

        Args:
            source: where rows come from.
            target: where they go.
            experiment_id: the partition.
            wanted: the runs asked for; None for all.
            limits: how much memory may be taken.
            folder: for copies of the source's files; it is the caller's, and needed to copy.
        """
        self.done = Copied()
        self._source, self._target = source, target
        self._experiment_id, self._wanted = experiment_id, wanted
        self._limits = limits or Limits()
        self._folder = folder
        self._if_won = self.done
        self._known: _Known | None = None
        self._damaged: dict[str, str] = {}
        self._wrong: dict[str, int] = {}
        self._why: dict[str, str] = {}
        self._refused: frozenset[str] = frozenset()
        self._skipped: frozenset[str] | None = None
        self._came: frozenset[str] = frozenset()
        self._coming: frozenset[str] = frozenset()

    def runs(self) -> set[str]:
        """Return which of the runs wanted are in the source."""
        with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
            for _ in range(_TRIES):
                try:
                    return set(self._look(Path(folder)).written.lasts)
                except FileNotFoundError:
                    continue
            return set(self._look(Path(folder)).written.lasts)

    def next_change(self, snapshot: Snapshot) -> Change | None:
        """Write the files of the next parcel; None if the target has everything.

        Args:
            snapshot: of the target, just taken.

        Returns:
            The change, to be committed behind the snapshot's manifest.

        Raises:
            FileNotFoundError: an object of either lake is gone, or not what it was.
            StorageError: a store cannot be read or written.
            FormatError: a compacted file is damaged.
        """
        assert self._folder is not None  # noqa: S101 - given wherever something is copied
        if self._known is None:
            self._known = self._look(self._folder)
        known, base = self._known, snapshot.manifest
        with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
            here = Files(self._target.fs, Path(folder))
            todo, quiet = self._split(self._advancing(known.written, snapshot), known, base, here)
            if self._skipped is None:
                self._skipped = frozenset(known.written.lasts.keys() - todo.keys() - self._refused)
            while batch := self._batch(todo, known.written):
                self._bring(batch.keys(), known, snapshot, here)
                out = self._left_out()
                whole = {run_id: of for run_id, of in batch.items() if run_id not in out}
                if whole:
                    return self._write(whole, known, base, here, quiet=quiet)
            self._report()
            return self._write({}, known, base, here, quiet=quiet) if quiet else None

    def settle(self, *, is_won: bool) -> None:
        """Count the last change, which was committed or lost."""
        if is_won:
            self.done = replace(self._if_won, commits=self._if_won.commits + 1)
            self._came |= self._coming
        else:
            self.done = replace(self.done, conflicts=self.done.conflicts + 1)
            self._known = None  # the source may have changed as well
        self._report()

    def _report(self) -> None:
        """Say who came and who did not."""
        is_lake = self._experiment_id == schema.RESERVED_PARTITION
        wrong = [
            f"{key} {self._why[key]}; the run {run_id} stayed away"
            for run_id, key in self._wrong_files().items()
        ]
        unread = [] if self._known is None else self._known.written.problems.values()
        self.done = replace(
            self.done,
            runs=0 if is_lake else len(self._came),
            skipped=0 if is_lake else len((self._skipped or frozenset()) - self._came),
            refused=tuple(sorted(self._refused)),
            problems=tuple(dict.fromkeys([*unread, *wrong])),
        )

    def _look(self, folder: Path) -> _Known:
        """Take a snapshot of the source and see what it holds."""
        snapshot = self._source.snapshots.take([self._experiment_id])
        files = Files(self._source.fs, folder)
        found = written(
            self._source.fs,
            snapshot,
            self._experiment_id,
            files=files,
            wanted=self._wanted,
            damaged=self._damaged,
        )
        return _Known(snapshot.manifest, found, files)

    def _advancing(self, found: Written, snapshot: Snapshot) -> Lasts:
        """Return for each run the writers of whom the target has less, with their last rows."""
        base = snapshot.manifest
        self._refused = base.purged & found.lasts.keys()
        own = self._own({writer for of in found.lasts.values() for writer in of}, snapshot)
        todo: Lasts = {}
        for run_id, lasts in found.lasts.items():
            if run_id in self._refused:
                continue
            copied = base.copied.get(run_id, {})
            more = {
                writer: last
                for writer, last in lasts.items()
                if writer not in own and last > copied.get(writer, NOTHING_CONSUMED)
            }
            if more:
                todo[run_id] = more
        return todo

    def _split(
        self, more: Lasts, known: _Known, base: Manifest, here: Files
    ) -> tuple[Lasts, Lasts]:
        """Return who advances by rows, and who only by the rows of other runs.

        A process that carries one run after another advances for all of them with each.
        """
        live: dict[tuple[str, str], int] = {}
        for held in known.written.live:
            writer = held.segment.name.writer
            live |= {(run_id, writer): last for run_id, last in held.lasts.items()}
        todo: Lasts = {}
        unsure: Lasts = {}
        quiet: Lasts = {}
        for run_id, lasts in more.items():
            for writer, last in lasts.items():
                before = base.copied.get(run_id, {}).get(writer, NOTHING_CONSUMED)
                newest = live.get((run_id, writer))
                if before == NOTHING_CONSUMED or (newest is not None and newest > before):
                    into = todo
                else:
                    into = unsure if newest is None else quiet
                into.setdefault(run_id, {})[writer] = last
        if unsure:
            place = self._experiment_id
            there = counted(known.newest, place, known.files, unsure.keys())
            mine = counted(base, place, here, unsure.keys())
            for run_id, lasts in unsure.items():
                for writer, last in lasts.items():
                    is_same = there.get((run_id, writer)) == mine.get((run_id, writer))
                    (quiet if is_same else todo).setdefault(run_id, {})[writer] = last
        return dict(sorted(todo.items())), quiet

    def _own(self, writers: set[str], snapshot: Snapshot) -> set[str]:
        """Return which writers are the target's own: they have put their rows there."""
        base, here = snapshot.manifest, self._experiment_id
        foreign = {writer for of in base.copied.values() for writer in of}
        marks = Watermarks(self._target.fs, base).of(here, sorted(writers - foreign))
        own = {writer for writer, last in marks.items() if last > NOTHING_CONSUMED}
        live = {each.name.writer for each in snapshot.segments if each.name.experiment_id == here}
        live |= {hole.writer for hole in snapshot.holes if hole.experiment_id == here}
        return own | (writers & live)

    def _batch(
        self, todo: Mapping[str, dict[str, int]], found: Written
    ) -> dict[str, dict[str, int]]:
        """Return the next runs, as many as go in one commit."""
        batch: dict[str, dict[str, int]] = {}
        rows, out = 0, self._left_out()
        for run_id, lasts in todo.items():
            if run_id in out:
                continue
            rows += found.rows[run_id]
            if batch and (rows > PARCEL_ROWS or len(batch) == PARCEL_RUNS):
                break
            batch[run_id] = lasts
        return batch

    def _bring(
        self, run_ids: Collection[str], known: _Known, snapshot: Snapshot, here: Files
    ) -> None:
        """Bring the files of runs before their rows."""
        if self._experiment_id == schema.RESERVED_PARTITION:
            return
        source = Side(self._source.fs, known.newest, known.written.live, known.files)
        live = live_of(self._target.fs, snapshot, self._experiment_id)
        target = Side(self._target.fs, snapshot.manifest, live, here)
        brought = Belongings(source, target, self._experiment_id).bring(run_ids)
        self.done = replace(
            self.done,
            artifacts=self.done.artifacts + brought.count,
            artifact_bytes=self.done.artifact_bytes + brought.size_bytes,
        )
        self._why |= brought.wrong
        for key in brought.wrong:
            self._wrong[key] = self._wrong.get(key, 0) + 1
        if any(self._wrong[key] == 1 for key in brought.wrong):
            # It may have been put again since the snapshot: see what the next one says of it.
            raise FileNotFoundError(min(brought.wrong))

    def _left_out(self) -> Collection[str]:
        """Return the runs of which a file cannot be brought, time and again."""
        return self._wrong_files().keys()

    def _wrong_files(self) -> Mapping[str, str]:
        return {key.split("/")[2]: key for key, count in sorted(self._wrong.items()) if count > 1}

    def _write(
        self,
        batch: Mapping[str, dict[str, int]],
        known: _Known,
        base: Manifest,
        here: Files,
        *,
        quiet: Mapping[str, dict[str, int]],
    ) -> Change:
        """Write the files of a parcel."""
        copied = joined(quiet, batch)
        writers = {writer for of in copied.values() for writer in of}
        replaced = self._replaced(batch, base)
        parcel = Parcel(
            experiment_id=self._experiment_id,
            pairs={run_id: frozenset(of) for run_id, of in batch.items()},
            writers=[known.written.writers[each] for each in sorted(writers)],
            replaced=replaced,
        )
        if batch:
            known.files.forget_below(min(batch))
        packer = Packer(
            self._source.fs,
            known.newest,
            known.written.live,
            files=known.files,
            target_files=here,
            limits=self._limits,
        )
        paths = [file.path for file in replaced]
        with attempted(
            self._target.fs,
            base,
            experiment_id=self._experiment_id,
            replaces=paths,
            terms=terms(base.purged, joined(base.copied, copied)),
        ) as attempt:
            try:
                rows = packer.write(parcel, attempt)
            except DamagedError as error:
                self._damaged[error.key] = error.reason
                self._known = None
                raise FileNotFoundError(error.key) from error
        self._coming = frozenset(batch)
        self._if_won = replace(
            self.done,
            rows=self.done.rows + rows,
            size_bytes=self.done.size_bytes + attempt.size_bytes,
        )
        return Change(
            experiment_id=self._experiment_id,
            added=attempt.added,
            dropped=frozenset(paths),
            copied=copied,
        )

    def _replaced(self, batch: Mapping[str, dict[str, int]], base: Manifest) -> Sequence[TableFile]:
        """Return the files of the target that may hold rows of what comes again."""
        again = sorted(
            run_id
            for run_id, lasts in batch.items()
            if not base.copied.get(run_id, {}).keys().isdisjoint(lasts)
        )
        return [
            file
            for table in REPLACED
            for file in base.files(table, self._experiment_id)
            if bisect_left(again, file.min_run) < bisect_right(again, file.max_run)
        ]
