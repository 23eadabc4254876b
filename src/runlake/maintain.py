"""Keeping house: what is rarely needed, and then badly.

Compaction and vacuum go on by themselves; these calls are for who wants them now, of all
experiments, or on a machine of their own.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runlake import arguments
from runlake._lazy import lazy
from runlake.errors import ConflictError, InvalidInputError
from runlake.upkeep import GRACE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runlake.storage.engine import Storage
    from runlake.upkeep import compact, delta, purge, tending, vacuum, work
    from runlake.upkeep.checks import repair as repairing
    from runlake.upkeep.checks import verify
    from runlake.upkeep.checks.findings import Checked, Report
    from runlake.upkeep.delta import Published
    from runlake.upkeep.purge import Purged
    from runlake.upkeep.tending import Compaction
    from runlake.upkeep.vacuum import Vacuumed
    from runlake.upkeep.work import Compacted
    from runlake.writing import recover
    from runlake.writing.drain import Drain
    from runlake.writing.recover import Recovered
else:
    compact = lazy("runlake.upkeep.compact")
    delta = lazy("runlake.upkeep.delta")
    purge = lazy("runlake.upkeep.purge")
    repairing = lazy("runlake.upkeep.checks.repair")
    recover = lazy("runlake.writing.recover")
    tending = lazy("runlake.upkeep.tending")
    vacuum = lazy("runlake.upkeep.vacuum")
    verify = lazy("runlake.upkeep.checks.verify")
    work = lazy("runlake.upkeep.work")


def _ignore(_: object) -> None:
    """Tell nobody how far it is."""


@dataclass(frozen=True, slots=True)
class House:
    """What keeping house needs to know of its lake.

    Attributes:
        check_writable: raises if the lake is read-only.
        locate: returns the id of an experiment, given its name or id.
        bring_own: brings to the store what this process has logged.
        expire: has the next question take a new snapshot.
    """

    check_writable: Callable[[], None]
    locate: Callable[[str], str]
    bring_own: Callable[[], object]
    expire: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Maintain:
    """`lake.maintain`: compact, vacuum, verify, recover, purge, publish."""

    _storage: Storage
    _drain: Drain
    _house: House

    def compact(
        self,
        experiment: str | None = None,
        *,
        shard: str | tuple[int, int] | None = None,
        full: bool = False,
        alone: bool = False,
        progress: Callable[[Compacted], None] | None = None,
    ) -> Compaction:
        """Turn many small segments into few large files, and take away what they replace.

        Nothing that is asked changes its answer. Any number may do this at once, beside
        writers and readers, and it may be ended at any instant; what was committed stays done.
        The segments that were replaced go when they have been so for an hour.

        Args:
            experiment: name or id; None for all, one after another.
            shard: `i/n`, or (i, n), i from 1: only the i-th of n parts of the experiments, so
                that n machines share the work.
            full: merge also files that are not due yet: the smallest and fastest lake.
            alone: nobody else compacts this lake meanwhile. Only needed on a store that cannot
                create an object only where there is none.
            progress: called with what was done so far of an experiment, after each commit.

        Returns:
            What was done of each experiment. One that others compacted at the same time, again
            and again, is named in its problems.

        Raises:
            NotFoundError: there is no lake, or no such experiment.
            InvalidInputError: there is no such shard, or an experiment was given as well.
            StateError: the lake is read-only, or its store needs `alone`.
            StorageError: the store cannot be read or written.
            FormatError: a file is damaged, another lake's, newer, or missing.
        """
        self._house.check_writable()
        self._house.bring_own()
        lake = self._storage.require_lake()
        compactor = compact.Compactor(
            self._storage.fs,
            lake=lake,
            limits=work.Limits(is_full=full),
            is_alone=alone,
            progress=arguments.callback("progress", progress) or _ignore,
        )
        if experiment is None:
            wanted = compactor.experiments(shard=_shard(shard))
        elif shard is None:
            wanted = [self._house.locate(experiment)]
        else:
            raise InvalidInputError("give compact an experiment or a shard, not both.")
        done = []
        for each in wanted:
            try:
                done.append(tending.tend(self._storage.fs, compactor, each, lake=lake))
            except ConflictError as error:
                lost = work.Compacted(each, problems=(str(error),))
                done.append(tending.Tended(lost, None))
        return tending.Compaction(tuple(done))

    def vacuum(
        self, *, dry_run: bool = True, experiment: str | None = None, grace_s: float = GRACE_S
    ) -> Vacuumed:
        """Delete what compaction has replaced, or say what would go.

        Every compaction does this for its experiment; there is rarely a reason to do it by
        hand. No row is ever lost by it. What was published is published anew first.

        Args:
            dry_run: delete nothing.
            experiment: name or id; None for all.
            grace_s: seconds of the store's clock for which replaced objects stay, so that
                whoever reads them can end. With 0, an answer that is under way is begun again,
                and a pinned snapshot may end.

        Returns:
            What went, or would go, and its bytes.

        Raises:
            NotFoundError: there is no lake, or no such experiment.
            InvalidInputError: the grace is negative.
            StateError: the lake is read-only, and this is no dry run.
            StorageError: the store cannot be read or written.
            FormatError: a file that the lake needs is missing, or the log of what was
                published is damaged. Nothing was deleted.
        """
        if not dry_run:
            self._house.check_writable()
        arguments.seconds("grace_s", grace_s, is_needed=True)
        lake = self._storage.require_lake()
        if not dry_run:
            with suppress(ConflictError):  # whoever published first has said it as well
                delta.republish(self._storage.fs, lake=lake)
        return vacuum.vacuum(
            self._storage.fs,
            lake=lake,
            experiment_id=None if experiment is None else self._house.locate(experiment),
            grace_s=grace_s,
            is_dry_run=dry_run,
        )

    def verify(
        self,
        *,
        artifacts: bool = False,
        repair: bool = False,
        progress: Callable[[Checked], None] | None = None,
    ) -> Report:
        """Check every file of the lake against the specification.

        Args:
            artifacts: read every artifact too, and compare its SHA-256; else only sizes.
            repair: mend what can be mended: rebuild a lost manifest from the files that it
                named, and set broken files aside, below `quarantine/`. Rows that are then in
                no file are named by a `DataLossWarning`.
            progress: called after each file.

        Returns:
            What was checked and found, file by file; with `repair`, what is wrong still, and
            what was done.

        Raises:
            StateError: `repair`, and the lake is read-only.
            StorageError: the store cannot be read or written.
        """
        if repair:
            self._house.check_writable()
        check = repairing.repair if repair else verify.verify
        return check(
            self._storage.fs,
            artifacts=artifacts,
            progress=arguments.callback("progress", progress) or _ignore,
        )

    def recover(self, *, force: bool = False) -> list[Recovered]:
        """Bring into the lake what dead processes of this host left in their journals.

        Twice or at once is the same as once.

        Args:
            force: take also journals of other hosts, whose processes must be dead.

        Returns:
            One entry for each journal that no living process owns.

        Raises:
            StateError: the lake is read-only.
            StorageError: the store refused; the journals stay.
        """
        self._house.check_writable()
        root = self._drain.place.root
        try:
            return [] if root is None else list(recover.each(self._storage, root, force=force))
        finally:
            self._house.expire()

    def purge(
        self,
        run_ids: str | Sequence[str] | None = None,
        *,
        experiment: str | None = None,
        alone: bool = False,
        progress: Callable[[Purged], None] | None = None,
    ) -> Purged:
        """Remove runs, or an experiment with all its runs, for ever: rows, states, artifacts.

        Unlike `Lake.delete_run`, which hides, this cannot be undone. The runs are gone from
        every answer at once, and rows of them that arrive later stay out. Ended at any instant
        it has done no harm, and the same call finishes it.

        Args:
            run_ids: the runs, by their full ids.
            experiment: name or id of the experiment, in place of runs.
            alone: as for `compact`.
            progress: called with what was done so far.

        Returns:
            What was removed, and in `left` what could not be reached, and why: writers that
            still log to such a run, artifacts outside the lake, and the like.

        Raises:
            NotFoundError: there is no lake, or no such run or experiment; nothing was done.
            InvalidInputError: neither runs nor an experiment were given, or both.
            StateError: the lake is read-only, or its store needs `alone`.
            ConflictError: others were first, time and again; what is hidden stays hidden.
            StorageError: the store cannot be read or written.
            FormatError: a file is damaged, another lake's, newer, or missing.
        """
        self._house.check_writable()
        if (run_ids is None) == (experiment is None):
            raise InvalidInputError("give purge the ids of runs, or an experiment.")
        self._house.bring_own()
        lake = self._storage.require_lake()
        tell = arguments.callback("progress", progress) or _ignore
        fs = self._storage.fs
        try:
            if experiment is not None:
                gone = self._house.locate(experiment)
                found = purge.purge_experiment(
                    fs, lake=lake, experiment_id=gone, is_alone=alone, progress=tell
                )
            else:
                wanted = (
                    [run_ids] if isinstance(run_ids, str) else arguments.texts("run_ids", run_ids)
                )
                found = purge.purge(fs, lake=lake, run_ids=wanted, is_alone=alone, progress=tell)
        finally:
            self._house.expire()
        if delta.republish(fs, lake=lake):
            left = tuple(each for each in found.left if each.kind != "projection")
            found = dataclasses.replace(found, left=left)
        return found

    def publish(
        self,
        *,
        format: str = "delta",  # noqa: A002 - as `Lake.export` calls it
        tables: Sequence[str] | None = None,
    ) -> list[Published]:
        """Let engines that know Delta Lake read the compacted tables; no row is copied.

        It writes the log of a Delta table beside each table's files. Compaction keeps it up to
        date from then on. What is not compacted yet is not in it: compact first.

        Args:
            format: `delta`; there is no other.
            tables: which, as `metrics`; None for all.

        Returns:
            What stands now, by table.

        Raises:
            NotFoundError: there is no lake.
            InvalidInputError: there is no such format or table.
            StateError: the lake is read-only, or its store cannot create conditionally.
            ConflictError: others published first, time and again.
            StorageError: the store cannot be read or written.
            FormatError: a manifest or a log is damaged, or another's.
        """
        self._house.check_writable()
        if arguments.text("format", format) != "delta":
            raise InvalidInputError(f"there is one format, 'delta', got {format!r}.")
        wanted = None if tables is None else arguments.texts("tables", tables)
        return delta.publish(self._storage.fs, lake=self._storage.require_lake(), tables=wanted)


def _shard(given: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """Read `i/n`."""
    if given is None:
        return None
    try:
        number, count = given.split("/") if isinstance(given, str) else given
        return int(number), int(count)
    except (TypeError, ValueError) as error:
        message = f"{given!r} is no shard; write i/n with i from 1 to n, as 1/4."
        raise InvalidInputError(message) from error
