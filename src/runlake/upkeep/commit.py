"""Committing compacted files: the next manifest, won or lost by one conditional create.

A manifest says again what writers have put, so whoever loses here loses work and never rows.
Who wins is told by the store, and once more by a listing: a number that was used and vacuumed
while we stalled can be "won" again, and means nothing. Who loses compares states, not winners:
where nothing that the files were made of has changed, they move on under fresh names. The
normative text is `docs/spec/v1.md`, "Commit".
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from runlake import ids
from runlake.storage import layout, manifest, manifests
from runlake.storage.table_files import TABLES, WRITERS, values_among
from runlake.storage.watermarks import Watermarks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import Manifest, TableFile

HOT_WRITERS: Final = 2000
"""More watermarks than these do not stay in the manifest."""
_MOVES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a commit changes, of one experiment.

    Attributes:
        experiment_id: the partition.
        added: for each table its new files, already in the store.
        dropped: keys of the table files whose rows the new ones hold instead.
        advanced: for each writer whose rows were taken in its watermark before and after.
        purged: runs that are never to be shown again, whose rows the new files leave out.
        copied: for each run that comes from another lake, the last rows of the writers of whom
            the new files hold all rows.
    """

    experiment_id: str
    added: Mapping[str, tuple[TableFile, ...]]
    dropped: frozenset[str] = frozenset()
    advanced: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    purged: frozenset[str] = frozenset()
    copied: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def files(self) -> tuple[TableFile, ...]:
        """All new files."""
        return tuple(file for files in self.added.values() for file in files)


@final
class Committer:
    """Commits changes to one lake."""

    def __init__(self, fs: Filesystem, *, lake: str) -> None:
        """Start without memory.

        Args:
            fs: the lake's storage; it can create conditionally, or nobody else compacts.
            lake: the lake's id.
        """
        self._fs = fs
        self._lake = lake

    def commit(self, change: Change, base: Manifest) -> Manifest | None:
        """Make a change part of the lake.

        Where another commit was first, the files move on under fresh names as long as nothing
        has changed that they were made of.

        Args:
            change: its files are named for the manifest behind `base`.
            base: the manifest that the change was made from.

        Returns:
            The manifest that holds it; None if it is not known to be in force: then take a new
            snapshot and begin again. Files that no manifest can name are deleted.

        Raises:
            StorageError: the store cannot be read or written. The change may be in force or
                not; its files are left to vacuum.
            FormatError: the newest manifest is damaged, another lake's, or newer.
        """
        start = base
        for _ in range(_MOVES):
            made = self._successor(base, change)
            if self._fs.put_absent(layout.manifest(made.number), manifest.encode(made)):
                return made if self._is_won(made) else None
            newest = manifests.newest(self._fs, lake=self._lake)
            if newest.number < made.number or not self._still_fits(change, start, newest):
                # One that a lagging listing hides was put by somebody else as well.
                self._discard(change, newest)
                return None
            moved = self._moved(change, newest)
            if moved is None:
                return None
            change, base = moved, newest
        self._discard(change, base)
        return None

    def _successor(self, base: Manifest, change: Change) -> Manifest:
        """Return the manifest behind `base` with a change made to it."""
        tables = {
            table: tuple(file for file in base.files(table) if file.path not in change.dropped)
            + change.added.get(table, ())
            for table in dict.fromkeys([*base.tables, *TABLES])
        }
        last = {writer: after for writer, (_, after) in change.advanced.items()}
        consumed, cold_hi = kept_hot({**base.consumed, **last}, last, base.cold_hi)
        writers = tuple(file.path for file in tables[WRITERS.name])
        return replace(
            base,
            lake=self._lake,
            number=base.number + 1,
            nonce=ids.new_nonce(),
            parent=base.nonce if base.number else None,
            commit_us=max(self._fs.now_us(), base.commit_us + 1),
            tables={table: files for table, files in tables.items() if files},
            consumed=consumed,
            consumed_cold=writers if cold_hi else (),
            cold_hi=cold_hi,
            purged=base.purged | change.purged,
            copied=joined(base.copied, change.copied),
        )

    def _is_won(self, made: Manifest) -> bool:
        """Tell whether a manifest that the store says is ours is part of the lake's history.

        The number may have been used and vacuumed while we stalled; then it is not.
        """
        found = [each.number for each in manifests.listed(self._fs)]
        newest = max(found, default=0)
        if newest == made.number:
            return True
        if made.number + 1 not in found:
            return False
        try:
            following = manifests.read(self._fs, made.number + 1, lake=self._lake)
        except FileNotFoundError:
            return False
        return following.parent == made.nonce

    def _still_fits(self, change: Change, start: Manifest, newest: Manifest) -> bool:
        """Tell whether nothing has changed that the files of a change were made of."""
        if not change.dropped <= newest.paths():
            return False
        try:
            return (
                self._are_watermarks(change, newest)
                and not self._hidden(change, start, newest)
                and not self._left_over(change, newest)
            )
        except FileNotFoundError:  # a file that is asked about was dropped and vacuumed
            return False

    def _are_watermarks(self, change: Change, newest: Manifest) -> bool:
        """Tell whether the writers that we advance still stand where they stood."""
        before = {writer: first for writer, (first, _) in change.advanced.items()}
        found = Watermarks(self._fs, newest).of(change.experiment_id, list(before))
        return found == before

    def _hidden(self, change: Change, start: Manifest, newest: Manifest) -> set[str]:
        """Return the runs in our files that were purged or copied since we began."""
        changed = {
            run_id
            for run_id in start.copied.keys() | newest.copied.keys()
            if start.copied.get(run_id) != newest.copied.get(run_id)
        }
        return self._holding(change.files, changed | (newest.purged - start.purged))

    def _left_over(self, change: Change, newest: Manifest) -> set[str]:
        """Return the runs that we purge and that files which we do not drop hold.

        What only hides runs may go on beside them: their rows are taken out after.
        """
        if not change.dropped:
            return set()
        others = [
            file
            for files in newest.tables.values()
            for file in files
            if file.path not in change.dropped
        ]
        return self._holding(others, change.purged)

    def _holding(self, files: Iterable[TableFile], run_ids: Collection[str]) -> set[str]:
        """Return which runs files hold: by their bounds first, then exactly.

        Raises:
            FileNotFoundError: a file is gone.
        """
        found: set[str] = set()
        for file in files:
            asked = {run for run in run_ids if file.min_run <= run <= file.max_run}
            name = layout.parse_table_file(file.path)
            if not asked or name is None or name.table == WRITERS.name:
                continue
            with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
                local = Path(folder) / "file.parquet"
                self._fs.download(file.path, local)
                found |= values_among(local, "run_id", asked, key=file.path)
        return found

    def _moved(self, change: Change, newest: Manifest) -> Change | None:
        """Copy our files to fresh names behind the newest manifest; None if they are gone.

        The old names would be vacuumed, because their number is used.
        """
        added: dict[str, list[TableFile]] = {}
        moved = replace(change, added={})
        for table, files in change.added.items():
            for file in files:
                name = layout.TableName(
                    table, change.experiment_id, newest.number + 1, ids.new_nonce()
                )
                try:
                    self._fs.copy(file.path, name.key)
                except FileNotFoundError:
                    self._discard(change, newest)
                    self._discard(moved, newest)
                    return None
                added.setdefault(table, []).append(replace(file, path=name.key))
                moved = replace(change, added={name: tuple(of) for name, of in added.items()})
        self._discard(change, newest)
        return moved

    def _discard(self, change: Change, newest: Manifest) -> None:
        """Delete our files, but those that the newest manifest names."""
        named = newest.paths()
        self._fs.delete_many([file.path for file in change.files if file.path not in named])


def joined(
    copied: Mapping[str, Mapping[str, int]], more: Mapping[str, Mapping[str, int]]
) -> Mapping[str, Mapping[str, int]]:
    """Return what is copied once more is; no last is lowered.

    Args:
        copied: for each run the last rows of its writers.
        more: those that advance.
    """
    found = dict(copied)
    for run_id, lasts in more.items():
        known = dict(copied.get(run_id, {}))
        for writer, last in lasts.items():
            known[writer] = max(last, known.get(writer, last))
        found[run_id] = known
    return found


def kept_hot(
    consumed: Mapping[str, int], advanced: Collection[str], cold_hi: str
) -> tuple[dict[str, int], str]:
    """Return the watermarks that stay in the manifest, and the greatest writer of the others.

    Args:
        consumed: all that stood there, and those that advance.
        advanced: writers that advance; they stay.
        cold_hi: the greatest writer that went before.
    """
    if len(consumed) <= HOT_WRITERS:
        return dict(consumed), cold_hi
    idle = sorted(writer for writer in consumed if writer not in advanced)
    gone = idle[: max(0, len(consumed) - HOT_WRITERS // 2)]
    kept = consumed.keys() - set(gone)
    return {w: consumed[w] for w in consumed if w in kept}, max([cold_hi, *gone[-1:]])
