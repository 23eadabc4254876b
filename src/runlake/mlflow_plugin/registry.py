"""MLflow's model registry on a lake.

Models, versions, aliases, stages and tags are those of `lake.registry`; what MLflow refuses is
refused with its codes. Every change is in the store when its call returns, and leaves a trail in
the view `registry_events`. Prompts are models with a tag, as in MLflow's own stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mlflow.entities.model_registry.model_version_stages import ALL_STAGES, get_canonical_stage
from mlflow.exceptions import MlflowException
from mlflow.prompt.registry_utils import handle_resource_already_exist_error, has_prompt_tag
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_ALREADY_EXISTS
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry import (
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD,
)
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.validation import (
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
    _validate_model_renaming,
    _validate_registered_model_tag,
    _validate_tag_name,
)

from runlake.errors import AlreadyExistsError
from runlake.mlflow_plugin import registered_search as search
from runlake.mlflow_plugin.errors import translated
from runlake.mlflow_plugin.refusals import refusing
from runlake.mlflow_plugin.registered_entities import latest, model_entity, version_entity
from runlake.mlflow_plugin.registered_versions import VersionStore
from runlake.mlflow_plugin.registry_base import absent, by_key, checked, looking_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlflow.entities.model_registry import ModelVersion, RegisteredModel, RegisteredModelTag
    from mlflow.entities.webhook import Webhook, WebhookEvent

_LATEST: Final = "latest"


@refusing
class RegistryStore(VersionStore):
    """What `mlflow.set_registry_uri("runlake:...")` leads to; threads may share it.

    What is not here raises MLflow's own error that it is not implemented.
    """

    # Models.

    @translated
    def create_registered_model(
        self,
        name: str,
        tags: Iterable[RegisteredModelTag] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,  # noqa: ARG002 - Databricks' own
    ) -> RegisteredModel:
        """Make a model.

        Args:
            name: 1 to 500 printable characters without `/` and `:`.
            tags: its first tags; of two with one key the last counts.
            description: what it is.
            deployment_job_id: is not kept.

        Returns:
            The model.

        Raises:
            MlflowException: the name is taken by a model or a prompt, or something is wrong.
        """
        _validate_model_name(name)
        given = list(tags or ())
        for tag in given:
            _validate_registered_model_tag(tag.key, tag.value)
        try:
            self._registry.create_registered_model(
                name,
                by_key(given),
                description=description,
                creation_time=get_current_time_millis(),
            )
        except AlreadyExistsError:
            model = self._model(name)
            is_prompt = has_prompt_tag(model.tags)
            handle_resource_already_exist_error(name, is_prompt, has_prompt_tag(given))
        return model_entity(self._changed(name))

    @translated
    def update_registered_model(
        self,
        name: str,
        description: str | None,
        deployment_job_id: str | None = None,  # noqa: ARG002 - Databricks' own
    ) -> RegisteredModel:
        """Describe a model.

        Args:
            name: of the model.
            description: what it is; None takes the description away.
            deployment_job_id: is not kept.

        Returns:
            The model as it is then.

        Raises:
            MlflowException: there is no such model.
        """
        _validate_model_name(name)
        with looking_for(name):
            self._registry.update_registered_model(name, description)
        return model_entity(self._changed(name))

    @translated
    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Give a model another name.

        Args:
            name: of the model.
            new_name: as for `create_registered_model`.

        Returns:
            The model under its new name.

        Raises:
            MlflowException: there is no such model, or the new name is taken or none.
        """
        _validate_model_renaming(new_name)
        _validate_model_name(name)
        try:
            with looking_for(name):
                self._registry.rename_registered_model(name, new_name)
        except AlreadyExistsError as error:
            message = f"Registered Model (name={new_name}) already exists. Error: {error}"
            raise MlflowException(message, error_code=RESOURCE_ALREADY_EXISTS) from error
        return model_entity(self._changed(new_name))

    @translated
    def delete_registered_model(self, name: str) -> None:
        """Delete a model with all its versions; the name becomes free.

        Args:
            name: of the model.

        Raises:
            MlflowException: there is no such model.
        """
        _validate_model_name(name)
        with looking_for(name):
            self._registry.delete_registered_model(name)

    @translated
    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a model.

        Args:
            name: of the model.

        Raises:
            MlflowException: there is no such model.
        """
        return model_entity(self._model(name))

    @translated
    def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | bytes | None = None,
    ) -> PagedList[RegisteredModel]:
        """Find models.

        Args:
            filter_string: over `name` and `tags.<key>`, joined by AND.
            max_results: greatest number of models, at most 1,000.
            order_by: by `name` or `last_updated_timestamp`; None means by name.
            page_token: of the page before.

        Returns:
            One page, and the token of the next. Prompts are there only if the filter asks for
            the tag `mlflow.prompt.is_prompt`.

        Raises:
            MlflowException: an argument cannot be read.
        """
        limit = SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD
        if max_results > limit:
            message = (
                f"Invalid value for request parameter max_results. It is at most {limit}, got "
                f"{max_results!r}."
            )
            raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
        pick = search.Pick(order_by, max_results, page_token)
        found = search.find_models(self._registry.standing(), filter_string, pick)
        return PagedList(map(model_entity, found), found.token)

    @translated
    def get_latest_versions(
        self, name: str, stages: Sequence[str] | None = None
    ) -> list[ModelVersion]:
        """Return the greatest version of each stage that any is in.

        Args:
            name: of the model.
            stages: only of these; None or none means all.

        Raises:
            MlflowException: there is no such model, or a stage is none.
        """
        model = self._model(name)
        wanted = {get_canonical_stage(stage) for stage in stages or ALL_STAGES}
        return [
            version_entity(model, version) for version in latest(model) if version.stage in wanted
        ]

    @translated
    def set_registered_model_tag(self, name: str, tag: RegisteredModelTag) -> None:
        """Set a tag of a model.

        Args:
            name: of the model.
            tag: key and value.

        Raises:
            MlflowException: there is no such model, or the tag is none.
        """
        _validate_model_name(name)
        _validate_registered_model_tag(tag.key, tag.value)
        with looking_for(name):
            self._registry.set_registered_model_tag(name, tag.key, tag.value)

    @translated
    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Take a tag of a model away; where it has none, nothing happens.

        Args:
            name: of the model.
            key: of the tag.

        Raises:
            MlflowException: there is no such model, or it is no key.
        """
        _validate_model_name(name)
        _validate_tag_name(key)
        with looking_for(name):
            self._registry.delete_registered_model_tag(name, key)

    # Aliases.

    @translated
    def set_registered_model_alias(self, name: str, alias: str, version: int | str) -> None:
        """Let an alias mean a version.

        Args:
            name: of the model.
            alias: letters, digits, `_` and `-`; neither `latest` nor like `v1`.
            version: its number.

        Raises:
            MlflowException: there is no such version, or it is no alias.
        """
        _validate_model_name(name)
        _validate_model_alias_name(alias)
        _validate_model_alias_name_reserved(alias)
        number = checked(name, version)
        with looking_for(name, number):
            self._registry.set_registered_model_alias(name, alias, number)

    @translated
    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Take an alias away; where the model has none, nothing happens.

        Args:
            name: of the model.
            alias: of a version.

        Raises:
            MlflowException: there is no such model, or it is no alias.
        """
        _validate_model_name(name)
        _validate_model_alias_name(alias)
        with looking_for(name):
            self._registry.delete_registered_model_alias(name, alias)

    @translated
    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """Return the version that an alias means; `latest` is the greatest of all.

        Args:
            name: of the model.
            alias: of the version.

        Raises:
            MlflowException: there is no such model, or it has no such alias.
        """
        _validate_model_name(name)
        _validate_model_alias_name(alias)
        model = self._model(name)
        if alias.lower() == _LATEST:
            found = max(latest(model), key=lambda each: each.number, default=None)
            if found is None:
                raise absent(f"Latest version not found for model {name}.")
            return version_entity(model, found)
        number = model.aliases.get(alias)
        if number is None:
            message = f"Registered model alias {alias} not found."
            raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
        return version_entity(model, model.versions[number])

    def _await_model_version_creation(self, mv: ModelVersion, await_creation_for: float) -> None:
        """Wait for nothing: a version is ready when it is made."""

    # Webhooks: there are none; MLflow's server asks for them at each change.

    def list_webhooks(
        self,
        max_results: int | None = None,  # noqa: ARG002 - MLflow's
        page_token: str | None = None,  # noqa: ARG002 - as above
    ) -> PagedList[Webhook]:
        """Return no webhooks; making one raises.

        Args:
            max_results: does not matter.
            page_token: does not matter.
        """
        return PagedList([], None)

    def list_webhooks_by_event(
        self,
        event: WebhookEvent,  # noqa: ARG002 - MLflow's
        max_results: int | None = None,  # noqa: ARG002 - as above
        page_token: str | None = None,  # noqa: ARG002 - as above
    ) -> PagedList[Webhook]:
        """Return no webhooks; making one raises.

        Args:
            event: does not matter.
            max_results: does not matter.
            page_token: does not matter.
        """
        return PagedList([], None)
