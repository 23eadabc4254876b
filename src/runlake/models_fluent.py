"""The module functions of the model registry: the same deeds on the current lake, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runlake.active import current_lake

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runlake.query.entities import Page
    from runlake.registry.entities import ModelVersion, RegisteredModel


def register_model(
    model_uri: str,
    name: str,
    await_registration_for: int = 300,  # noqa: ARG001 - MLflow's; a version is ready at once
    *,
    tags: Mapping[str, object] | None = None,
) -> ModelVersion:
    """Make a version of a model from files that are there. As `Registry.register_model`."""
    return current_lake().registry.register_model(model_uri, name, tags=tags)


def create_registered_model(
    name: str, tags: Mapping[str, object] | None = None, description: str | None = None
) -> RegisteredModel:
    """Make a model. As `Registry.create_registered_model`."""
    return current_lake().registry.create_registered_model(name, tags, description=description)


def create_model_version(
    name: str,
    source: str,
    run_id: str | None = None,
    tags: Mapping[str, object] | None = None,
    run_link: str | None = None,
    description: str | None = None,
) -> ModelVersion:
    """Make the next version of a model. As `Registry.create_model_version`."""
    return current_lake().registry.create_model_version(
        name, source, run_id=run_id, tags=tags, run_link=run_link, description=description
    )


def set_registered_model_alias(name: str, alias: str, version: int | str) -> None:
    """Let an alias mean a version. As `Registry.set_registered_model_alias`."""
    current_lake().registry.set_registered_model_alias(name, alias, version)


def delete_registered_model_alias(name: str, alias: str) -> None:
    """Take an alias away. As `Registry.delete_registered_model_alias`."""
    current_lake().registry.delete_registered_model_alias(name, alias)


def get_model_version_by_alias(name: str, alias: str) -> ModelVersion:
    """Return the version that an alias means. As `Reading.get_model_version_by_alias`."""
    return current_lake().registry.get_model_version_by_alias(name, alias)


def transition_model_version_stage(
    name: str,
    version: int | str,
    stage: str,
    archive_existing_versions: bool = False,  # noqa: FBT001, FBT002 - MLflow's signature
) -> ModelVersion:
    """Move a version to a stage. As `Registry.transition_model_version_stage`."""
    return current_lake().registry.transition_model_version_stage(
        name, version, stage, archive_existing_versions=archive_existing_versions
    )


def set_model_version_tag(name: str, version: int | str, key: str, value: object) -> None:
    """Set a tag of a version. As `Registry.set_model_version_tag`."""
    current_lake().registry.set_model_version_tag(name, version, key, value)


def copy_model_version(src_model_uri: str, dst_name: str) -> ModelVersion:
    """Make a version that is a copy of another. As `Registry.copy_model_version`."""
    return current_lake().registry.copy_model_version(src_model_uri, dst_name)


def search_registered_models(
    max_results: int | None = None,
    filter_string: str | None = None,
    order_by: Sequence[str] | None = None,
) -> Page[RegisteredModel]:
    """Find models, with MLflow's arguments. As `Reading.search_registered_models`."""
    return current_lake().registry.search_registered_models(
        filter_string, max_results=max_results, order_by=order_by
    )


def search_model_versions(
    max_results: int | None = None,
    filter_string: str | None = None,
    order_by: Sequence[str] | None = None,
) -> Page[ModelVersion]:
    """Find versions of models, with MLflow's arguments. As `Reading.search_model_versions`."""
    return current_lake().registry.search_model_versions(
        filter_string, max_results=max_results, order_by=order_by
    )
