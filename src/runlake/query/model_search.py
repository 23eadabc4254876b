"""Find registered models and their versions: a filter, an order, a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runlake import arguments
from runlake.query.compile import compile_search
from runlake.query.entities import Page
from runlake.query.search import Cut, find
from runlake.query.subjects import MODELS, VERSIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runlake.query.engine import Query
    from runlake.query.registered import Model, Version


def search_models(
    query: Query,
    filter_string: str | None = "",
    *,
    order_by: Sequence[str] | None = None,
    max_results: int | None = None,
    page_token: str | None = None,
) -> Page[Model]:
    """Return the models that match, and the token of the next page.

    Args:
        query: the snapshot.
        filter_string: see `runlake.query.grammar`; None or empty matches all.
        order_by: keys like `name DESC`; None means by name.
        max_results: greatest number of models; None means no limit.
        page_token: the token of the page before; None begins with the first model.

    Returns:
        One page.

    Raises:
        FilterSyntaxError: the filter or a key of the order cannot be read.
        InvalidInputError: another argument is wrong.
    """
    keys = arguments.texts("order_by", order_by)
    filter_string = arguments.text_or_empty("filter_string", filter_string)
    found = find(
        query,
        "r.name",
        "FROM registered_models AS r",
        compile_search(filter_string, keys, subject=MODELS),
        where=[],
        cut=Cut(
            arguments.count("max_results", max_results),
            page_token,
            ["models", filter_string, keys],
        ),
        needs=("registered_models",),
    )
    known = query.folded.registered.by_name
    names: list[Any] = found.names.to_pylist()
    return Page((known[name] for name in names), token=found.token)


def search_versions(
    query: Query,
    filter_string: str | None = "",
    *,
    order_by: Sequence[str] | None = None,
    max_results: int | None = None,
    page_token: str | None = None,
) -> Page[tuple[Model, Version]]:
    """Return the versions that match, and the token of the next page.

    Args:
        query: the snapshot.
        filter_string: see `runlake.query.grammar`; None or empty matches all.
        order_by: keys like `version_number DESC`; None means the last changed first.
        max_results: greatest number of versions; None means no limit.
        page_token: the token of the page before; None begins with the first version.

    Returns:
        One page of models and versions of them.

    Raises:
        FilterSyntaxError: the filter or a key of the order cannot be read.
        InvalidInputError: another argument is wrong.
    """
    keys = arguments.texts("order_by", order_by)
    filter_string = arguments.text_or_empty("filter_string", filter_string)
    found = find(
        query,
        "struct_pack(name := r.name, version := r.version)",
        "FROM model_versions AS r",
        compile_search(filter_string, keys, subject=VERSIONS),
        where=[],
        cut=Cut(
            arguments.count("max_results", max_results),
            page_token,
            ["versions", filter_string, keys],
        ),
        needs=("model_versions",),
    )
    known = query.folded.registered.by_name
    rows: list[Any] = found.names.to_pylist()
    pairs = ((known[row["name"]], known[row["name"]].versions[row["version"]]) for row in rows)
    return Page(pairs, token=found.token)
