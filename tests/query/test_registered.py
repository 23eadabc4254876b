"""The fold of the registry: any order of rows, any damage, any size."""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlake import schema
from runlake.query.engine import Query
from runlake.query.registered import Registered
from runlake.query.registry_views import REGISTRY_VIEWS
from runlake.storage.tables import empty_tables, lake_events_schema
from tests.registry.hosts import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = [value for name, value in vars(schema).items() if name.startswith("REGISTRY_")]
Row = dict[str, Any]


def row(
    kind: str,
    key: str = "",
    num: float | None = None,
    *,
    model: str = "model:a",
    clock: int = 0,
    writer: str = "W1",
    seq: int = 0,
    **about: Any,  # noqa: ANN401 - of any type
) -> Row:
    """Return one row of the reserved partition."""
    return {
        "run_id": model,
        "kind": kind,
        "key": key,
        "clock": clock,
        "num": num,
        "str": json.dumps({"user": "ada", "host": "h", "reason": None, **about}),
        "writer": writer,
        "seq": seq,
    }


def rows_of(*rows: Row) -> list[Row]:
    """Put rows one after another."""
    return [{**each, "clock": place, "seq": place} for place, each in enumerate(rows)]


def fold(rows: Sequence[Row]) -> Registered:
    return Registered(pa.Table.from_pylist(list(rows), lake_events_schema()))


def query(rows: Sequence[Row]) -> Query:
    events = pa.Table.from_pylist(list(rows), lake_events_schema())
    tables = empty_tables(root_url="lake", now_us=0, stale_s=1.0)
    return Query(replace(tables, lake_events=events))


def model(name: str, number: int = 1, **more: Any) -> Row:  # noqa: ANN401 - as above
    about: Row = {"nonce": f"{name}-{number}", "number": number, "home": f"{name}/{number}"}
    return row(schema.REGISTRY_MODEL_CREATE, name, **about | more)


def version(number: int, **more: Any) -> Row:  # noqa: ANN401 - as above
    about: Row = {"nonce": f"v{number}", "number": number, "source": f"s3://{number}"}
    return row(schema.REGISTRY_VERSION_CREATE, "", number, **about | more)


anything = st.builds(
    row,
    st.sampled_from(KINDS),
    st.sampled_from(["a", "b", "t", "Staging", "Archived"]),
    st.sampled_from([None, 1.0, 2.0, 3.0, 0.0, -1.0, math.nan, math.inf, 1e300]),
    model=st.sampled_from(["model:a", "model:b"]),
    clock=st.integers(0, 5),
    writer=st.sampled_from(["W1", "W2"]),
    nonce=st.sampled_from(["x", "y", "z", None, 3]),
    number=st.sampled_from([1, 2, "many", None]),
    value=st.sampled_from(["text", None, 5, ["list"]]),
    tags=st.sampled_from([{}, {"t": "1"}, {"t": None}, "none", None]),
    renamed_from=st.sampled_from(["a", "b"]),
    renamed_claim=st.sampled_from([1, 2]),
    archive_existing=st.booleans(),
)


@settings(max_examples=100)
@given(rows=st.lists(anything, max_size=30), seed=st.integers(0, 1000))
def test_state_is_the_same_in_whatever_order_and_how_often_rows_come(
    rows: list[Row], seed: int
) -> None:
    rows = [{**each, "seq": place} for place, each in enumerate(rows)]
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    shuffled = [*rows, *chance.sample(rows, chance.randint(0, len(rows)))]
    chance.shuffle(shuffled)
    one, other = fold(rows), fold(shuffled)
    assert describe(one) == describe(other)
    assert (one.claims, one.traced, one.last_us) == (other.claims, other.traced, other.last_us)
    assert sorted(one.repeats) == sorted(other.repeats)


@settings(max_examples=15)
@given(rows=st.lists(anything, max_size=20), damage=st.sampled_from([None, "", "[1]", "{", "7"]))
def test_rows_that_cannot_be_read_harm_no_other(rows: list[Row], damage: str | None) -> None:
    rows = [{**each, "seq": place} for place, each in enumerate(rows)]
    whole = rows_of(model("whole", model="model:w"), version(1, model="model:w"))
    damaged = [{**each, "str": damage, "writer": "W9"} for each in rows]
    known = fold([*whole, *damaged])
    (found,) = [each for each in known.by_name.values() if each.model_id == "model:w"]
    assert found.name.startswith("whole")
    assert [each.number for each in found.shown] == [1]
    for view in REGISTRY_VIEWS:
        query([*whole, *damaged]).sql(f"FROM {view}")


def test_claim_traced_twice_is_one_model_and_one_row_of_the_trail() -> None:
    again = {**model("a"), "writer": "W2", "clock": 5}
    rows = [*rows_of(model("a"), version(1)), again, {**version(1), "clock": 6, "seq": 9}]
    assert describe(fold(rows)) == describe(fold(rows[:2]))
    assert query(rows).sql("SELECT kind FROM registry_events").num_rows == 2


def test_rename_that_comes_after_another_is_none() -> None:
    first: Row = {"nonce": "r1", "number": 1, "renamed_from": "a", "renamed_claim": 1}
    rows = rows_of(
        model("a"),
        row(schema.REGISTRY_MODEL_RENAME, "b", **first),
        row(schema.REGISTRY_MODEL_RENAME, "c", **first | {"nonce": "r2"}),
    )
    known = fold(rows)
    assert list(known.by_name) == ["b"]
    assert known.claims == {"a": (1, "model:a"), "b": (1, "model:a"), "c": (1, "model:a")}


def test_of_two_models_that_claim_one_name_the_greater_claim_rules() -> None:
    rows = rows_of(
        model("a"), version(1), model("a", 2, model="model:b"), version(1, model="model:b")
    )
    known = fold(rows)
    assert {name: each.model_id for name, each in known.by_name.items()} == {
        "a": "model:b",
        "a (1)": "model:a",
    }
    named = query(rows).sql("SELECT DISTINCT name FROM registry_events ORDER BY name")
    assert named["name"].to_pylist() == ["a", "a (1)"]


def test_said_of_what_is_deleted_changes_nothing() -> None:
    rows = rows_of(
        model("a"),
        version(1),
        version(2),
        row(schema.REGISTRY_ALIAS, "best", 1),
        row(schema.REGISTRY_VERSION_DELETE, "", 2),
        row(schema.REGISTRY_ALIAS, "best", 2),
        row(schema.REGISTRY_VERSION_STAGE, "Staging", 2),
        row(schema.REGISTRY_VERSION_TAG, "t", 2, value="x"),
        row(schema.REGISTRY_VERSION_CREATE, "", 2, nonce="new"),
    )
    known = fold(rows)
    assert known.by_name["a"].aliases == {"best": 1}
    assert [each.number for each in known.by_name["a"].shown] == [1]
    assert fold([*rows, row(schema.REGISTRY_MODEL_DELETE, clock=99, seq=99)]).by_name == {}


@pytest.mark.parametrize("view", REGISTRY_VIEWS)
def test_every_view_has_its_columns_and_rows(view: str) -> None:
    rows = rows_of(model("a"), version(1), row(schema.REGISTRY_ALIAS, "best", 1))
    described = query(rows).sql(f"DESCRIBE {view}")
    columns = zip(
        described["column_name"].to_pylist(), described["column_type"].to_pylist(), strict=True
    )
    assert tuple(columns) == REGISTRY_VIEWS[view]
    assert query(rows).sql(f"FROM {view}").num_rows == (3 if view == "registry_events" else 1)


@pytest.mark.slow
def test_a_hundred_thousand_events_of_ten_thousand_versions_fold_within_a_second() -> None:
    chance = random.Random(1)  # noqa: S311 - repeatable on purpose
    ids = [f"model:{number}" for number in range(100)]
    rows = [model(each, model=each) for each in ids]
    rows += [version(number, model=each) for each in ids for number in range(1, 101)]
    changes = [
        (schema.REGISTRY_VERSION_TAG, "t"),
        (schema.REGISTRY_ALIAS, "best"),
        (schema.REGISTRY_VERSION_STAGE, "Staging"),
        (schema.REGISTRY_VERSION_UPDATE, "description"),
    ]
    while len(rows) < 100_000:
        kind, key = chance.choice(changes)
        at = chance.randint(1, 100)
        rows.append(row(kind, key, at, model=chance.choice(ids), value="x"))
    events = pa.Table.from_pylist(rows_of(*rows), lake_events_schema())
    begun_s = time.process_time()
    known = Registered(events)
    assert time.process_time() - begun_s < 1.5  # other work on the machine may double it
    assert sum(len(each.versions) for each in known.by_name.values()) == 10_000
