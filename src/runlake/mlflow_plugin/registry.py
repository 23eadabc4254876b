"""MLflow's model registry on a lake.

Models, versions, aliases, stages and tags are those of `lake.registry`; what MLflow refuses is
refused with its codes. Every change is in the store when its call returns, and leaves a trail in
the view `registry_events`. Prompts are models with a tag, as in MLflow's own stores.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from mlflow.entities.model_registry.model_version_stages import (
    ALL_STAGES,
    DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS,
    get_canonical_stage,
)
from mlflow.exceptions import MlflowException
from mlflow.prompt.registry_utils import handle_resource_already_exist_error, has_prompt_tag
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.store.artifact.utils.models import _parse_model_uri
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry import (
    SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT,
    SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD,
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD,
)
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.validation import (
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
    _validate_model_renaming,
    _validate_model_version,
    _validate_model_version_tag,
    _validate_registered_model_tag,
    _validate_tag_name,
)

from runlake._lazy import lazy
from runlake.errors import AlreadyExistsError, NotFoundError, RunlakeError
from runlake.mlflow_plugin import registered_search as search
from runlake.mlflow_plugin.errors import translated
from runlake.mlflow_plugin.lakes import lake_of
from runlake.mlflow_plugin.model_places import ModelPlaces, served_root
from runlake.mlflow_plugin.registered_entities import latest, model_entity, version_entity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import (
        ModelVersion,
        ModelVersionTag,
        RegisteredModel,
        RegisteredModelTag,
    )
    from mlflow.entities.webhook import Webhook, WebhookEvent

    from runlake.lake import Lake
    from runlake.mlflow_plugin import tracking
    from runlake.mlflow_plugin.tracking import TrackingStore
    from runlake.query.registered import Model, Registered, Version
    from runlake.registry.registry import Registry
else:
    tracking = lazy("runlake.mlflow_plugin.tracking")

_LATEST: Final = "latest"


class RegistryStore(AbstractStore):  # type: ignore[misc]  # MLflow's have no types
    """MLflow's registry store for the address of a lake; threads may share it.

    Attributes:
        store_uri: of the lake, as MLflow has it.
    """

    @translated
    def __init__(self, store_uri: str, tracking_uri: str | None = None) -> None:
        """Open the lake; nothing is read.

        Args:
            store_uri: of the lake.
            tracking_uri: where logged models are that are not in the lake.

        Raises:
            MlflowException: it is no address of a lake.
        """
        super().__init__(store_uri, tracking_uri)
        self.store_uri = store_uri
        self._tracking_uri = tracking_uri
        self._places = ModelPlaces(store_uri)

    @property
    def lake(self) -> Lake:
        """The lake; a forked child has its own."""
        return lake_of(self.store_uri)

    @property
    def _registry(self) -> Registry:
        return self.lake.registry

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
            name: 1 to 250 printable characters without `/` and `:`.
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
                _by_key(given),
                description=description,
                creation_time=get_current_time_millis(),
            )
        except AlreadyExistsError:
            _, model = self._model(name)
            is_prompt = has_prompt_tag(model.tags)
            handle_resource_already_exist_error(name, is_prompt, has_prompt_tag(given))
        return model_entity(self._model(name)[1])

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
        with _looking_for(name):
            self._registry.update_registered_model(name, description)
        return model_entity(self._model(name)[1])

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
            with _looking_for(name):
                self._registry.rename_registered_model(name, new_name)
        except AlreadyExistsError as error:
            message = f"Registered Model (name={new_name}) already exists: {error}"
            raise MlflowException(message, error_code=RESOURCE_ALREADY_EXISTS) from error
        return model_entity(self._model(new_name)[1])

    @translated
    def delete_registered_model(self, name: str) -> None:
        """Delete a model with all its versions; the name becomes free.

        Args:
            name: of the model.

        Raises:
            MlflowException: there is no such model.
        """
        _validate_model_name(name)
        with _looking_for(name):
            self._registry.delete_registered_model(name)

    @translated
    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a model.

        Args:
            name: of the model.

        Raises:
            MlflowException: there is no such model.
        """
        return model_entity(self._model(name)[1])

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
        _, model = self._model(name)
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
        with _looking_for(name):
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
        with _looking_for(name):
            self._registry.delete_registered_model_tag(name, key)

    # Versions.

    @translated
    def create_model_version(  # noqa: PLR0917 - MLflow's
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Iterable[ModelVersionTag] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,  # noqa: ARG002 - files stay where they are
        model_id: str | None = None,
    ) -> ModelVersion:
        """Make the next version of a model.

        Args:
            name: of the model.
            source: where its files are, as any address.
            run_id: the run that made it; None takes it from the logged model, if there is one.
            tags: its first tags; of two with one key the last counts.
            run_link: a link to that run.
            description: what it is.
            local_model_path: is not needed.
            model_id: the logged model that it is.

        Returns:
            The version, which is ready.

        Raises:
            MlflowException: there is no such model, logged model or version, or something is
                wrong.
        """
        _validate_model_name(name)
        given = list(tags or ())
        for tag in given:
            _validate_model_version_tag(tag.key, tag.value)
        origin = self._origin(source)
        if not run_id:
            if origin.run_id is None and model_id:
                run_id = self._logged_model(model_id).source_run_id
            else:
                run_id = origin.run_id
        with _looking_for(name):
            made = self._registry.create_model_version(
                name,
                source,
                run_id=run_id or None,
                tags=_by_key(given),
                run_link=run_link,
                description=description,
                location=origin.location,
                logged_model_id=model_id or origin.model_id,
                creation_time=get_current_time_millis(),
            )
        return version_entity(*self._version(name, made.version))

    @translated
    def update_model_version(
        self, name: str, version: int | str, description: str | None = None
    ) -> ModelVersion:
        """Describe a version.

        Args:
            name: of the model.
            version: its number.
            description: what it is; None takes the description away.

        Returns:
            The version as it is then.

        Raises:
            MlflowException: there is no such version.
        """
        number = _checked(name, version)
        with _looking_for(name, number):
            self._registry.update_model_version(name, number, description=description)
        return version_entity(*self._version(name, number))

    @translated
    def transition_model_version_stage(
        self,
        name: str,
        version: int | str,
        stage: str,
        archive_existing_versions: bool,  # noqa: FBT001 - MLflow's
    ) -> ModelVersion:
        """Move a version to a stage.

        Args:
            name: of the model.
            version: its number.
            stage: `None`, `Staging`, `Production` or `Archived`, in any case of letters.
            archive_existing_versions: archive all others that are in the stage; only for
                `Staging` and `Production`.

        Returns:
            The version as it is then.

        Raises:
            MlflowException: there is no such version or stage, or none for which others may be
                archived.
        """
        wanted = get_canonical_stage(stage)
        if archive_existing_versions and wanted not in DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS:
            known = ", ".join(DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS)
            message = (
                "Model version transition cannot archive existing model versions because "
                f"{stage!r} is not an Active stage; these are {known}."
            )
            raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
        number = _checked(name, version)
        with _looking_for(name, number):
            self._registry.transition_model_version_stage(
                name, number, wanted, archive_existing_versions=bool(archive_existing_versions)
            )
        return version_entity(*self._version(name, number))

    @translated
    def delete_model_version(self, name: str, version: int | str) -> None:
        """Delete a version with its aliases; its number is never given out again.

        Args:
            name: of the model.
            version: its number.

        Raises:
            MlflowException: there is no such version.
        """
        number = _checked(name, version)
        with _looking_for(name, number):
            self._registry.delete_model_version(name, number)

    @translated
    def get_model_version(self, name: str, version: int | str) -> ModelVersion:
        """Return a version.

        Args:
            name: of the model.
            version: its number.

        Raises:
            MlflowException: there is no such version.
        """
        return version_entity(*self._version(name, version))

    @translated
    def get_model_version_download_uri(self, name: str, version: int | str) -> str:
        """Return the address of the files of a version.

        Args:
            name: of the model.
            version: its number.

        Returns:
            The source, or where what it names lies, as this process can read it.

        Raises:
            MlflowException: there is no such version.
        """
        _, found = self._version(name, version)
        source = found.fact("source") or ""
        return self._places.uri(self.lake, source, found.fact("location") or source)

    @translated
    def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: float = SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | bytes | None = None,
    ) -> PagedList[ModelVersion]:
        """Find versions.

        Args:
            filter_string: over `name`, `version_number`, `run_id`, `source_path` and
                `tags.<key>`, joined by AND.
            max_results: greatest number of versions, from 1 to 200,000.
            order_by: by `name`, `version_number`, `creation_timestamp` or
                `last_updated_timestamp`; None means what changed last.
            page_token: of the page before.

        Returns:
            One page, and the token of the next. Versions of prompts are there only if the
            filter asks for the tag `mlflow.prompt.is_prompt`.

        Raises:
            MlflowException: an argument cannot be read.
        """
        limit = SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD
        if not isinstance(max_results, int) or not 1 <= max_results <= limit:
            message = (
                f"Invalid value for max_results. It is a whole number from 1 to {limit}, got "
                f"{max_results!r}."
            )
            raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
        pick = search.Pick(order_by, max_results, page_token)
        found = search.find_versions(self._registry.standing(), filter_string, pick)
        return PagedList((version_entity(*each) for each in found), found.token)

    @translated
    def set_model_version_tag(self, name: str, version: int | str, tag: ModelVersionTag) -> None:
        """Set a tag of a version.

        Args:
            name: of the model.
            version: its number.
            tag: key and value.

        Raises:
            MlflowException: there is no such version, or the tag is none.
        """
        number = _checked(name, version)
        _validate_model_version_tag(tag.key, tag.value)
        with _looking_for(name, number):
            self._registry.set_model_version_tag(name, number, tag.key, tag.value)

    @translated
    def delete_model_version_tag(self, name: str, version: int | str, key: str) -> None:
        """Take a tag of a version away; where it has none, nothing happens.

        Args:
            name: of the model.
            version: its number.
            key: of the tag.

        Raises:
            MlflowException: there is no such version, or it is no key.
        """
        number = _checked(name, version)
        _validate_tag_name(key)
        with _looking_for(name, number):
            self._registry.delete_model_version_tag(name, number, key)

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
        number = _checked(name, version)
        with _looking_for(name, number):
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
        with _looking_for(name):
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
        _, model = self._model(name)
        if alias.lower() == _LATEST:
            found = max(latest(model), key=lambda each: each.number, default=None)
            if found is None:
                raise _absent(f"Latest version not found for model {name}.")
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

    # Inside.

    def _model(self, name: str) -> tuple[Registered, Model]:
        """Return what stands, and one model."""
        _validate_model_name(name)
        with _looking_for(name):
            known = self._registry.standing(name)
            return known, known.by_name[name]

    def _version(self, name: str, version: int | str) -> tuple[Model, Version]:
        """Return a model, and a version that is not deleted."""
        number = _checked(name, version)
        with _looking_for(name, number):
            known = self._registry.standing(name)
            if number not in known.by_name[name].versions:
                self._registry.get_model_version(name, number)  # or what only its claim says
                known = self._registry.standing(name)
            model = known.by_name[name]
            if model.versions[number].is_deleted:
                raise NotFoundError(f"version {number} of registered model {name!r} is deleted.")
            return model, model.versions[number]

    def _origin(self, source: str) -> _Origin:
        """Return what a source says of where files lie, and what made them."""
        if urlsplit(source).scheme != "models":
            return _Origin(self._places.location(self.lake, source), None, None)
        parsed = _parse_model_uri(source)
        try:
            if parsed.model_id is not None:
                model = self._logged_model(parsed.model_id)
                location = self._places.location(self.lake, model.artifact_location)
                return _Origin(location, model.source_run_id, model.model_id)
            _, version = self._version(parsed.name, parsed.version)
            return _Origin(version.fact("location") or version.fact("source") or "", None, None)
        except (MlflowException, RunlakeError, TypeError) as error:
            message = (
                f"Unable to fetch model from model URI source artifact location {source!r}: {error}"
            )
            code = error.error_code if isinstance(error, MlflowException) else None
            code = ErrorCode.Value(code) if code else INVALID_PARAMETER_VALUE
            raise MlflowException(message, error_code=code) from error

    def _logged_model(self, model_id: str) -> LoggedModel:
        """Return a logged model, of this lake or else from where runs are tracked."""
        try:
            return self._tracking().get_logged_model(model_id)
        except MlflowException as error:
            is_elsewhere = self._tracking_uri not in {None, self.store_uri}
            if not is_elsewhere or error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
        from mlflow.tracking import MlflowClient  # noqa: PLC0415 - it imports the stores

        return MlflowClient(self._tracking_uri).get_logged_model(model_id)

    def _tracking(self) -> TrackingStore:
        """Return the lake's own tracking store."""
        store: TrackingStore = tracking.TrackingStore(self.store_uri, served_root())
        return store


class _Origin(NamedTuple):
    """What a source says.

    Attributes:
        location: where its files lie.
        run_id: the run that made the logged model that it names.
        model_id: that logged model.
    """

    location: str
    run_id: str | None
    model_id: str | None


@contextmanager
def _looking_for(name: str, version: int | None = None) -> Iterator[None]:
    """Say in MLflow's words what is not there."""
    try:
        yield
    except NotFoundError as error:
        if version is None:
            message = f"Registered Model with name={name} not found: {error}"
        else:
            message = f"Model Version (name={name}, version={version}) not found: {error}"
        raise _absent(message) from error


def _checked(name: str, version: int | str) -> int:
    """Return the number of a version; refuse what is none, or no name."""
    _validate_model_name(name)
    _validate_model_version(version)
    number = int(version)
    if number < 1:
        raise _absent(f"Model Version (name={name}, version={version}) not found")
    return number


def _absent(message: str) -> MlflowException:
    return MlflowException(message, error_code=RESOURCE_DOES_NOT_EXIST)


def _by_key(tags: Iterable[RegisteredModelTag | ModelVersionTag]) -> dict[str, object]:
    return {tag.key: tag.value for tag in tags}
