"""Logged models: the rows that say that a run, or nobody's run, made a model.

A logged model is what `log_model` makes: a folder of files, a status, params, tags and the
metrics that were measured of it. Its rows stand in the partition of its experiment, under its
*home*: the run that made it, else its own id. So whatever becomes of a run (a copy, a purge)
becomes of its models. Nothing here does I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runlake import clock, schema
from runlake.errors import InvalidInputError
from runlake.writing import values
from runlake.writing.events import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runlake.writing.events import Row

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModel:
    """A model that is to be logged.

    Attributes:
        model_id: 1 to 64 letters, digits, `_` and `-`, as `m-` and 32 hex digits.
        name: what people call it; several models may share a name.
        source_run_id: the run that makes it, None for no run.
        model_type: what kind of model, as `agent`, None where nobody said.
        params: texts by key.
        tags: texts by key.
        status: one of `schema.MODEL_STATUSES`.
        time_us: when, microseconds since 1970; None for now.
    """

    model_id: str
    name: str
    source_run_id: str | None = None
    model_type: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str = schema.MODEL_PENDING
    time_us: int | None = None

    @property
    def home(self) -> str:
        """Under whose id its rows stand."""
        return self.source_run_id or self.model_id


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredModel:
    """One point of a metric that was measured of a model.

    Attributes:
        model_id: the model.
        key: the metric.
        value: what was measured; NaN and infinities are kept.
        step: as of the metric.
        time_us: when, microseconds since 1970.
        dataset: name and digest of the data set that it was measured on, None where nobody said.
    """

    model_id: str
    key: str
    value: float
    step: int
    time_us: int
    dataset: tuple[str, str] | None = None


def check_model_id(model_id: object) -> str:
    """Return the id of a logged model after checking it.

    Args:
        model_id: as the caller gave it.

    Raises:
        InvalidInputError: it is none.
    """
    if isinstance(model_id, str) and _ID.fullmatch(model_id):
        return model_id
    message = (
        "the id of a logged model is 1 to 64 letters, digits, '_' and '-', got "
        f"{str(model_id)[:80]!r}."
    )
    raise InvalidInputError(message)


def creation_rows(model: NewModel) -> list[Row]:
    """Return the rows that make a model.

    Args:
        model: what is known of it.

    Raises:
        InvalidInputError: an id, a name, a param or a tag is wrong.
    """
    model_id = check_model_id(model.model_id)
    if model.source_run_id is not None:
        values.run_id(model.source_run_id)
    about = {
        "name": values.text("logged model", "name", model.name),
        "model_type": model.model_type,
        "source_run_id": model.source_run_id,
    }
    made_us = clock.now_us() if model.time_us is None else model.time_us
    rows: list[Row] = [
        (model.home, schema.MODEL, model_id, float(made_us), to_json(about)),
        *status_rows(model.home, model_id, model.status, at_us=made_us),
        *param_rows(model.home, model_id, model.params),
        *tag_rows(model.home, model_id, model.tags),
    ]
    return rows


def status_rows(
    home: str,
    model_id: str,
    status: str,
    *,
    message: str | None = None,
    at_us: int | None = None,
) -> list[Row]:
    """Return the row that says how the making of a model stands.

    Args:
        home: under whose id the model's rows stand.
        model_id: the model.
        status: one of `schema.MODEL_STATUSES`.
        message: why, where it failed.
        at_us: when, microseconds since 1970; None for now.

    Raises:
        InvalidInputError: there is no such status.
    """
    if status not in schema.MODEL_STATUSES:
        known = ", ".join(schema.MODEL_STATUSES)
        raise InvalidInputError(f"a logged model is {known}, not {status!r}.")
    text = to_json({"status": status, "message": message})
    at_us = clock.now_us() if at_us is None else at_us
    return [(home, schema.MODEL_STATUS, model_id, float(at_us), text)]


def param_rows(home: str, model_id: str, params: Mapping[str, str]) -> list[Row]:
    """Return the rows with params of a model.

    Args:
        home: under whose id the model's rows stand.
        model_id: the model.
        params: texts by key.

    Raises:
        InvalidInputError: a key or text is wrong.
    """
    return [
        (home, schema.MODEL_PARAM, f"{model_id}/{values.name('param', key)}", None, text)
        for key, text in ((key, values.text("param", key, given)) for key, given in params.items())
    ]


def tag_rows(home: str, model_id: str, tags: Mapping[str, str | None]) -> list[Row]:
    """Return the rows that set tags of a model, or take them away.

    Args:
        home: under whose id the model's rows stand.
        model_id: the model.
        tags: texts by key; None takes the tag away.

    Raises:
        InvalidInputError: a key or text is wrong.
    """
    return [
        (
            home,
            schema.MODEL_TAG,
            f"{model_id}/{values.name('tag', key)}",
            None,
            None if given is None else values.text("tag", key, given),
        )
        for key, given in tags.items()
    ]


def metric_rows(run_id: str, points: list[MeasuredModel]) -> list[Row]:
    """Return the rows that say of points of a run that they were measured of models.

    They come beside the points themselves, which stand as those of any metric do.

    Args:
        run_id: the run that measured.
        points: what it measured.

    Raises:
        InvalidInputError: the id of a model is none.
    """
    rows: list[Row] = []
    for point in points:
        about: dict[str, object] = {"key": point.key, "step": point.step, "time_us": point.time_us}
        if point.dataset is not None:
            about["dataset_name"], about["dataset_digest"] = point.dataset
        model_id = check_model_id(point.model_id)
        rows.append((run_id, schema.MODEL_METRIC, model_id, point.value, to_json(about)))
    return rows


def deletion_rows(home: str, model_id: str, *, is_erased: bool = False) -> list[Row]:
    """Return the row that hides a model; nothing shows it again.

    Args:
        home: under whose id the model's rows stand.
        model_id: the model.
        is_erased: it is not even to be found among deleted ones; its rows go with its home.
    """
    said = schema.MODEL_ERASED if is_erased else None
    return [(home, schema.MODEL_DELETE, model_id, float(clock.now_us()), said)]


def output_rows(run_id: str, models: Mapping[str, int]) -> list[Row]:
    """Return the rows that say which models a run made.

    Args:
        run_id: the run.
        models: the step at which it made each, by id.

    Raises:
        InvalidInputError: the id of a model is none.
    """
    return [
        (run_id, schema.OUTPUT, check_model_id(model_id), float(step), None)
        for model_id, step in models.items()
    ]


def input_rows(run_id: str, model_ids: list[str]) -> list[Row]:
    """Return the rows that say which models a run read.

    Args:
        run_id: the run.
        model_ids: the models.

    Raises:
        InvalidInputError: the id of a model is none.
    """
    return [
        (run_id, schema.MODEL_INPUT, check_model_id(model_id), None, None) for model_id in model_ids
    ]
