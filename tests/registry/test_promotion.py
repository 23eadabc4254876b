"""Promotion with a condition, and the trail that it leaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runlake.errors import FilterSyntaxError, InvalidInputError, NotFoundError, StateError

if TYPE_CHECKING:
    from runlake.lake import Lake

# What holds is decided by the folds of the query side: no promise of a filesystem.
pytestmark = pytest.mark.filesystems("local")


@pytest.fixture
def run_id(lake: Lake) -> str:
    """The run of version 1 of the model `digits`."""
    with lake.start_run("svm", tags={"team": "vision"}) as run:
        run.log_param("lr", 0.1)
        for step, value in enumerate((0.5, 0.95, 0.85)):
            run.log_metric("acc", value, step)
        run.log_metric("loss", float("nan"))
        run.log_text("weights", "model/weights.txt")
    lake.registry.register_model(f"runs:/{run.run_id}/model", "digits")
    return run.run_id


def promotions(lake: Lake) -> list[dict[str, Any]]:
    """Return what the trail says of promotions, the oldest first."""
    events = lake.sql("FROM registry_events WHERE kind = 'registry_promotion' ORDER BY \"at\"")
    return [{**json.loads(row["about"]), **row} for row in events.to_dicts()]


@pytest.mark.parametrize(
    "require",
    [
        "metrics.acc > 0.8",
        "metrics.acc.max > 0.9 and metrics.acc.min >= 0.5",
        "metrics.acc > 0.99 or tags.team = 'vision'",
        "params.lr < 0.2 and not tags.team = 'speech'",
        "status = 'FINISHED' and metrics.nothing IS NULL",
        None,
    ],
)
def test_version_whose_run_meets_the_condition_is_promoted(
    lake: Lake, run_id: str, require: str | None
) -> None:
    found = lake.registry.promote("digits", 1, "champion", require=require, reason="it is good")
    assert (found.version, found.aliases) == (1, ["champion"])
    assert lake.registry.get_model_version_by_alias("digits", "champion").run_id == run_id
    (event,) = promotions(lake)
    assert (event["key"], event["version"], event["value"]) == ("champion", 1, "promoted")
    assert (event["require"], event["reason"]) == (require, "it is good")


def test_promotion_that_is_refused_says_what_the_run_has_and_changes_no_alias(
    lake: Lake, run_id: str
) -> None:
    lake.registry.promote("digits", 1, "champion")
    lake.registry.register_model(f"runs:/{run_id}/model", "digits")
    require = "metrics.acc > 0.9 and params.lr = '0.1' and metrics.f1 > 0"
    with pytest.raises(StateError, match=r"version 2 of 'digits' is not promoted") as refused:
        lake.registry.promote("digits", 2, "champion", require=require)
    said = str(refused.value)
    assert run_id in said
    assert "metrics.acc = 0.85" in said
    assert "params.lr = '0.1'" in said
    assert "metrics.f1 that is not there" in said
    assert lake.registry.get_registered_model("digits").aliases == {"champion": 1}
    event = promotions(lake)[-1]
    assert (event["value"], event["version"]) == ("refused", 2)
    assert event["found"] == {"metrics.acc": 0.85, "params.lr": "0.1", "metrics.f1": None}


@pytest.mark.filesystems("local", "s3")
def test_condition_is_held_against_the_run_as_it_is_now(lake: Lake, run_id: str) -> None:
    with pytest.raises(StateError):
        lake.registry.promote("digits", 1, "champion", require="metrics.f1 > 0.9")
    with lake.start_run(run_id=run_id) as run:
        run.log_metric("f1", 0.95)
    lake.registry.promote("digits", 1, "champion", require="metrics.f1 > 0.9")
    assert [event["value"] for event in promotions(lake)] == ["refused", "promoted"]


def test_values_that_json_has_not_are_kept_as_text(lake: Lake, run_id: str) -> None:
    assert run_id
    with pytest.raises(StateError, match=r"metrics\.loss = 'nan'"):
        lake.registry.promote("digits", 1, "champion", require="metrics.loss < 1")
    (event,) = promotions(lake)
    assert event["found"] == {"metrics.loss": "nan"}


def test_version_without_a_run_or_of_a_run_that_is_gone_meets_nothing(
    lake: Lake, run_id: str
) -> None:
    lake.registry.create_model_version("digits", "s3://elsewhere/model")
    with pytest.raises(StateError, match="nobody said which run"):
        lake.registry.promote("digits", 2, "champion", require="metrics.acc > 0")
    lake.maintain.purge([run_id], alone=True)
    with pytest.raises(StateError, match="is gone"):
        lake.registry.promote("digits", 1, "champion", require="metrics.acc > 0")
    assert [event["value"] for event in promotions(lake)] == ["refused", "refused"]
    assert lake.registry.promote("digits", 2, "champion").aliases == ["champion"]


@pytest.mark.parametrize(
    ("arguments", "require", "error"),
    [
        (("digits", 1, "champion"), "metrics.acc >", FilterSyntaxError),
        (("digits", 1, "champion"), "statuss = 'FINISHED'", FilterSyntaxError),
        (("digits", 1, "latest"), None, InvalidInputError),
        (("digits", 7, "champion"), None, NotFoundError),
        (("nothing", 1, "champion"), None, NotFoundError),
    ],
)
def test_wrong_call_is_refused_and_leaves_no_trace(
    lake: Lake,
    run_id: str,
    arguments: tuple[str, int, str],
    require: str | None,
    error: type[Exception],
) -> None:
    assert run_id
    with pytest.raises(error):
        lake.registry.promote(*arguments, require=require)
    assert promotions(lake) == []
    assert lake.registry.get_registered_model("digits").aliases == {}


def test_error_in_a_condition_shows_the_condition_as_it_was_given(lake: Lake, run_id: str) -> None:
    assert run_id
    with pytest.raises(FilterSyntaxError) as wrong:
        lake.registry.promote("digits", 1, "champion", require="metrics.acc > 0 and x y")
    assert "run_id" not in str(wrong.value)


@pytest.mark.parametrize("require", ["", " \n"])
def test_an_empty_condition_is_refused_and_promotes_nothing(
    lake: Lake, run_id: str, require: str
) -> None:
    assert run_id
    with pytest.raises(InvalidInputError, match="condition of a promotion is empty"):
        lake.registry.promote("digits", 1, "champion", require=require)
    assert promotions(lake) == []
