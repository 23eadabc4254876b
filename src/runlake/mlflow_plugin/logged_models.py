"""Logged models as MLflow's clients see them."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

from mlflow.entities import (
    LoggedModel,
    LoggedModelParameter,
    LoggedModelStatus,
    LoggedModelTag,
    Metric,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.name_utils import _generate_random_name
from mlflow.utils.search_utils import SearchLoggedModelsPaginationToken
from mlflow.utils.validation import (
    _validate_logged_model_name,
    _validate_param,
    _validate_tag,
)

from runlake import clock, ids, logged_models
from runlake.errors import InvalidInputError, NotFoundError
from runlake.lake_parts import rows_of
from runlake.mlflow_plugin import logged_search
from runlake.mlflow_plugin.base import LakeStore
from runlake.mlflow_plugin.errors import refusal, translated
from runlake.query import logged
from runlake.query.logged import read_measured, read_models
from runlake.questions import ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mlflow.entities import Experiment

    from runlake.query.engine import Query
    from runlake.writing.events import Row

_MAX_RESULTS_DEFAULT: Final = 100
_STATUSES: Final = {
    LoggedModelStatus.PENDING: "PENDING",
    LoggedModelStatus.READY: "READY",
    LoggedModelStatus.FAILED: "FAILED",
}
_ENTITIES: Final = {word: status for status, word in _STATUSES.items()}


class LoggedModelStore(LakeStore):
    """What MLflow calls of a tracking store about logged models."""

    if TYPE_CHECKING:  # of the store's other parts

        def _experiment(self, experiment_id: str) -> Experiment: ...
        def _experiment_ids(self, given: Iterable[object]) -> list[str]: ...
        def _active_experiment(self, experiment_id: str) -> Experiment: ...
        def _settle_place(self, experiment: Experiment) -> Experiment: ...
        def _model_artifact_uri(self, experiment_id: str, home: str, model_id: str) -> str: ...

    @translated
    def create_logged_model(  # noqa: PLR0917 - MLflow's
        self,
        experiment_id: str = ids.DEFAULT_EXPERIMENT_ID,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: Sequence[LoggedModelTag] | None = None,
        params: Sequence[LoggedModelParameter] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """Make a logged model, whose status is PENDING until `finalize_logged_model`.

        Args:
            experiment_id: where.
            name: None takes a random one.
            source_run_id: the run that makes it.
            tags: its first tags.
            params: its first params.
            model_type: what kind of model.

        Returns:
            The model; it is in the store.

        Raises:
            MlflowException: there is no such active experiment, or a name is wrong.
        """
        _validate_logged_model_name(name)
        home = self._settle_place(self._active_experiment(experiment_id)).experiment_id
        new = logged_models.NewModel(
            model_id=ids.new_logged_model_id(),
            name=name or _generate_random_name(),
            source_run_id=source_run_id or None,
            model_type=model_type,
            params={param.key: _text(param.value) for param in params or ()},
            tags={tag.key: _text(tag.value) for tag in tags or ()},
            time_us=clock.now_us(),
        )
        with _in_their_words(params=params, tags=tags):
            rows = logged_models.creation_rows(new)
        self._say_of_model(home, new.home, rows)
        self._known_models.add(new.model_id)
        return self._model_entity(
            logged.LoggedModel(
                model_id=new.model_id,
                experiment_id=home,
                home=new.home,
                name=new.name,
                source_run_id=new.source_run_id,
                model_type=model_type,
                created_us=new.time_us or 0,
                updated_us=new.time_us or 0,
                params=dict(new.params),
                tags=dict(new.tags),
            )
        )

    @translated
    def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> LoggedModel:  # noqa: FBT001, FBT002 - MLflow's
        """Return a logged model.

        Args:
            model_id: the model.
            allow_deleted: a deleted one too.

        Raises:
            MlflowException: there is none.
        """

        def answer(query: Query) -> LoggedModel | None:
            found = read_models(query, [model_id]).get(model_id)
            if found is None or (found.is_deleted and not allow_deleted):
                return None
            return self._model_entities(query, [found])[0]

        model = ask(self.lake, answer)
        if model is None and allow_deleted:
            model = self._going_models.get(model_id)
        if model is None:
            raise _is_missing(model_id)
        return model

    @translated
    def finalize_logged_model(self, model_id: str, status: LoggedModelStatus | int) -> LoggedModel:
        """Say how the making of a model has ended.

        Args:
            model_id: the model.
            status: MLflow's.

        Returns:
            The model as it is then.

        Raises:
            MlflowException: there is no such model or status.
        """
        word = _STATUSES.get(status if isinstance(status, LoggedModelStatus) else _status(status))
        if word is None:
            message = f"Invalid logged model status: {status}."
            raise MlflowException(message, INVALID_PARAMETER_VALUE)
        model = self.get_logged_model(model_id, allow_deleted=True)
        at_us = clock.now_us()
        home = model.source_run_id or model_id
        rows = logged_models.status_rows(home, model_id, word, at_us=at_us)
        self._say_of_model(model.experiment_id, home, rows)
        model.status = _ENTITIES[word]
        model.last_updated_timestamp = at_us // 1000
        return model

    @translated
    def search_logged_models(  # noqa: PLR0917 - MLflow's
        self,
        experiment_ids: list[str],
        filter_string: str | None = None,
        datasets: list[dict[str, Any]] | None = None,
        max_results: int | None = None,
        order_by: list[dict[str, Any]] | None = None,
        page_token: str | None = None,
    ) -> PagedList[LoggedModel]:
        """Return a page of the models that match.

        Args:
            experiment_ids: where.
            filter_string: MLflow's, over metrics, params, tags and attributes.
            datasets: only models that were measured on one of these, and only these metrics count.
            max_results: greatest number of models.
            order_by: attributes or metrics, each maybe on a data set; None: the newest first.
            page_token: of the page before.

        Raises:
            MlflowException: an argument is wrong.
        """
        if datasets and not all(each.get("dataset_name") for each in datasets):
            message = "`dataset_name` in the `datasets` clause must be specified."
            raise MlflowException(message, INVALID_PARAMETER_VALUE)
        offset = 0
        if page_token:
            token = SearchLoggedModelsPaginationToken.decode(page_token)
            token.validate(experiment_ids, filter_string, order_by)
            offset = token.offset
        clauses = logged_search.parse_filter(filter_string)
        orders = logged_search.parse_order(order_by)
        is_measured = logged_search.needs_metrics(clauses, orders, datasets)
        homes = set(self._experiment_ids(experiment_ids))
        end = offset + (max_results or _MAX_RESULTS_DEFAULT)

        def answer(query: Query) -> tuple[list[LoggedModel], bool]:
            shown = [
                model
                for model in read_models(query).values()
                if not model.is_deleted and model.experiment_id in homes
            ]
            found = self._model_entities(query, shown, with_metrics=is_measured)
            found = [each for each in found if logged_search.matches(each, clauses, datasets)]
            found = logged_search.ordered(found, orders)
            page = found[offset:end]
            if not is_measured:
                _measure(query, page)
            return page, end < len(found)

        page, has_more = ask(self.lake, answer)
        following = None
        if has_more:
            following = SearchLoggedModelsPaginationToken(
                experiment_ids=experiment_ids,
                filter_string=filter_string,
                order_by=order_by,
                offset=end,
            ).encode()
        return PagedList(page, following)

    @translated
    def set_logged_model_tags(self, model_id: str, tags: Sequence[LoggedModelTag]) -> None:
        """Set tags of a model.

        Args:
            model_id: the model.
            tags: of several with one key the last counts.

        Raises:
            MlflowException: there is no such model.
        """
        model = self._known_model(model_id)
        texts: dict[str, str | None] = {tag.key: _text(tag.value) for tag in tags}
        with _in_their_words(tags=tags):
            rows = logged_models.tag_rows(model.home, model_id, texts)
        self._say_of_model(model.experiment_id, model.home, rows)

    @translated
    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Take a tag of a model away.

        Args:
            model_id: the model.
            key: of the tag.

        Raises:
            MlflowException: there is no such model, or it has no such tag.
        """
        model = self._known_model(model_id)
        if key not in model.tags:
            message = f"No tag with key {key!r} found for model with ID {model_id!r}."
            raise MlflowException(message, RESOURCE_DOES_NOT_EXIST)
        rows = logged_models.tag_rows(model.home, model_id, {key: None})
        self._say_of_model(model.experiment_id, model.home, rows)

    @translated
    def log_logged_model_params(
        self, model_id: str, params: Sequence[LoggedModelParameter]
    ) -> None:
        """Log params of a model; the same value again is fine, another one is refused.

        Args:
            model_id: the model.
            params: key and text of each.

        Raises:
            MlflowException: there is no such model, or a param has another value.
        """
        model = self._known_model(model_id)
        texts: dict[str, str] = {}
        for param in params:
            text = _text(param.value)
            before = texts.get(param.key, model.params.get(param.key))
            if before is not None and before != text:
                message = (
                    f"Changing param values is not allowed. Param with key={param.key!r} was "
                    f"already logged with value={before!r} for model {model_id!r}; the new one "
                    f"is {text!r}."
                )
                raise MlflowException(message, INVALID_PARAMETER_VALUE)
            if before is None:
                texts[param.key] = text
        if texts:
            with _in_their_words(params=params):
                rows = logged_models.param_rows(model.home, model_id, texts)
            self._say_of_model(model.experiment_id, model.home, rows)

    @translated
    def delete_logged_model(self, model_id: str) -> None:
        """Hide a model for good; its files stay until `mlflow gc`.

        Args:
            model_id: the model.

        Raises:
            MlflowException: there is no such model.
        """
        model = self._known_model(model_id)
        rows = logged_models.deletion_rows(model.home, model_id)
        self._say_of_model(model.experiment_id, model.home, rows)

    @translated
    def _hard_delete_logged_model(self, model_id: str) -> None:
        """Take a model out of the lake, for `mlflow gc`.

        The rows of one that a run made go with the run; until then nothing finds it.
        """
        if self._going_models.pop(model_id, None) is not None and not self._is_there(model_id):
            return  # with its run
        model = self._known_model(model_id)
        if model.home == model_id:
            try:
                self.lake.maintain.purge(model_id)
            except NotFoundError as error:
                raise _is_missing(model_id) from error
            return
        rows = logged_models.deletion_rows(model.home, model_id, is_erased=True)
        self._say_of_model(model.experiment_id, model.home, rows)

    @translated
    def _get_deleted_logged_models(self, older_than: int = 0) -> list[str]:
        """Return the models that were deleted at least so many milliseconds ago."""
        until_ms = clock.now_us() // 1000 - older_than

        def answer(query: Query) -> list[LoggedModel]:
            found = (model for model in read_models(query).values() if model.is_deleted)
            return [self._model_entity(model) for model in found]

        found = [
            model for model in ask(self.lake, answer) if model.last_updated_timestamp <= until_ms
        ]
        # `mlflow gc` asks for each again when it has taken its run away, and the model with it.
        self._going_models.update((model.model_id, model) for model in found)
        return [model.model_id for model in found]

    # For the other parts of the store.

    def _check_models(self, metrics: Iterable[Metric]) -> None:
        """Refuse metrics of models that are not there.

        A model that this process has seen is not looked up again.

        Args:
            metrics: those without a model pass.

        Raises:
            MlflowException: there is no such model.
        """
        named = {metric.model_id for metric in metrics if metric.model_id is not None}
        unknown = named - self._known_models
        if unknown:
            found = ask(self.lake, lambda query: read_models(query, unknown))
            self._known_models.update(found)
            for model_id in sorted(unknown - found.keys()):
                raise _is_missing(model_id)

    # Inside.

    @cached_property
    def _known_models(self) -> set[str]:
        """The models that this process has seen."""
        return set()

    @cached_property
    def _going_models(self) -> dict[str, LoggedModel]:
        """Deleted models that somebody may be about to take away."""
        return {}

    def _is_there(self, model_id: str) -> bool:
        return bool(ask(self.lake, lambda query: read_models(query, [model_id])))

    def _known_model(self, model_id: str) -> logged.LoggedModel:
        """Return what stands about a model, deleted or not.

        Raises:
            MlflowException: there is none.
        """
        found = ask(self.lake, lambda query: read_models(query, [model_id])).get(model_id)
        if found is None:
            raise _is_missing(model_id)
        return found

    def _say_of_model(self, experiment_id: str, home: str, rows: list[Row]) -> None:
        """Log rows about a model; they are in the store when this returns."""
        name = self._experiment(experiment_id).name
        rows_of(self.lake, home, experiment_id=experiment_id, experiment_name=name).log(rows)
        self.lake.flush()

    def _model_entities(
        self, query: Query, models: Sequence[logged.LoggedModel], *, with_metrics: bool = True
    ) -> list[LoggedModel]:
        """Return models as MLflow has them."""
        found = [self._model_entity(model) for model in models]
        if with_metrics:
            _measure(query, found)
        return found

    def _model_entity(self, model: logged.LoggedModel) -> LoggedModel:
        """Return a model as MLflow has it, without its metrics."""
        return LoggedModel(
            experiment_id=model.experiment_id,
            model_id=model.model_id,
            name=model.name,
            artifact_location=self._model_artifact_uri(
                model.experiment_id, model.home, model.model_id
            ),
            creation_timestamp=model.created_us // 1000,
            last_updated_timestamp=model.updated_us // 1000,
            model_type=model.model_type,
            source_run_id=model.source_run_id,
            status=_ENTITIES.get(model.status, LoggedModelStatus.PENDING),
            status_message=model.status_message,
            tags=dict(sorted(model.tags.items())),
            params=dict(sorted(model.params.items())),
            metrics=None,
        )


def model_metric_rows(run_id: str, metrics: Iterable[Metric]) -> list[Row]:
    """Return the rows that say of points of a run that they were measured of models.

    Args:
        run_id: the run.
        metrics: MLflow's; those without a model say nothing.

    Raises:
        InvalidInputError: the id of a model is none.
    """
    points = []
    for metric in metrics:
        if metric.model_id is None:
            continue
        is_on = metric.dataset_name is not None and metric.dataset_digest is not None
        points.append(
            logged_models.MeasuredModel(
                model_id=metric.model_id,
                key=metric.key,
                value=float(metric.value),
                step=int(metric.step),
                time_us=int(metric.timestamp) * 1000,
                dataset=(metric.dataset_name, metric.dataset_digest) if is_on else None,
            )
        )
    return logged_models.metric_rows(run_id, points)


def _measure(query: Query, models: Sequence[LoggedModel]) -> None:
    """Give models their metrics."""
    measured = read_measured(query, [model.model_id for model in models])
    for model in models:
        points = measured.get(model.model_id)
        if points:
            model.metrics = [
                Metric(
                    key=point.key,
                    value=point.value,
                    timestamp=point.time_us // 1000,
                    step=point.step,
                    model_id=model.model_id,
                    dataset_name=None if point.dataset is None else point.dataset[0],
                    dataset_digest=None if point.dataset is None else point.dataset[1],
                    run_id=point.run_id,
                )
                for point in points
            ]


@contextmanager
def _in_their_words(
    *,
    params: Iterable[LoggedModelParameter] | None = None,
    tags: Iterable[LoggedModelTag] | None = None,
) -> Iterator[None]:
    """Say what is wrong with a key as MLflow does, where MLflow refuses it too."""
    try:
        yield
    except InvalidInputError as error:
        checks = [partial(_validate_param, each.key, "") for each in params or ()]
        checks += [partial(_validate_tag, each.key, "") for each in tags or ()]
        raise refusal(error, *checks) from error


def _text(given: object) -> str:
    """Return a value as MLflow's own store keeps it."""
    return "" if given is None else str(given)


def _status(number: int) -> LoggedModelStatus | None:
    try:
        return LoggedModelStatus.from_int(number)
    except (ValueError, MlflowException):
        return None


def _is_missing(model_id: str) -> MlflowException:
    message = f"Logged model with ID '{model_id}' not found."
    return MlflowException(message, RESOURCE_DOES_NOT_EXIST)
