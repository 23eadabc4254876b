"""What all parts of MLflow's registry store on a lake share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.utils.validation import _validate_model_name, _validate_model_version

from runlake.errors import NotFoundError
from runlake.mlflow_plugin.errors import translated
from runlake.mlflow_plugin.lakes import lake_of
from runlake.mlflow_plugin.model_places import ModelPlaces

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag

    from runlake.lake import Lake
    from runlake.query.registered import Model, Version
    from runlake.registry.registry import Registry


class RegistryBase(AbstractStore):  # type: ignore[misc]  # MLflow's have no types
    """A registry store that MLflow made for the address of a lake; threads may share it.

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

    # Inside.

    def _model(self, name: str) -> Model:
        """Return a model."""
        _validate_model_name(name)
        with looking_for(name):
            return self._registry.standing(name).by_name[name]

    def _changed(self, name: str) -> Model:
        """Return a model that this call has just changed, without reading the store again."""
        model = self._registry.changed().by_name.get(name)
        return self._model(name) if model is None else model

    def _changed_version(self, name: str, number: int) -> tuple[Model, Version]:
        """Return a model, and a version of it that this call has just changed."""
        model = self._changed(name)
        version = model.versions.get(number)
        if version is None or version.is_deleted:
            return self._version(name, number)
        return model, version

    def _version(self, name: str, version: int | str) -> tuple[Model, Version]:
        """Return a model, and a version that is not deleted."""
        number = checked(name, version)
        with looking_for(name, number):
            known = self._registry.standing(name)
            if number not in known.by_name[name].versions:
                self._registry.get_model_version(name, number)  # or what only its claim says
                known = self._registry.standing(name)
            model = known.by_name[name]
            if model.versions[number].is_deleted:
                raise NotFoundError(f"version {number} of registered model {name!r} is deleted.")
            return model, model.versions[number]


@contextmanager
def looking_for(name: str, version: int | None = None) -> Iterator[None]:
    """Say in MLflow's words what is not there.

    Args:
        name: of the model.
        version: of it; None: the model itself is looked for.

    Yields:
        Nothing.

    Raises:
        MlflowException: it is not there.
    """
    try:
        yield
    except NotFoundError as error:
        if version is None:
            message = f"Registered Model with name={name} not found: {error}"
        else:
            message = f"Model Version (name={name}, version={version}) not found: {error}"
        raise absent(message) from error


def checked(name: str, version: int | str) -> int:
    """Return the number of a version; refuse what is none, or no name.

    Args:
        name: of its model.
        version: its number, which may come as text.

    Returns:
        The number, from 1.

    Raises:
        MlflowException: the name or the version is none.
    """
    _validate_model_name(name)
    try:
        _validate_model_version(version)
        number = int(version)
    except TypeError as error:
        message = f"Parameter 'version' must be an integer, got {version!r}."
        raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE) from error
    if number < 1:
        raise absent(f"Model Version (name={name}, version={version}) not found")
    return number


def absent(message: str) -> MlflowException:
    """Return the error that something is not there.

    Args:
        message: what.
    """
    return MlflowException(message, error_code=RESOURCE_DOES_NOT_EXIST)


def by_key(tags: Iterable[RegisteredModelTag | ModelVersionTag]) -> dict[str, object]:
    """Return values by key; of two with one key the last counts.

    Args:
        tags: MLflow's.
    """
    return {tag.key: tag.value for tag in tags}
