"""Logged models through MLflow's tracking store."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.artifacts import download_artifacts
from mlflow.entities import (
    LoggedModel,
    LoggedModelParameter,
    LoggedModelStatus,
    LoggedModelTag,
    Metric,
)

import runlake
from runlake.mlflow_plugin.tracking import TrackingStore
from runlake.mlflow_plugin.uris import lake_url as url_of
from tests.mlflow_plugin.calls import next_ms, refused

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = [pytest.mark.filterwarnings("ignore:::mlflow"), pytest.mark.filesystems("local")]

MISSING, INVALID = "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"
READY = LoggedModelStatus.READY


@pytest.fixture
def run_id(store: TrackingStore, experiment_id: str) -> str:
    """A run of `store`."""
    run = store.create_run(experiment_id, user_id="ann", start_time=0, tags=[], run_name="r")
    return str(run.info.run_id)


def make(store: TrackingStore, experiment_id: str, name: str, **given: Any) -> LoggedModel:  # noqa: ANN401
    """Make a model a millisecond after the one before."""
    next_ms()
    given["params"] = [LoggedModelParameter(*each) for each in given.get("params", {}).items()]
    given["tags"] = [LoggedModelTag(*each) for each in given.get("tags", {}).items()]
    return store.create_logged_model(experiment_id, name, **given)


def measured(model: LoggedModel, key: str, value: float, **given: Any) -> Metric:  # noqa: ANN401
    """Return a point measured of a model; `on` is the data set."""
    on = given.pop("on", None)
    parts = {"timestamp": 1, "step": 0} | given
    if on is not None:
        parts |= {"dataset_name": on[0], "dataset_digest": on[1]}
    return Metric(key, value, model_id=model.model_id, **parts)


def log(store: TrackingStore, run_id: str, *metrics: Metric) -> None:
    """Log points of a run."""
    store.log_batch(run_id, metrics=list(metrics), params=[], tags=[])


def names(found: Sequence[LoggedModel]) -> list[str]:
    """Return the names of models."""
    return [model.name for model in found]


@pytest.mark.filesystems("local", "s3")
def test_model_made_is_read_back_by_another_store_at_once(
    store: TrackingStore, experiment_id: str, run_id: str
) -> None:
    before_ms = next_ms()
    made = make(
        store,
        experiment_id,
        "svm",
        source_run_id=run_id,
        model_type="agent",
        params={"C": "1", "a/b": "x"},
        tags={"team": "vision"},
    )
    other = TrackingStore(store.store_uri)
    read = other.get_logged_model(made.model_id)
    assert read.to_dictionary() == made.to_dictionary()
    assert (read.name, read.model_type, read.source_run_id) == ("svm", "agent", run_id)
    assert (read.params, read.tags) == ({"C": "1", "a/b": "x"}, {"team": "vision"})
    assert read.status == LoggedModelStatus.PENDING
    assert read.creation_timestamp == read.last_updated_timestamp >= before_ms
    place = f"{store.store_uri}/@artifacts/{experiment_id}/{run_id}/_models/{made.model_id}"
    assert read.artifact_location == place
    assert read.metrics is None
    read.to_proto()
    with runlake.open(url_of(store.store_uri)) as lake:
        (row,) = lake.sql("SELECT model_id, source_run_id, status FROM logged_models").rows()
    assert row == (made.model_id, run_id, "PENDING")


def test_model_without_a_run_has_a_place_and_is_no_run(
    store: TrackingStore, experiment_id: str
) -> None:
    made = store.create_logged_model(experiment_id)
    assert made.name
    assert made.model_id.startswith("m-")
    place = f"{store.store_uri}/@artifacts/{experiment_id}/{made.model_id}"
    assert made.artifact_location == place
    served = TrackingStore(store.store_uri, "mlflow-artifacts:/")
    place = f"mlflow-artifacts:/{experiment_id}/{made.model_id}/artifacts"
    assert served.get_logged_model(made.model_id).artifact_location == place
    assert refused(lambda: store.get_run(made.model_id))[0] == MISSING
    assert store._search_runs([experiment_id], "", 3, 10, None, None) == ([], None)


def test_model_of_a_served_run_lies_in_the_run(
    store: TrackingStore, experiment_id: str, run_id: str
) -> None:
    served = TrackingStore(store.store_uri, "mlflow-artifacts:/")
    made = served.create_logged_model(experiment_id, source_run_id=run_id)
    root = served.get_run(run_id).info.artifact_uri
    assert made.artifact_location == f"{root}/_models/{made.model_id}"


@pytest.mark.parametrize("name", ["", "a/b", "a.b", "a:b", "a%b", "a'b", 'a"b'])
def test_name_that_mlflow_refuses_is_refused(
    store: TrackingStore, experiment_id: str, name: str
) -> None:
    code, text = refused(lambda: store.create_logged_model(experiment_id, name=name))
    assert (code, "Invalid model name" in text) == (INVALID, True)


def test_model_needs_an_active_experiment(store: TrackingStore, experiment_id: str) -> None:
    assert refused(lambda: store.create_logged_model("77"))[0] == MISSING
    store.delete_experiment(experiment_id)
    assert refused(lambda: store.create_logged_model(experiment_id))[0] == INVALID


def test_unknown_model_is_said_to_be_unknown(store: TrackingStore) -> None:
    calls = [
        lambda: store.get_logged_model("m-1"),
        lambda: store.finalize_logged_model("m-1", READY),
        lambda: store.set_logged_model_tags("m-1", [LoggedModelTag("a", "b")]),
        lambda: store.delete_logged_model_tag("m-1", "a"),
        lambda: store.log_logged_model_params("m-1", [LoggedModelParameter("a", "b")]),
        lambda: store.delete_logged_model("m-1"),
        lambda: store._hard_delete_logged_model("m-1"),
    ]
    said = (MISSING, "Logged model with ID 'm-1' not found.")
    assert [refused(call) for call in calls] == [said for _ in calls]


def test_status_moves_as_it_is_said(store: TrackingStore, experiment_id: str) -> None:
    made = make(store, experiment_id, "svm")
    for status in (READY, LoggedModelStatus.FAILED, READY):
        before_ms = next_ms()
        told = store.finalize_logged_model(made.model_id, status)
        assert store.get_logged_model(made.model_id).to_dictionary() == told.to_dictionary()
        assert told.status == status
        assert told.last_updated_timestamp >= before_ms
        assert told.creation_timestamp == made.creation_timestamp
    assert refused(lambda: store.finalize_logged_model(made.model_id, 0))[0] == INVALID


def test_tags_and_params_are_added_and_only_tags_change(
    store: TrackingStore, experiment_id: str
) -> None:
    made = make(store, experiment_id, "svm").model_id
    store.set_logged_model_tags(made, [LoggedModelTag("a", "1"), LoggedModelTag("a", "2")])
    store.set_logged_model_tags(made, [LoggedModelTag("b c", 3), LoggedModelTag("d", None)])
    assert store.get_logged_model(made).tags == {"a": "2", "b c": "3", "d": ""}
    store.delete_logged_model_tag(made, "a")
    assert store.get_logged_model(made).tags == {"b c": "3", "d": ""}
    code, text = refused(lambda: store.delete_logged_model_tag(made, "a"))
    assert (code, "No tag with key 'a'" in text) == (MISSING, True)
    param = LoggedModelParameter("p", "1")
    store.log_logged_model_params(made, [param, LoggedModelParameter("q", "2")])
    store.log_logged_model_params(made, [param])
    long = "k" * 256
    for wrong, said in (("p", "Changing"), (None, "key name must be"), (long, "exceeds the max")):
        params = [LoggedModelParameter(wrong, "5")]
        code, text = refused(partial(store.log_logged_model_params, made, params))
        assert (code, said in text) == (INVALID, True)
    tags = [LoggedModelTag(None, "x")]
    assert "Missing value" in refused(lambda: store.set_logged_model_tags(made, tags))[1]
    # What only runs of MLflow refuse is fine for models there, and here.
    store.set_logged_model_tags(made, [LoggedModelTag("b c", "3"), LoggedModelTag("a!", "4")])
    store.delete_logged_model_tag(made, "a!")
    assert store.get_logged_model(made).params == {"p": "1", "q": "2"}
    store.set_model_versions_tags("digits", "1", made)
    store.set_model_versions_tags("digits", "2", made)
    versions = store.get_logged_model(made).tags["mlflow.modelVersions"]
    assert versions == '[{"name": "digits", "version": "1"}, {"name": "digits", "version": "2"}]'


def test_metrics_of_a_model_are_points_of_the_run_and_each_counts_once(
    store: TrackingStore, experiment_id: str, run_id: str
) -> None:
    model, other = (make(store, experiment_id, name) for name in "ab")
    points = [
        measured(model, "acc", 0.5, step=3, on=("digits", "1")),
        measured(model, "acc", math.nan, step=4),
        measured(model, "loss", math.inf, timestamp=5),
    ]
    log(store, run_id, *points, points[0])
    log(store, run_id, points[0])
    store.log_metric(run_id, measured(other, "acc", 1.0))
    log(store, run_id, Metric("acc", 9.0, 1, 9))
    found = store.get_logged_model(model.model_id).metrics
    said = [(each.key, repr(each.value), each.step, each.timestamp) for each in found]
    assert said == [("acc", "0.5", 3, 1), ("acc", "nan", 4, 1), ("loss", "inf", 0, 5)]
    assert [(each.dataset_name, each.dataset_digest) for each in found][:2] == [
        ("digits", "1"),
        (None, None),
    ]
    assert {(each.run_id, each.model_id) for each in found} == {(run_id, model.model_id)}
    assert store.get_run(run_id).data.metrics["acc"] == 9.0
    unknown = Metric("acc", 1.0, 1, 0, model_id="m-1")
    assert refused(lambda: log(store, run_id, Metric("new", 1.0, 1, 0), unknown))[0] == MISSING
    assert "new" not in store.get_run(run_id).data.metrics


def test_deleted_model_is_hidden_for_ever(
    store: TrackingStore, experiment_id: str, run_id: str
) -> None:
    made = make(store, experiment_id, "svm", source_run_id=run_id).model_id
    assert store._get_deleted_logged_models() == []
    store.delete_logged_model(made)
    assert refused(lambda: store.get_logged_model(made))[0] == MISSING
    assert store.get_logged_model(made, allow_deleted=True).name == "svm"
    assert store.search_logged_models([experiment_id]) == []
    store.finalize_logged_model(made, READY)
    assert refused(lambda: store.get_logged_model(made))[0] == MISSING
    assert store._get_deleted_logged_models() == [made]
    assert store._get_deleted_logged_models(older_than=1_000_000) == []


@pytest.mark.parametrize("has_run", [True, False])
def test_hard_deleted_model_is_nowhere(
    store: TrackingStore, experiment_id: str, run_id: str, *, has_run: bool
) -> None:
    source = run_id if has_run else None
    made = make(store, experiment_id, "svm", source_run_id=source).model_id
    store.delete_logged_model(made)
    store._hard_delete_logged_model(made)
    calls = [
        lambda: store.get_logged_model(made, allow_deleted=True),
        lambda: store._hard_delete_logged_model(made),
    ]
    assert [refused(call)[0] for call in calls] == [MISSING, MISSING]
    assert store._get_deleted_logged_models() == []
    assert store.get_run(run_id).info.run_id == run_id


def test_model_stays_when_its_run_is_hidden_and_goes_when_it_is_purged(
    store: TrackingStore, experiment_id: str, run_id: str
) -> None:
    made = make(store, experiment_id, "svm", source_run_id=run_id).model_id
    store.delete_run(run_id)
    assert store.get_logged_model(made).name == "svm"
    store.delete_logged_model(made)
    # What `mlflow gc` does, in its order.
    assert store._get_deleted_logged_models() == [made]
    store._hard_delete_run(run_id)
    assert store.get_logged_model(made, allow_deleted=True).model_id == made
    store._hard_delete_logged_model(made)
    assert refused(lambda: store.get_logged_model(made, allow_deleted=True))[0] == MISSING


def test_search_shows_the_newest_first_of_these_experiments(
    store: TrackingStore, experiment_id: str
) -> None:
    other = store.create_experiment("other")
    for name, home in (("a", experiment_id), ("b", other), ("c", experiment_id)):
        make(store, home, name)
    assert names(store.search_logged_models([experiment_id])) == ["c", "a"]
    assert names(store.search_logged_models([experiment_id, other])) == ["c", "b", "a"]
    assert store.search_logged_models(["77"]) == []


def test_pages_of_a_search_meet_and_their_tokens_belong_to_it(
    store: TrackingStore, experiment_id: str
) -> None:
    for name in "abc":
        make(store, experiment_id, name)
    first = store.search_logged_models([experiment_id], max_results=2)
    second = store.search_logged_models([experiment_id], page_token=first.token)
    assert (names(first), names(second), second.token) == (["c", "b"], ["a"], None)
    wrong: list[tuple[list[Any], dict[str, Any], str]] = [
        (["77"], {}, "Experiment IDs in the page token do not match"),
        ([experiment_id], {"filter_string": "name = 'a'"}, "Filter string in the page token"),
        ([experiment_id], {"order_by": [{"field_name": "name"}]}, "Order by in the page token"),
    ]
    for homes, given, said in wrong:
        call = partial(store.search_logged_models, homes, page_token=first.token, **given)
        code, text = refused(call)
        assert (code, said in text) == (INVALID, True)


def test_filters_of_a_search_are_mlflows(
    store: TrackingStore, experiment_id: str, run_id: str
) -> None:
    a = make(store, experiment_id, "a", params={"C": "1"}, tags={"team x": "vision"})
    b = make(store, experiment_id, "Ab", params={"C": "10"}, source_run_id=run_id)
    store.finalize_logged_model(b.model_id, READY)
    log(
        store,
        run_id,
        measured(a, "acc", 0.5),
        measured(a, "acc", 0.9, step=1),
        measured(b, "acc", 0.7),
        measured(b, "f1-score", 1.0),
    )
    asked = {
        "name = 'a'": ["a"],
        "attributes.name != 'a'": ["Ab"],
        "name LIKE 'a%'": ["a"],
        "name ilike 'A%'": ["Ab", "a"],
        "name IN ('a')": ["a"],
        "name in ('a',)": ["a"],
        "name NOT IN ('a', 'x')": ["Ab"],
        "creation_timestamp > 0 AND last_updated_timestamp >= 1": ["Ab", "a"],
        f"creation_time = {a.creation_timestamp}": ["a"],
        f"source_run_id = '{run_id}'": ["Ab"],
        f"model_id = '{a.model_id}'": ["a"],
        "status = 'READY'": ["Ab"],
        # MLflow's database has these words as numbers, and its own filters compare those.
        "status = '2'": ["Ab"],
        "status IN ('1', 'FAILED')": ["a"],
        "params.C = '1'": ["a"],
        "params.C LIKE '1%' AND tags.`team x` = 'vision'": ["a"],
        "tags.nobody = 'x'": [],
        "metrics.acc >= 0.9": ["a"],
        "metrics.acc = 0.5": ["a"],
        "metrics.acc > 0.6": ["Ab", "a"],
        "metrics.`f1-score` = 1": ["Ab"],
        'metrics."f1-score" < 2': ["Ab"],
        "metrics.acc > 0.6 AND params.C = '10'": ["Ab"],
    }
    found = {
        text: names(store.search_logged_models([experiment_id], filter_string=text))
        for text in asked
    }
    assert found == asked


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Foo", "Invalid filter string"),
        ("name = 'a' OR name = 'b'", "Invalid filter string"),
        ("foo.bar = 'a'", "Invalid entity type"),
        ("name > 'a'", "Invalid comparison operator"),
        ("metrics.a LIKE 0", "Invalid comparison operator"),
        ("nobody = 'a'", "Invalid attribute"),
        ("metrics.a > b", "Invalid value"),
        ("name = 'a'; name = 'b'", "single SQL expression"),
    ],
)
def test_filter_that_mlflow_refuses_is_refused(store: TrackingStore, text: str, said: str) -> None:
    code, told = refused(lambda: store.search_logged_models(["0"], filter_string=text))
    assert (code, said in told) == (INVALID, True)


def test_order_of_a_search_is_mlflows_and_those_without_a_value_come_last(
    store: TrackingStore, experiment_id: str, run_id: str
) -> None:
    a, b, c = (make(store, experiment_id, name) for name in "abc")
    one, two = ("one", "1"), ("two", "2")
    log(
        store,
        run_id,
        measured(a, "acc", 0.9, timestamp=1, on=one),
        measured(a, "acc", 0.8, timestamp=2, on=two),
        measured(b, "acc", 0.7, timestamp=3, on=one),
        measured(b, "acc", 0.9, timestamp=4, on=two),
    )

    def order(field: str, **given: Any) -> str:  # noqa: ANN401 - what clients give
        keys = [{"field_name": field} | given]
        return "".join(names(store.search_logged_models([experiment_id], order_by=keys)))

    assert order("name") == order("creation_time") == order("creation_timestamp") == "abc"
    assert order("name", ascending=False) == "cba"
    assert order("metrics.acc") == "abc"
    assert order("metrics.acc", ascending=False) == "bac"
    assert order("metrics.acc", dataset_name="one") == "bac"
    assert order("metrics.acc", dataset_name="two", dataset_digest="2") == "abc"
    assert order("metrics.acc", dataset_digest="1") == "bac"
    assert order("metrics.none") == "cba"
    assert order("source_run_id") == "cba"
    for field in ("params.a", "nobody"):
        assert refused(partial(order, field))[0] == INVALID
    wrong: Any
    for wrong, said in (({}, "`field_name`"), ("name", "a list of dictionaries")):
        code, text = refused(partial(store.search_logged_models, ["0"], order_by=[wrong]))
        assert (code, said in text) == (INVALID, True)

    def on(*datasets: dict[str, str], filter_string: str | None = None) -> str:
        found = store.search_logged_models(
            [experiment_id], filter_string=filter_string, datasets=list(datasets)
        )
        return "".join(names(found))

    assert on({"dataset_name": "one"}) == "ba"
    assert on({"dataset_name": "one", "dataset_digest": "9"}) == ""
    assert on({"dataset_name": "one"}, filter_string="metrics.acc > 0.8") == "a"
    assert c.name not in on({"dataset_name": "one"}, {"dataset_name": "two"})
    assert refused(lambda: on({"dataset_digest": "1"}))[0] == INVALID


def test_models_of_a_compacted_lake_are_the_same(
    store: TrackingStore, experiment_id: str, run_id: str
) -> None:
    models = [make(store, experiment_id, name, source_run_id=run_id) for name in "ab"]
    log(store, run_id, *(measured(model, "acc", 0.5) for model in models))
    before = [each.to_dictionary() for each in store.search_logged_models([experiment_id])]
    store.lake.close()
    with runlake.open(url_of(store.store_uri)) as lake:
        lake.maintain.compact()
        lake.maintain.vacuum(grace_s=0)
    after = [each.to_dictionary() for each in store.search_logged_models([experiment_id])]
    plain = [[vars(metric) for metric in each.pop("metrics")] for each in before]
    assert [[vars(metric) for metric in each.pop("metrics")] for each in after] == plain
    assert after == before


def test_files_of_a_model_come_back_through_mlflows_client(
    client: Any,  # noqa: ANN401 - MLflow's
    experiment_id: str,
    run_id: str,
    tmp_path: Path,
) -> None:
    (tmp_path / "given" / "data").mkdir(parents=True)
    (tmp_path / "given" / "MLmodel").write_text("flavors: {}")
    (tmp_path / "given" / "data" / "a.txt").write_text("a")
    for source in (run_id, None):
        model = client.create_logged_model(experiment_id, name="svm", source_run_id=source)
        client.log_model_artifacts(model.model_id, str(tmp_path / "given"))
        client.finalize_logged_model(model.model_id, "READY")
        listed = client.list_logged_model_artifacts(model.model_id)
        assert sorted(each.path for each in listed) == ["MLmodel", "data"]
        fetched = client.download_artifacts(run_id, "") if source is None else None
        assert fetched is None or not list(Path(fetched).rglob("MLmodel"))
        place = client.get_logged_model(model.model_id).artifact_location
        local = Path(download_artifacts(artifact_uri=place, dst_path=str(tmp_path / str(source))))
        assert (local / "data" / "a.txt").read_text() == "a"
    shown = client.search_logged_models([experiment_id])
    assert [model.status for model in shown] == [READY, READY]
