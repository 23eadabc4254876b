"""Finding models and versions: the filter language, orders, pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runlake.errors import FilterSyntaxError, InvalidInputError
from runlake.lake import open_lake

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.registry.registry import Registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Three models with seven versions."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNLAKE_JOURNAL", str(folder / "state"))
        with open_lake(folder / "lake") as lake:
            made = lake.registry
            made.create_registered_model("digits", {"team": "vision"}, description="reads digits")
            made.create_registered_model("letters", {"team": "text", "size": 3})
            made.create_registered_model("empty")
            for number in range(1, 6):
                run_id = f"run{number}"
                made.create_model_version("digits", f"s3://d/{number}", run_id=run_id)
            made.create_model_version("letters", "s3://l/1", tags={"ok": "yes"})
            made.create_model_version("letters", "s3://l/2", description="second")
            made.set_registered_model_alias("digits", "champion", 4)
            made.set_registered_model_alias("digits", "challenger", 5)
            made.set_registered_model_alias("letters", "champion", 1)
            made.transition_model_version_stage("digits", 3, "Production")
            yield made


def found(registry: Registry, text: str) -> list[tuple[str, int]]:
    order = ["name", "version_number"]
    page = registry.search_model_versions(text, order_by=order)
    return [(each.name[0], each.version) for each in page]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name = 'letters'", [("l", 1), ("l", 2)]),
        ("version_number > 3 AND name = 'digits'", [("d", 4), ("d", 5)]),
        ("version_number IN (1, 2)", [("d", 1), ("d", 2), ("l", 1), ("l", 2)]),
        ("run_id IN ('run1', 'run4')", [("d", 1), ("d", 4)]),
        ("run_id IS NULL", [("l", 1), ("l", 2)]),
        ("source_path LIKE 's3://l/%'", [("l", 1), ("l", 2)]),
        ("stage = 'Production' OR tags.ok = 'yes'", [("d", 3), ("l", 1)]),
        ("current_stage != 'None'", [("d", 3)]),
        ("alias = 'champion'", [("d", 4), ("l", 1)]),
        ("alias LIKE 'ch%' AND NOT alias = 'champion'", [("d", 5)]),
        ("alias IN ('challenger', 'x')", [("d", 5)]),
        ("alias IS NULL AND version_number >= 3", [("d", 3)]),
        ("alias IS NOT NULL", [("d", 4), ("d", 5), ("l", 1)]),
        ("description = 'second'", [("l", 2)]),
        ("creation_timestamp > 0 and (name = 'x' or version_number = 5)", [("d", 5)]),
        ("last_updated_timestamp < '2001-01-01'", []),
    ],
)
def test_versions_are_found_by_what_they_are(
    registry: Registry, text: str, wanted: list[tuple[str, int]]
) -> None:
    assert found(registry, text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ["digits", "empty", "letters"]),
        ("tags.team = 'vision' OR name ILIKE 'E%'", ["digits", "empty"]),
        ("alias = 'challenger'", ["digits"]),
        ("alias IS NULL", ["empty"]),
        ("latest_version >= 2", ["digits", "letters"]),
        ("NOT tags.team IS NULL", ["digits", "letters"]),
        ("tags.size > 2", ["letters"]),
        ("description LIKE '%digits'", ["digits"]),
    ],
)
def test_models_are_found_by_what_they_are(
    registry: Registry, text: str, wanted: list[str]
) -> None:
    assert [each.name for each in registry.search_registered_models(text)] == wanted


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pages_together_are_the_whole_answer(registry: Registry, size: int) -> None:
    order = ["stage", "version_number DESC"]
    whole = [(each.name, each.version) for each in registry.search_model_versions(order_by=order)]
    pages, token = [], None
    while True:
        page = registry.search_model_versions(order_by=order, max_results=size, page_token=token)
        pages += [(each.name, each.version) for each in page]
        token = page.token
        if token is None:
            break
    assert pages == whole
    assert len(whole) == 7


def test_page_of_models_goes_on_where_it_ended(registry: Registry) -> None:
    first = registry.search_registered_models(max_results=2, order_by=["name DESC"])
    assert [each.name for each in first] == ["letters", "empty"]
    token = first.token
    rest = registry.search_registered_models(
        max_results=2, order_by=["name DESC"], page_token=token
    )
    assert [each.name for each in rest] == ["digits"]
    with pytest.raises(InvalidInputError, match="another search"):
        registry.search_registered_models("alias = 'x'", page_token=token)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metrics.acc > 1", "expected tags"),
        ("versoin = 3", "Did you mean version"),
        ("version_number LIKE '3'", "expected a text field"),
        ("version_number = '3'", "a number without quotes"),
        ("name = 3", "a text in quotes"),
        ("name =", "found the end"),
    ],
)
def test_wrong_filter_says_where(registry: Registry, text: str, said: str) -> None:
    with pytest.raises(FilterSyntaxError, match=said):
        registry.search_model_versions(text)


def test_order_by_what_there_are_several_of_is_refused(registry: Registry) -> None:
    with pytest.raises(FilterSyntaxError, match="of which there may be several"):
        registry.search_model_versions(order_by=["alias"])
    with pytest.raises(InvalidInputError, match="max_results"):
        registry.search_model_versions(max_results=-1)
