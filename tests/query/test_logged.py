"""What stands about logged models: the fold, the view, and what upkeep does to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runlake
from runlake import logged_models, schema
from runlake.errors import InvalidInputError
from runlake.lake_parts import rows_of
from runlake.logged_models import MeasuredModel, NewModel
from runlake.query import Query
from runlake.query.logged import Linked, read_linked, read_measured, read_models
from runlake.query.rare import read_rare
from runlake.questions import ask
from runlake.storage.segments import segment_schema
from runlake.storage.tables import PointFile
from tests.query.builders import NOW_US, Fact, snapshot

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from runlake.lake import Lake
    from runlake.writing.events import Row
    from tests.conftest import Place

RUN: Final = "0123456789abcdef0123456789abcdef"
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["m-1", "m-2"]),
        st.sampled_from(["param", "tag", "untag", "status", "delete"]),
        st.sampled_from(["a", "b/c"]),
        st.sampled_from(["1", "2"]),
        st.sampled_from(["w1", "w2"]),
    ),
    max_size=12,
)


def say(lake: Lake, rows: list[Row], *, home: str = RUN, experiment_id: str = "0") -> None:
    """Log rows; they are in the store when this returns."""
    rows_of(lake, home, experiment_id=experiment_id, experiment_name="Default").log(rows)
    lake.flush()


def make(lake: Lake, model_id: str, **given: Any) -> None:  # noqa: ANN401 - of NewModel
    """Log a model."""
    new = NewModel(model_id=model_id, **({"name": "svm"} | given))
    say(lake, logged_models.creation_rows(new), home=new.home)


@settings(max_examples=40, deadline=None)
@given(acts=ACTS, shuffle=st.randoms(use_true_random=False))
def test_fold_is_what_acts_one_after_the_other_say_in_whatever_order_they_are_met(
    acts: list[tuple[str, str, str, str, str]], shuffle: Random
) -> None:
    expected: dict[str, dict[str, Any]] = {}
    facts = []
    for model_id in ("m-1", "m-2"):
        ((_, kind, key, num, text), *_) = logged_models.creation_rows(
            NewModel(model_id=model_id, name="svm", time_us=NOW_US - 100)
        )
        facts.append(Fact(model_id, kind, key, text, num=num, clock=NOW_US - 100, writer="w1"))
        expected[model_id] = {"params": {}, "tags": {}, "status": "PENDING", "is_deleted": False}
    for at, (model_id, act, key, value, writer) in enumerate(acts):
        rows, told = _act(model_id, act, key, value), expected[model_id]
        if act == "param":
            told["params"].setdefault(key, value)
        elif act == "tag":
            told["tags"][key] = value
        elif act == "untag":
            told["tags"].pop(key, None)
        elif act == "status":
            told["status"] = "READY" if value == "1" else "FAILED"
        else:
            told["is_deleted"] = True
        facts += [
            Fact(run, kind, row_key, text, num=num, clock=NOW_US + at, seq=at + 10, writer=writer)
            for run, kind, row_key, num, text in rows
        ]
    shuffle.shuffle(facts)
    query = Query(snapshot(facts=[*facts, *facts[:3]]))
    for asked in (None, ["m-1", "m-2", "m-3"]):
        found = read_models(query, asked)
        assert {
            model_id: {name: getattr(model, name) for name in expected["m-1"]}
            for model_id, model in found.items()
        } == expected
    assert query.folded.runs.num_rows == 0


def _act(model_id: str, act: str, key: str, value: str) -> list[Row]:
    if act == "param":
        return logged_models.param_rows(model_id, model_id, {key: value})
    if act in {"tag", "untag"}:
        tags = {key: value if act == "tag" else None}
        return logged_models.tag_rows(model_id, model_id, tags)
    if act == "status":
        status = "READY" if value == "1" else "FAILED"
        return logged_models.status_rows(model_id, model_id, status)
    return logged_models.deletion_rows(model_id, model_id)


def test_view_shows_models_with_the_last_of_each_metric(lake: Lake) -> None:
    with lake.start_run() as run:
        run_id = run.run_id
    made_us = 1_700_000_000_000_000
    make(lake, "m-1", source_run_id=run_id, params={"C": "1"}, tags={"a": "b"}, time_us=made_us)
    make(lake, "m-2", model_type="agent")
    points = [
        MeasuredModel(model_id="m-1", key="acc", value=value, step=step, time_us=7)
        for step, value in ((2, 0.5), (1, 0.9), (2, float("nan")))
    ]
    say(lake, logged_models.metric_rows(run_id, points), home=run_id)
    shown = lake.sql("FROM logged_models ORDER BY model_id").to_dicts()
    root = f"{lake.url}/artifacts/0"
    assert [row["artifact_uri"] for row in shown] == [
        f"{root}/{run_id}/_models/m-1",
        f"{root}/m-2",
    ]
    first, second = shown
    assert (first["params"], first["metrics"], first["tags"]) == (
        {"C": "1"},
        {"acc": 0.5},
        {"a": "b"},
    )
    assert first["creation_time"] == first["last_update_time"]
    assert first["creation_time"].timestamp() * 1e6 == made_us
    assert (second["params"], second["metrics"], second["tags"]) == ({}, {}, {})
    assert (second["source_run_id"], second["model_type"]) == (None, "agent")
    assert {row["lifecycle_stage"] for row in shown} == {"active"}
    say(lake, logged_models.deletion_rows("m-2", "m-2"), home="m-2")
    stages = lake.sql("SELECT model_id, lifecycle_stage FROM logged_models ORDER BY ALL").rows()
    assert stages == [("m-1", "active"), ("m-2", "deleted")]
    say(lake, logged_models.deletion_rows("m-2", "m-2", is_erased=True), home="m-2")
    assert lake.scan("logged_models").collect()["model_id"].to_list() == ["m-1"]
    assert lake.search_runs()["run_id"].to_list() == [run_id]


@pytest.mark.filesystems("local", "s3")
def test_models_go_with_their_home_through_compaction_copies_and_purges(
    lake_url: Place, tmp_path: Path
) -> None:
    lake = runlake.open(lake_url.url, storage_options=lake_url.storage_options)
    with lake.start_run() as run:
        run_id = run.run_id
    make(lake, "m-1", source_run_id=run_id, params={"C": "1"})
    make(lake, "m-2", tags={"a": "b"})
    point = MeasuredModel(
        model_id="m-2", key="acc", value=1.0, step=0, time_us=7, dataset=("d", "1")
    )
    rows = logged_models.metric_rows(run_id, [point])
    rows += logged_models.output_rows(run_id, {"m-1": 3})
    rows += logged_models.input_rows(run_id, ["m-2"])
    say(lake, rows, home=run_id)

    def read(of: Lake) -> tuple[Any, ...]:
        def answer(query: Query) -> tuple[Any, ...]:
            linked = read_linked(query, [run_id, "nobody"])
            return read_models(query), read_measured(query, ["m-1", "m-2"]), linked

        return ask(of, answer)

    before = read(lake)
    models, measured, linked = before
    assert list(models) == ["m-1", "m-2"]
    assert [(each.key, each.value, each.dataset) for each in measured["m-2"]] == [
        ("acc", 1.0, ("d", "1"))
    ]
    assert linked == {run_id: Linked(["m-2"], [("m-1", 3)])}
    lake.close()
    lake.maintain.compact()
    lake.maintain.vacuum(grace_s=0)
    assert read(lake) == before
    assert not [each for each in lake.maintain.verify().findings if each.kind != "consumed"]
    lake.copy_to(tmp_path / "copy")
    with runlake.open(tmp_path / "copy") as copy:
        assert read(copy) == before
    lake.maintain.purge("m-2")
    models, measured, linked = read(lake)
    assert list(models) == ["m-1"]
    lake.maintain.purge(run_id)
    assert read(lake) == ({}, {}, {})
    lake.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model_id": "a/b"}, "letters, digits, '_' and '-'"),
        ({"model_id": ""}, "letters"),
        ({"model_id": "m" * 65}, "1 to 64"),
        ({"source_run_id": "a b"}, "run"),
        ({"status": "DONE"}, "PENDING, READY, FAILED"),
        ({"params": {"": "1"}}, "param"),
        ({"tags": {"a\n": "1"}}, "tag"),
    ],
)
def test_what_is_no_model_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        logged_models.creation_rows(NewModel(**({"model_id": "m-1", "name": "svm"} | given)))


def test_damaged_rows_tell_nothing_and_break_nothing() -> None:
    facts = [
        Fact("m-1", schema.MODEL, "m-1", "no JSON", clock=NOW_US),
        Fact("m-1", schema.MODEL_STATUS, "m-1", "[1]", clock=NOW_US + 1),
        Fact("m-2", schema.MODEL_TAG, "m-2/a", "b", clock=NOW_US),
    ]
    found = read_models(Query(snapshot(facts=facts)))
    assert list(found) == ["m-1"]
    assert (found["m-1"].name, found["m-1"].status) == ("m-1", "PENDING")


def test_rare_rows_begin_behind_those_that_a_table_holds_and_are_read_once(tmp_path: Path) -> None:
    kinds = [schema.MODEL_METRIC, schema.METRIC, schema.MODEL_METRIC, schema.DATASET]
    columns: dict[str, list[Any]] = {
        "run_id": [RUN, RUN, RUN, "other"],
        "kind": kinds,
        "key": ["m-1"] * 4,
        "step": [None, 0, None, None],
        "timestamp": [NOW_US] * 4,
        "num": [1.0, 2.0, 3.0, None],
        "str": ["{}", None, "{}", "{}"],
    }
    path = tmp_path / "segment.parquet"
    rows = pa.table(
        [pa.array(columns[each.name], each.type) for each in segment_schema()],
        schema=segment_schema(),
    )
    pq.write_table(rows, path, row_group_size=2)

    def read(skip_rows: int, kind: str, **given: Any) -> list[tuple[int, float | None]]:  # noqa: ANN401
        file = PointFile(str(path), "W1", "0", first=10, skip_rows=skip_rows)
        tables = replace(snapshot(), points=(file,), **given)
        found = read_rare(tables, kind, writers={"W1"}, run_ids={RUN})
        return [(row.seq, row.num) for row in found]

    assert read(0, schema.MODEL_METRIC) == [(10, 1.0), (12, 3.0)]
    path.unlink()
    assert read(1, schema.MODEL_METRIC) == [(12, 3.0)]
    assert read(0, schema.DATASET) == []
    assert read(0, schema.MODEL_METRIC, purged=(RUN,)) == []
