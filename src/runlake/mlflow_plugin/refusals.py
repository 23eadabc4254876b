"""What MLflow's stores can and no lake does, refused so that a server can say so."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow.exceptions import MlflowNotImplementedException

if TYPE_CHECKING:
    from collections.abc import Callable

_Store = TypeVar("_Store", bound=type)


class NotOnLakesError(
    MlflowNotImplementedException,  # type: ignore[misc]  # MLflow's have no types
    NotImplementedError,
):
    """Raised where MLflow asks for what lakes do not keep; both of its errors for that at once."""


def refusing(store: _Store) -> _Store:
    """Have methods that MLflow's base class leaves unwritten raise what a server hands on.

    They raise Python's `NotImplementedError`. MLflow's server knows only errors of its own: at
    any other it shows a page and a traceback, and its clients try again for minutes.

    Args:
        store: a class of stores. What it has written itself is left alone.

    Returns:
        The class.
    """
    for name in dir(store):
        method = inspect.getattr_static(store, name)
        if inspect.isfunction(method) and _is_unwritten(method):
            setattr(store, name, _refused(method))
    return store


def _is_unwritten(method: Callable[..., Any]) -> bool:
    names = inspect.unwrap(method).__code__.co_names
    return method.__module__.startswith("mlflow.") and "NotImplementedError" in names


def _refused(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def refused(*args: object, **kwargs: object) -> Any:  # noqa: ANN401 - MLflow's
        try:
            return method(*args, **kwargs)
        except NotImplementedError as error:
            raise NotOnLakesError(f"{method.__name__} is not implemented on lakes.") from error

    return refused
