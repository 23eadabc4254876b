"""Runs through MLflow's tracking store: made, found, ended, deleted."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from mlflow.entities import LifecycleStage, Metric, Param, Run, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

import runlake
from runlake.cli import main
from runlake.errors import StorageError
from runlake.lake_parts import rows_of
from runlake.mlflow_plugin.known import KnownRuns, known_runs
from runlake.mlflow_plugin.tracking import TrackingStore
from runlake.mlflow_plugin.uris import lake_url as url_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.filterwarnings("ignore:::mlflow"), pytest.mark.filesystems("local")]

NOW_MS = 1_790_000_000_123


def make_run(store: TrackingStore, experiment_id: str, **given: Any) -> Run:  # noqa: ANN401 - tests
    """Return a new run."""
    asked: dict[str, Any] = {
        "user_id": "ann",
        "start_time": NOW_MS,
        "tags": [],
        "run_name": None,
    } | given
    return store.create_run(experiment_id, **asked)


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """Return MLflow's code and text of what a call raises."""
    with pytest.raises(MlflowException) as caught:
        call()
    return caught.value.error_code, caught.value.message


def search(
    store: TrackingStore,
    experiment_id: str,
    *,
    view: int = ViewType.ACTIVE_ONLY,
    **given: Any,  # noqa: ANN401 - tests
) -> list[str]:
    """Return the names of the runs found."""
    asked: dict[str, Any] = {
        "filter_string": "",
        "max_results": 100,
        "order_by": None,
        "page_token": None,
    } | given
    found, _ = store._search_runs([experiment_id], run_view_type=view, **asked)
    return [run.info.run_name for run in found]


@pytest.mark.filesystems("local", "s3")
def test_run_made_is_read_back_by_another_lake_object_at_once(
    store: TrackingStore, experiment_id: str
) -> None:
    tags = [RunTag("team", "vision"), RunTag("mlflow.user", "ann")]
    made = make_run(store, experiment_id, run_name="svm", tags=tags)
    read = store.get_run(made.info.run_id)
    assert read.info == made.info
    assert read.data.tags == {"team": "vision", "mlflow.user": "ann", MLFLOW_RUN_NAME: "svm"}
    assert read.data.tags == made.data.tags
    assert (read.info.user_id, read.info.start_time, read.info.end_time) == ("ann", NOW_MS, None)
    assert (read.info.status, read.info.lifecycle_stage) == ("RUNNING", LifecycleStage.ACTIVE)
    assert read.inputs.dataset_inputs == []
    read.to_proto()
    with runlake.open(url_of(store.store_uri)) as other:
        record = other.get_run(made.info.run_id)
        assert record.info.run_name == "svm"
        assert record.info.status == "RUNNING"
        assert not record.info.is_stale


def test_create_run_takes_its_name_from_the_tag_or_makes_one(
    store: TrackingStore, experiment_id: str
) -> None:
    tagged = make_run(store, experiment_id, tags=[RunTag(MLFLOW_RUN_NAME, "by tag")])
    assert tagged.info.run_name == "by tag"
    nameless = make_run(store, experiment_id, run_name="")
    assert nameless.info.run_name
    assert nameless.data.tags[MLFLOW_RUN_NAME] == nameless.info.run_name
    both = {"run_name": "a", "tags": [RunTag(MLFLOW_RUN_NAME, "b")]}
    code, text = refused(lambda: make_run(store, experiment_id, **both))
    assert code == "INVALID_PARAMETER_VALUE"
    assert "run_name='a', mlflow.runName='b'" in text


def test_create_run_refuses_experiments_that_are_deleted_or_unknown(
    store: TrackingStore, experiment_id: str
) -> None:
    store.delete_experiment(experiment_id)
    code, text = refused(lambda: make_run(store, experiment_id))
    assert code == "INVALID_PARAMETER_VALUE"
    assert "must be in the 'active' state" in text
    assert refused(lambda: make_run(store, "77"))[0] == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize("status", ["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"])
def test_status_and_end_are_what_was_set_last(
    store: TrackingStore, experiment_id: str, status: str
) -> None:
    run_id = make_run(store, experiment_id).info.run_id
    told = store.update_run_info(run_id, RunStatus.from_string(status), NOW_MS + 5, None)
    assert (told.status, told.end_time) == (status, NOW_MS + 5)
    assert store.get_run(run_id).info == told
    again = store.update_run_info(run_id, RunStatus.RUNNING, None, None)
    assert (again.status, again.end_time) == ("RUNNING", NOW_MS + 5)
    assert store.get_run(run_id).info == again


def test_status_set_through_another_process_outdoes_the_maker_that_lives_on(
    store: TrackingStore, experiment_id: str
) -> None:
    run_id = make_run(store, experiment_id).info.run_id
    with runlake.open(url_of(store.store_uri)) as other:
        rows = rows_of(other, run_id, experiment_id=experiment_id, experiment_name="digits")
        rows.events([(run_id, "status", "set", float(NOW_MS * 1000), "FINISHED")])
        other.flush()
        info = store.get_run(run_id).info
        assert (info.status, info.end_time) == ("FINISHED", NOW_MS)
        assert other.get_run(run_id).info.status == "FINISHED"


def test_run_stays_running_when_its_maker_has_gone(
    store: TrackingStore, experiment_id: str
) -> None:
    run_id = make_run(store, experiment_id).info.run_id
    store.lake.close()
    assert store.get_run(run_id).info.status == "RUNNING"


def test_end_may_be_missing_where_none_was_given(store: TrackingStore, experiment_id: str) -> None:
    for name, end in (("a", 234), ("b", None), ("c", 456), ("d", -123)):
        run_id = make_run(store, experiment_id, run_name=name).info.run_id
        store.update_run_info(run_id, RunStatus.FINISHED, end, None)
        assert store.get_run(run_id).info.end_time == end
    assert search(store, experiment_id, order_by=["end_time ASC"]) == ["d", "a", "c", "b"]
    assert search(store, experiment_id, order_by=["end_time DESC"]) == ["c", "a", "d", "b"]


def test_name_and_its_tag_follow_each_other(store: TrackingStore, experiment_id: str) -> None:
    run_id = make_run(store, experiment_id, run_name="first").info.run_id

    def names() -> tuple[str, str | None]:
        run = store.get_run(run_id)
        return run.info.run_name, run.data.tags.get(MLFLOW_RUN_NAME)

    assert store.update_run_info(run_id, None, None, "second").status == "RUNNING"
    assert names() == ("second", "second")
    store.update_run_info(run_id, RunStatus.FINISHED, 1000, "")
    assert names() == ("second", "second")
    store.delete_tag(run_id, MLFLOW_RUN_NAME)
    assert names() == ("second", None)
    store.set_tag(run_id, RunTag(MLFLOW_RUN_NAME, "third"))
    assert names() == ("third", "third")
    store.log_batch(run_id, [], [], [RunTag(MLFLOW_RUN_NAME, "fourth")])
    assert names() == ("fourth", "fourth")
    assert store.update_run_info(run_id, None, None, None).run_name == "fourth"
    assert search(store, experiment_id, filter_string="run_name = 'fourth'") == ["fourth"]


def test_unknown_runs_are_missing_whatever_their_ids_look_like(store: TrackingStore) -> None:
    missing = "0" * 32
    for call in (
        lambda: store.get_run(missing),
        lambda: store.delete_run(missing),
        lambda: store.restore_run(missing),
        lambda: store.update_run_info(missing, RunStatus.FINISHED, 1, None),
        lambda: store.log_param(missing, Param("a", "b")),
        lambda: store._hard_delete_run(missing),
    ):
        code, text = refused(call)
        assert code == "RESOURCE_DOES_NOT_EXIST"
        assert text == f"Run with id={missing} not found"
    odd: list[Any] = ["x y", "../x", "a" * 300, "", None, 3]
    for unknown in odd:
        code, text = refused(partial(store.get_run, unknown))
        assert (code, text) == ("RESOURCE_DOES_NOT_EXIST", f"Run with id={unknown} not found")
    assert refused(partial(store.log_batch, "../x", [], [], []))[0] == "INVALID_PARAMETER_VALUE"


def test_deleted_run_takes_nothing_until_it_is_restored(
    store: TrackingStore, experiment_id: str
) -> None:
    run_id = make_run(store, experiment_id, run_name="r").info.run_id
    store.restore_run(run_id)  # of an active run: fine
    store.delete_run(run_id)
    store.delete_run(run_id)
    assert store.get_run(run_id).info.lifecycle_stage == LifecycleStage.DELETED
    assert store._get_deleted_runs() == [run_id]
    assert store._get_deleted_runs(older_than=3_600_000) == []
    for call in (
        lambda: store.log_metric(run_id, Metric("m", 1.0, 1, 0)),
        lambda: store.log_param(run_id, Param("p", "1")),
        lambda: store.set_tag(run_id, RunTag("t", "1")),
        lambda: store.delete_tag(run_id, MLFLOW_RUN_NAME),
        lambda: store.log_batch(run_id, [], [Param("p", "1")], []),
        lambda: store.update_run_info(run_id, RunStatus.FINISHED, 1, None),
    ):
        code, text = refused(call)
        assert code == "INVALID_PARAMETER_VALUE"
        assert text == (
            f"The run {run_id} must be in the 'active' state. Current state is deleted."
        )
    assert search(store, experiment_id) == []
    assert search(store, experiment_id, view=ViewType.DELETED_ONLY) == ["r"]
    store.restore_run(run_id)
    store.log_param(run_id, Param("p", "1"))
    assert store.get_run(run_id).data.params == {"p": "1"}
    assert store._get_deleted_runs() == []


def test_runs_of_a_deleted_experiment_are_deleted_also_where_they_were_known(
    store: TrackingStore, experiment_id: str
) -> None:
    run_id = make_run(store, experiment_id, run_name="r").info.run_id
    store.set_tag(run_id, RunTag("a", "b"))
    store.delete_experiment(experiment_id)
    assert refused(lambda: store.set_tag(run_id, RunTag("a", "c")))[0] == "INVALID_PARAMETER_VALUE"
    assert store.get_run(run_id).info.lifecycle_stage == LifecycleStage.DELETED
    assert store._get_deleted_runs() == [run_id]
    store.restore_experiment(experiment_id)
    store.set_tag(run_id, RunTag("a", "d"))
    assert store.get_run(run_id).data.tags["a"] == "d"


def test_run_deleted_by_another_process_takes_nothing_soon_after(
    store: TrackingStore, experiment_id: str
) -> None:
    run_id = make_run(store, experiment_id).info.run_id
    with runlake.open(url_of(store.store_uri)) as other:
        other.delete_run(run_id)
        known_runs(store.lake).doubt()  # as time does
        assert refused(lambda: store.set_tag(run_id, RunTag("a", "b")))[0] == (
            "INVALID_PARAMETER_VALUE"
        )
        other.restore_run(run_id)
        known_runs(store.lake).doubt()
        store.set_tag(run_id, RunTag("a", "b"))


def test_look_aside_finds_what_others_deleted_and_outlives_a_store_that_is_away(
    store: TrackingStore, experiment_id: str
) -> None:
    run_id = make_run(store, experiment_id).info.run_id
    known = KnownRuns(is_local=True)
    for answer in (StorageError("away"), {run_id}, set[str]()):
        seen = store._known_runs.get(run_id)
        assert seen is not None
        known.put(seen)
        known._staged_s = -math.inf

        def find(_: object, answer: Any = answer) -> Any:  # noqa: ANN401 - an error, or ids
            if isinstance(answer, Exception):
                raise answer
            return answer

        known.stage(find)
        with known._staging:  # until it has looked
            expected = LifecycleStage.DELETED if answer == {run_id} else LifecycleStage.ACTIVE
            assert seen.lifecycle_stage == expected


def test_hard_deleted_run_is_gone_with_its_points(store: TrackingStore, experiment_id: str) -> None:
    run_id = make_run(store, experiment_id).info.run_id
    store.log_metric(run_id, Metric("m", 1.0, 1, 0))
    store.delete_run(run_id)
    store._hard_delete_run(run_id)
    assert refused(lambda: store.get_run(run_id))[0] == "RESOURCE_DOES_NOT_EXIST"
    assert store.get_metric_history(run_id, "m") == []
    assert store._get_deleted_runs() == []


def test_runs_of_runlake_itself_show_with_their_names(store: TrackingStore) -> None:
    with runlake.open(url_of(store.store_uri)) as lake:
        with lake.start_run("native", experiment="own", tags={"a": "b"}) as run:
            run.log_params({"lr": 0.1})
            run.log({"loss": 0.5})
        home = run.info.experiment_id
    read = store.get_run(run.run_id)
    assert read.info.run_name == read.data.tags[MLFLOW_RUN_NAME] == "native"
    assert read.info.status == "FINISHED"
    assert read.info.end_time is not None
    assert (read.data.params, read.data.metrics) == ({"lr": "0.1"}, {"loss": 0.5})
    store.log_metric(run.run_id, Metric("late", 2.0, 1, 0))
    store.update_run_info(run.run_id, RunStatus.RUNNING, None, None)
    again = store.get_run(run.run_id)
    assert again.info.status == "RUNNING"
    assert again.data.metrics == {"loss": 0.5, "late": 2.0}
    assert search(store, home, filter_string="metrics.late = 2") == ["native"]


def test_search_pages_through_all_runs_and_keeps_what_they_hold(
    store: TrackingStore, experiment_id: str
) -> None:
    for place in range(5):
        run_id = make_run(
            store, experiment_id, run_name=f"r{place}", start_time=NOW_MS + place
        ).info.run_id
        metrics = [Metric("acc", place / 10, 5, 3), Metric("x", float("nan"), 5, 0)]
        store.log_batch(run_id, metrics, [Param("lr", str(place))], [RunTag("t", "v")])
    assert search(store, experiment_id) == ["r4", "r3", "r2", "r1", "r0"]
    first, token = store._search_runs(
        [experiment_id], "metrics.acc > 0.05", ViewType.ALL, 3, ["metrics.acc DESC"], None
    )
    rest, end = store._search_runs(
        [experiment_id], "metrics.acc > 0.05", ViewType.ALL, 3, ["metrics.acc DESC"], token
    )
    assert [run.info.run_name for run in [*first, *rest]] == ["r4", "r3", "r2", "r1"]
    assert end is None
    run = first[0]
    assert run.data.params == {"lr": "4"}
    assert run.data.tags == {"t": "v", MLFLOW_RUN_NAME: "r4"}
    acc = next(metric for metric in run.data._metric_objs if metric.key == "acc")
    assert (acc.value, acc.step, acc.timestamp) == (0.4, 3, 5)
    assert store.get_run(run.info.run_id).to_dictionary()["info"] == run.to_dictionary()["info"]
    assert store._search_runs([], "", ViewType.ALL, 3, None, None) == ([], None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"filter_string": "metrics.acc >> 1"},
        {"filter_string": "nonsense"},
        {"order_by": ["metrics."]},
        {"max_results": 0},
        {"max_results": 50_001},
        {"page_token": "nonsense"},
    ],
)
def test_wrong_searches_are_refused_with_mlflows_code(
    store: TrackingStore, experiment_id: str, wrong: dict[str, Any]
) -> None:
    make_run(store, experiment_id)
    assert refused(lambda: search(store, experiment_id, **wrong))[0] == "INVALID_PARAMETER_VALUE"


def test_wrong_searches_are_refused_in_mlflows_words_and_ours(
    store: TrackingStore, experiment_id: str
) -> None:
    def text(**given: Any) -> str:  # noqa: ANN401 - tests
        code, text = refused(lambda: search(store, experiment_id, **given))
        assert code == "INVALID_PARAMETER_VALUE"
        return text

    for wanted in ("experiment_id = '0'", "attributes.lifecycle_stage = 'active'", "acc > 1"):
        key = wanted.removeprefix("attributes.").partition(" ")[0]
        assert text(filter_string=wanted).startswith(f"Invalid attribute key '{key}' specified")
    found = text(filter_string="metrics.acc > '1'")
    assert "Expected numeric value type for metric" in found
    assert "line 1, column 15" in found
    assert text(order_by=["metrics.acc UP"]).startswith("Invalid ordering key in order_by clause")
    for wanted in ("metrics.acc IS NULL", "status IS NOT NULL"):
        assert text(filter_string=wanted).startswith("IS NULL / IS NOT NULL is only supported")
    assert search(store, experiment_id, filter_string="tags.a IS NULL OR params.a IS NULL") == []
    no_place = {"page_token": "nonsense"}
    assert text(**no_place).startswith("Invalid page token")
    # MLflow reads the first, and its parser fails at the second.
    for wanted in ("metrics.acc > 1 AND", "dataset.context IN (rbf)"):
        assert text(filter_string=wanted).startswith("line 1, column")


def test_runs_are_found_and_ordered_by_where_their_artifacts_lie(
    store: TrackingStore, experiment_id: str
) -> None:
    far = store.create_experiment("far", "s3://bucket/below?key=1")
    runs = [make_run(store, home, run_name=home) for home in (far, experiment_id)]
    places = {run.info.run_name: run.info.artifact_uri for run in runs}
    assert places[far].endswith(f"{runs[0].info.run_id}/artifacts?key=1")

    def found(filter_string: str, order_by: list[str] | None = None) -> list[str]:
        homes = [far, experiment_id]
        listed, _ = store._search_runs(homes, filter_string, ViewType.ALL, 9, order_by, None)
        assert all(places[run.info.run_name] == run.info.artifact_uri for run in listed)
        return [run.info.run_name for run in listed]

    for home, place in places.items():
        assert found(f"attr.artifact_uri = '{place}'") == [home]
        assert found(f"artifact_uri ILIKE '{place.upper()}%'") == [home]
    assert found("artifact_uri LIKE '%artifacts?key=1'") == [far]
    ordered = sorted(places, key=lambda home: places[home])
    assert found("", ["artifact_uri"]) == ordered
    assert found("", ["artifact_uri DESC"]) == ordered[::-1]


def test_odd_names_users_and_statuses_do_no_harm_to_what_comes_behind(
    store: TrackingStore, experiment_id: str
) -> None:
    odd: Any = 3
    run_id = make_run(store, experiment_id, user_id=odd, run_name=odd).info.run_id
    assert store.update_run_info(run_id, None, None, odd + 1).run_name == "4"
    info = store.get_run(run_id).info
    assert (info.user_id, info.run_name) == ("3", "4")
    code, text = refused(lambda: store.update_run_info(run_id, 9, None, "five"))
    assert (code, "run status 9" in text) == ("INVALID_PARAMETER_VALUE", True)
    # A run keeps its name where the tag is emptied.
    store.set_tag(run_id, RunTag(MLFLOW_RUN_NAME, ""))
    store.log_batch(run_id, [], [], [RunTag(MLFLOW_RUN_NAME, ""), RunTag("t", "v")])
    run = store.get_run(run_id)
    assert run.data.tags == {MLFLOW_RUN_NAME: "4", "t": "v"}


def test_times_that_no_calendar_has_are_kept_and_break_no_search(
    store: TrackingStore, experiment_id: str
) -> None:
    far_ms = 9 * 10**14  # microseconds where milliseconds were meant
    for name, start_ms, end_ms in (("late", 0, far_ms), ("far", far_ms, 0), ("odd", -far_ms, None)):
        run = make_run(store, experiment_id, run_name=name, start_time=start_ms)
        store.update_run_info(run.info.run_id, RunStatus.FINISHED, end_ms, None)
    make_run(store, experiment_id, run_name="open", start_time=far_ms)
    assert search(store, experiment_id, order_by=["end_time DESC", "run_name"])[:2] == [
        "late",
        "far",
    ]
    assert search(store, experiment_id, filter_string=f"end_time = {far_ms}") == ["late"]
    code, _ = refused(lambda: store.update_run_info(run.info.run_id, None, 2**63, None))
    assert code == "INVALID_PARAMETER_VALUE"
    store.lake.flush()
    listed = CliRunner().invoke(main, ["ls", "--lake", store.lake.url])
    assert listed.exit_code == 0, listed.output
    assert "900000000000000000 us since 1970" in listed.stdout


def test_nested_runs_are_found_by_their_parents_tag(
    store: TrackingStore, experiment_id: str
) -> None:
    parent = make_run(store, experiment_id, run_name="parent").info.run_id
    make_run(store, experiment_id, run_name="child", tags=[RunTag(MLFLOW_PARENT_RUN_ID, parent)])
    wanted = f"tags.mlflow.parentRunId = '{parent}'"
    assert search(store, experiment_id, filter_string=wanted) == ["child"]
    nested = store.lake.sql("SELECT run_name, parent_run_id FROM runs WHERE parent_run_id <> ''")
    assert nested.rows() == [("child", parent)]


def test_forked_or_other_store_objects_of_one_address_know_the_same_runs(
    store: TrackingStore, experiment_id: str
) -> None:
    run_id = make_run(store, experiment_id).info.run_id
    other = TrackingStore(store.store_uri)
    assert other.lake is store.lake
    other.log_param(run_id, Param("p", "1"))
    code, _ = refused(lambda: store.log_param(run_id, Param("p", "2")))
    assert code == "INVALID_PARAMETER_VALUE"


def test_create_run_without_a_start_begins_now(store: TrackingStore, experiment_id: str) -> None:
    before = time.time_ns() // 1_000_000
    started = make_run(store, experiment_id, start_time=None).info.start_time
    assert before <= started <= time.time_ns() // 1_000_000
