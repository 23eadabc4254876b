"""Registered models go with a whole lake: all of a model, or nothing of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import runlake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runlake import Lake

Pair = tuple["Lake", "Lake"]
_FAULTS = {"model", "untraced"}


@pytest.fixture
def lakes(tmp_path: Path) -> Iterator[Pair]:
    """Two local lakes; the first has a run with files."""
    with (
        runlake.open(tmp_path / "one", refresh=0.0) as one,
        runlake.open(tmp_path / "two", refresh=0.0) as two,
    ):
        yield one, two


def trained(lake: Lake) -> str:
    """Return the URI of a model's files, of a run of its own."""
    with lake.start_run("training", experiment="digits") as run:
        run.log_text("weights", "model/weights.txt")
    return f"runs:/{run.run_id}/model"


def versions(lake: Lake) -> list[dict[str, Any]]:
    lake.refresh()
    return lake.sql("FROM model_versions ORDER BY name, version").to_dicts()


def trail(lake: Lake) -> list[dict[str, Any]]:
    return lake.sql("FROM registry_events ORDER BY writer, seq").to_dicts()


def claims_at_fault(lake: Lake) -> list[str]:
    return [each.key for each in lake.maintain.verify().findings if each.kind in _FAULTS]


def test_a_whole_lake_brings_its_models_and_what_was_done_to_them(lakes: Pair) -> None:
    one, two = lakes
    one.registry.register_model(trained(one), "clf")
    one.registry.register_model(trained(one), "clf")
    one.registry.set_registered_model_alias("clf", "champion", 2)
    one.registry.rename_registered_model("clf", "classifier")
    assert one.copy_to(two.url).problems == ()
    assert versions(two) == versions(one)
    assert trail(two) == trail(one)
    assert two.registry.get_model_version_by_alias("classifier", "champion").version == 2
    assert (two.registry.download("models:/classifier@champion") / "weights.txt").is_file()
    assert claims_at_fault(two) == []


def test_a_copied_model_goes_on_in_the_other_lake_and_back(lakes: Pair) -> None:
    one, two = lakes
    one.registry.register_model(trained(one), "clf")
    one.copy_to(two.url)
    two.refresh()
    assert two.registry.register_model(trained(two), "clf").version == 2
    assert two.copy_to(one.url).problems == ()
    assert versions(one) == versions(two)
    assert one.registry.register_model(trained(one), "clf").version == 3
    again = one.copy_to(two.url)
    assert again.problems == ()
    assert [each["version"] for each in versions(two)] == [1, 2, 3]
    assert one.copy_to(two.url).rows == 0


def test_a_model_that_both_lakes_made_stays_away_whole_and_is_named(lakes: Pair) -> None:
    one, two = lakes
    for lake in lakes:
        lake.registry.register_model(trained(lake), "clf")
    one.registry.register_model(trained(one), "clf")
    one.registry.register_model(trained(one), "other")
    before = versions(two)
    copied = one.copy_to(two.url)
    assert len(copied.problems) == 1
    assert "'clf' stayed away" in copied.problems[0]
    assert [each for each in versions(two) if each["name"] == "clf"] == before
    assert [each["name"] for each in versions(two)] == ["clf", "other"]
    assert claims_at_fault(two) == []


def test_versions_that_both_lakes_made_after_a_copy_stay_as_they_are(lakes: Pair) -> None:
    one, two = lakes
    one.registry.register_model(trained(one), "clf")
    one.copy_to(two.url)
    for lake in lakes:
        lake.refresh()
        assert lake.registry.register_model(trained(lake), "clf").version == 2
    before = versions(two)
    assert len(one.copy_to(two.url).problems) == 1
    assert versions(two) == before


def test_single_runs_bring_no_models(lakes: Pair) -> None:
    one, two = lakes
    version = one.registry.register_model(trained(one), "clf")
    assert version.run_id is not None
    one.copy_to(two.url, run_ids=[version.run_id])
    assert versions(two) == []
    assert trail(two) == []
