"""What stands about registered models as MLflow's entities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.entities.model_registry import (
    ModelVersion,
    ModelVersionTag,
    RegisteredModel,
    RegisteredModelAlias,
    RegisteredModelTag,
)

from runlake.mlflow_plugin import asked
from runlake.query.registered import READY

if TYPE_CHECKING:
    from runlake.query.registered import Model, Version


def model_entity(model: Model) -> RegisteredModel:
    """Return a model as MLflow's clients know it.

    Args:
        model: of the fold.

    Returns:
        The model, with the greatest version of each stage.
    """
    return RegisteredModel(
        model.name,
        creation_timestamp=milliseconds(model.created_us),
        last_updated_timestamp=milliseconds(model.updated_us),
        description=model.description,
        latest_versions=[version_entity(model, each) for each in latest(model)],
        tags=[RegisteredModelTag(*each) for each in model.tags.items()],
        aliases=[RegisteredModelAlias(*each) for each in sorted(model.aliases.items())],
    )


def latest(model: Model) -> list[Version]:
    """Return the greatest version of each stage that any is in.

    Args:
        model: of the fold.

    Returns:
        The versions; a stage stands where the first version stands that is in it, as in MLflow.
    """
    return [*{version.stage: version for version in model.shown}.values()]


def version_entity(model: Model, version: Version) -> ModelVersion:
    """Return a version of a model as MLflow's clients know it.

    Args:
        model: of the fold.
        version: one of its versions.

    Returns:
        The version, with its aliases.
    """
    aliases = [alias for alias, number in model.aliases.items() if number == version.number]
    return ModelVersion(
        model.name,
        version.number,  # MLflow says text, and its own stores give numbers
        creation_timestamp=milliseconds(version.created_us),
        last_updated_timestamp=milliseconds(version.updated_us),
        description=version.description,
        user_id=version.fact("user"),
        current_stage=version.stage,
        source=version.fact("source"),
        # Over HTTP MLflow has an empty text where no run made the version.
        run_id=version.fact("run_id") or ("" if asked.over_http() else None),
        status=READY,
        tags=[ModelVersionTag(*each) for each in version.tags.items()],
        run_link=version.fact("run_link"),
        aliases=sorted(aliases),
        model_id=version.fact("logged_model_id"),
    )


def milliseconds(time_us: int) -> int:
    """Return a time as MLflow has it.

    Args:
        time_us: microseconds since 1970, UTC.
    """
    return time_us // 1000
