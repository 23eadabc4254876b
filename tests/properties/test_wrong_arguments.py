"""Whatever is passed to a public function is taken, or refused by an error of runlake's own.

What comes from notebooks and configuration files is often of another type than a signature says.
A `TypeError` out of the middle of a library tells nobody which argument was wrong, and whoever
catches `RunlakeError` does not catch it.
"""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pytest

import runlake
from runlake import Lake, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WRONG: Final[tuple[object, ...]] = (
    None,
    True,
    5,
    -1,
    1.5,
    float("nan"),
    10**30,
    "",
    "x",
    "a\0b",
    "\ud800",
    b"x",
    [],
    [5],
    [None],
    ("a", "b", "c"),
    {},
    {5: 5},
    {None: None},
    object(),
    np.zeros(3),
    Path("nope"),
)
# Of each required parameter, by its name, something that is right.
RIGHT: Final[dict[str, object]] = {
    "alias": "best",
    "artifact_file": "f.txt",
    "audio": np.zeros(100),
    "data": {"step": np.arange(3), "x": np.ones(3)},
    "dataset": runlake.Dataset(name="d", digest="x"),
    "description": "d",
    "dictionary": {"a": 1},
    "dst_name": "m3",
    "experiment_id": "0",
    "figure": None,
    "html": "<b>",
    "image": np.zeros((3, 3), np.uint8),
    "key": "k",
    "keys": "loss",
    "local_dir": "in",
    "local_path": "in/a.txt",
    "markdown": "# x",
    "metric": "loss",
    "metrics": {"a": 1.0},
    "model_uri": "runs:/run-1/a.txt",
    "name": "m",
    "new_name": "m2",
    "params": {"z": 1},
    "path": "a.txt",
    "query": "SELECT 1",
    "run_id": "run-1",
    "runs": ["run-1"],
    "sample_rate": 8000,
    "source": "runs:/run-1/a.txt",
    "src_model_uri": "models:/m/1",
    "stage": "Staging",
    "table": "metrics",
    "tags": {"t": "1"},
    "target": "out.csv",
    "text": "hi",
    "title": "t",
    "uri": "models:/m/1",
    "url": "copy",
    "value": 1.0,
    "version": 1,
    "view": "runs",
}
# They end what the others need; `set_tracking_uri` and `open` stand below.
LEFT_OUT: Final = {"close", "end_run", "open", "set_tracking_uri"}
FILES: Final = ("list", "open", "download", "delete")


class Place(NamedTuple):
    """A lake with a run, a file and a model, and its functions."""

    lake: Lake
    run: Run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    with warnings.catch_warnings(), runlake.open("lake") as lake:
        warnings.simplefilter("ignore")
        runlake.set_tracking_uri("lake")
        with lake.start_run(run_id="run-1") as run:
            run.log_params({"lr": 0.1})
            run.log({"loss": 1.0})
            run.log_artifact("in/a.txt")
            run.log_table({"a": [1]}, "t.json")
        lake.registry.create_registered_model("m")
        lake.registry.create_model_version("m", "runs:/run-1/a.txt")
        lake.registry.set_registered_model_alias("m", "best", 1)
        yield Place(lake, lake.start_run())
        while runlake.active_run() is not None:
            runlake.end_run()


def functions(whole: str, place: Place) -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield the public functions of one object."""
    holders: dict[str, object] = {
        "runlake": runlake,
        "lake": place.lake,
        "run": place.run,
        "registry": place.lake.registry,
        "maintain": place.lake.maintain,
        "artifacts": place.lake.artifacts,
    }
    holder = holders[whole]
    names = {"runlake": runlake.__all__, "artifacts": FILES}.get(whole, dir(type(holder)))
    for name in names:
        function = getattr(holder, name)
        is_meant = whole == "artifacts" or not (name.startswith("_") or name in LEFT_OUT)
        if is_meant and inspect.isroutine(function):
            yield name, function


def parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    varied = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    return [
        each for each in inspect.signature(function).parameters.values() if each.kind not in varied
    ]


def fits(given: object, parameter: inspect.Parameter) -> bool:
    """Tell whether it is worth passing: of an array, only NumPy says whether it is true."""
    return not (isinstance(given, np.ndarray) and "bool" in str(parameter.annotation))


@pytest.mark.parametrize("whole", ["runlake", "lake", "run", "registry", "maintain", "artifacts"])
def test_what_is_of_another_type_is_taken_or_refused_by_name(whole: str, place: Place) -> None:
    found: list[str] = []
    for name, function in list(functions(whole, place)):
        asked = parameters(function)
        right = {each.name: RIGHT[each.name] for each in asked if each.default is each.empty}
        for parameter in asked:
            for given in WRONG:
                if fits(given, parameter):
                    found += said(name, function, right, parameter.name, given)
        if name == "finish":
            place = place._replace(run=place.lake.start_run())
    assert found == []


def said(
    name: str, function: Callable[..., object], right: dict[str, Any], wrong: str, given: object
) -> list[str]:
    """Return what is amiss with the answer to one wrong argument."""
    try:
        function(**(right | {wrong: given}))
    except runlake.RunlakeError as error:
        is_clumsy = re.search(r"got (NoneType|a int)\b", str(error)) is not None
        return [f"{name}({wrong}={given!r}) says: {error}"] if is_clumsy else []
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return [f"{name}({wrong}={given!r}) raises {type(error).__name__}: {error}"]
    finally:
        while name == "start_run" and runlake.active_run() is not None:
            runlake.end_run()
    return []


@pytest.mark.parametrize("argument", ["url", "storage_options", "refresh"])
def test_a_lake_opened_with_what_is_no_address_is_refused_at_once(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [
        each for given in WRONG for each in said("open", runlake.open, {}, argument, given)
    ] == []
