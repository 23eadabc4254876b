"""What can be changed in a lake, and how what was changed comes to its store.

What brings rows there is made at the first change: who only asks, as most commands do, would
wait longer for it to load than for the answer.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import TYPE_CHECKING

from runlake import arguments, schema
from runlake._lazy import lazy, made_once
from runlake.errors import NotFoundError, RunlakeWarning, StateError, StorageError
from runlake.query.engine import Query
from runlake.query.entities import find_experiment
from runlake.questions import Questions
from runlake.storage.engine import open_storage
from runlake.writing.drains import drains_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runlake import experiments, provenance
    from runlake.experiments import Experiments
    from runlake.query.entities import Experiment
    from runlake.settings import Settings
    from runlake.storage.engine import Storage
    from runlake.storage.filesystem import Filesystem
    from runlake.writing import disabled, drain, values
    from runlake.writing.drain import Drain
    from runlake.writing.events import Row
else:
    disabled = lazy("runlake.writing.disabled")
    drain = lazy("runlake.writing.drain")
    experiments = lazy("runlake.experiments")
    provenance = lazy("runlake.provenance")
    values = lazy("runlake.writing.values")


class Changes(Questions):
    """The writing half of a lake. Threads may share it.

    Attributes:
        url: where it is, without credentials.
    """

    def __init__(
        self,
        resolved: Settings,
        *,
        read_only: bool,
        filesystem: Filesystem | None,
    ) -> None:
        """Nothing is written before the first change."""
        super().__init__(open_storage(resolved, filesystem), resolved, read_only=read_only)
        self.url = self._storage.url
        self._filesystem = filesystem
        self._rows_seen = 0

    def create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        *,
        tags: Mapping[str, object] | None = None,
    ) -> str:
        """Make an experiment and return its id; it is in the store when this returns.

        Args:
            name: 1 to 500 printable characters.
            artifact_location: where its artifacts lie if not in the lake.
            tags: its first tags.

        Returns:
            Its id.

        Raises:
            AlreadyExistsError: the name is taken.
            InvalidInputError: the name or a tag is wrong.
            StateError: the lake is read-only.
            StorageError: the store refused.
        """
        self._check_writable()
        return self._experiments.create(name, artifact_location, tags=tags)

    def rename_experiment(self, experiment_id: str, name: str) -> None:
        """Give an experiment another name; the old one becomes free.

        Args:
            experiment_id: the experiment.
            name: the new name.

        Raises:
            NotFoundError: there is no such experiment.
            AlreadyExistsError: the name is taken.
            StorageError: the store refused.
        """
        self._check_writable()
        self._experiments.rename(experiment_id, name)

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, object]) -> None:
        """Set tags of an experiment; they are in the store when this returns.

        Args:
            experiment_id: the experiment.
            tags: values by key.

        Raises:
            NotFoundError: there is no such experiment.
            InvalidInputError: a tag is wrong; none is set.
            StorageError: the store refused.
        """
        self._check_writable()
        self._experiments.set_tags(experiment_id, tags)

    def delete_experiment(self, experiment_id: str) -> None:
        """Hide an experiment and keep everything in it; `restore_experiment` shows it again.

        Args:
            experiment_id: the experiment.

        Raises:
            NotFoundError: there is no such experiment.
            StorageError: the store refused.
        """
        self._check_writable()
        self._experiments.delete(experiment_id)

    def restore_experiment(self, experiment_id: str) -> None:
        """Show a deleted experiment again; runs deleted one by one stay deleted.

        Args:
            experiment_id: the experiment.

        Raises:
            NotFoundError: there is no such experiment.
            StorageError: the store refused.
        """
        self._check_writable()
        self._experiments.restore(experiment_id)

    def delete_run(self, run_id: str) -> None:
        """Hide a run and keep everything in it; in the store when this returns.

        Args:
            run_id: the run.

        Raises:
            NotFoundError: there is no such run.
            StorageError: the store refused.
        """
        self._mark(run_id, schema.DELETE)

    def restore_run(self, run_id: str) -> None:
        """Show a deleted run again; in the store when this returns.

        Args:
            run_id: the run.

        Raises:
            NotFoundError: there is no such run.
            StorageError: the store refused.
        """
        self._mark(run_id, schema.RESTORE)

    def flush(self, timeout_s: float | None = None) -> None:
        """Return when every row that this process logged before is in the store.

        Args:
            timeout_s: seconds to wait; None takes the setting `close_timeout_s`.

        Raises:
            StorageError: the store refused or did not answer; the rows stay in the journal.
        """
        limit_s = arguments.seconds("timeout_s", timeout_s)
        limit_s = self.settings.close_timeout_s if limit_s is None else limit_s
        if self._has_written:
            provenance.settle(limit_s)
            self._drain.flush(limit_s)

    # Inside.

    @made_once
    def _drain(self) -> Drain:
        """What brings rows to the store."""
        kind = disabled.DisabledDrain if self.settings.is_disabled else drain.Drain
        return kind(self._storage, self.settings)

    @property
    def _has_written(self) -> bool:
        """Whether rows may have been logged through this object."""
        return "_drain" in vars(self)

    @made_once
    def _naming(self) -> Storage:
        """The same store, for what must not wait long: claims of names."""
        hasty = dataclasses.replace(self.settings, request_timeout_s=self.settings.name_timeout_s)
        return open_storage(hasty, self._filesystem)

    @made_once
    def _experiments(self) -> Experiments:
        """What makes and finds experiments."""
        return experiments.Experiments(
            self._naming, self._drain, self._find_experiment, self.settings.close_timeout_s
        )

    def _check_writable(self) -> None:
        if self._read_only:
            message = f"the lake {self.url} was opened read-only."
            raise StateError(message, url=self.url)

    def _mark(self, run_id: str, kind: str) -> None:
        self._check_writable()
        info = self.get_run(run_id).info
        self._write(info.experiment_id, [(run_id, kind, "", None, None)])

    def _write(self, experiment_id: str, rows: list[Row]) -> None:
        """Log rows of runs that may have ended; they are in the store when this returns."""
        self._note(experiment_id, rows)
        self.flush()

    def _check_place(self, experiment_id: str, run_id: str) -> None:
        self._check_writable()
        self._experiments.name_of(experiment_id)
        values.run_id(run_id)

    def _note(self, experiment_id: str, rows: list[Row]) -> None:
        """Log rows of runs that may have ended; they are in the journal when this returns."""
        self._check_writable()
        name = self._experiments.name_of(experiment_id)
        while not self._drain.writer(experiment_id, name).journal.events(rows):
            pass

    def _find_experiment(self, experiment_id: str) -> Experiment | None:
        """Read one experiment from what the store holds now.

        Its own partition is read only where the reserved one does not tell of its creation: of
        a busy experiment that would be hundreds of requests for each process that starts.
        """
        try:
            _, tables = self._naming.read([schema.RESERVED_PARTITION])
            said = experiments.read_said(tables, experiment_id)
            if said is None or not said.is_created:
                _, tables = self._naming.read([schema.RESERVED_PARTITION, experiment_id])
        except NotFoundError:
            return None
        query = Query(tables)
        try:
            return find_experiment(query, experiment_id)
        finally:
            query.close()

    def _expire(self) -> None:
        """Have the next question take a new snapshot, and the next run look its name up."""
        self._taken_s = -math.inf
        if "_experiments" in vars(self):
            self._experiments.forget()

    def _bring_own(self) -> bool:
        """Bring to the store what this process logged through any object of this lake."""
        drains = drains_of(self.url)
        written = sum(each.rows_logged for each in drains)
        for each in drains:
            if each.pending:
                try:
                    each.flush(self.settings.close_timeout_s)
                except StorageError as error:
                    message = f"the answer lacks own rows: {error}"
                    warnings.warn(message, RunlakeWarning, stacklevel=5)
        changed = written != self._rows_seen
        self._rows_seen = written
        return changed
