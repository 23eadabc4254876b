from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runlake import schema
from runlake.query import Query
from runlake.query.export import to_rows
from runlake.storage.state import Fact as StateFact
from runlake.storage.state import FactBook, earliest_stands
from tests.query.builders import (
    NOW_US,
    STALE_S,
    URL,
    Fact,
    Point,
    facts_of,
    lake_event,
    snapshot,
    summaries_of,
    summarize,
    writer_row,
)

if TYPE_CHECKING:
    import random

RUN = "a" * 32
# A query opens a database, which costs more than Hypothesis allows an example by default.
slow = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])

runs = st.sampled_from([RUN, "b" * 32])
writers = st.sampled_from(["W1", "W2", "W3"])
clocks = st.integers(NOW_US - 5, NOW_US)
texts = st.sampled_from(["x", "y", "", "it's"])
facts = st.one_of(
    st.builds(
        Fact, runs, st.just("param"), st.sampled_from("ab"), texts,
        clock=clocks, writer=writers,
    ),
    st.builds(
        Fact, runs, st.just("tag"), st.sampled_from("ab"), st.none() | texts,
        clock=clocks, writer=writers,
    ),
    st.builds(
        Fact, runs, st.just("run"), st.sampled_from(["name", "auto_name", "user", "parent"]), texts,
        clock=clocks, writer=writers,
    ),
    st.builds(
        Fact, runs, st.just("status"), st.just(""), st.sampled_from(schema.STATUSES),
        st.integers(0, 9).map(float), clock=clocks, writer=writers,
    ),
    st.builds(
        Fact, runs, st.just("status"), st.just("set"), st.sampled_from(schema.STATUSES),
        st.none() | st.integers(0, 9).map(float), clock=clocks, writer=writers,
    ),
    st.builds(Fact, runs, st.sampled_from(["delete", "restore"]), clock=clocks, writer=writers),
)  # fmt: skip
values = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])
points = st.builds(
    Point, runs, st.sampled_from("kl"), st.integers(-2, 2), values,
    st.integers(NOW_US - 2, NOW_US), writers,
)  # fmt: skip


def _order(fact: Fact) -> tuple[int, str, int]:
    return fact.clock, fact.writer, fact.seq


def _standing(said: list[Fact]) -> dict[tuple[str, str, str], Fact]:
    groups: dict[tuple[str, str, str], list[Fact]] = defaultdict(list)
    for fact in said:
        groups[fact.run_id, fact.kind, fact.key].append(fact)
    return {
        (run_id, kind, key): (min if earliest_stands(kind, key) else max)(group, key=_order)
        for (run_id, kind, key), group in groups.items()
    }


def _run_row(run_id: str, said: list[Fact]) -> dict[str, Any]:
    """Say what `runs` must show of one run, all of whose writers are fresh."""
    mine = [fact for fact in said if fact.run_id == run_id]
    stands = {(kind, key): fact for (_, kind, key), fact in _standing(mine).items()}
    words = [fact for fact in mine if fact.kind == "status"]
    last_set = max((_order(fact) for fact in words if fact.key == "set"), default=(0, "", 0))
    left = [fact for fact in words if fact.key == "" and _order(fact) > last_set]
    own = {writer: max((f for f in left if f.writer == writer), key=_order, default=None)
           for writer in {fact.writer for fact in left}}  # fmt: skip
    open_words = {fact.str for fact in own.values() if fact is not None}
    latest = max(words, key=_order, default=None)
    status = next(
        (word for word in ("RUNNING", "SCHEDULED") if word in open_words),
        "RUNNING" if latest is None else latest.str,
    )
    flags = [fact for fact in mine if fact.kind in {"delete", "restore"}]
    is_deleted = bool(flags) and max(flags, key=_order).kind == "delete"

    def attribute(key: str) -> str | None:
        return stands["run", key].str if ("run", key) in stands else None

    name = attribute("name")
    return {
        "run_id": run_id,
        "run_name": attribute("auto_name") if name is None else name,
        "user_id": attribute("user"),
        "parent_run_id": attribute("parent"),
        "status": status,
        "end": None if status in {"RUNNING", "SCHEDULED"} or latest is None else latest.num,
        "lifecycle_stage": "deleted" if is_deleted else "active",
        "params": {key: f.str for (kind, key), f in stands.items() if kind == "param"},
        "tags": {
            key: f.str for (kind, key), f in stands.items() if kind == "tag" and f.str is not None
        },
    }


_RUNS_SQL = """
SELECT run_id, run_name, user_id, parent_run_id, status, epoch_us(end_time) AS end,
    lifecycle_stage, params, tags
FROM runs ORDER BY run_id
"""


@slow
@given(said=st.lists(facts, max_size=30), seed=st.randoms(use_true_random=False))
def test_folded_runs_equal_a_plain_fold_however_facts_are_split_and_repeated(
    said: list[Fact], seed: random.Random
) -> None:
    said = facts_of(*said)
    seen = said + seed.choices(said, k=5) if said else []
    seed.shuffle(seen)
    expected = [_run_row(run_id, said) for run_id in sorted({fact.run_id for fact in said})]
    assert to_rows(Query(snapshot(seen)).sql(_RUNS_SQL)) == expected


@slow
@given(said=st.lists(facts, max_size=30), cut=st.integers(0, 30))
def test_facts_that_a_writer_folded_before_give_the_same_answers(
    said: list[Fact], cut: int
) -> None:
    said = facts_of(*said)
    folded: list[Fact] = []
    for writer in ("W1", "W2", "W3"):
        mine = [fact for fact in said if fact.writer == writer]
        for part in (mine[:cut], mine):
            book = FactBook()
            for fact in part:
                book.add(
                    fact.run_id, fact.kind, fact.key,
                    StateFact(fact.clock, fact.seq, fact.num, fact.str),
                )  # fmt: skip
            folded += [
                Fact(**row, writer=writer) for row in book.table(book.all_runs()).to_pylist()
            ]
    plain, merged = (Query(snapshot(each)).sql(_RUNS_SQL) for each in (said, folded))
    assert to_rows(merged) == to_rows(plain)


@slow
@given(logged=st.lists(points, max_size=25), cut=st.integers(0, 25))
def test_folded_metrics_equal_a_plain_fold_however_states_are_split_and_repeated(
    logged: list[Point], cut: int
) -> None:
    states = summaries_of(logged[:cut]) + summaries_of(logged)
    shown = Query(snapshot((), states)).sql("FROM metric_summary ORDER BY run_id, key")
    groups: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in logged:
        groups[point.run_id, point.key].append(point)
    rows = {(row["run_id"], row["key"]): row for row in to_rows(shown)}
    assert sorted(rows) == sorted(groups)
    for place, group in groups.items():
        expected = summarize(group)
        row = rows[place]
        for name in ("last", "last_step", "first", "first_step", "min", "min_step", "max",
                     "max_step", "nan_count"):  # fmt: skip
            assert row[name] == pytest.approx(expected[name], nan_ok=True, abs=0), name
        assert row["count"] == expected["n"]
        numbers = expected["n"] - expected["nan_count"]
        if not numbers:
            assert row["mean"] is None
        else:
            mean = expected["sum"] / numbers
            size = sum(abs(p.value) for p in group if math.isfinite(p.value))
            assert row["mean"] == pytest.approx(mean, nan_ok=True, rel=1e-9, abs=1e-12 * size)


@pytest.mark.parametrize("values_logged", [(math.nan, 0.5), (0.5, math.nan)])
def test_of_two_writers_at_one_step_and_time_a_number_is_last_before_nan(
    values_logged: tuple[float, float],
) -> None:
    logged = [
        Point(RUN, "k", 1, value, writer=writer)
        for value, writer in zip(values_logged, ("W1", "W2"), strict=True)
    ]
    row = to_rows(Query(snapshot((), summaries_of(logged))).sql("FROM metric_summary"))[0]
    assert (row["last"], row["first"]) == (0.5, 0.5)


def test_a_metric_of_nothing_but_nan_has_a_last_value_and_no_least() -> None:
    logged = [Point(RUN, "k", step, math.nan) for step in range(3)]
    row = to_rows(Query(snapshot((), summaries_of(logged))).sql("FROM metric_summary"))[0]
    assert math.isnan(row["last"])
    assert (row["min"], row["max"], row["mean"]) == (None, None, None)
    assert (row["count"], row["nan_count"]) == (3, 3)


def _status(status: str, time: int, writer: str) -> Fact:
    return Fact(RUN, "status", "", status, float(time), clock=time, writer=writer)


@pytest.mark.parametrize(
    ("said", "ages", "status", "is_stale"),
    [
        ([("RUNNING", "W1")], {"W1": 0}, "RUNNING", False),
        ([("RUNNING", "W1")], {"W1": STALE_S + 1}, "RUNNING", True),
        ([("SCHEDULED", "W1")], {"W1": 0}, "SCHEDULED", False),
        ([("RUNNING", "W1"), ("FINISHED", "W1")], {"W1": STALE_S + 1}, "FINISHED", False),
        ([("RUNNING", "W1"), ("RUNNING", "W2"), ("FINISHED", "W1")], {"W1": 0, "W2": 0},
         "RUNNING", False),
        ([("RUNNING", "W1"), ("RUNNING", "W2"), ("FINISHED", "W1")],
         {"W1": 0, "W2": STALE_S + 1}, "FINISHED", False),
        ([("RUNNING", "W1"), ("FAILED", "W1"), ("RUNNING", "W2")],
         {"W1": 0, "W2": STALE_S + 1}, "RUNNING", True),
        ([], {"W1": 0}, "RUNNING", False),
        ([], {"W1": STALE_S + 1}, "RUNNING", True),
    ],
)  # fmt: skip
def test_the_status_of_a_run_is_running_while_a_fresh_writer_says_so_else_the_latest_word(
    said: list[tuple[str, str]],
    ages: dict[str, float],
    status: str,
    is_stale: bool,  # noqa: FBT001
) -> None:
    facts_said = [Fact(RUN, "tag", "a", "b", clock=NOW_US - 100)]
    facts_said += [_status(word, NOW_US - 50 + i, w) for i, (word, w) in enumerate(said)]
    seen = [writer_row(writer, age_s=age) for writer, age in ages.items()]
    found = Query(snapshot(facts_of(*facts_said), writers=seen)).sql(
        "SELECT status, is_stale, end_time IS NOT NULL AS ended FROM runs"
    )
    ended = status in schema.ENDED
    assert to_rows(found) == [{"status": status, "is_stale": is_stale, "ended": ended}]


@pytest.mark.parametrize(
    ("said", "ages", "status", "is_stale"),
    [
        ([("RUNNING", "W1", ""), ("FINISHED", "W2", "set")], {"W1": 0, "W2": 0}, "FINISHED", False),
        ([("FINISHED", "W2", "set"), ("RUNNING", "W1", "")], {"W1": 0, "W2": 0}, "RUNNING", False),
        ([("FINISHED", "W2", "set"), ("RUNNING", "W1", ""), ("FAILED", "W1", "")], {"W1": 0},
         "FAILED", False),
        ([("RUNNING", "W1", "set")], {"W1": STALE_S + 1, "W2": 0}, "RUNNING", True),
        ([("RUNNING", "W1", "set"), ("KILLED", "W1", "")], {"W1": 0}, "KILLED", False),
        ([("KILLED", "W1", ""), ("RUNNING", "W2", "set")], {"W1": 0, "W2": 0}, "RUNNING", False),
    ],
)  # fmt: skip
def test_a_status_that_was_set_for_a_run_outdoes_every_own_word_before_it(
    said: list[tuple[str, str, str]],
    ages: dict[str, float],
    status: str,
    is_stale: bool,  # noqa: FBT001
) -> None:
    facts_said = [
        Fact(RUN, "status", key, word, float(NOW_US), clock=NOW_US - 50 + place, writer=writer)
        for place, (word, writer, key) in enumerate(said)
    ]
    seen = [writer_row(writer, age_s=age) for writer, age in ages.items()]
    found = Query(snapshot(facts_of(*facts_said), writers=seen)).sql(
        "SELECT status, is_stale FROM runs"
    )
    assert to_rows(found) == [{"status": status, "is_stale": is_stale}]


def test_duration_is_in_seconds_and_null_while_the_run_goes_on() -> None:
    start = Fact(RUN, "run", "start", num=float(NOW_US - 5_000_000))
    other = Fact("b" * 32, "run", "start", num=float(NOW_US - 5_000_000))
    end = _status("FINISHED", NOW_US - 2_500_000, "W1")
    found = Query(snapshot(facts_of(start, other, end))).sql(
        "SELECT duration FROM runs ORDER BY run_id"
    )
    assert found["duration"].to_pylist() == [2.5, None]


def test_a_run_is_in_the_experiment_of_its_earliest_fact_in_every_view() -> None:
    said = facts_of(
        Fact(RUN, "tag", "a", "1", clock=NOW_US - 1, writer="W2", experiment_id="late"),
        Fact(RUN, "param", "b", "2", clock=NOW_US - 2, writer="W1", experiment_id="early"),
    )
    states = summaries_of([Point(RUN, "k", 0, 1.0, writer="W2", experiment_id="late")])
    query = Query(snapshot(said, states))
    for view in ("runs", "params", "tags", "metric_summary"):
        shown = query.sql(f"SELECT experiment_id FROM {view}")
        assert shown["experiment_id"].to_pylist() == ["early"], view


def test_the_source_is_the_runs_own_else_mlflows_tag() -> None:
    said = facts_of(
        Fact(RUN, "tag", "mlflow.source.name", "tag.py"),
        Fact("b" * 32, "tag", "mlflow.source.name", "tag.py"),
        Fact("b" * 32, "run", "source", "own.py"),
    )
    shown = Query(snapshot(said)).sql("SELECT source_name FROM runs ORDER BY run_id")
    assert shown["source_name"].to_pylist() == ["tag.py", "own.py"]


def test_close_events_and_the_reserved_partition_make_no_runs() -> None:
    said = facts_of(
        Fact("", "close"), Fact("x", "tag", "a", "b", experiment_id=schema.RESERVED_PARTITION)
    )
    assert Query(snapshot(said)).sql("FROM runs").num_rows == 0


def test_experiments_fold_claims_renames_tags_and_deletion() -> None:
    about = json.dumps(
        {"time_us": NOW_US - 9, "artifact_location": None, "tags": {"a": "1", "b": "2"}}
    )
    events = [
        lake_event("e1", "experiment_create", "digits", about, clock=NOW_US - 9),
        lake_event("e1", "experiment_tag", "b", "3", clock=NOW_US - 8, seq=1),
        lake_event("e1", "experiment_tag", "a", None, clock=NOW_US - 7, seq=2),
        lake_event("e1", "experiment_rename", "letters", clock=NOW_US - 6, seq=3),
        lake_event("e1", "experiment_delete", clock=NOW_US - 5, seq=4),
        lake_event("e2", "experiment_create", "own", '{"artifact_location":"s3://b/x"}', seq=5),
    ]
    shown = Query(snapshot(lake_events=[*events, *events])).sql(
        "SELECT * REPLACE (epoch_us(creation_time) AS creation_time, "
        "epoch_us(last_update_time) AS last_update_time) FROM experiments ORDER BY name"
    )
    assert to_rows(shown) == [
        {
            "experiment_id": "e1", "name": "letters", "lifecycle_stage": "deleted",
            "artifact_location": f"{URL}/artifacts/e1", "creation_time": NOW_US - 9,
            "last_update_time": NOW_US - 5, "tags": {"b": "3"},
        },
        {
            "experiment_id": "e2", "name": "own", "lifecycle_stage": "active",
            "artifact_location": "s3://b/x", "creation_time": NOW_US,
            "last_update_time": NOW_US, "tags": {},
        },
    ]  # fmt: skip


def test_an_experiment_whose_claim_was_not_seen_is_known_by_its_segments() -> None:
    said = facts_of(
        Fact(RUN, "tag", "a", "b", experiment_id="e9"),
        Fact("b" * 32, "tag", "a", "b", experiment_id="0", writer="W2"),
    )
    seen = [writer_row("W1", "e9", name="digits")]
    shown = Query(snapshot(said, writers=seen)).sql("SELECT experiment_id, name FROM experiments")
    assert to_rows(shown) == [
        {"experiment_id": "0", "name": "Default"},
        {"experiment_id": "e9", "name": "digits"},
    ]


def test_deleting_an_experiment_hides_its_runs_and_restoring_revives_only_those_not_deleted() -> (
    None
):
    said = facts_of(
        Fact(RUN, "tag", "a", "b", experiment_id="e1"),
        Fact("b" * 32, "delete", experiment_id="e1"),
    )
    events = [
        lake_event("e1", "experiment_create", "digits", clock=NOW_US - 9),
        lake_event("e1", "experiment_delete", clock=NOW_US - 8, seq=1),
    ]
    sql = "SELECT lifecycle_stage FROM runs ORDER BY run_id"
    hidden = Query(snapshot(said, lake_events=events)).sql(sql)
    assert hidden["lifecycle_stage"].to_pylist() == ["deleted", "deleted"]
    events.append(lake_event("e1", "experiment_restore", clock=NOW_US - 7, seq=2))
    revived = Query(snapshot(said, lake_events=events)).sql(sql)
    assert revived["lifecycle_stage"].to_pylist() == ["active", "deleted"]
