"""What one user sees of the registry, on each store."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from runlake import ids
from runlake.errors import (
    AlreadyExistsError,
    FormatError,
    InvalidInputError,
    NotFoundError,
    StateError,
)
from runlake.lake import open_lake
from runlake.registry import uris
from runlake.storage import layout, model_claims

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runlake.lake import Lake
    from runlake.registry.registry import Registry
    from tests.conftest import Place


pytestmark = pytest.mark.filesystems("local")


@pytest.fixture
def registry(lake: Lake) -> Registry:
    """An empty registry."""
    return lake.registry


def make_versions(registry: Registry, count: int, name: str = "digits") -> None:
    """Make a model with some versions."""
    registry.create_registered_model(name)
    for number in range(1, count + 1):
        made = registry.create_model_version(name, f"s3://models/{name}/{number}")
        assert made.version == number


def test_model_comes_back_as_it_was_made(registry: Registry) -> None:
    made = registry.create_registered_model(
        "Größe ✓ (new)", {"team": "vision", "size": 3}, description="reads digits"
    )
    assert registry.get_registered_model("Größe ✓ (new)") == made
    assert (made.name, made.description) == ("Größe ✓ (new)", "reads digits")
    assert made.tags == {"team": "vision", "size": "3"}
    assert made.creation_timestamp == made.last_updated_timestamp
    assert (made.aliases, made.latest_versions) == ({}, [])


@pytest.mark.filesystems("memory")
def test_what_comes_from_another_registry_keeps_its_time_its_place_and_its_origin(
    registry: Registry,
) -> None:
    made = registry.create_registered_model("digits", creation_time=1_234_000)
    assert (made.creation_timestamp, made.last_updated_timestamp) == (1_234_000, 1_234_000)
    version = registry.create_model_version(
        "digits",
        "there://is/no/such/place",
        location="s3://models/1",
        logged_model_id="m-1",
        creation_time=datetime(2020, 1, 2, tzinfo=UTC),
    )
    assert version.creation_timestamp == 1_577_923_200_000
    assert (version.source, version.location) == ("there://is/no/such/place", "s3://models/1")
    assert registry.get_model_version_download_uri("digits", 1) == "s3://models/1"
    copy = registry.copy_model_version("models:/digits/1", "letters")
    assert (version.logged_model_id, copy.logged_model_id) == ("m-1", "m-1")
    found = registry.search_model_versions("logged_model_id = 'm-1' and name = 'digits'")
    assert list(found) == [version]
    with pytest.raises(InvalidInputError, match="timestamp"):
        registry.create_registered_model("late", creation_time=float("nan"))
    with pytest.raises(InvalidInputError, match="location"):
        registry.create_model_version("digits", "s3://models/1", location="")
    assert registry.standing("digits").by_name["digits"].versions.keys() == {1}
    with pytest.raises(NotFoundError, match="digits"):
        registry.standing("digit")


@pytest.mark.filesystems("memory")
def test_claim_of_a_version_from_before_there_were_logged_models_is_read(
    registry: Registry, lake: Lake
) -> None:
    make_versions(registry, 1)
    fs = lake._storage.fs
    home = registry.standing().by_name["digits"].home
    key = layout.version_claim(home, 1)
    said = json.loads(fs.get(key))
    assert said.pop("logged_model_id", "") is None
    old = model_claims.VersionClaim.read(json.dumps(said).encode(), key=key, url=fs.url)
    assert old == model_claims.read_version(fs, home, 1)
    del said["run_link"]
    with pytest.raises(FormatError):
        model_claims.VersionClaim.read(json.dumps(said).encode(), key=key, url=fs.url)


def test_model_of_a_run_is_registered_with_its_run(lake: Lake) -> None:
    with lake.start_run() as run:
        run.log_text("weights", "model/weights.txt")
        run.log_text("alone", "single.txt")
    source = f"runs:/{run.run_id}/model"
    made = lake.registry.register_model(source, "digits", tags={"a": 1}, description="first")
    assert (made.name, made.version, made.run_id) == ("digits", 1, run.run_id)
    assert (made.source, made.tags, made.description) == (source, {"a": "1"}, "first")
    assert lake.registry.register_model(f"runs:/{run.run_id}/single.txt", "digits").version == 2
    assert lake.registry.register_model(f"runs:/{run.run_id}", "digits").version == 3


def test_source_that_is_not_there_is_refused_and_nothing_is_made(lake: Lake) -> None:
    with lake.start_run() as run:
        run.log_text("weights", "model/weights.txt")
    for source, said in (
        (f"runs:/{run.run_id}/modle", "no artifact 'modle'.*'model'"),
        ("runs:/0123/model", "no run '0123'"),
        ("models:/other/1", "no registered model 'other'"),
    ):
        with pytest.raises(NotFoundError, match=said):
            lake.registry.register_model(source, "digits")
    for source in ("runs:/", "models:/digits", "models:/a/b/c", "models:/digits/old"):
        with pytest.raises(InvalidInputError):
            lake.registry.register_model(source, "digits")
    assert lake.registry.search_registered_models() == []


def test_files_of_a_version_are_downloaded_from_wherever_they_lie(
    lake: Lake, tmp_path: Path
) -> None:
    with lake.start_run() as run:
        run.log_text("weights", "model/deep/weights.txt")
    outside = tmp_path / "elsewhere" / "model"
    outside.mkdir(parents=True)
    (outside / "weights.txt").write_text("other weights")
    registry = lake.registry
    registry.register_model(f"runs:/{run.run_id}/model", "digits")
    registry.register_model(str(outside), "digits")
    registry.copy_model_version("models:/digits/1", "copy")
    registry.delete_registered_model("digits")
    found = registry.download("models:/copy/latest", target=tmp_path / "here")
    assert found == tmp_path / "here" / "model"
    assert (found / "deep" / "weights.txt").read_text() == "weights"
    assert registry.get_model_version_download_uri("copy", 1) == (f"{run.info.artifact_uri}/model")
    assert registry.locate("models:/copy/1")[:2] == (run.run_id, "model")
    registry.register_model(outside.as_uri(), "other")
    assert (registry.download("models:/other/1") / "weights.txt").read_text() == "other weights"


def test_version_whose_run_is_gone_says_so(lake: Lake) -> None:
    lake.registry.create_registered_model("digits")
    lake.registry.create_model_version("digits", "runs:/nowhere/model")
    with pytest.raises(NotFoundError, match="made from runs:/nowhere/model, and that is gone"):
        lake.registry.download("models:/digits/1")
    with pytest.raises(NotFoundError, match="made from runs:/nowhere/model, and that is gone"):
        lake.registry.register_model("models:/digits/1", "other")
    assert len(lake.registry.search_registered_models()) == 1


def test_names_that_are_taken_or_none_are_refused(registry: Registry) -> None:
    registry.create_registered_model("digits")
    with pytest.raises(AlreadyExistsError, match="'digits' exists already"):
        registry.create_registered_model("digits")
    registry.create_registered_model("letters")
    with pytest.raises(AlreadyExistsError):
        registry.rename_registered_model("letters", "digits")
    for name in ("", "  ", "a/b", "a:b", ".", "..", "x" * 501, "new\nline"):
        with pytest.raises(InvalidInputError):
            registry.create_registered_model(name)
        with pytest.raises(InvalidInputError):
            registry.rename_registered_model("digits", name)


def test_what_is_not_there_is_said_with_what_is_near(registry: Registry) -> None:
    make_versions(registry, 3)
    registry.delete_model_version("digits", 2)
    registry.set_registered_model_alias("digits", "champion", 1)
    for ask, said in (
        (lambda: registry.get_registered_model("digit"), "Did you mean 'digits'"),
        (lambda: registry.get_model_version("digits", 9), "does not exist; its versions are 1, 3"),
        (lambda: registry.get_model_version("digits", 2), "version 2 .* is deleted"),
        (lambda: registry.resolve("models:/digits@best"), "no alias 'best'; it has 'champion'"),
        (lambda: registry.resolve("models:/digits/Staging"), "no version in stage Staging"),
    ):
        with pytest.raises(NotFoundError, match=said):
            ask()
    for version in ("", "one", "1.5", True, -1, 1.0):
        with pytest.raises(InvalidInputError, match="whole number"):
            registry.get_model_version("digits", version)  # type: ignore[arg-type] # on purpose


@pytest.mark.filesystems("local", "memory", "s3")
def test_deleted_number_is_never_given_out_again(registry: Registry) -> None:
    make_versions(registry, 3)
    for number in (1, 3):
        registry.delete_model_version("digits", number)
    assert registry.create_model_version("digits", "s3://new").version == 4
    assert [each.version for each in registry.search_model_versions()] == [4, 2]


@pytest.mark.filesystems("local", "memory", "s3")
def test_renamed_model_keeps_everything_and_frees_its_name(registry: Registry) -> None:
    make_versions(registry, 2)
    before = registry.get_registered_model("digits")
    registry.set_registered_model_alias("digits", "champion", 2)
    after = registry.rename_registered_model("digits", "numbers")
    assert (after.model_id, after.aliases) == (before.model_id, {"champion": 2})
    assert registry.create_model_version("numbers", "s3://next").version == 3
    with pytest.raises(NotFoundError):
        registry.get_registered_model("digits")
    again = registry.create_registered_model("digits")
    assert again.model_id != before.model_id
    assert registry.create_model_version("digits", "s3://first").version == 1
    with pytest.raises(AlreadyExistsError):
        registry.rename_registered_model("numbers", "digits")
    registry.delete_registered_model("digits")
    back = registry.rename_registered_model("numbers", "digits")
    assert (back.model_id, back.name) == (before.model_id, "digits")
    assert registry.create_model_version("digits", "s3://fourth").version == 4
    assert registry.rename_registered_model("digits", "digits").name == "digits"


def test_deleted_model_frees_its_name_and_begins_anew(registry: Registry, lake: Lake) -> None:
    make_versions(registry, 2)
    registry.set_registered_model_tag("digits", "a", 1)
    registry.delete_registered_model("digits")
    made = registry.create_registered_model("digits")
    assert (made.tags, made.latest_versions) == ({}, [])
    assert registry.create_model_version("digits", "s3://new").version == 1
    trail = lake.sql("SELECT kind, model_id FROM registry_events WHERE name = 'digits'")
    assert trail["model_id"].n_unique() == 2
    assert trail["kind"].to_list().count("registry_version_create") == 3


def test_stages_follow_mlflows_rules(registry: Registry) -> None:
    make_versions(registry, 4)
    registry.transition_model_version_stage("digits", 1, "staging")
    registry.transition_model_version_stage("digits", 2, "PRODUCTION")
    moved = registry.transition_model_version_stage(
        "digits", "3", "Production", archive_existing_versions=True
    )
    assert moved.current_stage == "Production"
    stages = {each.version: each.current_stage for each in registry.search_model_versions()}
    assert stages == {1: "Staging", 2: "Archived", 3: "Production", 4: "None"}
    latest = registry.get_latest_versions("digits")
    assert [(each.current_stage, each.version) for each in latest] == [
        ("None", 4),
        ("Staging", 1),
        ("Production", 3),
        ("Archived", 2),
    ]
    (only,) = registry.get_latest_versions("digits", ["production"])
    assert only == registry.resolve("models:/digits/Production")
    for stage in ("None", "archived"):
        with pytest.raises(InvalidInputError, match="goes with Staging and Production"):
            registry.transition_model_version_stage(
                "digits", 1, stage, archive_existing_versions=True
            )
    with pytest.raises(InvalidInputError, match="'best' is no stage"):
        registry.transition_model_version_stage("digits", 1, "best")


def test_aliases_follow_mlflows_rules(registry: Registry) -> None:
    make_versions(registry, 2)
    registry.set_registered_model_alias("digits", "champion", 1)
    registry.set_registered_model_alias("digits", "champion", 2)
    registry.set_registered_model_alias("digits", "ö_1-x", "2")
    assert registry.get_model_version_by_alias("digits", "champion").version == 2
    assert registry.get_model_version("digits", 2).aliases == ["champion", "ö_1-x"]
    registry.delete_model_version("digits", 2)
    assert registry.get_registered_model("digits").aliases == {}
    registry.set_registered_model_alias("digits", "champion", 1)
    registry.delete_registered_model_alias("digits", "champion")
    registry.delete_registered_model_alias("digits", "champion")
    with pytest.raises(NotFoundError):
        registry.get_model_version_by_alias("digits", "champion")
    for alias in ("", "latest", "LATEST", "v3", "V12", "a b", "a/b", "x" * 256):
        with pytest.raises(InvalidInputError, match="is no alias"):
            registry.set_registered_model_alias("digits", alias, 1)
    with pytest.raises(NotFoundError):
        registry.set_registered_model_alias("digits", "champion", 2)


def test_tags_and_descriptions_are_set_and_taken_away(registry: Registry) -> None:
    make_versions(registry, 1)
    registry.set_registered_model_tag("digits", "a", 1)
    registry.set_registered_model_tag("digits", "b", "zwei")
    registry.delete_registered_model_tag("digits", "a")
    registry.delete_registered_model_tag("digits", "none")
    registry.set_model_version_tag("digits", 1, "c", "drei")
    registry.set_model_version_tag("digits", 1, "d", "vier")
    registry.delete_model_version_tag("digits", 1, "d")
    registry.update_registered_model("digits", "what it is")
    found = registry.update_model_version("digits", 1, description="how it was made")
    assert (found.description, found.tags) == ("how it was made", {"c": "drei"})
    model = registry.get_registered_model("digits")
    assert (model.description, model.tags) == ("what it is", {"b": "zwei"})
    assert registry.update_registered_model("digits", None).description == ""


def test_copy_stays_when_its_source_goes(lake: Lake) -> None:
    with lake.start_run() as run:
        run.log_text("weights", "model/weights.txt")
    registry = lake.registry
    registry.register_model(f"runs:/{run.run_id}/model", "dev", tags={"a": 1}, description="good")
    copied = registry.copy_model_version("models:/dev/1", "prod")
    assert (copied.name, copied.version, copied.source) == ("prod", 1, "models:/dev/1")
    assert (copied.run_id, copied.tags, copied.description) == (run.run_id, {"a": "1"}, "good")
    registry.delete_registered_model("dev")
    assert (registry.download("models:/prod/1") / "weights.txt").read_text() == "weights"
    assert registry.copy_model_version("models:/prod/1", "prod").version == 2


def test_trail_tells_who_did_what_when_and_why(lake: Lake) -> None:
    registry = lake.registry
    registry.create_registered_model("digits", reason="a new project")
    registry.create_model_version("digits", "s3://one", reason="first training")
    registry.set_registered_model_alias("digits", "champion", 1, reason="it is the only one")
    registry.transition_model_version_stage("digits", 1, "Production", reason="needed")
    registry.rename_registered_model("digits", "numbers", reason="it reads more")
    registry.delete_registered_model_alias("numbers", "champion", reason="broken")
    registry.delete_registered_model("numbers", reason="over")
    trail = lake.sql("FROM registry_events").to_dicts()
    told = [(row["kind"], row["version"], row["key"], row["value"]) for row in trail]
    assert told == [
        ("registry_model_create", None, "digits", None),
        ("registry_version_create", 1, "", "s3://one"),
        ("registry_alias", 1, "champion", "1"),
        ("registry_version_stage", 1, "Production", None),
        ("registry_model_rename", None, "numbers", "digits"),
        ("registry_alias", 1, "champion", None),
        ("registry_model_delete", None, "", None),
    ]
    assert {row["name"] for row in trail} == {"numbers"}
    assert trail[2]["reason"] == "it is the only one"
    assert all(row["user_id"] and row["host"] and row["at"] and row["writer"] for row in trail)
    assert json.loads(trail[1]["about"])["nonce"]


@pytest.mark.filesystems("local", "memory", "s3")
def test_what_is_written_is_there_for_a_process_that_begins_now(
    lake: Lake, lake_url: Place
) -> None:
    make_versions(lake.registry, 2)
    lake.registry.set_registered_model_alias("digits", "champion", 1)
    other = open_lake(lake_url.url, storage_options=lake_url.storage_options, read_only=True)
    assert other.registry.resolve("models:/digits@champion").version == 1
    assert other.sql("SELECT count(*) AS n FROM model_versions")["n"].item() == 2
    with pytest.raises(StateError, match="read-only"):
        other.registry.create_registered_model("x")
    other.close()


def test_experiment_and_model_of_one_name_do_not_touch_each_other(lake: Lake) -> None:
    experiment_id = lake.create_experiment("digits")
    with lake.start_run(experiment="digits") as run:
        run.log({"loss": 1.0})
    made = lake.registry.create_registered_model("digits")
    assert made.model_id != experiment_id
    assert [each.name for each in lake.search_experiments()] == ["digits"]
    lake.delete_experiment(experiment_id)
    lake.maintain.purge(experiment="digits")
    assert lake.registry.get_registered_model("digits") == made


@pytest.mark.parametrize("what", ["create", "rename", "version"])
@pytest.mark.filesystems("local", "memory", "s3")
def test_claim_whose_maker_died_is_found_by_the_next(
    lake: Lake, lake_url: Place, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    registry = lake.registry
    make_versions(registry, 1)
    deeds: dict[str, Callable[[], Any]] = {
        "create": lambda: registry.create_registered_model("new", {"a": 1}, reason="died"),
        "rename": lambda: registry.rename_registered_model("digits", "new", reason="died"),
        "version": lambda: registry.create_model_version("digits", "s3://lost", reason="died"),
    }

    class DiedError(Exception):
        """The process ends here."""

    def die(*_: object) -> None:
        raise DiedError

    with monkeypatch.context() as patched:
        patched.setattr(type(registry._book), "say", die)
        with pytest.raises(DiedError):
            deeds[what]()
    with open_lake(lake_url.url, storage_options=lake_url.storage_options) as other:
        if what == "create":
            with pytest.raises(AlreadyExistsError):
                other.registry.create_registered_model("new")
            assert other.registry.get_registered_model("new").tags == {"a": "1"}
        elif what == "rename":
            assert other.registry.get_registered_model("new").latest_versions[0].version == 1
            other.registry.create_registered_model("digits")
        else:
            assert other.registry.create_model_version("digits", "s3://next").version == 3
            assert other.registry.get_model_version("digits", 2).source == "s3://lost"
        trail = other.sql("SELECT reason FROM registry_events WHERE reason = 'died'")
        assert trail.height == 1


@pytest.mark.filesystems("local", "memory", "s3")
def test_registry_is_the_same_after_compaction_and_vacuum(lake: Lake) -> None:
    make_versions(lake.registry, 5)
    lake.registry.set_registered_model_alias("digits", "champion", 3)
    lake.registry.delete_model_version("digits", 5)
    before = lake.registry.get_registered_model("digits")
    trail = lake.sql("FROM registry_events")
    lake.maintain.compact(full=True)
    lake.maintain.vacuum(grace_s=0.0)
    lake.refresh()
    assert lake.registry.get_registered_model("digits") == before
    assert lake.sql("FROM registry_events").equals(trail)
    assert lake.registry.create_model_version("digits", "s3://six").version == 6


@pytest.mark.filesystems("local", "memory", "s3")
def test_claims_lie_where_the_specification_says(lake: Lake) -> None:
    make_versions(lake.registry, 2)
    lake.registry.rename_registered_model("digits", "numbers")
    keys = {entry.key for entry in lake._storage.fs.list(layout.MODEL_NAMES)}
    digits, numbers = ids.name_hash("digits"), ids.name_hash("numbers")
    assert keys == {
        f"names/models/{digits}/000001.json",
        f"names/models/{digits}/000001/versions/000000001.json",
        f"names/models/{digits}/000001/versions/000000002.json",
        f"names/models/{numbers}/000001.json",
    }


def test_disabled_registry_keeps_what_this_process_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RUNLAKE_MODE", "disabled")
    with open_lake(tmp_path / "lake") as lake:
        lake.registry.create_registered_model("digits")
        assert lake.registry.create_model_version("digits", "s3://one").version == 1
        assert lake.registry.create_model_version("digits", "s3://two").version == 2
        lake.registry.set_registered_model_alias("digits", "champion", 2)
        assert lake.registry.resolve("models:/digits@champion").version == 2
    assert not (tmp_path / "lake").exists()


def test_addresses_of_odd_names_are_quoted(registry: Registry) -> None:
    for name in ("a@b", "100%", "%41", "was ist?", "#1", "ö ü", "3"):
        registry.create_registered_model(name)
        registry.create_model_version(name, "s3://x")
        registry.set_registered_model_alias(name, "champion", 1)
        for uri in (
            uris.model_uri(name),
            uris.model_uri(name, version=1),
            uris.model_uri(name, alias="champion"),
        ):
            assert registry.resolve(uri).name == name
