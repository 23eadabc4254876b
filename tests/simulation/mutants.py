"""The rules of the protocol, each taken out of the real code: a world must notice.

Each function breaks one rule of `docs/spec/v1.md`, or two where one makes up for the other, and
says which. Those that `TEETH` names are noticed; each of `UNNOTICED` is made up for by another
rule, and noticed where both are broken.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pyarrow as pa

from runlake.errors import ConflictError, StorageError
from runlake.storage import layout, manifest, manifests, segments, snapshot, state
from runlake.storage.layout import SegmentName
from runlake.storage.manifest import Manifest
from runlake.storage.snapshot import Snapshots
from runlake.storage.state import State
from runlake.upkeep import commit, intake
from runlake.upkeep import vacuum as vacuum_module
from runlake.upkeep.commit import Change, Committer
from runlake.upkeep.copies import passage
from runlake.upkeep.vacuum import _Vacuum
from runlake.writing import places, putting, recover, writer
from runlake.writing.writer import Writer
from tests.simulation.store import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    import pytest

    from runlake.storage.engine import Storage
    from runlake.storage.filesystem import Filesystem
    from runlake.upkeep.intake import Decoded
    from runlake.writing.events import Event, Position

Mutant: TypeAlias = "Callable[[pytest.MonkeyPatch], None]"
Theme: TypeAlias = "Mapping[str, object]"


# Names and covers.


def cover_by_the_last_row_only(patch: pytest.MonkeyPatch) -> None:
    """Cover: X covers Y only if it also begins no later."""

    def covers(self: SegmentName, other: SegmentName) -> bool:
        same = (self.writer, self.experiment_id) == (other.writer, other.experiment_id)
        return same and self.last > other.last

    patch.setattr(SegmentName, "covers", covers)


def names_that_cover_each_other(patch: pytest.MonkeyPatch) -> None:
    """Cover: of equal ranges only `.z` covers, and vacuum keeps what nothing covers."""

    def covers(self: SegmentName, other: SegmentName) -> bool:
        same = (self.writer, self.experiment_id) == (other.writer, other.experiment_id)
        return same and self.last >= other.last and self.first <= other.first and self != other

    def covered(names: Sequence[SegmentName]) -> Mapping[SegmentName, list[SegmentName]]:
        return {
            one: found
            for one in names
            if (found := [other for other in names if one.covers(other)])
        }

    patch.setattr(SegmentName, "covers", covers)
    patch.setattr(vacuum_module, "_covers", covered)


def choose_beyond_a_hole(patch: pytest.MonkeyPatch) -> None:
    """Take a snapshot, 3: what lies behind a hole is not seen."""
    choose = snapshot.choose

    def choose_all(
        names: Sequence[SegmentName], watermark: int = manifest.NOTHING_CONSUMED
    ) -> tuple[list[tuple[SegmentName, int]], int | None]:
        names = list(names)
        found, hole = choose(names, watermark)
        while hole is not None:
            start = min(name.first for name in names if name.first > hole)
            more, hole = choose([name for name in names if name.first >= start], start - 1)
            found += more
        return found, None

    patch.setattr(snapshot, "choose", choose_all)


def rows_below_the_watermark_again(patch: pytest.MonkeyPatch) -> None:
    """Take a snapshot, 3: of a segment that straddles the watermark rows are skipped."""
    choose = snapshot.choose

    def choose_whole(names: Any, watermark: int = -1) -> Any:  # noqa: ANN401 - as the function
        found, hole = choose(names, watermark)
        return [(name, 0) for name, _ in found], hole

    patch.setattr(snapshot, "choose", choose_whole)


# Snapshots.


def manifests_before_the_log(patch: pytest.MonkeyPatch) -> None:
    """Take a snapshot, 1 and 2: the log is listed first, then the manifests."""
    newest, listed = Snapshots._newest_manifest, Snapshots._list_log
    early: dict[int, Manifest] = {}

    def list_log(self: Snapshots, wanted: Any) -> Any:  # noqa: ANN401 - as the method
        early[id(self)] = newest(self)
        return listed(self, wanted)

    patch.setattr(Snapshots, "_list_log", list_log)
    patch.setattr(Snapshots, "_newest_manifest", lambda self: early[id(self)])


def snapshots_that_go_back(patch: pytest.MonkeyPatch) -> None:
    """Take a snapshot: a reader that has seen more of a writer lists again."""
    patch.setattr(Snapshots, "_remember", lambda *_: None)


def manifests_that_go_back(patch: pytest.MonkeyPatch) -> None:
    """Take a snapshot: a reader never takes an older manifest than before."""

    def newest(self: Snapshots) -> Manifest:
        return manifests.newest(self._fs, lake=self._manifest.lake)

    patch.setattr(Snapshots, "_newest_manifest", newest)


# Watermarks.


def watermarks_that_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Tables, watermarks: those of every writer are kept for ever."""

    def kept(
        consumed: Mapping[str, int], advanced: Collection[str], cold_hi: str
    ) -> tuple[dict[str, int], str]:
        if len(consumed) <= commit.HOT_WRITERS:
            return dict(consumed), cold_hi
        return {w: last for w, last in consumed.items() if w in advanced}, cold_hi

    patch.setattr(commit, "kept_hot", kept)


def cold_watermarks_unread(patch: pytest.MonkeyPatch) -> None:
    """Tables, watermarks: one that left the manifest stands in table `writers`."""
    patch.setattr(Manifest, "may_be_cold", lambda *_: False)


# Won and lost.


def won_without_looking(patch: pytest.MonkeyPatch) -> None:
    """Commit, 2: "ours" means nothing before the manifests were listed."""
    patch.setattr(Committer, "_is_won", lambda *_: True)


def won_by_the_number_alone(patch: pytest.MonkeyPatch) -> None:
    """Commit, 2: a manifest behind ours must name ours as its parent."""

    def is_won(self: Committer, made: Manifest) -> bool:
        found = [each.number for each in manifests.listed(self._fs)]
        return max(found, default=0) == made.number or made.number + 1 in found

    patch.setattr(Committer, "_is_won", is_won)


def lost_and_drops_are_gone(patch: pytest.MonkeyPatch) -> None:
    """Commit, 3: each table file that we drop is named by the newest manifest."""

    def still_fits(self: Committer, change: Change, start: Manifest, newest: Manifest) -> bool:
        return self._are_watermarks(change, newest) and not self._hidden(change, start, newest)

    patch.setattr(Committer, "_still_fits", still_fits)


def lost_and_watermarks_have_moved(patch: pytest.MonkeyPatch) -> None:
    """Commit, 3: the watermark of each writer that we advance is as it was."""
    patch.setattr(Committer, "_are_watermarks", lambda *_: True)


def lost_and_runs_were_purged(patch: pytest.MonkeyPatch) -> None:
    """Commit, 3: no run in our files was purged since."""
    patch.setattr(Committer, "_hidden", lambda *_: set())


def lost_and_runs_were_copied(patch: pytest.MonkeyPatch) -> None:
    """Commit, 3: what is copied of the runs in our files is as it was."""

    def hidden(self: Committer, change: Change, start: Manifest, newest: Manifest) -> set[str]:
        return self._holding(change.files, newest.purged - start.purged)

    patch.setattr(Committer, "_hidden", hidden)


def copied_and_nothing_replaced(patch: pytest.MonkeyPatch) -> None:
    """Copy: of what comes again the rows that are there go."""
    patch.setattr(passage, "REPLACED", ())


def moved_under_the_old_names(patch: pytest.MonkeyPatch) -> None:
    """Commit, 3: files move on under fresh names, because the number of the old ones is used."""
    patch.setattr(Committer, "_moved", lambda _self, change, _newest: change)


def files_deleted_without_an_answer(patch: pytest.MonkeyPatch) -> None:
    """Commit: if the put fails without an answer, the files stay."""
    committed = Committer.commit

    def commit_or_delete(self: Committer, change: Change, base: Manifest) -> Manifest | None:
        try:
            return committed(self, change, base)
        except StorageError:
            self._fs.delete_many([file.path for file in change.files])
            raise

    patch.setattr(Committer, "commit", commit_or_delete)


def refused_means_ours(patch: pytest.MonkeyPatch) -> None:
    """The filesystem, 1: a refused put is settled by the content that is there."""
    patch.setattr(Client, "read_back", lambda *_: True)


def refused_means_lost(patch: pytest.MonkeyPatch) -> None:
    """The filesystem, 1: an answer that was lost is settled by the content that is there."""

    def read_back(self: Client, key: str, data: bytes) -> bool:
        del data
        self.get(key)
        return False

    patch.setattr(Client, "read_back", read_back)


def losers_delete_all_their_files(patch: pytest.MonkeyPatch) -> None:
    """Commit, 4: files that the newest manifest names stay."""

    def discard(self: Committer, change: Change, newest: Manifest) -> None:
        del newest
        self._fs.delete_many([file.path for file in change.files])

    patch.setattr(Committer, "_discard", discard)


def losers_that_do_not_read_back(patch: pytest.MonkeyPatch) -> None:
    """Commit, 4, and the filesystem, 1: either saves a winner whose answer was lost."""
    refused_means_lost(patch)
    losers_delete_all_their_files(patch)


# Vacuum.


def vacuum_of_greater_numbers(patch: pytest.MonkeyPatch) -> None:
    """Vacuum, 3: a file with a greater number belongs to who may still commit it."""
    dropped = _Vacuum._dropped_files

    def all_dropped(self: _Vacuum) -> Any:  # noqa: ANN401 - as the method
        newest = self._newest
        self._newest = replace(newest, number=1 << 40)
        try:
            return dropped(self)
        finally:
            self._newest = newest

    patch.setattr(_Vacuum, "_dropped_files", all_dropped)


def vacuum_of_files_within_the_grace(patch: pytest.MonkeyPatch) -> None:
    """Vacuum, 3: files of manifests superseded within the grace stay."""
    patch.setattr(_Vacuum, "_in_force", lambda self: [self._newest])


def vacuum_of_segments_within_the_grace(patch: pytest.MonkeyPatch) -> None:
    """Vacuum, 4: a segment goes if it is consumed also in a manifest beyond the grace."""
    patch.setattr(_Vacuum, "_manifest_beyond_grace", lambda self: self._newest)


def vacuum_of_covered_segments_within_the_grace(patch: pytest.MonkeyPatch) -> None:
    """Vacuum, 5: the segment that covers is there for longer than the grace."""
    superseded = _Vacuum._superseded_segments

    def at_once(self: _Vacuum) -> Any:  # noqa: ANN401 - as the method
        old_us, self._old_us = self._old_us, 1 << 62
        try:
            return superseded(self)
        finally:
            self._old_us = old_us

    patch.setattr(_Vacuum, "_superseded_segments", at_once)


def vacuum_by_an_old_manifest_alone(patch: pytest.MonkeyPatch) -> None:
    """Vacuum, 4: a segment goes by watermarks, not because some table names its writer."""

    def consumed(self: _Vacuum, before: Manifest) -> Any:  # noqa: ANN401 - as the method
        del before
        return [
            vacuum_module.Removed(entry.key, entry.size_bytes, vacuum_module.CONSUMED)
            for entry in self._log
            if (name := layout.parse_segment(entry.key)) and name.writer in self._newest.consumed
        ]

    patch.setattr(_Vacuum, "_consumed_in", consumed)


def vacuum_manifests_before_tables(patch: pytest.MonkeyPatch) -> None:
    """Vacuum, 1: tables and log are listed first, then the manifests."""

    def begin(
        self: _Vacuum,
        fs: Filesystem,
        lake: str,
        experiment_id: str | None,
        grace_us: int,
    ) -> None:
        self._fs, self._lake, self._experiment_id = fs, lake, experiment_id
        self._newest, self._manifests = manifests.newest_of(fs, lake=lake)
        prefix = layout.LOG if experiment_id is None else layout.partition(experiment_id)
        self._log, self._tables = fs.list(prefix), fs.list(layout.TABLES)
        self._old_us = fs.now_us() - grace_us if grace_us > 0 else 1 << 62

    patch.setattr(_Vacuum, "__init__", begin)


def vacuum_of_greater_numbers_too(patch: pytest.MonkeyPatch) -> None:
    """Vacuum, 1 and 3: manifests first, and then files that these cannot know of."""
    vacuum_manifests_before_tables(patch)
    vacuum_of_greater_numbers(patch)


def vacuum_in_spite_of_gaps(patch: pytest.MonkeyPatch) -> None:
    """Vacuum, 2: where a file of the newest manifest is missing, nothing is deleted."""
    patch.setattr(_Vacuum, "_refuse_gaps", lambda _: None)


def vacuum_of_all_manifests_but_one(patch: pytest.MonkeyPatch) -> None:
    """Vacuum, 6: manifests superseded within the grace stay."""

    def old(self: _Vacuum) -> Any:  # noqa: ANN401 - as the method
        return [
            vacuum_module.Removed(layout.manifest(each.number), each.size_bytes, "old")
            for each in self._manifests[: -vacuum_module.KEPT_MANIFESTS]
        ]

    patch.setattr(_Vacuum, "_old_manifests", old)


# Compact.


def purged_runs_taken_in(patch: pytest.MonkeyPatch) -> None:
    """Compact, 3: rows of purged runs are left out, however late they come."""
    begin = intake.Batch.__init__
    patch.setattr(intake.Batch, "__init__", lambda self, _=(): begin(self))


def states_of_the_last_footers_only(patch: pytest.MonkeyPatch) -> None:
    """Compact, 3: facts and summaries are the join of all footers that are taken in."""
    add = intake.Batch._add_state

    def add_last(self: intake.Batch, found: Decoded) -> None:
        kept = self.__dict__.setdefault("last_states", {})
        kept[found.segment.name.writer] = found

    def rows_of(self: intake.Batch, table: Any) -> Any:  # noqa: ANN401 - as the method
        for found in self.__dict__.pop("last_states", {}).values():
            add(self, found)
        return given(self, table)

    given = intake.Batch.rows_of
    patch.setattr(intake.Batch, "_add_state", add_last)
    patch.setattr(intake.Batch, "rows_of", rows_of)


def segments_taken_in_over_a_gap(patch: pytest.MonkeyPatch) -> None:
    """Compact, 2: a prefix without a gap is taken in."""
    choose_beyond_a_hole(patch)
    add = intake.Batch.add

    def add_any(self: intake.Batch, found: Decoded) -> None:
        self.inputs.setdefault(found.segment.name.writer, (0, 0))
        name = found.segment.name
        first, _ = self.inputs[name.writer]
        self.inputs[name.writer] = first, name.first + found.segment.skip_rows - 1
        add(self, found)

    patch.setattr(intake.Batch, "add", add_any)


# Writers.


def own_rows_taken_for_a_conflict(patch: pytest.MonkeyPatch) -> None:
    """Append: whether an object under our name is ours is told by the digest of its rows."""

    def put(storage: Storage, name: SegmentName, data: bytes, table: pa.Table) -> None:
        del table
        if not storage.append(name, data):
            raise ConflictError(f"{name.key} is there", url=storage.fs.url)

    patch.setattr(writer, "put", put)
    patch.setattr(recover, "put", put)


def inputs_deleted_before_the_merge(patch: pytest.MonkeyPatch) -> None:
    """Close and merge, 4: the inputs go only after the joined segment is put."""
    join = Writer._join

    def delete_and_join(
        self: Writer, storage: Storage, group: list[tuple[SegmentName, bytes]]
    ) -> None:
        if len(group) > 1:
            storage.fs.delete_many([name.key for name, _ in group])
        join(self, storage, group)

    patch.setattr(Writer, "_join", delete_and_join)


def merged_with_the_last_state_only(patch: pytest.MonkeyPatch) -> None:
    """Close and merge, 3: states are joined; the last alone has lost runs that had ended."""

    def last(states: Iterable[State]) -> State:
        return list(states)[-1]

    patch.setattr(state, "join", last)


def merged_over_a_gap(patch: pytest.MonkeyPatch) -> None:
    """Close and merge, 2 and 3: only neighbours are joined, and their rows are counted first."""

    def merge(self: Writer, storage: Storage) -> None:
        group = []
        for name, _ in sorted(self._small):
            try:
                group.append((name, storage.fs.get(name.key)))
            except FileNotFoundError:
                continue
        self._small.clear()
        if len(group) < 2:
            return
        inputs = [segments.decode(data, key=name.key) for name, data in group]
        rows = pa.concat_tables([rows for rows, _ in inputs]).unify_dictionaries().combine_chunks()
        joined = state.join(footer.state for _, footer in inputs)
        first, last = group[0][0].first, group[-1][0].last
        name = SegmentName(self.writer_id, last, last - first + 1, True, self.experiment_id)  # noqa: FBT003 - as the class
        putting.put(storage, name, putting.encode(name, "", rows, joined), rows)
        storage.fs.delete_many([old.key for old, _ in group])

    patch.setattr(Writer, "merge", merge)


def tails_deleted_before_the_next_is_put(patch: pytest.MonkeyPatch) -> None:
    """Append: superseded names go after the name that covers them is there."""
    patched = Writer._put

    def delete_and_put(self: Writer, storage: Storage, cut: Position) -> None:
        storage.fs.delete_many([name.key for name in sorted(self._tail.tried)])
        patched(self, storage, cut)

    patch.setattr(Writer, "_put", delete_and_put)


# Recovery.


def recoverers_that_decide_each_for_itself(patch: pytest.MonkeyPatch) -> None:
    """Recover, 2: how a writer ends is written to the journal before anything is put."""
    append = recover._Ending.append

    def decide(
        self: recover._Ending, folder: Path, end: Position, killed: tuple[str, ...]
    ) -> list[Event]:
        newest = max(recover._event_files(folder))[1]
        before = newest.read_bytes()
        events = append(self, folder, end, killed)
        newest.write_bytes(before)
        return events

    patch.setattr(recover._Ending, "append", decide)


def recovery_without_the_saved_state(patch: pytest.MonkeyPatch) -> None:
    """Recover, 3: rows are put starting from the state that the last seal saved."""
    saved = writer.saved_state

    def forget(text: bytes) -> tuple[Position, State]:
        return saved(text)[0], State.empty()

    patch.setattr(recover, "saved_state", forget)


def journals_removed_before_their_rows_are_put(patch: pytest.MonkeyPatch) -> None:
    """Recover, 4: the journal goes last."""
    release = places.OwnerLock.release
    patch.setattr(places.OwnerLock, "release", lambda self, **_: release(self, remove=True))


_ANY: Final[Theme] = {"copies": False}
_BUSY: Final[Theme] = {
    "quiet": -1,
    "grace": 0,
    "keepers": 3,
    "rounds": 3,
    "hosts": 2,
    "listing": "pages",
    "page": 50,
    "recoverers": 0,
    "restorers": 0,
    "purgers": 0,
    "ends tidy": False,
}
_STALLED: Final[Theme] = {
    **_BUSY,
    "stalls of commits": 0.6,
    "kept manifests": 1,
    "budget": 1,
    "failures": 0.0,
    "experiments": 1,
}
_READ: Final[Theme] = {
    **_BUSY,
    "readers": 2,
    "weight of reader": 0.1,
    "page": 1,
    "failures": 0.0,
}
_LATE: Final[Theme] = {
    **_BUSY,
    "listing": "lag",
    "lag": 40,
    "grace": 60,
    "rest of readers": 5,
    "reads": 8,
}
_TORN: Final[Theme] = {**_BUSY, "listing": "torn", "lag": 40, "grace": 60, "readers": 2}
_GRACE: Final[Theme] = {
    **_BUSY,
    "grace": 500,
    "kept manifests": 1,
    "readers": 2,
    "weight of reader": 0.5,
    "rest of readers": 10,
    "reads": 8,
    "full merges": True,
    "coarse clock": False,
}
_PURGED: Final[Theme] = {
    **_BUSY,
    "deeds": 10,
    "death of host-0": 0.0,
    "purgers": 2,
    "rest of purgers": 40,
    "stalls of commits": 0.3,
    "experiments": 1,
    "failures": 0.0,
}
_FAILING: Final[Theme] = {"failures": 0.08}
_DYING: Final[Theme] = {"death of host-0": 1.0, "recoverers": 2, "restorers": 1, "failures": 0.02}
_COLD: Final[Theme] = {**_BUSY, "hot writers": 1, "hosts": 3}
_CLOSING: Final[Theme] = {
    **_BUSY,
    "budget": 1,
    "deeds": 12,
    "experiments": 1,
    "failures": 0.0,
    "haste": 0.3,
    "hosts": 1,
    "rest of keepers": 80,
    "rounds": 4,
    "rows of a segment": 1 << 18,
    "stalls": 0.0,
    "uploads of a tail": 1,
    "weight of host-0": 0.1,
}
_COPIED: Final[Theme] = {
    **_BUSY,
    "copies": True,
    "failures": 0.0,
    "experiments": 1,
    "stalls of commits": 0.4,
}

TEETH: Final[Mapping[Mutant, Theme]] = {
    cover_by_the_last_row_only: _ANY,
    names_that_cover_each_other: {**_BUSY, "joins": True},
    choose_beyond_a_hole: _TORN,
    rows_below_the_watermark_again: _ANY,
    manifests_before_the_log: _READ,
    snapshots_that_go_back: _LATE,
    manifests_that_go_back: _LATE,
    watermarks_that_are_forgotten: _COLD,
    cold_watermarks_unread: _COLD,
    won_without_looking: _STALLED,
    won_by_the_number_alone: {**_STALLED, "kept manifests": 2},
    lost_and_drops_are_gone: _STALLED,
    lost_and_watermarks_have_moved: _STALLED,
    lost_and_runs_were_purged: _PURGED,
    lost_and_runs_were_copied: _COPIED,
    copied_and_nothing_replaced: _COPIED,
    moved_under_the_old_names: {**_STALLED, "experiments": 2},
    files_deleted_without_an_answer: {**_BUSY, **_FAILING},
    refused_means_ours: _STALLED,
    losers_that_do_not_read_back: {**_BUSY, **_FAILING},
    vacuum_of_greater_numbers: _BUSY,
    vacuum_of_files_within_the_grace: _GRACE,
    vacuum_of_segments_within_the_grace: _GRACE,
    vacuum_of_covered_segments_within_the_grace: _GRACE,
    vacuum_by_an_old_manifest_alone: _BUSY,
    vacuum_of_greater_numbers_too: _BUSY,
    vacuum_in_spite_of_gaps: {**_BUSY, "thieves": 1},
    vacuum_of_all_manifests_but_one: {**_GRACE, "rounds": 6, "rest of keepers": 30},
    purged_runs_taken_in: _PURGED,
    states_of_the_last_footers_only: _BUSY,
    segments_taken_in_over_a_gap: _TORN,
    own_rows_taken_for_a_conflict: _FAILING,
    inputs_deleted_before_the_merge: _FAILING,
    merged_with_the_last_state_only: _ANY,
    merged_over_a_gap: _CLOSING,
    tails_deleted_before_the_next_is_put: _ANY,
    recoverers_that_decide_each_for_itself: _DYING,
    recovery_without_the_saved_state: _DYING,
    journals_removed_before_their_rows_are_put: {**_DYING, **_FAILING, "restorers": 0},
}
"""Each mutant, and the theme of worlds in which it is noticed soon."""

NOTICED_BY: Final[Mapping[Mutant, int]] = {
    cover_by_the_last_row_only: 16,
    manifests_that_go_back: 43,
    snapshots_that_go_back: 4,
    won_by_the_number_alone: 7,
    lost_and_runs_were_purged: 8,
    lost_and_runs_were_copied: 13,
    files_deleted_without_an_answer: 15,
    losers_that_do_not_read_back: 37,
    vacuum_of_greater_numbers: 13,
    vacuum_of_greater_numbers_too: 7,
    vacuum_of_files_within_the_grace: 9,
    vacuum_of_segments_within_the_grace: 39,
    vacuum_of_covered_segments_within_the_grace: 7,
    vacuum_by_an_old_manifest_alone: 8,
    vacuum_of_all_manifests_but_one: 28,
    states_of_the_last_footers_only: 9,
    merged_with_the_last_state_only: 13,
    merged_over_a_gap: 96,
    recovery_without_the_saved_state: 53,
    journals_removed_before_their_rows_are_put: 8,
}
"""The first world that notices, where it is none of the first few: tests begin with it."""

UNNOTICED: Final[Mapping[Mutant, Mutant]] = {
    # Read-back: without it a committer whose answer was lost takes itself for a loser, and then
    # the files that M names stay; a writer knows its rows by their digest. Claims of names have
    # nothing else (`tests/storage`).
    refused_means_lost: losers_that_do_not_read_back,
    # And the other way round: whose lost answer is settled is no loser.
    losers_delete_all_their_files: losers_that_do_not_read_back,
    # The order of listings: a manifest that is older than the listing of the tables deletes less,
    # because what it does not know has a greater number. A listing of manifests may lag in any
    # case, so it is the number that this rests on.
    vacuum_manifests_before_tables: vacuum_of_greater_numbers_too,
}
"""Rules that another rule makes up for, and are kept all the same; with both broken."""
