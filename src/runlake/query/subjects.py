"""What can be searched: which columns a filter or an order may name, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

# An id is text that sorts as a number where it is one, as MLflow's experiment ids do.
Holds = Literal["number", "text", "time", "id", "param", "tag"]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is searched: the columns that can be asked for, and what else.

    Attributes:
        attributes: the columns of its table, and what they hold.
        aliases: MLflow's other words for them, in lower case with "_" for " ".
        kinds: the entities that its fields may have, as they are written.
        default: the order where none is asked for.
        ties: what orders that leave ties fall to.
        lists: attributes of which there may be several, as SQL for the list.
        absences: kinds of fields that filters may compare with NULL; None means all.
    """

    attributes: Mapping[str, Holds]
    aliases: Mapping[str, str]
    kinds: Mapping[str, str]
    default: tuple[str, ...]
    ties: tuple[str, ...]
    lists: Mapping[str, str] = field(default_factory=dict)
    absences: frozenset[str] | None = None


RUNS: Final = Subject(
    attributes={
        "run_id": "text",
        "experiment_id": "id",
        "experiment_name": "text",
        "run_name": "text",
        "status": "text",
        "user_id": "text",
        "source_name": "text",
        "parent_run_id": "text",
        "lifecycle_stage": "text",
        "artifact_uri": "text",
        "start_time": "time",
        "end_time": "time",
        "duration": "number",
    },
    aliases={"created": "start_time", "user": "user_id", "source": "source_name"},
    kinds={"metric": "metrics", "param": "params", "tag": "tags", "dataset": "dataset"},
    default=(),
    ties=("start_time DESC", "run_id"),
)
EXPERIMENTS: Final = Subject(
    attributes={
        "experiment_id": "id",
        "name": "text",
        "lifecycle_stage": "text",
        "artifact_location": "text",
        "creation_time": "time",
        "last_update_time": "time",
    },
    aliases={"created": "creation_time", "updated": "last_update_time"},
    kinds={"tag": "tags"},
    default=("creation_time DESC", "experiment_id ASC"),
    ties=("experiment_id DESC",),
)
# MLflow's other words for the times of models and versions.
_TIMES: Final = {
    "created": "creation_time",
    "creation_timestamp": "creation_time",
    "updated": "last_update_time",
    "last_updated_timestamp": "last_update_time",
    "timestamp": "last_update_time",
}
MODELS: Final = Subject(
    attributes={
        "name": "text",
        "description": "text",
        "user_id": "text",
        "latest_version": "number",
        "creation_time": "time",
        "last_update_time": "time",
    },
    aliases={**_TIMES, "user": "user_id"},
    kinds={"tag": "tags"},
    default=("name ASC",),
    ties=("name ASC",),
    lists={"alias": "map_keys(r.aliases)"},
)
VERSIONS: Final = Subject(
    attributes={
        "name": "text",
        "version": "number",
        "run_id": "text",
        "source": "text",
        "stage": "text",
        "description": "text",
        "user_id": "text",
        "run_link": "text",
        "logged_model_id": "text",
        "creation_time": "time",
        "last_update_time": "time",
    },
    aliases={
        **_TIMES,
        "user": "user_id",
        "version_number": "version",
        "source_path": "source",
        "current_stage": "stage",
    },
    kinds={"tag": "tags"},
    default=("last_update_time DESC",),
    ties=("name ASC", "version DESC"),
    lists={"alias": "r.aliases"},
)
