"""The experiments of a lake that the runs of a source go to; made where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from runlake import ids, schema
from runlake.errors import AlreadyExistsError
from runlake.importers.source import Note
from runlake.lake_parts import experiments_of

if TYPE_CHECKING:
    from runlake.importers.report import Report
    from runlake.importers.source import SourceExperiment
    from runlake.lake import Lake

EXPERIMENT_TAG: Final = "import.experiment_id"


@final
class Homes:
    """Experiments by name, each looked for once."""

    def __init__(self, lake: Lake, report: Report) -> None:
        """Look for nothing yet.

        Args:
            lake: where they are.
            report: takes which were met.
        """
        self._lake, self._report = lake, report
        self._known: dict[str, str] = {}

    def of(self, experiment: SourceExperiment) -> str:
        """Return the id of an experiment in the lake; make it where there is none.

        Args:
            experiment: as the source has it.

        Raises:
            InvalidInputError: its name or a tag is none.
            StorageError: the store refused.
        """
        name = experiment.name
        if name in self._known:
            return self._known[name]
        there = experiments_of(self._lake).find_by_name(name)
        if there is not None:
            found = there.experiment_id
        elif name == ids.DEFAULT_EXPERIMENT_NAME:
            found = ids.DEFAULT_EXPERIMENT_ID
        else:
            found = self._make(experiment)
        self._known[name] = found
        if name not in self._report.experiments:
            self._report.experiments.append(name)
        return found

    def delete(self, experiment: SourceExperiment) -> None:
        """Delete an experiment that was deleted in the tracker, unless it is already.

        Args:
            experiment: as the source has it.
        """
        self._lake.flush()
        experiment_id = self.of(experiment)
        found = experiments_of(self._lake).find(experiment_id)
        if found is None or found.lifecycle_stage != schema.DELETED:
            self._lake.delete_experiment(experiment_id)

    def _make(self, experiment: SourceExperiment) -> str:
        tags = dict(experiment.tags)
        if experiment.source_id is not None:
            tags.setdefault(EXPERIMENT_TAG, experiment.source_id)
        if experiment.artifact_location is not None:
            where = f"{experiment.name}: {experiment.artifact_location}"
            note = Note("artifact location of an experiment: its files lie in the lake now", where)
            self._report.lose("", [note])
        experiments = experiments_of(self._lake)
        try:
            return experiments.create(
                experiment.name, None, tags=tags, time_us=experiment.created_us
            )
        except AlreadyExistsError:
            made = experiments.find_by_name(experiment.name)
            if made is None:
                raise
            return made.experiment_id  # somebody else made it just now
