"""Our errors as MLflow's clients and its server know them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from runlake import errors

if TYPE_CHECKING:
    from collections.abc import Callable

_Given = ParamSpec("_Given")
_Answer = TypeVar("_Answer")

# The first that fits stands.
_CODES: Final = (
    (errors.NotFoundError, codes.RESOURCE_DOES_NOT_EXIST),
    (errors.AlreadyExistsError, codes.RESOURCE_ALREADY_EXISTS),
    (errors.InvalidInputError, codes.INVALID_PARAMETER_VALUE),
    (errors.StateError, codes.INVALID_STATE),
    (errors.ConflictError, codes.RESOURCE_CONFLICT),
    (errors.LimitExceededError, codes.RESOURCE_LIMIT_EXCEEDED),
    (errors.StorageError, codes.TEMPORARILY_UNAVAILABLE),
)
# What MLflow's parser raises at some texts instead of its own error.
_FAILURES: Final = (AttributeError, LookupError, SyntaxError, TypeError, ValueError)


def translated(call: Callable[_Given, _Answer]) -> Callable[_Given, _Answer]:
    """Let a method raise MLflow's error, with its code, in place of ours.

    Args:
        call: a method that MLflow calls.

    Returns:
        The method, which raises `MlflowException`.
    """

    @functools.wraps(call)
    def wrapped(*args: _Given.args, **kwargs: _Given.kwargs) -> _Answer:
        try:
            return call(*args, **kwargs)
        except errors.RunlakeError as error:
            raise as_mlflow(error) from error

    return wrapped


def refusal(
    error: errors.RunlakeError, *parses: Callable[[], object]
) -> errors.RunlakeError | MlflowException:
    """Return what to raise where a question of MLflow's client cannot be read.

    Args:
        error: what says so.
        *parses: read the parts of the question as MLflow does.

    Returns:
        MLflow's own error, and ours behind it; only ours where MLflow would read the question.
    """
    for parse in parses:
        try:
            parse()
        except MlflowException as theirs:
            text = f"{theirs.message}\n{error}"
            return MlflowException(text, error_code=codes.INVALID_PARAMETER_VALUE)
        except _FAILURES:
            continue
    return error


def as_mlflow(error: errors.RunlakeError) -> MlflowException:
    """Return MLflow's error for one of ours.

    Args:
        error: what a lake raised.
    """
    fitting = (code for kind, code in _CODES if isinstance(error, kind))
    return MlflowException(str(error), error_code=next(fitting, codes.INTERNAL_ERROR))
