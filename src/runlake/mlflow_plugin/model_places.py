"""Where the files of a registered version lie, in the lake's words and in MLflow's.

MLflow's client gives a source as its own store had it: an address in the lake from whoever uses
the lake directly, one that begins with `mlflow-artifacts:` from whoever uses a server on it. The
version keeps that as it is, and beside it where the files lie in the lake. So each is answered
with an address that it can read, and a lake that was moved is still whole.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from runlake.errors import InvalidInputError, NotFoundError
from runlake.mlflow_plugin import uris
from runlake.registry.uris import RUNS, parse_run_uri, run_uri

if TYPE_CHECKING:
    from runlake.lake import Lake

_PROXY: Final = "mlflow-artifacts"
_PROXIED: Final = "artifacts"
# How MLflow's server says where its runs keep artifacts.
_ROOT_VARIABLE: Final = "_MLFLOW_SERVER_ARTIFACT_ROOT"


class Spot(NamedTuple):
    """A file or folder in a lake.

    Attributes:
        experiment_id: its experiment.
        run_id: its run, or the logged model that has none.
        path: below that; empty means all.
    """

    experiment_id: str
    run_id: str
    path: str


class ModelPlaces:
    """The places of one lake."""

    def __init__(self, store_uri: str) -> None:
        """Read nothing yet.

        Args:
            store_uri: of the lake, as MLflow has it.
        """
        self._store_uri = store_uri
        self._url = uris.lake_url(store_uri)

    def location(self, lake: Lake, source: str) -> str:
        """Return where the files of a source lie, in the lake's own words.

        Args:
            lake: this one.
            source: as MLflow has it.

        Returns:
            `runs:/<run id>/<path>`, or a URL; the source itself where it is not in the lake.

        Raises:
            StorageError: the store cannot be read.
        """
        spot = _direct(source, self._url) or _proxied(source)
        if spot is None:
            return source
        try:
            is_run = lake.get_run(spot.run_id).info.experiment_id == spot.experiment_id
        except (NotFoundError, InvalidInputError):
            is_run = False
        if is_run:
            return run_uri(spot.run_id, spot.path)
        if _proxied(source) and not is_proxy():  # another server's
            return source
        return "/".join(
            part
            for part in (lake.artifacts.uri(spot.experiment_id, spot.run_id), spot.path)
            if part
        )

    def uri(self, lake: Lake, source: str, location: str) -> str:
        """Return the address from which MLflow fetches the files of a version.

        Args:
            lake: this one.
            source: as it was given.
            location: as `location` told when the version was made.

        Returns:
            For a server that hands artifacts on an address of its own, else one in the lake; of
            what is not in the lake, the location.

        Raises:
            StorageError: the store cannot be read.
        """
        if source.startswith(RUNS) or location == source:
            return location
        spot = _direct(source) or _proxied(source)
        if location.startswith(RUNS):
            run_id, path = parse_run_uri(location)
            if spot is None:
                try:
                    spot = Spot(lake.get_run(run_id).info.experiment_id, run_id, path)
                except NotFoundError:
                    return location
        else:
            spot = self._stored(lake, location)
        return location if spot is None else self._told(spot)

    def _told(self, spot: Spot) -> str:
        """Return the address of a spot for whoever asks this process."""
        path = [spot.path] if spot.path else []
        if is_proxy():
            return f"{_PROXY}:/" + "/".join([spot.experiment_id, spot.run_id, _PROXIED, *path])
        return uris.artifact_uri(self._store_uri, spot.experiment_id, spot.run_id, *path)

    def _stored(self, lake: Lake, url: str) -> Spot | None:
        """Read an address in the store that the lake lies in."""
        root = lake.artifacts.uri("", "")
        return (
            _spot(url.removeprefix(f"{root}/").split("/")) if url.startswith(f"{root}/") else None
        )


def served_root() -> str | None:
    """Return where new experiments keep artifacts, if this process is MLflow's server."""
    return os.environ.get(_ROOT_VARIABLE) or None


def is_proxy() -> bool:
    """Tell whether this process is a server that hands artifacts on to its clients."""
    return (served_root() or "").startswith(f"{_PROXY}:")


def _direct(uri: str, lake_url: str | None = None) -> Spot | None:
    """Read an address in a lake; None where it is not in the one that is asked for."""
    if not uri.startswith(tuple(f"{scheme}:" for scheme in uris.SCHEMES)):
        return None
    try:
        store_uri, parts = uris.split_artifact_uri(uri)
        if lake_url is not None and uris.lake_url(store_uri) != lake_url:
            return None
    except InvalidInputError:
        return None
    return _spot(parts)


def _proxied(uri: str) -> Spot | None:
    """Read an address of a server that hands artifacts on."""
    if not uri.startswith(f"{_PROXY}:"):
        return None
    experiment_id, *rest = urlsplit(uri).path.strip("/").split("/")
    if len(rest) < len(("run", _PROXIED)) or rest[1] != _PROXIED:
        return None
    return _spot([experiment_id, rest[0], *rest[2:]])


def _spot(parts: list[str]) -> Spot | None:
    if len(parts) < len(("experiment", "run")):
        return None
    return Spot(parts[0], parts[1], "/".join(parts[2:]))
