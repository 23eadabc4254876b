"""Experiments as MLflow's clients see them.

The experiment `0` is always there, also in a lake that nobody has written to. Ids are texts, not
numbers: they follow from names, so that hosts agree on them without asking.
"""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.uri import resolve_uri_if_local
from mlflow.utils.validation import (
    _validate_experiment_artifact_location_length,
    _validate_experiment_name,
    _validate_experiment_tag,
)

from runlake import clock, ids, schema
from runlake.errors import AlreadyExistsError
from runlake.lake_parts import experiments_of, rows_of, writable_experiments_of
from runlake.mlflow_plugin.artifact_places import PlaceStore
from runlake.mlflow_plugin.errors import translated
from runlake.mlflow_plugin.known import known_runs
from runlake.query.entities import all_experiments
from runlake.questions import ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from runlake.query import entities
    from runlake.query.engine import Query
    from runlake.writing.events import Row

_DEFAULT_ORDER: Final = ["creation_time DESC", "experiment_id ASC"]
# So long an experiment is taken for what it was, seconds.
_TRUSTED_S: Final = 1.0
# What ids look like that lakes give, and MLflow; runs may bring others.
_COMMON_ID: Final = re.compile(r"[0-9a-z]{20}|-?[0-9]+")


class _Sortable(NamedTuple):
    """What experiments are sorted by; MLflow's ids count experiments, so theirs are ranks."""

    name: str
    creation_time: int
    last_update_time: int
    experiment_id: int
    experiment: Experiment


class _Kept(NamedTuple):
    """An experiment, and when it was read."""

    read_s: float
    experiment: Experiment


class _Stored(NamedTuple):
    """An experiment as MLflow sees it, and as the lake does: None for `0` where nothing is said."""

    shown: Experiment
    known: entities.Experiment | None


class ExperimentStore(PlaceStore):
    """What MLflow calls of a tracking store about experiments."""

    DEFAULT_EXPERIMENT_ID: Final = ids.DEFAULT_EXPERIMENT_ID

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        """Read nothing yet.

        Args:
            store_uri: of the lake, as MLflow has it.
            artifact_uri: where experiments keep artifacts; None: in the lake.
        """
        self._kept_experiments: dict[str, _Kept] = {}
        self._experiments_lock = threading.Lock()
        self._opened_ms = clock.now_us() // 1000
        self._is_settled = False
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
            order_by: attributes with ASC or DESC, `experiment_id` for the order in which they were
                made; None: the newest first.
            page_token: of the page before.

        Raises:
            MlflowException: an argument is wrong.
        """
        check_max_results(max_results)
        stages = _stages(view_type)
        found = [each for each in self._all_experiments() if each.lifecycle_stage in stages]
        found = SearchExperimentsUtils.filter(found, filter_string)
        found = _sorted(found, order_by or _DEFAULT_ORDER)
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
            name: 1 to 500 printable characters.
            artifact_location: where its artifacts lie; None: below the root that the store was
                made with, else in the lake.
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
            and self._find_experiment(ids.DEFAULT_EXPERIMENT_ID) is None
        ):
            raise _is_taken(name)
        texts = {tag.key: tag.value for tag in tags or ()}
        try:
            return writable_experiments_of(self.lake).create(
                name, artifact_location or self._new_place, tags=texts, time_us=_now_us()
            )
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
        return self._look_up(experiment_id).shown

    @translated
    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """Return the experiment of a name, deleted or not; None where there is none.

        Args:
            experiment_name: the name.
        """
        found = experiments_of(self.lake).find_by_name(experiment_name)
        if found is None:
            is_default = experiment_name == ids.DEFAULT_EXPERIMENT_NAME
            if is_default and self._find_experiment(ids.DEFAULT_EXPERIMENT_ID) is None:
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
        found = self._staged_experiment(experiment_id, schema.ACTIVE)
        writable_experiments_of(self.lake).delete(self._told(found), time_us=_now_us())
        self._forget_experiment(found.shown.experiment_id)

    @translated
    def restore_experiment(self, experiment_id: str) -> None:
        """Show an experiment and all of its runs again, those deleted one by one too.

        Args:
            experiment_id: the experiment.

        Raises:
            MlflowException: there is no deleted one.
        """
        found = self._staged_experiment(experiment_id, schema.DELETED)
        home, name = found.shown.experiment_id, found.shown.name
        hidden = ask(self.lake, lambda query: _deleted_runs(query, home))
        if hidden:
            rows: list[Row] = [(run_id, schema.RESTORE, "", None, None) for run_id in hidden]
            rows_of(self.lake, hidden[0], experiment_id=home, experiment_name=name).log(rows)
        writable_experiments_of(self.lake).restore(self._told(found), time_us=_now_us())
        self._forget_experiment(home)

    @translated
    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Give an experiment another name.

        Args:
            experiment_id: the experiment.
            new_name: 1 to 500 printable characters.

        Raises:
            MlflowException: there is none, it is deleted, or the name is taken.
        """
        _validate_experiment_name(new_name)
        found = self._look_up(experiment_id)
        if found.shown.lifecycle_stage != schema.ACTIVE:
            raise MlflowException("Cannot rename a non-active experiment.", INVALID_STATE)
        experiments = writable_experiments_of(self.lake)
        try:
            experiments.rename(self._told(found), new_name, time_us=_now_us())
        except AlreadyExistsError as error:
            raise _is_taken(new_name) from error
        self._forget_experiment(found.shown.experiment_id)

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
        found = self._look_up(experiment_id)
        _check_active(found.shown)
        writable_experiments_of(self.lake).set_tags(self._told(found), {tag.key: tag.value})
        self._forget_experiment(found.shown.experiment_id)

    @translated
    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Take a tag of an experiment away.

        Args:
            experiment_id: the experiment.
            key: of the tag.

        Raises:
            MlflowException: there is no such active experiment, or it has no such tag.
        """
        found = self._look_up(experiment_id)
        _check_active(found.shown)
        if key not in found.shown.tags:
            message = f"No tag with name: {key} in experiment with id {experiment_id}"
            raise MlflowException(message, RESOURCE_DOES_NOT_EXIST)
        writable_experiments_of(self.lake).untag(self._told(found), key)
        self._forget_experiment(found.shown.experiment_id)

    @translated
    def _hard_delete_experiment(self, experiment_id: str) -> None:
        """Take every byte of a deleted experiment and its runs out of the lake, for `mlflow gc`."""
        home = self._staged_experiment(experiment_id, schema.DELETED).shown.experiment_id
        self.lake.maintain.purge(experiment=home)
        self._forget_experiment(home)

    # For the other parts of the store.

    def _experiment_ids(self, given: Iterable[object]) -> list[str]:
        """Return ids as text; those that nobody has given need not be there.

        Args:
            given: as a client gives them.

        Raises:
            MlflowException: one is nothing that could be an experiment's id, nor is there one.
        """
        found = list(map(str, given))
        for each in found:
            if not each:
                raise _is_missing(each)
            if not _COMMON_ID.fullmatch(each):
                self._experiment(each)
        return found

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
        return self._look_up(name).shown

    def _active_experiment(self, experiment_id: str) -> Experiment:
        """Return an experiment as `_experiment` does.

        Raises:
            MlflowException: there is none, or it is deleted.
        """
        experiment = self._experiment(experiment_id)
        _check_active(experiment)
        return experiment

    # Inside.

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

        It is as old as this store, or older than others that are older.
        """
        times = [each.creation_time for each in others if each.creation_time is not None]
        oldest_ms = min(times, default=self._opened_ms)
        made_ms = self._opened_ms if oldest_ms >= self._opened_ms else oldest_ms - 1
        place = self._new_place(ids.DEFAULT_EXPERIMENT_ID)
        return Experiment(
            experiment_id=ids.DEFAULT_EXPERIMENT_ID,
            name=ids.DEFAULT_EXPERIMENT_NAME,
            artifact_location=self._experiment_location(ids.DEFAULT_EXPERIMENT_ID, place),
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

    def _find_experiment(self, experiment_id: str) -> entities.Experiment | None:
        """Return what the lake has of an experiment now."""
        found = experiments_of(self.lake).find(experiment_id)
        self._is_settled |= found is not None and experiment_id == ids.DEFAULT_EXPERIMENT_ID
        return found

    def _look_up(self, experiment_id: str) -> _Stored:
        """Return an experiment as it is now.

        Raises:
            MlflowException: there is none.
        """
        name = _id_text(experiment_id)
        known = self._find_experiment(name)
        if known is not None:
            return _Stored(self._keep_experiment(self._experiment_entity(known)), known)
        if name == ids.DEFAULT_EXPERIMENT_ID:
            return _Stored(self._default_experiment(()), None)
        raise _is_missing(name)

    def _staged_experiment(self, experiment_id: str, stage: str) -> _Stored:
        """Return an experiment that is active, or deleted."""
        found = self._look_up(experiment_id)
        if found.shown.lifecycle_stage != stage:
            raise _is_missing(found.shown.experiment_id)
        return found

    def _told(self, found: _Stored) -> entities.Experiment | str:
        """Return an experiment that something is to be said of; the lake has to know of it."""
        return found.known or self._make_default()

    def _make_default(self) -> str:
        """Let the lake know of the experiment `0`; return that id."""
        shown = self._default_experiment(self._all_experiments())
        # Another process may be first.
        with suppress(AlreadyExistsError):
            writable_experiments_of(self.lake).create(
                ids.DEFAULT_EXPERIMENT_NAME,
                self._new_place,
                tags=None,
                time_us=shown.creation_time * 1000,
            )
        return ids.DEFAULT_EXPERIMENT_ID

    def _settle_place(self, experiment: Experiment) -> Experiment:
        """Let it be known for good how old it is and where artifacts lie, before the first ones.

        Args:
            experiment: which gets a run, or a logged model.

        Returns:
            The experiment as it is then.
        """
        home = experiment.experiment_id
        if home != ids.DEFAULT_EXPERIMENT_ID or self._is_settled:
            return experiment
        found = self._look_up(home)
        if found.known is None:
            found = self._look_up(self._make_default())
        self._is_settled = True
        return found.shown

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


def _now_us() -> int:
    """Return the time as MLflow's own store takes it."""
    return int(get_current_time_millis()) * 1000


def _sorted(found: list[Experiment], order_by: list[str]) -> list[Experiment]:
    """Return experiments in an order, as MLflow's clients write it."""

    def age(each: Experiment) -> tuple[bool, int, str]:
        home = each.experiment_id
        return home != ids.DEFAULT_EXPERIMENT_ID, each.creation_time or 0, home

    ranked = [
        _Sortable(each.name, each.creation_time, each.last_update_time, rank, each)
        for rank, each in enumerate(sorted(found, key=age))
    ]
    return [each.experiment for each in SearchExperimentsUtils.sort(ranked, order_by)]


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


def _is_missing(experiment_id: str) -> MlflowException:
    if not _COMMON_ID.fullmatch(experiment_id):
        message = (
            f"Invalid experiment ID {experiment_id!r}. Experiment ID must be a valid integer. The "
            "ids that a lake gives are texts of 20 lower-case letters and digits."
        )
        return MlflowException(message, INVALID_PARAMETER_VALUE)
    return MlflowException(f"No Experiment with id={experiment_id} exists", RESOURCE_DOES_NOT_EXIST)


def _is_taken(name: str) -> MlflowException:
    message = (
        f"Experiment(name={name}) already exists; names of deleted experiments stay taken until "
        "`mlflow gc`."
    )
    return MlflowException(message, RESOURCE_ALREADY_EXISTS)
