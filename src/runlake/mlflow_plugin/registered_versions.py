"""The versions of registered models, as MLflow's clients and its server ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from mlflow.entities.model_registry.model_version_stages import (
    DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS,
    get_canonical_stage,
)
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.store.artifact.utils.models import _parse_model_uri
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry import (
    SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT,
    SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD,
)
from mlflow.utils.time import get_current_time_millis
from mlflow.utils.validation import (
    _validate_model_name,
    _validate_model_version_tag,
    _validate_tag_name,
)

from runlake._lazy import lazy
from runlake.errors import InvalidInputError, RunlakeError
from runlake.mlflow_plugin import registered_search as search
from runlake.mlflow_plugin.errors import translated
from runlake.mlflow_plugin.model_places import served_root
from runlake.mlflow_plugin.registered_entities import version_entity
from runlake.mlflow_plugin.registry_base import RegistryBase, by_key, checked, looking_for
from runlake.mlflow_plugin.serving import tracked_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

    from runlake.mlflow_plugin import tracking
    from runlake.mlflow_plugin.tracking import TrackingStore
else:
    tracking = lazy("runlake.mlflow_plugin.tracking")


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


class VersionStore(RegistryBase):
    """The part of the store that is about versions."""

    @translated
    def create_model_version(  # noqa: PLR0917 - MLflow's
        self,
        name: str,
        source: str,
        run_id: str | int | None = None,
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
        with looking_for(name):
            made = self._registry.create_model_version(
                name,
                source,
                run_id=str(run_id) if run_id else None,
                tags=by_key(given),
                run_link=run_link,
                description=description,
                location=origin.location,
                logged_model_id=model_id or origin.model_id,
                creation_time=get_current_time_millis(),
            )
        return version_entity(*self._changed_version(name, made.version))

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
        number = checked(name, version)
        with looking_for(name, number):
            self._registry.update_model_version(name, number, description=description)
        return version_entity(*self._changed_version(name, number))

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
        number = checked(name, version)
        with looking_for(name, number):
            self._registry.transition_model_version_stage(
                name, number, wanted, archive_existing_versions=bool(archive_existing_versions)
            )
        return version_entity(*self._changed_version(name, number))

    @translated
    def delete_model_version(self, name: str, version: int | str) -> None:
        """Delete a version with its aliases; its number is never given out again.

        Args:
            name: of the model.
            version: its number.

        Raises:
            MlflowException: there is no such version.
        """
        number = checked(name, version)
        with looking_for(name, number):
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
            is_whole = isinstance(max_results, int) and max_results > 0
            what = "request parameter max_results" if is_whole else "max_results"
            message = (
                f"Invalid value for {what}. It is a whole number from 1 to {limit}, got "
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
        number = checked(name, version)
        _validate_model_version_tag(tag.key, tag.value)
        with looking_for(name, number):
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
        number = checked(name, version)
        _validate_tag_name(key)
        with looking_for(name, number):
            self._registry.delete_model_version_tag(name, number, key)

    # Inside.

    def _origin(self, source: object) -> _Origin:
        """Return what a source says of where files lie, and what made them."""
        if not isinstance(source, str):
            message = f"Missing value for required parameter 'source', got {source!r}."
            raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
        if urlsplit(source).scheme != "models":
            return _Origin(self._places.location(self.lake, source), None, None)
        parsed = _parse_model_uri(source)
        try:
            if parsed.model_id is not None:
                model = self._logged_model(parsed.model_id)
                location = self._places.location(self.lake, model.artifact_location)
                return _Origin(location, model.source_run_id, model.model_id)
            if parsed.version is None:
                raise InvalidInputError("a source names a version by its number.")
            _, version = self._version(parsed.name, parsed.version)
            return _Origin(version.fact("location") or version.fact("source") or "", None, None)
        except (MlflowException, RunlakeError) as error:
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
            # A server's worker may open the registry before it knows where runs are tracked.
            elsewhere = tracked_at() or self._tracking_uri
            is_elsewhere = elsewhere not in {None, self.store_uri}
            if not is_elsewhere or error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
        from mlflow.tracking import MlflowClient  # noqa: PLC0415 - it imports the stores

        return MlflowClient(elsewhere).get_logged_model(model_id)

    def _tracking(self) -> TrackingStore:
        """Return the lake's own tracking store."""
        store: TrackingStore = tracking.TrackingStore(self.store_uri, served_root())
        return store
