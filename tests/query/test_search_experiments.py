from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from runlake.errors import InvalidInputError
from runlake.query import Query
from runlake.query.search import search_experiments
from tests.query.builders import NOW_US, lake_event, snapshot


@cache
def _experiments_query() -> Query:
    said = [
        ("9", "nine", {"team": "vision"}, 5, 5),
        ("10", "ten", {"team": "Vision", "a b": "1"}, 5, 9),
        ("e1", "It's", {}, 7, 8),
        ("e2", "ten%", {"team": ""}, 6, 7),
    ]
    events, seq = [], 0
    for experiment_id, name, tags, created, updated in said:
        rows: list[tuple[str, str, str | None, int]]
        rows = [("experiment_create", name, None, created)]
        rows += [("experiment_tag", key, value, created) for key, value in tags.items()]
        rows.append(("experiment_restore", "", None, updated))
        for kind, key, value, clock in rows:
            time = NOW_US + clock * 1_000_000
            events.append(lake_event(experiment_id, kind, key, value, clock=time, seq=seq))
            seq += 1
    events.append(lake_event("x", "experiment_create", "gone", clock=NOW_US, seq=seq))
    events.append(lake_event("x", "experiment_delete", clock=NOW_US, seq=seq + 1))
    return Query(snapshot(lake_events=events))


NOW_MS = NOW_US // 1000


@pytest.mark.parametrize(
    ("filter_string", "expected"),
    [
        (None, "e1 e2 9 10"),
        ("name = 'ten'", "10"),
        ("name LIKE 't%'", "e2 10"),
        ("name = 'It''s' OR experiment_id = '9'", "e1 9"),
        ("attribute.experiment_id IN ('9', 'e2')", "e2 9"),
        ("attributes.name ILIKE 'IT%'", "e1"),
        (f"creation_time > {NOW_MS + 5000}", "e1 e2"),
        (f"last_update_time >= {NOW_MS + 8000}", "e1 10"),
        ("creation_time > '2020-01-01'", "e1 e2 9 10"),
        ("tags.team = 'vision'", "9"),
        ("tag.`team` ILIKE 'v%'", "9 10"),
        ("tags.team IS NULL", "e1"),
        ("tags.team != 'vision'", "e2 10"),
        ("tags.`a b` >= 1", "10"),
        ("NOT tags.team = 'vision'", "e1 e2 10"),
        ("lifecycle_stage = 'active'", "e1 e2 9 10"),
    ],
)
def test_a_filter_finds_exactly_the_experiments_that_match(
    filter_string: str | None, expected: str
) -> None:
    found = search_experiments(_experiments_query(), filter_string)
    assert " ".join(each.experiment_id for each in found) == expected


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        (None, "e1 e2 9 10"),
        (["creation_time"], "10 9 e2 e1"),
        (["creation_time DESC"], "e1 e2 10 9"),
        (["last_update_time DESC"], "10 e1 e2 9"),
        (["name"], "e1 9 10 e2"),
        (["experiment_id"], "9 10 e1 e2"),
        (["experiment_id DESC"], "10 9 e2 e1"),
        (["tags.team", "name"], "e2 10 9 e1"),
    ],
)
def test_experiments_come_in_any_order_and_in_pages_of_any_size(
    order_by: list[str] | None, expected: str
) -> None:
    query = _experiments_query()
    for size in range(1, 6):
        page = search_experiments(query, order_by=order_by, max_results=size)
        found = [each.experiment_id for each in page]
        while page.token is not None:
            page = search_experiments(
                query, order_by=order_by, max_results=size, page_token=page.token
            )
            found += [each.experiment_id for each in page]
        assert " ".join(found) == expected


def test_deleted_experiments_show_only_where_they_are_asked_for() -> None:
    query = _experiments_query()
    assert [each.name for each in search_experiments(query, view_type="DELETED_ONLY")] == ["gone"]
    assert len(search_experiments(query, view_type=3)) == 5
    with pytest.raises(InvalidInputError, match="view_type"):
        search_experiments(query, view_type="SOME")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter_string": "metrics.a > 1"}, r"expected tags\..* or one of .*name"),
        ({"filter_string": "nmae = 'x'"}, "Did you mean name"),
        ({"filter_string": "name = 1"}, "a text in quotes"),
        ({"filter_string": "dataset.name = 'x'"}, "found dataset 'name'"),
        ({"order_by": ["nmae"]}, "Did you mean name"),
        ({"order_by": ["metrics.a"]}, "found metric 'a'"),
        ({"order_by": "name"}, "write a list"),
        ({"order_by": ["name", "attribute.name DESC"]}, "twice"),
        ({"max_results": -1}, "max_results"),
        ({"page_token": "x"}, "page_token"),
    ],
)
def test_a_wrong_question_about_experiments_is_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        search_experiments(_experiments_query(), **options)
