"""What stands about registered models as Arrow tables, from which the views are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.storage import arrays

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pyarrow as pa

    from runlake.query.registered import Registered
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")


def _registered_models(known: Registered) -> pa.Table:
    models = [*known.by_name.values()]
    latest = [model.latest for model in models]
    numbers: Any = pa.map_(pa.string(), pa.int64())
    return pa.table(
        {
            "name": arrays.strings([model.name for model in models]),
            "model_id": arrays.strings([model.model_id for model in models]),
            "created_us": _times([model.created_us for model in models]),
            "updated_us": _times([model.updated_us for model in models]),
            "description": arrays.strings([model.description for model in models]),
            "user_id": arrays.strings([model.user for model in models]),
            "latest_version": pa.array(
                [max((each.number for each in of.values()), default=None) for of in latest],
                pa.int64(),
            ),
            "latest_versions": pa.array(
                [sorted((stage, each.number) for stage, each in of.items()) for of in latest],
                numbers,
            ),
            "aliases": pa.array([sorted(model.aliases.items()) for model in models], numbers),
            "tags": _maps([model.tags for model in models]),
        }
    )


def _model_versions(known: Registered) -> pa.Table:
    rows = [(model, version) for model in known.by_name.values() for version in model.shown]
    aliases: dict[tuple[str, int], list[str]] = {}
    for model in known.by_name.values():
        for alias, number in sorted(model.aliases.items()):
            aliases.setdefault((model.model_id, number), []).append(alias)
    facts = ("source", "location", "run_id", "run_link", "logged_model_id")
    columns: dict[str, Any] = {
        "name": arrays.strings([model.name for model, _ in rows]),
        "version": _times([version.number for _, version in rows]),
        "model_id": arrays.strings([model.model_id for model, _ in rows]),
        "created_us": _times([version.created_us for _, version in rows]),
        "updated_us": _times([version.updated_us for _, version in rows]),
        "description": arrays.strings([version.description for _, version in rows]),
        "user_id": arrays.strings([version.fact("user") for _, version in rows]),
        "stage": arrays.strings([version.stage for _, version in rows]),
        "tags": _maps([version.tags for _, version in rows]),
        "aliases": pa.array(
            [aliases.get((model.model_id, version.number), []) for model, version in rows],
            pa.list_(pa.string()),
        ),
    }
    for name in facts:
        columns[name] = arrays.strings([version.fact(name) for _, version in rows])
    return pa.table(columns)


def _model_aliases(known: Registered) -> pa.Table:
    rows = [
        (name, alias, number)
        for name, model in known.by_name.items()
        for alias, number in sorted(model.aliases.items())
    ]
    return pa.table(
        {
            "name": arrays.strings([name for name, _, _ in rows]),
            "alias": arrays.strings([alias for _, alias, _ in rows]),
            "version": _times([number for _, _, number in rows]),
        }
    )


def _model_names(known: Registered) -> pa.Table:
    """The present name of each model, deleted ones too."""
    models = known.models.values()
    return pa.table(
        {
            "model_id": arrays.strings([model.model_id for model in models]),
            "name": arrays.strings([model.name for model in models]),
        }
    )


def _repeated_traces(known: Registered) -> pa.Table:
    """The rows that say again what another has said."""
    return pa.table(
        {
            "writer": arrays.strings([writer for writer, _ in known.repeats]),
            "seq": _times([seq for _, seq in known.repeats]),
        }
    )


def _times(numbers: list[int]) -> pa.Array[Any]:
    return arrays.numbers(np.array(numbers, np.int64))


def _maps(tags: list[dict[str, str]]) -> pa.Array[Any]:
    texts: Any = pa.map_(pa.string(), pa.string())
    found: pa.Array[Any] = pa.array([sorted(each.items()) for each in tags], texts)
    return found


# What a view's statement calls `source_<name>`.
SOURCES: Final[dict[str, Callable[[Registered], pa.Table]]] = {
    "registered_models": _registered_models,
    "model_versions": _model_versions,
    "model_aliases": _model_aliases,
    "model_names": _model_names,
    "repeated_traces": _repeated_traces,
}
