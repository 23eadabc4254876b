"""The lake: a folder or bucket prefix, and everything one can do with it.

`Lake` composes storage, writing and queries; it holds no logic of its own beyond when to take
a new snapshot and what to do when a file of the old one is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from runlake import arguments, clock, ids, schema, settings, upkeep
from runlake._lazy import lazy, made_once
from runlake.changes import Changes
from runlake.errors import InvalidInputError, NotFoundError, StorageError
from runlake.storage.engine import open_storage

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from runlake import companions, maintain, pinned, provenance, run, run_plan
    from runlake.artifacts import replacement, sending, store
    from runlake.artifacts.store import Artifacts
    from runlake.maintain import Maintain
    from runlake.pinned import PinnedLake
    from runlake.query import artifacts as stored
    from runlake.query import filelist
    from runlake.query.engine import Query
    from runlake.query.filelist import FileList
    from runlake.registry import book, reading, registry
    from runlake.registry.registry import Registry
    from runlake.run import Run
    from runlake.settings import Settings
    from runlake.storage.filesystem import Filesystem
    from runlake.storage.snapshot import Snapshot
    from runlake.upkeep.copies import copying
    from runlake.upkeep.copies.passage import Copied
    from runlake.writing import values
else:
    # Who only asks would wait longer for these than for the answer.
    book = lazy("runlake.registry.book")
    companions = lazy("runlake.companions")
    copying = lazy("runlake.upkeep.copies.copying")
    filelist = lazy("runlake.query.filelist")
    maintain = lazy("runlake.maintain")
    pinned = lazy("runlake.pinned")
    provenance = lazy("runlake.provenance")
    reading = lazy("runlake.registry.reading")
    registry = lazy("runlake.registry.registry")
    replacement = lazy("runlake.artifacts.replacement")
    run = lazy("runlake.run")
    run_plan = lazy("runlake.run_plan")
    sending = lazy("runlake.artifacts.sending")
    store = lazy("runlake.artifacts.store")
    stored = lazy("runlake.query.artifacts")
    values = lazy("runlake.writing.values")

# Of so many runs that this process began or resumed, the params are remembered.
_RUNS_REMEMBERED: Final = 1000
_NOTE_TAG: Final = "mlflow.note.content"


def open_lake(
    url: str | os.PathLike[str] | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    read_only: bool = False,
    refresh: float | None = None,
) -> Lake:
    """Open a lake; nothing is read before it is needed, and the first writer makes it.

    Args:
        url: any fsspec URL or path; None takes `RUNLAKE_URL`, else `./lake`.
        storage_options: for fsspec; None takes `RUNLAKE_STORAGE_OPTIONS` (JSON).
        read_only: refuse to write, and to open where there is no lake.
        refresh: age in seconds at which a query takes a new snapshot; None means 1 s for a
            local lake, 10 s for a far one.

    Returns:
        The lake.

    Raises:
        InvalidInputError: the scheme is unknown, or the address is a server's.
        MissingDependencyError: the filesystem's package is not installed.
        NotFoundError: `read_only`, and there is no lake.
    """
    resolved, origin = settings.resolve(
        url=None if url is None else arguments.path("url", url),
        storage_options=storage_options,
        refresh_s=refresh,
    )
    lake = Lake(resolved, origin=origin, read_only=read_only)
    if read_only:
        lake._storage.require_lake()  # noqa: SLF001 - the door of its own class
    return lake


class Lake(Changes):
    """Everything of all experiments below one folder or bucket prefix.

    Threads may share a lake. Close it, or use it as a context manager, to wait until all rows
    are in the store; the end of the process does the same.

    Attributes:
        url: where it is, without credentials.
        settings: what it was told.
        origin: where each setting came from.
        artifacts: the files of runs.
        maintain: keeping house.
    """

    def __init__(
        self,
        resolved: Settings,
        *,
        origin: Mapping[str, str] | None = None,
        read_only: bool = False,
        filesystem: Filesystem | None = None,
    ) -> None:
        """Open a lake with settled settings; `runlake.open` settles them.

        Args:
            resolved: every knob.
            origin: where each came from.
            read_only: refuse to write.
            filesystem: in place of what the URL names, see `runlake.testing.open_lake`.
        """
        super().__init__(resolved, read_only=read_only, filesystem=filesystem)
        self.origin = dict(origin or {})
        self._params: dict[str, dict[str, str]] = {}

    def __repr__(self) -> str:
        """Name the lake."""
        return f"<Lake {self.url}>"

    def __enter__(self) -> Self:
        """Return the lake."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @made_once
    def artifacts(self) -> Artifacts:
        """The files of runs."""
        ledger = store.Ledger(
            self._logged_files, self._write, self._note, self._check_place, self._hear
        )
        return store.Artifacts(
            self._storage,
            lambda run_id: self.get_run(run_id).info.experiment_id,
            ledger=ledger,
            parallel=self.settings.parallel_requests,
        )

    @made_once
    def maintain(self) -> Maintain:
        """Keeping house."""
        house = maintain.House(
            self._check_writable, self._experiments.locate, self._bring_own, self._expire
        )
        return maintain.Maintain(self._storage, self._drain, house)

    @made_once
    def registry(self) -> Registry:
        """The model registry: models and versions, their aliases, stages and tags."""
        house = reading.House(
            ask=self._ask,
            get_run=self.get_run,
            artifacts=self.artifacts,
            check_writable=self._check_writable,
            is_read_only=lambda: self._read_only,
            settings=self.settings,
            refresh=self.refresh,
        )
        kept = book.Book(self._naming, self._drain, self.settings.close_timeout_s)
        return registry.Registry(house, kept)

    # Writing.

    def start_run(  # noqa: PLR0913 - one for each thing that a run begins with
        self,
        run_name: str | None = None,
        *,
        experiment: str | None = None,
        experiment_id: str | None = None,
        run_id: str | None = None,
        parent_run_id: str | None = None,
        tags: Mapping[str, object] | None = None,
        description: str | None = None,
        log_system_metrics: bool | None = None,
        log_console: bool | None = None,
    ) -> Run:
        """Begin a run, resume one, or join one that other processes write.

        Args:
            run_name: chosen by a person; None derives one from the id.
            experiment: name of its experiment, made where there is none; else `experiment_id`.
            experiment_id: its experiment by id; neither means `Default`.
            run_id: an existing run to go on with; an unknown id makes the run.
            parent_run_id: the run that it is nested in.
            tags: its first tags.
            description: kept as the tag `mlflow.note.content`.
            log_system_metrics: sample CPU, memory, disk, network and GPUs while it is open;
                None takes the setting `system_metrics`.
            log_console: keep what this process prints meanwhile; None takes the setting
                `console`.

        Returns:
            The run, open for writing.

        Raises:
            InvalidInputError: a name, id or tag is wrong; nothing was written.
            StateError: the lake is read-only, or the experiment is deleted.
        """
        self._check_writable()
        for what, given in (("experiment", experiment), ("experiment_id", experiment_id)):
            if given is not None:
                arguments.text(what, given)
        if experiment is not None and experiment_id is not None:
            message = "give start_run an experiment's name or its id, not both."
            raise InvalidInputError(message)
        if run_name is not None:
            values.text("run", "name", run_name)
        for given in (run_id, parent_run_id):
            if given is not None:
                values.run_id(given)
        experiment_id, name = self._place(experiment, experiment_id, run_id)
        plan = run_plan.RunPlan(
            run_id=run_id or run_plan.new_run_id(),
            experiment_id=experiment_id,
            experiment_name=name,
            run_name=run_name,
            parent_run_id=parent_run_id,
            start_us=clock.now_us(),
            is_joined=run_id is not None,
        )
        first = dict(arguments.mapping("tags", tags))
        if description is not None:
            first[_NOTE_TAG] = description
        begun = run.Run(
            plan,
            self._drain,
            self.artifacts.of_open_run(),
            self.settings,
            read=self.get_run,
            tags=first,
            params=self._params_of(plan.run_id),
        )
        companions.begin(
            begun, self.settings, log_system_metrics=log_system_metrics, log_console=log_console
        )
        return begun

    # Asking; the rest is in `Questions`.

    def at(self, snapshot: Snapshot | None = None) -> PinnedLake:
        """Pin a snapshot: several questions get answers that agree, whatever is logged since.

        Args:
            snapshot: of this lake, as `lake.snapshot` returns it; None: what the next answer
                would come from.

        Returns:
            The lake as it was then. It only answers; close it, or use it in a `with` block.

        Raises:
            InvalidInputError: it is a snapshot of another lake.
            SnapshotExpiredError: the snapshot is old, and an object of it is gone.
            StorageError: the store cannot be read, or the cache cannot be written.

        Example:
            >>> lake = open_lake("memory://pinned")
            >>> with lake.at() as then:
            ...     lake.start_run().finish()
            ...     then.search_runs().height, lake.search_runs().height
            (0, 1)
        """
        self._check_fork()
        _check_snapshot(snapshot)
        with self._snapshot_lock:
            is_last = snapshot is not None and snapshot is self._snapshot
            last = self._query if is_last else None
        if last is not None:
            return self._pin(last)
        if snapshot is None:
            return self._ask(self._pin)
        tables, held = self._storage.read_pinned(snapshot)
        return pinned.PinnedLake(
            self._storage, self.settings, snapshot=snapshot, tables=tables, pinned=held
        )

    def _pin(self, query: Query) -> PinnedLake:
        tables, held = self._storage.pin(query.tables)
        with self._snapshot_lock:
            snapshot = self._snapshot if self._query is query else None
        return pinned.PinnedLake(
            self._storage,
            self.settings,
            snapshot=snapshot,
            tables=tables,
            pinned=held,
            folded=query.folded,
        )

    def files(self, table: str, snapshot: Snapshot | None = None) -> FileList:
        """List the Parquet files that hold a table, for Spark, Dask, Ray, Trino and others.

        The list tells which rows of the files count, see `FileList`; with it another engine
        gives the answers that `sql` gives. Compacted files stay at least for the grace of
        vacuum, segments of open writers for a minute: where one is gone, list again.

        Args:
            table: `metrics` or `events`; every other view is folded from several.
            snapshot: of this lake, as `lake.snapshot` returns it; None takes a new one, with
                all that this process has logged.

        Returns:
            The files. Nothing is asked of the store but what the snapshot takes.

        Raises:
            InvalidInputError: there is no such table, or it is a snapshot of another lake.
            NotFoundError: the lake is read-only, and nothing is there.
            StorageError: the store cannot be read.

        Example:
            >>> lake = open_lake("memory://listed")
            >>> with lake.start_run() as run:
            ...     run.log({"loss": 0.5})
            >>> [file.is_segment for file in lake.files("metrics")]
            [True]
        """
        filelist.check_table(table)
        _check_snapshot(snapshot)
        if snapshot is None:
            self._check_fork()
            with self._snapshot_lock:
                self._bring_own()
                self._rows_seen = -1  # no answer has seen them yet
            try:
                snapshot = self._storage.snapshot()
            except NotFoundError:
                if self._read_only or self._storage.holds_others():
                    raise
                return filelist.FileList(table, None)
        elif snapshot.manifest.lake != self._storage.require_lake():
            raise InvalidInputError(f"this is a snapshot of another lake, not of {self.url}.")
        return filelist.list_files(self._storage.fs, table, snapshot)

    def copy_to(
        self,
        url: str | os.PathLike[str],
        *,
        run_ids: Sequence[str] | None = None,
        experiments: Sequence[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        alone: bool = False,
        progress: Callable[[Copied], None] | None = None,
    ) -> Copied:
        """Bring runs with their artifacts into another lake, on any store.

        Both lakes may be in use meanwhile. What is there already is left out, what has grown is
        brought up to date, so that the same call goes on where it was ended, and may be made
        again every night. Runs keep their ids. Of a whole lake the registered models come too;
        one that both lakes made stays as it is there, and is named.

        Args:
            url: the other lake, made where there is none.
            run_ids: only these runs, by their full ids.
            experiments: only the runs of these, by name or id. Neither: everything.
            storage_options: of the other lake, for fsspec; None takes
                `RUNLAKE_STORAGE_OPTIONS`.
            alone: nobody else compacts the other lake meanwhile. Only needed on a store that
                cannot create an object only where there is none.
            progress: called with what was done so far.

        Returns:
            What was done; and what stayed away, with the reason.

        Raises:
            NotFoundError: there is no lake here, or no such run or experiment.
            InvalidInputError: the address is wrong, or runs and experiments were given.
            MissingDependencyError: the filesystem's package is not installed.
            StateError: both are one lake, or the other place holds other things.
            ConflictError: others changed the other lake first, time and again.
            StorageError: a store cannot be read or written.
            FormatError: a file is damaged, another lake's, or newer.
        """
        options = {} if storage_options is None else {"storage_options": storage_options}
        resolved, _ = settings.resolve(url=arguments.path("url", url), **options)
        named = arguments.several("experiments", experiments)
        if run_ids is not None:
            run_ids = arguments.texts("run_ids", run_ids)
        self._bring_own()
        wanted = None if experiments is None else [*map(self._experiments.locate, named)]
        return copying.copy_lake(
            self._storage,
            open_storage(resolved),
            run_ids=run_ids,
            experiment_ids=wanted,
            is_alone=alone,
            progress=arguments.callback("progress", progress) or (lambda _: None),
        )

    def close(self) -> None:
        """Bring all rows to the store and let go; bounded by the setting `close_timeout_s`.

        What could not be sent stays in the journal, is said, and goes out at the next opening.
        The lake may be used again after.
        """
        if self._has_written:
            provenance.settle(self.settings.close_timeout_s)
            self._drain.close(self.settings.close_timeout_s)
        self._forget()

    # Inside.

    def _place(
        self, experiment: str | None, experiment_id: str | None, run_id: str | None
    ) -> tuple[str, str]:
        """Return the id and name of the experiment that a run goes to."""
        if experiment is None and experiment_id is None and run_id is not None:
            known = self._known_place(run_id)
            if known is not None:
                return known
        if experiment_id is not None:
            return experiment_id, self._experiments.name_of(experiment_id)
        name = experiment or self.settings.experiment
        if name is None:
            return ids.DEFAULT_EXPERIMENT_ID, ids.DEFAULT_EXPERIMENT_NAME
        return self._experiments.resolve_once(name), name

    def _known_place(self, run_id: str) -> tuple[str, str] | None:
        """Look an existing run up, so that it goes on where it began, with the same params."""
        try:
            record = self.get_run(run_id)
        except (NotFoundError, StorageError):
            return None
        self._params_of(run_id).update(record.data.params)
        return record.info.experiment_id, self._experiments.name_of(record.info.experiment_id)

    def _params_of(self, run_id: str) -> dict[str, str]:
        """Return the params known of a run, which another value of one is held against."""
        self._params[run_id] = params = self._params.pop(run_id, {})
        while len(self._params) > _RUNS_REMEMBERED:
            del self._params[next(iter(self._params))]
        return params

    def _logged_files(self, run_id: str) -> dict[str, sending.Logged]:
        found = self._ask(lambda query: stored.logged_files(query, run_id))
        return {path: sending.Logged(size, sha256, at_us) for path, size, sha256, at_us in found}

    def _hear(self, run_id: str, path: str) -> replacement.Heard:
        """Read the log anew: what it says of a path of a run."""
        self.refresh()
        digests = self._ask(lambda query: stored.logged_digests(query, run_id, path))
        info = self.get_run(run_id).info
        is_open = info.status == schema.RUNNING and not info.is_stale
        return replacement.Heard(frozenset(digests), digests[0] if digests else "", is_open)

    def _take(self) -> Query:
        """Take a snapshot; whoever may write has experiments compacted that are long overdue."""
        query = super()._take()
        seen = self._snapshot
        if seen is not None and len(seen.segments) > upkeep.SEEN_SEGMENTS and not self._read_only:
            self._drain.saw(seen)
        return query


def _check_snapshot(given: object) -> None:
    if given is not None and not hasattr(given, "manifest"):
        message = f"a snapshot is what lake.snapshot returns, got {arguments.kind(given)}."
        raise InvalidInputError(message)
