"""Metrics, params and tags of runs, logged as MLflow does.

A call returns when its rows are in the local journal, which survives the end of the process;
the drain brings them to the store in groups. Nothing here waits for the store, except where a
run must first be looked up.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_MODELS, MLFLOW_RUN_NAME
from mlflow.utils.validation import (
    _validate_batch_log_data,
    _validate_batch_log_limits,
    _validate_metric,
    _validate_param,
    _validate_param_keys_unique,
    _validate_run_id,
    _validate_tag,
)

from runlake import schema
from runlake.mlflow_plugin import logged_models
from runlake.mlflow_plugin.errors import translated
from runlake.mlflow_plugin.runs import RunStore, name_rows, tag_rows
from runlake.writing import values
from runlake.writing.run_rows import Point

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlflow.entities import Metric, Param, RunTag

    from runlake.mlflow_plugin.known import KnownRun
    from runlake.writing.events import Row


class PointStore(RunStore):
    """The part of MLflow's tracking store that logs to runs."""

    if TYPE_CHECKING:
        # Of `runlake.mlflow_plugin.logged_models.LoggedModelStore`.
        def _check_models(self, metrics: Iterable[Metric]) -> None: ...

    @translated
    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
    ) -> None:
        """Log metrics, params and tags of a run: all of them, or none where one is wrong.

        Args:
            run_id: the run.
            metrics: at most 1,000.
            params: at most 100.
            tags: at most 100; together at most 1,000.

        Raises:
            MlflowException: there is no such run, or it is deleted; one of them is wrong, or a
                param has another value; the journal is full.
        """
        _validate_run_id(run_id)
        metrics, params, tags = _validate_batch_log_data(metrics, params, tags)
        _validate_batch_log_limits(metrics, params, tags)
        _validate_param_keys_unique(params)
        known = self._writable(run_id, is_fresh=bool(params))
        points = [_point(metric) for metric in metrics]
        rows = self._model_rows(run_id, metrics) + _tags(run_id, tags)
        if params:
            with known.lock:
                new = _new_params(known, params)
                known.log(_param_rows(run_id, new) + rows, points)
                known.params.update(new)
        else:
            known.log(rows, points)
        _rename(known, tags)

    @translated
    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one point of one metric.

        Args:
            run_id: the run.
            metric: its key, value, step and time in milliseconds.

        Raises:
            MlflowException: there is no such run, or it is deleted; the metric is wrong; the
                journal is full.
        """
        _validate_metric(metric.key, metric.value, metric.timestamp, metric.step)
        known = self._writable(run_id)
        known.log(self._model_rows(run_id, [metric]), [_point(metric)])

    @translated
    def log_param(self, run_id: str, param: Param) -> None:
        """Log one param; the same value again is fine.

        Args:
            run_id: the run.
            param: its key and value.

        Raises:
            MlflowException: there is no such run, or it is deleted; the param is wrong, or has
                another value already.
        """
        param = _validate_param(param.key, param.value)
        known = self._writable(run_id, is_fresh=True)
        with known.lock:
            before = known.params.get(param.key)
            if before is not None and before != param.value:
                message = (
                    f"Changing param values is not allowed. Param with key='{param.key}' was "
                    f"already logged with value='{before}' for run ID='{run_id}'. Attempted "
                    f"logging new value '{param.value}'."
                )
                raise MlflowException(message, codes.INVALID_PARAMETER_VALUE)
            if before is None:
                new = {param.key: _text("param", param)}
                known.events(_param_rows(run_id, new))
                known.params.update(new)

    @translated
    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Set a tag; the latest stands.

        Args:
            run_id: the run.
            tag: its key and value; `mlflow.runName` renames the run.

        Raises:
            MlflowException: there is no such run, or it is deleted; the tag is wrong.
        """
        tag = _validate_tag(tag.key, tag.value)
        known = self._writable(run_id)
        known.events(_tags(run_id, [tag]))
        _rename(known, [tag])

    @translated
    def delete_tag(self, run_id: str, key: str) -> None:
        """Take a tag away.

        Args:
            run_id: the run.
            key: of the tag.

        Raises:
            MlflowException: there is no such run, or it is deleted; it has no such tag.
        """
        known = self._writable(run_id)
        if key not in self._read_run(run_id).data.tags:
            message = f"No tag with name: {key} in run with id {run_id}"
            raise MlflowException(message, codes.RESOURCE_DOES_NOT_EXIST)
        known.events([(run_id, schema.TAG, key, None, None)])

    @translated
    def record_logged_model(self, run_id: str, mlflow_model: Any) -> None:  # noqa: ANN401 - MLflow's
        """Add a model to those that a run's tag lists, as clients before MLflow 3 do.

        Args:
            run_id: the run.
            mlflow_model: MLflow's `Model`.

        Raises:
            TypeError: it is none.
            MlflowException: there is no such run, or it is deleted; the list is too long.
        """
        from mlflow.models import Model  # noqa: PLC0415 - takes a second, and few need it

        if not isinstance(mlflow_model, Model):
            message = (
                f"Argument 'mlflow_model' should be mlflow.models.Model, got '{type(mlflow_model)}'"
            )
            raise TypeError(message)
        known = self._writable(run_id)
        with known.lock:
            before = self._read_run(run_id).data.tags.get(MLFLOW_LOGGED_MODELS)
            listed = [*(json.loads(before) if before else ()), mlflow_model.get_tags_dict()]
            value = json.dumps(listed)
            _validate_tag(MLFLOW_LOGGED_MODELS, value)
            known.events(tag_rows(run_id, MLFLOW_LOGGED_MODELS, value))

    def _model_rows(self, run_id: str, metrics: Sequence[Metric]) -> list[Row]:
        """Return the rows that tell which models metrics are of."""
        of_models = [metric for metric in metrics if metric.model_id is not None]
        if not of_models:
            return []
        self._check_models(of_models)
        return logged_models.model_metric_rows(run_id, of_models)


def _point(metric: Metric) -> Point:
    """Return a point after checking what MLflow leaves to the database."""
    return Point(
        metric.key,
        values.step(metric.step),
        values.time_us(metric.timestamp),
        values.number(metric.key, metric.value),
    )


def _new_params(known: KnownRun, params: Sequence[Param]) -> dict[str, str]:
    """Return the params that a run does not have, if it has none of the others otherwise."""
    changed = [
        {"key": param.key, "old_value": before, "new_value": param.value}
        for param in params
        if (before := known.params.get(param.key)) is not None and before != param.value
    ]
    if changed:
        message = (
            f"Changing param values is not allowed. Params were already logged='{changed}' for "
            f"run ID='{known.run_id}'."
        )
        raise MlflowException(message, codes.INVALID_PARAMETER_VALUE)
    return {param.key: _text("param", param) for param in params if param.key not in known.params}


def _text(what: str, given: Param | RunTag) -> str:
    """Return the value of a param or tag."""
    if given.value is None:
        message = f"{what} '{given.key}' has no value: NOT NULL constraint failed"
        raise MlflowException(message, codes.BAD_REQUEST)
    return values.text(what, given.key, given.value)


def _param_rows(run_id: str, params: dict[str, str]) -> list[Row]:
    return [
        (run_id, schema.PARAM, key, values.number_beside(value), value)
        for key, value in params.items()
    ]


def _tags(run_id: str, tags: Sequence[RunTag]) -> list[Row]:
    """Return the rows of tags that a run gets."""
    rows: list[Row] = []
    for tag in tags:
        if tag.key == MLFLOW_RUN_NAME and not tag.value:
            continue  # as MLflow: a run keeps the name that it has
        rows += tag_rows(run_id, tag.key, value := _text("tag", tag))
        if tag.key == MLFLOW_RUN_NAME:
            rows += name_rows(run_id, value)
    return rows


def _rename(known: KnownRun, tags: Sequence[RunTag]) -> None:
    """Know the name that tags have given a run."""
    names = [tag.value for tag in tags if tag.key == MLFLOW_RUN_NAME and tag.value]
    if names:
        known.run_name = names[-1]
