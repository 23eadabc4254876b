"""Heavy libraries load at their first use, never at `import runlake`."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import threading
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, final, overload

from runlake.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_Owner = TypeVar("_Owner")
_Made = TypeVar("_Made")

# Held while a library loads, and while a process forks: a child that is forked in the middle
# of an import has half a library, and a lock on it that nobody will ever release.
_loading = threading.RLock()


def _renew_lock() -> None:
    global _loading  # noqa: PLW0603 - replaced once, in a child that has one thread
    _loading = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _loading.acquire(),  # noqa: PLW0108 - the lock of the moment
        after_in_parent=lambda: _loading.release(),  # noqa: PLW0108 - as above
        after_in_child=_renew_lock,
    )


def need(module: str, *, extra: str | None = None) -> ModuleType:
    """Import a module at the moment of use.

    Args:
        module: the dotted name.
        extra: the extra of runlake that brings it, None for a required dependency.

    Returns:
        The imported module.

    Raises:
        MissingDependencyError: it is not installed; the message holds the pip line.
    """
    loaded = sys.modules.get(module)
    # Nobody waits for a library that another thread loads, unless it is this one.
    if loaded is not None and not getattr(loaded.__spec__, "_initializing", False):
        return loaded
    try:
        with _loading, _uncollected():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = f"'runlake[{extra}]'" if extra else (error.name or module).partition(".")[0]
        message = f"{module} is needed here and not installed. Install it: pip install {package}"
        raise MissingDependencyError(message) from error


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let Python look for no garbage: what a library makes as it loads, it keeps.

    To look through all of it again and again takes an eighth of the time of loading.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def ahead(*modules: str) -> None:
    """Import modules in a thread, while the caller does what takes none of them.

    Args:
        modules: dotted names; one that is not installed is told when it is needed.
    """
    missing = [module for module in modules if module not in sys.modules]
    if missing:
        threading.Thread(target=_need_all, args=(missing,), name="runlake-import").start()


def _need_all(modules: list[str]) -> None:
    for module in modules:
        with suppress(MissingDependencyError):
            need(module)


class _LazyModule(ModuleType):
    """Stand for a module and become it when an attribute is first asked for."""

    def __init__(self, name: str, extra: str | None) -> None:
        super().__init__(name)
        self._extra = extra

    def __getattr__(self, attribute: str) -> object:
        value = getattr(need(self.__name__, extra=self._extra), attribute)
        setattr(self, attribute, value)
        return value


def lazy(module: str, *, extra: str | None = None) -> ModuleType:
    """Return a stand-in that imports `module` when an attribute of it is first used.

    Used under `if TYPE_CHECKING: import x` / `else: x = lazy("x")`, so that types stay exact.
    """
    return _LazyModule(module, extra)


@final
class made_once(Generic[_Owner, _Made]):  # noqa: N801 - a decorator, as `property` is
    """A property that is made at its first use and kept: one for all threads.

    Two threads may both make it at once; both get the one that was there first.
    (`functools.cached_property` would give each its own, from Python 3.12 on.)
    """

    def __init__(self, make: Callable[[_Owner], _Made]) -> None:
        """Make nothing yet.

        Args:
            make: the method that it stands for.
        """
        self._make = make
        self._name = make.__name__
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, owner: None, kind: type[_Owner]) -> Self: ...

    @overload
    def __get__(self, owner: _Owner, kind: type[_Owner]) -> _Made: ...

    def __get__(self, owner: _Owner | None, kind: type[_Owner]) -> Self | _Made:
        """Return what it makes; the class has the property itself."""
        if owner is None:
            return self
        kept: dict[str, Any] = vars(owner)
        made: _Made = kept.setdefault(self._name, self._make(owner))
        return made
