"""Experiments as MLflow's clients see them.

The experiment `0` is always there, also in a lake that nobody has written to. Ids are texts, not
numbers: they follow from names, so that hosts agree on them without asking.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from mlflow.entities import Experiment, ExperimentTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    INVALID_STATE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
)
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT, SEARCH_MAX_RESULTS_THRESHOLD
from mlflow.utils.search_utils import SearchExperimentsUtils, SearchUtils
from mlflow.utils.uri import append_to_uri_path, resolve_uri_if_local
from mlflow.utils.validation import (
    _validate_experiment_artifact_location_length,
    _validate_experiment_name,
    _validate_experiment_tag,
)

from runlake import clock, ids, schema
from runlake.errors import AlreadyExistsError
from runlake.lake_parts import experiments_of, rows_of
from runlake.mlflow_plugin import uris
from runlake.mlflow_plugin.base import LakeStore
from runlake.mlflow_plugin.errors import translated
from runlake.mlflow_plugin.known import known_runs
from runlake.query.entities import all_experiments
from runlake.questions import ask

if TYPE_CHECKING:
    from runlake.query import entities
    from runlake.query.engine import Query
    from runlake.writing.events import Row

# Given an experiment and a run, returns where the run's artifacts lie.
Locate: TypeAlias = Callable[[str, str], str]

_DEFAULT_ORDER: Final = ["creation_time DESC", "experiment_id ASC"]
# So long an experiment is taken for what it was, seconds.
_TRUSTED_S: Final = 1.0
# What MLflow's server gives as the root of artifacts where nobody chose one.
_UNCHOSEN_ROOTS: Final = frozenset({"./mlruns", "mlruns", "./mlartifacts"})
PROXIED: Final = "mlflow-artifacts:"


class _Kept(NamedTuple):
    """An experiment, and when it was read."""

    read_s: float
    experiment: Experiment


class ExperimentStore(LakeStore):
    """What MLflow calls of a tracking store about experiments."""

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        """Read nothing yet.

        Args:
            store_uri: of the lake, as MLflow has it.
            artifact_uri: where experiments keep artifacts; None: in the lake.
        """
        self._kept_experiments: dict[str, _Kept] = {}
        self._experiments_lock = threading.Lock()
        self._opened_ms = clock.now_us() // 1000
        super().__init__(store_uri, artifact_uri)

    @translated
    def search_experiments(  # noqa: PLR0917 - MLflow's
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        filter_string: str | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """Return a page of the experiments that match.

        Args:
            view_type: one of MLflow's `ViewType`.
            max_results: greatest number of experiments.
            filter_string: MLflow's, over name, times and tags.
            order_by: attributes with ASC or DESC; None: the newest first.
            page_token: of the page before.

        Raises:
            MlflowException: an argument is wrong.
        """
        check_max_results(max_results)
        stages = _stages(view_type)
        found = [each for each in self._all_experiments() if each.lifecycle_stage in stages]
        found = SearchExperimentsUtils.filter(found, filter_string)
        found = SearchExperimentsUtils.sort(found, order_by or _DEFAULT_ORDER)
        offset = SearchUtils.parse_start_offset_from_page_token(page_token)
        end = offset + max_results
        token = SearchExperimentsUtils.create_page_token(end) if end < len(found) else None
        return PagedList(found[offset:end], token)

    @translated
    def create_experiment(
        self,
        name: str,
        artifact_location: str | None = None,
        tags: Sequence[ExperimentTag] | None = None,
    ) -> str:
        """Make an experiment and return its id.

        Args:
            name: 1 to 250 printable characters.
            artifact_location: where its artifacts lie; None: in the lake.
            tags: its first tags.

        Returns:
            Its id; it is in the store.

        Raises:
            MlflowException: the name is taken, also by a deleted experiment, or an argument is
                wrong.
        """
        _validate_experiment_name(name)
        if artifact_location:
            artifact_location = resolve_uri_if_local(artifact_location)
            _validate_experiment_artifact_location_length(artifact_location)
        for tag in tags or ():
            _validate_experiment_tag(tag.key, tag.value)
        if (
            name == ids.DEFAULT_EXPERIMENT_NAME
            and self._seek_experiment(ids.DEFAULT_EXPERIMENT_ID) is None
        ):
            raise _is_taken(name)
        texts = {tag.key: tag.value for tag in tags or ()}
        try:
            return self.lake.create_experiment(name, artifact_location or None, tags=texts)
        except AlreadyExistsError as error:
            raise _is_taken(name) from error

    @translated
    def get_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment, deleted or not.

        Args:
            experiment_id: the experiment.

        Raises:
            MlflowException: there is none.
        """
        return self._read_experiment(experiment_id)

    @translated
    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """Return the experiment of a name, deleted or not; None where there is none.

        Args:
            experiment_name: the name.
        """
        found = experiments_of(self.lake).find_by_name(experiment_name)
        if found is None:
            is_default = experiment_name == ids.DEFAULT_EXPERIMENT_NAME
            if is_default and self._seek_experiment(ids.DEFAULT_EXPERIMENT_ID) is None:
                return self._default_experiment(())
            return None
        return self._keep_experiment(self._experiment_entity(found))

    @translated
    def delete_experiment(self, experiment_id: str) -> None:
        """Hide an experiment and its runs.

        Args:
            experiment_id: the experiment.

        Raises:
            MlflowException: there is none, or it is deleted already.
        """
        experiment = self._staged_experiment(experiment_id, schema.ACTIVE)
        self._ensure_default(experiment)
        self.lake.delete_experiment(experiment.experiment_id)
        self._forget_experiment(experiment.experiment_id)

    @translated
    def restore_experiment(self, experiment_id: str) -> None:
        """Show an experiment and all of its runs again, those deleted one by one too.

        Args:
            experiment_id: the experiment.

        Raises:
            MlflowException: there is no deleted one.
        """
        experiment = self._staged_experiment(experiment_id, schema.DELETED)
        home = experiment.experiment_id
        hidden = ask(self.lake, lambda query: _deleted_runs(query, home))
        if hidden:
            rows: list[Row] = [(run_id, schema.RESTORE, "", None, None) for run_id in hidden]
            rows_of(self.lake, hidden[0], experiment_id=home, experiment_name=experiment.name).log(
                rows
            )
        self.lake.restore_experiment(home)
        self._forget_experiment(home)

    @translated
    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Give an experiment another name.

        Args:
            experiment_id: the experiment.
            new_name: 1 to 250 printable characters.

        Raises:
            MlflowException: there is none, it is deleted, or the name is taken.
        """
        _validate_experiment_name(new_name)
        experiment = self._read_experiment(experiment_id)
        if experiment.lifecycle_stage != schema.ACTIVE:
            raise MlflowException("Cannot rename a non-active experiment.", INVALID_STATE)
        self._ensure_default(experiment)
        try:
            self.lake.rename_experiment(experiment.experiment_id, new_name)
        except AlreadyExistsError as error:
            raise _is_taken(new_name) from error
        self._forget_experiment(experiment.experiment_id)

    @translated
    def set_experiment_tag(self, experiment_id: str, tag: ExperimentTag) -> None:
        """Set a tag of an experiment.

        Args:
            experiment_id: the experiment.
            tag: key and text.

        Raises:
            MlflowException: there is no such active experiment, or the tag is wrong.
        """
        _validate_experiment_tag(tag.key, tag.value)
        experiment = self._active_experiment(experiment_id)
        self._ensure_default(experiment)
        self.lake.set_experiment_tags(experiment.experiment_id, {tag.key: tag.value})
        self._forget_experiment(experiment.experiment_id)

    @translated
    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Take a tag of an experiment away.

        Args:
            experiment_id: the experiment.
            key: of the tag.

        Raises:
            MlflowException: there is no such active experiment, or it has no such tag.
        """
        experiment = self._read_experiment(experiment_id)
        _check_active(experiment)
        if key not in experiment.tags:
            message = f"No tag with name: {key} in experiment with id {experiment_id}"
            raise MlflowException(message, RESOURCE_DOES_NOT_EXIST)
        experiments_of(self.lake).untag(experiment.experiment_id, key)
        self._forget_experiment(experiment.experiment_id)

    @translated
    def _hard_delete_experiment(self, experiment_id: str) -> None:
        """Take every byte of a deleted experiment and its runs out of the lake, for `mlflow gc`."""
        experiment = self._staged_experiment(experiment_id, schema.DELETED)
        self.lake.maintain.purge(experiment=experiment.experiment_id)
        self._forget_experiment(experiment.experiment_id)

    # For the other parts of the store.

    def _experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment as it is, or was a second ago.

        Args:
            experiment_id: the experiment.

        Raises:
            MlflowException: there is none.
        """
        name = _id_text(experiment_id)
        with self._experiments_lock:
            kept = self._kept_experiments.get(name)
        if kept is not None and clock.monotonic_s() - kept.read_s < _TRUSTED_S:
            return kept.experiment
        return self._read_experiment(name)

    def _active_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment as `_experiment` does.

        Raises:
            MlflowException: there is none, or it is deleted.
        """
        experiment = self._experiment(experiment_id)
        _check_active(experiment)
        return experiment

    def _locations(self, query: Query) -> Locate:
        """Return what tells where the artifacts of runs lie, by experiment and run.

        Args:
            query: the snapshot that the runs are of.
        """

        def find() -> dict[str, str]:
            return dict(_chosen_locations(query))

        chosen = query.once("artifact_locations", find)
        return lambda home, run_id: self._run_place(home, run_id, chosen.get(home))

    def _run_artifact_uri(self, experiment: Experiment, run_id: str) -> str:
        """Return where the artifacts of a run lie.

        Args:
            experiment: of the run.
            run_id: the run.
        """
        home = experiment.experiment_id
        location = experiment.artifact_location
        chosen = None if location == self._experiment_location(home, None) else location
        return self._run_place(home, run_id, chosen)

    def _model_artifact_uri(self, experiment_id: str, home: str, model_id: str) -> str:
        """Return where the files of a logged model lie.

        Args:
            experiment_id: of the model.
            home: the run that made it, else its own id.
            model_id: the model.
        """
        location = self._experiment(experiment_id).artifact_location
        if location != self._experiment_location(experiment_id, None):
            return str(append_to_uri_path(location, "models", model_id, "artifacts"))
        below = () if home == model_id else (uris.MODELS_FOLDER, model_id)
        place = self._run_place(experiment_id, home, None)
        return "/".join([place, *below])

    # Inside.

    def _run_place(self, home: str, run_id: str, chosen: str | None) -> str:
        """Return where the artifacts of a run lie, in the location that somebody chose or not."""
        location = self._experiment_location(home, chosen)
        if chosen is None and self._chosen_root is None:
            return f"{location}/{run_id}"
        return str(append_to_uri_path(location, run_id, "artifacts"))

    @cached_property
    def _lake_root(self) -> str:
        """Where artifacts in the lake lie."""
        return uris.artifact_uri(self.store_uri)

    @property
    def _chosen_root(self) -> str | None:
        """Where experiments keep artifacts if not in the lake, and nobody chose a place."""
        return None if self.artifact_root in _UNCHOSEN_ROOTS else self.artifact_root or None

    def _experiment_location(self, experiment_id: str, chosen: str | None) -> str:
        """Return where the artifacts of an experiment lie."""
        if chosen is not None:
            return chosen
        if self._chosen_root is None:
            return f"{self._lake_root}/{experiment_id}"
        return str(append_to_uri_path(self._chosen_root, experiment_id))

    def _experiment_entity(self, found: entities.Experiment) -> Experiment:
        home = found.experiment_id
        own = f"{self.lake.url}/artifacts/{home}"
        chosen = None if found.artifact_location == own else found.artifact_location
        return Experiment(
            experiment_id=home,
            name=found.name,
            artifact_location=self._experiment_location(home, chosen),
            lifecycle_stage=found.lifecycle_stage,
            tags=[ExperimentTag(key, text) for key, text in found.tags.items()],
            creation_time=found.creation_time,
            last_update_time=found.last_update_time,
        )

    def _default_experiment(self, others: Iterable[Experiment]) -> Experiment:
        """Return the experiment `0` of a lake in which nobody has said anything of it.

        It is older than all others.
        """
        times = [each.creation_time for each in others if each.creation_time is not None]
        made_ms = min([self._opened_ms, *(time - 1 for time in times)])
        return Experiment(
            experiment_id=ids.DEFAULT_EXPERIMENT_ID,
            name=ids.DEFAULT_EXPERIMENT_NAME,
            artifact_location=self._experiment_location(ids.DEFAULT_EXPERIMENT_ID, None),
            lifecycle_stage=schema.ACTIVE,
            tags=[],
            creation_time=made_ms,
            last_update_time=made_ms,
        )

    def _all_experiments(self) -> list[Experiment]:
        """Return all experiments, deleted ones too."""
        found = ask(self.lake, all_experiments)
        listed = [self._experiment_entity(each) for each in found]
        if all(each.experiment_id != ids.DEFAULT_EXPERIMENT_ID for each in listed):
            listed.append(self._default_experiment(listed))
        return listed

    def _seek_experiment(self, experiment_id: str) -> Experiment | None:
        """Return an experiment as the store has it now."""
        found = experiments_of(self.lake).find(experiment_id)
        return None if found is None else self._keep_experiment(self._experiment_entity(found))

    def _read_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment as the store has it now.

        Raises:
            MlflowException: there is none.
        """
        name = _id_text(experiment_id)
        found = self._seek_experiment(name)
        if found is None and name == ids.DEFAULT_EXPERIMENT_ID:
            found = self._default_experiment(())
        if found is None:
            raise _is_missing(name)
        return found

    def _staged_experiment(self, experiment_id: str, stage: str) -> Experiment:
        """Return an experiment that is active, or deleted."""
        found = self._read_experiment(experiment_id)
        if found.lifecycle_stage != stage:
            raise _is_missing(found.experiment_id)
        return found

    def _ensure_default(self, experiment: Experiment) -> None:
        """Let the experiment `0` be known to the lake before something is said of it."""
        is_default = experiment.experiment_id == ids.DEFAULT_EXPERIMENT_ID
        if is_default and experiments_of(self.lake).find(ids.DEFAULT_EXPERIMENT_ID) is None:
            try:
                self.lake.create_experiment(ids.DEFAULT_EXPERIMENT_NAME)
            except AlreadyExistsError:  # another process was first
                return

    def _keep_experiment(self, experiment: Experiment) -> Experiment:
        with self._experiments_lock:
            self._kept_experiments[experiment.experiment_id] = _Kept(
                clock.monotonic_s(), experiment
            )
        return experiment

    def _forget_experiment(self, experiment_id: str) -> None:
        known_runs(self.lake).doubt()
        with self._experiments_lock:
            self._kept_experiments.pop(experiment_id, None)


def check_max_results(max_results: int | None) -> None:
    """Refuse a page size as MLflow's own store does.

    Args:
        max_results: as the caller gave it.

    Raises:
        MlflowException: it is none, below 1 or above MLflow's limit.
    """
    wrong = f"Invalid value {max_results} for parameter 'max_results' supplied. It must be "
    if max_results is None or max_results < 1:
        raise MlflowException(f"{wrong}a positive integer", INVALID_PARAMETER_VALUE)
    if max_results > SEARCH_MAX_RESULTS_THRESHOLD:
        message = f"{wrong}at most {SEARCH_MAX_RESULTS_THRESHOLD}"
        raise MlflowException(message, INVALID_PARAMETER_VALUE)


def _id_text(experiment_id: Any) -> str:  # noqa: ANN401 - clients give numbers as well
    """Return an experiment's id; MLflow takes none for that of the default one."""
    if experiment_id is None or experiment_id == "":
        return ids.DEFAULT_EXPERIMENT_ID
    return str(experiment_id)


def _stages(view_type: int) -> list[str]:
    if view_type == ViewType.ACTIVE_ONLY:
        return [schema.ACTIVE]
    if view_type == ViewType.DELETED_ONLY:
        return [schema.DELETED]
    return [schema.ACTIVE, schema.DELETED]


def _check_active(experiment: Experiment) -> None:
    if experiment.lifecycle_stage != schema.ACTIVE:
        message = (
            f"The experiment {experiment.experiment_id} must be in the 'active' state. "
            f"Current state is {experiment.lifecycle_stage}."
        )
        raise MlflowException(message, INVALID_PARAMETER_VALUE)


def _deleted_runs(query: Query, experiment_id: str) -> list[str]:
    """Return the runs of an experiment that were deleted one by one."""
    runs = query.folded.runs
    rows = zip(
        *(runs[name].to_pylist() for name in ("run_id", "experiment_id", "is_deleted")),
        strict=True,
    )
    return [run_id for run_id, home, is_deleted in rows if is_deleted and home == experiment_id]


def _chosen_locations(query: Query) -> Iterable[tuple[str, str]]:
    """Yield the experiments whose artifacts lie where somebody chose."""
    root = query.tables.root_url
    for each in query.folded.homes.values():
        if each.artifact_location != f"{root}/artifacts/{each.experiment_id}":
            yield each.experiment_id, each.artifact_location


def _is_missing(experiment_id: str) -> MlflowException:
    return MlflowException(f"No Experiment with id={experiment_id} exists", RESOURCE_DOES_NOT_EXIST)


def _is_taken(name: str) -> MlflowException:
    message = (
        f"Experiment(name={name}) already exists; names of deleted experiments stay taken until "
        "`mlflow gc`."
    )
    return MlflowException(message, RESOURCE_ALREADY_EXISTS)
