"""MLflow's artifact repository for files in a lake.

A file lies where the lake's own functions look for it, whoever sent it: MLflow's client straight
to the store, or a server that takes artifacts for its clients. An event in the run's record says
its size and digest, of runs that have ended too; a file that is fetched is held against that.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository, verify_artifact_path
from mlflow.utils.file_utils import create_tmp_dir

from runlake.errors import NotFoundError
from runlake.mlflow_plugin import uris
from runlake.mlflow_plugin.errors import translated
from runlake.mlflow_plugin.lakes import lake_of

if TYPE_CHECKING:
    import os

    from runlake.artifacts.progress import Progress
    from runlake.artifacts.store import Artifacts

_MODEL: Final = re.compile(rf"{uris.MODELS_FOLDER}/m-[\w-]+(/.*)?")
# What a server puts between a run and its files.
_PROXIED: Final = "artifacts"
_PLACE: Final = ("experiment", "run")


class _Spot(NamedTuple):
    """What a path of the repository means.

    Attributes:
        artifacts: of its experiment.
        run_id: its run, or the logged model that has none.
        path: below that; empty means all.
    """

    artifacts: Artifacts
    run_id: str
    path: str


class LakeArtifactRepository(ArtifactRepository):  # type: ignore[misc]  # MLflow's has no types
    """The files below an address in a lake; threads may share it.

    The address is that of a run, of a folder of one, or of all artifacts: then paths begin with
    experiment, run and the word `artifacts`, as MLflow's server has them.
    """

    @translated
    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        """Open the lake; nothing is read.

        Args:
            artifact_uri: as `uris.artifact_uri` makes them.
            tracking_uri: MLflow's current one.
            registry_uri: MLflow's current one.

        Raises:
            MlflowException: it is no address of artifacts in a lake.
        """
        self._store_uri, self._parts = uris.split_artifact_uri(artifact_uri)
        lake_of(self._store_uri)
        _checked("/".join(self._parts))
        super().__init__(artifact_uri, tracking_uri, registry_uri)

    @translated
    def log_artifact(
        self, local_file: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Send one file; it is in the store when this returns.

        Args:
            local_file: the file.
            artifact_path: folder to put it in; None is the repository's own.

        Raises:
            MlflowException: there is no such file, the path leaves the run, or the store
                refused.
        """
        spot = self._target(artifact_path, Path(local_file).name)
        spot.artifacts.add(
            spot.run_id, local_file, artifact_path=spot.path or None, progress=_silent
        )

    @translated
    def log_artifacts(
        self, local_dir: str | os.PathLike[str], artifact_path: str | None = None
    ) -> None:
        """Send all files below a folder; they are in the store when this returns.

        Args:
            local_dir: the folder; its own name is left out.
            artifact_path: folder to put them in; None is the repository's own.

        Raises:
            MlflowException: there is no such folder, the path leaves the run, or the store
                refused.
        """
        names = {each.name for each in Path(local_dir).iterdir()} if not artifact_path else set()
        spot = self._target(artifact_path, *names)
        spot.artifacts.add(
            spot.run_id,
            local_dir,
            artifact_path=spot.path or None,
            is_content=True,
            progress=_silent,
        )

    @translated
    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List the files and folders directly below a folder.

        Args:
            path: the folder; None is the repository's own.

        Returns:
            One entry each, by path; none if it is a file, or nothing is there. The folder that
            a run keeps its logged models in is not listed.

        Raises:
            MlflowException: the path leaves the run, or the store refused.
        """
        outer = _asked(path)
        spot = self._spot(outer)
        return [
            FileInfo(posixpath.join(outer, posixpath.basename(each.path)), each.is_dir, size)
            for each in spot.artifacts.list(spot.run_id, spot.path)
            for size in [each.file_size]
            if each.path != uris.MODELS_FOLDER
        ]

    @translated
    def download_artifacts(self, artifact_path: str | None, dst_path: str | None = None) -> str:
        """Fetch a file, or a folder with all below it, and check their digests.

        Args:
            artifact_path: the file or folder; None or empty means everything.
            dst_path: an existing local folder; None makes a temporary one.

        Returns:
            Where the file or folder now lies.

        Raises:
            MlflowException: there is no such artifact or folder, a file is not what was logged,
                or the store refused.
        """
        folder = _folder(dst_path)
        outer = _asked(artifact_path)
        spot = self._spot(outer)
        but = None if spot.path else uris.MODELS_FOLDER
        target = folder / outer
        try:
            spot.artifacts.download_as(
                spot.run_id, spot.path, target=target, but=but, progress=_silent
            )
        except NotFoundError as error:
            if outer:
                raise _is_missing(outer, error) from error
        return str(target)

    @translated
    def _download_file(self, remote_file_path: str, local_path: str | os.PathLike[str]) -> None:
        """Fetch one file, and check its digest.

        Args:
            remote_file_path: the file.
            local_path: what it becomes.

        Raises:
            MlflowException: there is no such file, it is not what was logged, or the store
                refused.
        """
        spot = self._spot(_asked(remote_file_path))
        target = Path(local_path).absolute()
        try:
            spot.artifacts.download_as(spot.run_id, spot.path, target=target, progress=_silent)
        except NotFoundError as error:
            raise _is_missing(remote_file_path, error) from error

    @translated
    def get_local_path(self, artifact_path: str) -> str | None:
        """Return the file that an artifact is, for a server that hands it on.

        Args:
            artifact_path: the file.

        Returns:
            The file, which must not be changed; None where the lake is no folder.

        Raises:
            MlflowException: there is no such artifact, or it is a folder.
        """
        spot = self._spot(_asked(artifact_path))
        try:
            found = spot.artifacts.local_file(spot.run_id, spot.path)
        except NotFoundError as error:
            if spot.path and spot.artifacts.list(spot.run_id, spot.path):
                message = f"{artifact_path!r} refers to a directory, not a file."
                raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE) from error
            raise _is_missing(artifact_path, error) from error
        return None if found is None else str(found)

    @translated
    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file, or a folder with all below it, for ever; an event says so.

        Args:
            artifact_path: the file or folder; None means everything but the logged models of
                the run. Where nothing is there, nothing happens.

        Raises:
            MlflowException: the path leaves the run, or the store refused.
        """
        spot = self._spot(_checked(artifact_path))
        paths = [spot.path]
        if not spot.path:
            listed = spot.artifacts.list(spot.run_id)
            paths = [each.path for each in listed if each.path != uris.MODELS_FOLDER]
        for path in paths:
            try:
                spot.artifacts.delete(spot.run_id, path)
            except NotFoundError:
                continue

    # Inside.

    def _spot(self, outer: str) -> _Spot:
        """Return what a checked path means."""
        parts = [*self._parts, *outer.split("/")] if outer else self._parts
        if len(parts) < len(_PLACE):
            message = (
                f"{self.artifact_uri!r} holds the artifacts of all runs; the path {outer!r} names "
                "none. Write <experiment id>/<run id>/artifacts/<path>."
            )
            raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
        experiment_id, run_id, *inside = parts
        if not self._parts and inside[:1] == [_PROXIED]:
            inside = inside[1:]
        artifacts = lake_of(self._store_uri).artifacts.of(experiment_id)
        return _Spot(artifacts, run_id, "/".join(inside))

    def _target(self, folder: str | None, *names: str) -> _Spot:
        """Return what a folder means that something is put into.

        Args:
            folder: of the repository.
            *names: of what is put there.
        """
        spot = self._spot(_checked(folder))
        for name in names or ("",):
            path = posixpath.join(spot.path, name)
            first = path.split("/", maxsplit=1)[0]
            if first == uris.MODELS_FOLDER and not _MODEL.fullmatch(path):
                message = (
                    f"{path!r} lies in {uris.MODELS_FOLDER!r}, where a run keeps the logged "
                    "models that it made. Take another name."
                )
                raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE)
        return spot


def _checked(path: str | None) -> str:
    """Return a path without slashes at its end; refuse one that leads elsewhere."""
    text = (path or "").rstrip("/")
    if path and not text:
        text = path
    try:
        verify_artifact_path(text)
    except MlflowException as error:
        raise MlflowException(error.message, error_code=INVALID_PARAMETER_VALUE) from error
    return text


def _asked(path: str | None) -> str:
    """Return the checked path of what is to be read; a dot is everything, as in a local folder."""
    text = "" if path == "." else (path or "").removesuffix("/.")
    try:
        return _checked(text)
    except MlflowException as error:
        message = f"Invalid path: {error.message}"
        raise MlflowException(message, error_code=INVALID_PARAMETER_VALUE) from error


def _is_missing(path: str, error: NotFoundError) -> MlflowException:
    message = f"No such artifact: {path!r}. {error}"
    return MlflowException(message, error_code=RESOURCE_DOES_NOT_EXIST)


def _folder(given: str | None) -> Path:
    """Return the folder that files are fetched into."""
    if not given:
        return Path(create_tmp_dir())
    folder = Path(given).absolute()
    if not folder.is_dir():
        code = INVALID_PARAMETER_VALUE if folder.exists() else RESOURCE_DOES_NOT_EXIST
        what = "must be a directory" if folder.exists() else "does not exist"
        message = f"The destination path for downloaded artifacts {what}: {folder}"
        raise MlflowException(message, error_code=code)
    return folder


def _silent(_: Progress) -> None:
    """Show nothing: MLflow's clients do."""
