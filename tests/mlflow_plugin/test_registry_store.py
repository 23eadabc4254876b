"""MLflow's registry store on a lake: what no comparison with MLflow's own store can show.

What both have in common is compared in `tests/parity`.
"""

from __future__ import annotations

import inspect
import pickle
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

import runlake
from runlake.mlflow_plugin import tracking_store, uris
from runlake.mlflow_plugin.lakes import lake_of

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.mlflow_plugin.registry import RegistryStore

pytestmark = [pytest.mark.filterwarnings("ignore:::mlflow"), pytest.mark.filesystems("memory")]

EXPERIMENT: Final = "e1"
RUN: Final = "0" * 32
MODEL: Final = f"m-{'1' * 32}"
IS_PROMPT: Final = "mlflow.prompt.is_prompt"


@pytest.fixture
def store(store_uri: str) -> RegistryStore:
    """A store with a run, a model that has two versions, and a prompt."""
    from mlflow.entities.model_registry import RegisteredModelTag  # noqa: PLC0415 - slow

    from runlake.mlflow_plugin.registry import RegistryStore  # noqa: PLC0415 - slow

    with lake_of(store_uri).start_run(run_id=RUN, experiment_id=EXPERIMENT):
        pass
    made = RegistryStore(store_uri)
    made.create_registered_model("digits", description="what it is")
    made.create_model_version("digits", "s3://models/1", RUN)
    made.create_model_version("digits", "s3://models/2")
    made.create_registered_model("greeting", [RegisteredModelTag(IS_PROMPT, "true")])
    return made


def refusal(code: str, match: str | None = None) -> Any:  # noqa: ANN401 - pytest's
    """Expect an error of MLflow's."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - slow

    return pytest.raises(MlflowException, match=match, check=lambda error: error.error_code == code)


def test_what_is_not_there_is_said_in_mlflows_words_with_what_is(store: RegistryStore) -> None:
    gone = "RESOURCE_DOES_NOT_EXIST"
    with refusal(gone, r"Registered Model with name=digit not found.*Did you mean 'digits'"):
        store.get_registered_model("digit")
    with refusal(gone, r"Model Version \(name=digits, version=3\) not found.*1 to 2"):
        store.update_model_version("digits", "3", "new")
    for version in (0, -1, 10**10):
        with refusal(gone, "not found"):
            store.get_model_version("digits", version)
    wrong: Any
    for wrong in ("one", None):
        with refusal("INVALID_PARAMETER_VALUE", "must be an integer"):
            store.get_model_version("digits", wrong)
    with refusal("RESOURCE_ALREADY_EXISTS", r"name=greeting\) already exists\."):
        store.rename_registered_model("digits", "greeting")
    store.delete_model_version("digits", 2)
    with refusal(gone, "is deleted"):
        store.get_model_version_download_uri("digits", 2)
    assert store.create_model_version("digits", "s3://models/3").version == 3


def test_who_made_a_version_and_from_what_is_kept(store: RegistryStore) -> None:
    version = store.create_model_version("digits", "s3://models/4", RUN, model_id=MODEL)
    again = store.get_model_version("digits", version.version)
    assert dict(again) == dict(version)
    assert (again.model_id, again.run_id, bool(again.user_id)) == (MODEL, RUN, True)
    copied = store.copy_model_version(again, "letters")
    assert (copied.model_id, copied.source) == (MODEL, "models:/digits/3")
    assert store.create_model_version("digits", "s3://models/5", 1).run_id == "1"
    assert store.get_model_version_download_uri("letters", 1) == "s3://models/4"
    views = store.lake.sql(
        "SELECT name, logged_model_id, location FROM model_versions ORDER BY 1, 2"
    )
    assert views.rows()[-1] == ("letters", MODEL, "s3://models/4")


def test_prompts_are_hidden_unless_they_are_asked_for(store: RegistryStore) -> None:
    found = store.search_registered_models()
    assert [each.name for each in found] == ["digits"]
    made = store.create_prompt_version("greeting", "Hello {{name}}", tags={"tone": "warm"})
    assert made.format(name="Ada") == "Hello Ada"
    assert [each.name for each in store.search_model_versions()] == ["digits", "digits"]
    asked = store.search_model_versions(f"tags.`{IS_PROMPT}` = 'true'")
    assert [(each.name, each.tags["tone"]) for each in asked] == [("greeting", "warm")]
    assert [each.name for each in store.search_prompts()] == ["greeting"]
    store.set_prompt_alias("greeting", "best", 1)
    by_alias = store.get_prompt_version_by_alias("greeting", "best")
    assert by_alias is not None
    assert by_alias.template == "Hello {{name}}"
    with refusal("RESOURCE_ALREADY_EXISTS", "prompt"):
        store.create_registered_model("greeting")


def test_a_page_ends_where_the_next_begins(store: RegistryStore) -> None:
    for number in range(3, 8):
        store.create_model_version("digits", f"s3://models/{number}")
    found, token = [], None
    while True:
        page = store.search_model_versions("name = 'digits'", 3, ["version_number"], token)
        found += [each.version for each in page]
        token = page.token
        if token is None:
            break
    assert found == [*range(1, 8)]
    with refusal("INVALID_PARAMETER_VALUE"):
        store.search_model_versions(page_token="nonsense")  # noqa: S106 - of a page
    for count, what in ((0, ""), (1e15, ""), (200_001, "request parameter ")):
        with refusal("INVALID_PARAMETER_VALUE", rf"Invalid value for {what}max_results\."):
            store.search_model_versions(max_results=count)
    with refusal("INVALID_PARAMETER_VALUE"):
        store.search_registered_models(max_results=1001)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("name = digits", "not quoted"),
        ("evil = 'x'", "Invalid attribute key"),
        ("version_number = 1.5", "1.5"),
        ("version_number LIKE '1'", "comparator for attribute version_number: LIKE"),
        ("name > 'a'", "comparator for attribute: >"),
        ("tags.a > 'b'", "comparator for tag: >"),
        ("name IN ()", "empty list"),
    ],
)
def test_a_filter_that_mlflow_refuses_is_refused(
    store: RegistryStore, words: str, match: str
) -> None:
    with refusal("INVALID_PARAMETER_VALUE", match):
        store.search_model_versions(words)


def test_an_order_with_a_key_twice_is_refused(store: RegistryStore) -> None:
    with refusal("INVALID_PARAMETER_VALUE", "duplicate"):
        store.search_registered_models(order_by=["timestamp", "last_updated_timestamp DESC"])
    with refusal("INVALID_PARAMETER_VALUE", "duplicate"):
        store.search_model_versions(order_by=["name", "name DESC"])
    with refusal("INVALID_PARAMETER_VALUE"):
        store.search_model_versions(order_by=["run_id"])


# Where files lie. `direct` is what MLflow has from a lake, `served` what it has from a server.


def direct(store_uri: str, *path: str) -> str:
    """Return the address of a file of the run."""
    return uris.artifact_uri(store_uri, EXPERIMENT, RUN, *path)


SERVED: Final = f"mlflow-artifacts:/{EXPERIMENT}/{RUN}/artifacts/model"


def as_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a server that hands artifacts on."""
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")


def test_a_version_made_directly_is_found_by_clients_of_a_server_and_the_other_way_round(
    store: RegistryStore, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.create_model_version("digits", direct(store_uri, "model"), RUN).version
    with monkeypatch.context() as patch:
        as_server(patch)
        second = store.create_model_version("digits", SERVED, RUN).version
        for version in (first, second):
            assert store.get_model_version_download_uri("digits", version) == SERVED
        copy = store.copy_model_version(store.get_model_version("digits", second), "copies")
        assert store.get_model_version_download_uri("copies", copy.version) == SERVED
    for name, version in (("digits", first), ("digits", second), ("copies", copy.version)):
        found = store.get_model_version_download_uri(name, version)
        assert found == direct(store_uri, "model")
    locations = store.lake.sql("SELECT DISTINCT location FROM model_versions WHERE version > 2")
    assert locations["location"].to_list() == [f"runs:/{RUN}/model"]


def test_a_source_that_is_not_in_the_lake_stays_as_it_is(
    store: RegistryStore, store_uri: str
) -> None:
    others = (
        "path/to/model",
        "s3://bucket/a b/model",
        "dbfs:/model",
        f"runs:/{RUN}/model",
        f"mlflow-artifacts:/{EXPERIMENT}/{'f' * 32}/artifacts/model",
        f"mlflow-artifacts://host:5000/{EXPERIMENT}/{'f' * 32}/artifacts/model",
        uris.artifact_uri(f"{store_uri}-other", EXPERIMENT, RUN, "model"),
        "runlake:///lake",
    )
    for source in others:
        version = store.create_model_version("digits", source).version
        assert store.get_model_version_download_uri("digits", version) == source
        assert store.get_model_version("digits", version).source == source


def test_files_of_a_logged_model_without_a_run_are_found_by_both(
    store: RegistryStore, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = uris.artifact_uri(store_uri, EXPERIMENT, MODEL)
    served = f"mlflow-artifacts:/{EXPERIMENT}/{MODEL}/artifacts"
    first = store.create_model_version("digits", source, model_id=None).version
    with monkeypatch.context() as patch:
        as_server(patch)
        second = store.create_model_version("digits", served).version
        for version in (first, second):
            assert store.get_model_version_download_uri("digits", version) == served
    for version in (first, second):
        assert store.get_model_version_download_uri("digits", version) == source


@pytest.mark.filesystems("local")
def test_versions_of_a_lake_that_was_moved_are_found_where_it_is(
    store: RegistryStore, store_uri: str, tmp_path: Path
) -> None:
    from runlake.mlflow_plugin.registry import RegistryStore  # noqa: PLC0415 - slow

    store.create_model_version("digits", direct(store_uri, "model"), RUN)
    store.create_model_version("digits", SERVED, RUN)
    store.lake.close()
    (tmp_path / "lake").rename(tmp_path / "moved")
    moved = f"runlake://{tmp_path / 'moved'}"
    for version in (3, 4):
        found = RegistryStore(moved).get_model_version_download_uri("digits", version)
        assert found == direct(moved, "model")


def test_a_source_that_names_a_model_that_is_not_there_is_refused(store: RegistryStore) -> None:
    for source in (
        f"models:/{MODEL}",
        "models:/digits/9",
        "models:/none/1",
        "models:/digits/latest",
    ):
        with pytest.raises(Exception, match="Unable to fetch model from model URI"):
            store.create_model_version("digits", source)
    for source in ("models:/digits/Production", "models:/digits@champion"):
        with refusal("INVALID_PARAMETER_VALUE", "by its number"):
            store.create_model_version("digits", source)
    wrong: Any
    for wrong in ("", None):
        with refusal("INVALID_PARAMETER_VALUE", "source"):
            store.create_model_version("digits", wrong)
    assert len(store.search_model_versions("name = 'digits'")) == 2


def test_a_logged_model_of_a_server_is_looked_for_where_the_server_tracks_runs(
    store: RegistryStore, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runlake.mlflow_plugin.tracking import TrackingStore  # noqa: PLC0415 - slow

    runs = TrackingStore(f"{store_uri}-of-runs")
    model = runs.create_logged_model(runs.create_experiment("elsewhere"), source_run_id=None)
    source = f"models:/{model.model_id}"
    with refusal("RESOURCE_DOES_NOT_EXIST"):
        store.create_model_version("digits", source)
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", runs.store_uri)
    made = store.create_model_version("digits", source)
    found = store.get_model_version_download_uri("digits", made.version)
    assert found == model.artifact_location


def test_a_client_within_a_server_names_places_as_the_server_does(
    store: RegistryStore, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place() -> Any:  # noqa: ANN401 - MLflow's
        return tracking_store(store_uri).get_run(RUN).info.artifact_uri

    as_server(monkeypatch)
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", f"{store_uri}-other")
    assert place() == direct(store_uri)
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", store_uri)
    assert f"{place()}/model" == SERVED
    assert store.lake.get_run(RUN).info.artifact_uri.endswith(f"/{EXPERIMENT}/{RUN}")


def test_what_a_change_has_made_is_told_from_what_it_read_itself(
    store: RegistryStore, store_uri: str
) -> None:
    made = store.create_model_version("digits", "s3://models/3").version
    with runlake.open(uris.lake_url(store_uri)) as other:
        other.registry.delete_model_version("digits", made)
    registry = store.lake.registry
    last = registry.changed().by_name["digits"].versions[made]
    now = registry.standing().by_name["digits"].versions[made]
    assert (last.is_deleted, now.is_deleted) == (False, True)


def test_a_store_goes_to_another_process(store: RegistryStore, store_uri: str) -> None:
    from runlake.mlflow_plugin.tracking import TrackingStore  # noqa: PLC0415 - slow

    again: RegistryStore = pickle.loads(pickle.dumps(store))  # noqa: S301 - made here
    assert [each.name for each in again.search_registered_models()] == ["digits"]
    runs = pickle.loads(pickle.dumps(TrackingStore(store_uri, "s3://elsewhere")))  # noqa: S301
    assert (runs.get_run(RUN).info.run_id, runs.artifact_root_uri) == (RUN, "s3://elsewhere")


def test_an_address_that_is_no_lakes_is_refused() -> None:
    from runlake.mlflow_plugin.registry import RegistryStore  # noqa: PLC0415 - slow

    with refusal("INVALID_PARAMETER_VALUE"):
        RegistryStore("runlake://host/path")


def test_webhooks_are_none_and_cannot_be_made(store: RegistryStore) -> None:
    from mlflow.entities.webhook import (  # noqa: PLC0415 - slow
        WebhookAction,
        WebhookEntity,
        WebhookEvent,
    )

    event = WebhookEvent(WebhookEntity.MODEL_VERSION, WebhookAction.CREATED)
    assert list(store.list_webhooks()) == list(store.list_webhooks_by_event(event)) == []
    with refusal("NOT_IMPLEMENTED"):
        store.create_webhook("told", "https://example.com", [event])


# What MLflow's registry stores can do.
OWN: Final = {
    "create_registered_model",
    "update_registered_model",
    "rename_registered_model",
    "delete_registered_model",
    "search_registered_models",
    "get_registered_model",
    "get_latest_versions",
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "create_model_version",
    "update_model_version",
    "transition_model_version_stage",
    "delete_model_version",
    "get_model_version",
    "get_model_version_download_uri",
    "search_model_versions",
    "set_model_version_tag",
    "delete_model_version_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "get_model_version_by_alias",
    "list_webhooks",
    "list_webhooks_by_event",
}
# Works on top of these.
INHERITED: Final = {
    "copy_model_version",
    "create_prompt",
    "create_prompt_version",
    "delete_prompt",
    "delete_prompt_alias",
    "delete_prompt_tag",
    "delete_prompt_version",
    "delete_prompt_version_tag",
    "get_prompt",
    "get_prompt_version",
    "get_prompt_version_by_alias",
    "link_prompt_version_to_model",
    "link_prompt_version_to_run",
    "search_prompt_versions",
    "search_prompts",
    "set_prompt_alias",
    "set_prompt_tag",
    "set_prompt_version_tag",
    "supports_workspaces",
}
# MLflow's own error: there is no server that could call webhooks, and there are no traces.
LEFT_OUT: Final = {
    "create_webhook",
    "delete_webhook",
    "get_webhook",
    "test_webhook",
    "update_webhook",
    "link_prompts_to_trace",
}


def vars_of(store: type, name: str) -> object:
    """Return what a class has under a name, as it is written."""
    return inspect.unwrap(inspect.getattr_static(store, name))


def test_every_method_of_mlflows_registry_stores_is_decided() -> None:
    from mlflow.store.model_registry.abstract_store import AbstractStore  # noqa: PLC0415 - slow

    from runlake.mlflow_plugin.registry import RegistryStore  # noqa: PLC0415 - slow

    public = {name for name, _ in inspect.getmembers(AbstractStore) if re.match("[a-z]", name)}
    decided = OWN | INHERITED | LEFT_OUT
    assert public <= decided, "MLflow has a method that nobody has decided on"
    own = {name for name in public if vars_of(RegistryStore, name) != vars_of(AbstractStore, name)}
    assert own == OWN & public
    for name in OWN & public:
        theirs = inspect.signature(getattr(AbstractStore, name)).parameters
        ours = inspect.signature(getattr(RegistryStore, name)).parameters
        assert list(ours) == list(theirs), name
