"""Experiments through MLflow's tracking store: made, found, renamed, tagged, deleted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from mlflow.entities import ExperimentTag, ViewType

import runlake
from runlake.errors import NotFoundError
from runlake.lake_parts import experiments_of
from runlake.mlflow_plugin.tracking import TrackingStore
from runlake.mlflow_plugin.uris import lake_url as url_of
from tests.mlflow_plugin.calls import next_ms, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runlake.query.entities import Experiment

pytestmark = [pytest.mark.filterwarnings("ignore:::mlflow"), pytest.mark.filesystems("local")]

MISSING, TAKEN = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
INVALID = "INVALID_PARAMETER_VALUE"


def make(store: TrackingStore, *names: str) -> list[str]:
    """Make experiments, each a millisecond after the one before."""
    ids = []
    for name in names:
        next_ms()
        ids.append(store.create_experiment(name))
    return ids


def names(found: Sequence[Any]) -> list[str]:
    """Return the names of experiments."""
    return [each.name for each in found]


def by_name(store: TrackingStore, name: str) -> Any:  # noqa: ANN401 - MLflow's, which is there
    """Return the experiment of a name."""
    found = store.get_experiment_by_name(name)
    assert found is not None
    return found


def test_default_experiment_is_there_in_a_lake_that_nobody_wrote_to(store: TrackingStore) -> None:
    (found,) = store.search_experiments()
    assert (found.experiment_id, found.name, found.lifecycle_stage) == ("0", "Default", "active")
    assert found.creation_time == found.last_update_time
    assert store.get_experiment(0).name == "Default"  # type: ignore[arg-type] # as clients may
    assert by_name(store, "Default").experiment_id == "0"
    assert refused(lambda: store.create_experiment("Default"))[0] == TAKEN


def test_default_experiment_that_is_deleted_stays_so_in_other_stores(store: TrackingStore) -> None:
    make(store, "other")
    store.delete_experiment("0")
    assert names(store.search_experiments()) == ["other"]
    other = TrackingStore(store.store_uri)
    assert other.get_experiment("0").lifecycle_stage == "deleted"
    assert set(names(other.search_experiments(ViewType.ALL))) == {"other", "Default"}
    assert refused(lambda: other.delete_experiment("0"))[0] == MISSING
    other.restore_experiment("0")
    assert store.get_experiment("0").lifecycle_stage == "active"


def test_default_experiment_takes_tags_and_another_name(store: TrackingStore) -> None:
    store.set_experiment_tag("0", ExperimentTag("team", "vision"))
    store.rename_experiment("0", "first")
    found = store.get_experiment("0")
    assert (found.name, found.tags) == ("first", {"team": "vision"})
    assert store.get_experiment_by_name("Default") is None


@pytest.mark.filesystems("local", "s3")
def test_experiment_made_is_read_back_by_another_lake_object_at_once(store: TrackingStore) -> None:
    before_ms = next_ms()
    made = store.create_experiment("digits", tags=[ExperimentTag("a b", "1")])
    assert isinstance(made, str)
    found = store.get_experiment(made)
    assert (found.experiment_id, found.name, found.tags) == (made, "digits", {"a b": "1"})
    assert found.creation_time >= before_ms
    assert found.last_update_time == found.creation_time
    assert found.artifact_location == f"{store.store_uri}/@artifacts/{made}"
    assert by_name(store, "digits").experiment_id == made
    assert store.get_experiment_by_name("nobody") is None
    found.to_proto()
    with runlake.open(url_of(store.store_uri)) as lake:
        assert lake.get_experiment(made).tags == {"a b": "1"}


def test_name_of_a_deleted_experiment_stays_taken_until_it_is_purged(store: TrackingStore) -> None:
    (made,) = make(store, "digits")
    for _ in range(2):
        code, text = refused(lambda: store.create_experiment("digits"))
        assert (code, "Experiment(name=digits) already exists" in text) == (TAKEN, True)
        if store.get_experiment(made).lifecycle_stage == "active":
            store.delete_experiment(made)
    assert by_name(store, "digits").lifecycle_stage == "deleted"
    store._hard_delete_experiment(made)
    assert refused(lambda: store.get_experiment(made))[0] == MISSING
    assert store.get_experiment_by_name("digits") is None
    again = store.create_experiment("digits")
    assert again != made
    assert names(store.search_experiments(ViewType.ALL)) == ["digits", "Default"]


def test_artifact_locations_are_kept_or_follow_from_the_root(store: TrackingStore) -> None:
    chosen = store.create_experiment("chosen", artifact_location="s3://bucket/there")
    plain = store.create_experiment("plain")
    served = TrackingStore(store.store_uri, "mlflow-artifacts:/")
    unchosen = TrackingStore(store.store_uri, "./mlruns")
    for each in (store, served, unchosen):
        assert each.get_experiment(chosen).artifact_location == "s3://bucket/there"
        run = each.create_run(chosen, user_id="ann", start_time=0, tags=[], run_name="a").info
        assert run.artifact_uri == f"s3://bucket/there/{run.run_id}/artifacts"
    assert served.get_experiment(plain).artifact_location == f"mlflow-artifacts:/{plain}"
    run = served.create_run(plain, user_id="ann", start_time=0, tags=[], run_name="a").info
    assert run.artifact_uri == f"mlflow-artifacts:/{plain}/{run.run_id}/artifacts"
    assert served.get_run(run.run_id).info.artifact_uri == run.artifact_uri
    direct = f"{store.store_uri}/@artifacts/{plain}"
    assert unchosen.get_experiment(plain).artifact_location == direct
    assert store.get_run(run.run_id).info.artifact_uri == f"{direct}/{run.run_id}"
    found, _ = store._search_runs([plain], "", ViewType.ALL, 10, None, None)
    assert [each.info.artifact_uri for each in found] == [f"{direct}/{run.run_id}"]


@pytest.mark.filesystems("memory")
def test_what_is_made_below_a_root_elsewhere_is_found_there_by_everybody(
    store: TrackingStore,
) -> None:
    from runlake.mlflow_plugin.registry import RegistryStore  # noqa: PLC0415 - slow

    old = store.create_experiment("old")
    elsewhere = TrackingStore(store.store_uri, "s3://bucket/root?region=eu")
    made = elsewhere.create_experiment("made")
    run = elsewhere.create_run(made, user_id="ann", start_time=0, tags=[], run_name="a").info
    default = elsewhere.create_run("0", user_id="ann", start_time=0, tags=[], run_name="b").info
    model = elsewhere.create_logged_model(made, source_run_id=run.run_id)
    served = TrackingStore(store.store_uri, "mlflow-artifacts:/")
    root = f"s3://bucket/root/{made}"
    # As in MLflow's own store: what lists the run must not meet its models.
    place = f"{root}/models/{model.model_id}/artifacts?region=eu"
    for each in (elsewhere, store, served):
        assert each.get_experiment(made).artifact_location == f"{root}?region=eu"
        where = each.get_run(run.run_id).info.artifact_uri
        assert where == run.artifact_uri == f"{root}/{run.run_id}/artifacts?region=eu"
        where = each.get_run(default.run_id).info.artifact_uri
        assert where == f"s3://bucket/root/0/{default.run_id}/artifacts?region=eu"
        assert each.get_logged_model(model.model_id).artifact_location == place
    # The root is for what is new.
    assert elsewhere.get_experiment(old).artifact_location == f"{store.store_uri}/@artifacts/{old}"
    registry = RegistryStore(store.store_uri)
    registry.create_registered_model("digits")
    version = registry.create_model_version("digits", f"models:/{model.model_id}", None).version
    assert registry.get_model_version_download_uri("digits", version) == place


@pytest.mark.filesystems("memory")
def test_models_of_a_server_whose_artifacts_go_elsewhere_do_not_lie_in_runs(
    store: TrackingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.create_experiment("made")
    run = store.create_run(made, user_id="ann", start_time=0, tags=[], run_name="a").info
    home = f"mlflow-artifacts:/{made}"
    inside = f"{home}/{run.run_id}/artifacts/_models"
    for destination, place in (
        ("/srv/files", f"{home}/models/{{}}/artifacts"),
        (f"{store.store_uri}/@artifacts", f"{inside}/{{}}"),
    ):
        monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", destination)
        served = TrackingStore(store.store_uri, "mlflow-artifacts:/")
        model = served.create_logged_model(made, source_run_id=run.run_id)
        assert model.artifact_location == place.format(model.model_id)


@pytest.mark.parametrize("name", ["", None, 5, "x" * 501, "new\nline"])
def test_name_that_is_none_is_refused(store: TrackingStore, name: Any) -> None:  # noqa: ANN401
    assert refused(lambda: store.create_experiment(name))[0] == INVALID
    assert refused(lambda: store.rename_experiment("0", name))[0] == INVALID


def test_unknown_experiment_is_said_to_be_unknown(store: TrackingStore) -> None:
    calls = [
        lambda: store.get_experiment("77"),
        lambda: store.delete_experiment("77"),
        lambda: store.restore_experiment("77"),
        lambda: store.rename_experiment("77", "x"),
        lambda: store.set_experiment_tag("77", ExperimentTag("a", "b")),
        lambda: store.delete_experiment_tag("77", "a"),
        lambda: store._hard_delete_experiment("77"),
    ]
    assert [refused(call) for call in calls] == [
        (MISSING, "No Experiment with id=77 exists") for _ in calls
    ]


def test_rename_moves_the_name_and_the_time(store: TrackingStore) -> None:
    first, second = make(store, "first", "second")
    before_ms = next_ms()
    store.rename_experiment(first, "third")
    assert store.get_experiment(first).name == "third"
    assert store.get_experiment(first).last_update_time >= before_ms
    assert refused(lambda: store.rename_experiment(second, "third"))[0] == TAKEN
    assert store.create_experiment("first") not in {first, second}
    store.delete_experiment(second)
    code, text = refused(lambda: store.rename_experiment(second, "fourth"))
    assert (code, text) == ("INVALID_STATE", "Cannot rename a non-active experiment.")


def test_tags_are_set_replaced_and_taken_away_and_do_not_count_as_updates(
    store: TrackingStore,
) -> None:
    (made,) = make(store, "digits")
    for text in ("1", "2"):
        store.set_experiment_tag(made, ExperimentTag("a", text))
        assert store.get_experiment(made).tags == {"a": text}
    store.delete_experiment_tag(made, "a")
    found = store.get_experiment(made)
    assert (found.tags, found.last_update_time) == ({}, found.creation_time)
    code, text = refused(lambda: store.delete_experiment_tag(made, "a"))
    assert (code, "No tag with name: a" in text) == (MISSING, True)
    long = ExperimentTag("k" * 251, "v")
    assert refused(lambda: store.set_experiment_tag(made, long))[0] == INVALID
    store.delete_experiment(made)
    calls = [
        lambda: store.set_experiment_tag(made, ExperimentTag("a", "b")),
        lambda: store.delete_experiment_tag(made, "a"),
    ]
    for call in calls:
        code, text = refused(call)
        assert (code, "must be in the 'active' state" in text) == (INVALID, True)


def test_each_change_of_an_experiment_looks_it_up_once(store: TrackingStore) -> None:
    (made,) = make(store, "digits")
    other = TrackingStore(store.store_uri)
    experiments = experiments_of(other.lake)
    find, asked = experiments.find, list[str]()

    def counted(experiment_id: str) -> Experiment | None:
        asked.append(experiment_id)
        return find(experiment_id)

    experiments.find = counted
    changes: list[Callable[[], None]] = [
        lambda: other.rename_experiment(made, "numbers"),
        lambda: other.set_experiment_tag(made, ExperimentTag("team", "vision")),
        lambda: other.delete_experiment_tag(made, "team"),
        lambda: other.delete_experiment(made),
        lambda: other.restore_experiment(made),
    ]
    for change in changes:
        asked.clear()
        change()
        assert asked == [made]
    found = store.get_experiment(made)
    assert (found.name, found.tags, found.lifecycle_stage) == ("numbers", {}, "active")


def test_deleting_an_experiment_hides_its_runs_and_restoring_shows_all_of_them(
    store: TrackingStore,
) -> None:
    (made,) = make(store, "digits")
    runs = [
        store.create_run(made, user_id="ann", start_time=n, tags=[], run_name="r").info.run_id
        for n in range(2)
    ]
    store.delete_run(runs[0])
    before_ms = next_ms()
    store.delete_experiment(made)
    assert store.get_experiment(made).last_update_time >= before_ms
    assert refused(lambda: store.delete_experiment(made))[0] == MISSING

    def stages() -> list[str]:
        return [store.get_run(run_id).info.lifecycle_stage for run_id in runs]

    assert stages() == ["deleted", "deleted"]
    store.restore_experiment(made)
    assert refused(lambda: store.restore_experiment(made))[0] == MISSING
    assert stages() == ["active", "active"]
    assert store.get_experiment(made).lifecycle_stage == "active"


def test_hard_delete_takes_the_runs_of_a_deleted_experiment(store: TrackingStore) -> None:
    (made,) = make(store, "digits")
    run = store.create_run(made, user_id="ann", start_time=0, tags=[], run_name="r").info
    assert refused(lambda: store._hard_delete_experiment(made))[0] == MISSING
    store.delete_experiment(made)
    store._hard_delete_experiment(made)
    assert refused(lambda: store.get_run(run.run_id))[0] == MISSING
    with runlake.open(url_of(store.store_uri)) as lake, pytest.raises(NotFoundError):
        lake.get_run(run.run_id)


def test_search_pages_through_experiments_the_newest_first(store: TrackingStore) -> None:
    made = make(store, *"abcde")
    everything = ["e", "d", "c", "b", "a", "Default"]
    assert names(store.search_experiments()) == everything
    seen: list[str] = []
    token = None
    for _ in range(3):
        page = store.search_experiments(max_results=2, page_token=token)
        token = page.token
        seen += names(page)
    assert (seen, token) == (everything, None)
    next_ms()
    store.rename_experiment(made[0], "z")
    assert names(store.search_experiments(max_results=2)) == ["e", "d"]
    changed = store.search_experiments(order_by=["last_update_time DESC"], max_results=2)
    assert names(changed) == ["z", "e"]
    assert names(store.search_experiments(order_by=["name DESC"], max_results=2)) == ["z", "e"]
    assert names(store.search_experiments(order_by=["creation_time"])) == [
        "Default", "z", "b", "c", "d", "e",
    ]  # fmt: skip
    store.delete_experiment(made[1])
    assert names(store.search_experiments(ViewType.DELETED_ONLY)) == ["b"]
    assert len(store.search_experiments(ViewType.ALL)) == len(everything)


def test_filters_of_a_search_are_mlflows(store: TrackingStore) -> None:
    store.create_experiment("one", tags=[ExperimentTag("k", "value"), ExperimentTag("a b", "1")])
    middle_ms = next_ms()
    store.create_experiment("Two", tags=[ExperimentTag("k", "vaLue")])
    asked = {
        "name = 'one'": ["one"],
        "attribute.`name` != 'one'": ["Two", "Default"],
        "name LIKE 't%'": [],
        "name ILIKE 't%'": ["Two"],
        "tags.k = 'value'": ["one"],
        "tag.k ILIKE 'VAL%'": ["Two", "one"],
        "tags.`a b` = '1' AND name LIKE 'o%'": ["one"],
        "tags.none = 'x'": [],
        f"creation_time >= {middle_ms}": ["Two"],
        f"last_update_time < {middle_ms}": ["one", "Default"],
    }
    found = {text: names(store.search_experiments(filter_string=text)) for text in asked}
    assert found == asked
    for wrong in ("name = 'a' OR name = 'b'", "nobody = 'a'", "name > 5"):
        code, _ = refused(partial(store.search_experiments, filter_string=wrong))
        assert code == INVALID


@pytest.mark.parametrize(
    ("max_results", "said"),
    [(None, "a positive integer"), (0, "a positive integer"), (50_001, "at most 50000")],
)
def test_page_size_that_mlflow_refuses_is_refused(
    store: TrackingStore,
    max_results: Any,  # noqa: ANN401 - what clients give
    said: str,
) -> None:
    code, text = refused(lambda: store.search_experiments(max_results=max_results))
    assert (code, said in text) == (INVALID, True)


def test_id_that_can_be_none_is_refused_and_ids_that_runs_brought_are_found(
    store: TrackingStore,
) -> None:
    url = url_of(store.store_uri)
    with runlake.open(url) as lake, lake.start_run(experiment_id="my-own.id") as run:
        pass
    searches: list[Callable[[str], Any]] = [
        lambda home: list(store.search_runs([home], "", ViewType.ALL)),
        lambda home: store._search_datasets([home]),
        lambda home: list(store.search_logged_models([home])),
    ]
    for wrong in ("12abc", "not-a-number"):
        for call in (*searches, store.get_experiment, store.delete_experiment):
            code, text = refused(partial(call, wrong))
            assert code == INVALID
            assert text.startswith(f"Invalid experiment ID '{wrong}'. ")
    assert [refused(partial(call, ""))[0] for call in searches] == [INVALID] * 3
    assert [call("-77") for call in searches] == [[], [], []]
    found = store.search_runs(["my-own.id"], "", ViewType.ALL)
    assert [each.info.run_id for each in found] == [run.run_id]
    assert store.get_experiment("my-own.id").name == "my-own.id"


def test_order_by_id_is_the_order_in_which_experiments_were_made(store: TrackingStore) -> None:
    made = ["b", "c", "a"]
    make(store, *made)
    assert names(store.search_experiments(order_by=["experiment_id"])) == ["Default", *made]
    found = store.search_experiments(order_by=["experiment_id DESC"])
    assert names(found) == [*made[::-1], "Default"]
    # Whatever is said of it, and when, the default one is the oldest, as where MLflow makes it.
    store.create_run(store.DEFAULT_EXPERIMENT_ID, "me", None, [], None)
    store.set_experiment_tag("0", ExperimentTag("a", "b"))
    assert names(TrackingStore(store.store_uri).search_experiments())[-1] == "Default"


def test_times_of_an_experiment_are_of_the_clock_that_mlflow_reads(
    store: TrackingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(second: int, change: Callable[[], Any]) -> Any:  # noqa: ANN401 - what MLflow's gives
        with monkeypatch.context() as patched:
            patched.setattr("time.time", lambda: second)
            return change()

    home = at(5, partial(store.create_experiment, "old"))
    times = [(each.creation_time, each.last_update_time) for each in [store.get_experiment(home)]]
    for second, change in enumerate(
        [
            partial(store.rename_experiment, home, "older"),
            partial(store.delete_experiment, home),
            partial(store.restore_experiment, home),
        ],
        start=6,
    ):
        at(second, change)
        found = store.get_experiment(home)
        times.append((found.creation_time, found.last_update_time))
    assert times == [(5000, 5000), (5000, 6000), (5000, 7000), (5000, 8000)]
    assert names(store.search_experiments(filter_string="last_update_time = 8000")) == ["older"]


def test_local_artifact_root_is_resolved_when_the_store_is_made(
    store: TrackingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rooted = TrackingStore(store.store_uri, "some/folder")
    monkeypatch.chdir("/")
    home = rooted.create_experiment("rooted")
    place = rooted.get_experiment(home).artifact_location
    assert place == f"{tmp_path}/some/folder/{home}"
