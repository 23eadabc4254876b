"""Copy: bring runs of one lake into another, whole, with their files and experiments.

Any filesystem to any, again and again, in both directions, while both lakes are written: of
each run and writer the target takes what reaches farther, and it never goes back. What was
copied already is passed over, so whoever is interrupted copies the same again. The normative
text is `docs/spec/v1.md`, "Copy".
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from runlake import clock, ids, schema
from runlake.errors import InvalidInputError, NotFoundError, StateError
from runlake.storage import names
from runlake.storage.names import FIRST_CLAIM, Claim
from runlake.upkeep.changes import commit_all, refuse_unsafe_store
from runlake.upkeep.commit import Committer
from runlake.upkeep.copies import models
from runlake.upkeep.copies.passage import Copied, End, Passage, Place
from runlake.upkeep.namings import namings
from runlake.upkeep.work import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from runlake.storage.engine import Storage
    from runlake.storage.snapshot import Snapshot

__all__ = ["Copied", "Place", "copy", "copy_lake"]

_TRIES: Final = 10
_CLAIM_TRIES: Final = 10


def copy_lake(
    source: Storage,
    target: Storage,
    *,
    run_ids: Collection[str] | None = None,
    experiment_ids: Collection[str] | None = None,
    limits: Limits | None = None,
    is_alone: bool = False,
    progress: Callable[[Copied], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Copied:
    """Bring runs of one lake into another, which is made where there is none.

    Args:
        source: the one lake.
        target: the other.
        run_ids: as for `copy`.
        experiment_ids: likewise.
        limits: likewise.
        is_alone: likewise.
        progress: likewise.
        sleep: likewise.

    Returns:
        What was done.

    Raises:
        NotFoundError: there is no lake to copy, or a run or an experiment is not in it.
        StateError: the target holds other things, or as for `copy`.
        InvalidInputError: as for `copy`.
        ConflictError: likewise.
        StorageError: likewise.
        FormatError: likewise.
    """
    place = Place(source.fs, source.require_lake())
    if target.lake_id() is None:
        # No lake is made for a copy that is refused.
        _check_given(run_ids, experiment_ids)
        _Copy(End(place), End(place), limits or Limits(), sleep).check(run_ids, experiment_ids)
        refuse_unsafe_store(target.fs, is_alone=is_alone)
    return copy(
        place,
        Place(target.fs, target.ensure_lake()),
        run_ids=run_ids,
        experiment_ids=experiment_ids,
        limits=limits,
        is_alone=is_alone,
        progress=progress,
        sleep=sleep,
    )


def copy(
    source: Place,
    target: Place,
    *,
    run_ids: Collection[str] | None = None,
    experiment_ids: Collection[str] | None = None,
    limits: Limits | None = None,
    is_alone: bool = False,
    progress: Callable[[Copied], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Copied:
    """Bring runs of one lake into another.

    Both may be written, compacted and copied meanwhile. Ended at any instant, it has done no
    harm, and the same call goes on where it ended.

    Args:
        source: where the runs are.
        target: where they go.
        run_ids: these runs only, by their full ids.
        experiment_ids: only what lies in these experiments. Neither means everything.
        limits: how much memory may be taken; None for the default.
        is_alone: nobody else compacts the target, so that a store will do that cannot create
            conditionally.
        progress: called with what was done so far.
        sleep: what waits, so that a test need not.

    Returns:
        What was done.

    Raises:
        NotFoundError: a run or an experiment is not in the source. Nothing was done.
        InvalidInputError: both runs and experiments are given.
        StateError: both are the same lake; or the target cannot create conditionally, and we
            may not be alone.
        ConflictError: others changed the target first, time and again.
        StorageError: a store cannot be read or written.
        FormatError: a file is damaged, another lake's, or newer.
    """
    _check_given(run_ids, experiment_ids)
    if source.lake == target.lake:
        message = (
            f"{source.fs.url} and {target.fs.url} are the same lake, {source.lake}: one was made "
            "by copying files. Copy into an empty place to have a lake of its own."
        )
        raise StateError(message, url=target.fs.url)
    refuse_unsafe_store(target.fs, is_alone=is_alone)
    work = _Copy(End(source), End(target), limits or Limits(), sleep)
    return work.run(run_ids, experiment_ids, progress)


def _check_given(run_ids: Collection[str] | None, experiment_ids: Collection[str] | None) -> None:
    if run_ids is not None and experiment_ids is not None:
        message = "give copy runs or experiments, not both."
        raise InvalidInputError(message)


@final
class _Copy:
    """One copy at work."""

    def __init__(
        self, source: End, target: End, limits: Limits, sleep: Callable[[float], None]
    ) -> None:
        self.done = Copied()
        self._source, self._target = source, target
        self._limits, self._sleep = limits, sleep
        self._committer = Committer(target.fs, lake=target.lake)

    def check(
        self, run_ids: Collection[str] | None, experiment_ids: Collection[str] | None
    ) -> None:
        """Refuse what the source has not; nothing is written."""
        if run_ids is not None or experiment_ids is not None:
            self._plan(run_ids, experiment_ids)

    def run(
        self,
        run_ids: Collection[str] | None,
        experiment_ids: Collection[str] | None,
        progress: Callable[[Copied], None],
    ) -> Copied:
        """Copy experiments, their names, and their runs."""
        plan = self._plan(run_ids, experiment_ids)
        reserved = schema.RESERVED_PARTITION
        told = frozenset(plan)
        if run_ids is None and experiment_ids is None:
            told |= self._bring_models()
        self._copy(reserved, told, progress)
        self._claim(plan)
        for experiment_id, wanted in plan.items():
            if experiment_id in self._target.snapshots.take([reserved]).manifest.purged:
                self._note(refused=[experiment_id])
            else:
                self._copy(experiment_id, wanted, progress)
        progress(self.done)
        return self.done

    def _plan(
        self, run_ids: Collection[str] | None, experiment_ids: Collection[str] | None
    ) -> dict[str, frozenset[str] | None]:
        """Return the experiments of the source from which rows go, and which runs of each."""
        snapshot = self._source.snapshots.take()
        known = {segment.name.experiment_id for segment in snapshot.segments}
        known |= {file.experiment_id for of in snapshot.manifest.tables.values() for file in of}
        told = self._again(lambda now: set(namings(self._source.fs, now)))
        found = sorted((known | told) - {schema.RESERVED_PARTITION})
        if experiment_ids is not None:
            self._refuse_unknown("experiment", set(experiment_ids) - set(found))
            return dict.fromkeys(sorted(experiment_ids))
        if run_ids is None:
            return dict.fromkeys(found)
        plan: dict[str, frozenset[str] | None] = {}
        for experiment_id in found:
            work = Passage(self._source, self._target, experiment_id, frozenset(run_ids))
            runs = frozenset(work.runs())
            if runs:
                plan[experiment_id] = runs
        self._refuse_unknown("run", set(run_ids).difference(*filter(None, plan.values())))
        return plan

    def _bring_models(self) -> frozenset[str]:
        """Bring the claims of registered models; return the models whose events may follow."""
        found = models.bring(self._source.fs, self._target.fs)
        self._note(
            problems=[
                f"the registered model {name!r} stayed away: the other lake has another model or "
                "version under a name or number of it"
                for name in found.away
            ]
        )
        return found.came

    def _refuse_unknown(self, what: str, unknown: Collection[str]) -> None:
        if unknown:
            message = (
                f"no {what} {', '.join(sorted(unknown))} in lake {self._source.fs.url}; nothing "
                "was copied."
            )
            raise NotFoundError(message, url=self._source.fs.url)

    def _again(self, ask: Callable[[Snapshot], Any]) -> Any:  # noqa: ANN401 - what `ask` returns
        """Ask a snapshot of what the source says of itself, a newer one where it expires."""
        for _ in range(_TRIES):
            try:
                return ask(self._source.snapshots.take([schema.RESERVED_PARTITION]))
            except FileNotFoundError:  # replaced since it was listed
                continue
        return ask(self._source.snapshots.take([schema.RESERVED_PARTITION]))

    def _copy(
        self,
        experiment_id: str,
        wanted: frozenset[str] | None,
        progress: Callable[[Copied], None],
    ) -> None:
        """Copy one partition."""
        with tempfile.TemporaryDirectory(prefix="runlake-") as folder:
            work = Passage(
                self._source,
                self._target,
                experiment_id,
                wanted,
                limits=self._limits,
                folder=Path(folder),
            )
            before = self.done

            def settled() -> None:
                self.done = _sum(before, work.done)
                progress(self.done)

            commit_all(
                work,
                experiment_id,
                snapshots=self._target.snapshots,
                committer=self._committer,
                settled=settled,
                sleep=self._sleep,
                url=self._target.fs.url,
            )
            settled()

    def _note(self, **more: Collection[str]) -> None:
        """Add to what is reported in lists."""
        listed = {
            name: tuple(dict.fromkeys([*getattr(self.done, name), *texts]))
            for name, texts in more.items()
        }
        self.done = replace(self.done, **listed)  # type: ignore[arg-type]

    def _claim(self, experiment_ids: Collection[str]) -> None:
        """Claim for the experiments that came the names that they go by."""
        said = self._again(lambda now: namings(self._source.fs, now))
        purged = self._target.snapshots.take([schema.RESERVED_PARTITION]).manifest.purged
        for experiment_id in sorted(experiment_ids):
            naming = said.get(experiment_id)
            if naming is None or naming.name is None or experiment_id in purged:
                continue
            if not self._claim_one(experiment_id, naming.name):
                self._note(names=[naming.name])

    def _claim_one(self, experiment_id: str, name: str) -> bool:
        """See to it that a name leads to an experiment; False if it leads to another."""
        source, target = self._source.fs, self._target.fs
        for _ in range(_CLAIM_TRIES):
            ruling = names.read_claim(target, name)
            if ruling is not None:
                if ruling.experiment_id == experiment_id:
                    return True
                if not self._is_free(ruling):
                    return False
            first = names.read_claim(source, name)
            if first is None or first.experiment_id != experiment_id:
                first = _bare_claim(experiment_id, name)
            number = FIRST_CLAIM if ruling is None else ruling.number + 1
            made = replace(first, number=number, nonce=ids.new_nonce())
            if names.make_claim(target, made):
                return True
        return False

    def _is_free(self, ruling: Claim) -> bool:
        """Tell whether the experiment of a claim goes by another name now, or is purged."""
        for _ in range(_TRIES):
            snapshot = self._target.snapshots.take([schema.RESERVED_PARTITION])
            if ruling.experiment_id in snapshot.manifest.purged:
                return True
            try:
                found = namings(self._target.fs, snapshot).get(ruling.experiment_id)
            except FileNotFoundError:
                continue
            return found is not None and found.name != ruling.name
        return False


def _sum(before: Copied, more: Copied) -> Copied:
    """Return what was done in all."""
    found: dict[str, Any] = {}
    for each in fields(Copied):
        one, other = getattr(before, each.name), getattr(more, each.name)
        is_list = isinstance(one, tuple)
        found[each.name] = tuple(dict.fromkeys([*one, *other])) if is_list else one + other
    return Copied(**found)


def _bare_claim(experiment_id: str, name: str) -> Claim:
    """Return a claim for an experiment that got its name by another way."""
    return Claim(
        name=name,
        experiment_id=experiment_id,
        time_us=clock.now_us(),
        user="",
        nonce=ids.new_nonce(),
        tags={},
    )
