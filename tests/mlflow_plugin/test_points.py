"""Metrics, params and tags through MLflow's tracking store, and their histories."""

from __future__ import annotations

import json
import math
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runlake.mlflow_plugin.tracking import TrackingStore

pytestmark = [pytest.mark.filterwarnings("ignore:::mlflow"), pytest.mark.filesystems("local")]

WRONG = "INVALID_PARAMETER_VALUE"
ODD = [math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1.0]
POINTS = st.lists(
    st.tuples(
        st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 3) | st.integers(0, 4_000_000_000_000),
        st.sampled_from(ODD) | st.floats(),
    ),
    max_size=30,
)


@pytest.fixture
def run_id(store: TrackingStore, experiment_id: str) -> str:
    """A run of `store`."""
    made: str = store.create_run(experiment_id, "ann", 1, [], "r").info.run_id
    return made


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """Return MLflow's code and text of what a call raises."""
    with pytest.raises(MlflowException) as caught:
        call()
    return caught.value.error_code, caught.value.message


def bits(value: float) -> bytes:
    """Return what tells floats apart that are not equal to themselves; all NaN are one."""
    return b"nan" if math.isnan(value) else struct.pack("d", value + 0.0)


def shown(metrics: Iterable[Metric]) -> list[tuple[int, int, bytes]]:
    """Return points as (step, time, value)."""
    return [(each.step, each.timestamp, bits(each.value)) for each in metrics]


@pytest.mark.filesystems("local", "s3")
def test_batch_is_read_back_whole(store: TrackingStore, run_id: str) -> None:
    metrics = [Metric("loss", 1 / (step + 1), 1000 + step, step) for step in range(1000)]
    store.log_batch(run_id, metrics, [], [])
    store.log_batch(run_id, [], [Param(f"p{n}", str(n)) for n in range(100)], [])
    store.log_batch(run_id, [], [], [RunTag(f"t{n}", str(n)) for n in range(100)])
    data = store.get_run(run_id).data
    assert data.metrics == {"loss": 1 / 1000}
    assert data.params == {f"p{n}": str(n) for n in range(100)}
    assert {key: data.tags[key] for key in data.tags if key[0] == "t"} == {
        f"t{n}": str(n) for n in range(100)
    }
    assert shown(store.get_metric_history(run_id, "loss")) == shown(metrics)


@given(POINTS)
@settings(
    max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_history_holds_every_point_once_and_the_greatest_is_the_last(
    store: TrackingStore, points: list[tuple[int, int, float]]
) -> None:
    run_id = store.create_run("0", "ann", 1, [], None).info.run_id
    metrics = [Metric("m", value, time, step) for step, time, value in points]
    for metric in metrics[:2]:
        store.log_metric(run_id, metric)
    store.log_batch(run_id, metrics[2:], [], [])
    history = store.get_metric_history(run_id, "m")
    assert sorted(shown(history)) == sorted(set(shown(metrics)))
    assert [each.timestamp for each in history] == sorted(each.timestamp for each in history)
    sampled = store.get_metric_history_bulk_interval([run_id], "m", 50, None, None)
    assert sorted(shown(sampled)) == sorted(set(shown(metrics)))
    if not points:
        return
    (last,) = store.get_run(run_id).data._metric_objs
    step, time = max((step, time) for step, time, _ in points)
    tied = [value for *place, value in points if tuple(place) == (step, time)]
    numbers = [value for value in tied if not math.isnan(value)]
    assert (last.step, last.timestamp) == (step, time)
    assert bits(last.value) == bits(max(numbers) if numbers else math.nan)


def test_history_pages_lead_from_one_to_the_next(store: TrackingStore, run_id: str) -> None:
    metrics = [Metric("m", float(n), 1000 + n, n) for n in range(10)]
    store.log_batch(run_id, metrics, [], [])
    pages: list[list[float]] = []
    token = None
    while not pages or token:
        page = store.get_metric_history(run_id, "m", max_results=4, page_token=token)
        pages.append([each.value for each in page])
        token = page.token
    assert pages == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0]]
    assert store.get_metric_history(run_id, "m", max_results=0) == []
    assert store.get_metric_history(run_id, "m").token is None
    assert store.get_metric_history(run_id, "nothing") == []
    assert store.get_metric_history("0" * 32, "m") == []
    wrong = partial(store.get_metric_history, run_id, "m", None, "nonsense")
    code, text = refused(wrong)
    assert code == WRONG
    assert text.startswith("Invalid page token")


def test_bulk_histories_are_cut_by_run_and_by_step(store: TrackingStore) -> None:
    runs = [store.create_run("0", "ann", 1, [], None).info.run_id for _ in range(3)]
    for place, run_id in enumerate(runs[:2]):
        points = [Metric("m", place + n / 100, 1000 + n, n) for n in range(50)]
        store.log_batch(run_id, points, [], [])
    bulk = store.get_metric_history_bulk(runs, "m", 60)
    assert [each.run_id for each in bulk] == sorted([runs[0]] * 50 + [runs[1]] * 50)[:60]
    cut = store.get_metric_history_bulk_interval([runs[1], runs[2], runs[0]], "m", 4, 10, 20)
    assert [each.run_id for each in cut] == [runs[1]] * 4 + [runs[0]] * 4
    assert [each.step for each in cut] == [10, 13, 16, 20] * 2
    one = store.get_metric_history_bulk_interval(runs[:1], "m", 1, None, None)
    assert [each.step for each in one] == [49]
    half = refused(lambda: store.get_metric_history_bulk_interval(runs, "m", 4, 1, None))
    assert half[0] == WRONG
    steps = store.get_metric_history_bulk_interval_from_steps(runs[0], "m", [7, 3, 99], 10)
    assert [each.step for each in steps] == [3, 7]
    assert store.get_max_step_for_metric(runs[0], "m") == 49
    assert store.get_max_step_for_metric(runs[2], "m") == 0


def test_param_keeps_its_first_value(store: TrackingStore, run_id: str) -> None:
    store.log_param(run_id, Param("lr", "0.1"))
    store.log_param(run_id, Param("lr", "0.1"))
    store.log_param(run_id, Param("empty", ""))
    code, text = refused(lambda: store.log_param(run_id, Param("lr", "0.2")))
    assert code == WRONG
    assert text.startswith("Changing param values is not allowed. Param with key='lr'")
    both = [Param("new", "1"), Param("lr", "0.3")]
    code, text = refused(
        lambda: store.log_batch(run_id, [Metric("m", 1.0, 1, 0)], both, [RunTag("t", "1")])
    )
    assert code == WRONG
    assert "{'key': 'lr', 'old_value': '0.1', 'new_value': '0.3'}" in text
    data = store.get_run(run_id).data
    assert data.params == {"lr": "0.1", "empty": ""}
    assert (data.metrics, "t" in data.tags) == ({}, False)
    twice = [Param("x", "1"), Param("x", "1")]
    assert "Duplicate parameter keys" in refused(lambda: store.log_batch(run_id, [], twice, []))[1]
    assert refused(lambda: store.log_param(run_id, Param("none", None)))[0] == "BAD_REQUEST"


def test_wrong_metric_is_refused_and_nothing_of_its_batch_is_kept(
    store: TrackingStore, run_id: str
) -> None:
    good = Metric("good", 1.0, 1, 0)
    for wrong in (
        Metric("m", None, 1, 0),
        Metric("m", "1", 1, 0),
        Metric("m", True, 1, 0),  # noqa: FBT003 - what MLflow takes
        Metric("m", 1.0, -1, 0),
        Metric("m", 1.0, 1, "0"),
        Metric("m", 1.0, 1, 0.5),
        Metric("m", 1.0, 1, 2**63),
        Metric("m", 1.0, 2**62, 0),
        Metric("m" * 251, 1.0, 1, 0),
        Metric("a//b", 1.0, 1, 0),
        Metric("a@b", 1.0, 1, 0),
        Metric(None, 1.0, 1, 0),
    ):
        one, batch = partial(store.log_metric, run_id, wrong), [good, wrong]
        assert refused(one)[0] == WRONG
        assert refused(partial(store.log_batch, run_id, batch, [], []))[0] == WRONG
    assert store.get_run(run_id).data.metrics == {}


def test_limits_of_a_batch_and_of_texts_are_mlflows(
    store: TrackingStore, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = [Metric("m", 1.0, n, 0) for n in range(1001)]
    params = [Param(f"p{n}", "1") for n in range(101)]
    tags = [RunTag(f"t{n}", "1") for n in range(101)]
    mixed: Any = (metrics[:999], params[:2], [])
    batches: Any = [(metrics, [], []), ([], params, []), ([], [], tags), mixed]
    for batch in batches:
        assert "at most" in refused(partial(store.log_batch, run_id, *batch))[1]
    long = "x" * 8001
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    assert "exceeds the maximum" in refused(lambda: store.log_param(run_id, Param("p", long)))[1]
    assert "exceeds the maximum" in refused(lambda: store.set_tag(run_id, RunTag("t", long)))[1]
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "true")
    store.log_param(run_id, Param("p", long))
    store.set_tag(run_id, RunTag("t", long))
    data = store.get_run(run_id).data
    assert (len(data.params["p"]), len(data.tags["t"])) == (6000, 8000)


def test_tag_may_change_and_go(store: TrackingStore, run_id: str) -> None:
    for value in ("1", "2"):
        store.set_tag(run_id, RunTag("t", value))
    assert store.get_run(run_id).data.tags["t"] == "2"
    store.log_batch(run_id, [], [], [RunTag("t", "3"), RunTag("t", "4")])
    assert store.get_run(run_id).data.tags["t"] == "4"
    store.delete_tag(run_id, "t")
    assert "t" not in store.get_run(run_id).data.tags
    code, text = refused(lambda: store.delete_tag(run_id, "t"))
    assert (code, text) == (
        "RESOURCE_DOES_NOT_EXIST",
        f"No tag with name: t in run with id {run_id}",
    )


def test_rows_are_taken_after_the_end_and_none_is_lost_between_many_seals(
    store: TrackingStore, run_id: str
) -> None:
    for place in range(40):  # more uploads than a seal takes, each behind the end
        store.log_metric(run_id, Metric("m", float(place), 1000, place))
        store.update_run_info(run_id, RunStatus.FINISHED, 1000 + place, None)
    assert len(store.get_metric_history(run_id, "m")) == 40
    (last,) = store.get_run(run_id).data._metric_objs
    assert (last.value, last.step) == (39.0, 39)
    counted = store.lake.sql("SELECT count, last, first FROM metric_summary WHERE key = 'm'")
    assert counted.rows() == [(40, 39.0, 0.0)]


def test_many_threads_log_to_runs_that_end_meanwhile(store: TrackingStore) -> None:
    runs = [store.create_run("0", "ann", 1, [], None).info.run_id for _ in range(3)]

    def log(worker: int) -> None:
        for step in range(60):
            store.log_metric(runs[step % 3], Metric(f"w{worker}", float(step), 1, step))
            if step % 20 == worker:
                store.update_run_info(runs[step % 3], RunStatus.FINISHED, step, None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(log, range(4)))
    for place, run_id in enumerate(runs):
        for worker in range(4):
            steps = [each.step for each in store.get_metric_history(run_id, f"w{worker}")]
            assert steps == list(range(place, 60, 3))


def test_old_clients_models_are_listed_in_a_tag(store: TrackingStore, run_id: str) -> None:
    flavors = {"python_function": {"config": {"a": 1}, "code": "code"}}
    model = Model(artifact_path="model", run_id=run_id, flavors=flavors)
    store.record_logged_model(run_id, model)
    store.record_logged_model(run_id, model)
    listed = json.loads(store.get_run(run_id).data.tags["mlflow.log-model.history"])
    assert listed == [model.get_tags_dict()] * 2
    with pytest.raises(TypeError, match=r"should be mlflow\.models\.Model"):
        store.record_logged_model(run_id, {})


def test_asynchronous_logging_brings_everything(client: Any) -> None:  # noqa: ANN401 - MLflow's
    run_id = client.create_run("0").info.run_id
    waiting = [
        client.log_metric(run_id, "m", step / 10, step=step, synchronous=False)
        for step in range(50)
    ]
    client.log_param(run_id, "p", 1, synchronous=False).wait()
    for each in waiting:
        each.wait()
    client.set_terminated(run_id)
    run = client.get_run(run_id)
    assert (run.data.metrics, run.data.params) == ({"m": 4.9}, {"p": "1"})
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run_id, "m")) == 50
