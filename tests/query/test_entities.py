from __future__ import annotations

import json
import math

import pytest

from runlake.errors import NotFoundError
from runlake.query import Query
from runlake.query.entities import (
    Experiment,
    all_experiments,
    find_experiment,
    find_experiment_by_name,
    get_experiment,
    get_experiment_by_name,
    get_run,
)
from runlake.query.homes import chosen_locations
from tests.query.builders import (
    NOW_US,
    URL,
    Fact,
    Point,
    facts_of,
    lake_event,
    snapshot,
    summaries_of,
)

RUN = "0193a8" + "0" * 26


def _query() -> Query:
    said = facts_of(
        Fact(RUN, "run", "start", num=float(NOW_US - 2_000_000), experiment_id="e1"),
        Fact(RUN, "run", "auto_name", "brisk-heron", experiment_id="e1"),
        Fact(RUN, "run", "user", "ada", experiment_id="e1"),
        Fact(RUN, "param", "lr", "0.1", 0.1, experiment_id="e1"),
        Fact(RUN, "tag", "team", "vision", experiment_id="e1"),
        Fact(RUN, "status", "", "FINISHED", float(NOW_US), experiment_id="e1"),
    )
    events = [
        lake_event("e1", "experiment_create", "digits", clock=NOW_US - 9_000_000),
        lake_event("e1", "experiment_tag", "a", "b", clock=NOW_US - 8_000_000, seq=1),
    ]
    states = summaries_of([Point(RUN, "acc", 0, 0.5, experiment_id="e1")])
    return Query(snapshot(said, states, lake_events=events))


def test_a_run_reads_as_mlflows_does() -> None:
    run = get_run(_query(), RUN)
    assert run.info.run_id == RUN
    assert run.info.run_name == "brisk-heron"
    assert run.info.experiment_id == "e1"
    assert run.info.status == "FINISHED"
    assert run.info.start_time == NOW_US // 1000 - 2000
    assert run.info.end_time == NOW_US // 1000
    assert run.info.artifact_uri == f"{URL}/artifacts/e1/{RUN}"
    assert run.info.lifecycle_stage == "active"
    assert run.info.user_id == "ada"
    assert run.data.params == {"lr": "0.1"}
    assert run.data.metrics == {"acc": 0.5}
    assert run.data.tags == {"team": "vision"}


def test_an_unknown_run_names_the_nearest_and_counts_all() -> None:
    with pytest.raises(NotFoundError, match=rf"holds 1 run\. Did you mean '{RUN}'"):
        get_run(_query(), RUN[:-1] + "1")
    with pytest.raises(NotFoundError, match="holds 0 runs"):
        get_run(Query(snapshot()), RUN)


def test_an_experiment_is_found_by_id_and_by_name() -> None:
    query = _query()
    expected = Experiment(
        experiment_id="e1",
        name="digits",
        lifecycle_stage="active",
        artifact_location=f"{URL}/artifacts/e1",
        creation_time=NOW_US // 1000 - 9000,
        last_update_time=NOW_US // 1000 - 9000,
        tags={"a": "b"},
    )
    assert get_experiment(query, "e1") == expected
    assert get_experiment_by_name(query, "digits") == expected
    assert find_experiment(query, "e2") is None
    assert find_experiment_by_name(query, "letters") is None


def test_an_experiment_found_alone_is_the_one_that_all_hold() -> None:
    said = facts_of(Fact(RUN, "run", "start", num=float(NOW_US), experiment_id="seen"))
    rows = [
        lake_event(name, kind, key, text, seq=seq)
        for seq, (name, kind, key, text) in enumerate(
            [
                ("e1", "experiment_create", "one", '{"time_us": 5000, "tags": {"a": "1"}}'),
                ("e2", "experiment_create", "two", '{"time_us": 7000}'),
                ("e1", "experiment_tag", "b", "2"),
                ("e2", "experiment_rename", "second", None),
                ("e2", "experiment_delete", "", None),
            ]
        )
    ]
    tables = snapshot(said, lake_events=rows)
    everyone = all_experiments(Query(tables))
    assert [each.experiment_id for each in everyone] == ["e1", "e2", "seen"]
    for each in everyone:
        query = Query(tables)
        assert find_experiment(query, each.experiment_id) == each
        assert find_experiment(query, "e3") is None
        assert all_experiments(query) == everyone
        assert find_experiment(query, each.experiment_id) == each


@pytest.mark.parametrize("num", [math.nan, math.inf, 1e300])
def test_a_number_that_is_no_time_hides_no_experiment(num: float) -> None:
    event = {**lake_event("e1", "experiment_rename", "digits"), "num": num}
    query = Query(snapshot(facts_of(), lake_events=[event]))
    found = query.sql("SELECT name, epoch_us(last_update_time) AS us FROM experiments")
    assert found.to_pylist() == [{"name": "digits", "us": NOW_US}]


def test_a_place_that_somebody_chose_is_told_of_its_experiment_alone() -> None:
    claims = {
        "own": None,
        "lake": f"{URL}/artifacts/lake",
        "far": "s3://bucket/there",
        "odd": ["no", "text"],
    }
    rows = [
        lake_event(name, "experiment_create", name, json.dumps({"artifact_location": place}))
        for name, place in claims.items()
    ]
    query = Query(snapshot(facts_of(), lake_events=rows))
    chosen = chosen_locations(query.tables)
    assert chosen == {"far": "s3://bucket/there", "odd": "['no', 'text']"}
    for each in all_experiments(query):
        own = f"{URL}/artifacts/{each.experiment_id}"
        assert each.artifact_location == chosen.get(each.experiment_id, own)


def test_an_unknown_experiment_names_the_nearest() -> None:
    query = _query()
    with pytest.raises(NotFoundError, match="Did you mean 'digits'"):
        get_experiment_by_name(query, "digit")
    with pytest.raises(NotFoundError, match=r"no experiment 'e2' .* holds 1 experiment"):
        get_experiment(query, "e2")
