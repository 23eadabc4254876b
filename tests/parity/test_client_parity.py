"""MLflow's client does the same on a lake as on its own store: hundreds of calls, all answers."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

from runlake import clock
from tests.parity.calls import Author
from tests.parity.clients import Call, Clock, Id, Made, Refused, Side
from tests.registry.hosts import dice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # what MLflow says of stages, and its use of SQLAlchemy
]
CALLS: Final = 240
EVERY: Final = 80
SEARCHES: Final = frozenset(
    {
        "search_runs",
        "search_experiments",
        "search_logged_models",
        "search_registered_models",
        "search_model_versions",
    }
)
# What MLflow's filters refuse and ours read: the lake's own grammar works through its client too.
WIDER: Final = frozenset(
    {
        "params.lr = 0.1",
        "tags.team = 'a' OR tags.team = 'b'",
        "status IN ('FINISHED')",
        "duration > 5",
    }
)
# Where MLflow only says that something went wrong, a lake says what.
VAGUE: Final = frozenset({"INTERNAL_ERROR", "BAD_REQUEST"})


class Both(NamedTuple):
    """MLflow's own store and a lake, and the time in both."""

    mlflow: Side
    lake: Side
    clock: Clock


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Two clients on two stores, which these tests share."""
    with _two_stores(tmp_path_factory.mktemp("clients")) as made:
        yield made


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Both]:
    """Two clients on two empty stores."""
    with _two_stores(tmp_path) as made:
        yield made


@contextmanager
def _two_stores(folder: Path) -> Iterator[Both]:
    now = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("DO_NOT_TRACK", "true")
        patch.setenv("MLFLOW_LOGGING_LEVEL", "ERROR")
        patch.setenv("RUNLAKE_JOURNAL", str(folder / "state"))
        patch.setenv("RUNLAKE_PROVENANCE", "off")
        patch.chdir(folder)
        import mlflow.utils.time  # noqa: PLC0415 - takes seconds
        import sqlalchemy  # noqa: PLC0415 - takes seconds
        from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

        patch.setattr(mlflow.utils.time, "time", now)
        patch.setattr(clock, "now_us", now.now_us)
        uris = f"sqlite:///{folder / 'mlflow.db'}", f"runlake://{folder / 'lake'}"
        theirs, ours = (MlflowClient(uri, uri) for uri in uris)
        stores = [theirs._tracking_client.store, theirs._get_registry_client().store]
        for store in stores:
            sqlalchemy.event.listen(
                store.engine,
                "checkout",
                lambda connection, *_: connection.execute("PRAGMA synchronous = OFF"),
            )
        yield Both(Side(theirs, f"{folder}/mlruns"), Side(ours, "runlake:"), now)
        for store in stores:
            store.engine.dispose()


def answers(side: Side, call: Call) -> Any:  # noqa: ANN401 - what the call answers
    """Do a call; of a search, return all pages, and put in order what MLflow leaves unordered."""
    if call.method in SEARCHES:
        return side.pages(call)
    found = side.do(call)
    return sorted(found, key=str) if call.method == "store._search_datasets" else found


def is_the_same(call: Call, theirs: Any, ours: Any) -> bool:  # noqa: ANN401 - as above
    """Say whether two answers are equal, or different in a way that the docs name."""
    if call.method in SEARCHES and isinstance(theirs[0], Refused):
        if call.method == "search_runs" and call.given["filter_string"] in WIDER:
            return True
        theirs, ours = theirs[0], ours[0]
    if isinstance(theirs, Refused) and theirs.code in VAGUE:
        return isinstance(ours, Refused)
    return bool(ours == theirs)


def everything(side: Side) -> dict[str, Any]:
    """Return all that a client can read."""
    experiments = [name for name in side.ids if name.kind == "experiment"]
    runs = [name for name in side.ids if name.kind == "run"]
    everywhere = {"experiment_ids": experiments, "max_results": 7}
    by_time = [{"field_name": "creation_time"}]
    calls = {
        "experiments": Call("search_experiments", {"view_type": 3, "max_results": 5}),
        "runs": Call("search_runs", {**everywhere, "run_view_type": 3}),
        "models": Call("search_logged_models", {**everywhere, "order_by": by_time}),
        "registered": Call("search_registered_models", {"max_results": 3}),
        "versions": Call("search_model_versions", {"max_results": 3}),
        "datasets": Call("store._search_datasets", {"experiment_ids": experiments}),
    }
    found = {what: answers(side, call) for what, call in calls.items()}
    for kind, method in (("run", "get_run"), ("experiment", "get_experiment")):
        for name in [name for name in side.ids if name.kind == kind]:
            found[str(name)] = side.do(Call(method, {f"{kind}_id": name}))
    for run in runs:
        for key in found[str(run)]["data"]["metrics"]:
            found[f"{run} {key}"] = side.do(Call("get_metric_history", {"run_id": run, "key": key}))
    return found


@pytest.mark.parametrize("seed", [1])
def test_calls_have_the_same_outcome_and_leave_the_same_state(empty: Both, seed: int) -> None:
    both, chance = empty, dice(seed)
    refused = 0
    for number, call in enumerate(Author(chance).write(CALLS)):
        both.clock.now_ms += chance.choice([1, 7, 2500]) if number else 0
        theirs, ours = answers(both.mlflow, call), answers(both.lake, call)
        if not is_the_same(call, theirs, ours):
            assert ours == theirs, f"call {number}: {call}"
        refused += isinstance(theirs, Refused)
        if number % EVERY == EVERY - 1:
            assert everything(both.lake) == everything(both.mlflow)
    assert everything(both.lake) == everything(both.mlflow)
    assert 20 < refused < CALLS / 2
    assert Id("run", 10) in both.mlflow.ids


# What differs on purpose: docs/guides/mlflow-differences.md says it, and why.


def on_both(both: Both, method: str, makes: Id | None = None, **given: Any) -> tuple[Any, Any]:  # noqa: ANN401 - of any call
    """Do a call on both; return MLflow's answer and the lake's."""
    both.clock.now_ms += 1
    call = Call(method, given, makes)
    return answers(both.mlflow, call), answers(both.lake, call)


def new_run(both: Both, name: str) -> tuple[Id, Id]:
    """Make an experiment and a run in both."""
    place = 1_000 + len(both.mlflow.ids)
    home, run = Id("experiment", place), Id("run", place)
    on_both(both, "create_experiment", home, name=name)
    on_both(both, "create_run", run, experiment_id=home, run_name=name)
    return home, run


def test_an_infinity_stays_one(both: Both) -> None:
    _, run = new_run(both, "infinite")
    on_both(both, "log_metric", run_id=run, key="loss", value=-math.inf, timestamp=1)
    theirs, ours = on_both(both, "get_run", run_id=run)
    assert theirs["data"]["metrics"]["loss"] == -1.7976931348623157e308
    assert ours["data"]["metrics"]["loss"] == -math.inf


def test_a_nan_of_a_logged_model_stays_one(both: Both) -> None:
    home, run = new_run(both, "no number")
    model = Id("model", 1_000)
    on_both(both, "create_logged_model", model, experiment_id=home, name="net")
    point = Made("Metric", ("loss", math.nan, 1, 0, model, None, None))
    on_both(both, "log_batch", run_id=run, metrics=[point])
    theirs, ours = on_both(both, "get_logged_model", model_id=model)
    assert [found["metrics"][0]["value"] for found in (theirs, ours)] == [0.0, "NaN"]


def test_a_run_is_not_restored_without_its_experiment(both: Both) -> None:
    home, run = new_run(both, "gone")
    on_both(both, "delete_experiment", experiment_id=home)
    theirs, ours = on_both(both, "restore_run", run_id=run)
    assert theirs is None
    assert ours == Refused("INVALID_PARAMETER_VALUE", "")
    assert "experiment" in ours.words


def test_a_refused_batch_leaves_nothing_behind(both: Both) -> None:
    _, run = new_run(both, "refused")
    point = Made("Metric", ("loss", 0.5, 1, 0, Id("model", -1), None, None))
    for refused in on_both(both, "log_batch", run_id=run, metrics=[point]):
        assert isinstance(refused, Refused)
    theirs, ours = on_both(both, "get_metric_history", run_id=run, key="loss")
    assert (len(theirs), len(ours)) == (1, 0)


@pytest.mark.parametrize("text", sorted(WIDER))
def test_a_lakes_own_grammar_works_through_mlflows_client(both: Both, text: str) -> None:
    home = [Id("experiment", 0)]
    theirs, ours = on_both(
        both, "search_runs", experiment_ids=home, filter_string=text, max_results=10
    )
    assert theirs == [Refused("INVALID_PARAMETER_VALUE", "")]
    assert not isinstance(ours[0], Refused)


def test_what_is_wrong_with_a_name_is_said(both: Both) -> None:
    new_run(both, "taken")
    home, _ = new_run(both, "free")
    theirs, ours = on_both(both, "rename_experiment", experiment_id=home, new_name="taken")
    assert (theirs.code, ours.code) == ("BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")
