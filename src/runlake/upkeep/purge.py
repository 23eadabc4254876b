"""Purge: take every byte of runs or of an experiment out of a lake, for ever.

The runs are hidden first, by a commit that takes a moment: from then on no reader shows them
and no commit brings them in, whatever is uploaded late. Then what holds their bytes is deleted
or written again without them. Whoever is interrupted purges the same again. The normative text
is `docs/spec/v1.md`, "Purge".
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple, final

from runlake import ids, schema
from runlake.errors import (
    ConflictError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    StateError,
)
from runlake.storage import layout, links, manifests, names
from runlake.storage.snapshot import Snapshots
from runlake.upkeep import delta
from runlake.upkeep.changes import commit_all, refuse_unsafe_store
from runlake.upkeep.commit import Change, Committer
from runlake.upkeep.holders import Search
from runlake.upkeep.homes import runs_at_home
from runlake.upkeep.namings import namings
from runlake.upkeep.registrations import registrations
from runlake.upkeep.removal import Removal
from runlake.upkeep.vacuum import vacuum
from runlake.upkeep.work import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.manifest import Manifest
    from runlake.upkeep.holders import Holders
    from runlake.upkeep.namings import Naming

# What still holds bytes, and cannot be reached from here.
WRITER: Final = "writer"
OBJECT: Final = "object"
ARTIFACTS: Final = "artifacts"
NAME: Final = "name"
MODEL: Final = "model"
QUARANTINE: Final = "quarantine"
PROJECTION: Final = "projection"

BEYOND_REACH: Final = (
    "Not reached: journals, caches and pinned snapshots on other hosts, exports and copies of the "
    "lake, backups, and versions that a bucket keeps of deleted objects."
)
"""What no purge can reach, in words for people."""

_FEW_RUNS: Final = 64
_BATCH: Final = 1000
_TRIES: Final = 10
_PAUSE_S: Final = 0.5


class Left(NamedTuple):
    """Something that still holds bytes.

    Attributes:
        kind: `writer` (it is open, or has segments that cannot be taken in), `object` (it
            cannot be read), `artifacts` (outside the lake), `name` (a claim of a name, which
            is never deleted), `model` (a version that was made from a run, and now points at
            nothing), `quarantine` or `projection`.
        place: a writer with its host, a key, or a URL.
        reason: why, and what to do.
    """

    kind: str
    place: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a purge has done so far.

    Attributes:
        run_ids: runs that are hidden for ever.
        experiment_id: the experiment that is, if one was asked for.
        deleted_bytes: length of the objects that were deleted.
        written_bytes: length of those that were written, mostly rows of other runs.
        artifacts: files of the runs that were deleted.
        rows: rows that were taken out of compacted files.
        left: what still holds bytes of them.
    """

    run_ids: tuple[str, ...] = ()
    experiment_id: str | None = None
    deleted_bytes: int = 0
    written_bytes: int = 0
    artifacts: int = 0
    rows: int = 0
    left: tuple[Left, ...] = ()

    @property
    def freed_bytes(self) -> int:
        """By how much the lake is smaller."""
        return self.deleted_bytes - self.written_bytes


def purge(
    fs: Filesystem,
    *,
    lake: str,
    run_ids: Collection[str],
    limits: Limits | None = None,
    is_alone: bool = False,
    progress: Callable[[Purged], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Purged:
    """Remove runs for ever.

    Any number of writers, readers, compactors and purges may work meanwhile. Ended at any
    instant, it has done no harm, and the same call finishes it.

    Args:
        fs: the lake's storage.
        lake: its id.
        run_ids: the runs, by their full ids.
        limits: how much memory may be taken; None for the default.
        is_alone: nobody else compacts this lake, so that a store will do that cannot create
            conditionally.
        progress: called with what was done so far.
        sleep: what waits, so that a test need not.

    Returns:
        What was done, and what could not be reached.

    Raises:
        NotFoundError: the lake holds nothing of a run, and never purged it. Nothing was done.
        InvalidInputError: an id is that of an experiment too. Nothing was done.
        StateError: the store cannot create conditionally, and we may not be alone.
        ConflictError: others were first, time and again; what is hidden stays hidden.
        StorageError: the store cannot be read or written.
        FormatError: a file is damaged or missing, another lake's, or newer.
    """
    refuse_unsafe_store(fs, is_alone=is_alone)
    newest = manifests.newest(fs, lake=lake)
    search = Search(fs, run_ids)
    found = search.everywhere(newest)
    unknown = set(run_ids) - found.run_ids
    # Read again: another purge may have been first.
    unknown -= manifests.newest(fs, lake=lake).purged
    if unknown:
        message = (
            f"no run {', '.join(sorted(unknown))} in lake {fs.url}; nothing was purged. "
            "`runlake ls --all` lists all."
        )
        raise NotFoundError(message, url=fs.url)
    held = found.by_partition()
    told = held.get(schema.RESERVED_PARTITION, set())
    experiments = (found.partitions | told) & set(run_ids)
    if experiments:
        message = (
            f"{', '.join(sorted(experiments))} is the id of an experiment as well as of a run, "
            "so the run cannot be purged without it; nothing was purged."
        )
        raise InvalidInputError(message)
    work = _Purge(fs, lake, limits or Limits(), progress=progress, sleep=sleep)
    work.done = Purged(run_ids=tuple(sorted(run_ids)))
    return work.run(search, found)


def purge_experiment(
    fs: Filesystem,
    *,
    lake: str,
    experiment_id: str,
    limits: Limits | None = None,
    is_alone: bool = False,
    progress: Callable[[Purged], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Purged:
    """Remove an experiment and its runs for ever; its name is free then.

    A run that a process starts in it afterwards is shown, in an experiment that goes by its
    id. The experiment `0`, which is always there, loses its runs and stays.

    Args:
        fs: the lake's storage.
        lake: its id.
        experiment_id: the experiment.
        limits: as for `purge`.
        is_alone: likewise.
        progress: likewise.
        sleep: likewise.

    Returns:
        What was done, and what could not be reached.

    Raises:
        NotFoundError: there is no such experiment. Nothing was done.
        InvalidInputError: its id is that of a run too. Nothing was done.
        StateError: as for `purge`.
        ConflictError: likewise.
        StorageError: likewise.
        FormatError: likewise.
    """
    refuse_unsafe_store(fs, is_alone=is_alone)
    newest, runs = _runs_of(fs, lake, experiment_id)
    gone = set() if experiment_id == ids.DEFAULT_EXPERIMENT_ID else {experiment_id}
    search = Search(fs, runs | gone)
    found = search.everywhere(newest)
    held = found.by_partition()
    told = held.pop(schema.RESERVED_PARTITION, set())
    if any(experiment_id in run_ids for run_ids in held.values()):
        message = f"{experiment_id} is the id of a run as well; nothing was purged."
        raise InvalidInputError(message)
    is_known = runs or told or experiment_id in found.partitions
    if not is_known and experiment_id not in newest.purged:
        message = f"no experiment {experiment_id!r} in lake {fs.url}; nothing was purged."
        raise NotFoundError(message, url=fs.url)
    work = _Purge(fs, lake, limits or Limits(), progress=progress, sleep=sleep)
    work.done = Purged(run_ids=tuple(sorted(runs)), experiment_id=experiment_id)
    return work.run(search, found, experiments=gone)


@final
class _Purge:
    """One purge at work."""

    def __init__(
        self,
        fs: Filesystem,
        lake: str,
        limits: Limits,
        *,
        progress: Callable[[Purged], None],
        sleep: Callable[[float], None],
    ) -> None:
        self.done = Purged()
        self._fs, self._lake, self._limits = fs, lake, limits
        self._progress, self._sleep = progress, sleep
        self._snapshots = Snapshots(fs, lake=lake)
        self._committer = Committer(fs, lake=lake)

    def run(self, search: Search, found: Holders, *, experiments: Collection[str] = ()) -> Purged:
        """Hide what was found, and take it away."""
        said = self._namings()
        newest = self._hide({*self.done.run_ids, *experiments})
        ended: set[str] = set()
        todo = set(found.by_partition()) | set(experiments)
        unseen = set(self.done.run_ids) - found.run_ids
        while todo - ended:  # a writer may have gone on with a run in another experiment
            for experiment_id in sorted(todo - ended):
                self._clear(experiment_id, search, found)
                ended.add(experiment_id)
            newest = manifests.newest(self._fs, lake=self._lake)
            found = search.everywhere(newest)
            todo = set(found.by_partition())
        if unseen:  # purged before; who was at work then may have put files since
            places = {*found.partitions, *said, ids.DEFAULT_EXPERIMENT_ID} - ended
            for experiment_id in sorted(places):
                self._delete_artifacts(experiment_id)
        left = [*_held(found), *self._elsewhere(ended, said, experiments), *self._versions()]
        self._say(left=tuple(left))
        return self.done

    def _hide(self, gone: set[str]) -> Manifest:
        """Put a manifest that names the runs as purged, unless the newest does."""
        for losses in range(_TRIES):
            newest = manifests.newest(self._fs, lake=self._lake)
            if gone <= newest.purged:
                return newest
            change = Change(
                experiment_id=schema.RESERVED_PARTITION, added={}, purged=frozenset(gone)
            )
            won = self._committer.commit(change, newest)
            if won is not None:
                self._say()
                return won
            self._sleep(_PAUSE_S * (losses + 1) * ids.jitter())
        message = f"{self._fs.url}: others changed the lake first, {_TRIES} times. Try again."
        raise ConflictError(message, url=self._fs.url)

    def _clear(self, experiment_id: str, search: Search, found: Holders) -> None:
        """Take the runs out of one partition: their files first, while their rows name them."""
        self._delete_artifacts(experiment_id)
        unripe = {
            segment.name.writer
            for segment in found.segments
            if segment.name.experiment_id == experiment_id
        }
        removal = Removal(
            self._fs, experiment_id, search=search, limits=self._limits, unripe=unripe
        )
        before = self.done

        def settled() -> None:
            rows, written = before.rows + removal.rows, before.written_bytes
            self._say(rows=rows, written_bytes=written + removal.written_bytes)

        commit_all(
            removal,
            experiment_id,
            snapshots=self._snapshots,
            committer=self._committer,
            settled=settled,
            sleep=self._sleep,
            url=self._fs.url,
        )
        # What the projection's log names is deleted now. Its own trouble must not keep that back.
        with suppress(ConflictError, StateError, FormatError):
            delta.republish(self._fs, lake=self._lake)
        freed = vacuum(
            self._fs, lake=self._lake, experiment_id=experiment_id, grace_s=0, is_dry_run=False
        )
        self._say(deleted_bytes=self.done.deleted_bytes + freed.size_bytes)

    def _delete_artifacts(self, experiment_id: str) -> None:
        gone = set(self.done.run_ids)
        root = f"artifacts/{experiment_id}/"
        prefixes = (
            [layout.artifacts(experiment_id, run_id) for run_id in sorted(gone)]
            if len(gone) <= _FEW_RUNS
            else [root]
        )
        # Links first: a listing would follow them.
        for run_id in sorted(gone):
            found = links.links_below(self._fs, layout.artifacts(experiment_id, run_id))
            self._fs.delete_many(found)
        for prefix in prefixes:
            entries = [
                entry
                for entry in self._fs.list(prefix)
                if entry.key.removeprefix(root).partition("/")[0] in gone
            ]
            for start in range(0, len(entries), _BATCH):
                batch = entries[start : start + _BATCH]
                # What was made a way out since is left: nothing is deleted through one.
                out = set(links.led_out(self._fs, [entry.key for entry in batch]))
                batch = [entry for entry in batch if entry.key not in out]
                self._fs.delete_many([entry.key for entry in batch])
                self._say(
                    artifacts=self.done.artifacts + len(batch),
                    deleted_bytes=self.done.deleted_bytes + sum(e.size_bytes for e in batch),
                )
        # Parts of files whose upload was interrupted are their content too.
        left = self._fs.leftovers()
        self._fs.sweep(
            each
            for each in left
            if each.key.startswith(root) and each.key.removeprefix(root).partition("/")[0] in gone
        )

    def _say(self, **changed: object) -> None:
        self.done = replace(self.done, **changed)  # type: ignore[arg-type]
        self._progress(self.done)

    def _namings(self) -> dict[str, Naming]:
        """Read what is said of experiments, before it is taken away."""
        for _ in range(_TRIES):
            try:
                return namings(self._fs, self._snapshots.take([schema.RESERVED_PARTITION]))
            except FileNotFoundError:  # replaced since it was listed
                continue
        return {}

    def _elsewhere(
        self, partitions: Collection[str], said: dict[str, Naming], gone: Collection[str]
    ) -> Iterator[Left]:
        """Yield what lies where a purge does not go."""
        for experiment_id in sorted(partitions):
            naming = said.get(experiment_id)
            if naming is None:
                continue
            if naming.location is not None and not _is_below(naming.location, self._fs.url):
                yield Left(ARTIFACTS, naming.location, "files outside the lake; delete them there")
            if experiment_id in gone:
                yield from self._claims(experiment_id, naming)
        if self._fs.list("quarantine/"):
            yield Left(QUARANTINE, "quarantine/", "what was damaged is kept there; look, delete")
        if any("/_delta_log/" in entry.key for entry in self._fs.list(layout.TABLES)):
            reason = "old versions of its log name the runs, and files that are gone"
            yield Left(PROJECTION, "tables/", reason)

    def _versions(self) -> Iterator[Left]:
        """Yield the versions of models that were made from what is gone."""
        for _ in range(_TRIES):
            try:
                told = registrations(self._fs, self._snapshots.take([schema.RESERVED_PARTITION]))
            except FileNotFoundError:  # replaced since it was listed
                continue
            reason = "points at files that are gone; `runlake models delete` takes it out of sight"
            for each in told.standing():
                if each.run_id in self.done.run_ids:
                    yield Left(MODEL, each.key, f"{each.title} {reason}")
            return

    def _claims(self, experiment_id: str, naming: Naming) -> Iterator[Left]:
        reason = "claims are never deleted; it holds the name, its first tags and who made it"
        for name in sorted({*naming.earlier, *([naming.name] if naming.name else [])}):
            for entry in self._fs.list(layout.claims(ids.name_hash(name))):
                number = layout.parse_claim(entry.key)
                if number is None:
                    continue
                data = self._fs.get(entry.key)
                claim = names.decode(data, number=number, key=entry.key, url=self._fs.url)
                if claim.experiment_id == experiment_id:
                    yield Left(NAME, entry.key, reason)


def _held(found: Holders) -> Iterator[Left]:
    """Yield what still holds rows."""
    writers: dict[str, Left] = {}
    for segment in found.segments:
        name = segment.name
        place = f"{name.writer} of experiment {name.experiment_id} on {segment.host}"
        reason = (
            "its segments cannot be taken in; `runlake verify` tells why"
            if segment.has_ended
            else "it is open, and puts its unsealed rows again; after its end compact, then vacuum"
        )
        writers[name.writer] = Left(WRITER, f"{place}, pid {segment.pid}", reason)
    yield from writers.values()
    for key in sorted(found.files):
        yield Left(OBJECT, key, "a compaction at work may hold it; vacuum later")
    for key, reason in sorted(found.unread.items()):
        yield Left(OBJECT, key, f"it cannot be read, so it may hold anything: {reason}")


def _runs_of(fs: Filesystem, lake: str, experiment_id: str) -> tuple[Manifest, set[str]]:
    for _ in range(_TRIES):
        newest = manifests.newest(fs, lake=lake)
        try:
            return newest, runs_at_home(fs, newest, experiment_id)
        except FileNotFoundError:  # compacted and vacuumed since
            continue
    message = f"{fs.url} changes faster than it can be read. Try again."
    raise ConflictError(message, url=fs.url)


def _is_below(location: str, url: str) -> bool:
    is_relative = "://" not in location and not location.startswith("/")
    return is_relative or location.startswith(url)
