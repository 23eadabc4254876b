"""Heavy libraries load at their first use, and a missing one says what to install."""

from __future__ import annotations

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from runlake import _lazy
from runlake._lazy import ahead, lazy, made_once, need
from runlake.errors import MissingDependencyError


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module of the standard library that is not loaded."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    return "colorsys"


def test_lazy_module_is_loaded_at_its_first_attribute(module: str) -> None:
    stand_in = lazy(module)
    assert isinstance(stand_in, ModuleType)
    assert module not in sys.modules
    assert stand_in.rgb_to_hsv(0.0, 0.0, 0.0) == (0.0, 0.0, 0.0)
    assert module in sys.modules


def test_lazy_module_keeps_an_attribute_once_used(module: str) -> None:
    stand_in = lazy(module)
    assert stand_in.rgb_to_hsv is stand_in.__dict__["rgb_to_hsv"]


def test_lazy_module_without_the_attribute_raises_attribute_error(module: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = lazy(module).no_such_name


def test_need_of_a_missing_extra_names_the_pip_line() -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install 'runlake\[s3\]'"):
        need("no_such_module_anywhere", extra="s3")


def test_need_of_a_missing_package_names_the_package() -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install no_such_module_anywhere$"):
        need("no_such_module_anywhere.inner")


def test_need_returns_the_module(module: str) -> None:
    assert need(module) is sys.modules[module]


@pytest.mark.parametrize("is_on", [True, False])
def test_the_garbage_collector_is_what_it_was_when_a_library_is_loaded(
    module: str, *, is_on: bool
) -> None:
    (gc.enable if is_on else gc.disable)()
    try:
        need(module)
        assert gc.isenabled() is is_on
        with pytest.raises(MissingDependencyError):
            need("no_such_module_anywhere")
        assert gc.isenabled() is is_on
    finally:
        gc.enable()


def test_ahead_loads_beside_the_caller_and_leaves_what_is_missing_for_later(module: str) -> None:
    ahead(module, "no_such_module_anywhere")
    for thread in threading.enumerate():
        if thread.name == "runlake-import":
            thread.join()
    assert module in sys.modules
    with pytest.raises(MissingDependencyError):
        need("no_such_module_anywhere")


def test_nobody_waits_for_a_library_that_another_thread_loads(module: str) -> None:
    need(module)
    with _lazy._loading:
        thread = threading.Thread(target=need, args=(module,))
        thread.start()
        thread.join(30)
        assert not thread.is_alive()


def test_made_once_gives_all_threads_what_was_there_first() -> None:
    both_make = threading.Barrier(2)

    class Lake:
        made = 0

        @made_once
        def drain(self) -> object:
            """What brings rows to the store."""
            Lake.made += 1
            both_make.wait(10)
            return object()

    lake = Lake()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: lake.drain, range(2))
    assert first is second is lake.drain
    assert Lake.made == 2
    assert Lake.drain.__doc__ == "What brings rows to the store."
