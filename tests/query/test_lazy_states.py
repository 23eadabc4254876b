"""Answers from compacted states are those from live ones, and take no more than they need."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runlake import schema
from runlake.query import Query
from runlake.query.compare import compare
from runlake.query.export import to_rows
from runlake.query.folded import Folded
from runlake.query.held import COLUMNS
from runlake.query.leaderboard import leaderboard
from runlake.query.search import RunSearch, search_runs
from runlake.storage.states import StateRows
from tests.query.builders import (
    NOW_US,
    Fact,
    Point,
    compacted,
    facts_of,
    snapshot,
    summaries_of,
    writer_row,
)

if TYPE_CHECKING:
    from runlake.storage.tables import SnapshotTables

RUNS = [letter * 32 for letter in "abcd"]
VIEWS = ["runs", "params", "tags", "inputs", "metric_summary", "experiments"]
slow = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])

runs = st.sampled_from(RUNS)
clocks = st.integers(NOW_US - 9, NOW_US)
# A writer belongs to one experiment, and a run may have writers of several.
writers = st.sampled_from(["W1", "W2", "W3"])
HOMES = {"W1": "1", "W2": "2", "W3": "2"}
_INPUT = '{"name": "digits", "digest": "d", "context": null}'
_kinds = st.one_of(
    st.tuples(st.just("param"), st.sampled_from("ab"), st.sampled_from("xy"), st.none()),
    st.tuples(st.just("tag"), st.sampled_from("ab"), st.none() | st.just("t"), st.none()),
    st.tuples(st.just("tag"), st.just("mlflow.source.name"), st.sampled_from("mn"), st.none()),
    st.tuples(st.just("input"), st.just("digits@d"), st.just(_INPUT), st.none()),
    st.tuples(st.just("run"), st.sampled_from(["name", "source", "user"]), st.just("u"), st.none()),
    st.tuples(st.just("run"), st.just(schema.RUN_START), st.none(), st.just(NOW_US - 50.0)),
    st.tuples(
        st.just("status"),
        st.sampled_from(["", "set"]),
        st.sampled_from(schema.STATUSES),
        st.just(5.0),
    ),
    st.tuples(st.just("close"), st.just(""), st.none(), st.none()),
    st.tuples(st.just("delete"), st.just(""), st.none(), st.none()),
)


def _fact(run: str, said: tuple[str, str, str | None, float | None], at: int, writer: str) -> Fact:
    kind, key, text, number = said
    run = "" if kind == "close" else run
    return Fact(run, kind, key, text, number, at, writer, experiment_id=HOMES[writer])


facts = st.lists(st.builds(_fact, runs, _kinds, clocks, writers), max_size=30)
points = st.lists(
    st.builds(
        Point,
        runs,
        st.sampled_from(["loss", "acc"]),
        st.integers(0, 3),
        st.sampled_from([0.5, 1.5, float("nan")]),
        clocks,
        writers,
    ),
    max_size=20,
)


def _snapshot(said: list[Fact], logged: list[Point], fresh: set[str]) -> SnapshotTables:
    known = {fact.writer for fact in said} | {point.writer for point in logged}
    homed = [replace(point, experiment_id=HOMES[point.writer]) for point in logged]
    return snapshot(
        facts_of(*said),
        summaries_of(homed),
        writers=[
            writer_row(writer, HOMES[writer], age_s=0 if writer in fresh else 5000)
            for writer in sorted(known)
        ],
    )


def _answers(tables: SnapshotTables, *, first: str) -> dict[str, Any]:
    """Ask a snapshot; what is asked first decides what is read by key and what as a whole."""
    query = Query(tables)
    answers: dict[str, Any] = {}

    def search(name: str, **wanted: Any) -> None:  # noqa: ANN401 - as the search takes it
        found: Any = search_runs(query, RunSearch(**wanted))
        answers[name] = repr(found.to_dicts())

    def views() -> None:
        for view in VIEWS:
            # A metric of a run that no fact names is shown under any of its writers' experiments.
            but = "EXCLUDE (experiment_id)" if view == "metric_summary" else ""
            answers[view] = sorted(map(repr, to_rows(query.sql(f"SELECT * {but} FROM {view}"))))

    if first == "views":
        views()
    search("all")
    search("page", limit=2)
    search("filtered", filter_string="params.a = 'x' and metrics.loss < 9", order_by=["tags.b"])
    known = query.folded.runs["run_id"].to_pylist()
    if "loss" in query.folded.metrics.names.to_pylist():
        answers["board"] = repr(leaderboard(query, "loss", goal="min").to_dicts())
    if len(known) > 1:
        answers["compared"] = repr(compare(query, known[:2], show="all").to_dicts())
    if first != "views":
        views()
    query.close()
    return answers


@slow
@given(
    said=facts,
    logged=points,
    fresh=st.sets(writers),
    purged=st.sets(runs, max_size=1),
    size=st.integers(1, 6),
    live=st.integers(0, 3),
    first=st.sampled_from(["views", "searches"]),
)
def test_answers_do_not_hang_on_where_states_lie(
    said: list[Fact],
    logged: list[Point],
    fresh: set[str],
    purged: set[str],
    size: int,
    live: int,
    first: str,
) -> None:
    shown = [fact for fact in said if fact.run_id not in purged]
    expected = _answers(
        _snapshot(shown, [point for point in logged if point.run_id not in purged], fresh),
        first="views",
    )
    whole = replace(_snapshot(shown if live else said, logged, fresh), purged=tuple(purged))
    if live:  # what is live comes without purged runs
        whole = _snapshot(shown, [point for point in logged if point.run_id not in purged], fresh)
    tables, _ = compacted(whole, size=size, live=live)
    found = _answers(tables, first=first)
    known = found.keys() & expected.keys()
    # Writers whose runs are all purged still name their experiment.
    known -= {"experiments"} if purged else set()
    assert {name: found[name] for name in known} == {name: expected[name] for name in known}
    assert found.keys() == expected.keys()


def _folds(tables: SnapshotTables) -> dict[Any, Any]:
    """Fold a snapshot, key by key before as a whole."""
    folded = Folded(tables)
    found: dict[Any, Any] = {"runs": folded.runs.to_pylist(), "homes": folded.homes}
    found["deletions"] = sorted(map(repr, folded.deletions.to_pylist()))
    for kind in ("params", "tags", "inputs", "metrics"):
        holding, columns = getattr(folded, kind), [*COLUMNS[kind]]
        columns = [name for name in columns if name not in {"run_id", "experiment_id"}]
        for key in sorted(holding.names.to_pylist()):
            found[kind, key] = repr(holding.column(key, columns).to_pylist())
        found[kind] = sorted(map(repr, holding.whole.table(columns).to_pylist()))
    return found


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    filed=facts,
    logged=points,
    rounds=st.lists(st.tuples(facts, st.sets(writers)), min_size=1, max_size=3),
    size=st.integers(1, 6),
)
def test_snapshots_that_share_compacted_files_fold_as_if_each_were_alone(
    filed: list[Fact],
    logged: list[Point],
    rounds: list[tuple[list[Fact], set[str]]],
    size: int,
) -> None:
    base, _ = compacted(_snapshot(filed, logged, set()), size=size)
    said = list(filed)
    with pytest.MonkeyPatch.context() as patch:
        # However many runs are folded again, they are put among the others.
        patch.setattr("runlake.query.run_fold._FEW", 0)
        for more, fresh in rounds:
            said += more
            whole = _snapshot(said, logged, fresh)
            live = whole.facts.table().slice(len(filed))
            tables = replace(base, facts=StateRows(live, base.facts.filed), writers=whole.writers)
            assert _folds(tables) == _folds(whole)


@pytest.mark.parametrize("kind", ["param", "tag", "input"])
def test_a_run_that_only_a_held_fact_names_appears_where_it_was_said(kind: str) -> None:
    said = facts_of(
        Fact(RUNS[0], kind, "k", _INPUT, clock=NOW_US - 5, writer="W2", experiment_id="2"),
        Fact(RUNS[0], kind, "k", _INPUT, clock=NOW_US - 9, writer="W1", experiment_id="1"),
    )
    tables, _ = compacted(snapshot(said))
    (row,) = to_rows(Query(tables).sql("SELECT run_id, experiment_id, start_time FROM runs"))
    assert (row["run_id"], row["experiment_id"]) == (RUNS[0], "1")
    assert row["start_time"].timestamp() == (NOW_US - 9) / 1e6


def _many() -> tuple[SnapshotTables, dict[str, Any]]:
    """Return 40 runs with 5 params and 5 metrics each, in row groups of 20 rows."""
    ids = [f"{number:032x}" for number in range(40)]
    said = [
        fact
        for run in ids
        for fact in (
            Fact(run, "run", schema.RUN_START, num=NOW_US - 99.0),
            Fact(run, "status", str="FINISHED", num=NOW_US - 1.0),
            *(Fact(run, "param", f"p{number}", str(number)) for number in range(5)),
        )
    ]
    logged = [
        Point(run, f"m{number}", 1, float(int(run, 16)), writer="W1")
        for run in ids
        for number in range(5)
    ]
    return compacted(snapshot(facts_of(*said), summaries_of(logged)), size=20)


def _read(files: dict[str, Any], table: str, *, but: set[str]) -> dict[int, set[str]]:
    """Return the columns that were read of each row group."""
    (file,) = files[table]
    found: dict[int, set[str]] = {}
    for group, names in file.reads:
        found.setdefault(group, set()).update(set(names) - but)
    return {group: names for group, names in found.items() if names}


def test_a_question_about_a_metric_reads_no_other_value_and_no_params_but_of_what_it_shows() -> (
    None
):
    tables, files = _many()
    board = leaderboard(Query(tables), "m3", goal="min", top=2)
    assert board["value"].to_list() == [0.0, 1.0]
    columns = set().union(*_read(files, "summaries", but=set()).values())
    assert columns == {"run_id", "key", "min", "min_step", "n"}
    (facts_file,) = files["facts"]
    kinds = [first for first, _ in facts_file.spans("kind")]
    texts = _read(files, "facts", but={"run_id", "kind", "experiment_id"})
    params = [group for group in texts if kinds[group] == "param"]
    # Of params: the one row group that holds the two runs shown.
    assert kinds.count("param") == 10
    assert len(params) == 1
    assert facts_file.spans("run_id")[params[0]][0] == f"{0:032x}"


def test_what_was_read_is_not_read_again_and_of_many_keys_everything_is_kept() -> None:
    tables, files = _many()
    query = Query(tables)

    def ask(metric: int, param: int) -> int:
        """Return how many row groups are read for a search by a metric and a param."""
        for held in files.values():
            for file in held:
                file.reads.clear()
        asked = f"metrics.m{metric} < 99 and params.p{param} = '{param}'"
        found: Any = search_runs(query, RunSearch(filter_string=asked, limit=3))
        assert found["run_id"].to_list() == [f"{number:032x}" for number in range(3)]
        return sum(len(file.reads) for held in files.values() for file in held)

    assert ask(0, 0) > 0
    ask(0, 0)  # the second page: whole columns from here on
    assert ask(0, 0) == 0
    first = ask(1, 1)
    assert first > 0
    for number in (2, 3, 4):
        ask(number, number)
    query.close()
    assert [ask(number, 4 - number) for number in range(5)] == [0] * 5


def test_an_empty_page_reads_nothing_of_what_runs_hold() -> None:
    tables, files = _many()
    held = Query(tables).folded.params.about(np.zeros(0, np.int64))
    assert held.of_runs(np.zeros(0, np.int64)).tolist() == []
    texts = _read(files, "facts", but={"run_id", "kind", "experiment_id"})
    (facts_file,) = files["facts"]
    assert all(facts_file.spans("kind")[group][0] != "param" for group in texts)


def test_a_new_snapshot_reads_of_compacted_files_only_the_runs_that_were_written_to() -> None:
    tables, files = _many()
    stale = snapshot(writers=[writer_row(writer, age_s=5000) for writer in ("W1", "W9")])
    tables = replace(tables, writers=stale.writers)
    (facts_file,), (summaries_file,) = files["facts"], files["summaries"]

    def ask(snapshot: SnapshotTables) -> list[Any]:
        folded = Folded(snapshot)
        values = folded.params.column("p3", ["value"])["value"]
        return [folded.runs["run_id"].to_pylist(), values.to_pylist()]

    before = ask(tables)
    facts_file.reads.clear()
    summaries_file.reads.clear()
    news = facts_of(
        Fact("new", "run", schema.RUN_START, num=float(NOW_US), writer="W9"),
        Fact("new", "status", str="FINISHED", num=float(NOW_US), writer="W9"),
        Fact("new", "param", "p3", "first", writer="W9"),
        Fact(f"{7:032x}", "delete", writer="W9"),
    )
    later = replace(tables, facts=StateRows(snapshot(news).facts.table(), tables.facts.filed))
    runs, params = ask(later)
    assert (runs[0], params[0]) == ("new", "first")
    assert (runs[1:], params[1:]) == (before[0], before[1])
    assert Folded(later).deletions["run_id"].to_pylist() == [f"{7:032x}"]
    # Of what all runs say of themselves, the row groups that hold the deleted one.
    assert not summaries_file.reads
    spans = facts_file.spans("run_id")
    touched = {group for group, _ in facts_file.reads}
    assert touched
    assert all(spans[group][0] <= f"{7:032x}" <= spans[group][1] for group in touched)
