"""The module functions, as scripts use them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pytest

import runlake
from runlake import active, schema
from runlake.errors import InvalidInputError, NotFoundError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runlake.query.entities import RunRecord


@pytest.fixture(autouse=True)
def own_lake(tmp_path: Path) -> Iterator[str]:
    """A module state of its own for each test."""
    active.forget()
    url = str(tmp_path / "lake")
    runlake.set_tracking_uri(url)
    yield url
    active.forget()


def test_a_script_logs_and_finds_what_it_logged() -> None:
    runlake.set_experiment("digits")
    with runlake.start_run(run_name="svm", tags={"team": "vision"}, description="first") as run:
        runlake.log_param("C", 1.0)
        runlake.log_params({"kernel": "rbf"})
        runlake.log_metric("acc", 0.5)
        runlake.log_metrics({"acc": 0.9, "loss": 0.1}, step=1)
        runlake.log({"loss": 0.05})
        runlake.set_tag("stage", "draft")
        runlake.delete_tag("team")
        runlake.log_text("hello", "a.txt")
        assert runlake.active_run() is run
        assert runlake.get_artifact_uri("a.txt").endswith(f"/{run.run_id}/a.txt")
    assert runlake.active_run() is None
    assert runlake.last_active_run() is run
    found = runlake.search_runs(filter_string="metrics.acc > 0.8 and params.kernel = 'rbf'")
    assert isinstance(found, pl.DataFrame)
    assert found["run_id"].to_list() == [run.run_id]
    tags = runlake.get_run(run.run_id).data.tags
    assert tags == {"stage": "draft", "mlflow.note.content": "first"}


def test_a_log_call_without_a_run_opens_one() -> None:
    runlake.log_metric("loss", 1.0)
    run = runlake.active_run()
    assert run is not None
    runlake.end_run()
    assert runlake.get_run(run.run_id).info.status == schema.FINISHED


def test_a_second_run_must_be_nested() -> None:
    with runlake.start_run() as outer:
        with pytest.raises(StateError, match="nested=True"):
            runlake.start_run()
        with runlake.start_run(nested=True) as inner:
            assert runlake.active_run() is inner
        assert runlake.active_run() is outer
    assert runlake.get_run(inner.run_id).info.parent_run_id == outer.run_id


def test_a_block_that_raises_fails_the_run_and_keeps_the_traceback() -> None:
    with pytest.raises(ZeroDivisionError), runlake.start_run() as run:
        _ = 1 / 0
    assert runlake.get_run(run.run_id).info.status == schema.FAILED
    lake = runlake.open(runlake.get_tracking_uri())
    note = lake.sql("SELECT value FROM events WHERE kind = 'note' AND key = 'traceback'")
    assert "ZeroDivisionError" in note["value"].item()


def test_a_thread_without_a_run_logs_to_the_run_of_the_process() -> None:
    with runlake.start_run() as run:
        thread = threading.Thread(target=runlake.log_metric, args=("loss", 0.5))
        thread.start()
        thread.join()
    assert runlake.get_run(run.run_id).data.metrics == {"loss": 0.5}


def test_threads_may_each_have_a_run_of_their_own() -> None:
    ids = []

    def work(value: float) -> None:
        with runlake.start_run() as run:
            runlake.log_metric("value", value)
            ids.append((run.run_id, value))

    threads = [threading.Thread(target=work, args=(float(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {runlake.get_run(run_id).data.metrics["value"] for run_id, _ in ids} == {0, 1, 2, 3}
    assert all(runlake.get_run(run_id).data.metrics == {"value": value} for run_id, value in ids)


def test_a_run_is_resumed_by_its_id_also_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with runlake.start_run(run_id="b" * 32):
        runlake.log_metric("loss", 1.0)
    with runlake.start_run(run_id="b" * 32):
        runlake.log_metric("loss", 0.5, step=1)
    assert runlake.get_run("b" * 32).data.metrics == {"loss": 0.5}
    monkeypatch.setenv("RUNLAKE_RUN_ID", "b" * 32)
    url = runlake.get_tracking_uri()
    active.forget()
    runlake.set_tracking_uri(url)
    with runlake.start_run() as again:
        assert again.run_id == "b" * 32
    with runlake.start_run() as other:
        assert other.run_id != "b" * 32


def test_a_param_keeps_its_value_when_its_run_is_resumed() -> None:
    with runlake.start_run() as run:
        runlake.log_param("C", 1)
    with runlake.start_run(run_id=run.run_id):
        assert runlake.log_param("C", 1) == 1
        with pytest.raises(InvalidInputError, match="cannot become"):
            runlake.log_param("C", 2)
    url = runlake.get_tracking_uri()
    active.forget()
    runlake.set_tracking_uri(url)
    with runlake.start_run(run_id=run.run_id), pytest.raises(InvalidInputError, match="cannot"):
        runlake.log_param("C", 2)


def test_experiments_have_mlflows_verbs() -> None:
    experiment = runlake.set_experiment("digits")
    assert (experiment.name, experiment.lifecycle_stage) == ("digits", "active")
    runlake.set_experiment_tags({"team": "vision"})
    runlake.set_experiment_tag("goal", "fun")
    found = runlake.get_experiment_by_name("digits")
    assert found is not None
    assert found.tags == {"team": "vision", "goal": "fun"}
    assert runlake.get_experiment_by_name("nothing") is None
    other = runlake.create_experiment("other")
    assert {each.name for each in runlake.search_experiments()} == {"digits", "other"}
    runlake.delete_experiment(other)
    assert [each.name for each in runlake.search_experiments()] == ["digits"]
    runlake.restore_experiment(other)
    assert runlake.get_experiment(other).lifecycle_stage == "active"
    with pytest.raises(NotFoundError):
        runlake.set_experiment(experiment_id="nothing")
    with pytest.raises(InvalidInputError):
        runlake.set_experiment()


def test_search_runs_looks_in_the_current_experiment_unless_told() -> None:
    runlake.set_experiment("one")
    with runlake.start_run() as first:
        pass
    runlake.set_experiment("two")
    with runlake.start_run() as second:
        pass
    assert [r.info.run_id for r in records()] == [second.run_id]
    assert [r.info.run_id for r in records(experiment_names=["one"])] == [first.run_id]
    assert len(records(search_all_experiments=True)) == 2
    frame = runlake.search_runs(output_format="pandas")
    assert isinstance(frame, pd.DataFrame)
    assert frame["run_id"].tolist() == [second.run_id]
    with pytest.raises(InvalidInputError, match="polars"):
        runlake.search_runs(output_format="spark")  # type: ignore[call-overload]
    with pytest.raises(InvalidInputError, match="filter_string"):
        runlake.search_runs("metrics.loss < 2")
    with pytest.raises(InvalidInputError, match="not both"):
        records(experiment_ids=["0"], experiment_names=["one"])


def test_searches_take_mlflows_arguments_by_position() -> None:
    runlake.set_experiment("one")
    with runlake.start_run(run_name="a"):
        runlake.log_metric("acc", 0.5)
    with runlake.start_run(run_name="b"):
        runlake.log_metric("acc", 0.9)
    names = runlake.search_runs(None, "metrics.acc > 0.1", 1, 1, ["metrics.acc ASC"])["run_name"]
    assert names.to_list() == ["a"]
    assert runlake.search_runs(None, "", 2).is_empty()
    runlake.create_experiment("two")
    found = runlake.search_experiments(3, 1, "name IN ('one', 'two')", ["name DESC"])
    assert [each.name for each in found] == ["two"]
    assert found.token is not None


def records(**arguments: Any) -> list[RunRecord]:  # noqa: ANN401 - passed on
    """Search with the output format `list`."""
    return runlake.search_runs(output_format="list", **arguments)


def test_batches_take_tuples_mappings_and_mlflows_objects() -> None:
    with runlake.start_run() as run:
        runlake.log_batch(
            metrics=[("loss", 0.5, 1), ("acc", 0.9, 1, 1_700_000_000_000)],
            params={"C": 1},
            tags=[("team", "vision")],
        )
    data = runlake.get_run(run.run_id).data
    assert (data.metrics, data.params, data.tags) == (
        {"loss": 0.5, "acc": 0.9},
        {"C": "1"},
        {"team": "vision"},
    )


def test_the_lake_cannot_change_under_an_active_run(tmp_path: Path) -> None:
    with runlake.start_run(), pytest.raises(StateError, match="active"):
        runlake.set_tracking_uri(tmp_path / "other")


def test_deleted_runs_are_restored() -> None:
    with runlake.start_run() as run:
        pass
    runlake.delete_run(run.run_id)
    assert records() == []
    runlake.restore_run(run.run_id)
    assert [each.info.run_id for each in records()] == [run.run_id]


def test_flush_returns_when_other_processes_can_read(own_lake: str) -> None:
    with runlake.start_run() as run:
        runlake.log_metric("loss", 0.5)
        runlake.flush()
        other = runlake.open(own_lake, read_only=True)
        assert other.get_run(run.run_id).data.metrics == {"loss": 0.5}


def test_a_data_set_is_logged_to_the_active_run() -> None:
    with runlake.start_run() as run:
        runlake.log_input(runlake.Dataset(name="digits", digest="1"), context="training")
    found = active.current_lake().sql("SELECT run_id, name, digest, context FROM inputs")
    assert found.rows() == [(run.info.run_id, "digits", "1", "training")]
