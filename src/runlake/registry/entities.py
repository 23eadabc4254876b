"""Registered models and their versions as objects that read like MLflow's.

Times are milliseconds since 1970, as MLflow's clients expect; versions are whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runlake.query.registered import READY

if TYPE_CHECKING:
    from runlake.query import registered


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model, as one snapshot knows it.

    Attributes:
        name: of its model.
        version: its number, from 1.
        creation_timestamp: milliseconds since 1970.
        last_updated_timestamp: milliseconds since 1970.
        description: what it is; empty where nobody said.
        user_id: who made it.
        current_stage: `None`, `Staging`, `Production` or `Archived`.
        source: where its files come from, as it was given.
        location: where its files lie: `runs:/<run id>/<path>`, or a URL.
        run_id: the run that made it, None where nobody said.
        run_link: a link to that run.
        logged_model_id: the logged model that it is, None where it is none.
        status: `READY`.
        status_message: nothing.
        tags: text by key.
        aliases: in the order of letters.
    """

    name: str
    version: int
    creation_timestamp: int
    last_updated_timestamp: int
    description: str
    user_id: str
    current_stage: str
    source: str
    location: str
    run_id: str | None
    run_link: str | None
    logged_model_id: str | None
    status: str
    status_message: str | None
    tags: dict[str, str]
    aliases: list[str]


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered model, as one snapshot knows it.

    Attributes:
        name: what people call it.
        model_id: stays when the name changes.
        creation_timestamp: milliseconds since 1970.
        last_updated_timestamp: milliseconds since 1970.
        description: what it is; empty where nobody said.
        user_id: who made it.
        latest_versions: the greatest version of each stage that any is in, in MLflow's order
            of stages.
        tags: text by key.
        aliases: the version of each alias.
    """

    name: str
    model_id: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str
    user_id: str
    latest_versions: list[ModelVersion]
    tags: dict[str, str]
    aliases: dict[str, int]


def model_entity(model: registered.Model) -> RegisteredModel:
    """Return a model as users see it."""
    return RegisteredModel(
        name=model.name,
        model_id=model.model_id,
        creation_timestamp=model.created_us // 1000,
        last_updated_timestamp=model.updated_us // 1000,
        description=model.description or "",
        user_id=model.user,
        latest_versions=[version_entity(model, each) for each in model.latest.values()],
        tags=dict(model.tags),
        aliases=dict(sorted(model.aliases.items())),
    )


def version_entity(model: registered.Model, version: registered.Version) -> ModelVersion:
    """Return a version of a model as users see it."""
    return ModelVersion(
        name=model.name,
        version=version.number,
        creation_timestamp=version.created_us // 1000,
        last_updated_timestamp=version.updated_us // 1000,
        description=version.description or "",
        user_id=version.fact("user") or "",
        current_stage=version.stage,
        source=version.fact("source") or "",
        location=version.fact("location") or "",
        run_id=version.fact("run_id"),
        run_link=version.fact("run_link"),
        logged_model_id=version.fact("logged_model_id"),
        status=READY,
        status_message=None,
        tags=dict(version.tags),
        aliases=sorted(alias for alias, of in model.aliases.items() if of == version.number),
    )
