"""What runs read and made, through MLflow's tracking store."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    RunInputs,
)
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

import runlake
from runlake.mlflow_plugin.uris import lake_url as url_of
from tests.mlflow_plugin.calls import refused

if TYPE_CHECKING:
    from typing import Any

    from runlake.mlflow_plugin.tracking import TrackingStore

pytestmark = [pytest.mark.filterwarnings("ignore:::mlflow"), pytest.mark.filesystems("local")]


@pytest.fixture
def run_id(store: TrackingStore, experiment_id: str) -> str:
    """A run of `store`."""
    return make_run(store, experiment_id)


def make_run(store: TrackingStore, experiment_id: str) -> str:
    """Make a run."""
    run = store.create_run(experiment_id, user_id="ann", start_time=0, tags=[], run_name="r")
    return str(run.info.run_id)


def dataset(name: str = "digits", digest: str = "1", **given: Any) -> Dataset:  # noqa: ANN401
    """Return a data set as MLflow has it."""
    parts = {"source_type": "local", "source": "{}", "schema": "s", "profile": "p"} | given
    return Dataset(name=name, digest=digest, **parts)


def used(of: Dataset, context: str | None = None, **tags: str) -> DatasetInput:
    """Return a data set with what it was read for."""
    named = {} if context is None else {MLFLOW_DATASET_CONTEXT: context}
    return DatasetInput(of, [InputTag(key, text) for key, text in (named | tags).items()])


def read(store: TrackingStore, run_id: str) -> RunInputs:
    """Return what a run has read."""
    found: RunInputs = store.get_run(run_id).inputs
    return found


@pytest.mark.filesystems("local", "s3")
def test_data_sets_of_a_run_come_back_whole_in_their_order(
    store: TrackingStore, run_id: str
) -> None:
    given = [
        used(dataset(), "training", team="vision"),
        used(dataset("größe @%", "2", schema=None, profile=None)),
        used(dataset("n" * 500, "d" * 36, source="x" * 60_000), "test"),
    ]
    store.log_inputs(run_id, given)
    assert read(store, run_id).dataset_inputs == given
    assert [each.to_proto() for each in read(store, run_id).dataset_inputs]
    with runlake.open(url_of(store.store_uri)) as lake:
        shown = lake.sql("SELECT name, digest, context, schema FROM inputs ORDER BY digest")
    assert shown.rows()[0] == ("digits", "1", "training", "s")


def test_data_set_that_a_run_has_stays_as_it_was_said_first(
    store: TrackingStore, run_id: str
) -> None:
    first = used(dataset(), "training")
    other = used(dataset(digest="2"), "training")
    again = used(dataset(source="elsewhere", schema=None), "validation", late="yes")
    store.log_inputs(run_id, [first, again])
    store.log_inputs(run_id, [again, other])
    assert read(store, run_id).dataset_inputs == [first, other]


@pytest.mark.filesystems("memory")
def test_tags_of_an_input_come_by_key(store: TrackingStore, run_id: str) -> None:
    store.log_inputs(run_id, [used(dataset(), "training", z="1", a="2")])
    (found,) = read(store, run_id).dataset_inputs
    assert [tag.key for tag in found.tags] == ["a", MLFLOW_DATASET_CONTEXT, "z"]


def test_data_sets_of_many_runs_are_read_at_once(store: TrackingStore, experiment_id: str) -> None:
    runs = [make_run(store, experiment_id) for _ in range(3)]
    for digest, run_id in enumerate(runs[:2]):
        store.log_inputs(run_id, [used(dataset(digest=str(digest)))])
    found, _ = store._search_runs([experiment_id], "", 1, 10, None, None)
    held = {
        run.info.run_id: [each.dataset.digest for each in run.inputs.dataset_inputs]
        for run in found
    }
    assert held == {runs[0]: ["0"], runs[1]: ["1"], runs[2]: []}
    matching, _ = store._search_runs([experiment_id], "dataset.digest = '1'", 1, 10, None, None)
    assert [run.info.run_id for run in matching] == [runs[1]]


def test_schema_and_profile_are_there_after_compaction(store: TrackingStore, run_id: str) -> None:
    # A schema of MLflow's greatest length; a profile may be longer yet.
    given = [used(dataset(schema="s" * 1_048_575, profile="p" * 1_048_577), "training")]
    store.log_inputs(run_id, given)
    store.lake.close()
    with runlake.open(url_of(store.store_uri)) as lake:
        lake.maintain.compact()
        lake.maintain.vacuum(grace_s=0)
    assert read(store, run_id).dataset_inputs == given


def test_summaries_of_data_sets_name_each_once(store: TrackingStore, experiment_id: str) -> None:
    other = store.create_experiment("other")
    for home in (experiment_id, experiment_id, other):
        store.log_inputs(make_run(store, home), [used(dataset(), "training"), used(dataset("b"))])
    found = store._search_datasets([experiment_id])
    listed = [(each.experiment_id, each.name, each.digest, each.context) for each in found]
    assert listed == [(experiment_id, "b", "1", None), (experiment_id, "digits", "1", "training")]
    assert len(store._search_datasets([experiment_id, other])) == len(listed) * 2
    assert store._search_datasets(["77"]) == []


def test_models_that_a_run_read_and_made_come_back(
    store: TrackingStore, experiment_id: str, run_id: str
) -> None:
    made = [store.create_logged_model(experiment_id).model_id for _ in range(3)]
    store.log_inputs(run_id, models=[LoggedModelInput(made[0])])
    store.log_outputs(run_id, [LoggedModelOutput(made[2], 7), LoggedModelOutput(made[1], 0)])
    store.log_outputs(run_id, [LoggedModelOutput(made[2], 7)])
    run = store.get_run(run_id)
    assert [each.model_id for each in run.inputs.model_inputs] == made[:1]
    outputs = {each.model_id: each.step for each in run.outputs.model_outputs}
    assert outputs == {made[2]: 7, made[1]: 0}
    assert store.get_run(make_run(store, experiment_id)).outputs.model_outputs == []


@pytest.mark.parametrize(
    "wrong",
    [
        used(dataset("n" * 501)),
        used(dataset(digest="d" * 37)),
        used(dataset(source="s" * 65_536)),
        used(dataset(schema="s" * 1_048_576)),
        used(dataset(), k="v" * 501),
        used(dataset("a\nb")),
        DatasetInput(dataset(), [InputTag("k" * 256, "v")]),
    ],
)
def test_input_that_breaks_a_limit_is_refused_and_nothing_is_logged(
    store: TrackingStore, run_id: str, wrong: DatasetInput
) -> None:
    call = lambda: store.log_inputs(run_id, [used(dataset("fine")), wrong])  # noqa: E731
    assert refused(call)[0] == "INVALID_PARAMETER_VALUE"
    assert read(store, run_id).dataset_inputs == []


def test_deleted_and_unknown_runs_take_no_inputs_and_outputs(
    store: TrackingStore, run_id: str
) -> None:
    store.delete_run(run_id)
    for name, code in ((run_id, "INVALID_PARAMETER_VALUE"), ("a" * 32, "RESOURCE_DOES_NOT_EXIST")):
        inputs = [used(dataset())]
        assert refused(partial(store.log_inputs, name, inputs))[0] == code
        assert refused(partial(store.log_outputs, name, []))[0] == code
    with pytest.raises(TypeError, match="should be a list"):
        store.log_inputs(run_id, "digits")  # type: ignore[arg-type]
